"""Encoder: prompts in, unit-norm embeddings out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from benchrouter.encoder.batching import pad, token_batches, windows
from benchrouter.encoder.cache import EmbeddingCache, key_of
from benchrouter.encoder.files import resolve
from benchrouter.encoder.fingerprint import Fingerprint, fingerprint_of_files
from benchrouter.encoder.network import DTYPES, Network, check_device, import_torch
from benchrouter.encoder.tokens import TextTokenizer, without_surrogates

DEFAULT_ENCODER = "sentence-transformers/all-mpnet-base-v2"  # arXiv 2309.15789, sec. 5

# Long enough for batches of near-equal lengths, short enough to stay some tens of megabytes.
WINDOW = 4096


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
        pad_token_id: int,
        batch_tokens: int,
        cache: EmbeddingCache | None,
    ) -> None:
        self.fingerprint = fingerprint
        self.device = device
        self._tokenizer = tokenizer
        self._network = network
        self._pad_token_id = pad_token_id
        self._batch_tokens = batch_tokens
        self._cache = cache

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str] = DEFAULT_ENCODER,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 4096,
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
        dtype : {"float32", "bfloat16", "float16"}
            Arithmetic of the network; pooling and rows are float32 always.
        batch_tokens : int
            Most tokens of a batch, padding included.
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
        if dtype not in DTYPES:
            raise ValueError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
        if isinstance(batch_tokens, bool) or not isinstance(batch_tokens, int) or batch_tokens < 1:
            raise ValueError(f"batch_tokens: found {batch_tokens!r}, expected a positive integer")
        device = check_device(device)
        files = resolve(name)
        import_torch()
        limit = files.token_limit(max_tokens)
        tokenizer = TextTokenizer(files, limit)
        fingerprint = fingerprint_of_files(files, limit, dtype=dtype)
        return cls(
            tokenizer,
            Network(files, device, dtype),
            fingerprint,
            device=device,
            pad_token_id=files.pad_token_id,
            batch_tokens=batch_tokens,
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
        pieces = list(self.encode_stream(prompts))
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
        if isinstance(prompts, (str, bytes)):
            raise TypeError(
                f"prompts must be an iterable of str, got a single {type(prompts).__name__}"
            )
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window: found {window!r}, expected a positive integer")
        return (self._encode_window(texts) for texts in windows(prompts, window))

    def _encode_window(self, prompts: list[str]) -> NDArray[np.float32]:
        places: dict[str, int] = {}
        inverse = [places.setdefault(without_surrogates(p), len(places)) for p in prompts]
        texts = list(places)
        rows = self._embed(texts) if self._cache is None else self._embed_cached(texts, self._cache)
        return rows if len(texts) == len(prompts) else rows[inverse]

    def _embed_cached(self, texts: list[str], cache: EmbeddingCache) -> NDArray[np.float32]:
        keys = [key_of(text) for text in texts]
        stored = cache.get(keys)
        missing = [i for i, key in enumerate(keys) if key not in stored]
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        if missing:
            fresh = self._embed([texts[i] for i in missing])
            cache.put([keys[i] for i in missing], fresh)
            rows[missing] = fresh
        for i, key in enumerate(keys):
            if key in stored:
                rows[i] = stored[key]
        return rows

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed distinct texts, float32 (len(texts), dim)."""
        tokens = self._tokenizer(texts)
        lengths = np.array([len(row) for row in tokens], dtype=np.int64)
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for batch in token_batches(lengths, self._batch_tokens):
            padded, mask = pad([tokens[i] for i in batch], self._pad_token_id)
            rows[batch] = self._network(padded, mask).cpu().numpy()
        if not np.isfinite(rows).all():
            raise ValueError(
                f"encoder {self.fingerprint.name}: found embeddings that are not finite; "
                f"dtype {self.fingerprint.dtype} overflows or the weights are damaged"
            )
        return rows


def _open_cache(
    directory: str | os.PathLike[str], tokenizer: TextTokenizer, fingerprint: Fingerprint
) -> EmbeddingCache:
    # Where the weights came from does not matter; the tokenizer and the rounding do.
    identity = fingerprint.to_dict()
    for field in ("name", "revision", "normalize"):
        del identity[field]
    identity["tokenizer_sha256"] = tokenizer.digest()
    return EmbeddingCache(directory, identity, fingerprint.dim)
