"""Routing inside a serving stack: what HTTP adds, throughput by concurrency, overload, peers.

The engine in this process and `benchrouter serve` in another, with MiniLM, 4,000 records and 11
models; prompts of mmlu_pro (about 154 tokens) or of as many words. Nothing is cached. The client
that makes the load runs on the same cores. All answers are compared with those of `Router.route`
first.

- overhead: one request after the other, `await engine.route` and HTTP in turns;
- concurrency: closed loops of 1 to 512 connections, against the encoder's own batches;
- overload: requests at twice the rate of saturation, whose deadline bounds their p99;
- peers: one prompt after the other through sentence-transformers and scikit-learn, and through
  semantic-router's local index, each with the same embeddings; the engine gets 64 at a time;
- with --soak SECONDS only this: a closed loop of 8 connections, and the service's memory.

    python benchmarks/serve.py --json serve.json
    python benchmarks/serve.py --soak 1800 --json serve-soak.json
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from http_load import Connection, closed_loop, every, open_loop
from inputs import MINILM, long_prompts, packaged_minilm, random_encoder, router_of
from report import Report, interleave, parse_arguments, print_table, readable_seconds

from benchrouter.embeddings import Encoder
from benchrouter.router import Router
from benchrouter.serving import Engine, RoutePolicy

N_RECORDS, QUICK_RECORDS = 4_000, 256
N_PROMPTS, QUICK_PROMPTS = 2_048, 128
N_MODELS, K = 11, 5
CONCURRENCY, QUICK_CONCURRENCY = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), (1, 64)
DEADLINE_S = 0.5
AT_ONCE = 64  # requests of the engine against peers
SOAK_CACHE = 1_000  # decisions, so that they fill it early and push each other out from then on
RAW = RoutePolicy(rule="raw")  # the plain mean, which peers compute, too


def main() -> None:
    arguments = parse_arguments(__doc__, add_options)
    report = Report("serve" if not arguments.soak else "serve-soak", arguments)
    with tempfile.TemporaryDirectory() as scratch:
        name = packaged_minilm() or random_encoder(Path(scratch) / "minilm", MINILM)
        encoder = Encoder.load(name)
        n_records = QUICK_RECORDS if report.quick else N_RECORDS
        n_prompts = QUICK_PROMPTS if report.quick else N_PROMPTS
        every_prompt, kind = long_prompts(n_records + n_prompts)
        records, prompts = every_prompt[:n_records], every_prompt[n_records:]
        print(f"{n_records:,} records, {n_prompts:,} prompts: {kind}; {encoder.fingerprint.dtype}")
        rng = np.random.default_rng(0)
        scores = (rng.random((n_records, N_MODELS)) < 0.6).astype(np.float32)
        rows = encoder.encode(records)
        router_of(rows, scores, k=K, kappa=19).save(Path(scratch) / "router")
        router = Router.load(Path(scratch) / "router", encoder=encoder)
        service = [str(Path(scratch) / "router"), "--encoder", str(name)]
        if arguments.soak:
            soak(report, service, prompts, arguments.soak)
        else:
            service += ["--cache-size", "0"]
            expected = router.route(prompts).names()
            with serving(*service, "--deadline-ms", "0") as (port, _):
                same_models(port, prompts, expected)
                overhead(report, port, router, encoder, prompts, expected)
                rate = throughput(report, port, encoder, prompts)
            overload(report, service, prompts, rate)
            peers(report, router, name, rows, scores, prompts)
    report.finish()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="only watch the memory")


# ---------------------------------------------------------------------------------------- overhead


def overhead(
    report: Report,
    port: int,
    router: Router,
    encoder: Encoder,
    prompts: list[str],
    expected: list[str],
) -> None:
    """One request after the other, in turns through the engine and over HTTP."""
    prompts = prompts[: 50 if report.quick else 600]
    taken: dict[str, list[float]] = {"engine": [], "HTTP": []}
    with Engine(router, encoder=encoder, deadline_s=None, cache_size=0) as engine:

        async def in_turns() -> None:
            connection = Connection(port)
            for prompt, body, name in zip(prompts, bodies_of(prompts), expected, strict=False):
                start = time.perf_counter()
                routed = await engine.route(prompt)
                between = time.perf_counter()
                await connection.post("/v1/route", body)
                taken["HTTP"].append(time.perf_counter() - between)
                taken["engine"].append(between - start)
                assert routed.model == name
            connection.close()

        asyncio.run(in_turns())
    lines = []
    for p in (50, 99):
        engine_s, http_s = (float(np.percentile(taken[who], p)) for who in ("engine", "HTTP"))
        lines.append([f"p{p}", *map(readable_seconds, (engine_s, http_s, http_s - engine_s))])
        for who, value in (("engine", engine_s), ("HTTP", http_s), ("added", http_s - engine_s)):
            report.row(f"one request at a time: {who}, p{p}", value, "s", len(prompts))
    header = ["", "engine", "HTTP", "added"]
    print_table(f"one request at a time, {len(prompts)} of them", header, lines)


# -------------------------------------------------------------------------------------- throughput


def throughput(report: Report, port: int, encoder: Encoder, prompts: list[str]) -> float:
    """Closed loops over HTTP against the encoder's own batches; prompts a second at saturation."""
    bodies = bodies_of(prompts)
    steps = QUICK_CONCURRENCY if report.quick else CONCURRENCY
    rounds = 1 if report.quick else 3
    rates: dict[int, list[float]] = {n: [] for n in steps}
    encoded: list[float] = []
    waits: dict[int, list[float]] = {n: [] for n in steps}
    for _ in range(rounds):
        start = time.perf_counter()
        encoder.encode(prompts)
        encoded.append(len(prompts) / (time.perf_counter() - start))
        for n in steps:
            few = bodies[: min(len(bodies), 128 * max(n // 16, 1))]
            found = asyncio.run(closed_loop(port, few, n, 0))
            rates[n].append(len(few) / found.took)
            waits[n] += found.seconds
    alone = float(np.median(encoded))
    report.row("encoder alone", alone, "prompts/s", rounds)
    lines = []
    for n in steps:
        rate = float(np.median(rates[n]))
        p50, p99 = (float(np.percentile(waits[n], p)) for p in (50, 99))
        report.row(f"concurrency {n}", rate, "prompts/s", rounds)
        report.row(f"concurrency {n}, p50", p50, "s", len(waits[n]))
        report.row(f"concurrency {n}, p99", p99, "s", len(waits[n]))
        times = [readable_seconds(p50), readable_seconds(p99)]
        lines.append([str(n), f"{rate:.1f}", f"{rate / alone:.1%}", *times])
    header = ["connections", "prompts/s", "of the encoder's own", "p50", "p99"]
    print_table(f"throughput over HTTP; the encoder alone {alone:.1f} prompts/s", header, lines)
    best = max(float(np.median(found)) for found in rates.values())
    name = "throughput at saturation, of the encoder's own batches"
    report.aim(name, 100 * best / alone, "%", at_least=85.0)
    return best


# ---------------------------------------------------------------------------------------- overload


def overload(report: Report, service: list[str], prompts: list[str], rate: float) -> None:
    """Twice the load that the service can bear."""
    seconds = 3.0 if report.quick else 20.0
    options = ["--deadline-ms", str(1000 * DEADLINE_S), "--max-pending", "1000000"]
    with serving(*service, *options) as (port, _):
        bodies = bodies_of(prompts)
        asyncio.run(closed_loop(port, bodies, 32, 1.0 if report.quick else 2.0))
        found = asyncio.run(open_loop(port, bodies, 2.0 * rate, seconds))
    causes = [body["decision"]["cause"] for body in found.bodies if body]
    done = sum(cause in (None, "far", "no_votes") for cause in causes)
    if set(found.statuses) != {200}:
        raise AssertionError(f"expected status 200 alone, found {sorted(set(found.statuses))}")
    p50, p99, most = (float(np.percentile(found.seconds, p)) for p in (50, 99, 100))
    share = done / len(causes)
    title = f"{2 * rate:.0f} prompts/s for {seconds:g} s, deadline {readable_seconds(DEADLINE_S)}"
    cells = [f"{share:.1%}", f"{done / seconds / rate:.1%}"]
    cells += [readable_seconds(value) for value in (p50, p99, most)]
    print_table(title, ["", "routed", "of saturation", "p50", "p99", "slowest"], [["", *cells]])
    report.row("overload: routed, not fallen back", share, "", len(causes))
    report.row("overload: routed, of saturation", done / seconds / rate, "", len(causes))
    for label, value in (("p50", p50), ("p99", p99), ("slowest", most)):
        report.row(f"overload: {label}", value, "s", len(causes))
    # the answer that the deadline brings has a way to go, too
    report.aim("p99 at twice the load, of the deadline", p99 / DEADLINE_S, "x", at_most=1.05)


# ------------------------------------------------------------------------------------------- peers


def peers(
    report: Report,
    router: Router,
    name: Path,
    records: np.ndarray,
    scores: np.ndarray,
    prompts: list[str],
) -> None:
    """The engine, 64 requests at a time, against one call after the other of others."""
    if importlib.util.find_spec("sentence_transformers") is None:
        print("\npeers: sentence-transformers is not installed")
        return
    from sentence_transformers import SentenceTransformer
    from sklearn.neighbors import NearestNeighbors

    prompts = prompts[: 32 if report.quick else 512]
    model = SentenceTransformer(str(name), device="cpu")
    encoder = Encoder.load(name, dtype="float32")
    rows = encoder.encode(prompts)
    if np.abs(model.encode(prompts, normalize_embeddings=True) - rows).max() > 1e-4:
        raise AssertionError("the encoder's rows are not those of sentence-transformers")
    nearest = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(records)

    def by_sklearn(row: np.ndarray) -> np.ndarray:
        return scores[nearest.kneighbors(row[None], return_distance=False)[0]].mean(axis=0)

    options: dict[str, Any] = {"deadline_s": None, "cache_size": 0, "policy": RAW}
    with (
        Engine(router, encoder=encoder, **options) as exact,
        Engine(router, encoder=Encoder.load(name), **options) as usual,
    ):
        for i, routed in enumerate(exact.route_many_blocking(prompts)):
            best = by_sklearn(rows[i]).max()
            if not routed.fallback and abs(routed.score - best) > 1e-6:
                raise AssertionError(f"prompt {i}: scores {routed.score} and {best}")
        given: dict[str, Callable[[], object]] = {
            "engine": lambda: at_once(lambda i: exact.route(None, embedding=rows[i]), len(prompts)),
            "scikit-learn": lambda: [by_sklearn(row) for row in rows],
        }
        included: dict[str, Callable[[], object]] = {
            "engine": lambda: at_once(lambda i: usual.route(prompts[i]), len(prompts)),
            "engine, float32": lambda: at_once(lambda i: exact.route(prompts[i]), len(prompts)),
            "sentence-transformers + scikit-learn": lambda: [
                by_sklearn(model.encode([p], normalize_embeddings=True)[0]) for p in prompts
            ],
        }
        semantic = semantic_router(model, records, rows, scores)
        if semantic is not None:
            given["semantic-router"] = lambda: [semantic(f"prompt {i}") for i in range(len(rows))]
            included["semantic-router"] = lambda: [semantic(p) for p in prompts]
        rounds = 1 if report.quick else 5
        for title, contenders, aim in (
            ("embeddings given", given, 5.0),
            ("embedding included", included, 2.0),
        ):
            timings = interleave(
                contenders, repeats=rounds, warmup=0 if report.quick else 1, seconds=240
            )
            report.timings(
                title, timings, against="engine", work=len(prompts), unit_of_work="prompts"
            )
            for peer in timings:
                if not peer.startswith("engine"):
                    ratio = timings[peer].median / timings["engine"].median
                    report.aim(f"{title}: against {peer}", ratio, "x", at_least=aim)


def semantic_router(model: Any, records: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> Any:
    """semantic-router over the same embeddings: a route a model, of the records it is best on."""
    if importlib.util.find_spec("semantic_router") is None:
        print("\npeers: semantic-router is not installed")
        return None
    from semantic_router import Route
    from semantic_router.encoders import DenseEncoder
    from semantic_router.routers import IndexedRouter

    class Same(DenseEncoder):
        """Embeddings of "record 3" and "prompt 3" by number, of any other text by the model."""

        def __call__(self, docs: list[str]) -> list[list[float]]:
            kind, _, number = docs[0].partition(" ")
            if number.isdecimal() and kind in ("record", "prompt"):
                known = records if kind == "record" else rows
                return known[[int(doc.split()[1]) for doc in docs]].tolist()
            return model.encode(docs, normalize_embeddings=True).tolist()

    best = scores.argmax(axis=1)
    routes = [
        Route(name=f"model {m}", utterances=[f"record {i}" for i in np.flatnonzero(best == m)])
        for m in range(scores.shape[1])
        if (best == m).any()
    ]
    return IndexedRouter(encoder=Same(name="same"), routes=routes, top_k=K)


def at_once(ask: Callable[[int], Awaitable[object]], n: int) -> list[object]:
    """Answers to n requests, 64 at a time."""
    found: list[object] = [None] * n

    async def all_of_them() -> None:
        places = iter(range(n))

        async def one() -> None:
            for i in places:
                found[i] = await ask(i)

        await asyncio.gather(*[one() for _ in range(AT_ONCE)])

    asyncio.run(all_of_them())
    return found


# -------------------------------------------------------------------------------------------- soak


def soak(report: Report, service: list[str], prompts: list[str], seconds: float) -> None:
    """Memory of the service while it is asked all the time, each time something else."""
    pieces = [prompt.split() for prompt in prompts]
    rng = np.random.default_rng(1)
    bodies = bodies_of(
        " ".join([*pieces[i][:40], *pieces[j][-40:]])
        for i, j in rng.integers(0, len(pieces), (50_000, 2)).tolist()
    )
    with (
        serving(*service, "--cache-size", str(SOAK_CACHE)) as (port, pid),
        every(min(5.0, seconds / 40), lambda: rss_mib(pid)) as mib,
    ):
        found = asyncio.run(closed_loop(port, bodies, 8, seconds))
    if set(found.statuses) != {200}:
        raise AssertionError(f"expected status 200 alone, found {sorted(set(found.statuses))}")
    parts = np.array_split(np.array(mib), 4)
    second, last = (float(np.median(parts[i])) for i in (1, 3))  # caches fill in the first
    rate = len(found.seconds) / found.took
    cells = [f"{len(found.seconds):,}", f"{rate:.1f}"]
    cells += [f"{float(np.median(part)):.1f}" for part in parts]
    header = ["", "requests", "a second", *(f"MiB, quarter {i}" for i in (1, 2, 3, 4))]
    print_table(f"soak of {seconds:g} s", header, [["", *cells]])
    report.row("soak: requests", len(found.seconds), "", 1)
    report.row("soak: requests a second", rate, "prompts/s", len(found.seconds))
    for i, part in enumerate(parts, start=1):
        report.row(f"soak: resident memory, quarter {i}", float(np.median(part)), "MiB", len(part))
    report.row("soak: largest resident memory", max(mib), "MiB", len(mib))
    report.aim("growth from the second quarter to the last", last / second - 1, "", at_most=0.01)


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS: this needs Linux")


# ----------------------------------------------------------------------------------------- service


@contextmanager
def serving(*options: str) -> Iterator[tuple[int, int]]:
    """`benchrouter serve` on a free port: the port and the process's number."""
    command = [sys.executable, "-m", "benchrouter", "serve", *options, "--port", "0"]
    command += ["--no-log-requests", "--reload-every", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if ":" not in line:
                raise AssertionError(f"the service did not start: {line!r}")
            yield int(line.strip().rstrip("/").rpartition(":")[2]), process.pid
        finally:
            process.terminate()
            if process.wait(30) != 0:
                raise AssertionError(f"the service ended with {process.returncode}")


def bodies_of(prompts: Any) -> list[bytes]:
    return [json.dumps({"prompt": prompt}).encode() for prompt in prompts]


def same_models(port: int, prompts: list[str], expected: list[str]) -> None:
    """Compare the service's decisions with those of `Router.route`."""
    found = asyncio.run(closed_loop(port, bodies_of(prompts), 64, 0, keep=True))
    models = [body["decision"]["model"] for body in found.bodies if body is not None]
    differ = sum(a != b for a, b in zip(models, expected, strict=True))
    # the last bits of bfloat16 embeddings depend on the batch that a prompt came in
    if differ > 0.02 * len(expected):
        raise AssertionError(f"{differ} of {len(expected)} decisions are not those of route")


if __name__ == "__main__":
    main()
