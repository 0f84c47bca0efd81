"""Cases of expected scores, good and bad, for the CPU's tests and the device's."""

from __future__ import annotations

import numpy as np
from vote_cases import NAN, f32, i64, some_models

from benchrouter import _core
from benchrouter.neighbours.lists import Neighbours
from benchrouter.votes.outcomes import PackedOutcomes, pack

INF = float("inf")


def learnt_of(rng, n_records, n_models, dim, n_datasets=3):
    """Random arguments of `_core.Expectation`: rows padded with what nobody may look at."""
    width = -(-n_models // _core.expect_columns) * _core.expect_columns
    share = rng.random(n_models)
    side = (0.0, 0.0, 0.01, 0.3, INF)
    return {
        "dataset": rng.integers(0, n_datasets, n_records).astype(np.int32),
        "own_distance": f32(rng.uniform(0, 1, n_records)),
        "standing": rng.random(n_models),
        "share": share / share.sum(),
        "apart": rng.uniform(0, 1, 2).tolist(),
        "level": rng.uniform(0, 1, 2).tolist(),
        "of_dataset": f32(rng.normal(0, 0.1, (n_datasets, 2 * width))),
        "linear": f32(rng.normal(0, 0.1, (dim, 2 * width))),
        "offset": rng.normal(0, 0.01, 2 * width),
        "gate": rng.normal(0, 2, 4).tolist(),
        "margin": rng.choice(side, 2).tolist(),
        "tolerance": rng.choice(side, 2).tolist(),
    }


def auto_case(case):
    """What a case of test_voting.py lacks: (learnt, queries, options)."""
    rng, (n_queries, n_columns) = case.rng, case.neighbours.shape
    n_models, dim = len(case.prior), int(rng.choice((0, 1, 3, 17, 40)))
    allowed, fallback = some_models(case)
    home = int(rng.choice(np.flatnonzero(allowed)))
    options = {
        "prior": case.prior,
        "preference": case.preference,
        "k": int(rng.integers(0, n_columns + 1)),
        "kappa": int(rng.integers(0, n_columns + 1)),
        "distance_limit": float(rng.choice((0.4, 1.0, INF))),
        "fallback_model": fallback,
        "home": home,
        "allowed": allowed if rng.random() < 0.5 else None,
    }
    learnt = learnt_of(rng, len(case.outcomes), n_models, dim)
    return learnt, f32(rng.normal(0, 1, (n_queries, dim))), options


def outcomes_of(case, kind):
    """The outcomes as given, and packed where they are 0 or 1."""
    return [case.outcomes, pack(case.outcomes)] if kind == "binary" else [case.outcomes]


def large_case(n_queries=300, n_models=37, dim=96, n_columns=32):
    rng = np.random.default_rng(7)
    outcomes = f32(rng.integers(0, 2, (500, n_models)))
    outcomes[rng.random(outcomes.shape) < 0.2] = NAN
    ids = rng.integers(-1, 500, (n_queries, n_columns))
    near = Neighbours(ids, f32(rng.uniform(-1, 1, ids.shape)))
    learnt = learnt_of(rng, 500, n_models, dim) | {"margin": [0, 0.01], "tolerance": [0.02, 0.05]}
    options = {
        "prior": f32(rng.random(n_models)),
        "preference": rng.permutation(n_models).astype(np.int32),
        "k": n_columns, "kappa": 19, "distance_limit": 1.05, "fallback_model": 3, "home": 5,
    }  # fmt: skip
    return learnt, f32(rng.normal(0, 0.1, (n_queries, dim))), near, pack(outcomes), options


def small(**changes):
    """One prompt, two models of standings .5 and .25, views that add nothing, and changes."""
    learnt = {
        "dataset": np.zeros(2, np.int32), "own_distance": f32([0.5, 0.5]),
        "standing": np.array([0.5, 0.25]), "share": np.array([0.5, 0.5]), "apart": [1.0, 1.0],
        "level": [1.0, 1.0], "of_dataset": np.zeros((1, 32), np.float32),
        "linear": np.zeros((1, 32), np.float32), "offset": np.zeros(32),
        "gate": [0.0, 0.0, 0.0, 0.0], "margin": [0.0, 0.0], "tolerance": [0.0, 0.0],
    }  # fmt: skip
    arguments = {
        "queries": f32([[1]]), "neighbours": i64([[0, 1]]), "similarities": f32([[0.5, 0.5]]),
        "outcomes": f32([[1, 1], [0, 1]]), "prior": f32([0.5, 0.25]),
        "preference": np.array([0, 1], np.int32), "k": 2, "kappa": 2, "distance_limit": INF,
        "fallback_model": 0, "home": 0, "allowed": None,
    }  # fmt: skip
    learnt |= {name: value for name, value in changes.items() if name in learnt}
    arguments |= {name: value for name, value in changes.items() if name not in learnt}
    near = Neighbours(arguments.pop("neighbours"), arguments.pop("similarities"))
    return learnt, arguments.pop("queries"), near, arguments.pop("outcomes"), arguments


# (what changes, the words of the error): of what was learnt, then of a call.
LEARNT_FAULTS = [
    ({"dataset": np.array([0, 1], np.int32)}, r"dataset must be in \[0, 1\), got 1 at \[1\]"),
    ({"dataset": np.array([-1, 0], np.int32)}, r"dataset must be in \[0, 1\), got -1 at \[0\]"),
    ({"own_distance": f32([0.5])}, "own_distance has 1 values, dataset has 2"),
    ({"own_distance": f32([0.5, NAN])}, r"own_distance must be finite and at least 0, got nan"),
    ({"own_distance": f32([-0.5, 1])}, r"own_distance must be finite and at least 0, got -0.5"),
    ({"standing": np.array([0.5, INF])}, r"standing must be finite, got inf at \[1\]"),
    ({"share": np.array([1.0])}, "share has 1 values, standing has 2"),
    ({"share": np.array([1.0, NAN])}, r"share must be finite, got nan at \[1\]"),
    ({"of_dataset": np.zeros((1, 16), np.float32)}, "of_dataset has 16 columns, offset has 32"),
    (
        {"of_dataset": np.full((1, 32), NAN, np.float32)},
        r"of_dataset must be finite, got nan at \[0, 0\]",
    ),
    ({"linear": np.zeros((1, 64), np.float32)}, "linear has 64 columns, offset has 32"),
    ({"linear": np.full((1, 32), -INF, np.float32)}, r"linear must be finite, got -inf at \[0, 0"),
    ({"offset": np.zeros(31)}, "offset must hold 2 × 16·n values, at least 2 × 2 models, got 31"),
    ({"offset": np.zeros(0)}, "offset must hold 2 × 16·n values, at least 2 × 2 models, got 0"),
    ({"offset": np.full(32, NAN)}, r"offset must be finite, got nan at \[0\]"),
    ({"apart": [1.0, NAN]}, r"apart must be finite, got nan at \[1\]"),
    ({"level": [INF, 1.0]}, r"level must be finite, got inf at \[0\]"),
    ({"gate": [0.0, 0.0, 0.0, NAN]}, r"gate must be finite, got nan at \[3\]"),
    ({"margin": [-0.1, 0.0]}, r"margin must be at least 0, got -0.1 at \[0\]"),
    ({"margin": [0.0, NAN]}, r"margin must be at least 0, got nan at \[1\]"),
    ({"tolerance": [0.0, -INF]}, r"tolerance must be at least 0, got -inf at \[1\]"),
]


FAULTS = [
    ({"queries": f32([[NAN]])}, r"queries must be finite, got nan at \[0, 0\]"),
    ({"queries": f32([[INF]])}, r"queries must be finite, got inf at \[0, 0\]"),
    ({"queries": f32([[1, 2]])}, r"queries has shape \(1, 2\), expected \(1, 1\) \(queries, dim\)"),
    ({"queries": f32([[1], [2]])}, r"queries has shape \(2, 1\), expected \(1, 1\)"),
    ({"neighbours": i64([[0, 2]])}, r"neighbours must be -1 .* in \[0, 2\), got 2 at \[0, 1\]"),
    ({"neighbours": i64([[-2, 0]])}, r"neighbours must be -1 .* got -2 at \[0, 0\]"),
    ({"similarities": f32([[0.5, NAN]])}, r"similarities must be finite where .* nan at \[0, 1\]"),
    ({"similarities": f32([[0.5]])}, r"similarities has shape \(1, 1\), expected \(1, 2\)"),
    ({"outcomes": f32([[1, INF], [0, 1]])}, r"outcomes must be finite or NaN .* inf at \[0, 1\]"),
    ({"outcomes": f32([[1, 1]])}, "dataset has 2 values, outcomes has records: 1"),
    (
        {"outcomes": f32([[1], [1]]), "prior": f32([1]), "preference": np.zeros(1, np.int32)},
        "standing has 2 values, outcomes has models: 1",
    ),
    (
        {"outcomes": np.empty((2, 0), np.float32), "prior": f32([])},
        "outcomes must have at least 1 model to decide, got 0",
    ),
    (
        {"outcomes": PackedOutcomes(np.zeros((2, 2), np.uint64), None, 2)},
        "bits has 2 words a row, 2 models need 1",
    ),
    ({"prior": f32([1])}, "prior has 1 values, outcomes has models: 2"),
    ({"prior": f32([1, NAN])}, r"prior must be finite, got nan at \[1\]"),
    ({"preference": np.array([0, 0], np.int32)}, "preference must hold each of 0 to 1 once"),
    ({"k": 3}, "k must be between 0 and the 2 columns of neighbours, got 3"),
    ({"kappa": -1}, "kappa must be between 0 and the 2 columns of neighbours, got -1"),
    ({"distance_limit": NAN}, "distance_limit must be a number, got nan"),
    ({"fallback_model": 2}, r"fallback_model must be in \[0, 2\), got 2"),
    ({"home": 2}, r"home must be in \[0, 2\), got 2"),
    ({"home": -1}, r"home must be in \[0, 2\), got -1"),
    ({"allowed": np.array([True, False]), "home": 1}, "home must be a model allowed, got 1"),
    ({"allowed": np.array([False, True])}, "fallback_model must be a model allowed, got 0"),
    ({"allowed": np.zeros(2, bool)}, "allowed must hold at least 1 model, got none"),
    ({"allowed": np.array([True])}, "allowed has 1 values, outcomes has models: 2"),
]
