"""How near an approximate index comes to exact search, on the benchmark's own records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.rules import Rules
from benchrouter.neighbours.by_faiss import Approximate
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.fitted import Approximation, Fit

QUERIES = 1000  # records at most, each held out, on which the two searches are compared


def approximated(fit: Fit, factory: str, *, threads: int = 0) -> Fit:
    """Give a fit an approximate index, measured against exact search.

    Parameters
    ----------
    fit : Fit
    factory : str
        faiss's name of the index.
    threads : int
        0 = all.

    Returns
    -------
    Fit
        With `approximation`: at most 1,000 records, drawn by the fit's seed, are searched both
        ways, and each one's own record left out of what was found.

    Raises
    ------
    ImportError, ValueError
        If faiss is missing, or cannot make such an index.
    """
    trained = Approximate.train(fit.embeddings, factory)
    n = len(fit.embeddings)
    rng = np.random.default_rng(fit.settings.seed)
    rows = np.sort(rng.choice(n, min(n, QUERIES), replace=False))
    k = fit.expectation.neighbours
    depth = max(k, fit.settings.kappa)
    queries = np.ascontiguousarray(fit.embeddings[rows])
    near, models = [], []
    for approximate in (None, trained):
        index = Index(fit.embeddings, threads=threads, verify=False, approximate=approximate)
        found = _others(index.search(queries, depth + 1), rows)
        near.append(found.ids[:, :k])
        models.append(Rules(fit, index).decide_on(queries, found, "auto", k).model)
    exact, found_ids = near
    hits = (found_ids[:, :, None] == exact[:, None, :]).any(axis=1) & (exact >= 0)
    measured = Approximation(
        factory=factory,
        index=trained,
        recall=float(hits.sum() / max((exact >= 0).sum(), 1)),
        agreement=float(np.mean(models[0] == models[1])),
        n_queries=len(rows),
    )
    return replace(fit, approximation=measured)


def _others(found: Neighbours, rows: NDArray[np.int64]) -> Neighbours:
    """Without each query's own record; without the last one where that was not found."""
    own = found.ids == rows[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(rows), found.ids.shape[1] - 1)
    return Neighbours(found.ids[~own].reshape(shape), found.similarities[~own].reshape(shape))
