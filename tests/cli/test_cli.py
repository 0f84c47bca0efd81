"""The command line: every command run, its JSON, its exit codes, its files and its memory."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchrouter import __version__
from benchrouter.cli import app, output
from benchrouter.embeddings import DEFAULT_ENCODER, Fingerprint
from benchrouter.router import Router
from benchrouter.scores.fitted import Settings

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["convert", "fit", "choose", "route", "serve", "explain", "inspect", "update", "encode"]
COMMANDS += ["evaluate", "download", "demo"]
MODELS = ["m-a", "m-b", "m-c"]
DATASETS = ["code", "law", "maths"]
DIM = 8


def unit_rows(rng, n, dim=DIM):
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table of 90 records, its embeddings, a fitted router, 5 prompts and their embeddings.

    Dataset d lies around axis d; model d is right on it in 9 of 10, the others in 2 of 10.
    """
    root = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(7)
    dataset = np.repeat(np.arange(3), 30)
    rows = unit_rows(rng, 90) * 0.3 + np.eye(DIM, dtype=np.float32)[dataset]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chance = np.where(dataset[:, None] == np.arange(3), 0.9, 0.2)
    scores = (rng.random((90, 3)) < chance).astype(np.float32)
    columns = {
        "dataset": [DATASETS[d] for d in dataset],
        "sample_id": [str(i) for i in range(90)],
        "prompt": [f"question {i}" for i in range(90)],
        **{name: scores[:, m] for m, name in enumerate(MODELS)},
    }
    pq.write_table(pa.table(columns), root / "table.parquet")
    np.save(root / "table.npy", rows.astype(np.float32))
    lines = [json.dumps({"id": f"q{i}", "prompt": f"new {i}"}) + "\n" for i in range(5)]
    (root / "p.jsonl").write_text("".join(lines))
    queries = np.eye(DIM, dtype=np.float32)[[0, 1, 2, 0, 1]]
    np.save(root / "p.npy", queries)
    result = call(
        "fit", root / "table.parquet", "--embeddings", root / "table.npy", "-o", root / "R"
    )
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch, tmp_path_factory):
    """Keep what tests encode out of the user's own cache."""
    folder = tmp_path_factory.mktemp("cache") / "embeddings"
    monkeypatch.setenv("BENCHROUTER_CACHE", str(folder))
    return folder


def call(*arguments, **options):
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)


def document(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=pytest.fail)


def shell(*arguments, **options):
    """Run the command in a process of its own."""
    code = "from benchrouter.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        cwd=ROOT,
        timeout=120,
        **options,
    )


# --- what every command says ---------------------------------------------------------------------


def test_fit_says_what_was_read(files, tmp_path):
    found = document(
        call(
            *("fit", files / "table.parquet", "--embeddings", files / "table.npy"),
            *("--output", tmp_path / "R", "--k", 3, "--models", "m-a,m-c", "--json"),
        )
    )
    assert {k: found[k] for k in ("records", "datasets", "models", "missing", "skipped")} == {
        **{"records": 90, "datasets": 3, "models": ["m-a", "m-c"], "missing": 0.0, "skipped": []}
    }
    assert set(found["seconds"]) == {"read", "embeddings", "fit", "save"}
    assert found["encoder"] is None
    router = Router.load(tmp_path / "R")
    assert router.models == ("m-a", "m-c")
    assert router.describe()["settings"]["k"] == 3
    assert router.best_on_average == found["best_on_average"]


def test_fit_passes_every_number_on(files, tmp_path):
    result = call(
        *(
            "fit",
            files / "table.parquet",
            "--embeddings",
            files / "table.npy",
            "-o",
            tmp_path / "R",
        ),
        *("--kappa", 7, "--sigma", 0.2, "--eta", 0.7, "--threshold", 0.4, "--seed", 3),
        *("--label-shares", "0,.1", "--fallback", "m-c", "--threads", 1),
        *("--correct-above", "0.5", "--correct-above", "law=0.25"),
    )
    assert result.exit_code == 0, result.output
    described = Router.load(tmp_path / "R").describe()
    settings = described["settings"]
    assert [settings[n] for n in ("kappa", "sigma", "eta", "threshold", "seed")] == [
        *(7, 0.2, 0.7, 0.4, 3)
    ]
    assert settings["label_shares"] == [0.0, 0.1]
    assert described["fallback"] == "m-c"


def test_fit_joins_tables_and_their_embeddings_in_order(files, tmp_path):
    whole = pq.read_table(files / "table.parquet")
    rows = np.load(files / "table.npy")
    for name, start, stop in (("one", 0, 40), ("two", 40, 90)):
        pq.write_table(whole.slice(start, stop - start), tmp_path / f"{name}.parquet")
        np.save(tmp_path / f"{name}.npy", rows[start:stop])
    result = call(
        *("fit", tmp_path / "one.parquet", tmp_path / "two.parquet", "-o", tmp_path / "R"),
        *("--embeddings", tmp_path / "one.npy", "--embeddings", tmp_path / "two.npy"),
    )
    assert result.exit_code == 0, result.output
    for left, right in ((files / "R", tmp_path / "R"),):
        expected, found = (Router.load(d).route(embeddings=rows) for d in (left, right))
        np.testing.assert_array_equal(found.model, expected.model)
        np.testing.assert_array_equal(found.score, expected.score)


def test_fit_reads_other_peoples_names(files, tmp_path):
    records = [
        f'{{"task": "t{i % 2}", "sample_id": "{i}", "text": "x {i}", "llm": "{m}", "ok": {i % 2}}}'
        for i in range(8)
        for m in ("p", "q")
    ]
    (tmp_path / "long.jsonl").write_text("\n".join(records) + "\n")
    np.save(tmp_path / "e.npy", unit_rows(np.random.default_rng(0), 8))
    found = document(
        call(
            *("fit", tmp_path / "long.jsonl", "--embeddings", tmp_path / "e.npy"),
            *("-o", tmp_path / "R", "--columns", "score=ok,model=llm", "--layout", "long"),
            *("--dataset-column", "task", "--prompt-column", "text", "--json"),
        )
    )
    assert (found["records"], found["datasets"], found["models"]) == (8, 2, ["p", "q"])


def fit_with_year(files, folder, *arguments):
    """Fit the table with a column `year` beside the models, and one dataset less in [0, 1]."""
    columns = pq.read_table(files / "table.parquet")
    pq.write_table(columns.append_column("year", pa.array([2020] * 90)), folder / "y.parquet")
    return call(
        *("fit", folder / "y.parquet", "--embeddings", files / "table.npy"),
        *("-o", folder / "R", *arguments),
    )


def test_fit_warns_of_datasets_without_a_threshold_and_of_columns_that_are_no_model(
    files, tmp_path
):
    result = fit_with_year(files, tmp_path, "--json")
    warning, note = json.loads(result.stdout)["warnings"]
    assert warning == (
        "warning: 3 datasets have no threshold between right and wrong: 'code', 'law', 'maths' "
        "(in 'code' model 'year' has the score 2020, outside [0, 1]); choose and route --rule s3 "
        "need one for every dataset: give --correct-above"
    )
    assert note.startswith("note: taken for models, as numeric columns: 'year'; it has values ")
    assert "such as 2020" in note
    assert note.endswith(f"--models, or by model_columns in {tmp_path / 'y.json'}")
    assert [line for line in result.stderr.splitlines() if line in (warning, note)] == [
        warning,
        note,
    ]


