"""The transformer: padded tokens to unit rows on its device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.encoder.layout import EncoderFiles
from benchrouter.encoder.pooling import pool, unit_rows

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = ("float32", "bfloat16", "float16")


class Network:
    """Forward pass through transformers, pooled and normalised; safe to call from many threads.

    Parameters
    ----------
    files : EncoderFiles
    device : str
        "cpu" or "cuda:N", checked by `check_device`.
    dtype : str
        One of `DTYPES`.

    Raises
    ------
    ImportError
        If torch or transformers is not installed.
    ValueError
        If the weights cannot be read or do not fit the architecture.
    """

    def __init__(self, files: EncoderFiles, device: str, dtype: str) -> None:
        torch = import_torch()
        model = _load_model(files)
        self._torch = torch
        self._device = torch.device(device)
        self._model = model.to(device=self._device, dtype=getattr(torch, dtype)).eval()
        self._pooling = files.pooling

    def __call__(self, tokens: NDArray[np.int64], mask: NDArray[np.int64]) -> Tensor:
        """Embed one batch.

        Parameters
        ----------
        tokens, mask : int64 arrays, shape (n_rows, n_tokens)
            As `batching.pad` makes them.

        Returns
        -------
        float32 tensor, shape (n_rows, dim)
            Unit rows, on the network's device.
        """
        torch = self._torch
        with torch.inference_mode():
            tokens_there = torch.from_numpy(tokens).to(self._device)
            mask_there = torch.from_numpy(mask).to(self._device)
            hidden = self._model(input_ids=tokens_there, attention_mask=mask_there)[0]
            return unit_rows(pool(hidden, mask_there, self._pooling))


def import_torch() -> Any:
    """Import torch, with transformers beside it, or say what to install.

    Raises
    ------
    ImportError
        If either is not installed.
    """
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"encoding prompts needs torch and transformers, found {error}; "
            "pip install 'benchrouter[cpu]', or pass precomputed embeddings (--embeddings FILE.npy)"
        ) from error
    return torch


def check_device(device: str) -> str:
    """Full name of a device that this machine has.

    Parameters
    ----------
    device : str
        "cpu", "cuda" (the same as "cuda:0") or "cuda:N".

    Raises
    ------
    TypeError
        If `device` is no str.
    ValueError
        If the name is another, or this machine has no such device: nothing is moved silently.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a str, got {type(device).__name__}")
    if device == "cpu":
        return device
    kind, colon, number = device.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"device: found {device!r}, expected 'cpu', 'cuda' or 'cuda:N'")
    torch = import_torch()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(number or 0)
    if index >= count:
        raise ValueError(
            f"device {device!r}: found {count} CUDA devices (torch {torch.__version__}), "
            f"expected at least {index + 1}"
        )
    return f"cuda:{index}"


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
