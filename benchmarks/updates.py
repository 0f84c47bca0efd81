"""Changing a live router: what each update takes beside the fit that it equals.

26,000 records x 384 (--quick: 6,000), 11 models, 20 datasets that lie mixed, 0/1 outcomes, all from
one seed. Timed once each, in seconds and in processor seconds of all threads (which a busy machine
changes less): the fit; adding 100 records to be learnt from later; the compact that learns from
them; removing a model; adding it again. Encoding is never part of it: no prompt is encoded twice.

Before anything is reported, the router at the end is compared with a fresh fit, to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from report import Report, parse_arguments, print_table

from benchrouter import BenchmarkTable, Router

DIM = 384
N_MODELS = 11
N_DATASETS = 20
ADDED = 100


def make(n: int) -> tuple[BenchmarkTable, np.ndarray]:
    """A table and its embeddings; datasets follow each other record by record."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, DIM), dtype=np.float32)
    table = BenchmarkTable(
        scores=(rng.random((n, N_MODELS)) > 0.5).astype(np.float32),
        dataset=(np.arange(n) % N_DATASETS).astype(np.int32),
        datasets=tuple(f"dataset {d:02}" for d in range(N_DATASETS)),
        models=tuple(f"model {m:02}" for m in range(N_MODELS)),
        sample_ids=[str(i) for i in range(n)],
        prompts=["synthetic"] * n,
        source_rows=np.arange(n),
        n_source_rows=n,
        params_b=np.full(N_MODELS, np.nan),
        prices=np.full((N_MODELS, 2), np.nan),
        metrics=("",) * N_DATASETS,
        thresholds=np.full(N_DATASETS, 0.5),
    )
    return table, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    arguments = parse_arguments(__doc__)
    report = Report("updates", arguments)
    n = 6_000 if arguments.quick else 26_000
    table, rows = make(n)
    first, last = table.rows(np.arange(n - ADDED)), table.rows(np.arange(n - ADDED, n))
    last_model = table.models[-1]
    shown = []

    def timed(name: str, run: Callable[[], Router | None]) -> Router | None:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        found = run()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        report.row(name, seconds, "s")
        report.row(f"{name}: of all threads", cpu, "s")
        shown.append([name, f"{seconds:.2f} s", f"{cpu:.2f} s"])
        return found

    router = timed("fit", lambda: Router.fit(first, embeddings=rows[: n - ADDED]))
    later = f"add {ADDED} records, compact later"
    timed(later, lambda: router.add_records(last, rows[n - ADDED :], compact=False))
    timed("compact", router.compact)
    timed("remove a model", lambda: router.remove(models=[last_model]))
    timed("add a model", lambda: router.add_model(last_model, table))
    fresh = Router.fit(table, embeddings=rows)
    prompts = make(1_000)[1]
    routed, expected = (r.route(embeddings=prompts, rule="s3") for r in (router, fresh))
    if (
        router.describe() != fresh.describe()
        or not np.array_equal(routed.model, expected.model)
        or not np.array_equal(routed.score, expected.score)
    ):
        raise SystemExit("the updated router is not that of a fresh fit")
    title = f"{n:,} records x {DIM}, {N_MODELS} models, {N_DATASETS} datasets"
    print_table(title, ["", "time", "CPU time"], shown)
    report.finish()


if __name__ == "__main__":
    main()