def test_fit_is_silent_where_all_is_said(files, tmp_path):
    assert (
        document(fit_with_year(files, tmp_path, "--models", "m-a,m-b", "--json"))["warnings"] == []
    )
    (warning,) = document(fit_with_year(files, tmp_path, "--correct-above", "0.5", "--json"))[
        "warnings"
    ]
    assert warning.startswith("note: taken for models")
    (tmp_path / "y.json").write_text('{"model_columns": ["m-a", "m-b", "m-c", "year"]}')
    (warning,) = document(fit_with_year(files, tmp_path, "--json"))["warnings"]
    assert warning.startswith("warning: 3 datasets have no threshold")


def test_fit_takes_only_the_datasets_named(files, tmp_path):
    found = document(
        call(
            *("fit", files / "table.parquet", "--embeddings", files / "table.npy"),
            *("-o", tmp_path / "R", "--datasets", "law,code", "--json"),
        )
    )
    assert (found["records"], found["datasets"]) == (60, 2)
    router = Router.load(tmp_path / "R")
    assert router.datasets == ("code", "law")
    # the rows of the embeddings are those of the records that were kept
    whole = np.load(files / "table.npy")
    assert router.route(embeddings=whole[:60]).distance.max() < 0.5
    assert router.route(embeddings=whole[60:]).distance.min() > 0.5


def test_route_follows_the_embeddings(files, tmp_path):
    found = document(
        call(
            *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"),
            *("--output", tmp_path / "o.jsonl", "--batch-size", 2, "--json"),
        )
    )
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [r["id"] for r in rows] == ["q0", "q1", "q2", "q3", "q4"]
    assert [r["model"] for r in rows] == ["m-a", "m-b", "m-c", "m-a", "m-b"]
    expected = Router.load(files / "R").route(embeddings=np.load(files / "p.npy"))
    np.testing.assert_array_equal(np.float32([r["score"] for r in rows]), expected.score)
    assert found["prompts"] == 5
    assert found["models"] == {"m-a": 2, "m-b": 2, "m-c": 1}
    assert found["fallbacks"] == 0
    assert os.listdir(tmp_path) == ["o.jsonl"]


