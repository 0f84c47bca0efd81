"""A long JSONL of 2 GB as a table: read, merged and written as Parquet, in bounded memory.

11 models, all of a model's rows together, so that every prompt comes 11 times and far apart; 400 to
800 characters each, with quotes, line feeds and accents; scores with gaps, costs, and an answer,
which no table holds. 2 GB (--megabytes N; --quick: 100 MB), from one seed.

The conversion runs in a process of its own, whose largest resident memory is VmHWM. Before anything
is reported, cells of the Parquet file are compared with the generator, and all of them are counted.
Beside it: json.loads of some of the same lines, and nothing else.

Files go to a temporary folder (--folder DIR: within DIR) and are removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from report import ROOT, Report, parse_arguments, print_table

N_MODELS = 11
N_DATASETS = 8
BYTES_PER_LINE = 770  # about
MISSING = 0.02  # of the scores
CHECKED = 2_000  # cells compared with the generator
DECODED_BYTES = 50_000_000  # given to json.loads
SPEED_AIM = 100.0  # MB/s
MEMORY_AIM = 2.0  # GB

CHILD = """
import json, sys, time
begun, begun_cpu = time.perf_counter(), time.process_time()
from benchrouter import read_table, write_table
table = read_table(sys.argv[1])
read = time.perf_counter()
write_table(table, sys.argv[2])
end = time.perf_counter()
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
cpu = time.process_time() - begun_cpu
print(json.dumps({"read": read - begun, "write": end - read, "cpu": cpu, "peak_kib": peak}))
"""


class Records:
    """What the file holds; each cell can be told again from its numbers.

    Parameters
    ----------
    n : int
        Records, each run by every model.
    """

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, 5_000)]
        ends = rng.choice(
            [" ", ", ", ".\n", '" ', "\u00e9 "], 200_000, p=[0.9, 0.05, 0.02, 0.02, 0.01]
        )
        of = rng.integers(0, len(words), len(ends)).tolist()
        self.text = "".join(words[i] + end for i, end in zip(of, ends.tolist(), strict=True))
        self.n = n
        self.starts = rng.integers(0, len(self.text) - 1_000, n)
        self.sizes = rng.integers(400, 800, n)
        self.scores = np.round(rng.random((N_MODELS, n)), 4)
        self.scores[rng.random((N_MODELS, n)) < MISSING] = np.nan

    def prompt(self, i: int) -> str:
        """A prompt with its own beginning."""
        start = int(self.starts[i])
        return f"Question {i}: {self.text[start : start + int(self.sizes[i])]}"

    def cost_usd(self, i: int, model: int) -> float:
        """US$ of an answer."""
        return (i % 1_000 + model) * 1e-6

    def lines(self, model: int) -> Iterator[str]:
        """Rows of one model."""
        scores = self.scores[model].tolist()
        for i in range(self.n):
            score = "null" if scores[i] != scores[i] else scores[i]
            yield (
                f'{{"model": "org/model-{model:02}", "dataset": "dataset {i % N_DATASETS}", '
                f'"sample_id": "s{i}", "prompt": {json.dumps(self.prompt(i))}, '
                f'"score": {score}, "cost_usd": {self.cost_usd(i, model)}, "answer": "{i % 7}"}}\n'
            )


def check(path: Path, records: Records) -> None:
    """Compare the Parquet file with the generator."""
    models = [f"org/model-{model:02}" for model in range(N_MODELS)]
    file = pq.ParquetFile(path)
    names = ["dataset", "sample_id", "prompt", *models, *(f"cost::{model}" for model in models)]
    if file.schema_arrow.names != names or file.metadata.num_rows != records.n:
        raise SystemExit(f"wrong: {file.metadata.num_rows} rows of {file.schema_arrow.names}")
    rng = np.random.default_rng(1)
    sample = np.sort(rng.integers(0, records.n, CHECKED))
    rows = pq.read_table(path).take(sample).to_pylist()
    for i, row in zip(sample.tolist(), rows, strict=True):
        model = int(rng.integers(N_MODELS))
        score = np.float32(records.scores[model, i])
        found = row["dataset"], row["sample_id"], row["prompt"], row[f"cost::{models[model]}"]
        cost = float(np.float32(records.cost_usd(i, model)))
        expected = f"dataset {i % N_DATASETS}", f"s{i}", records.prompt(i), cost
        known = row[models[model]]
        if found != expected or (known != score if known is not None else not np.isnan(score)):
            raise SystemExit(f"wrong: record {i} of model {model} is {row}")
    for model, name in enumerate(models):
        missing = pq.read_table(path, columns=[name]).column(0).null_count
        if missing != np.isnan(records.scores[model]).sum():
            raise SystemExit(f"wrong: model {name} lacks {missing} scores")


def decoding_alone(path: Path) -> float:
    """MB/s of json.loads on the first lines."""
    with open(path, "rb") as file:
        lines = file.readlines(DECODED_BYTES)
    begun = time.perf_counter()
    for line in lines:
        json.loads(line)
    return sum(map(len, lines)) / 1e6 / (time.perf_counter() - begun)


def main() -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--megabytes", type=int, metavar="N", help="2,000, or 100 with --quick")
        parser.add_argument("--folder", type=Path, help="where the temporary folder is made")

    arguments = parse_arguments(__doc__, options)
    megabytes = arguments.megabytes or (100 if arguments.quick else 2_000)
    report = Report("convert", arguments)
    folder = Path(tempfile.mkdtemp(prefix="convert.", dir=arguments.folder))
    try:
        run(report, megabytes, folder)
    finally:
        shutil.rmtree(folder)
    report.finish()


def run(report: Report, megabytes: int, folder: Path) -> None:
    source, target = folder / "long.jsonl", folder / "wide.parquet"
    records = Records(-(-megabytes * 1_000_000 // (N_MODELS * BYTES_PER_LINE)))
    with open(source, "w") as file:
        for model in range(N_MODELS):
            file.writelines(records.lines(model))
    size = source.stat().st_size / 1e6
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, source, target],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = json.loads(ran.stdout)
    check(target, records)
    seconds = told["read"] + told["write"]
    peak = told["peak_kib"] * 1024 / 1e9
    alone = decoding_alone(source)
    for name, value, unit in (
        ("size", size, "MB"),
        ("rows", records.n * N_MODELS, "rows"),
        ("read", told["read"], "s"),
        ("write Parquet", told["write"], "s"),
        ("convert", size / seconds, "MB/s"),
        ("convert, by processor time of all threads", size / told["cpu"], "MB/s"),
        ("json.loads alone", alone, "MB/s"),
        ("largest resident memory", peak, "GB"),
    ):
        report.row(name, value, unit)
    title = (
        f"{size:,.0f} MB, {records.n * N_MODELS:,} rows, {records.n:,} records, {N_MODELS} models"
    )
    rows = [
        ["read", f"{told['read']:.2f} s"],
        ["write Parquet", f"{told['write']:.2f} s"],
        ["convert", f"{size / seconds:.0f} MB/s"],
        ["convert, by processor time", f"{size / told['cpu']:.0f} MB/s"],
        ["json.loads alone", f"{alone:.0f} MB/s"],
        ["largest resident memory", f"{peak:.2f} GB"],
    ]
    print_table(title, ["", ""], rows)
    report.aim("convert", size / seconds, "MB/s", at_least=SPEED_AIM)
    report.aim("largest resident memory", peak, "GB", at_most=MEMORY_AIM)


if __name__ == "__main__":
    main()
