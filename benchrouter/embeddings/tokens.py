"""Texts to tokens with the tokenizers library; stateless after loading."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.weights.layout import EncoderFiles

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Encoding objects take some 100 bytes a token, so only the token numbers are kept.
_SLICE_CHARACTERS = 1_000_000
# A long text is first cut to so many characters for every token that is kept.
_CHARACTERS_TRIED = 16


class TextTokenizer:
    """Truncating tokenizer of one encoder; safe to call from many threads.

    Parameters
    ----------
    files : EncoderFiles
    max_tokens : int
        Tokens kept of a text, special tokens included.

    Raises
    ------
    ValueError
        If the tokenizer cannot be read or is of another network, or `max_tokens` leaves no room
        beside the special tokens.
    """

    def __init__(self, files: EncoderFiles, max_tokens: int) -> None:
        tokenizer = _load(files)
        if files.vocab_size is not None and tokenizer.get_vocab_size() > files.vocab_size:
            raise ValueError(
                f"{files.folder}: found a tokenizer of {tokenizer.get_vocab_size()} tokens, "
                f"expected at most the network's {files.vocab_size}"
            )
        special = tokenizer.num_special_tokens_to_add(False)
        if max_tokens <= special:
            raise ValueError(
                f"max_tokens is {max_tokens}, the {special} special tokens of {files.name} "
                f"need at least {special + 1}"
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        if files.lower_case:
            _lower_case_first(tokenizer)
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._pad_token_id = files.pad_token_id
        self._tried = _CHARACTERS_TRIED * max_tokens if _ends_words_at_blanks(tokenizer) else None

    def digest(self) -> str:
        """Return the SHA-256 of the tokenizer as it is set up, truncation included."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def __call__(self, texts: list[str]) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
        """Token numbers of texts, special tokens included, truncated.

        Parameters
        ----------
        texts : list of str
            Without lone surrogates, see `without_surrogates`.

        Returns
        -------
        rows : list of int32 array
            Tokens of each text.
        truncated : bool array, shape (n_texts,)
            Which texts lost their end.
        """
        rows: list[NDArray[np.int32]] = []
        truncated = np.zeros(len(texts), dtype=np.bool_)
        start = held = 0
        heads = [self._head(text) for text in texts]
        for stop, text in enumerate(heads, start=1):
            held += len(text)
            if held >= _SLICE_CHARACTERS or stop == len(texts):
                slice_ = heads[start:stop]
                for encoding in self._tokenizer.encode_batch_fast(slice_):
                    at = len(rows)
                    if len(heads[at]) < len(texts[at]) and not self._is_cut(encoding):
                        encoding = self._tokenizer.encode_batch_fast([texts[at]])[0]
                    truncated[at] = self._is_cut(encoding)
                    # A tokenizer without special tokens leaves nothing of an empty text.
                    rows.append(np.array(encoding.ids or [self._pad_token_id], dtype=np.int32))
                start, held = stop, 0
        return rows, truncated

    def _is_cut(self, encoding: Encoding) -> bool:
        return len(encoding.ids) == self.max_tokens and bool(encoding.overflowing)

    def _head(self, text: str) -> str:
        """The beginning of a long text, cut between words, that is likely to fill the window."""
        if self._tried is None or len(text) <= self._tried:
            return text
        end = max(text.rfind(" ", 0, self._tried), text.rfind("\n", 0, self._tried))
        return text[:end] if end > 0 else text


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold, by U+FFFD; surrogate pairs are joined."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _load(files: EncoderFiles) -> Tokenizer:
    from tokenizers import Tokenizer

    if files.tokenizer is not None:
        try:
            return Tokenizer.from_file(str(files.tokenizer))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{files.tokenizer}: found no readable tokenizer ({error})") from error
    from transformers import AutoTokenizer

    try:
        # Without a vocabulary transformers silently makes a tokenizer that knows no words.
        if not any(any(files.folder.glob(pattern)) for pattern in ("vocab.*", "*.model")):
            raise ValueError("no vocab.txt, vocab.json or *.model")
        converted = AutoTokenizer.from_pretrained(
            str(files.folder), local_files_only=True, trust_remote_code=False
        )
        # Written and read again: we set its truncation, and transformers may hold the object.
        return Tokenizer.from_str(converted.backend_tokenizer.to_str())
    except Exception as error:  # transformers raises many kinds for an unusable folder
        raise ValueError(
            f"{files.folder}: found no tokenizer.json and no vocabulary that transformers can "
            f"convert ({error}), expected tokenizer.json"
        ) from error


def _ends_words_at_blanks(tokenizer: Tokenizer) -> bool:
    """Whether text after a blank never changes the tokens before it, as with BERT."""
    from tokenizers import models, pre_tokenizers

    return isinstance(tokenizer.model, models.WordPiece) and isinstance(
        tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer
    )


def _lower_case_first(tokenizer: Tokenizer) -> None:
    from tokenizers import normalizers

    own = tokenizer.normalizer
    steps = [normalizers.Lowercase()] + ([] if own is None else [own])
    tokenizer.normalizer = normalizers.Sequence(steps)
