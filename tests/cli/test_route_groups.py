"""`benchrouter route --group-by`: every format, bad records, refusals; answers are choose's."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import make_table, unit_rows
from typer.testing import CliRunner

from benchrouter import Router, Settings
from benchrouter.cli import app
from benchrouter.decisions.written.group_writer import RESULTS

DIM = 6
N = 60
TASKS = ["sums", "poems", "law"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A router, 60 prompts of three tasks that alternate, and their embeddings."""
    root = tmp_path_factory.mktemp("groups")
    dataset = np.repeat(np.arange(3), 40)
    rows = np.eye(DIM, dtype=np.float32)[dataset] + 0.6 * unit_rows(120, DIM, seed=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    skill = np.array([[0.9, 0.2, 0.5], [0.2, 0.9, 0.5], [0.3, 0.3, 0.5]])
    scores = np.random.default_rng(0).random((120, 3)) < skill[dataset]
    router = Router.fit(make_table(scores, dataset), embeddings=rows, settings=Settings(draws=1))
    router.save(root / "R")
    prompts = np.eye(DIM, dtype=np.float32)[np.arange(N) % 3] + 0.5 * unit_rows(N, DIM, seed=2)
    prompts /= np.linalg.norm(prompts, axis=1, keepdims=True)
    np.save(root / "p.npy", prompts)
    return root


def task_of(i):
    return TASKS[i % 3]


def call(files, prompts, target, *arguments):
    fixed = ["--embeddings", files / "p.npy", "--group-by", "task", "-o", target]
    command = ["route", files / "R", prompts, *fixed, *arguments]
    return CliRunner().invoke(app, [str(a) for a in command])


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def plain_records():
    return [{"task": task_of(i), "prompt": f"prompt {i}", "n": i} for i in range(N)]


def rows_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(files, of_task, score="auto"):
    rows = np.load(files / "p.npy")[of_task]
    return Router.load(files / "R").choose(embeddings=rows, score=score)


@pytest.mark.parametrize("score", ["auto", "s1", "s2", "s3"])
@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
def test_one_row_a_group_as_choose_decides(files, tmp_path, source, score):
    prompts = tmp_path / f"p.{source}"
    if source == "jsonl":
        write_jsonl(prompts, plain_records())
    elif source == "csv":
        lines = [f"{r['n']},{r['task']},{r['prompt']}\n" for r in plain_records()]
        prompts.write_text("n,task,prompt\n" + "".join(lines))
    else:
        table = pa.Table.from_pylist(plain_records())
        names = table.column("task").combine_chunks().dictionary_encode()
        pq.write_table(table.set_column(0, "task", names), prompts)
    result = call(files, prompts, tmp_path / "o.jsonl", "--batch-size", 7, "--score", score)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "routed 3 groups of 60 prompts" in result.stderr
    rows = rows_of(tmp_path / "o.jsonl")
    assert [row["task"] for row in rows] == TASKS
    for i, row in enumerate(rows):
        assert list(row) == ["task", *RESULTS]
        decision = expected(files, slice(i, None, 3), score)
        values = getattr(decision, score)
        best, second = np.argsort(-values, kind="stable")[:2]
        if decision.fallback:
            best, second = decision.models.index(decision.model), best
        assert row["model"] == decision.model == decision.models[best]
        assert row["runner_up"] == decision.models[second]
        assert (row["n_prompts"], row["fallback"]) == (20, decision.fallback)
        assert (row["reason"], row["warning"]) == (decision.reason, decision.warning)
        assert row["best_on_average"] == decision.best_on_average
        for name, value in (
            *(("score", values[best]), ("margin", values[best] - values[second])),
            *(("expected_accuracy", decision.expected_accuracy), ("distance", decision.distance)),
            *(("interval_low", decision.interval[0]), ("interval_high", decision.interval[1])),
        ):
            assert row[name] == pytest.approx(value, abs=1e-9), name
        if row["probability"] is None:
            assert np.isnan(decision.probability)
        else:
            assert row["probability"] == pytest.approx(decision.probability, abs=1e-9)


def test_the_formats_hold_the_same(files, tmp_path):
    prompts = write_jsonl(tmp_path / "p.jsonl", plain_records())
    for suffix in ("jsonl", "jsonl.gz", "csv", "csv.zst", "parquet"):
        result = call(files, prompts, tmp_path / f"o.{suffix}", "--prefix", "r_")
        assert result.exit_code == 0, result.output
    assert (
        gzip.decompress((tmp_path / "o.jsonl.gz").read_bytes())
        == (tmp_path / "o.jsonl").read_bytes()
    )
    with pa.input_stream(str(tmp_path / "o.csv.zst"), compression="zstd") as stream:
        assert stream.read() == (tmp_path / "o.csv").read_bytes()
    jsonl, of_csv, parquet = (rows_of(tmp_path / f"o.{s}") for s in ("jsonl", "csv", "parquet"))
    assert jsonl == parquet
    assert list(jsonl[0])[:3] == ["task", "r_n_prompts", "r_model"]
    for row, texts in zip(jsonl, of_csv, strict=True):
        for name, value in row.items():
            known = {None: "", True: "true", False: "false"}
            text = known[value] if value is None or isinstance(value, bool) else str(value)
            assert texts[name] == text, name
    result = call(files, prompts, "-")
    assert [json.loads(line)["model"] for line in result.stdout.splitlines()] == [
        row["r_model"] for row in jsonl
    ]


def test_json_says_what_was_done(files, tmp_path):
    prompts = write_jsonl(tmp_path / "p.jsonl", plain_records())
    result = call(files, prompts, tmp_path / "o.csv", "--json")
    found = json.loads(result.stdout)
    assert {k: found[k] for k in ("score", "group_by", "groups", "prompts", "fallbacks")} == {
        **{"score": "auto", "group_by": "task", "groups": 3, "prompts": 60, "fallbacks": 0}
    }
    assert sum(found["models"].values()) == 3
    assert (found["skipped"], found["first_skipped"]) == (0, [])
    assert found["prompts_per_second"] > 0


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """US$ 4, 2 and 1 per million tokens of the prompt; answers are free."""
    path = tmp_path_factory.mktemp("prices") / "prices.json"
    path.write_text(json.dumps({f"model {m}": [4.0 / 2**m, 0.0] for m in range(3)}))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_costs_of_groups_by_hand(files, tmp_path, prices, suffix):
    prompts = write_jsonl(tmp_path / "p.jsonl", plain_records())
    target = tmp_path / f"o.{suffix}"
    of_costs = ["--prices", prices, "--output-tokens", 9, "--tokens-column", "n", "--within", 1]
    of_costs += ["--score", "s1"]
    result = call(files, prompts, target, *of_costs, "--max-cost-usd", 0.00005, "--json")
    assert result.exit_code == 0, result.output
    rows, document = rows_of(target), json.loads(result.stdout)
    assert list(rows[0]) == ["task", *RESULTS, "cost_usd", "over_limit"]
    # n is 0, 3 … 57, then 1, 4 … 58, then 2 … 59: 28.5, 29.5 and 30.5 on average; the cheapest
    # model costs US$ 1 per million of them.
    assert {row["model"] for row in rows} == {"model 2"}
    costs = [float(row["cost_usd"]) for row in rows]
    assert costs == pytest.approx([28.5e-6, 29.5e-6, 30.5e-6])
    assert document["cost_usd"] == pytest.approx(20 * 88.5e-6)
    assert document["over_limit"] == 0
    cheapest = "model 2 is the cheapest model within 1 of the largest S1"
    assert any(row["reason"].startswith(cheapest) for row in rows)
    result = call(files, prompts, target, *of_costs, "--max-cost-usd", 0.00003)
    assert "no model within --max-cost-usd: 1 groups" in result.stderr
    assert "expected cost: US$ 0.00177" in result.stderr


def test_a_budget_is_for_all_groups(files, tmp_path, prices):
    prompts = write_jsonl(tmp_path / "p.jsonl", plain_records())
    of_costs = ["--prices", prices, "--output-tokens", 9, "--tokens-column", "n", "--json"]
    spent = []
    for budget in (0.00708, 0.005, 0.00178):  # the dearest and the cheapest cost 4 and 1 × .00177
        result = call(files, prompts, tmp_path / "o.csv", *of_costs, "--budget-usd", budget)
        assert result.exit_code == 0, result.output
        spent.append(json.loads(result.stdout)["cost_usd"])
        assert spent[-1] <= budget
    assert spent == sorted(spent, reverse=True)
    result = call(files, prompts, tmp_path / "o.csv", *of_costs, "--budget-usd", 0.0017)
    assert result.exit_code == 1
    assert "budget_usd 0.0017 is below what the cheapest models cost" in result.stderr


def test_groups_among_some_models(files, tmp_path):
    prompts = write_jsonl(tmp_path / "p.jsonl", plain_records())
    result = call(files, prompts, tmp_path / "o.jsonl", "--models", "model 2,model 1")
    assert result.exit_code == 0, result.output
    router = Router.load(files / "R")
    for i, row in enumerate(rows_of(tmp_path / "o.jsonl")):
        given = np.load(files / "p.npy")[i::3]
        decision = router.choose(embeddings=given, models=["model 1", "model 2"])
        assert row["model"] == decision.model and row["reason"] == decision.reason
        pair = {"model 1", "model 2"}
        assert {row["model"], row["runner_up"]} == pair  # the best of all, model 0, is neither
        assert row["margin"] == pytest.approx(abs(decision.auto[1] - decision.auto[2]))
        assert list(row) == ["task", *RESULTS]
    result = call(files, prompts, tmp_path / "o.jsonl", "--models", "model 2")
    assert result.exit_code == 0, result.output
    for row in rows_of(tmp_path / "o.jsonl"):
        assert (row["model"], row["runner_up"], row["margin"]) == ("model 2", None, None)


def test_a_column_of_groups_that_is_named_as_the_costs(files, tmp_path, prices):
    records = [{"cost_usd": task_of(i), "prompt": "x"} for i in range(N)]
    prompts = write_jsonl(tmp_path / "p.jsonl", records)
    target, column = tmp_path / "o.jsonl", ["--group-by", "cost_usd"]
    result = call(files, prompts, target, *column)
    assert result.exit_code == 0, result.output
    result = call(files, prompts, target, *column, "--prices", prices, "--output-tokens", 1)
    assert result.exit_code == 1
    assert "the groups' column 'cost_usd' has the name of a result" in result.stderr


@pytest.mark.parametrize(
    ("groups", "kind"),
    [
        ([3, 1, 2], pa.int64()),
        ([0.5, 1, 2], pa.float64()),
        ([True, False, True], pa.bool_()),
        ([datetime.date(2024, 1, d) for d in (1, 2, 3)], pa.date32()),
    ],
)
def test_groups_keep_their_type(files, tmp_path, groups, kind):
    table = pa.table({"task": groups * 20, "prompt": ["x"] * N})
    pq.write_table(table, tmp_path / "p.parquet")
    for suffix in ("parquet", "jsonl"):
        result = call(files, tmp_path / "p.parquet", tmp_path / f"o.{suffix}")
        assert result.exit_code == 0, result.output
    distinct = list(dict.fromkeys(groups))
    found = pq.read_table(tmp_path / "o.parquet").column("task")
    assert found.type == kind
    assert found.to_pylist() == distinct
    texts = [str(g) if isinstance(g, datetime.date) else g for g in distinct]
    assert [row["task"] for row in rows_of(tmp_path / "o.jsonl")] == texts


BAD = [
    ({"prompt": "x"}, "found nothing in field 'task', expected text"),
    ({"prompt": "x", "task": None}, "found nothing in field 'task', expected text"),
    ({"prompt": "x", "task": " "}, "found an empty text in field 'task', expected text"),
    ({"prompt": "x", "task": 3}, "found a number in field 'task', expected text"),
    ({"prompt": "x", "task": True}, "found true or false in field 'task', expected text"),
    ({"prompt": "x", "task": ["sums"]}, "found a list in field 'task', expected text"),
]


@pytest.mark.parametrize(("record", "words"), BAD)
def test_a_record_without_a_group(files, tmp_path, record, words):
    records = plain_records()
    records[40] = record  # of the task "poems"
    prompts = write_jsonl(tmp_path / "p.jsonl", records)
    target = tmp_path / "o.jsonl"
    message = f"{prompts}, row 40: {words} that names the prompt's group"
    result = call(files, prompts, target, "--batch-size", 16, "--on-error", "raise")
    assert result.exit_code == 1
    assert message in result.stderr
    assert os.listdir(tmp_path) == ["p.jsonl"]
    result = call(files, prompts, "-")
    assert result.exit_code == 4
    assert f"rejected {message}" in result.stderr
    result = call(files, prompts, target, "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path)) == ["o.jsonl", "p.jsonl"]
    result = call(files, prompts, target, "--json")
    assert result.exit_code == 4
    (rejected,) = rows_of(tmp_path / "o.jsonl.rejected.jsonl")
    assert (rejected["row"], rejected["raw"]) == (40, "x")
    assert f"{prompts}, row 40: {rejected['reason']}" == message
    found = json.loads(result.stdout)
    assert (found["prompts"], found["skipped"]) == (59, 1)
    assert found["rejected"] == f"{target}.rejected.jsonl"
    assert words in found["first_skipped"][0] and "row 40" in found["first_skipped"][0]
    poems = rows_of(tmp_path / "o.jsonl")[1]
    decision = expected(files, [i for i in range(1, N, 3) if i != 40])
    assert (poems["n_prompts"], poems["model"]) == (19, decision.model)
    assert poems["expected_accuracy"] == pytest.approx(decision.expected_accuracy, abs=1e-9)


def test_bad_prompts_and_bad_groups_leave_the_embeddings_in_step(files, tmp_path):
    rows = ["n,task,prompt"] + [f"{i},{task_of(i)},prompt {i}" for i in range(N)]
    rows[1], rows[6], rows[60] = "0,sums,", "5,,prompt 5", "59,law"
    (tmp_path / "p.csv").write_text("\n".join(rows) + "\n")
    result = call(
        *(files, tmp_path / "p.csv", tmp_path / "o.csv", "--rejected", tmp_path / "bad.jsonl"),
        *("--batch-size", 8),
    )
    assert result.exit_code == 4, result.output
    assert [row["row"] for row in rows_of(tmp_path / "bad.jsonl")] == [0, 5, 59]
    assert "skipped 3 bad records" in result.stderr
    assert "p.csv, row 5: found an empty text in field 'task'" in result.stderr
    kept = [i for i in range(N) if i not in (0, 5, 59)]
    for row in rows_of(tmp_path / "o.csv"):
        decision = expected(files, [i for i in kept if task_of(i) == row["task"]])
        assert (row["model"], row["n_prompts"]) == (decision.model, str(decision.n_prompts))
        assert float(row["distance"]) == pytest.approx(decision.distance, abs=1e-9)


def test_parquet_rows_are_counted_as_elsewhere(files, tmp_path):
    groups = [float(i % 3) for i in range(N)]
    groups[50] = float("nan")
    pq.write_table(pa.table({"task": groups, "prompt": ["x"] * N}), tmp_path / "p.parquet")
    result = call(files, tmp_path / "p.parquet", tmp_path / "o.jsonl", "--on-error", "raise")
    assert result.exit_code == 1
    assert "p.parquet, row 50: found NaN in field 'task', expected a number" in result.stderr
    pq.write_table(pa.table({"job": groups, "prompt": ["x"] * N}), tmp_path / "p.parquet")
    result = call(files, tmp_path / "p.parquet", tmp_path / "o.jsonl", "--on-error", "skip")
    assert result.exit_code == 1
    assert "p.parquet: found columns ['job'], expected one 'task'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--rule", "mean"], 2, "--rule is for prompts one by one"),
        (["--resume"], 2, "--resume is for prompts one by one"),
        (["--part-size", "10"], 2, "--part-size is for prompts one by one"),
        (["--fallback", "model 0"], 2, "--fallback is for prompts one by one"),
        (["--on-error", "no"], 2, "expected report, skip, raise"),
        (["-o", "folder/"], 1, "the suffix is none of .jsonl, .parquet, .csv"),
        (["--no-prompt"], 2, "--prompt/--no-prompt is for prompts one by one"),
        (["--score", "s4"], 2, "expected auto, s1, s2, s3"),
        (["--group-by", "prompt"], 2, "found 'prompt', the prompts' own column"),
        (["--group-by", "model"], 1, "the groups' column 'model' has the name of a result"),
        (["--group-by", "r_model", "--prefix", "r_"], 1, "'r_model' has the name of a result"),
        (["-o", "o.txt"], 1, "the suffix is none of .jsonl, .parquet, .csv"),
        (["-o", "no/o.csv"], 1, "there is no directory"),
    ],
)
def test_refusals(files, tmp_path, arguments, code, words):
    prompts = write_jsonl(tmp_path / "p.jsonl", plain_records())
    result = call(files, prompts, tmp_path / "o.jsonl", *arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert os.listdir(tmp_path) == ["p.jsonl"]


def test_score_needs_groups(files, tmp_path):
    command = ["route", files / "R", files / "p.jsonl", "-o", tmp_path / "o.csv", "--score", "s1"]
    result = CliRunner().invoke(app, [str(a) for a in command])
    assert result.exit_code == 2
    assert "--score needs --group-by" in " ".join(result.stderr.replace("│", " ").split())


def test_no_group_at_all_is_an_error(files, tmp_path):
    prompts = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "x", "job": 1}] * N)
    result = call(files, prompts, tmp_path / "o.jsonl", "--on-error", "skip")
    assert result.exit_code == 1
    assert "found no prompt with a group, expected at least one" in result.stderr
    assert os.listdir(tmp_path) == ["p.jsonl"]
