"""Batches of prompts as they come: embedded ahead where another device does that."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.decider import Batch as Embedded
from benchrouter.embeddings.encoder import Tokenised
from benchrouter.embeddings.of_prompts import Embedder
from benchrouter.prompts.read_ahead import treated_beside

Prompts = Sequence[str] | None
Embeddings = NDArray[np.float32] | None
Tokens = NDArray[np.integer] | None

# Prompts and embeddings, either of which may be None, and the tokens of the prompts if known.
Batch = tuple[Prompts, Embeddings] | tuple[Prompts, Embeddings, Tokens]
_Ready = tuple[Prompts, Prompts | Tokenised, Embeddings, Tokens]
# A batch, after the name of every prompt's task.
GroupedBatch = (
    tuple[Sequence[Hashable], Prompts, Embeddings]
    | tuple[Sequence[Hashable], Prompts, Embeddings, Tokens]
)


def embedded(embedder: Embedder, batches: Iterable[Batch]) -> Generator[Embedded, None, None]:
    """Embed batches, ahead of the caller where another device than the CPU does it.

    Parameters
    ----------
    embedder : Embedder
    batches : iterable of Batch
        Asked for in the caller's thread.

    Yields
    ------
    (prompts or None, unit rows where the benchmark is, tokens or None)
    """

    def embed(batch: Batch) -> Embedded:
        prompts, embeddings, tokens = with_tokens(batch)
        return prompts, embedder.rows(prompts, embeddings), tokens

    if embedder.device != "cpu":
        yield from _tokenised_and_embedded(embedder, batches)
    elif embedder.encodes_on != "cpu":
        yield from treated_beside(embed, batches, name="encode")
    else:
        yield from map(embed, batches)


def _tokenised_and_embedded(
    embedder: Embedder, batches: Iterable[Batch]
) -> Generator[Embedded, None, None]:
    """Tokenise a batch beside the one that is embedded."""

    def tokenise(batch: Batch) -> _Ready:
        prompts, embeddings, tokens = with_tokens(batch)
        return prompts, embedder.tokenised(prompts, embeddings), embeddings, tokens

    def embed(ready: _Ready) -> Embedded:
        prompts, tokenised, embeddings, tokens = ready
        return prompts, embedder.rows(tokenised, embeddings), tokens

    ahead = treated_beside(tokenise, batches, name="tokenise")
    yield from treated_beside(embed, ahead, name="encode")


def with_tokens(batch: Batch) -> tuple[Prompts, Embeddings, Tokens]:
    """A batch with its tokens, None where it names none."""
    return batch if len(batch) == 3 else (*batch, None)
