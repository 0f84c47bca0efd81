"""Prompts or their embeddings to unit rows, where the records are that they are compared with."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.encoder import DEFAULT_ENCODER, Encoder, Tokenised
from benchrouter.embeddings.fingerprint import Fingerprint, fingerprint_of
from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.files.arrays import Progress, Rows

if TYPE_CHECKING:
    from torch import Tensor

# Unit rows in the host's memory or on a device.
UnitRows: TypeAlias = "Rows | Tensor"


class Embedder:
    """What turns the prompts of a router into unit rows. Safe to use from many threads.

    Parameters
    ----------
    encoder : Encoder or str, optional
        A loaded encoder, or the name of one, loaded when a prompt must be encoded. By default the
        one of the fingerprint.
    fingerprint : Fingerprint or None
        Of the encoder that embedded the benchmark; None = unknown.
    dim : int
        Of the benchmark's embeddings.
    device : str
        Of an encoder that is loaded here, and of the benchmark: "cpu" or "cuda:N".
    cache_dir : path, optional
        Where that encoder keeps embeddings.

    Raises
    ------
    ValueError
        If the encoder is another than the one that embedded the benchmark.
    """

    def __init__(
        self,
        encoder: Encoder | str | None,
        *,
        fingerprint: Fingerprint | None,
        dim: int,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
    ) -> None:
        self.device = device
        self._encoder = encoder
        self._fingerprint = fingerprint
        self._dim = dim
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        if encoder is not None and not isinstance(encoder, str):
            self.check(encoder.fingerprint)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded at first need and checked against the fingerprint."""
        with self._lock:
            if self._encoder is None or isinstance(self._encoder, str):
                name = self._encoder
                if name is None:
                    if self._fingerprint is None:
                        raise ValueError(
                            "this router was fitted on given embeddings without an encoder: "
                            "pass embeddings, or load it with encoder=…"
                        )
                    name = self._fingerprint.name
                encoder = Encoder.load(name, device=self.device, cache_dir=self._cache_dir)
                self.check(encoder.fingerprint)
                self._encoder = encoder
            return self._encoder

    @property
    def encoder_name(self) -> str | None:
        """Name of the encoder that was given; None where the benchmark's own is taken."""
        encoder = self._encoder
        return encoder if encoder is None or isinstance(encoder, str) else encoder.fingerprint.name

    @property
    def encodes_on(self) -> str:
        """Device of the encoder, which is not loaded for that."""
        encoder = self._encoder
        return self.device if encoder is None or isinstance(encoder, str) else encoder.device

    def check(self, fingerprint: Fingerprint) -> None:
        """Refuse another encoder than the one the benchmark was embedded with.

        Raises
        ------
        ValueError
            Naming every difference.
        """
        if self._fingerprint is None:
            return
        differences = self._fingerprint.difference(fingerprint)
        if differences:
            raise ValueError(
                "the benchmark was embedded by another encoder: " + "; ".join(differences)
            )

    def on_host(
        self, prompts: Sequence[str] | None, embeddings: NDArray[np.floating] | None
    ) -> Rows:
        """Unit rows in the host's memory.

        Parameters
        ----------
        prompts : sequence of str, optional
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.

        Returns
        -------
        float32 array, shape (n_prompts, dim)

        Raises
        ------
        TypeError, ValueError
            If both are missing, or one is invalid.
        """
        check_prompts(prompts, embeddings)
        if embeddings is None:
            assert prompts is not None
            return self.encoder.encode(prompts)
        rows = as_unit_rows(embeddings, "embeddings", copy=False)
        if prompts is not None and len(prompts) != len(rows):
            raise ValueError(f"{len(prompts)} prompts came with {len(rows)} embeddings")
        if rows.shape[1] != self._dim:
            raise ValueError(
                f"embeddings have dim {rows.shape[1]}, the router's have dim {self._dim}"
            )
        return rows

    def rows(
        self, prompts: Sequence[str] | Tokenised | None, embeddings: NDArray[np.floating] | None
    ) -> UnitRows:
        """Unit rows where the benchmark is; those that its device's encoder makes never leave it.

        Parameters
        ----------
        prompts : sequence of str, or what :meth:`tokenised` gives, optional
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional

        Returns
        -------
        float32 array or torch.Tensor, shape (n_prompts, dim)

        Raises
        ------
        TypeError, ValueError
            As :meth:`on_host` does.
        """
        if self.device != "cpu" and embeddings is None and prompts is not None:
            check_prompts(prompts, embeddings)
            if self.encoder.device == self.device:
                return self.encoder.encode_tensor(prompts)
        assert not isinstance(prompts, Tokenised)
        rows = self.on_host(prompts, embeddings)
        return rows if self.device == "cpu" else on_device(rows, self.device)

    def tokenised(
        self, prompts: Sequence[str] | None, embeddings: NDArray[np.floating] | None
    ) -> Sequence[str] | Tokenised | None:
        """Tokens instead of prompts, where :meth:`rows` makes the embeddings from those."""
        check_prompts(prompts, embeddings)
        if prompts is None or embeddings is not None or self.encoder.device != self.device:
            return prompts
        return self.encoder.tokenise(prompts)


