"""Prompts a second from a file to a file, by `benchrouter route`, beside what bounds them.

Encoded: prompts of about 20 and about 150 tokens in JSONL and Parquet, MiniLM, 12,000 records x
384. The bound is the encoder alone on the same prompts, in memory, in the same rounds. On a GPU:
1,000,000 prompts of about 120 tokens by MPNet (random weights of the real configuration), 12,000
and 1,000,000 records.

Stages: where the seconds of such a command go by its own --profile; 100,000 records, prompts of
about 150 tokens.

Given: 1,000,000 embeddings x 384 (.npy, beside a Parquet file of prompts) over 12,000 records. The
bound is the search alone, on the same embeddings in memory.

Every run is the command in a new process. Its own figure begins when the router is loaded; that of
the whole command includes Python's start and loading. Decisions in the files are compared with
those of `Router.route` in memory.

    python benchmarks/throughput.py --device cuda
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from inputs import (
    MINILM,
    MPNET,
    clusters,
    long_prompts,
    packaged_minilm,
    random_encoder,
    router_of,
    short_prompts,
    unit_rows,
    words,
)
from report import ROOT, Report, Timing, interleave, parse_arguments, print_table

from benchrouter.embeddings import Encoder
from benchrouter.embeddings.devices import check_device
from benchrouter.neighbours.index import Index
from benchrouter.router import Router

N_RECORDS, N_MODELS, K, KAPPA = 12_000, 11, 5, 19
BLOCK = 16_384  # queries of one search, as many as the router searches at a time
FLIPS = 0.01  # decisions that half precision may change between batches
GIVEN_AIM = 0.9  # of the search alone
AUTO_AIM = 1.3  # time of the default rule over that of the mean of the neighbours
N_PROFILED = 100_000  # records
SEARCH_AIM = 0.05  # search and decisions, of all seconds
GPU_AIMS_S = {12_000: 90.0, 1_000_000: 110.0}  # on an H200, 1,000,000 prompts


class Command:
    """`benchrouter route`, run again and again; keeps what each run says of itself."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = [sys.executable, "-m", "benchrouter", "route", *map(str, arguments)]
        self.seconds: list[float] = []
        self.stages: dict[str, float] | None = None  # of the last run, with --profile

    def __call__(self) -> None:
        """Run it once; it must succeed."""
        run = subprocess.run(
            [*self.arguments, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        told = json.loads(run.stdout)
        self.seconds.append(told["seconds"])
        self.stages = told["stages"]


def main() -> None:
    arguments = parse_arguments(__doc__, add_options)
    device = check_device(arguments.device)
    report = Report("throughput" if device == "cpu" else "throughput-cuda", arguments)
    with tempfile.TemporaryDirectory() as scratch:
        if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
            print("torch or transformers is not installed: embeddings are given only")
        elif device == "cpu":
            on_cpu(report, Path(scratch))
        else:
            on_gpu(report, Path(scratch), device)
        given(report, Path(scratch), device)
    report.finish()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")


def saved_router(folder: Path, n_records: int, dim: int, device: str) -> Path:
    """Fit a router on seeded clusters and save it."""
    rng = np.random.default_rng(0)
    records = unit_rows(rng, clusters(rng, 29, dim), n_records)
    scores = (rng.random((n_records, N_MODELS)) < 0.6).astype(np.float32)
    target = folder / f"router-{n_records}-{dim}"
    router_of(records, scores, k=K, kappa=KAPPA, device=device).save(target)
    return target


# ----------------------------------------------------------------------------------- from prompts


def on_cpu(report: Report, scratch: Path) -> None:
    encoder = packaged_minilm() or random_encoder(scratch / "minilm", MINILM)
    router = saved_router(scratch, N_RECORDS, MINILM["hidden_size"], "cpu")
    encoded(
        report,
        "MiniLM, short",
        encoder,
        router,
        short_prompts(512 if report.quick else 8192),
        "cpu",
    )
    if not report.quick:
        encoded(report, "MiniLM, long", encoder, router, long_prompts(1024)[0], "cpu")
    profiled(report, encoder, scratch, long_prompts(128 if report.quick else 1024)[0], "cpu")


def on_gpu(report: Report, scratch: Path, device: str) -> None:
    encoder = random_encoder(scratch / "mpnet", MPNET)
    prompts = many_prompts(20_000 if report.quick else 1_000_000)
    for n_records, most in GPU_AIMS_S.items():
        router = saved_router(scratch, n_records, MPNET["hidden_size"], device)
        title = f"MPNet, 120 tokens, {n_records:,} records"
        whole = encoded(report, title, encoder, router, prompts, device)
        if not report.quick:
            report.aim(f"{title}: whole command (H200)", whole, "s", at_most=most)
    profiled(report, encoder, scratch, prompts, device)


def many_prompts(n: int) -> list[str]:
    """Distinct prompts of about 120 tokens."""
    rng = np.random.default_rng(2)
    texts = words(rng, np.clip(rng.normal(112, 30, min(n, 20_000)), 20, 250))
    endings = words(rng, np.full(-(-n // len(texts)), 6))  # six words tell the repetitions apart
    return [f"{texts[i % len(texts)]} {endings[i // len(texts)]}" for i in range(n)]


def encoded(
    report: Report,
    title: str,
    encoder_path: Path,
    router: Path,
    prompts: Sequence[str],
    device: str,
) -> float:
    """Time the command beside the encoder alone; returns its seconds from Parquet, all included."""
    folder = router.parent
    sources = {"JSONL": folder / "prompts.jsonl", "Parquet": folder / "prompts.parquet"}
    write_prompts(prompts, sources.values())
    loaded = Encoder.load(encoder_path, device=device)
    commands = {
        kind: Command(
            router, path, "-o", folder / f"{kind}.parquet", *encoding(encoder_path, device)
        )
        for kind, path in sources.items()
    }
    contenders: dict[str, Callable[[], object]] = {
        "encoder alone": lambda: loaded.encode(prompts),
        **{f"route, {kind}": command for kind, command in commands.items()},
    }
    loaded.encode(prompts[:256])
    timings = interleave(contenders, repeats=2 if report.quick else 3, warmup=0)
    for kind in sources:
        expected = Router.load(router, encoder=loaded).route(prompts)
        check(folder / f"{kind}.parquet", expected, tolerated=FLIPS)
    own = {f"route, {kind}": c.seconds for kind, c in commands.items()}
    show(report, title, len(prompts), "encoder alone", timings, own)
    return timings["route, Parquet"].median


def profiled(
    report: Report, encoder: Path, scratch: Path, prompts: Sequence[str], device: str
) -> None:
    """Print and keep the seconds of every stage, as the command itself measures them."""
    n_records = 20_000 if report.quick else N_PROFILED
    dim = (MINILM if device == "cpu" else MPNET)["hidden_size"]
    router = saved_router(scratch, n_records, dim, device)
    source = scratch / "profiled.parquet"
    write_prompts(prompts, [source])
    command = Command(
        router, source, "-o", scratch / "profiled-out.parquet", "--profile",
        *encoding(encoder, device),
    )  # fmt: skip
    command()
    assert command.stages is not None
    whole = command.seconds[-1]
    title = f"stages, {len(prompts):,} prompts, {n_records:,} records"
    shares = {name: seconds / whole for name, seconds in command.stages.items()}
    for name, share in shares.items():
        report.row(f"{title}: {name}", share, "of all seconds")
    rows = [[name, f"{share * whole:.2f} s", f"{share:.1%}"] for name, share in shares.items()]
    print_table(title, ["", "seconds", f"of {whole:.2f} s"], rows)
    searching = shares["search"] + shares["decide"]
    if not report.quick:
        report.aim(f"{title}: search and decide", searching, "of all", at_most=SEARCH_AIM)


def encoding(encoder: Path, device: str) -> list[str]:
    return ["--encoder", str(encoder), "--device", device]


def write_prompts(prompts: Sequence[str], paths: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        if path.suffix == ".parquet":
            pq.write_table(pa.table({"prompt": list(prompts)}), path)
        else:
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)


# -------------------------------------------------------------------------- from given embeddings


def given(report: Report, scratch: Path, device: str) -> None:
    n, dim = 20_000 if report.quick else 1_000_000, MINILM["hidden_size"]
    router = saved_router(scratch, N_RECORDS, dim, device)
    rng = np.random.default_rng(0)  # the same clusters as the records'
    queries = unit_rows(np.random.default_rng(1), clusters(rng, 29, dim), n)
    rows, prompts, target = scratch / "rows.npy", scratch / "given.parquet", scratch / "out.parquet"
    np.save(rows, queries)
    write_prompts([f"prompt {i}" for i in range(n)], [prompts])
    index = Index(np.load(router / "embeddings.npy", mmap_mode="r"))
    command = Command(router, prompts, "--embeddings", rows, "-o", target)
    by_mean = Command(
        *(router, prompts, "--embeddings", rows, "--rule", "mean"), "-o", scratch / "mean.parquet"
    )
    depth = max(Router.load(router).describe()["auto"]["neighbours"], KAPPA)

    def search() -> None:
        for start in range(0, n, BLOCK):
            index.search(queries[start : start + BLOCK], depth)

    index.search(queries[:BLOCK], KAPPA)
    contenders = {"search alone": search, "route, given": command, "route, rule mean": by_mean}
    timings = interleave(contenders, repeats=2 if report.quick else 3, warmup=0)
    check(target, Router.load(router).route(embeddings=queries))
    check(scratch / "mean.parquet", Router.load(router).route(embeddings=queries, rule="mean"))
    title = f"{n:,} given embeddings x {dim}, {N_RECORDS:,} records"
    own = {"route, given": command.seconds, "route, rule mean": by_mean.seconds}
    shares = show(report, title, n, "search alone", timings, own)
    if not report.quick:  # where starting Python would be most of the time
        report.aim(
            f"{title}: whole command", shares["route, given"], "of search", at_least=GIVEN_AIM
        )
        ratio = timings["route, given"].median / timings["route, rule mean"].median
        report.aim(f"{title}: rule auto over rule mean", ratio, "x time", at_most=AUTO_AIM)


# -------------------------------------------------------------------------------------------- both


def check(path: Path, expected: Any, tolerated: float = 0.0) -> None:
    """Raise unless a file holds the decisions of a router in memory, in order."""
    import pyarrow.parquet as pq

    models = pq.read_table(path, columns=["model"])["model"].to_pylist()
    names = expected.names()
    if len(models) != len(names):
        raise AssertionError(f"{len(models)} decisions for {len(names)} prompts")
    differ = sum(a != b for a, b in zip(models, names, strict=True))
    if differ > tolerated * len(names):
        raise AssertionError(f"{differ} of {len(names)} decisions differ from Router.route's")
    if differ:
        print(f"{differ} of {len(names):,} decisions differ: half precision, in other batches")


def show(
    report: Report,
    title: str,
    n: int,
    bound: str,
    timings: dict[str, Timing],
    own: dict[str, list[float]],
) -> dict[str, float]:
    """Print and keep rates and shares of the bound; returns the whole commands' shares."""
    most = timings[bound].median
    lines = [[bound, f"{n / most:,.0f}", f"{most:.2f} s", "", ""]]
    report.row(f"{title}: {bound}", n / most, "prompts/s", len(timings[bound].seconds))
    shares = {}
    for name, seconds in own.items():
        whole, inner = timings[name].median, float(np.median(seconds))
        shares[name] = most / whole
        for what, value in (("whole command", whole), ("once loaded", inner)):
            share = most / value
            lines.append(
                [
                    f"{name}, {what}",
                    f"{n / value:,.0f}",
                    f"{value:.2f} s",
                    f"{share:.1%}",
                    str(len(seconds)),
                ]
            )
            report.row(f"{title}: {name}, {what}", n / value, "prompts/s", len(seconds))
            report.row(f"{title}: {name}, {what}, of the {bound}", share, "share", len(seconds))
    print_table(f"{title}, {n:,} prompts", ["", "prompts/s", "median", f"of {bound}", "n"], lines)
    return shares


if __name__ == "__main__":
    main()
