"""Routing from given embeddings, beside the call patterns of other routers.

10,000 prompts over 26,000 records x 768, 11 models, k = 10, in one batch and one prompt at a time.
Embeddings are synthetic (29 clusters of unit rows, seeded), outcomes are 0/1. Contenders take
turns; before any timing, each one's mean scores are compared with a float64 reference and each
choice with the best of them. Slow contenders get the first prompts of the batch only, as the
column n says; what is compared is prompts per second. One at a time, every call is timed by itself
and p50 is compared.

hnswlib and half precision are approximate: they are shown with their recall and left out of the
aims.

    python benchmarks/peers.py --device cuda   # peers on a GPU: torch, faiss-gpu in fp32 and fp16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import clusters, router_of, unit_rows
from numpy.typing import NDArray
from report import Report, Timing, interleave, parse_arguments, print_table

from benchrouter.embeddings.devices import check_device, import_torch
from benchrouter.router import Router

K = 10
N_MODELS = 11
N_CLUSTERS = 29
FLAT = "faiss-cpu flat + NumPy gather-mean"
BATCH_AIM, SINGLE_AIM = 1.3, 2.0  # against FLAT in a batch; p50 of the best exact peer over ours
RULES = ("mean", "auto")
AUTO_AIM = {"one batch": 1.3, "one prompt at a time": 1.5}  # time of rule auto over that of mean

Rows = NDArray[np.float32]
Route = Callable[[Rows], NDArray[np.float64]]  # prompts to the mean score of the chosen model
Search = Callable[[Rows], NDArray[np.int64]]


@dataclass
class Contender:
    """One way to route: prompts' embeddings to the chosen models' mean scores."""

    name: str
    route: Route
    n_batch: int
    n_single: int
    approximate: Search | None = None  # nearest ids of one that is not exact, for its recall


def main() -> None:
    arguments = parse_arguments(__doc__ or Path(__file__).stem, add_options)
    device = check_device(arguments.device)
    report = Report("peers" if device == "cpu" else "peers-cuda", arguments)
    n_queries = 1000 if report.quick else 10_000
    rng = np.random.default_rng(0)
    centres = clusters(rng, N_CLUSTERS, 768)
    records, queries = unit_rows(rng, centres, 26_000), unit_rows(rng, centres, n_queries)
    scores = (rng.random((len(records), N_MODELS)) < 0.6).astype(np.float32)
    start = time.perf_counter()
    router = router_of(records, scores, k=K, kappa=K, device=device)
    print(f"router fitted in {time.perf_counter() - start:.1f} s")
    found = contenders(router, records, scores, n_queries, report.quick, device)

    ids, truth = reference(records, scores, queries)
    for contender in found:
        check(contender, queries, truth)
        if contender.approximate is not None:
            recall = recall_of(contender.approximate(queries), ids)
            report.row(f"recall@{K} of {contender.name}", recall, "share")
            print(f"{contender.name}: recall@{K} {recall:.4f}, not exact")
    exact = [c.name for c in found if c.approximate is None]
    print(f"answers of all {len(exact)} exact contenders equal the reference")

    limits = {"repeats": 3 if report.quick else 7, "seconds": 4 if report.quick else 240}
    batch = {c.name: lambda c=c: c.route(queries[: c.n_batch]) for c in found}
    sizes = {c.name: c.n_batch for c in found}
    in_batch = interleave(batch, **limits)
    rates(report, "one batch", in_batch, sizes)
    alone = one_at_a_time(found, queries, **limits)
    rates(report, "one prompt at a time", alone, dict.fromkeys(sizes, 1))

    seconds = {name: in_batch[name].median / sizes[name] for name in exact}
    against(report, "one batch", seconds, at_least=1.0)
    if FLAT in seconds:
        ratio = seconds[FLAT] / seconds["benchrouter"]
        report.aim(f"one batch: ours against {FLAT}", ratio, "x", at_least=BATCH_AIM)
    p50 = {name: alone[name].median for name in exact}
    against(report, "one at a time, p50", p50, at_least=SINGLE_AIM)
    rules(report, router, queries, limits)
    report.finish()


def rules(report: Report, router: Router, queries: Rows, limits: dict[str, int]) -> None:
    """Time the default rule beside the mean; the answers of neither depend on the batch."""
    few = queries[:200]
    for rule in RULES:
        whole = router.route(embeddings=few, rule=rule)
        single = [router.route(embeddings=row[None], rule=rule) for row in few]
        if [d.names()[0] for d in single] != whole.names():
            raise AssertionError(f"rule {rule}: decisions depend on the batch")

    def together(rule: str) -> None:
        router.route(embeddings=queries, rule=rule)

    def alone(rule: str) -> None:
        for row in few:
            router.route(embeddings=row[None], rule=rule)

    for how, route in (("one batch", together), ("one prompt at a time", alone)):
        found = interleave({rule: partial(route, rule) for rule in RULES}, **limits)
        ratio = found["auto"].median / found["mean"].median
        report.aim(f"{how}: rule auto over rule mean", ratio, "x time", at_most=AUTO_AIM[how])


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")


# ------------------------------------------------------------------------------------- contenders


def contenders(
    router: Router, records: Rows, scores: Rows, n: int, quick: bool, device: str
) -> list[Contender]:
    """Everything that is installed, fastest first."""
    n_single = 40 if quick else 200
    found = [Contender("benchrouter", lambda q: best_of_router(router, q), n, n_single)]
    few, fewer = (100, 5) if quick else (1000, 20)
    if device != "cpu":
        return found + on_device(records, scores, n, n_single, device)
    try:
        import faiss

        flat = faiss.IndexFlatIP(records.shape[1])
        flat.add(records)
        found.append(Contender(FLAT, best_mean(scores, searching(flat)), n, n_single))
    except ImportError:
        print("faiss is not installed: its row is left out")
    found.append(Contender("NumPy full sort (paper)", lambda q: paper(records, scores, q), few, 5))
    try:
        found += sklearn_contenders(records, scores, few, fewer)
    except ImportError:
        print("scikit-learn and pandas are not installed: their rows are left out")
    if quick:
        print("hnswlib is left out by --quick: building its index takes too long")
    else:
        found += hnsw_contender(records, scores, n)
    return found


def searching(index: Any) -> Search:
    """Nearest ids by a faiss index."""
    return lambda queries: index.search(queries, K)[1]


def best_mean(scores: Rows, search: Search) -> Route:
    """Gather the neighbours' scores and average them, in NumPy."""
    return lambda queries: scores[search(queries)].mean(axis=1).max(axis=1).astype(np.float64)


