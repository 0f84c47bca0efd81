"""`benchrouter route --group-by`, beside plain `route` of the same prompts.

Given embeddings (384 dimensions, 26,000 records, 11 models, 36 datasets, seeded) and a Parquet file
of 100,000 prompts of 4,000 tasks, all mixed. Before any timing, tasks drawn at random are compared
with `Router.choose` on their prompts alone. Both commands read the same files and run in this
process, taking turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from report import Report, interleave, parse_arguments
from typer.testing import CliRunner

from benchrouter import Settings
from benchrouter.cli import app
from benchrouter.router import Router
from benchrouter.tables.table import BenchmarkTable

DIM, N_RECORDS, N_MODELS, N_DATASETS = 384, 26_000, 11, 36


def unit_rows(rng: np.random.Generator, centres: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Rows around the centres `of`, float32."""
    noise = rng.standard_normal((len(of), DIM), dtype=np.float32) / np.float32(np.sqrt(DIM))
    rows = centres[of] + np.float32(1.2) * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_router(rng: np.random.Generator, centres: np.ndarray) -> Router:
    """A router over one dataset a centre, of models whose skill differs by dataset."""
    dataset = np.sort(rng.integers(0, N_DATASETS, N_RECORDS)).astype(np.int32)
    skill = rng.uniform(0.3, 0.9, (N_DATASETS, N_MODELS))
    table = BenchmarkTable(
        scores=(rng.random((N_RECORDS, N_MODELS)) < skill[dataset]).astype(np.float32),
        dataset=dataset,
        datasets=tuple(f"dataset {d:02}" for d in range(N_DATASETS)),
        models=tuple(f"model {m}" for m in range(N_MODELS)),
        sample_ids=[str(i) for i in range(N_RECORDS)],
        prompts=["synthetic"] * N_RECORDS,
        source_rows=np.arange(N_RECORDS),
        n_source_rows=N_RECORDS,
        params_b=np.full(N_MODELS, np.nan),
        prices=np.full((N_MODELS, 2), np.nan),
        metrics=("",) * N_DATASETS,
        thresholds=np.full(N_DATASETS, 0.5),
    )
    return Router.fit(
        table,
        embeddings=unit_rows(rng, centres, dataset),
        settings=Settings(label_shares=(0.0,), draws=1),
    )


def route(folder: Path, output: str, *arguments: str) -> None:
    """Run the command in this process."""
    files = (str(folder / name) for name in ("R", "p.parquet", "p.npy", output))
    router, prompts, embeddings, target = files
    command = ["route", router, prompts, "--embeddings", embeddings, "-o", target, *arguments]
    result = CliRunner().invoke(app, command)
    if result.exit_code != 0:
        raise SystemExit(f"{' '.join(command)}: {result.output}")


def check(router: Router, folder: Path, task: np.ndarray, rows: np.ndarray, n: int) -> None:
    """Compare n tasks with `choose`; end the run if one differs."""
    found = {row["task"]: row for row in pq.read_table(folder / "tasks.parquet").to_pylist()}
    if len(found) != len(np.unique(task)):
        raise SystemExit(f"found {len(found)} tasks, expected {len(np.unique(task))}")
    for name in np.random.default_rng(1).choice(sorted(found), n, replace=False):
        of_task = rows[task == int(name.removeprefix("task "))]
        alone, row = router.choose(embeddings=of_task), found[name]
        same = row["model"] == alone.model and row["n_prompts"] == len(of_task)
        if not same or abs(row["expected_accuracy"] - alone.expected_accuracy) > 1e-9:
            raise SystemExit(f"{name}: found {row}, expected {alone.to_dict()}")


def main(arguments: argparse.Namespace) -> None:
    report = Report("groups", arguments)
    n_prompts, n_tasks = (10_000, 400) if arguments.quick else (100_000, 4_000)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((N_DATASETS, DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    router = make_router(rng, centres)
    task = rng.integers(0, n_tasks, n_prompts)
    rows = unit_rows(rng, centres, rng.integers(0, N_DATASETS, n_tasks)[task])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        router.save(folder / "R")
        np.save(folder / "p.npy", rows)
        columns = {
            "task": [f"task {t}" for t in task],
            "prompt": [f"prompt {i}" for i in range(n_prompts)],
        }
        pq.write_table(pa.table(columns), folder / "p.parquet")
        route(folder, "tasks.parquet", "--group-by", "task")
        n_checked = 50 if arguments.quick else 300
        check(router, folder, task, rows, n_checked)
        print(f"{n_checked} of {n_tasks:,} tasks drawn at random equal choose on their prompts")
        timings = interleave(
            {
                "route": lambda: route(folder, "prompts.parquet"),
                "route --group-by": lambda: route(folder, "tasks.parquet", "--group-by", "task"),
            },
            repeats=3 if arguments.quick else 5,
            warmup=0 if arguments.quick else 1,  # each call loads its router anew
        )
    title = f"{n_prompts:,} prompts of {n_tasks:,} tasks"
    report.timings(title, timings, against="route", work=n_prompts, unit_of_work="prompts")
    ratio = timings["route --group-by"].median / timings["route"].median
    report.aim("time of --group-by over that of plain route", ratio, "x", at_most=1.5)
    report.finish()


if __name__ == "__main__":
    main(parse_arguments(__doc__))
