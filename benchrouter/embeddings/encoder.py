"""Encoder: prompts in, unit-norm embeddings out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.batching import windows
from benchrouter.embeddings.cache import EmbeddingCache, key_of
from benchrouter.embeddings.devices import check_device, check_dtype, import_torch
from benchrouter.embeddings.fingerprint import Fingerprint, fingerprint_of_files
from benchrouter.embeddings.network.network import Network
from benchrouter.embeddings.tokens import TextTokenizer, without_surrogates
from benchrouter.embeddings.weights.find import resolve
from benchrouter.prompts.read_ahead import treated_beside
from benchrouter.prompts.timing import stage

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_ENCODER = "sentence-transformers/all-mpnet-base-v2"  # arXiv 2309.15789, sec. 5

# Long enough for batches of near-equal lengths, short enough for some tens of megabytes.
WINDOW = 4096


class TruncationWarning(UserWarning):
    """Some prompts were longer than the encoder reads; the message says how many."""


class Encoder:
    """The embedding network with its tokenizer; safe to call from many threads.

    Made by `Encoder.load`.

    Attributes
    ----------
    fingerprint : Fingerprint
        What its embeddings depend on.
    device : str
        "cpu" or "cuda:N".
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        network: Network,
        fingerprint: Fingerprint,
        *,
        device: str,
        cache: EmbeddingCache | None,
    ) -> None:
        self.fingerprint = fingerprint
        self.device = device
        self._tokenizer = tokenizer
        self._network = network
        self._cache = cache

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str] = DEFAULT_ENCODER,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        batch_tokens: int | None = None,
        max_tokens: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Encoder:
        """Load an encoder.

        Parameters
        ----------
        name : str or path
            "minilm" (packaged weights), a local folder in sentence-transformers' layout, a plain
            transformers folder (mean pooling), or a name on the Hugging Face hub.
        device : str
            "cpu", "cuda" or "cuda:N".
        dtype : {"auto", "float32", "bfloat16", "float16", "int8"}
            Arithmetic of the network; pooling and rows are float32 always. "auto" is bfloat16
            where the device multiplies it (a CPU with AVX-512 BF16 or AMX; a GPU, float16 on one
            older than Ampere), else float32. "int8" quantizes the products as they come, on a CPU
            with VNNI: faster, and farther from float32 (benchmarks/README.md).
        batch_tokens : int, optional
            Most tokens of a batch; by default what suits the device.
        max_tokens : int, optional
            Tokens kept of a prompt, special tokens included; by default what the folder says.
        cache_dir : path, optional
            Folder of embeddings computed before, shared by all encoders; None = no cache.

        Raises
        ------
        EncoderNotFound
            If there are no such weights here and they cannot be downloaded.
        FileNotFoundError, TypeError, ValueError
            If an argument is wrong, the device absent, or the folder not readable as an encoder.
        ImportError
            If torch or transformers is not installed.
        """
        whole = isinstance(batch_tokens, int) and not isinstance(batch_tokens, bool)
        if batch_tokens is not None and not (whole and batch_tokens > 0):
            raise ValueError(f"batch_tokens: found {batch_tokens!r}, expected a positive integer")
        device = check_device(device)
        dtype = check_dtype(dtype, device)
        files = resolve(name)
        import_torch()
        limit = files.token_limit(max_tokens)
        tokenizer = TextTokenizer(files, limit)
        fingerprint = fingerprint_of_files(files, limit, dtype=dtype)
        return cls(
            tokenizer,
            Network(files, device, dtype, limit, batch_tokens),
            fingerprint,
            device=device,
            cache=None if cache_dir is None else _open_cache(cache_dir, tokenizer, fingerprint),
        )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.fingerprint.dim

    def encode(self, prompts: Iterable[str]) -> NDArray[np.float32]:
        """Embed prompts.

        Parameters
        ----------
        prompts : iterable of str
            Any text: empty, long (truncated at the encoder's limit), right to left. Lone
            surrogates, which UTF-8 cannot hold, count as U+FFFD.

        Returns
        -------
        float32 array, shape (n_prompts, dim)
            Unit rows in the order of the prompts.

        Raises
        ------
        TypeError
            If `prompts` is a single str, or a prompt is no str; the message names its position.
        """
        _refuse_single(prompts)
        pieces = []
        for window in self._prepared(self._ahead(windows(prompts, WINDOW), self._cache)):
            pieces.append(self._rows(window))  # in a comprehension, warnings would name this line
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *pieces])

    def encode_stream(
        self, prompts: Iterable[str], *, window: int = WINDOW
    ) -> Iterator[NDArray[np.float32]]:
        """Embed a stream of prompts in bounded memory.

        Parameters
        ----------
        prompts : iterable of str
            As in `encode`; read one window ahead at most.
        window : int
            Most prompts of an array; fewer where prompts are long.

        Yields
        ------
        float32 array, shape (n, dim)
            Unit rows of the next n prompts.

        Raises
        ------
        TypeError, ValueError
            As `encode`; and if `window` is below 1.
        """
        _refuse_single(prompts)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window: found {window!r}, expected a positive integer")
        parts = self._ahead(windows(prompts, window), self._cache)
        return (self._rows(part) for part in self._prepared(parts))

    def tokenise(self, prompts: Iterable[str]) -> Tokenised:
        """Tokenise ahead, so that it overlaps the forward pass.

        Parameters
        ----------
        prompts : iterable of str
            As in `encode`.

        Returns
        -------
        Tokenised
            For `encode_tensor`.

        Raises
        ------
        TypeError
            As `encode`.
        """
        _refuse_single(prompts)
        return Tokenised([self._prepare(texts, None) for texts in windows(prompts, WINDOW)])

    def encode_tensor(self, prompts: Iterable[str] | Tokenised, *, warn: bool = True) -> Tensor:
        """Embed prompts and leave the embeddings on the encoder's device; the cache is not used.

        Parameters
        ----------
        prompts : iterable of str, or Tokenised
            As in `encode`, or what `tokenise` made of them.
        warn : bool
            Whether to warn of prompts that lost their end; `Tokenised.truncated` tells which did.

        Returns
        -------
        float32 torch.Tensor, shape (n_prompts, dim)
            Unit rows in the order of the prompts, on the encoder's device.

        Raises
        ------
        TypeError
            As `encode`.
        """
        if isinstance(prompts, Tokenised):
            found = iter(prompts.windows)
        else:
            _refuse_single(prompts)
            found = self._ahead(windows(prompts, WINDOW), None)
        torch = import_torch()
        pieces = [torch.empty((0, self.dim), device=self.device)]
        for window in self._prepared(found) if warn else found:
            with stage("encode", self.device):
                order = torch.from_numpy(window.inverse).to(self.device)
                pieces.append(self._embed(window.tokens)[order])
        return torch.cat(pieces)

    def _prepared(self, stream: Iterable[_Window]) -> Iterator[_Window]:
        """Pass windows on, and warn at the end if prompts were too long."""
        n_encoded = n_truncated = 0
        for window in stream:
            n_encoded += window.n_encoded
            n_truncated += window.n_truncated
            yield window
        if n_truncated:
            limit = self.fingerprint.max_tokens
            warnings.warn(
                f"{n_truncated:,} of {n_encoded:,} prompts encoded "
                f"({n_truncated / n_encoded:.1%}) did not fit into {limit} tokens and lost "
                "their end",
                TruncationWarning,
                stacklevel=3,
            )

    def _ahead(
        self, stream: Iterator[list[str]], cache: EmbeddingCache | None
    ) -> Iterator[_Window]:
        """Prepare the windows of a stream; on a GPU, each while the last one is embedded."""
        if self.device == "cpu":  # a CPU gains nothing from tokenising beside
            yield from (self._prepare(texts, cache) for texts in stream)
            return
        yield from treated_beside(
            lambda texts: self._prepare(texts, cache), stream, name="tokenise"
        )

    @stage("tokenise")
    def _prepare(self, prompts: list[str], cache: EmbeddingCache | None) -> _Window:
        """Find the distinct texts and their cached rows, and tokenise the others."""
        places: dict[str, int] = {}
        inverse = np.array([places.setdefault(without_surrogates(p), len(places)) for p in prompts])
        texts = list(places)
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        keys = [] if cache is None else [key_of(text) for text in texts]
        stored = {} if cache is None else cache.get(keys)
        for i, key in enumerate(keys):
            if key in stored:
                rows[i] = stored[key]
        missing = [i for i in range(len(texts)) if not stored or keys[i] not in stored]
        tokens, truncated = self._tokenizer([texts[i] for i in missing])
        times = np.bincount(inverse, minlength=len(texts))[missing]
        cut = np.zeros(len(texts), dtype=np.bool_)
        cut[missing] = truncated
        return _Window(
            inverse=inverse,
            rows=rows,
            missing=np.array(missing, dtype=np.int64),
            keys=[keys[i] for i in missing] if keys else [],
            tokens=tokens,
            n_encoded=int(times.sum()),
            n_truncated=int(times[truncated].sum()),
            truncated=cut[inverse],
        )

    def _embed(self, tokens: list[NDArray[np.int32]]) -> Tensor:
        """Embed distinct texts, float32 (len(tokens), dim) on the device."""
        torch = import_torch()
        rows = torch.empty((len(tokens), self.dim), device=self.device)
        with torch.no_grad():
            found = list(self._network.embed(tokens))  # does not wait for a GPU between batches
            if found:
                order = torch.from_numpy(np.concatenate([places for places, _ in found]))
                rows[order.to(self.device)] = torch.cat([part for _, part in found])
            if not torch.isfinite(rows).all():
                raise ValueError(
                    f"encoder {self.fingerprint.name}: found embeddings that are not finite; "
                    f"dtype {self.fingerprint.dtype} overflows or the weights are damaged"
                )
        return rows

    def _rows(self, window: _Window) -> NDArray[np.float32]:
        """Embed the texts missing from the cache, store them, and return a row for every prompt."""
        if len(window.missing):
            with stage("encode", self.device):
                window.rows[window.missing] = self._embed(window.tokens).cpu().numpy()
            if self._cache is not None:
                self._cache.put(window.keys, window.rows[window.missing])
        is_distinct = len(window.rows) == len(window.inverse)
        return window.rows if is_distinct else window.rows.take(window.inverse, axis=0)


