"""How near an approximate index comes to exact search, on the benchmark's own records."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.files.arrays import Ids, Rows
from benchrouter.neighbours.by_faiss import Approximate
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.expected.prompt_scores import expect
from benchrouter.scores.fitted import Approximation, Fit

QUERIES = 1000  # records at most, each held out, on which the two searches are compared


def approximation_of(fit: Fit, factory: str, *, threads: int = 0) -> Approximation:
    """Train an approximate index, and measure it against exact search.

    Parameters
    ----------
    fit : Fit
    factory : str
        faiss's name of the index.
    threads : int
        0 = all.

    Returns
    -------
    Approximation
        Measured on at most 1,000 records, drawn by the fit's seed, which are searched both ways;
        each one's own record is left out of what was found.

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
        models.append(_chosen(fit, queries, found, threads))
    exact, found_ids = near
    hits = (found_ids[:, :, None] == exact[:, None, :]).any(axis=1) & (exact >= 0)
    return Approximation(
        factory=factory,
        index=trained,
        recall=float(hits.sum() / max((exact >= 0).sum(), 1)),
        agreement=float(np.mean(models[0] == models[1])),
        n_queries=len(rows),
    )


def _chosen(fit: Fit, queries: Rows, neighbours: Neighbours, threads: int) -> NDArray[np.int32]:
    """Model that the rule "auto" chooses for every query."""
    learnt = fit.expectation.arrays(fit.dataset, costs_known=fit.costs_known)
    return expect(
        _core.Expectation(**learnt),
        queries,
        neighbours,
        fit.raw,
        prior=fit.raw_prior,
        preference=fit.preferred,
        k=fit.expectation.neighbours,
        kappa=fit.settings.kappa,
        distance_limit=fit.distance_limit,
        fallback_model=fit.fallback,
        home=fit.best_on_average,
        threads=threads,
    ).chosen.model


def _others(found: Neighbours, rows: Ids) -> Neighbours:
    """Without each query's own record; without the last one where that was not found."""
    own = found.ids == rows[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(rows), found.ids.shape[1] - 1)
    return Neighbours(found.ids[~own].reshape(shape), found.similarities[~own].reshape(shape))
