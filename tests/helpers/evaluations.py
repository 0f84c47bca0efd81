"""Evaluations of small tables, for tests of tables, figures and reports."""

from __future__ import annotations

import numpy as np
from tables import make_table

from benchrouter.evaluation.evaluate import evaluate
from benchrouter.scores.fitted import Settings

QUICK = Settings(k=3, kappa=5, label_shares=(0.0, 0.1), draws=2)


def small_table(n_datasets=4, per_dataset=24, n_models=3, seed=0, costs=False, **fields):
    """Build a table whose dataset d lies around axis d, where model d mod M is best; and rows."""
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(n_datasets), per_dataset)
    rows = rng.standard_normal((len(dataset), 8)).astype(np.float32) * 0.4
    rows += np.eye(8, dtype=np.float32)[dataset % 8]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chance = np.where(dataset[:, None] % n_models == np.arange(n_models), 0.9, 0.3)
    scores = (rng.random(chance.shape) < chance).astype(np.float32)
    if costs:
        prices = 1e-5 * (n_models - np.arange(n_models))  # model 0, mostly BMA, is the dearest
        fields["cost_usd"] = (prices * (1 + rng.random(scores.shape))).astype(np.float32)
    fields.setdefault("params_b", 7.0 * (1 + np.arange(n_models)))
    return make_table(scores, dataset, **fields), rows


def small_evaluation(settings=QUICK, pools=None, **fields):
    """Evaluate a small table."""
    table, rows = small_table(**fields)
    chosen = {title: table.select(**how) for title, how in (pools or {}).items()}
    return evaluate(table, rows, pools=chosen or None, settings=settings, threads=1)


def awkward_tables():
    """Return the tables that give less than all: name to (table, rows)."""
    plain, rows = small_table()
    one_record = np.arange(plain.n_records) < 73  # of the last dataset, one record
    absent = plain.scores.copy()
    absent[plain.dataset <= 1, 0] = np.nan
    empty = plain.scores.copy()
    empty[plain.dataset == 2] = np.nan

    def with_scores(scores, **fields):
        return make_table(scores.astype(np.float32), plain.dataset, **fields)

    return {
        "one dataset": small_table(n_datasets=1),
        "two datasets": small_table(n_datasets=2),
        "a dataset of one record": (plain.rows(one_record), rows[one_record]),
        "a model missing on whole datasets": (with_scores(absent), rows),
        "a dataset without scores": (with_scores(empty), rows),
        "constant scores": (with_scores(np.ones_like(plain.scores)), rows),
        "all wrong": (with_scores(np.zeros_like(plain.scores)), rows),
        "one model": small_table(n_models=1),
        "no threshold": (
            with_scores(plain.scores * 3 - 5, thresholds=np.full(4, np.nan)),
            rows,
        ),
        "costs of one model unknown": _one_cost_unknown(),
    }


def _one_cost_unknown():
    table, rows = small_table(costs=True)
    costs = table.cost_usd.copy()
    costs[:, 1] = np.nan
    return make_table(table.scores, table.dataset, cost_usd=costs), rows
