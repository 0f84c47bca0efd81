"""Small tables and unit rows for tests."""

from __future__ import annotations

import numpy as np

from benchrouter.tables.table import BenchmarkTable


def make_table(scores, dataset, **fields):
    """Build a table from scores (n_records, n_models) and dataset codes, all else filled in."""
    scores, dataset = np.asarray(scores, np.float32), np.asarray(dataset, np.int32)
    n_records, n_models = scores.shape
    n_datasets = int(dataset.max()) + 1
    defaults = dict(
        scores=scores,
        dataset=dataset,
        datasets=tuple(f"dataset {d}" for d in range(n_datasets)),
        models=tuple(f"model {m}" for m in range(n_models)),
        sample_ids=[f"sample {i}" for i in range(n_records)],
        prompts=[f"prompt {i}" for i in range(n_records)],
        source_rows=np.arange(n_records),
        n_source_rows=n_records,
        params_b=np.full(n_models, np.nan),
        prices=np.full((n_models, 2), np.nan),
        metrics=("",) * n_datasets,
        thresholds=np.full(n_datasets, 0.5),
    )
    return BenchmarkTable(**{**defaults, **fields})


def unit_rows(n, dim, seed=0):
    """Draw n random unit rows, float32."""
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