def best_of_router(router: Router, queries: Rows) -> NDArray[np.float64]:
    """NaN for the one prompt in a hundred that lies beyond the benchmark and falls back."""
    decisions = router.route(embeddings=queries, rule="raw")
    return np.where(decisions.fallback, np.nan, decisions.score.astype(np.float64))


def paper(records: Rows, scores: Rows, queries: Rows) -> NDArray[np.float64]:
    """The published call pattern: full distances, sorted for the votes and again for u."""
    distances = 1.0 - queries @ records.T
    nearest = np.argsort(distances, axis=1)[:, :K]
    votes = scores[nearest].mean(axis=1)
    np.sort(distances, axis=1)[:, :K].mean(axis=1)
    return votes.max(axis=1).astype(np.float64)


def sklearn_contenders(records: Rows, scores: Rows, few: int, fewer: int) -> list[Contender]:
    import pandas as pd
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

    frame = pd.DataFrame(scores)
    search = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(records)
    regressor = KNeighborsRegressor(n_neighbors=K, metric="cosine", algorithm="brute").fit(
        records, scores
    )
    classifiers = [
        KNeighborsClassifier(n_neighbors=K, metric="cosine", algorithm="brute").fit(
            records, scores[:, m].astype(int)
        )
        for m in range(scores.shape[1])
    ]

    def routerbench(queries: Rows) -> NDArray[np.float64]:
        ids = search.kneighbors(queries, return_distance=False)
        return np.array([frame.iloc[row].mean().max() for row in ids])

    def embedllm(queries: Rows) -> NDArray[np.float64]:
        votes = [classifier.predict_proba(queries)[:, 1] for classifier in classifiers]
        return np.max(votes, axis=0)

    return [
        Contender(
            "sklearn KNeighborsRegressor (CARROT)",
            lambda q: regressor.predict(q).max(axis=1).astype(np.float64),
            few,
            fewer,
        ),
        Contender("sklearn NearestNeighbors + pandas (RouterBench)", routerbench, few, fewer),
        Contender("11 x sklearn KNeighborsClassifier (EmbedLLM)", embedllm, few, 3),
    ]


def hnsw_contender(records: Rows, scores: Rows, n: int) -> list[Contender]:
    try:
        import hnswlib
    except ImportError:
        print("hnswlib is not installed: its row is left out")
        return []
    graph = hnswlib.Index(space="ip", dim=records.shape[1])
    graph.init_index(max_elements=len(records), ef_construction=200, M=16)
    graph.add_items(records)
    graph.set_ef(64)

    def search(queries: Rows) -> NDArray[np.int64]:
        return graph.knn_query(queries, k=K)[0].astype(np.int64)

    name = "hnswlib M=16 ef=64 + NumPy, approximate"
    return [Contender(name, best_mean(scores, search), n, 200, approximate=search)]


def on_device(records: Rows, scores: Rows, n: int, n_single: int, device: str) -> list[Contender]:
    """Matmul + topk by torch, and faiss-gpu flat where it is installed; votes likewise."""
    torch = import_torch()
    there = torch.from_numpy(records).to(device)
    outcomes = torch.from_numpy(scores).to(device)

    def by_torch(queries: Rows) -> NDArray[np.float64]:
        best = []
        for some in torch.from_numpy(queries).to(device).split(4096):
            ids = (some @ there.T).topk(K).indices
            best.append(outcomes[ids].mean(dim=1).amax(dim=1))
        return torch.cat(best).cpu().numpy().astype(np.float64)

    found = [Contender("torch matmul + topk", by_torch, n, n_single)]
    try:
        import faiss

        resources = faiss.StandardGpuResources()
    except (ImportError, AttributeError):
        print("faiss-gpu is not installed: its rows are left out")
        return found
    for half in (False, True):
        options = faiss.GpuIndexFlatConfig()
        options.device = torch.device(device).index
        options.useFloat16 = half
        flat = faiss.GpuIndexFlatIP(resources, records.shape[1], options)
        flat.add(records)
        search = searching(flat)
        name = f"faiss-gpu flat {'fp16' if half else 'fp32'} + NumPy gather-mean"
        approximate = search if half else None
        found.append(Contender(name, best_mean(scores, search), n, n_single, approximate))
    return found