@dataclass(frozen=True)
class _Window:
    """Prompts that are embedded together.

    Attributes
    ----------
    inverse : int64 array, shape (n_prompts,)
        Distinct text of every prompt.
    rows : float32 array, shape (n_texts, dim)
        Embeddings of the distinct texts, as far as the cache has them.
    missing : int64 array
        Texts that it does not have; their keys and tokens follow.
    n_encoded, n_truncated : int
        Prompts whose texts are missing, and those of them that are too long.
    truncated : bool array, shape (n_prompts,)
        Which those are.
    """

    inverse: NDArray[np.int64]
    rows: NDArray[np.float32]
    missing: NDArray[np.int64]
    keys: list[bytes]
    tokens: list[NDArray[np.int32]]
    n_encoded: int
    n_truncated: int
    truncated: NDArray[np.bool_]


@dataclass(frozen=True)
class Tokenised:
    """Prompts that are ready for the network; made by `Encoder.tokenise`."""

    windows: list[_Window]

    def __len__(self) -> int:
        """Count the prompts."""
        return sum(len(window.inverse) for window in self.windows)

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """Which prompts lost their end; bool, shape (n_prompts,)."""
        flags = [window.truncated for window in self.windows]
        return np.concatenate([np.empty(0, np.bool_), *flags])

    @property
    def n_tokens(self) -> int:
        """Tokens that the network sees, each distinct prompt counted once."""
        return sum(len(tokens) for window in self.windows for tokens in window.tokens)


def _refuse_single(prompts: Iterable[str]) -> None:
    if isinstance(prompts, (str, bytes)):
        raise TypeError(
            f"prompts must be an iterable of str, got a single {type(prompts).__name__}"
        )


def _open_cache(
    directory: str | os.PathLike[str], tokenizer: TextTokenizer, fingerprint: Fingerprint
) -> EmbeddingCache:
    # Where the weights came from does not matter; the tokenizer and the rounding do.
    identity = fingerprint.to_dict()
    for field in ("name", "revision", "normalize"):
        del identity[field]
    identity["tokenizer_sha256"] = tokenizer.digest()
    return EmbeddingCache(directory, identity, fingerprint.dim)
