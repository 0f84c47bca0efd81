"""`benchrouter route`, killed at random moments and resumed, as its users run it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_table, unit_rows
from typer.testing import CliRunner

from benchrouter.cli import app
from benchrouter.router import Router

ROOT = Path(__file__).resolve().parents[3]
N, DIM = 1_800, 8


def is_bad(row):
    return row % 37 == 5 or 300 <= row < 360


def write_prompts(folder):
    """N records, the same ones in three formats: bad ones are empty, and in texts broken too."""
    prompts = ["" if is_bad(i) else f"prompt {i}, with \u2028 and é" for i in range(N)]
    pq.write_table(
        pa.table({"id": range(N), "prompt": prompts}), folder / "p.parquet", row_group_size=170
    )
    with open(folder / "p.jsonl", "w") as jsonl, open(folder / "p.csv", "w") as csv:
        csv.write("id,prompt\n")
        for i, prompt in enumerate(prompts):
            broken = is_bad(i) and i % 2
            line = json.dumps({"id": i, "prompt": prompt}, ensure_ascii=False)
            jsonl.write((line[:-1] if broken else line) + "\n")
            csv.write(f'{i},"{prompt}\n"' + (",more" if broken else "") + "\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A router R, prompts p.jsonl, p.csv, p.parquet, and their embeddings p.npy."""
    root = tmp_path_factory.mktemp("resume")
    rng = np.random.default_rng(3)
    table = make_table(rng.integers(0, 2, (200, 3)), np.repeat([0, 1], 100))
    Router.fit(table, embeddings=unit_rows(200, DIM)).save(root / "R")
    np.save(root / "p.npy", unit_rows(N, DIM, seed=1))
    write_prompts(root)
    return root


def command(files, suffix, target, part_size):
    arguments = [
        *("route", files / "R", files / f"p.{suffix}", "--embeddings", files / "p.npy"),
        *("-o", target, "--part-size", part_size, "--batch-size", 16, "--resume"),
        *("--output-format", "parquet" if suffix == "parquet" else "jsonl", "--threads", 1),
    ]
    return list(map(str, arguments))


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def n_parts(target):
    return len(list(target.glob("part-*"))) if target.exists() else 0


def kill_at(arguments, target, n_more, delay):
    """Run until there are so many more parts, then kill; True if it ended before."""
    enough = n_parts(target) + n_more
    program = [sys.executable, "-c", "from benchrouter.cli import main; main()", *arguments]
    with subprocess.Popen(program, stderr=subprocess.PIPE, cwd=ROOT) as process:
        while n_parts(target) < enough and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        errors = process.stderr.read()
    assert process.returncode in (-signal.SIGKILL, 4), errors
    return process.returncode == 4


@pytest.mark.parametrize(
    ("suffix", "n_kills", "part_size"),
    [
        ("jsonl", 2, 50),
        *(pytest.param(s, 20, 10, marks=pytest.mark.slow) for s in ("jsonl", "csv", "parquet")),
    ],
)
def test_killed_at_random_and_resumed_every_prompt_is_routed_once(
    files, tmp_path, suffix, n_kills, part_size
):
    target, whole = tmp_path / "killed", tmp_path / "whole"
    draw = random.Random(f"{suffix} {n_kills}")
    arguments = command(files, suffix, target, part_size)
    kills = 0
    for _ in range(n_kills):
        n_more = draw.randint(0, N // part_size // (2 * n_kills))
        kills += not kill_at(arguments, target, n_more, draw.uniform(0, 0.02))
    assert kills > n_kills // 2
    for job in (arguments, command(files, suffix, whole, part_size)):
        done = CliRunner().invoke(app, job)
        assert done.exit_code == 4, done.output
    # the answer of an uninterrupted run, and each prompt once
    assert content(target) == content(whole)
    if suffix == "parquet":
        found = pa.concat_tables(pq.read_table(p) for p in sorted(target.glob("part-*")))
        rows = found.to_pylist()
    else:
        parts = sorted(target.glob("part-*"))
        rows = [json.loads(line) for p in parts for line in p.read_text().split("\n")[:-1]]
    good = [i for i in range(N) if not is_bad(i)]
    assert [int(row["id"]) for row in rows] == good
    expected = Router.load(files / "R").route(embeddings=np.load(files / "p.npy")[good])
    assert [row["model"] for row in rows] == expected.names()
    np.testing.assert_array_equal(np.float32([row["score"] for row in rows]), expected.score)
    lines = (p.read_text().splitlines() for p in sorted((target / "rejected").iterdir()))
    bad = [json.loads(line)["row"] for part in lines for line in part]
    assert bad == [i for i in range(N) if is_bad(i)]
    assert not [name for name in os.listdir(target) if name.startswith(".")]
