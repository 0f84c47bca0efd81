"""A fit whose benchmark has changed."""

from __future__ import annotations

import numpy as np

from benchrouter.scores.fitted import Fit
from benchrouter.tables.table import BenchmarkTable
from benchrouter.votes.outcomes import unpack


def table_of(fit: Fit) -> BenchmarkTable:
    """The table that a fit was made from, but for log-likelihoods, which a fit does not hold.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    BenchmarkTable
    """
    n = len(fit.dataset)
    return BenchmarkTable(
        scores=np.ascontiguousarray(unpack(fit.raw, np.arange(n))),
        dataset=fit.dataset,
        datasets=fit.datasets,
        models=fit.models,
        sample_ids=list(fit.sample_ids[:]),
        prompts=list(fit.prompts[:]),
        source_rows=np.arange(n),
        n_source_rows=n,
        cost_usd=fit.record_cost_usd,
        params_b=fit.params_b,
        prices=fit.prices,
        metrics=fit.metrics,
        thresholds=fit.thresholds,
    )
