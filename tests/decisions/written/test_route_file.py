"""Batch jobs as a program runs them, without the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_table, unit_rows

from benchrouter import CostPolicy, Router
from benchrouter.decisions.written import PromptSource, Reading, Writing, route_file, route_groups

ROOT = Path(__file__).resolve().parents[3]
N, DIM, PART = 1_200, 8, 50
BAD = (7, 300, 301)
PRICES = {f"model {m}": (4.0 / 2**m, 0.0) for m in range(3)}  # US$ per million tokens


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A router R, prompts p.jsonl, p.jsonl.zst and p.parquet, and their embeddings p.npy."""
    root = tmp_path_factory.mktemp("route_file")
    rng = np.random.default_rng(3)
    table = make_table(rng.integers(0, 2, (200, 3)), np.repeat([0, 1], 100))
    Router.fit(table, embeddings=unit_rows(200, DIM)).save(root / "R")
    np.save(root / "p.npy", unit_rows(N, DIM, seed=1))
    prompts = ["" if i in BAD else f"prompt {i}" for i in range(N)]
    columns = {"id": list(range(N)), "task": ["ab"[i % 2] for i in range(N)], "n": [9] * N}
    table = pa.table({**columns, "prompt": prompts})
    pq.write_table(table, root / "p.parquet", row_group_size=170)
    lines = (json.dumps(row) + "\n" for row in table.to_pylist())
    (root / "p.jsonl").write_text("".join(lines))
    with pa.CompressedOutputStream(str(root / "p.jsonl.zst"), "zstd") as file:
        file.write((root / "p.jsonl").read_bytes())
    return root


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def reading(files, **options):
    given = {"embeddings": files / "p.npy", "on_error": "skip", "batch_size": 16}
    return Reading(**{**given, **options})


def expected(files, **options):
    good = [i for i in range(N) if i not in BAD]
    router = Router.load(files / "R")
    return router.route(embeddings=np.load(files / "p.npy")[good], **options)


JOB = """
import sys
from benchrouter import Router
from benchrouter.decisions.written import Reading, Writing, route_file
folder, prompts, target, part_format = sys.argv[1:]
done = route_file(
    Router.load(folder + "/R"),
    folder + "/" + prompts,
    target,
    reading=Reading(embeddings=folder + "/p.npy", on_error="skip", batch_size=16),
    writing=Writing(resume=True, part_size=50, part_format=part_format),
)
print(done.totals.prompts, done.n_now, done.n_parts)
assert "benchrouter.cli" not in sys.modules and "typer" not in sys.modules
"""