# ----------------------------------------------------------------------------------------- checks


def reference(records: Rows, scores: Rows, queries: Rows) -> tuple[NDArray, NDArray]:
    """Nearest ids and the best mean score, in float64.

    Similarities that are one float32 count as equal, and the lower record number as nearer.
    """
    ids = np.empty((len(queries), K), np.int64)
    exact = records.astype(np.float64).T
    for start in range(0, len(queries), 500):
        similarities = queries[start : start + 500].astype(np.float64) @ exact
        near = np.argpartition(-similarities, 2 * K, axis=1)[:, : 2 * K]
        rounded = np.take_along_axis(similarities, near, axis=1).astype(np.float32)
        order = np.lexsort((near, -rounded), axis=1)[:, :K]
        ids[start : start + 500] = np.take_along_axis(near, order, axis=1)
    return ids, scores[ids].mean(axis=1, dtype=np.float64).max(axis=1)


def recall_of(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    pairs = zip(found.tolist(), truth.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / K for a, b in pairs]))


def check(contender: Contender, queries: Rows, truth: NDArray) -> None:
    """Raise unless an exact contender's chosen scores are the reference's."""
    batch = contender.route(queries[: contender.n_batch])
    fallback = np.isnan(batch)
    off = (np.abs(batch - truth[: contender.n_batch]) > 1e-6) & ~fallback
    # float32 products may swap two neighbours whose similarities differ by less than their
    # rounding; ours may not, it ranks them in float64.
    ours = contender.name == "benchrouter"
    exact = contender.approximate is None
    if exact and off.sum() > (0 if ours else 1e-3 * len(batch)):
        raise AssertionError(f"{contender.name}: {off.sum()} of {len(batch)} answers differ")
    if fallback.mean() > (0.03 if ours else 0.0):
        raise AssertionError(f"{contender.name}: {fallback.sum()} of {len(batch)} have no answer")
    single = np.concatenate([contender.route(queries[i : i + 1]) for i in range(3)])
    if exact and not np.allclose(single, batch[:3], rtol=0, atol=1e-6, equal_nan=True):
        raise AssertionError(f"{contender.name}: single answers differ")


# ----------------------------------------------------------------------------------------- timing


def one_at_a_time(
    found: list[Contender], queries: Rows, *, repeats: int, seconds: float
) -> dict[str, Timing]:
    """Time every call by itself, the contenders taking turns after `n_single` calls each."""
    calls: dict[str, list[float]] = {c.name: [] for c in found}

    def run(contender: Contender) -> None:
        for i in range(contender.n_single):
            start = time.perf_counter()
            contender.route(queries[i : i + 1])
            calls[contender.name].append(time.perf_counter() - start)

    interleave({c.name: lambda c=c: run(c) for c in found}, repeats=repeats, seconds=seconds)
    return {c.name: Timing(tuple(calls[c.name][c.n_single :])) for c in found}  # less the warm-up


def rates(report: Report, title: str, timings: dict[str, Timing], sizes: dict[str, int]) -> None:
    """Print and keep prompts per second of every contender, and ours against it."""
    rate = {name: sizes[name] / timing.median for name, timing in timings.items()}
    lines = []
    for name, timing in timings.items():
        low, high = np.percentile(timing.seconds, (10, 90))
        ratio = rate["benchrouter"] / rate[name]
        n = len(timing.seconds)
        lines.append(
            [
                name,
                f"{rate[name]:.4g}",
                f"{1e3 * timing.median / sizes[name]:.3g} ms",
                f"{100 * (high - low) / timing.median:.0f} %",
                str(sizes[name]),
                str(n),
                f"{ratio:.2f}",
            ]
        )
        report.row(f"{title}: {name}", rate[name], "prompts/s", n)
        if name != "benchrouter":
            report.row(f"{title}: benchrouter against {name}", ratio, "x", n)
    spread = "p90 - p10"
    header = ["", "prompts/s", "a prompt", spread, "n", "calls", "benchrouter is x"]
    print_table(f"{title}, medians", header, lines)


def against(report: Report, title: str, seconds: dict[str, float], *, at_least: float) -> None:
    """Aim: ours so many times as fast as the best of the exact peers."""
    best = min((name for name in seconds if name != "benchrouter"), key=lambda n: seconds[n])
    ratio = seconds[best] / seconds["benchrouter"]
    report.aim(f"{title}: ours against the best exact peer ({best})", ratio, "x", at_least=at_least)


if __name__ == "__main__":
    main()
