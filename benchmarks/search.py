"""Routing from given embeddings, beside the call patterns of other routers.

10,000 prompts over 26,000 records x 768, 11 models, k = 10, in one batch and one prompt at a time.
Embeddings are synthetic (29 clusters of unit rows, seeded), outcomes are 0/1. Contenders take
turns; before any timing, each one's mean scores are compared with a float64 reference and each
choice with the best of them. Slow contenders get the first prompts of the batch only, as the
column n says; what is compared is prompts per second.

hnswlib is approximate: it is shown with its recall and left out of the aims.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import Report, Timing, interleave, parse_arguments, print_table

from benchrouter.router import Router
from benchrouter.table import BenchmarkTable

K = 10
N_MODELS = 11
N_CLUSTERS = 29

Rows = NDArray[np.float32]
Route = Callable[[Rows], NDArray[np.float64]]  # prompts to the mean score of the chosen model


@dataclass
class Contender:
    """One way to route: prompts' embeddings to the chosen models' mean scores."""

    name: str
    route: Route
    n_batch: int
    n_single: int
    exact: bool = True
    recall: Callable[[Rows, NDArray[np.int64]], float] | None = None


def unit_rows(rng: np.random.Generator, centres: Rows, n: int) -> Rows:
    rows = centres[rng.integers(0, len(centres), n)] + 1.2 * rng.standard_normal(
        (n, centres.shape[1]), dtype=np.float32
    ) / np.float32(np.sqrt(centres.shape[1]))
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def make_router(records: Rows, scores: Rows) -> Router:
    """A router with kappa = k, so that it does the work of the others and no more."""
    clusters = 2  # datasets only matter to fitting, which is not timed
    n, m = scores.shape
    table = BenchmarkTable(
        scores=scores,
        dataset=(np.arange(n) % clusters).astype(np.int32),
        datasets=tuple(f"dataset {d:02}" for d in range(clusters)),
        models=tuple(f"model {i}" for i in range(m)),
        sample_ids=[str(i) for i in range(n)],
        prompts=["synthetic"] * n,
        source_rows=np.arange(n),
        n_source_rows=n,
        params_b=np.full(m, np.nan),
        prices=np.full((m, 2), np.nan),
        metrics=("",) * clusters,
        thresholds=np.full(clusters, 0.5),
    )
    return Router.fit(table, embeddings=records, k=K, kappa=K, label_shares=(0.0,), draws=1)


def contenders(router: Router, records: Rows, scores: Rows, n: int, quick: bool) -> list[Contender]:
    """Everything that is installed, fastest first."""
    n_single = 40 if quick else 200
    found = [Contender("benchrouter", lambda q: best_of_router(router, q), n, n_single)]
    few, fewer = (100, 5) if quick else (1000, 20)
    try:
        import faiss

        flat = faiss.IndexFlatIP(records.shape[1])
        flat.add(records)
        found.append(
            Contender(
                "faiss-cpu flat + NumPy gather-mean",
                lambda q: scores[flat.search(q, K)[1]].mean(axis=1).max(axis=1),
                n,
                n_single,
            )
        )
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

    def route(queries: Rows) -> NDArray[np.float64]:
        ids, _ = graph.knn_query(queries, k=K)
        return scores[ids.astype(np.int64)].mean(axis=1).max(axis=1).astype(np.float64)

    def recall(queries: Rows, truth: NDArray[np.int64]) -> float:
        found = graph.knn_query(queries, k=K)[0].tolist()
        pairs = zip(found, truth.tolist(), strict=True)
        return float(np.mean([len(set(a) & set(b)) / K for a, b in pairs]))

    name = "hnswlib M=16 ef=64 + NumPy, approximate"
    return [Contender(name, route, n, 200, exact=False, recall=recall)]


def reference(records: Rows, scores: Rows, queries: Rows) -> tuple[NDArray, NDArray]:
    """Nearest ids and the best mean score, in float64."""
    ids = np.empty((len(queries), K), np.int64)
    exact = records.astype(np.float64).T
    for start in range(0, len(queries), 500):
        similarities = queries[start : start + 500].astype(np.float64) @ exact
        ids[start : start + 500] = np.argpartition(-similarities, K - 1, axis=1)[:, :K]
    return ids, scores[ids].mean(axis=1, dtype=np.float64).max(axis=1)


def check(contender: Contender, queries: Rows, truth: NDArray) -> None:
    """Raise unless an exact contender's chosen scores are the reference's."""
    batch = contender.route(queries[: contender.n_batch])
    fallback = np.isnan(batch)
    off = (np.abs(batch - truth[: contender.n_batch]) > 1e-6) & ~fallback
    # float32 products may swap two neighbours whose similarities differ by less than their
    # rounding; ours may not, it ranks them in float64.
    ours = contender.name == "benchrouter"
    if contender.exact and off.sum() > (0 if ours else 1e-3 * len(batch)):
        raise AssertionError(f"{contender.name}: {off.sum()} of {len(batch)} answers differ")
    if fallback.mean() > (0.03 if ours else 0.0):
        raise AssertionError(f"{contender.name}: {fallback.sum()} of {len(batch)} have no answer")
    single = np.concatenate([contender.route(queries[i : i + 1]) for i in range(3)])
    if contender.exact and not np.allclose(single, batch[:3], rtol=0, atol=1e-6, equal_nan=True):
        raise AssertionError(f"{contender.name}: single answers differ")


def rates(report: Report, title: str, timings: dict[str, Timing], sizes: dict[str, int]) -> None:
    """Print and keep prompts per second of every contender, and ours against it."""
    rate = {name: sizes[name] / timing.median for name, timing in timings.items()}
    lines = []
    for name, timing in timings.items():
        spread = (timing.high - timing.low) / timing.median
        ratio = rate["benchrouter"] / rate[name]
        per_prompt = 1e3 * timing.median / sizes[name]
        lines.append(
            [
                name,
                f"{rate[name]:.4g}",
                f"{per_prompt:.3g} ms",
                f"{100 * spread:.0f} %",
                str(sizes[name]),
                f"{ratio:.2f}",
            ]
        )
        report.row(f"{title}: {name}", rate[name], "prompts/s", len(timing.seconds))
        if name != "benchrouter":
            report.row(f"{title}: benchrouter against {name}", ratio, "x", len(timing.seconds))
    header = ["", "prompts/s", "a prompt", "spread", "n", "benchrouter is x"]
    print_table(title, header, lines)


def main(arguments: argparse.Namespace) -> None:
    report = Report("search", arguments)
    n_queries = 1000 if arguments.quick else 10_000
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((N_CLUSTERS, 768), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    records, queries = unit_rows(rng, centres, 26_000), unit_rows(rng, centres, n_queries)
    scores = (rng.random((len(records), N_MODELS)) < 0.6).astype(np.float32)
    start = time.perf_counter()
    router = make_router(records, scores)
    print(f"router fitted in {time.perf_counter() - start:.1f} s")
    found = contenders(router, records, scores, n_queries, arguments.quick)

    ids, truth = reference(records, scores, queries)
    for contender in found:
        check(contender, queries, truth)
        if contender.recall is not None:
            recall = contender.recall(queries, ids)
            report.row(f"recall@10 of {contender.name}", recall, "share")
            print(f"{contender.name}: recall@10 {recall:.4f}, not exact")
    print(f"answers of all {sum(c.exact for c in found)} exact contenders equal the reference")

    repeats = 3 if arguments.quick else 7
    batch = {c.name: lambda c=c: c.route(queries[: c.n_batch]) for c in found}
    single = {
        c.name: lambda c=c: [c.route(queries[i : i + 1]) for i in range(c.n_single)] for c in found
    }
    limits = {"warmup": 1, "seconds": 4 if arguments.quick else 240}
    in_batch = interleave(batch, repeats=repeats, **limits)
    rates(report, "one batch", in_batch, {c.name: c.n_batch for c in found})
    alone = interleave(single, repeats=repeats, **limits)
    rates(report, "one prompt at a time", alone, {c.name: c.n_single for c in found})

    for title, timings, size in (
        ("one batch", in_batch, lambda c: c.n_batch),
        ("one at a time", alone, lambda c: c.n_single),
    ):
        seconds = {c.name: timings[c.name].median / size(c) for c in found if c.exact}
        ours = seconds.pop("benchrouter")
        best = min(seconds, key=lambda name: seconds[name])
        report.aim(
            f"{title}: ours against the best exact peer ({best})",
            seconds[best] / ours,
            "x",
            at_least=1.0,
        )
    report.finish()


if __name__ == "__main__":
    main(parse_arguments(__doc__ or Path(__file__).stem))
