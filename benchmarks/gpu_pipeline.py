"""Votes, decisions and search on a CUDA device, against what its memory allows.

One million queries with ten neighbours each among 100,000 records vote on 18 models, as in
votes.py, from tensors that lie on the device. The memory bound is the time in which neighbours, bit
rows and outputs could each be moved once, at the rate of a device-to-device copy measured in the
same rounds. Then embeddings that lie there are searched, by each proposal that this machine has,
and routed to decisions in the host's memory, by the rules auto and mean. Every answer is compared
with the CPU's before it is timed: scores of auto to 1e-6, all else bit for bit. Without a device,
or without kernels for it, the script says so and measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from report import Report, interleave, parse_arguments, print_table

from benchrouter import _core
from benchrouter.decisions.plan import plan_of
from benchrouter.decisions.policy import Policy
from benchrouter.neighbours.by_faiss import faiss_devices
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.on_device import PROPOSALS, TorchIndex
from benchrouter.router import Router
from benchrouter.scores.expected.on_device import LearntOnDevice, expect
from benchrouter.tables.table import BenchmarkTable
from benchrouter.votes import on_device as votes_on_device
from benchrouter.votes.outcomes import Chosen, Votes, pack
from benchrouter.votes.votes import decide, votes

K, KAPPA, N_MODELS, DIM = 10, 19, 18, 384
CHECKED = 500  # queries whose neighbours are compared with the CPU's


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments(__doc__, add_device)
    missing = what_is_missing()
    if missing:
        print(f"skipped: gpu_pipeline: {missing}")
        return
    report = Report("gpu_pipeline", arguments)
    repeats = 5 if report.quick else 15
    rng = np.random.default_rng(20231)
    votes_and_decisions(report, rng, arguments.device, repeats)
    for n_records in (12_000,) if report.quick else (12_000, 100_000, 1_000_000):
        search(report, rng, arguments.device, n_records, 3)
    routing(report, rng, arguments.device, 3)
    report.finish()


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", help="cuda (the default) or cuda:N")


def what_is_missing() -> str | None:
    """What this machine lacks, in words."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device on this machine"
    return None if _core.has_cuda else "benchrouter was built without CUDA kernels (no nvcc)"


