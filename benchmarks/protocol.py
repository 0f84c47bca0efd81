"""The paper's leave-one-dataset-out protocol, and its cells beside plain NumPy.

The whole protocol is timed from given embeddings: 36 datasets x 19 models, 15 label shares x 10
draws, strict nesting and as published, every rule. Then its as-published cells (one dataset, share
and draw: S1, S2, the distance u and the accuracy p of the predictor) are timed beside a plain
NumPy rendering of the published call pattern on a seeded sample of the same cells and draws: the
full distance matrix, argsort, gather, mean, and all of it again for kappa. Ours are computed all at
once, so their time per cell is that of all cells, the search for neighbours included, over their
number; cells that move no record are counted once.

Before anything is timed, S1, S2, u and p of the sample must agree to 1e-5 and the chosen models
must be the same. Records with equal prompts are equally near: NumPy's float32 products round such
ties at will, so the rendering that is compared to 1e-5 takes them in float64, rounds to float32 and
sorts stably; the faster one in float32 is timed beside it, with the number of cells that it gets
different.

Input: experiment A of ../shared where that is there, else synthetic clusters of the same shape.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from report import (
    SHARED,
    Report,
    Timing,
    available_cores,
    interleave,
    parse_arguments,
    print_table,
    readable_seconds,
)

from benchrouter import BenchmarkTable, read_table
from benchrouter.evaluation.tasks.chosen_models import best_models
from benchrouter.evaluation.tasks.leave_one_out import LeaveOneOut, leave_one_dataset_out
from benchrouter.scores import formulas
from benchrouter.scores.cells import cells_of, distinct, moves_of
from benchrouter.scores.evidence import evidence_of, model_costs_usd
from benchrouter.scores.held_out import hold_out
from benchrouter.scores.pairs import DRAWS, LABEL_SHARES

SECONDS = 60  # aim for the whole protocol
TIMES = 100  # aim per cell
CLOSE = 1e-5
SIZES = (100, 240, 760)  # records of a synthetic dataset: least, mean above it, most
N_DATASETS, N_MODELS, DIM = 36, 19, 384


@dataclass(frozen=True)
class Cell:
    """S1, S2, u and p of one dataset, label share and draw."""

    s1: np.ndarray
    s2: np.ndarray
    u: float
    p: np.ndarray


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments(__doc__, add_options)
    report = Report("protocol", arguments)
    table, embeddings, what = given(arguments.synthetic)
    report.row("threads", arguments.threads or available_cores(), "threads")
    print(
        f"{what}: {table.n_records:,} records, {table.n_datasets} datasets, {table.n_models} models"
    )

    results: list[LeaveOneOut] = []

    def protocol() -> None:
        results[:] = [leave_one_dataset_out(table, embeddings, threads=arguments.threads)]

    timings = interleave(
        {"both nestings, every rule": protocol}, repeats=1 if report.quick else 3, warmup=0
    )
    whole = timings["both nestings, every rule"]
    n_cells = table.n_datasets * len(LABEL_SHARES) * DRAWS
    print_table(
        f"protocol: {n_cells:,} cells in each nesting",
        ["", "median", "fastest", "slowest", "n"],
        [["both nestings, every rule", *times(whole), str(len(whole.seconds))]],
    )
    report.row("protocol: both nestings, every rule", whole.median, "s", len(whole.seconds))

    ratio = per_cell(report, table, embeddings, results[0], arguments)
    report.aim("whole protocol, from given embeddings", whole.median, "s", at_most=SECONDS)
    report.aim("as-published cell: against NumPy", ratio, "x", at_least=TIMES)
    report.finish()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=0, help="of ours; 0 = all (the default)")
    parser.add_argument("--synthetic", action="store_true", help="even where ../shared is there")
    parser.add_argument("--cells", type=int, help="in the sample (default: 24, with --quick 5)")


def given(synthetic: bool) -> tuple[BenchmarkTable, np.ndarray, str]:
    """Experiment A, or clusters of its shape."""
    file = SHARED / "data" / "mmlu_pro.parquet"
    if synthetic or not file.exists():
        return *make_clusters(np.random.default_rng(20231)), "synthetic clusters"
    table = read_table(file, dataset_column="src", max_params=50, complete=True, min_records=100)
    return table, np.load(file.with_name("mmlu_pro.minilm.npy")), "experiment A"


def make_clusters(rng: np.random.Generator) -> tuple[BenchmarkTable, np.ndarray]:
    """One cluster of unit rows a dataset; models' skills differ by dataset."""
    least, mean, most = SIZES
    sizes = np.minimum(least + rng.exponential(mean - least, N_DATASETS), most).astype(int)
    dataset = np.repeat(np.arange(N_DATASETS, dtype=np.int32), sizes)
    n = len(dataset)
    centres = rng.standard_normal((N_DATASETS, DIM))
    rows = centres[dataset] + 1.5 * rng.standard_normal((n, DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    skills = np.clip(rng.normal(0.45, 0.15, (N_DATASETS, N_MODELS)), 0.05, 0.95)
    table = BenchmarkTable(
        scores=(rng.random((n, N_MODELS)) < skills[dataset]).astype(np.float32),
        dataset=dataset,
        datasets=tuple(f"dataset {d:02}" for d in range(N_DATASETS)),
        models=tuple(f"model {m}" for m in range(N_MODELS)),
        sample_ids=[str(i) for i in range(n)],
        prompts=["synthetic"] * n,
        source_rows=np.arange(n),
        n_source_rows=n,
        params_b=np.full(N_MODELS, np.nan),
        prices=np.full((N_MODELS, 2), np.nan),
        metrics=("",) * N_DATASETS,
        thresholds=np.full(N_DATASETS, 0.5),
    )
    return table, rows.astype(np.float32)


def per_cell(
    report: Report,
    table: BenchmarkTable,
    embeddings: np.ndarray,
    results: LeaveOneOut,
    arguments: argparse.Namespace,
) -> float:
    """Check the sample, time all contenders; returns ours against the faster NumPy."""
    evidence = evidence_of(table, embeddings, threads=arguments.threads)
    numpys = Renderings(
        evidence.index.embeddings, evidence.correctness, table.dataset, len(LABEL_SHARES)
    )
    count = arguments.cells or (5 if report.quick else 24)
    rng = np.random.default_rng(20231)
    shape = (table.n_datasets, len(LABEL_SHARES), DRAWS)
    sample = [tuple(rng.integers(shape).tolist()) for _ in range(count)]

    preferred = formulas.preference(model_costs_usd(table), table.prices, table.params_b)
    differing = []
    for cell in sample:
        check_equal(results, cell, numpys.cell(cell, exact=True), preferred)
        differing.append(largest_difference(results, cell, numpys.cell(cell)) > CLOSE)
    print(
        f"\n{count} sampled cells: S1, S2, u and p equal to {CLOSE:g}, the same models chosen by "
        f"S1, S2, S3 and S3 with true p; in float32 {sum(differing)} of {count} differ by ties"
    )
    report.row("sampled cells that float32 NumPy gets different", sum(differing), "cells")

    n_ours = 0

    def ours() -> None:
        nonlocal n_ours
        n_ours = 0
        own = evidence_of(table, embeddings, threads=arguments.threads)
        for held_out in hold_out(own):
            moved, _ = distinct(moves_of(len(held_out.rows), held_out.code, LABEL_SHARES, DRAWS, 0))
            cells_of(held_out, own, moved)
            n_ours += len(moved)

    contenders: dict[str, Any] = {
        "NumPy, float32": lambda: [numpys.cell(cell) for cell in sample],
        "NumPy, float64": lambda: [numpys.cell(cell, exact=True) for cell in sample],
        "ours, search included": ours,
    }
    timings = interleave(
        contenders, repeats=2 if report.quick else 5, warmup=0 if report.quick else 1
    )
    each = {name: n_ours if name.startswith("ours") else count for name in contenders}
    timings = {
        name: Timing(tuple(s / each[name] for s in timing.seconds))
        for name, timing in timings.items()
    }
    report.timings("one as-published cell", timings, against="NumPy, float32")
    return timings["NumPy, float32"].median / timings["ours, search included"].median


class Renderings:
    """The published call pattern in plain NumPy, with the protocol's own draws."""

    def __init__(
        self, embeddings: np.ndarray, correct: np.ndarray, dataset: np.ndarray, n_shares: int
    ) -> None:
        self.embeddings = embeddings
        self.doubled = embeddings.astype(np.float64)
        self.correct = correct
        self.dataset = dataset
        self.n_shares = n_shares

    def cell(self, cell: tuple[int, int, int], exact: bool = False) -> Cell:
        """Predict the records of a dataset that stay from all others and the moved ones."""
        code, share, draw = cell
        own = np.flatnonzero(self.dataset == code)
        moves = moves_of(len(own), code, LABEL_SHARES, DRAWS, 0)[share][draw]
        is_moved = np.zeros(len(own), bool)
        is_moved[moves] = True
        rest = own[~is_moved]
        is_pool = self.dataset != code
        is_pool[own[is_moved]] = True
        pool = np.flatnonzero(is_pool)

        distance = self.distances(rest, pool, exact)
        nearest = np.argsort(distance, axis=1, kind="stable" if exact else None)
        g = self.correct[pool[nearest[:, : formulas.K_HELM]]].mean(axis=1)
        g_bar = g > np.float32(formulas.THRESHOLD)

        distance = self.distances(rest, pool, exact)
        nearest = np.argsort(distance, axis=1, kind="stable" if exact else None)
        near = np.take_along_axis(distance, nearest[:, : formulas.KAPPA], axis=1)
        u = np.maximum(near, formulas.DISTANCE_FLOOR).mean(axis=1, dtype=np.float64).mean()

        p = (g_bar == (self.correct[rest] > 0.5)).mean(axis=0)
        return Cell(g.mean(axis=0, dtype=np.float64), g_bar.mean(axis=0), float(u), p)

    def distances(self, rest: np.ndarray, pool: np.ndarray, exact: bool) -> np.ndarray:
        """The full distance matrix."""
        if not exact:
            return 1.0 - self.embeddings[rest] @ self.embeddings[pool].T
        # Negative similarities, rounded: 1 - s in float32 would make ties of what is none.
        similarity = (self.doubled[rest] @ self.doubled[pool].T).astype(np.float32)
        return 1.0 - similarity.astype(np.float64)


def largest_difference(results: LeaveOneOut, cell: tuple[int, int, int], theirs: Cell) -> float:
    """Of S1, S2, u and p."""
    return max(
        float(np.abs(getattr(results, name)[cell] - getattr(theirs, name)).max())
        for name in ("s1", "s2", "u", "p")
    )


def check_equal(
    results: LeaveOneOut, cell: tuple[int, int, int], theirs: Cell, preferred: np.ndarray
) -> None:
    """Raise unless the numbers agree and every score chooses the same model."""
    off = largest_difference(results, cell, theirs)
    if not off <= CLOSE:
        raise AssertionError(f"cell {cell}: S1, S2, u or p differ by {off:.3g}")
    picks = results.picks["published"]
    # S1 of both are means of float32 votes summed in another order: as ties, to 9 digits.
    s1, bma = theirs.s1.round(9), picks["BMA"][cell]
    p_hat = results.p_hat["published"][cell]
    for rule, score, tie in (
        ("S1", s1, None),
        ("S2", theirs.s2, s1),
        ("S3", formulas.s3(theirs.s2, p_hat), s1),
    ):
        chosen = int(best_models(score, preferred, bma, tie))
        if chosen != picks[rule][cell]:
            raise AssertionError(f"cell {cell}: {rule} chooses {chosen}, not {picks[rule][cell]}")
    ours, other = (
        int(best_models(formulas.s3(s2, p), preferred, bma, s1))
        for s2, p in ((results.s2[cell], results.p[cell]), (theirs.s2, theirs.p))
    )
    if ours != other:
        raise AssertionError(f"cell {cell}: S3 with true p chooses {other}, not {ours}")


def times(timing: Timing) -> list[str]:
    return [readable_seconds(s) for s in (timing.median, timing.low, timing.high)]


if __name__ == "__main__":
    main()
