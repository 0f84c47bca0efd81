"""Prompts with their embeddings and tokens, each file opened once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.written.manifest import mark_of
from benchrouter.embeddings.stored_stream import EmbeddingFile, with_embeddings
from benchrouter.files.arrays import Counts
from benchrouter.prompts import ENCODED_BATCH, GIVEN_BATCH
from benchrouter.prompts.batches import Counted, PromptBatch, PromptFile, read_ahead
from benchrouter.prompts.token_column import with_tokens


@dataclass(frozen=True)
class Reading:
    """How prompts are read.

    Attributes
    ----------
    prompt_column : str
        Name of the field that holds the prompt.
    format : "txt", "jsonl", "csv" or "parquet", optional
        By default that of the suffix, or what standard input looks like.
    on_error : "raise" or "skip"
        Whether a bad record ends the reading, or is left out and listed.
    embeddings : path, optional
        A .npy file with one unit row a record, bad ones included; nothing is encoded then.
    tokens_column : str, optional
        Field that counts the tokens of a record's prompt, where costs are by prices.
    batch_size : int, optional
        Prompts in memory at a time; by default 8192 with `embeddings`, else 1024.
    """

    prompt_column: str = "prompt"
    format: str | None = None
    on_error: str = "raise"
    embeddings: str | Path | None = None
    tokens_column: str | None = None
    batch_size: int | None = None


class Task(NamedTuple):
    """All prompts of a file."""

    prompts: list[str]
    embeddings: NDArray[Any] | None
    """float16 or float32, shape (n_prompts, dim)."""
    tokens: Counts | None
    """Tokens of the prompts, shape (n_prompts,)."""
    rejected: list[str]
    """A message for every bad record."""


class PromptSource:
    """A file of prompts and what belongs to it; to be used in a ``with`` block.

    Parameters
    ----------
    prompts : str or Path
        ``.txt``, ``.jsonl``, ``.csv`` or ``.parquet``; ``-`` is standard input. See `PromptFile`.
    reading : Reading

    Attributes
    ----------
    name : str
        The file of prompts, for messages.
    prompts : PromptFile
    embeddings : EmbeddingFile or None

    Raises
    ------
    TypeError, ValueError, OSError
        As `PromptFile` and `EmbeddingFile` do.
    """

    def __init__(self, prompts: str | Path, reading: Reading) -> None:
        given = reading.embeddings
        batch = reading.batch_size
        if batch is None:
            batch = ENCODED_BATCH if given is None else GIVEN_BATCH
        self._tokens_column = reading.tokens_column
        with ExitStack() as held:
            self.prompts = held.enter_context(
                PromptFile(
                    prompts,
                    prompt_column=reading.prompt_column,
                    batch=batch,
                    on_error=reading.on_error,
                    format=reading.format,
                )
            )
            self.embeddings = None if given is None else held.enter_context(EmbeddingFile(given))
            self._held = held.pop_all()
        self.name = self.prompts.name

    def marks(self) -> dict[str, Any]:
        """What the answer depends on, by the content of the files, for `Manifest.job`."""
        given, path = self.embeddings, self.prompts.path
        return {
            # a pipe is not opened yet: that would wait for its writer
            "input": mark_of(path, self.prompts.opened if Path(path).is_file() else None),
            "format": self.prompts.format,
            "embeddings": None if given is None else mark_of(given.path, given.file),
        }

    def batches(
        self, first_row: int = 0, part_size: int | None = None
    ) -> Generator[Counted, None, None]:
        """Read prompts with their embeddings and tokens, ahead of the caller.

        Parameters
        ----------
        first_row, part_size : int
            As in `PromptFile.batches`.

        Yields
        ------
        (PromptBatch, embeddings or None, tokens or None)
            float16 or float32, shape (n_prompts, dim); int64, shape (n_prompts,).

        Raises
        ------
        ValueError, OSError
            For a bad record, or another number of embeddings than of records.
        """
        pairs = with_embeddings(
            self.prompts.batches(first_row, part_size), self.embeddings, first_row=first_row
        )
        counted = with_tokens(
            pairs, self._tokens_column, name=self.name, on_error=self.prompts.on_error
        )
        return read_ahead(self.prompts.path, counted)

    def read_all(self) -> Task:
        """Read the whole file; errors as in `batches`."""
        batches: list[PromptBatch] = []
        rows: list[NDArray[Any]] = []
        counts: list[Counts] = []
        with closing(self.batches()) as counted:
            for batch, block, tokens in counted:
                batches.append(batch)
                rows += [] if block is None else [block]
                counts += [] if tokens is None else [tokens]
        return Task(
            prompts=[prompt for batch in batches for prompt in batch.prompts],
            embeddings=np.concatenate(rows) if rows else None,
            tokens=np.concatenate(counts) if counts else None,
            rejected=[message for batch in batches for message in batch.skipped],
        )

    def close(self) -> None:
        """Close the files."""
        self._held.close()

    def __enter__(self) -> PromptSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