def embed_benchmark(
    prompts: Sequence[str],
    encoder: Encoder | Fingerprint | str | None,
    embeddings: NDArray[np.floating] | None,
    *,
    device: str,
    cache_dir: str | Path | None,
    progress: Progress | None,
) -> tuple[NDArray[np.floating], Fingerprint | None, Encoder | str | None]:
    """Embed the prompts of a benchmark, unless their embeddings are given.

    Parameters
    ----------
    prompts : sequence of str
    encoder : Encoder, str or Fingerprint, optional
        A loaded encoder, or the name of one; by default all-mpnet-base-v2. For given embeddings
        what made them, a fingerprint, too; by default unknown.
    embeddings : float array, shape (n_records, dim), optional
    device : str
        Of an encoder that is loaded here.
    cache_dir : path, optional
        Where that encoder keeps embeddings.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    embeddings : float array, shape (n_records, dim)
    fingerprint : Fingerprint or None
        Of what made them; None = unknown.
    encoder : Encoder, str or None
        Loaded, or its name.

    Raises
    ------
    ValueError
        If a fingerprint comes without embeddings.
    """
    if embeddings is not None:
        if encoder is None or isinstance(encoder, Fingerprint):
            return embeddings, encoder, None
        behind = fingerprint_of(encoder) if isinstance(encoder, str) else encoder.fingerprint
        return embeddings, behind, encoder
    if isinstance(encoder, Fingerprint):
        raise ValueError("encoder: a fingerprint is for given embeddings, found none of them")
    if encoder is None or isinstance(encoder, str):
        encoder = Encoder.load(encoder or DEFAULT_ENCODER, device=device, cache_dir=cache_dir)
    if progress is not None:
        progress("encoding the benchmark", 0, len(prompts))
    return encoder.encode(prompts), encoder.fingerprint, encoder


def on_host(rows: UnitRows) -> Rows:
    """Rows in the host's memory; not copied if they lie there."""
    if isinstance(rows, np.ndarray):
        return rows
    found: Rows = rows.cpu().numpy()
    return found


def on_device(rows: UnitRows, device: str) -> Tensor:
    """Rows on a device; not copied if they lie there."""
    import torch

    if isinstance(rows, np.ndarray):
        return torch.tensor(rows, device=device)
    return rows.to(device)


def check_prompts(prompts: object, embeddings: object) -> None:
    """Refuse prompts that are no sequence, and the absence of both.

    Raises
    ------
    TypeError, ValueError
    """
    if prompts is not None and (isinstance(prompts, str) or not hasattr(prompts, "__len__")):
        found = "a single string" if isinstance(prompts, str) else type(prompts).__name__
        raise TypeError(f"prompts must be a list of strings, got {found}")
    if prompts is None and embeddings is None:
        raise ValueError("prompts or embeddings are needed, got neither")