@pytest.mark.parametrize("rule", ["mean", "raw", "s3"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_route_writes_the_other_formats(files, tmp_path, rule, suffix):
    target = tmp_path / f"o.{suffix}"
    result = call(
        *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"),
        *("-o", target, "--rule", rule, "--no-prompt", "--prefix", "r_"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "routed 5 prompts" in result.stderr
    if suffix == "csv":
        with open(target, newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pq.read_table(target).to_pylist()
    assert list(rows[0]) == ["id", "r_model", "r_score", "r_margin", "r_distance", "r_fallback"]
    expected = Router.load(files / "R").route(embeddings=np.load(files / "p.npy"), rule=rule)
    assert [r["r_model"] for r in rows] == expected.names()


def test_route_reads_stdin_and_writes_stdout(files):
    result = shell(
        *("route", files / "R", "-", "--embeddings", files / "p.npy", "--output", "-"),
        input=(files / "p.jsonl").read_bytes(),
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.decode().splitlines()]
    assert [(r["id"], r["model"]) for r in rows[:2]] == [("q0", "m-a"), ("q1", "m-b")]
    assert len(rows) == 5


def test_route_skips_and_lists(files, tmp_path):
    (tmp_path / "p.txt").write_text("a\n\nc\nd\ne\n")
    found = document(
        call(
            *("route", files / "R", tmp_path / "p.txt", "--embeddings", files / "p.npy"),
            *("-o", tmp_path / "o.jsonl", "--on-error", "skip", "--json"),
        )
    )
    assert (found["prompts"], found["skipped"]) == (4, 1)
    assert found["first_skipped"] == [
        f"{tmp_path / 'p.txt'}, line 2: found an empty prompt, expected text"
    ]
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [r["model"] for r in rows] == ["m-a", "m-c", "m-a", "m-b"]


def test_route_reports_bad_records_by_default(files, tmp_path):
    (tmp_path / "p.txt").write_text("a\n\nc\nd\ne\n")
    target, side = tmp_path / "o.jsonl", tmp_path / "o.jsonl.rejected.jsonl"
    arguments = ["route", files / "R", tmp_path / "p.txt", "--embeddings", files / "p.npy"]
    result = call(*arguments, "-o", target, "--json")
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert (found["prompts"], found["skipped"], found["rejected"]) == (4, 1, str(side))
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [r["model"] for r in rows] == ["m-a", "m-c", "m-a", "m-b"]
    expected = {"row": 1, "line": 2, "reason": "found an empty prompt, expected text", "raw": ""}
    assert json.loads(side.read_text()) == expected
    assert f"skipped 1 bad records, all in {side}\n" in result.stderr
    # a file of its own, and without any bad record none
    other = tmp_path / "r.jsonl"
    result = call(*arguments, "-o", target, "--rejected", other, "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert other.read_text() == side.read_text()
    (tmp_path / "p.txt").write_text("a\nb\nc\nd\ne\n")
    assert document(call(*arguments, "-o", target, "--json"))["rejected"] is None
    assert sorted(os.listdir(tmp_path)) == ["o.jsonl", "p.txt", "r.jsonl"]


def test_bad_records_are_told_beside_decisions_on_stdout(files, tmp_path):
    (tmp_path / "p.txt").write_text("a\n\n \nd\ne\n")
    arguments = ["route", files / "R", tmp_path / "p.txt", "--embeddings", files / "p.npy"]
    result = call(*arguments, "-o", "-")
    assert result.exit_code == 4
    assert [json.loads(t)["model"] for t in result.stdout.splitlines()] == ["m-a", "m-a", "m-b"]
    assert result.stderr.splitlines()[:2] == [
        f"rejected {tmp_path / 'p.txt'}, line {n}: found an empty prompt, expected text"
        for n in (2, 3)
    ]
    result = call(*arguments, "-o", "-", "--rejected", tmp_path / "r.jsonl")
    assert result.exit_code == 4
    assert "line 2: found" in result.stderr
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [2, 3]


def test_a_run_that_fails_leaves_no_side_file(files, tmp_path):
    (tmp_path / "p.txt").write_text("a\n\nc\n")
    result = call(
        *("route", files / "R", tmp_path / "p.txt", "--embeddings", files / "p.npy"),
        *("-o", tmp_path / "o.jsonl"),
    )
    assert result.exit_code == 1
    assert "has 5 embeddings, the prompts are 3" in result.stderr
    assert os.listdir(tmp_path) == ["p.txt"]


def test_route_falls_back_on_the_model_that_is_named(files, tmp_path):
    np.save(tmp_path / "far.npy", np.tile(-np.full(DIM, DIM**-0.5, np.float32), (5, 1)))
    arguments = ["route", files / "R", files / "p.jsonl", "--embeddings", tmp_path / "far.npy"]
    best = Router.load(files / "R").best_on_average
    for fallback in MODELS:
        found = document(
            call(*arguments, "-o", tmp_path / "o.jsonl", "--fallback", fallback, "--json")
        )
        assert (found["models"], found["fallbacks"]) == ({fallback: 5}, 5)
    assert document(call(*arguments, "-o", tmp_path / "o.jsonl", "--json"))["models"] == {best: 5}


@pytest.mark.parametrize("target", ["out", "out/", "out.d"])
def test_route_writes_parts_to_a_directory(files, tmp_path, target):
    if target == "out.d":
        (tmp_path / target).mkdir()
    arguments = [
        *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"),
        *("-o", f"{tmp_path}/{target}", "--part-size", 2),
    ]
    found = document(call(*arguments, "--json"))
    assert (found["prompts"], found["parts"], found["rejected"]) == (5, 3, None)
    out = tmp_path / target
    assert sorted(os.listdir(out)) == [
        "manifest.json",
        *(f"part-0000{i}.parquet" for i in range(3)),
    ]
    rows = [row for p in sorted(out.glob("*.parquet")) for row in pq.read_table(p).to_pylist()]
    assert [(r["id"], r["model"]) for r in rows] == [
        *(("q0", "m-a"), ("q1", "m-b"), ("q2", "m-c"), ("q3", "m-a"), ("q4", "m-b"))
    ]
    said = json.loads((out / "manifest.json").read_text())
    assert said["job"]["input"]["path"] == str(files / "p.jsonl")
    assert said["job"]["router"] == json.loads((files / "R" / "router.json").read_text())["sha256"]
    result = call(*arguments)
    assert result.exit_code == 1
    assert "or --resume" in result.stderr
    result = call(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert "is complete: there is nothing to do" in result.stderr
    for changed, words in (
        (["--rule", "raw"], "rule was 'auto', is 'raw'"),
        (["--fallback", "m-c"], "fallback was None, is 'm-c'"),
        (["--part-size", "3"], "part_size was 2, is 3"),
        (["--no-prompt"], "keep_prompt was True, is False"),
        (["--output-format", "jsonl"], "output_format was 'parquet', is 'jsonl'"),
        (["--embeddings", files / "table.npy"], "embeddings was"),
    ):
        result = call(*arguments, "--resume", *changed)
        assert result.exit_code == 1, result.output
        assert f"{out} holds parts of another job: {words}" in result.stderr


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst", "csv.gz", "csv.zst"])
def test_route_reads_and_writes_compressed_files(files, tmp_path, suffix):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    arguments = ["--embeddings", files / "p.npy", "--json"]
    document(call("route", files / "R", files / "p.jsonl", "-o", first, *arguments))
    document(call("route", files / "R", first, "-o", second, "--prefix", "again_", *arguments))
    with pa.input_stream(str(second), compression="detect") as file:
        text = file.read().decode()
    if suffix.startswith("jsonl"):
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = list(csv.DictReader(text.splitlines()))
    assert [(r["id"], r["model"], r["again_model"]) for r in rows] == [
        (f"q{i}", MODELS[i % 3], MODELS[i % 3]) for i in range(5)
    ]


def test_a_cut_input_keeps_the_parts_before_the_cut(files, tmp_path):
    n = 20_000
    lines = [json.dumps({"prompt": f"prompt {i} {os.urandom(100).hex()}"}) for i in range(n)]
    whole = gzip.compress(("\n".join(lines) + "\n").encode())
    (tmp_path / "p.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "p.npy", np.tile(np.eye(1, DIM, dtype=np.float32), (n, 1)))
    arguments = [
        *("route", files / "R", tmp_path / "p.jsonl.gz", "--embeddings", tmp_path / "p.npy"),
        *("-o", tmp_path / "out", "--part-size", 1000, "--output-format", "jsonl"),
    ]
    result = call(*arguments)
    assert result.exit_code == 1
    assert f"error: {tmp_path / 'p.jsonl.gz'}: not a whole gzip file" in result.stderr
    parts = sorted((tmp_path / "out").glob("part-*"))
    assert 5 < len(parts) < 15  # a MiB of the text is read at a time
    said = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [p["name"] for p in said["parts"]] == [p.name for p in parts]
    assert not said["complete"]
    found = [json.loads(t)["prompt"] for p in parts for t in p.read_text().splitlines()]
    assert found == [json.loads(line)["prompt"] for line in lines[: 1000 * len(parts)]]
    # the whole file is another input, and a cut without compression one bad record
    (tmp_path / "p.jsonl.gz").write_bytes(whole)
    result = call(*arguments, "--resume")
    assert "holds parts of another job: input was" in result.stderr
    (tmp_path / "cut.jsonl").write_text("\n".join(lines)[:-9])
    result = call(
        *("route", files / "R", tmp_path / "cut.jsonl", "--embeddings", tmp_path / "p.npy"),
        *("-o", tmp_path / "cut", "--json"),
    )
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert (found["prompts"], found["skipped"]) == (n - 1, 1)
    assert f"cut.jsonl, line {n}: found text that is not JSON" in found["first_skipped"][0]


def test_choose_shows_all_models(files):
    found = document(
        call("choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy", "--json")
    )
    assert found["n_prompts"] == 5
    assert [m["model"] for m in found["models"]] == MODELS
    assert set(found["models"][0]) >= {
        *("model", "s1", "s2", "s3", "p_hat", "support", "standing", "params_b", "cost_usd"),
        "usd_per_million_tokens",
    }
    assert len(found["benchmark_distances"]) == 3
    result = call("choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy")
    assert result.exit_code == 0
    for words in (*MODELS, "S1", "p̂", "standing", found["reason"][:20], "the benchmark's own"):
        assert words in result.stdout


def test_choose_by_another_score_and_with_labels(files, tmp_path):
    (tmp_path / "l.csv").write_text("m-b,m-a\n0,1\n0,1\n0,\n")
    arguments = ["choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"]
    found = document(call(*arguments, "--score", "s1", "--json"))
    s1 = {m["model"]: m["s1"] for m in found["models"]}
    assert s1[found["model"]] == max(s1.values())
    labelled = document(call(*arguments, "--labels", tmp_path / "l.csv", "--json"))
    assert labelled["n_labels"] == 3
    labels = np.float32([[1, 0, np.nan], [1, 0, np.nan], [np.nan, 0, np.nan]])
    expected = Router.load(files / "R").choose(None, labels, embeddings=np.load(files / "p.npy"))
    assert labelled["model"] == expected.model
    np.testing.assert_allclose([m["p_hat"] for m in labelled["models"]], expected.p_hat)


def test_labels_are_asked_for_filled_in_and_handed_back(files, tmp_path):
    arguments = ["choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"]
    asked, suggest = tmp_path / "asked.csv", ["--suggest-labels", "2"]
    found = document(call(*arguments, *suggest, "--output", asked, "--json"))["suggestion"]
    assert len(found["rows"]) == 2 and not found["reached"] and len(found["models"]) >= 2
    assert found["max_regret"] == 0.01 and 0 < found["chance"] < 0.9
    header, *lines = asked.read_text().splitlines()
    assert header == "row,prompt," + ",".join(found["models"])
    assert [int(line.split(",")[0]) for line in lines] == found["rows"]
    # as it is: nothing graded yet
    assert document(call(*arguments, "--labels", asked, "--json"))["n_labels"] == 0
    empty = "," * len(found["models"])
    graded = [line.removesuffix(empty) + ",1" * len(found["models"]) for line in lines]
    asked.write_text("\n".join([header, *graded]) + "\n")
    result = call(*arguments, "--labels", asked, *suggest, "--output", asked)
    assert result.exit_code == 0, result.output
    assert "models to grade" in result.stdout and "fill in the empty cells" in result.stdout
    rows = [line.split(",")[0] for line in asked.read_text().splitlines()[1:]]
    assert rows[:2] == [str(row) for row in found["rows"]] and len(set(rows)) == 3  # distinct
    after = document(call(*arguments, "--labels", asked, "--json"))
    assert after["n_labels"] == 2
    labels = np.full((5, 3), np.nan, np.float32)
    for name in found["models"]:
        labels[np.array(found["rows"]) - 1, MODELS.index(name)] = 1.0
    expected = Router.load(files / "R").choose(None, labels, embeddings=np.load(files / "p.npy"))
    np.testing.assert_allclose([m["auto"] for m in after["models"]], expected.auto)
    # without a file they are listed; a loose aim is reached at once
    listed = call(*arguments, *suggest)
    assert "prompts to grade" in listed.stdout and "90 % are needed" in listed.stdout
    two = call(*arguments, *suggest, "--models", f"{MODELS[0]},{MODELS[2]}", "--json")
    assert document(two)["suggestion"]["models"] == [MODELS[0], MODELS[2]]
    done = call(*arguments, *suggest, "--max-regret", "1")
    assert "no more are needed" in done.stdout


def test_labels_of_another_scale_need_an_option(files, tmp_path):
    (tmp_path / "l.csv").write_text("m-a,m-b\n7,3\n2,9\n")
    arguments = ["choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"]
    arguments += ["--labels", tmp_path / "l.csv"]
    result = call(*arguments)
    assert result.exit_code == 1
    assert "row 1, m-a: found '7', expected a score from 0 to 1" in " ".join(result.stderr.split())
    assert "--label-threshold" in result.stderr
    found = document(call(*arguments, "--label-threshold", "5", "--json"))
    (tmp_path / "l.csv").write_text("m-a,m-b\n1,0\n0,1\n")
    assert document(call(*arguments, "--json"))["models"] == found["models"]
    (tmp_path / "l.csv").write_text("m-a,m-b\n0.7,0.3\n0.2,0.9\n")
    assert document(call(*arguments, "--json"))["models"] == found["models"]


@pytest.mark.parametrize(
    "options", [["--output", "l.csv"], ["--suggest-labels", "2", "-o", "l.txt"]]
)
def test_a_file_of_labels_belongs_to_suggestions(files, options):
    arguments = ["choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"]
    result = call(*arguments, *options)
    assert result.exit_code == 2
    assert "expects --suggest-labels N and a .csv" in " ".join(
        result.stderr.replace("│", "").split()
    )


def test_explain_names_the_neighbours(files, tmp_path):
    np.save(tmp_path / "one.npy", np.load(files / "p.npy")[1:2])
    arguments = ["explain", files / "R", "why?", "--embeddings", tmp_path / "one.npy"]
    found = document(call(*arguments, "--json"))
    assert (found["prompt"], found["model"]) == ("why?", "m-b")
    assert len(found["neighbours"]) == 10 < found["n_voting"] == found["models"][0]["support"]
    assert {n["dataset"] for n in found["neighbours"]} == {"law"}
    assert {n["weight"] for n in found["neighbours"]} == {1 / found["n_voting"]}
    mean = document(call(*arguments, "--rule", "mean", "--json"))
    assert len(mean["neighbours"]) == mean["n_voting"] == 5
    assert len(document(call(*arguments, "--rule", "raw", "--k", 3, "--json"))["neighbours"]) == 3
    assert set(found["neighbours"][0]["scores"]) == set(MODELS)
    for text, expected in (("why?\n", "why?"), ("why?\r\n", "why?"), ("why\n?\n\n", "why\n?\n")):
        piped = document(call(*arguments[:2], "-", *arguments[3:], "--json", input=text))
        assert piped["prompt"] == expected
    result = call(*arguments[:2], "-", *arguments[3:], input=b"why\xff?")
    assert result.exit_code == 1
    assert "standard input: found bytes that are not UTF-8" in result.stderr
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    for words in ("why?", "m-b", "law", found["neighbours"][0]["prompt"]):
        assert words in result.stdout


def test_explain_says_in_words_what_auto_found(files, tmp_path):
    np.save(tmp_path / "one.npy", np.load(files / "p.npy")[1:2])
    arguments = ["explain", files / "R", "why?", "--embeddings", tmp_path / "one.npy"]
    found = document(call(*arguments, "--json"))
    text = " ".join(call(*arguments).stdout.split())
    (chosen,) = (m for m in found["models"] if m["model"] == found["model"])
    assert f"m-b has the largest expected score, {chosen['score']:.3f}" in text
    assert (
        f"chance of success {chosen['chance']:.3f}; of prompts like this one it answers "
        f"{chosen['chance_low']:.3f} to {chosen['chance_high']:.3f} correctly, with 80 % chance"
    ) in text
    assert found["strange"] < 0.5
    assert (
        f"strange {found['strange']:.3f}, the chance that the prompt is of a kind that the "
        "benchmark lacks: it counts as known"
    ) in text
    assert f"neighbours that voted, the nearest; {found['n_voting'] - 10} more voted" in text
    for model in found["models"]:
        pulls = [model[f"{view}_pull"] for view in ("votes", "datasets", "embedding")]
        assert model["standing"] + sum(pulls) == pytest.approx(model["score"], abs=1e-5)
        row = f"{model['standing']:.3f} " + " ".join(f"{pull:+.3f}" for pull in pulls)
        assert row in text
        assert f"{model['chance_low']:.3f} to {model['chance_high']:.3f}" in text
    plain = call(*arguments, "--rule", "mean").stdout
    assert "chance of success" not in plain and "strange" not in plain and "standing" not in plain


def test_inspect_says_in_words_what_auto_learnt(files):
    learnt = document(call("inspect", files / "R", "--json"))["auto"]
    text = " ".join(call("inspect", files / "R").stdout.split())
    assert f"neighbours that vote {learnt['neighbours']} by the rule auto, else k" in text
    sides = [learnt["known"], learnt["strange"]]
    for i, name in enumerate(("votes", "datasets", "embedding (ridge penalty of 30 records)")):
        weights = [f"{s['weights'][i]:.2f}; {s['level_weights'][i]:.2f}" for s in sides]
        assert f"weight of the {name} {' '.join(weights)}" in text
    words = {None: "never", 0.0: "for any lead"}
    left = " ".join(words[side["margin"]] for side in sides)
    assert f"the best on average is left {left}" in text
    equal = " ".join(f"{side['tolerance']:.3f} apart" for side in sides)
    assert f"scores that count as equal, with costs {equal}" in text
    slope, intercept = sides[0]["calibration"]
    assert f"logistic of {slope:.2f} × logit of the score {intercept:+.2f}" in text
    assert f"its spread over datasets sd {sides[0]['spread']:.3f}" in text
    assert f"logistic of {learnt['gate'][0]:.3g} " in text


def test_inspect_lists_what_is_inside(files):
    found = document(call("inspect", files / "R", "--json"))
    assert found["verified"] is True
    assert found["n_records"] == 90
    assert {d["name"]: d["n_records"] for d in found["datasets"]} == dict.fromkeys(DATASETS, 30)
    for name, file in found["files"].items():
        assert (files / "R" / name).stat().st_size == file["bytes"]
        assert len(file["sha256"]) == 64
    result = call("inspect", files / "R")
    for words in (*MODELS, *DATASETS, "embeddings.npy", "5, 19", "0.09, 0.6, 0.5"):
        assert words in result.stdout


def minilm():
    from benchrouter.embeddings import EncoderNotFound, resolve

    try:
        resolve("minilm")
    except EncoderNotFound:
        pytest.skip("the packaged MiniLM weights (extra minilm) are not installed")
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


def test_encode_then_fit_then_route_without_naming_the_encoder_again(files, tmp_path):
    minilm()
    found = document(
        call(
            *("encode", files / "table.parquet", "-o", tmp_path / "t.npy"),
            *("--encoder", "minilm", "--json"),
        )
    )
    assert (found["prompts"], found["dim"]) == (90, 384)
    rows = np.load(tmp_path / "t.npy")
    assert rows.shape == (90, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    fitted = document(
        call(
            *("fit", files / "table.parquet", "--embeddings", tmp_path / "t.npy"),
            *("-o", tmp_path / "R", "--json"),
        )
    )
    assert fitted["encoder"] == found["encoder"]
    result = call("route", tmp_path / "R", files / "p.jsonl", "-o", tmp_path / "o.jsonl")
    assert result.exit_code == 0, result.output
    expected = Router.load(tmp_path / "R", encoder="minilm").route([f"new {i}" for i in range(5)])
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [r["model"] for r in rows] == expected.names()


def write_sidecar(path, **changes):
    mark = Fingerprint("m", None, "0" * 64, "mean", 256, DIM, True, "float32")
    described = {
        "format": 1,
        "shape": list(np.load(path).shape),
        "fingerprint": dataclasses.replace(mark, **changes).to_dict(),
    }
    path.with_name(path.name + ".json").write_text(json.dumps(described))


def test_embeddings_of_another_encoder_are_bad_input(files, tmp_path):
    for name, rows in (("t", "table"), ("p", "p")):
        np.save(tmp_path / f"{name}.npy", np.load(files / f"{rows}.npy"))
        write_sidecar(tmp_path / f"{name}.npy")
    np.save(tmp_path / "one.npy", np.load(files / "p.npy")[:1])
    write_sidecar(tmp_path / "one.npy")
    fitted = ["fit", files / "table.parquet", "--embeddings", tmp_path / "t.npy"]
    assert call(*fitted, "-o", tmp_path / "R").exit_code == 0
    for changes, code in (({"dtype": "float16"}, 0), ({"pooling": "cls"}, 1)):
        for name in ("p", "one"):
            write_sidecar(tmp_path / f"{name}.npy", **changes)
        given = ["--embeddings", tmp_path / "p.npy"]
        for arguments in (
            ["choose", tmp_path / "R", files / "p.jsonl", *given],
            ["route", tmp_path / "R", files / "p.jsonl", *given, "-o", tmp_path / "o.csv"],
            ["explain", tmp_path / "R", "x", "--embeddings", tmp_path / "one.npy"],
        ):
            result = call(*arguments)
            assert result.exit_code == code, result.output
            assert ("pooling mean against cls" in result.stderr) == bool(code)
            named = call(*arguments, "--encoder", "minilm")
            assert named.exit_code == 2
            assert "no encoder is needed" in named.stderr


def test_another_encoder_is_bad_input_and_the_cache_is_used_where_it_is_told(
    files, tmp_path, cache_folder
):
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    from tiny_encoder import write_bert

    own, other = (str(write_bert(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    (tmp_path / "p.txt").write_text("w1 w2\nw3\n")
    fitted = ["fit", files / "table.parquet", "-o", tmp_path / "R", "--encoder", own]
    assert call(*fitted, "--no-cache").exit_code == 0
    routed = ["route", tmp_path / "R", tmp_path / "p.txt", "-o", tmp_path / "o.jsonl"]
    encoded = ["encode", tmp_path / "p.txt", "-o", tmp_path / "p.npy", "--encoder", own]
    chosen = ["choose", tmp_path / "R", tmp_path / "p.txt"]
    for arguments in (routed, [*chosen, "--no-cache"], [*encoded, "--no-cache"]):
        result = call(*arguments)
        assert result.exit_code == 0, result.output
    assert not cache_folder.exists()
    here = tmp_path / "here"
    for arguments in (chosen, encoded):
        assert call(*arguments).exit_code == 0
        assert [path.suffix for path in cache_folder.iterdir()] == [".sqlite3"]
        (stored,) = cache_folder.iterdir()
        stored.unlink()
        assert call(*arguments, "--cache-dir", here).exit_code == 0
        assert not list(cache_folder.iterdir())
        assert len(list(here.iterdir())) == 1
    for arguments in (routed, chosen, ["explain", tmp_path / "R", "w1"]):
        result = call(*arguments, "--encoder", other)
        assert result.exit_code == 1, result.output
        assert "embedded by another encoder: weights " in result.stderr


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_cache_that_cannot_be_is_one_note(tmp_path, monkeypatch):
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    from tiny_encoder import write_bert

    monkeypatch.delenv("BENCHROUTER_CACHE")
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "p.txt").write_text("w1 w2\nw3\n")
    encoder = write_bert(tmp_path / "bert")
    result = call(
        "encode", tmp_path / "p.txt", "-o", tmp_path / "p.npy", "--encoder", encoder, "--no-cache"
    )
    assert (result.exit_code, "note:" in result.stderr) == (0, False)
    result = call("encode", tmp_path / "p.txt", "-o", tmp_path / "p.npy", "--encoder", encoder)
    assert result.exit_code == 0, result.output
    note, encoded = result.stderr.splitlines()
    assert note.startswith(f"note: {tmp_path / 'home'}")
    assert note.endswith("no embedding can be kept there (Not a directory)")
    assert encoded.startswith("encoded 2 prompts")


@pytest.mark.parametrize("command", ["choose", "route", "explain"])
def test_threads_reach_the_router(files, tmp_path, monkeypatch, command):
    np.save(tmp_path / "one.npy", np.load(files / "p.npy")[:1])
    (tmp_path / "p.txt").write_text("x\n")
    found = []
    load = Router.load
    monkeypatch.setattr(
        Router,
        "load",
        lambda *a, **options: found.append(options["threads"]) or load(*a, **options),
    )
    result = call(
        *(command, files / "R", "x" if command == "explain" else tmp_path / "p.txt"),
        *("--embeddings", tmp_path / "one.npy", "--threads", 3),
        *(["-o", tmp_path / "o.csv"] if command == "route" else []),
    )
    assert result.exit_code == 0, result.output
    assert found == [3]


# --- exit codes ----------------------------------------------------------------------------------


def wrong(files, tmp_path, name):
    """Arguments that must fail, by name: exit code, words of the message, arguments."""
    router, prompts, rows = files / "R", files / "p.jsonl", files / "p.npy"
    out = tmp_path / "o.jsonl"
    routed = ["--embeddings", rows, "-o", out]
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "table.csv").write_text("dataset,sample_id,prompt,model,score\nd,1,p,m,high\n")
    (tmp_path / "other.csv").write_text("dataset,sample_id,prompt,m-a\ncode,0,question 0,0.5\n")
    np.save(tmp_path / "three.npy", np.load(rows)[:3])
    np.save(tmp_path / "long.npy", 2 * np.load(rows))
    np.save(tmp_path / "wide.npy", np.ones((5, 2 * DIM), np.float32))
    (tmp_path / "d.csv").mkdir(exist_ok=True)
    (tmp_path / "junk.csv.gz").write_text("dataset,prompt,m\n")
    (tmp_path / "plain").mkdir(exist_ok=True)
    (tmp_path / "plain" / "notes.txt").write_text("kept")
    given = ["--embeddings", files / "table.npy", "-o", tmp_path / "N"]
    return {
        "no prompts": (1, "no.jsonl: No such file", ["route", router, "no.jsonl", *routed]),
        "no router": (1, "is not a router", ["route", tmp_path, prompts, *routed]),
        "bad record": (
            *(1, "bad.jsonl, line 2: found no field 'prompt'"),
            ["route", router, tmp_path / "bad.jsonl", *routed, "--on-error", "raise"],
        ),
        "too few embeddings": (
            *(1, "has 3 embeddings, the prompts are 5"),
            ["route", router, prompts, "--embeddings", tmp_path / "three.npy", "-o", out],
        ),
        "no unit rows": (
            *(1, "found norm 2, expected 1"),
            ["route", router, prompts, "--embeddings", tmp_path / "long.npy", "-o", out],
        ),
        "embeddings of another dim, seen before their norm": (
            *(1, "wide.npy: embeddings have dim 16, those of the router have dim 8"),
            ["route", router, prompts, "--embeddings", tmp_path / "wide.npy", "-o", out],
        ),
        "a text for embeddings": (
            *(1, "bad.jsonl: found no readable .npy array (it does not begin as one)"),
            ["choose", router, prompts, "--embeddings", tmp_path / "bad.jsonl"],
        ),
        "an explicit cache that cannot be": (
            *(1, "bad.jsonl: cannot be written (File exists)"),
            [
                *("fit", files / "table.parquet", "-o", tmp_path / "N"),
                *("--cache-dir", tmp_path / "bad.jsonl"),
            ],
        ),
        "no output format": (
            *(1, "the suffix is none of"),
            ["route", router, prompts, "--embeddings", rows, "-o", tmp_path / "o.txt"],
        ),
        "no rule": (
            2,
            "expected auto, mean, raw, s3",
            ["route", router, prompts, "--rule", "x", *routed],
        ),
        "no such fallback to route to": (
            *(1, "fallback: found 'gpt-9', expected one of ['m-a', 'm-b', 'm-c']"),
            ["route", router, prompts, *routed, "--fallback", "gpt-9"],
        ),
        "on error": (
            *(2, "found 'ignore', expected report, skip, raise"),
            ["route", router, prompts, *routed, "--on-error", "ignore"],
        ),
        "a side file of nothing": (
            *(2, "--on-error raise keeps none"),
            [
                *("route", router, prompts, *routed, "--on-error", "raise"),
                *("--rejected", tmp_path / "r.jsonl"),
            ],
        ),
        "a side file beside a directory": (
            *(2, "a directory has its own folder of them"),
            [
                *("route", router, prompts, "--embeddings", rows, "-o", tmp_path / "N"),
                *("--rejected", tmp_path / "r.jsonl"),
            ],
        ),
        "a file in parts": (
            *(2, "are for a directory"),
            ["route", router, prompts, *routed, "--part-size", 2],
        ),
        "a file resumed": (
            2,
            "are for a directory",
            ["route", router, prompts, *routed, "--resume"],
        ),
        "parts of CSV": (
            *(2, "found 'csv', expected parquet, jsonl"),
            [
                *("route", router, prompts, "--embeddings", rows, "-o", tmp_path / "N"),
                *("--output-format", "csv"),
            ],
        ),
        "parts beside notes": (
            *(1, "plain is not empty (it holds 'notes.txt'), expected a new or empty directory"),
            ["route", router, prompts, "--embeddings", rows, "-o", tmp_path / "plain"],
        ),
        "stdin resumed": (
            *(1, "- is no regular file, so that no job on it can be resumed"),
            ["route", router, "-", "--embeddings", rows, "-o", tmp_path / "N", "--resume"],
        ),
        "two on stdout": (
            *(2, "both want stdout"),
            ["route", router, prompts, "--embeddings", rows, "-o", "-", "--json"],
        ),
        "no output": (2, "Missing option", ["route", router, prompts]),
        "no command": (2, "No such command", ["rout"]),
        "no encoder": (3, "records no encoder", ["route", router, prompts, "-o", out]),
        "no such encoder": (
            *(3, "no-such-folder"),
            ["route", router, prompts, "-o", out, "--encoder", "./no-such-folder"],
        ),
        "no weights for fit": (
            *(3, "no-such-folder"),
            ["fit", files / "table.parquet", "-o", tmp_path / "N", "--encoder", "./no-such-folder"],
        ),
        "score is no number": (1, "high", ["fit", tmp_path / "table.csv", *given]),
        "no such model": (
            1,
            "gpt-9",
            ["fit", files / "table.parquet", *given, "--models", "gpt-9"],
        ),
        "no such fallback": (
            *(1, "gpt-9"),
            ["fit", files / "table.parquet", *given, "--fallback", "gpt-9"],
        ),
        "not a router there": (
            *(1, "is not a router"),
            [*("fit", files / "table.parquet", *given[:2]), "-o", tmp_path / "plain"],
        ),
        "not a router there, seen first": (
            *(1, "is not a router"),
            ["fit", files / "table.parquet", "-o", tmp_path / "plain", "--encoder", "./no-such"],
        ),
        "a file above it, seen first": (
            *(1, "bad.jsonl"),
            [
                *("fit", files / "table.parquet", "-o", tmp_path / "bad.jsonl" / "R"),
                *("--encoder", "./no-such"),
            ],
        ),
        "no such fallback, seen first": (
            *(1, "--fallback: found 'gpt-9', expected one of ['m-a', 'm-b', 'm-c']"),
            [
                *("fit", files / "table.parquet", "-o", tmp_path / "N", "--encoder", "./no-such"),
                *("--fallback", "gpt-9"),
            ],
        ),
        "too few embeddings for fit": (
            *(1, "three.npy: found 3 embeddings, expected 90, one a record of the input"),
            [
                *("fit", files / "table.parquet", "--embeddings", tmp_path / "three.npy"),
                *("-o", tmp_path / "N"),
            ],
        ),
        "tables that contradict each other": (
            *(1, "score of model 'm-a' for (dataset 'code', sample_id '0') is 0.5, but"),
            [
                *("fit", files / "table.parquet", tmp_path / "other.csv", *given),
                *("--embeddings", files / "table.npy"),
            ],
        ),
        "a directory for a table": (
            *(1, "d.csv: is a directory without results of a known format (helm, "),
            ["fit", tmp_path / "d.csv", *given],
        ),
        "junk for a gzipped table": (
            *(1, "junk.csv.gz: not a whole gzip file: Not a gzipped file"),
            ["fit", tmp_path / "junk.csv.gz", *given],
        ),
        "no such dataset": (
            1,
            "physics",
            ["fit", files / "table.parquet", *given, "--datasets", "law,physics"],
        ),
        "sigma": (
            1,
            "sigma must be above 0",
            ["fit", files / "table.parquet", *given, "--sigma", 0],
        ),
        "threshold": (
            *(2, "expected VALUE or DATASET=VALUE"),
            ["fit", files / "table.parquet", *given, "--correct-above", "law=high"],
        ),
        "two files for one table": (
            *(2, "found 2 files for 1 tables"),
            ["fit", files / "table.parquet", *given, "--embeddings", rows],
        ),
        "no score": (2, "expected auto, s1, s2, s3", ["choose", router, prompts, "--score", "s4"]),
        "labels of a stranger": (
            *(1, "suffix is none of"),
            ["choose", router, prompts, "--embeddings", rows, "--labels", rows],
        ),
        "an empty prompt": (1, "found an empty prompt", ["explain", router, " "]),
        "five embeddings": (
            *(1, "has 5 embeddings, expected 1"),
            ["explain", router, "x", "--embeddings", rows],
        ),
        "nothing to inspect": (1, "is not a router", ["inspect", tmp_path]),
        "no .npy": (2, "expected FILE.npy", ["encode", prompts, "-o", tmp_path / "e.bin"]),
        "no demo weights": (3, "no-such-folder", ["demo", "--encoder", "./no-such-folder"]),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "no prompts",
        "no router",
        "bad record",
        "too few embeddings",
        "no unit rows",
        "embeddings of another dim, seen before their norm",
        "a text for embeddings",
        "an explicit cache that cannot be",
        "no output format",
        "no rule",
        "no such fallback to route to",
        "on error",
        "a side file of nothing",
        "a side file beside a directory",
        "a file in parts",
        "a file resumed",
        "parts of CSV",
        "parts beside notes",
        "stdin resumed",
        "two on stdout",
        "no output",
        "no command",
        "no encoder",
        "no such encoder",
        "no weights for fit",
        "score is no number",
        "no such model",
        "no such fallback",
        "not a router there",
        "not a router there, seen first",
        "a file above it, seen first",
        "no such fallback, seen first",
        "too few embeddings for fit",
        "tables that contradict each other",
        "a directory for a table",
        "junk for a gzipped table",
        "no such dataset",
        "sigma",
        "threshold",
        "two files for one table",
        "no score",
        "labels of a stranger",
        "an empty prompt",
        "five embeddings",
        "nothing to inspect",
        "no .npy",
        "no demo weights",
    ],
)
def test_errors_have_a_code_and_one_plain_line(files, tmp_path, name):
    code, words, arguments = wrong(files, tmp_path, name)
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    if code != 2:
        errors = [t for t in result.stderr.splitlines() if t.startswith("error: ")]
        assert errors == [result.stderr.splitlines()[-1]]
    assert not (tmp_path / "o.jsonl").exists()
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*"))


def test_debug_shows_the_traceback(files):
    result = shell("inspect", files, env={**os.environ, "BENCHROUTER_DEBUG": "1"})
    assert b"Traceback" in result.stderr
    result = shell("inspect", files)
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: ")
    assert result.stderr.count(b"\n") == 1


def test_a_closed_pipe_is_no_traceback(files, tmp_path):
    (tmp_path / "p.txt").write_text("x\n" * 50_000)
    np.save(tmp_path / "p.npy", np.tile(np.eye(1, DIM, dtype=np.float32), (50_000, 1)))
    code = "from benchrouter.cli import main; main()"
    arguments = ["route", files / "R", tmp_path / "p.txt", "--embeddings", tmp_path / "p.npy"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), "-o", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert json.loads(process.stdout.readline())["model"] == "m-a"
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors == b""


def test_a_closed_stdout_is_one_line(files):
    code = "from benchrouter.cli import main; main()"
    for extra in ([], ["--json"]):
        shell = ["sh", "-c", 'exec "$@" >&-', "sh"]
        result = subprocess.run(
            [*shell, sys.executable, "-c", code, "inspect", str(files / "R"), *extra],
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=120,
        )
        assert result.returncode == 1
        assert result.stderr == b"error: stdout is closed, expected a place to write to\n"


@pytest.mark.parametrize("command", ["inspect", "choose", "explain", "fit"])
def test_a_reader_that_left_before_the_tables_is_no_traceback(files, tmp_path, command):
    np.save(tmp_path / "one.npy", np.load(files / "p.npy")[:1])
    arguments = {
        "inspect": [files / "R"],
        "choose": [files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"],
        "explain": [files / "R", "x", "--embeddings", tmp_path / "one.npy"],
        "fit": [
            *(files / "table.parquet", "--embeddings", files / "table.npy"),
            *("-o", tmp_path / "R"),
        ],
    }[command]
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as stdout:
        result = subprocess.run(
            [sys.executable, "-m", "benchrouter", command, *map(str, arguments)],
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            timeout=120,
        )
    assert result.returncode == 141, result.stderr
    assert b"Error" not in result.stderr
    if command == "fit":
        assert (tmp_path / "R" / "router.json").is_file()


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_leaves_no_file_under_the_name(files, tmp_path, sent, code):
    program = "from benchrouter.cli import main; main()"
    target = tmp_path / "o.csv"
    arguments = ["route", files / "R", "-", "--embeddings", files / "p.npy", "-o", target]
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments), "--batch-size", "2"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        # A suite that runs in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdin.write(b"one\ntwo\nthree\n")
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".o.csv.*.partial")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sent)
        process.wait(60)
        errors = process.stderr.read()
    assert process.returncode == code
    assert not target.exists()
    left = os.listdir(tmp_path)
    assert len(left) == (1 if sent == signal.SIGKILL else 0)
    assert b"Traceback" not in errors
    if sent == signal.SIGINT:
        assert errors == b"error: interrupted\n"


# --- documents, start-up, memory -----------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes():
    result = call("--help")
    assert result.exit_code == 0
    listed = re.findall(r"^│ (\w+) ", result.stdout.split("Commands")[1], re.MULTILINE)
    assert listed == COMMANDS
    for command in COMMANDS:
        text = call(command, "--help").stdout
        assert "Exit codes: 0 done; 1 the input is bad" in " ".join(text.split())
    assert call("--version").stdout == f"benchrouter {__version__}\n"


def test_the_package_runs_as_a_module_and_takes_the_short_help():
    result = subprocess.run(
        [sys.executable, "-m", "benchrouter", "--version"], capture_output=True, cwd=ROOT, text=True
    )
    assert (result.returncode, result.stdout) == (0, f"benchrouter {__version__}\n")
    assert call("-h").stdout == call("--help").stdout
    assert call("fit", "-h").stdout == call("fit", "--help").stdout


NAMES = ["mistralai/Mixtral-8x7B-Instruct-v0.1", "m-b"]


def show_names(rows):
    output.table(
        "t", ["model", "score", "US$ a prompt", "right on", "prompt"], rows, cut=["prompt"]
    )


@pytest.mark.parametrize("width", [40, 80, 160])
def test_tables_break_no_name_and_keep_to_the_width(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    others = "arithmetic-and-algebra, unit_conversion, " * 3
    show_names([[name, 0.12345, None, others, "word " * 30] for name in NAMES])
    shown = capsys.readouterr().out
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= max(width, len(NAMES[0]) + 2 + 24)
    words = shown.split()
    assert {*NAMES, "0.123", "arithmetic-and-algebra,", "unit_conversion,"} <= set(words)
    assert "US$" not in words
    assert "…" in shown


def test_a_table_in_a_pipe_is_wide(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.table("t", ["a", "b"], [["x " * 70, 1.0]])
    assert "x " * 70 in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    output.table("t", ["a", "b"], [["x", "y " * 70]])
    assert max(map(len, capsys.readouterr().out.splitlines())) == 80


def test_what_is_missing_everywhere_is_left_out(capsys):
    output.table("t", ["a", "b", "c"], [["x", None, float("nan")], ["y", None, 0]])
    assert capsys.readouterr().out.split()[:3] == ["t", "a", "c"]
    output.table("t", ["a", "b"], [])
    assert capsys.readouterr().out.split()[:3] == ["t", "a", "b"]


def test_progress_that_was_told_is_told_to_the_end(monkeypatch, capsys):
    with output.Progress("encode", "prompts", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(output, "PLAIN_SECONDS", 0.0)
    with output.Progress("encode", "prompts", 10) as advance:
        advance(4)
        monkeypatch.setattr(output, "PLAIN_SECONDS", 1000.0)
        advance(6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" prompts")[0] for line in lines] == ["encode: 4 of 10", "encode: 10 of 10"]


def test_progress_tells_rate_and_time_left(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with output.Progress("route", "prompts") as advance:
        for done, share in ((0, 0.25), (2000, 0.3), (1000, 0.5)):  # a quarter was there before
            now += 10
            advance(done, share)
        now += 1
        advance(0, None)  # told at the end: standard input has no size
    assert capsys.readouterr().err.splitlines() == [
        "route: 0 prompts (25%)",
        "route: 2,000 prompts (30%), 100 a second, 2 min 20 s left",
        "route: 3,000 prompts (50%), 100 a second, 40 s left",
    ]
    with output.Progress("encode", "prompts", 40) as advance:
        for _ in range(2):
            now += 3600
            advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "encode: 10 of 40 prompts",
        "encode: 20 of 40 prompts, 2 h 0 min left",
    ]


def test_defaults_of_fit_are_those_of_the_library():
    fit, encode = (
        getattr(importlib.import_module(f"benchrouter.cli.{name}"), name)
        for name in ("fit", "encode")
    )
    options = inspect.signature(fit).parameters
    names = ("k", "kappa", "sigma", "eta", "threshold", "seed")
    assert {n: options[n].default for n in names} == {n: getattr(Settings(), n) for n in names}
    for command in (fit, encode):
        hint = get_type_hints(command, include_extras=True)["encoder"]
        if not hasattr(hint, "__metadata__"):  # Python 3.10 adds the None of the default around it
            hint = get_args(hint)[0]
        (option,) = hint.__metadata__
        assert f"{DEFAULT_ENCODER} if not given" in option.help


def test_json_has_plain_values_and_null_for_what_is_not_finite(capsys):
    output.emit(
        {
            "a": np.array([[1.5, np.nan], [np.inf, 2.0]]),
            "b": [np.float32(0.5), np.float32("nan"), np.int64(3), np.bool_(True)],
            "c": {"d": (np.float64("-inf"), float("nan"), None, "x", 1)},
        }
    )
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [[1.5, None], [None, 2.0]],
        "b": [0.5, None, 3, True],
        "c": {"d": [None, None, None, "x", 1]},
    }


def test_the_readme_shows_every_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`benchrouter ([a-z]+)", text))
    assert documented == set(COMMANDS)
    for code in (0, 1, 2, 3, 4, 130, 141):
        assert re.search(rf"\b{code}\b", text)


def test_help_loads_no_heavy_package():
    code = (
        "import sys\nfrom benchrouter.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'faiss', 'pyarrow', 'transformers', 'numpy') "
        "if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, cwd=ROOT, text=True
    )
    assert result.stderr.strip() == "[]"


PEAK = """
import sys
from benchrouter.cli import main
try:
    main()
finally:
    # of this process alone, unlike getrusage, which remembers its parent's
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            print("peak", line.split()[1], file=sys.stderr)
"""


def peak_kib(files, tmp_path, n, *options):
    """Peak memory in KiB of routing n lines of JSONL with 8-dimensional embeddings."""
    with open(tmp_path / "p.jsonl", "w") as file:
        for i in range(n):
            file.write(f'{{"id": {i}, "prompt": "prompt number {i} of a long file"}}\n')
    rng = np.random.default_rng(1)
    rows = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.float16, (n, DIM))
    for start in range(0, n, 50_000):
        rows[start : start + 50_000] = unit_rows(rng, min(50_000, n - start))
    rows.flush()
    arguments = ["route", files / "R", tmp_path / "p.jsonl", "--embeddings", tmp_path / "p.npy"]
    result = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments), *map(str, options)],
        capture_output=True,
        cwd=ROOT,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    files = [p for p in tmp_path.rglob("*.jsonl") if p.name != "p.jsonl"]
    assert sum(path.read_bytes().count(b"\n") for path in files) == n
    for path in files:
        path.unlink()
    return int(re.search(r"peak (\d+)", result.stderr).group(1))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("few", "many"),
    [(50_000, 200_000), pytest.param(100_000, 1_000_000, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("in_parts", [False, True])
def test_memory_does_not_grow_with_the_number_of_prompts(files, tmp_path, few, many, in_parts):
    small, large = (
        peak_kib(
            *(files, tmp_path, n, "-o", tmp_path / (f"out{n}" if in_parts else "o.jsonl")),
            *(["--output-format", "jsonl", "--part-size", few // 5] if in_parts else []),
        )
        for n in (few, many)
    )
    print(f"{few:,} prompts {small / 1024:.0f} MiB, {many:,} prompts {large / 1024:.0f} MiB")
    assert large <= 1.05 * small + 8 * 1024
