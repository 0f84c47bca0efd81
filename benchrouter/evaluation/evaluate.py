"""All the paper's experiments on one table: the work of `benchrouter evaluate`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.evaluation.prompts.prompt_results import Protocol
from benchrouter.evaluation.prompts.run import run_protocol, run_robustness
from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol
from benchrouter.evaluation.tasks.leave_one_out import leave_one_dataset_out
from benchrouter.evaluation.tasks.measures import table_one
from benchrouter.files.arrays import Progress
from benchrouter.scores.fitted import Settings

if TYPE_CHECKING:
    from benchrouter.embeddings import Encoder
    from benchrouter.tables.table import BenchmarkTable

EXPERIMENTS = ("tasks", "prompts")
NESTINGS = ("strict", "published")
ALL_MODELS = "all models"
FEW_LABELS = 0.05  # the share at which the paper compares rules with a few labels


@dataclass
class _Run:
    """State shared by the stages of one evaluation."""

    settings: Settings
    threads: int
    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def evaluate(
    table: BenchmarkTable,
    embeddings: NDArray[Any],
    *,
    pools: Mapping[str, BenchmarkTable] | None = None,
    metrics: Mapping[str, BenchmarkTable] | None = None,
    experiments: Sequence[str] = EXPERIMENTS,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
    robustness: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Run leave-one-dataset-out on every pool, and the protocols of single prompts on the first.

    An experiment that the table does not allow (one dataset, no threshold, no cost) is left out
    with a note.

    Parameters
    ----------
    table : BenchmarkTable
    embeddings : float16 or float32 array, shape (n_records, dim)
        Unit rows, one per record of the table or of the files it was read from.
    pools : dict of str to BenchmarkTable, optional
        Title to a selection of the table (`BenchmarkTable.select`); the whole table by default.
    metrics : dict of str to BenchmarkTable, optional
        Further metrics of the same records and models, measured on the same choices.
    experiments : sequence of "tasks" and "prompts"
        One model per dataset, one model per prompt.
    settings : Settings, optional
        Numbers of the method; those of the paper by default.
    encoder : Encoder, optional
        The encoder behind the embeddings; needed for `robustness`.
    robustness : int
        Prompts that are edited and routed again; 0 = none.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    TypeError, ValueError
        If the embeddings do not fit the table, a pool is not a selection of it, an experiment is
        unknown, or robustness is asked for without an encoder.
    """
    for name in experiments:
        if name not in EXPERIMENTS:
            raise ValueError(f"experiments must be of {EXPERIMENTS}, got {name!r}")
    if robustness and encoder is None:
        raise ValueError("robustness edits prompts and encodes them again: it needs an encoder")
    run = _Run(settings or Settings(), threads, progress)
    rows = table.aligned(embeddings)
    as_unit_rows(rows, "embeddings")  # refuse other rows here, as an error and not as a note
    parts = {
        title: (pool, _rows_of(pool, table, rows, title))
        for title, pool in (pools or {ALL_MODELS: table}).items()
    }
    found = []
    for number, (title, (pool, own_rows)) in enumerate(parts.items(), 1):
        found.append(_pool(title, f"pool{number}", pool, own_rows, "tasks" in experiments, run))
    main, main_rows = next(iter(parts.values()))
    prompts: list[PromptProtocol] = []
    notes: list[str] = []
    if "prompts" in experiments:
        prompts, notes = _prompts(main, main_rows, metrics, run)
        if not robustness:
            notes.append(
                "small edits of the prompt are not measured: they were not asked for "
                "(--robustness N, in Python robustness=N)"
            )
    flips = {}
    if robustness and encoder is not None:
        with run.stage("robustness"):
            flips = run_robustness(
                main, main_rows, encoder, robustness, run.settings, threads, progress
            )
    from benchrouter.files.version import VERSION

    return Evaluation(
        pools=tuple(found),
        prompts=tuple(prompts),
        robustness=flips,
        notes=tuple(notes),
        settings=run.settings.numbers,
        seconds=run.seconds,
        version=VERSION,
    )


def _prompts(
    table: BenchmarkTable,
    rows: NDArray[Any],
    metrics: Mapping[str, BenchmarkTable] | None,
    run: _Run,
) -> tuple[list[PromptProtocol], list[str]]:
    """Run the protocols of single prompts; notes say why one is missing."""
    found: list[PromptProtocol] = []
    notes: list[str] = []
    for protocol in get_args(Protocol):
        with run.stage(f"prompts, {protocol}"):
            try:
                found.append(
                    run_protocol(
                        table, rows, protocol, run.settings, metrics, run.threads, run.progress
                    )
                )
            except ValueError as e:
                notes.append(f"prompts, {protocol}, not measured: {e}")
    return found, notes


def _rows_of(
    pool: BenchmarkTable, table: BenchmarkTable, rows: NDArray[Any], title: str
) -> NDArray[Any]:
    """Embeddings of the records of a pool."""
    place = np.full(table.n_source_rows, -1, dtype=np.int64)
    place[table.source_rows] = np.arange(table.n_records)
    if pool.n_source_rows != table.n_source_rows or (place[pool.source_rows] < 0).any():
        raise ValueError(f"pool {title!r} is no selection of the table: it has other records")
    at = place[pool.source_rows]
    return rows if np.array_equal(at, np.arange(table.n_records)) else rows[at]


def _pool(
    title: str,
    key: str,
    pool: BenchmarkTable,
    rows: NDArray[Any],
    with_tasks: bool,
    run: _Run,
) -> Pool:
    """Leave-one-dataset-out of one pool of models."""
    described = pool.describe()
    if not with_tasks:
        return Pool(title, key, described)
    notes: list[str] = []
    with run.stage(f"one dataset left out, {title}"):
        try:
            tasks = leave_one_dataset_out(
                pool,
                rows,
                settings=run.settings,
                nestings=NESTINGS,
                threads=run.threads,
                progress=run.progress,
            )
        except ValueError as e:
            note = f"one model per dataset, not measured: {e}"
            return Pool(title, key, described, notes=(note,))
    if pool.log_likelihood is None:
        notes.append("no row LL: the table has no log-likelihoods of the models' own answers")
    seed = run.settings.seed
    tables = {nesting: tuple(table_one(tasks, nesting, seed=seed)) for nesting in NESTINGS}
    with_labels = None
    labelled = [i for i, share in enumerate(tasks.label_shares) if share > 0]
    if labelled:
        few = min(labelled, key=lambda i: round(abs(tasks.label_shares[i] - FEW_LABELS), 9))
        with_labels = few, tuple(table_one(tasks, "strict", few, seed=seed))
    return Pool(title, key, described, tasks, tables, with_labels, (*tasks.notes, *notes))
