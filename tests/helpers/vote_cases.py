"""Cases of votes: neighbours, correctness and models drawn by hypothesis."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from benchrouter import _core

NAN = float("nan")
LEVELS = _core.simd_levels()
# The sanitized run (tests/votes/run_sanitized.sh) asks for fewer.
EXAMPLES = int(os.environ.get("BENCHROUTER_EXAMPLES", "1500"))
some = settings(max_examples=max(EXAMPLES // 5, 10), deadline=None)


def f32(values):
    return np.array(values, dtype=np.float32)


def i64(values):
    return np.array(values, dtype=np.int64)


@dataclass
class Case:
    neighbours: np.ndarray
    similarities: np.ndarray
    outcomes: np.ndarray
    prior: np.ndarray
    weights: np.ndarray | None
    preference: np.ndarray
    p_table: np.ndarray
    rng: np.random.Generator


MODELS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 18, 31, 33, 63, 64, 65, 128, 129, 200)


COLUMNS = (0, 1, 2, 3, 5, 10, 15, 16, 31, 32, 40, 254, 255, 256, 300)


@st.composite
def cases(draw, kind="binary"):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_columns = draw(st.sampled_from(COLUMNS))
    n_models = draw(st.sampled_from(MODELS if n_columns < 40 else MODELS[:15]))
    n_records = draw(st.sampled_from((0, 1, 2, 7, 30)))
    n_queries = draw(st.sampled_from((0, 1, 2, 3, 9) if n_columns < 40 else (1, 2)))
    shape = (n_queries, n_columns)
    neighbours = np.full(shape, -1, np.int64)
    if n_records:
        holes = rng.random(shape) < draw(st.sampled_from((0.0, 0.0, 0.2, 1.0)))
        neighbours = np.where(holes, -1, rng.integers(0, n_records, shape))
    similarities = f32(rng.uniform(-1, 1, shape))
    similarities[neighbours < 0] = -np.inf
    outcomes = f32(rng.integers(0, 2, (n_records, n_models)))
    if kind == "scores":
        outcomes = f32(rng.normal(0, draw(st.sampled_from((1e-3, 1.0, 1e6))), outcomes.shape))
    outcomes[rng.random(outcomes.shape) < draw(st.sampled_from((0.0, 0.0, 0.1, 0.6, 1.0)))] = NAN
    weights = f32(rng.exponential(1, shape)) if kind == "scores" and draw(st.booleans()) else None
    if weights is not None and draw(st.booleans()):
        weights[rng.random(shape) < 0.3] = 0
    return Case(
        neighbours, similarities, outcomes, f32(rng.random(n_models)), weights,
        rng.permutation(n_models).astype(np.int32),
        f32(rng.random((draw(st.sampled_from((1, 2, 5))), n_models))), rng,
    )  # fmt: skip


def some_models(case):
    """A random choice of models that may be chosen, and one of them."""
    allowed = case.rng.random(len(case.prior)) < case.rng.choice((0.05, 0.5, 0.95))
    fallback = int(case.rng.integers(0, len(allowed)))
    allowed[fallback] = True
    return allowed, fallback


# The sanitized run (tests/votes/run_sanitized.sh) asks for fewer.
