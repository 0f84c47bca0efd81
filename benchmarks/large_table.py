"""A table of millions of records: generated, fitted, saved, loaded, used, and checked.

5,000,000 records x 384 (--records N; --quick: 200,000) in 8 datasets, 11 models, 0/1 outcomes, and
10,000 prompts (--prompts N; --quick: 1,000), all from one seed. The embeddings are made a block at
a time and lie on disk as float16; the fit widens them. What comes after loading works on the
memory-mapped directory. Every step's seconds, the processor seconds of all threads, and the largest
resident memory so far (VmHWM: the process's own pages and the file pages that it has mapped, which
the system may take back) are printed.

Before anything is reported, the decisions of a sample of the prompts are compared with brute force
in float64: neighbours by (similarity, record number), then the mean rule by hand.

--index NAME trains an approximate index of faiss as well (then the sample's recall and agreement
are printed instead of compared). Files go to a temporary folder (--folder DIR: within DIR) and are
removed.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import Report, parse_arguments, print_table

from benchrouter import BenchmarkTable, Router, Settings
from benchrouter.embeddings import as_unit_rows

DIM = 384
N_MODELS = 11
N_DATASETS = 8
CLUSTERS_PER_DATASET = 40
CHECKED = 30  # prompts that brute force looks at again
BLOCK = 1 << 17  # records made, and compared by brute force, at a time
SIGMA_WITHIN = 1.2  # length of the noise around a cluster's centre
MEMORY_AIM_GIB = 20.0  # of a machine with 24

Rows = NDArray[np.float32]


class Steps:
    """Seconds, processor seconds and largest resident memory of each step."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.rows: list[list[str]] = []
        self.peak_gib = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        begun, begun_cpu = time.perf_counter(), time.process_time()
        yield
        seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        self.peak_gib = peak_gib()
        self.rows.append([name, f"{seconds:.1f} s", f"{cpu:.1f} s", f"{self.peak_gib:.2f} GiB"])
        self.report.row(name, seconds, "s")
        self.report.row(f"{name}: of all threads", cpu, "s")
        self.report.row(f"{name}: largest resident memory so far", self.peak_gib, "GiB")
        print(f"  {name}: {seconds:.1f} s, CPU {cpu:.1f} s, {self.peak_gib:.2f} GiB", flush=True)


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kib) / 2**20


def unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def near(rng: np.random.Generator, centres: Rows) -> Rows:
    """A unit row near each centre."""
    noise = rng.standard_normal(centres.shape, dtype=np.float32) * np.float32(DIM**-0.5)
    return unit(centres + np.float32(SIGMA_WITHIN) * noise)


def make(n: int, n_prompts: int, path: Path) -> tuple[BenchmarkTable, Rows, Rows]:
    """A table, its embeddings as float16 on disk, and prompts from the same clusters."""
    rng = np.random.default_rng(0)
    n_clusters = N_DATASETS * CLUSTERS_PER_DATASET
    centres = unit(rng.standard_normal((n_clusters, DIM), dtype=np.float32))
    skill = rng.random((n_clusters, N_MODELS), dtype=np.float32)
    dataset = np.sort(rng.integers(0, N_DATASETS, n)).astype(np.int32)
    scores = np.empty((n, N_MODELS), np.float32)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, DIM))
    for start in range(0, n, BLOCK):
        of = dataset[start : start + BLOCK]
        cluster = of * CLUSTERS_PER_DATASET + rng.integers(0, CLUSTERS_PER_DATASET, len(of))
        rows[start : start + BLOCK] = near(rng, centres[cluster])
        won = rng.random((len(of), N_MODELS), dtype=np.float32) < skill[cluster]
        scores[start : start + BLOCK] = won
    rows.flush()
    del rows
    table = BenchmarkTable(
        scores=scores,
        dataset=dataset,
        datasets=tuple(f"dataset {d}" for d in range(N_DATASETS)),
        models=tuple(f"model {m:02}" for m in range(N_MODELS)),
        sample_ids=[str(i) for i in range(n)],
        prompts=[f"synthetic prompt {i}" for i in range(n)],
        source_rows=np.arange(n),
        n_source_rows=n,
        params_b=np.full(N_MODELS, np.nan),
        prices=np.full((N_MODELS, 2), np.nan),
        metrics=("exact_match",) * N_DATASETS,
        thresholds=np.full(N_DATASETS, 0.5),
    )
    prompts = near(rng, centres[rng.integers(0, n_clusters, n_prompts)])
    return table, np.load(path, mmap_mode="r"), prompts