@pytest.mark.parametrize(("prompts", "format"), [("p.jsonl", "jsonl"), ("p.parquet", "parquet")])
def test_a_killed_job_resumes_and_ends_like_an_uninterrupted_one(files, tmp_path, prompts, format):
    target = tmp_path / "killed"
    command = [sys.executable, "-c", JOB, str(files), prompts, str(target), format]
    for n_parts in (2, 9):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as job:
            while job.poll() is None and len(list(target.glob("part-*"))) < n_parts:
                time.sleep(0.001)
            job.send_signal(signal.SIGKILL)
    said = json.loads((target / "manifest.json").read_text())
    assert said["complete"] is False and 1 <= len(said["parts"]) < N // PART
    n_before = said["totals"]["prompts"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    n = N - len(BAD)
    assert ended.stdout.split() == [str(n), str(n - n_before), str(N // PART)]
    done = route_file(
        *(Router.load(files / "R"), files / prompts, tmp_path / "whole"),
        reading=reading(files),
        writing=Writing(part_size=PART, part_format=format),
    )
    assert content(target) == content(tmp_path / "whole")
    chosen = expected(files)
    assert done.totals.models == Counter(chosen.names())
    assert (done.totals.prompts, done.totals.rejected, done.n_now) == (n, len(BAD), n)
    assert done.rejected == tmp_path / "whole" / "rejected"


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_single_file_and_its_progress(files, tmp_path, suffix):
    told = []
    done = route_file(
        *(Router.load(files / "R"), files / "p.jsonl", tmp_path / f"o.{suffix}"),
        rule="mean",
        models=["model 0", "model 2"],
        reading=reading(files),
        writing=Writing(keep_prompt=False, prefix="r_", rejected=tmp_path / "bad.jsonl"),
        progress=lambda task, batch: told.append((task, None if batch is None else len(batch))),
    )
    chosen = expected(files, rule="mean", models=["model 0", "model 2"])
    if suffix == "parquet":
        rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    elif suffix == "csv":
        header, *lines = (tmp_path / "o.csv").read_text().splitlines()
        rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    else:
        rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["r_model"] for row in rows] == chosen.names()
    assert "prompt" not in rows[0]
    bad = [json.loads(line)["row"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert bad == list(BAD)
    assert told[0] == ("route", None)
    assert sum(n for _, n in told[1:]) == done.totals.prompts == N - len(BAD)
    assert (done.n_parts, done.rejected) == (None, tmp_path / "bad.jsonl")
    assert done.seconds > 0


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.zst", "p.parquet"])
def test_a_budget_becomes_a_cost_weight(files, tmp_path, name):
    policy = CostPolicy(budget_usd=0.02, output_tokens=1, prices=PRICES, costs="prices")
    told = Counter()
    done = route_file(
        *(Router.load(files / "R"), files / name, tmp_path / "o.jsonl"),
        policy=policy,
        reading=reading(files, tokens_column="n"),
        progress=lambda task, batch: told.update({task: 1}),
    )
    assert set(told) == {"find the cost weight", "route"}
    assert done.policy.budget_usd is None and done.policy.cost_weight >= 0
    assert done.totals.cost_usd <= 0.02
    assert done.totals.prompts == N - len(BAD)


def test_groups(files, tmp_path):
    router = Router.load(files / "R")
    done = route_groups(
        *(router, files / "p.jsonl", tmp_path / "o.jsonl", "task"),
        reading=reading(files),
        rejected=tmp_path / "bad.jsonl",
    )
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(row["task"], row["n_prompts"]) for row in rows] == [("a", 599), ("b", 598)]
    for row in rows:
        kept = [i for i in range(N) if i not in BAD and "ab"[i % 2] == row["task"]]
        assert row["model"] == router.choose(embeddings=np.load(files / "p.npy")[kept]).model
    assert (done.n_groups, done.totals.prompts, done.totals.rejected) == (2, N - 3, 3)
    assert done.totals.models == Counter(row["model"] for row in rows)


def test_a_whole_task(files):
    with PromptSource(files / "p.parquet", reading(files, tokens_column="n")) as source:
        task = source.read_all()
    good = [i for i in range(N) if i not in BAD]
    assert task.prompts == [f"prompt {i}" for i in good]
    np.testing.assert_array_equal(task.embeddings, np.load(files / "p.npy")[good])
    assert task.tokens.tolist() == [9] * len(good)
    assert [message.split(": ")[0].split("row ")[1] for message in task.rejected] == [
        "7",
        "300",
        "301",
    ]


@pytest.mark.parametrize(
    ("output", "reads", "writes", "words"),
    [
        ("o.jsonl", {}, {"resume": True}, "part_format are for a directory, found .*o.jsonl"),
        ("o.jsonl", {}, {"part_size": 9}, "part_format are for a directory"),
        ("out", {}, {"rejected": "r.jsonl"}, "a directory has its own folder"),
        ("out", {}, {"part_format": "csv"}, "part_format is 'csv', expected one of"),
        ("o.jsonl", {"on_error": "report"}, {}, "expected 'raise' or 'skip'"),
        ("o.jsonl", {"on_error": "raise"}, {}, "p.jsonl, line 8: found an empty prompt"),
        ("o.txt", {}, {}, "the suffix is none of"),
        ("o.jsonl", {"batch_size": 0}, {}, "batch is 0, expected at least 1"),
        ("out", {}, {"part_size": 0}, "part_size is 0, expected at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(files, tmp_path, output, reads, writes, words):
    with pytest.raises(ValueError, match=words):
        route_file(
            *(Router.load(files / "R"), files / "p.jsonl", tmp_path / output),
            reading=reading(files, **reads),
            writing=Writing(**writes),
        )
    assert list(tmp_path.iterdir()) == []


def test_a_budget_needs_prompts_that_can_be_read_twice(files, tmp_path):
    with pytest.raises(ValueError, match="reads the prompts twice, found standard input"):
        route_file(
            *(Router.load(files / "R"), "-", tmp_path / "o.jsonl"),
            policy=CostPolicy(budget_usd=1.0, output_tokens=1, prices=PRICES, costs="prices"),
            reading=reading(files),
        )


def test_only_a_router_that_was_loaded_resumes(files, tmp_path):
    router = Router.load(files / "R")
    assert router.identity == Router.load(files / "R").identity
    assert router.identity != Router.load(files / "R", fallback="model 1").identity
    router.remove(models=["model 2"])
    assert router.identity is None
    job = (files / "p.jsonl", tmp_path / "out")
    with pytest.raises(ValueError, match="made or updated here, .* save and load it"):
        route_file(router, *job, reading=reading(files), writing=Writing(resume=True))
    done = route_file(router, *job, reading=reading(files))
    assert done.totals.prompts == N - len(BAD)
    with pytest.raises(ValueError, match="holds parts of another job: router was None"):
        route_file(
            *(Router.load(files / "R"), *job), reading=reading(files), writing=Writing(resume=True)
        )


# --- how often files are opened -------------------------------------------------------------------

OPENS = """
import os, sys
from collections import Counter
from benchrouter.cli import main
opened = Counter()

def count(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        opened[os.path.basename(arguments[0])] += 1

sys.addaudithook(count)
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
print(*(opened[name] for name in ("p.jsonl", "p.parquet", "p.npy", "one.npy")), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        (["route", "R", "p.jsonl", "-o", "o.csv"], "1 0 1 0"),
        (["route", "R", "p.parquet", "-o", "out"], "0 1 1 0"),
        (
            ["route", "R", "p.jsonl", "-o", "out2", "--budget-usd", "9", "--costs", "prices"],
            "1 0 1 0",
        ),
        (["route", "R", "p.jsonl", "-o", "o.jsonl", "--group-by", "task"], "1 0 1 0"),
        (["choose", "R", "p.parquet"], "0 1 1 0"),
        (["explain", "R", "prompt", "--embeddings", "one.npy"], "0 0 0 1"),
    ],
)
def test_every_file_is_opened_once(files, tmp_path, words, counts):
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    np.save(tmp_path / "one.npy", np.load(files / "p.npy")[:1])
    if "--embeddings" not in words:
        words = [*words, "--embeddings", "p.npy", "--on-error", "skip"]
    if "--budget-usd" in words:
        (tmp_path / "prices.json").write_text(json.dumps(PRICES))
        words = [*words, "--prices", "prices.json", "--output-tokens", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", OPENS, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == counts
