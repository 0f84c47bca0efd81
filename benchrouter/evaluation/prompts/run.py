"""Run a protocol of single prompts, and every measure on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.evaluation.prompts.calibration import Reliability, reliabilities
from benchrouter.evaluation.prompts.cascades import Cascade, cascades
from benchrouter.evaluation.prompts.costs import CostQuality, cost_quality, gains
from benchrouter.evaluation.prompts.folds import random_split
from benchrouter.evaluation.prompts.prompt_results import PromptResults, Protocol
from benchrouter.evaluation.prompts.protocols import evaluate_prompts
from benchrouter.evaluation.prompts.robustness import Flips, flips
from benchrouter.evaluation.prompts.rule_rows import prompt_rows
from benchrouter.evaluation.prompts.sparsity import sparsity
from benchrouter.evaluation.results import PromptProtocol
from benchrouter.scores.fitted import Settings

if TYPE_CHECKING:
    from benchrouter.decisions.policy import Rule
    from benchrouter.embeddings import Encoder
    from benchrouter.files.arrays import Progress
    from benchrouter.tables.table import BenchmarkTable

TEST_SHARE = 0.3  # of a random split
DEFAULT_RULE: Rule = "auto"
# Predictors of a score in the score's unit.
PRICED = ("auto", "mean", "linear regression", "kNN-100")
T = TypeVar("T")


def run_protocol(
    table: BenchmarkTable,
    rows: NDArray[Any],
    protocol: Protocol,
    settings: Settings,
    metrics: Mapping[str, BenchmarkTable] | None,
    threads: int,
    progress: Progress | None,
) -> PromptProtocol:
    """Route test prompts one by one, and measure the choices.

    Parameters
    ----------
    table : BenchmarkTable
    rows : float16 or float32 array, shape (n_records, dim)
        Unit rows.
    protocol : "random split" or "leave-one-dataset-out"
    settings : Settings
        k, κ and the seed are taken.
    metrics : dict of str to BenchmarkTable or None
    threads : int
    progress : callable or None

    Raises
    ------
    ValueError
        If the table does not allow the protocol.
    """
    results = evaluate_prompts(
        table,
        rows,
        protocol=protocol,
        k=settings.k,
        kappa=settings.kappa,
        test_share=TEST_SHARE,
        seed=settings.seed,
        metrics=metrics,
        threads=threads,
        progress=progress,
    )
    notes: list[str] = []
    calibration = _calibration(results, notes)
    costs = _costs(results, notes)
    return PromptProtocol(
        results=results,
        rows=tuple(prompt_rows(results, seed=settings.seed)),
        sparsity=sparsity(results),
        gains=tuple(gains(results)),
        calibration=calibration,
        costs=costs,
        cascades=_cascades(results, costs, notes),
        notes=tuple(notes),
    )


def _calibration(results: PromptResults, notes: list[str]) -> dict[str, dict[str, Reliability]]:
    if results.correctness is None:
        notes.append(
            "no reliability curve: a dataset has no threshold between right and wrong, so no "
            "chance of success is predicted"
        )
        return {}
    return {
        rule: found
        for rule in results.predicted
        if rule != "raw" and (found := or_note(notes, partial(reliabilities, results, rule)))
    }


def _costs(results: PromptResults, notes: list[str]) -> dict[str, CostQuality]:
    if results.cost_usd is None:
        notes.append("no cost-quality curve: no cost is recorded in the table (cost::MODEL)")
        return {}
    found = {}
    for rule in PRICED:
        if rule in results.predicted:
            curve = or_note(notes, partial(cost_quality, results, rule))
            if curve is None:
                break  # the same reason for every rule
            found[rule] = curve
            notes.extend(f"cost and quality by {rule}: {note}" for note in curve.notes)
    return found


def _cascades(
    results: PromptResults, costs: dict[str, CostQuality], notes: list[str]
) -> tuple[Cascade, ...]:
    if DEFAULT_RULE not in costs:
        return ()  # a note says why there are no costs
    return tuple(or_note(notes, partial(cascades, results, costs[DEFAULT_RULE])) or ())


def run_robustness(
    table: BenchmarkTable,
    rows: NDArray[Any],
    encoder: Encoder,
    n_prompts: int,
    settings: Settings,
    threads: int,
    progress: Progress | None,
) -> dict[str, Flips]:
    """Edit prompts of a random split's test part, and route them again.

    Parameters
    ----------
    table : BenchmarkTable
    rows : float16 or float32 array, shape (n_records, dim)
        Unit rows of `encoder`.
    encoder : Encoder
    n_prompts : int
        At most so many, drawn from the test part.
    settings : Settings
    threads : int
    progress : callable or None

    Returns
    -------
    dict of str to Flips
        By edit, for the rule "auto".

    Raises
    ------
    ValueError
        If the embeddings are another encoder's, or the table leaves no test prompt.
    """
    from benchrouter.router import Router

    rows = as_unit_rows(rows, "embeddings")
    train, test = random_split(table, TEST_SHARE, settings.seed)
    drawn = np.random.default_rng(settings.seed).permutation(len(test))[:n_prompts]
    asked = np.sort(test[drawn])
    prompts = [table.prompts[i] for i in asked.tolist()]
    refuse_other_rows(encoder, prompts[:1], rows[asked[:1]])
    router = Router.fit(
        table.rows(train),
        encoder=encoder,
        embeddings=np.ascontiguousarray(rows[train]),
        settings=Settings(k=settings.k, kappa=settings.kappa, label_shares=(0.0,)),
        threads=threads,
    )
    return flips(
        router,
        prompts,
        embeddings=np.ascontiguousarray(rows[asked]),
        rule=DEFAULT_RULE,
        progress=progress,
    )


SAME_ENCODER = 0.99  # cosine; float16 files and another batch stay above 0.999


def refuse_other_rows(encoder: Encoder, prompts: list[str], rows: NDArray[np.float32]) -> None:
    """Refuse embeddings that the encoder does not give for the same prompts.

    Raises
    ------
    ValueError
        If dim or direction differ.
    """
    own = encoder.encode(prompts)
    if own.shape != rows.shape:
        raise ValueError(
            f"embeddings have dim {rows.shape[1]}, those of the encoder {own.shape[1]}: "
            "robustness needs the encoder that made them"
        )
    cosine = float((own.astype(np.float64) * rows).sum(axis=1).min())
    if cosine < SAME_ENCODER:
        raise ValueError(
            f"the encoder gives another embedding for a prompt of the table (cosine {cosine:.3f}, "
            f"expected above {SAME_ENCODER}): robustness needs the encoder that made them"
        )


def or_note(notes: list[str], run: Callable[[], T]) -> T | None:
    """Result of a measure, or None after adding the reason to the notes."""
    try:
        return run()
    except ValueError as e:
        notes.append(str(e))
        return None
