"""Any other architecture: the forward pass of transformers, over padded batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchrouter.embeddings.devices import import_torch
from benchrouter.embeddings.weights.layout import EncoderFiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TransformersModel:
    """An AutoModel on its device.

    Parameters
    ----------
    files : EncoderFiles
    device : torch.device
    dtype : str

    Raises
    ------
    ValueError
        If the weights cannot be read or do not fit the architecture.
    """

    def __init__(self, files: EncoderFiles, device: torch.device, dtype: str) -> None:
        model = _load_model(files)
        self._model = model.to(device=device, dtype=getattr(import_torch(), dtype)).eval()

    def __call__(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states.

        Parameters
        ----------
        tokens, mask : int64 tensors, shape (n_rows, n_tokens)
            As `batching.pad` makes them, on the model's device.

        Returns
        -------
        tensor, shape (n_rows, n_tokens, dim)
        """
        hidden: Tensor = self._model(input_ids=tokens, attention_mask=mask)[0]
        return hidden


def _load_model(files: EncoderFiles) -> Any:
    from transformers import AutoModel

    try:
        with _quiet_transformers():
            model, info = AutoModel.from_pretrained(
                str(files.folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=import_torch().float32,
            )
    except Exception as error:  # safetensors and transformers raise many kinds for bad files
        raise ValueError(f"{files.folder}: found weights that do not load ({error})") from error
    # The pooler's output is not used; anything else would silently stay random.
    absent = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if absent:
        raise ValueError(
            f"{files.folder}: found no weights for {absent[0]} and {len(absent) - 1} more, "
            f"expected all of {type(model).__name__}'s"
        )
    if model.config.hidden_size != files.dim:
        raise ValueError(
            f"{files.folder}: found hidden size {model.config.hidden_size}, expected {files.dim}"
        )
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bar and load report off the terminal."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
