"""How much better choices are for prompts that lie near the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.prompts.rule_rows import random_choice
from benchrouter.evaluation.values import Reported, mean_of
from benchrouter.files.arrays import Array

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults

LIMITS = tuple(round(0.05 * i, 2) for i in range(2, 14))  # C in .10 … .65, arXiv 2309.15789


@dataclass(frozen=True)
class Sparsity(Reported):
    """Mean score of the test prompts nearer than C to the benchmark, over C.

    Attributes
    ----------
    metric : str
    limits : float64 array, shape (L,)
        C: prompts with a mean neighbour distance below it are kept.
    count : int64 array, shape (L,)
        Prompts kept.
    n_prompts : int
        All test prompts.
    score : dict of str to float64 array, shape (L,)
        Rule to the mean over the prompts kept; NaN where none is. "random" is the mean over
        models.
    """

    metric: str
    limits: Array
    count: NDArray[np.int64]
    n_prompts: int
    score: dict[str, Array]


def sparsity(
    results: PromptResults, metric: str = "score", limits: Sequence[float] = LIMITS
) -> Sparsity:
    """Measure the test prompts nearer than C to the training records, for every C in `limits`."""
    recorded = results.scores[metric]
    near = [results.distance < limit for limit in limits]
    values = {rule: results.of_picks(rule, recorded) for rule in results.picks}
    values["random"] = random_choice(recorded)
    return Sparsity(
        metric=metric,
        limits=np.array(limits, dtype=np.float64),
        count=np.array([int(kept.sum()) for kept in near], dtype=np.int64),
        n_prompts=len(results.rows),
        score={rule: np.array([mean_of(of[kept]) for kept in near]) for rule, of in values.items()},
    )