def votes_and_decisions(
    report: Report, rng: np.random.Generator, device: str, repeats: int
) -> None:
    """Kernels alone: what they move, against a copy."""
    import torch

    n_queries, n_records = 1_000_000, 100_000
    ids = rng.integers(0, n_records, (n_queries, K))
    similarities = rng.uniform(0.2, 0.9, ids.shape).astype(np.float32)
    scores = (rng.random((n_records, N_MODELS)) < 0.6).astype(np.float32)
    packed, prior = pack(scores), scores.mean(axis=0)
    preference = np.arange(N_MODELS, dtype=np.int32)

    def there(array: np.ndarray) -> Any:
        return torch.tensor(array, device=device)

    d_ids, d_similarities, d_prior = there(ids), there(similarities), there(prior)
    d_bits, d_preference = there(packed.bits), there(preference)
    shape = (n_queries, N_MODELS)
    d_votes = torch.empty(shape, device=device)
    d_support = torch.empty(shape, dtype=torch.uint16, device=device)
    kinds = (torch.int32, torch.float32, torch.float32, torch.float32, torch.bool)
    d_chosen = [torch.empty(n_queries, dtype=kind, device=device) for kind in kinds]
    fault = torch.full((1,), np.iinfo(np.int64).max, device=device)
    source = torch.ones(100_000_000, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    stream = torch.cuda.current_stream(torch.device(device)).cuda_stream

    def capsule(tensor: Any) -> Any:
        return tensor.__dlpack__(stream=-1)

    inputs = {
        "neighbours": capsule(d_ids), "bits": capsule(d_bits), "present": None, "scores": None,
        "n_models": N_MODELS, "prior": capsule(d_prior), "k": K, "weights": None,
        "fault": capsule(fault), "stream": stream,
    }  # fmt: skip

    def vote() -> None:
        _core.votes_on_device(
            **inputs, prior_weight=0.0, out_votes=capsule(d_votes), out_support=capsule(d_support)
        )

    def choose() -> None:
        _core.decide_on_device(
            **inputs, prior_weight=1.0, similarities=capsule(d_similarities),
            preference=capsule(d_preference), kappa=K, rule="mean", threshold=0.5, p_table=None,
            p_start=0.0, p_step=1.0, distance_limit=np.inf, fallback_model=0,
            allowed=None, out=tuple(capsule(tensor) for tensor in d_chosen),
        )  # fmt: skip

    vote()
    choose()
    check("votes", Votes(d_votes, d_support), votes(ids, packed, prior=prior))
    chosen = decide(ids, similarities, packed, prior=prior, preference=preference, k=K, kappa=K)
    check("decisions", Chosen(*d_chosen), chosen)

    def waited(run: Callable[[], object]) -> Callable[[], None]:
        def timed() -> None:
            run()
            torch.cuda.synchronize(device)

        return timed

    many = 20  # launches between two waits: one is shorter than a wait
    contenders = {
        name: waited(lambda run=run: [run() for _ in range(many)])
        for name, run in (
            ("copy", lambda: target.copy_(source)),
            ("votes", vote),
            ("decisions", choose),
        )
    }
    timings = interleave(contenders, repeats=repeats, warmup=2)
    copying = timings.pop("copy")
    bandwidth = 2 * source.nbytes * many / copying.median
    report.row("bandwidth of a copy (bytes read + bytes written)", bandwidth, "B/s", repeats)
    moved = {
        "votes": d_ids.nbytes + d_bits.nbytes + d_votes.nbytes + d_support.nbytes,
        "decisions": d_ids.nbytes + d_similarities.nbytes + d_bits.nbytes
        + sum(tensor.nbytes for tensor in d_chosen),
    }  # fmt: skip
    table = []
    for name, timing in timings.items():
        seconds, bound = timing.median / many, moved[name] / bandwidth
        report.row(f"{name}: 1,000,000 x {K} x {N_MODELS}", seconds, "s", repeats)
        report.row(f"{name}: bytes moved, each once", moved[name], "B")
        report.row(f"{name}: share of the memory bound", bound / seconds, "1", repeats)
        table.append(
            [
                name,
                f"{seconds * 1e6:.1f} us",
                f"{moved[name] / 1e6:.1f} MB",
                f"{bound * 1e6:.1f} us",
                f"{bound / seconds:.0%}",
            ]
        )
    print_table(
        f"1,000,000 queries x {K} x {N_MODELS} models; copy at {bandwidth / 1e9:.0f} GB/s",
        ["", "median", "moved", "memory bound", "share"],
        table,
    )


def search(
    report: Report, rng: np.random.Generator, device: str, n_records: int, repeats: int
) -> None:
    """Each proposal on embeddings that lie on the device."""
    import torch

    n_queries = 16_384
    records, queries = unit_rows(rng, n_records), unit_rows(rng, n_queries)
    expected = Index(records, verify=False).search(queries[:CHECKED], KAPPA)
    there = torch.tensor(queries, device=device)
    contenders: dict[str, Callable[[], object]] = {}
    for proposal in PROPOSALS[1:]:
        if proposal != "torch" and not faiss_devices():
            print(f"skipped: {proposal}: the installed faiss has no CUDA device")
            continue
        index = TorchIndex(records, device=device, proposal=proposal, verify=False)  # type: ignore[arg-type]
        found = index.search(there[:CHECKED], KAPPA)
        check(f"neighbours by {proposal}", found, expected)

        def run(index: TorchIndex = index) -> None:
            index.search(there, KAPPA)
            torch.cuda.synchronize(device)

        contenders[proposal] = run
    timings = interleave(contenders, repeats=repeats)
    title = f"search: {n_queries:,} x {DIM} over {n_records:,} records, {KAPPA} neighbours"
    report.timings(title, timings, against="torch", work=n_queries, unit_of_work="queries")


def routing(report: Report, rng: np.random.Generator, device: str, repeats: int) -> None:
    """Given embeddings from the host's memory to decisions there."""
    n_records, n_queries = 12_000, 16_384
    records, queries = unit_rows(rng, n_records), unit_rows(rng, n_queries)
    scores = (rng.random((n_records, N_MODELS)) < 0.6).astype(np.float32)
    of_cpu = Router.fit(table_of(scores), embeddings=records)
    on_device = Router(of_cpu._fit, device=device)
    for rule in ("auto", "mean", "s3"):
        found = on_device.route(embeddings=queries[:CHECKED], rule=rule)
        expected = of_cpu.route(embeddings=queries[:CHECKED], rule=rule)
        # Expected scores hold a logarithm and an exponential, whose last bit is the device's own.
        most = 1e-6 if rule == "auto" else 0.0
        for field in ("model", "score", "margin", "distance", "fallback"):
            ours, of_rule = getattr(found, field), getattr(expected, field)
            exact = most == 0.0 or field not in ("score", "margin")
            if not np.allclose(ours, of_rule, rtol=0, atol=0 if exact else most, equal_nan=True):
                raise AssertionError(f"decisions by {rule}: {field} differs from the CPU's")
    for rule in ("auto", "mean"):
        timings = interleave(
            {
                "CPU": lambda rule=rule: of_cpu.route(embeddings=queries, rule=rule),
                device: lambda rule=rule: on_device.route(embeddings=queries, rule=rule),
            },
            repeats=repeats,
        )
        title = f"route by {rule}: {n_queries:,} given embeddings over {n_records:,} records"
        report.timings(title, timings, against="CPU", work=n_queries, unit_of_work="prompts")
    expected_scores(report, of_cpu, queries, device, repeats)


def expected_scores(
    report: Report, of_cpu: Router, queries: np.ndarray, device: str, repeats: int
) -> None:
    """The kernel of the rule auto alone, beside that of the mean on the same neighbours."""
    import torch

    decider = of_cpu.decider
    rules = decider.backend.rules
    mean = plan_of(decider.fit, Policy(rule="mean", k=K))
    auto = plan_of(decider.fit, Policy())
    near = decider.index.search(queries, max(auto.k, KAPPA))
    of_mean = {"k": mean.k, **rules.of_plan(mean), **rules.of_votes("mean")}
    of_auto = {**rules.of_plan(auto), **rules.of_expectation()}
    ids, similarities, rows = (
        torch.tensor(values, device=device) for values in (near.ids, near.similarities, queries)
    )
    there = {
        name: votes_on_device.to_device(arguments, device)
        for name, arguments in (("mean", of_mean), ("auto", of_auto))
    }
    learnt = LearntOnDevice(rules.learnt, device)
    options = {"allowed": None, "weights": None, "out": None}
    timings = interleave(
        {
            "mean": lambda: votes_on_device.decide(ids, similarities, **there["mean"], **options),
            "auto": lambda: expect(learnt, rows, ids, similarities, **there["auto"]),
        },
        repeats=5 * repeats,
        warmup=2,
    )
    title = (
        f"decisions: {len(queries):,} x {auto.k} x {N_MODELS}, neighbours and rows on the device"
    )
    report.timings(title, timings, against="mean", work=len(queries), unit_of_work="prompts")


def table_of(scores: np.ndarray) -> BenchmarkTable:
    n_records, n_models = scores.shape
    return BenchmarkTable(
        scores=scores,
        dataset=np.arange(n_records, dtype=np.int32) % 4,
        datasets=tuple(f"dataset {d}" for d in range(4)),
        models=tuple(f"model {m}" for m in range(n_models)),
        sample_ids=[str(i) for i in range(n_records)],
        prompts=[f"prompt {i}" for i in range(n_records)],
        source_rows=np.arange(n_records),
        n_source_rows=n_records,
        params_b=np.full(n_models, np.nan),
        prices=np.full((n_models, 2), np.nan),
        metrics=("",) * 4,
        thresholds=np.full(4, 0.5),
    )


def unit_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = rng.standard_normal((n, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check(what: str, found: Any, expected: Any) -> None:
    for name, ours, of_cpu in zip(expected._fields, found, expected, strict=True):
        if not np.array_equal(ours.cpu().numpy(), of_cpu, equal_nan=True):
            raise AssertionError(f"{what}: {name} differs from the CPU's")


if __name__ == "__main__":
    main()
