"""Votes and decisions against NumPy, and against what memory allows.

One million queries with ten neighbours each among 100,000 records vote on 18 models, into arrays
that are there beforehand. NumPy's gather-mean is `scores[ids].mean(axis=1, out=...)` over chunks
of the size that is fastest on the machine (measured first). Two other ways to say it in NumPy are
timed beside it: with `take` into a buffer, and one neighbour at a time. The contenders' answers are
compared before anything is timed; 0/1 correctness leaves no room for rounding.

The memory bound is the time in which neighbours, bit rows and outputs could each be moved once, at
the rate of a plain streaming copy by as many threads, measured in the same rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from report import Report, Timing, available_cores, interleave, parse_arguments, print_table

from benchrouter import _core
from benchrouter.votes.outcomes import Chosen, PackedOutcomes, Votes, pack
from benchrouter.votes.votes import decide, task_scores, votes

N_RECORDS = 100_000
K = 10
CHUNKS = (128, 256, 512, 1024, 2048, 4096, 16384)
AIM = 50  # times NumPy's gather-mean


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments(__doc__, add_threads)
    report = Report("votes", arguments)
    threads = arguments.threads or available_cores()
    report.row("threads", threads, "threads")
    repeats = 5 if report.quick else 15
    rng = np.random.default_rng(20231)
    ids = rng.integers(0, N_RECORDS, (1_000_000, K))

    ratio = headline(report, rng, ids, threads, repeats)
    few = ids[: 200_000 if report.quick else 1_000_000]
    missing_scores(report, rng, few, threads, repeats)
    decisions(report, rng, few, threads, repeats)
    for n_models in (64, 200):
        some = ids[: 100_000 if report.quick else 250_000]
        more_models(report, rng, some, n_models, threads, max(repeats // 3, 3))
    report.aim(f"1,000,000 x {K} x 18 over 100,000: against gather-mean", ratio, "x", at_least=AIM)
    report.finish()


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, default=0, help="of ours; 0 = all (the default)")


def headline(
    report: Report, rng: np.random.Generator, ids: np.ndarray, threads: int, repeats: int
) -> float:
    """The row with an aim; returns the ratio to NumPy's gather-mean."""
    n_models = 18
    scores = correctness(rng, n_models)
    packed, prior = pack(scores), scores.mean(axis=0)
    ours, theirs = Outputs(len(ids), n_models), np.zeros((len(ids), n_models), np.float32)
    numpys: dict[str, Callable[[], object]] = {}
    for name, method in (
        ("NumPy gather-mean", gather_mean),
        ("NumPy take, mean", take_mean),
        ("NumPy by neighbour", by_neighbour),
    ):
        chunk = best_chunk(lambda some, c, m=method: m(scores, some, theirs, c), ids)
        numpys[f"{name}, chunk {chunk}"] = lambda m=method, c=chunk: m(scores, ids, theirs, c)
    # Written before it is read: memory that never was is one page of zeros, in the cache.
    source = np.ones((ids.nbytes + ours.nbytes) // 2, np.uint8)
    target = np.zeros_like(source)
    contenders = {
        **numpys,
        **{
            f"ours, {level}": lambda level=level: ours.vote(ids, packed, prior, threads, level)
            for level in _core.simd_levels()[:-1]
        },
        "ours, 1 thread": lambda: ours.vote(ids, packed, prior, 1, "auto"),
        "ours": lambda: ours.vote(ids, packed, prior, threads, "auto"),
        "streaming copy": lambda: _core.stream_copy(source, target, threads),
    }
    ours.vote(ids, packed, prior, threads, "auto")
    for name, run in numpys.items():
        theirs.fill(-1)
        run()
        check_equal(name, ours.arrays.votes, theirs)
    for name, run in contenders.items():
        if not name.startswith("ours"):
            continue
        ours.arrays.votes.fill(-1)
        run()
        check_equal(name, ours.arrays.votes, theirs)
    _core.stream_copy(source, target, threads)
    if not np.array_equal(source, target):
        raise AssertionError("the streaming copy is not a copy")

    timings = interleave(contenders, repeats=repeats)
    copying = timings.pop("streaming copy")
    first = next(iter(numpys))
    title = f"votes: {len(ids):,} queries x {K} x {n_models} models over {N_RECORDS:,} records"
    report.timings(title, timings, against=first, work=len(ids), unit_of_work="queries")
    moved = ids.nbytes + packed.bits.nbytes + ours.nbytes
    memory_bound(report, moved, 2 * source.nbytes, copying, timings["ours"])
    return timings[first].median / timings["ours"].median


def memory_bound(report: Report, moved: int, copied: int, copying: Timing, ours: Timing) -> None:
    """Print what share of the memory bound is reached."""
    bandwidth = copied / copying.median
    bound = moved / bandwidth
    share = bound / ours.median
    n = len(copying.seconds)
    report.row("bandwidth of a streaming copy (bytes read + bytes written)", bandwidth, "B/s", n)
    report.row("bytes moved by votes (neighbours, bit rows, outputs, once)", moved, "B")
    report.row("memory bound", bound, "s", n)
    report.row("share of the memory bound", share, "1", n)
    print_table(
        "memory",
        ["", ""],
        [
            ["neighbours, bit rows and outputs, each once", f"{moved / 1e6:.1f} MB"],
            ["streaming copy, read + written", f"{bandwidth / 1e9:.1f} GB/s"],
            ["memory bound", f"{bound * 1e3:.2f} ms"],
            ["ours", f"{ours.median * 1e3:.2f} ms"],
            ["share of the bound", f"{share:.0%}"],
        ],
    )


def missing_scores(
    report: Report, rng: np.random.Generator, ids: np.ndarray, threads: int, repeats: int
) -> None:
    """A table with a fifth of its scores missing, packed and as float32."""
    scores = correctness(rng, 18, missing=0.2)
    packed, prior = pack(scores), np.nanmean(scores, axis=0)
    ours, theirs = Outputs(len(ids), 18), Outputs(len(ids), 18)
    values, present = np.nan_to_num(scores), (~np.isnan(scores)).astype(np.float32)

    def numpys(some: np.ndarray, chunk: int) -> None:
        for start in range(0, len(some), chunk):
            rows = some[start : start + chunk]
            out = theirs.arrays.votes[start : start + len(rows)]
            support = present[rows].sum(axis=1)
            with np.errstate(invalid="ignore"):
                np.divide(values[rows].sum(axis=1), support, out=out)
            np.copyto(out, prior, where=support == 0)
            theirs.arrays.support[start : start + len(rows)] = support

    chunk = best_chunk(numpys, ids)
    name = f"NumPy, chunk {chunk}"
    contenders = {
        name: lambda: numpys(ids, chunk),
        "ours, float32 scores": lambda: ours.vote(ids, scores, prior, threads, "auto"),
        "ours, packed": lambda: ours.vote(ids, packed, prior, threads, "auto"),
    }
    numpys(ids, chunk)
    for run in list(contenders.values())[1:]:
        ours.arrays.votes.fill(-1)
        run()
        check_equal("votes with missing scores", ours.arrays.votes, theirs.arrays.votes)
        check_equal("support", ours.arrays.support, theirs.arrays.support)
    timings = interleave(contenders, repeats=max(repeats // 3, 3))
    title = f"missing scores: {len(ids):,} x {K} x 18, 20% missing"
    report.timings(title, timings, against=name, work=len(ids), unit_of_work="queries")


def decisions(
    report: Report, rng: np.random.Generator, ids: np.ndarray, threads: int, repeats: int
) -> None:
    """Votes, scores, the best model, its margin and the distance, in one pass."""
    scores = correctness(rng, 18)
    packed, prior = pack(scores), scores.mean(axis=0)
    similarities = rng.uniform(0.2, 0.9, ids.shape).astype(np.float32)
    preference = np.arange(18, dtype=np.int32)
    out = Chosen(
        np.zeros(len(ids), np.int32),
        *(np.zeros(len(ids), np.float32) for _ in range(3)),
        np.zeros(len(ids), bool),
    )
    theirs = Chosen(*(np.zeros_like(array) for array in out))
    p_table = rng.uniform(0.4, 0.9, (64, 18)).astype(np.float32)
    offsets = np.linspace(0, len(ids), 30).astype(np.int64)

    def numpys(some: np.ndarray, chunk: int) -> None:
        pseudo = prior.astype(np.float64)
        for start in range(0, len(some), chunk):
            rows = some[start : start + chunk]
            part = slice(start, start + len(rows))
            voted = ((scores[rows].sum(axis=1) + pseudo) / (K + 1)).astype(np.float32)
            model = voted.argmax(axis=1)
            two = np.partition(voted, 16, axis=1)[:, 16:]
            theirs.model[part] = model
            theirs.score[part] = two[:, 1]
            theirs.margin[part] = two[:, 1] - two[:, 0]
            far = np.maximum(1.0 - similarities[part].astype(np.float64), 1e-7)
            theirs.distance[part] = far.mean(axis=1)

    def ours(**rule: object) -> Chosen:
        return decide(
            ids, similarities, packed, prior=prior, preference=preference, k=K, kappa=K,
            threads=threads, out=out, **rule,  # type: ignore[arg-type]
        )  # fmt: skip

    chunk = best_chunk(numpys, ids)
    name = f"NumPy, chunk {chunk}"
    numpys(ids, chunk)
    ours()
    for field in ("model", "score", "margin"):
        check_equal(field, getattr(out, field), getattr(theirs, field))
    if not np.allclose(out.distance, theirs.distance, rtol=1e-6, atol=0):  # NumPy sums pairwise
        raise AssertionError("distances differ")
    contenders = {
        name: lambda: numpys(ids, chunk),
        "ours, mean": ours,
        "ours, s3": lambda: ours(rule="s3", p_table=p_table, p_step=0.02),
        "ours, 29 tasks": lambda: task_scores(ids, packed, offsets, prior=prior, threads=threads),
    }
    timings = interleave(contenders, repeats=max(repeats // 3, 3))
    title = f"decisions: {len(ids):,} x {K} x 18"
    report.timings(title, timings, against=name, work=len(ids), unit_of_work="queries")


def more_models(
    report: Report,
    rng: np.random.Generator,
    ids: np.ndarray,
    n_models: int,
    threads: int,
    repeats: int,
) -> None:
    """Votes on many models."""
    scores = correctness(rng, n_models)
    packed, prior = pack(scores), scores.mean(axis=0)
    ours, theirs = Outputs(len(ids), n_models), np.zeros((len(ids), n_models), np.float32)
    chunk = best_chunk(lambda some, c: gather_mean(scores, some, theirs, c), ids)
    name = f"NumPy gather-mean, chunk {chunk}"
    contenders = {
        name: lambda: gather_mean(scores, ids, theirs, chunk),
        "ours": lambda: ours.vote(ids, packed, prior, threads, "auto"),
    }
    for run in contenders.values():
        run()
    check_equal(f"votes on {n_models} models", ours.arrays.votes, theirs)
    timings = interleave(contenders, repeats=repeats)
    title = f"votes: {len(ids):,} x {K} x {n_models} models"
    report.timings(title, timings, against=name, work=len(ids), unit_of_work="queries")


class Outputs:
    """Arrays that votes are written to again and again."""

    def __init__(self, n_queries: int, n_models: int) -> None:
        shape = (n_queries, n_models)
        self.arrays = Votes(np.ones(shape, np.float32), np.ones(shape, np.uint16))
        self.nbytes = sum(array.nbytes for array in self.arrays)

    def vote(
        self,
        ids: np.ndarray,
        outcomes: PackedOutcomes | np.ndarray,
        prior: np.ndarray,
        threads: int,
        simd: str,
    ) -> None:
        """Let the neighbours vote."""
        votes(ids, outcomes, prior=prior, threads=threads, simd=simd, out=self.arrays)  # type: ignore[arg-type]


def correctness(rng: np.random.Generator, n_models: int, missing: float = 0.0) -> np.ndarray:
    """0/1 outcomes of models of various skills, NaN = missing."""
    skill = np.linspace(0.4, 0.8, n_models)
    values = (rng.random((N_RECORDS, n_models)) < skill).astype(np.float32)
    if missing:
        values[rng.random(values.shape) < missing] = np.nan
    return values


def gather_mean(scores: np.ndarray, ids: np.ndarray, out: np.ndarray, chunk: int) -> None:
    for start in range(0, len(ids), chunk):
        rows = ids[start : start + chunk]
        scores[rows].mean(axis=1, out=out[start : start + len(rows)])


def take_mean(scores: np.ndarray, ids: np.ndarray, out: np.ndarray, chunk: int) -> None:
    buffer = np.empty((chunk, ids.shape[1], scores.shape[1]), np.float32)
    for start in range(0, len(ids), chunk):
        rows = ids[start : start + chunk]
        gathered = buffer[: len(rows)]
        np.take(scores, rows, axis=0, out=gathered, mode="clip")  # "raise" would copy it once more
        gathered.mean(axis=1, out=out[start : start + len(rows)])


def by_neighbour(scores: np.ndarray, ids: np.ndarray, out: np.ndarray, chunk: int) -> None:
    buffer = np.empty((chunk, scores.shape[1]), np.float32)
    for start in range(0, len(ids), chunk):
        rows = ids[start : start + chunk]
        sums = out[start : start + len(rows)]
        gathered = buffer[: len(rows)]
        np.take(scores, rows[:, 0], axis=0, out=sums, mode="clip")
        for column in range(1, rows.shape[1]):
            np.take(scores, rows[:, column], axis=0, out=gathered, mode="clip")
            sums += gathered
        sums /= rows.shape[1]


def best_chunk(method: Callable[[np.ndarray, int], None], ids: np.ndarray) -> int:
    """The chunk size at which NumPy is fastest here, on a tenth of the queries."""
    some = ids[: max(len(ids) // 10, 16384)]
    timings = interleave(
        {str(chunk): lambda chunk=chunk: method(some, chunk) for chunk in CHUNKS}, repeats=3
    )
    return int(min(timings, key=lambda chunk: timings[chunk].median))


def check_equal(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    if not np.array_equal(ours, theirs):
        raise AssertionError(f"{what}: the contenders' answers differ")


if __name__ == "__main__":
    main()