def nearest_by_brute_force(prompts: Rows, rows: Rows, k: int) -> NDArray[np.int64]:
    """Ids of the k nearest rows, by float64 products rounded to float32."""
    prompts = as_unit_rows(prompts).astype(np.float64)
    best_ids = np.empty((len(prompts), 0), np.int64)
    best = np.empty((len(prompts), 0), np.float32)
    for start in range(0, len(rows), BLOCK):
        records = as_unit_rows(rows[start : start + BLOCK]).astype(np.float64)
        found = (prompts @ records.T).astype(np.float32)
        ids = np.broadcast_to(np.arange(start, start + len(records)), found.shape)
        best, best_ids = np.c_[best, found], np.c_[best_ids, ids]
        order = np.lexsort((best_ids, -best), axis=1)[:, :k]
        best, best_ids = (np.take_along_axis(a, order, axis=1) for a in (best, best_ids))
    return best_ids


def check(
    router: Router, prompts: Rows, decided: NDArray[np.int32], rows: Rows, scores: Rows
) -> tuple[float, float]:
    """Share of a sample's neighbours and of its decisions that brute force confirms."""
    sample = np.random.default_rng(1).choice(len(prompts), CHECKED, replace=False)
    described = router.describe()
    k = described["settings"]["k"]
    standing = np.array([model["standing"] for model in described["models"]])
    nearest = nearest_by_brute_force(prompts[sample], rows, k)
    by_hand = (scores[nearest].sum(axis=1, dtype=np.float64) + standing) / (k + 1)
    models = by_hand.astype(np.float32).argmax(axis=1)
    same = []
    for prompt, expected in zip(prompts[sample], nearest, strict=True):
        found = {n.sample_id for n in router.explain(embedding=prompt).neighbours}
        same.append(len(found & {str(i) for i in expected}) / k)
    fallen = router.route(embeddings=prompts[sample]).fallback
    agree = (decided[sample] == models)[~fallen]
    print(f"  of {CHECKED} prompts checked by brute force {fallen.sum()} fell back")
    return float(np.mean(same)), float(np.mean(agree))


def main() -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--records", type=int, help="5,000,000, or 200,000 with --quick")
        parser.add_argument("--prompts", type=int, help="10,000, or 1,000 with --quick")
        parser.add_argument("--index", metavar="NAME", help="an approximate index of faiss")
        parser.add_argument("--folder", type=Path, help="where the temporary folder is made")

    arguments = parse_arguments(__doc__, options)
    n = arguments.records or (200_000 if arguments.quick else 5_000_000)
    n_prompts = arguments.prompts or (1_000 if arguments.quick else 10_000)
    report = Report("large_table", arguments)
    steps = Steps(report)
    folder = Path(tempfile.mkdtemp(prefix="large_table.", dir=arguments.folder))
    try:
        run(n, n_prompts, arguments.index, folder, steps, report)
    finally:
        shutil.rmtree(folder)
    title = f"{n:,} records x {DIM}, {N_MODELS} models, {N_DATASETS} datasets"
    print_table(title, ["", "time", "CPU time", "VmHWM"], steps.rows)
    report.aim("largest resident memory", steps.peak_gib, "GiB", at_most=MEMORY_AIM_GIB)
    report.finish()


def run(
    n: int, n_prompts: int, index: str | None, folder: Path, steps: Steps, report: Report
) -> None:
    report.row("records", n, "records")
    with steps("generate"):
        table, rows, prompts = make(n, n_prompts, folder / "rows.npy")
    scores = table.scores
    with steps("fit"):
        router = Router.fit(table, embeddings=rows, settings=Settings(index=index))
    print(f"  estimated from {router.describe()['estimated_from']}")
    with steps("save"):
        router.save(folder / "router")
    del router, table, rows
    gc.collect()
    with steps("load, every hash checked"):
        router = Router.load(folder / "router")
    with steps(f"route {n_prompts:,} prompts"):
        decisions = router.route(embeddings=prompts)
    report.row("prompts fallen back", float(decisions.fallback.mean()), "share")
    with steps("route one prompt"):
        router.route(embeddings=prompts[:1])
    with steps(f"compare {CHECKED} with brute force"):
        rows = np.load(folder / "rows.npy", mmap_mode="r")
        recall, agreement = check(router, prompts, decisions.model, rows, scores)
    size = sum(file.stat().st_size for file in (folder / "router").iterdir()) / 2**30
    report.row("router on disk", size, "GiB")
    report.row("neighbours that brute force confirms", recall, "share", CHECKED)
    report.row("decisions that brute force confirms", agreement, "share", CHECKED)
    if index is not None:
        print(f"  {index}: {router.describe()['approximation']}")
        print(f"  against brute force: recall {recall:.3f}, decisions {agreement:.3f}")
    elif (recall, agreement) != (1.0, 1.0):
        raise SystemExit(f"not exact: neighbours {recall:.4f}, decisions {agreement:.4f}")


if __name__ == "__main__":
    main()
