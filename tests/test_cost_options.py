"""Costs on the command line of `benchrouter route`."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchrouter import CostPolicy, Router
from benchrouter.cli import app

MODELS = ("cheap", "middling", "dear")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A router of three priced models with recorded costs, and 200 prompts."""
    root = tmp_path_factory.mktemp("costs")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((290, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = (rng.random((90, 3)) < [0.4, 0.6, 0.8]).astype(np.float32)
    columns = {
        "dataset": [f"d{i % 3}" for i in range(90)],
        "sample_id": [str(i) for i in range(90)],
        "prompt": [f"question {i}" for i in range(90)],
    }
    for m, name in enumerate(MODELS):
        columns[name] = scores[:, m]
        cost = 0.01 * 3.0**m * (0.5 + rng.random(90))
        columns[f"cost::{name}"] = cost.astype(np.float32)
    pq.write_table(pa.table(columns), root / "table.parquet")
    prices = {name: [3.0**m, 2 * 3.0**m] for m, name in enumerate(MODELS)}
    sidecar = {"model_columns": list(MODELS), "model_price_usd_per_million_tokens": prices}
    (root / "table.json").write_text(json.dumps(sidecar))
    np.save(root / "table.npy", rows[:90])
    lines = [json.dumps({"prompt": "x" * (4 * i + 4)}) + "\n" for i in range(200)]
    (root / "p.jsonl").write_text("".join(lines))
    np.save(root / "p.npy", rows[90:])
    result = call(
        *("fit", root / "table.parquet", "--embeddings", root / "table.npy", "-o", root / "R")
    )
    assert result.exit_code == 0, result.output
    return root


def call(*arguments, **options):
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)


def route(files, *arguments):
    out = files / "out.jsonl"
    given = ("--embeddings", files / "p.npy", "--batch-size", 64)
    result = call("route", files / "R", files / "p.jsonl", *given, "-o", out, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize(
    "policy",
    [
        {"cost_weight": 3.0},
        {"cost_weight": float("inf")},
        {"max_cost_usd": 0.02},
        {"within": 0.1, "max_cost_usd": 0.05},
        {"min_success": 0.6},
        {"costs": "models"},
        {"costs": "prices", "output_tokens": 40.0, "cost_weight": 1000.0},
        {"budget_usd": 6.0},
    ],
)
def test_route_decides_as_the_library_does(files, policy):
    words = [w for n, v in policy.items() for w in ("--" + n.replace("_", "-"), v)]
    document, lines = route(files, *words)
    router = Router.load(files / "R")
    prompts = [line["prompt"] for line in lines]
    expected = router.route(
        prompts, embeddings=np.load(files / "p.npy"), policy=CostPolicy(**policy)
    )
    assert [line["model"] for line in lines] == expected.names()
    assert [line["cost_usd"] for line in lines] == pytest.approx(expected.cost_usd.tolist())
    assert document["cost_usd"] == pytest.approx(expected.cost_usd.sum(dtype=float))
    capped = "max_cost_usd" in policy
    assert ("over_limit" in lines[0]) == ("over_limit" in document) == capped
    if capped:
        assert [line["over_limit"] for line in lines] == expected.over_limit.tolist()
        assert document["over_limit"] == expected.over_limit.sum()
    if "budget_usd" in policy:
        assert document["cost_usd"] <= 6.0 * (1 + 1e-6) and document["cost_weight"] > 0


def test_without_an_option_of_costs_nothing_is_said_of_them(files):
    document, lines = route(files)
    assert set(lines[0]) == {"prompt", "model", "score", "margin", "distance", "fallback"}
    assert not {"cost_usd", "cost_weight", "over_limit"} & set(document)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_other_formats_hold_costs_too(files, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    for prompts, rows, n in (("p.jsonl", "p.npy", 200), ("none.jsonl", "none.npy", 0)):
        (files / "none.jsonl").write_text("")
        np.save(files / "none.npy", np.empty((0, 6), np.float32))
        result = call(
            *("route", files / "R", files / prompts, "--embeddings", files / rows, "-o", out),
            *("--max-cost-usd", 0.02, "--prefix", "r_"),
        )
        assert result.exit_code == 0, result.output
        names = ["r_model", "r_score", "r_margin", "r_distance", "r_fallback"]
        names = ["prompt", *names, "r_cost_usd", "r_over_limit"]
        if suffix == "csv":
            with open(out, newline="") as file:
                found = list(csv.DictReader(file))
                assert len(found) == n
            assert out.read_text().splitlines()[0].split(",") == names
            assert n == 0 or {row["r_over_limit"] for row in found} <= {"true", "false"}
        else:
            table = pq.read_table(out)
            assert table.column_names == names and table.num_rows == n
            assert table.schema.field("r_cost_usd").type == pa.float32()
            assert table.schema.field("r_over_limit").type == pa.bool_()


def test_the_summary_tells_what_it_will_cost(files, tmp_path):
    result = call(
        *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"),
        *("-o", tmp_path / "o.jsonl", "--cost-weight", 3, "--max-cost-usd", 0.000001),
    )
    assert result.exit_code == 0, result.output
    assert "expected cost: US$ " in result.stderr and " at λ = 3 a US$" in result.stderr
    assert "no model within --max-cost-usd: 200 prompts" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--cost-weight", 1, "--within", 0.1), 2, "found --cost-weight and --within, expected at"),
        (("--budget-usd", 1, "--min-success", 0.5), 2, "found --budget-usd and --min-success"),
        (("--cost-weight", -1), 2, "Invalid value for --cost-weight: must be at least 0"),
        (("--min-success", 2), 2, "Invalid value for --min-success: must lie in [0, 1], got 2.0"),
        (("--costs", "list"), 2, "found 'list', expected auto, records, models, prices"),
        (("--costs", "prices"), 1, "takes output_tokens, the expected tokens of an answer"),
        (("--budget-usd", 0), 1, "budget_usd 0 is below what the cheapest models cost"),
    ],
)
def test_wrong_usage_is_refused(files, tmp_path, arguments, code, words):
    out = tmp_path / "o.jsonl"
    result = call(
        *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy", "-o", out),
        *arguments,
    )
    assert result.exit_code == code
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert not out.exists()


def test_a_budget_needs_a_file(files):
    result = call(
        *("route", files / "R", "-", "--embeddings", files / "p.npy", "-o", "-"),
        *("--budget-usd", 1),
        input=(files / "p.jsonl").read_text(),
    )
    assert result.exit_code == 2
    found = " ".join(result.stderr.replace("│", " ").split())
    assert "found stdin, expected a file, as the prompts are read twice" in found


def test_a_job_in_parts_keeps_its_costs_over_runs(files, tmp_path):
    lines = (files / "p.jsonl").read_text().splitlines()
    router, out = Router.load(files / "R"), tmp_path / "out"
    given = ("--embeddings", files / "p.npy", "--batch-size", 16, "--part-size", 64, "--json")
    command = ("route", files / "R", files / "p.jsonl", *given, "-o", out)
    policy = ("--max-cost-usd", 0.02, "--cost-weight", 3.0)
    assert call(*command, *policy).exit_code == 0
    whole = json.loads((out / "manifest.json").read_text())
    prompts = [json.loads(line)["prompt"] for line in lines]
    expected = router.route(
        prompts,
        embeddings=np.load(files / "p.npy"),
        policy=CostPolicy(cost_weight=3.0, max_cost_usd=0.02),
    )
    found = pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("part-*")))
    assert found["model"].to_pylist() == expected.names()
    assert found["cost_usd"].to_pylist() == pytest.approx(expected.cost_usd.tolist())
    assert found["over_limit"].to_pylist() == expected.over_limit.tolist()
    # as a kill after the first part leaves it
    kept = {**whole, "parts": whole["parts"][:1], "complete": False}
    first = found.slice(0, 64)
    kept["totals"] = {
        "prompts": 64, "rejected": 0, "fallbacks": sum(first["fallback"].to_pylist()),
        "models": {m: first["model"].to_pylist().count(m) for m in MODELS},
        "cost_usd": sum(first["cost_usd"].to_pylist()),
        "over_limit": sum(first["over_limit"].to_pylist()),
    }  # fmt: skip
    (out / "manifest.json").write_text(json.dumps(kept))
    result = call(*command, "--resume", "--cost-weight", 2.0, "--max-cost-usd", 0.02)
    assert result.exit_code != 0 and "costs" in result.output + result.stderr
    result = call(*command, "--resume", *policy)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["prompts"] == 200
    assert document["cost_usd"] == pytest.approx(expected.cost_usd.sum(dtype=float))
    assert document["over_limit"] == int(expected.over_limit.sum())
    again = pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("part-*")))
    assert again.equals(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group-by", "task", "--budget-usd", 1], "--budget-usd is for prompts one by one"),
        (["--group-by", "task", "--resume"], "--resume is for prompts one by one"),
        (["--ray", "local", "--within", 0.1], "--within does not go with --ray"),
        (["--ray", "local", "--resume"], "--resume does not go with --ray"),
    ],
)
def test_options_that_do_not_go_together(files, tmp_path, arguments, message):
    result = call("route", files / "R", files / "p.jsonl", "-o", tmp_path / "o.jsonl", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_profile_tells_the_stages(files):
    document, _ = route(files)
    assert document["stages"] is None and document["waited"] is None
    document, _ = route(files, "--profile")
    assert list(document["stages"]) == ["read", "search", "decide", "write"]
    assert list(document["waited"]) == ["read", "write"]  # which run beside the others
    own = sum(document["stages"][name] for name in ("search", "decide"))
    assert 0 < own + sum(document["waited"].values()) <= document["seconds"] + 0.01
    assert 0 < max(document["stages"].values()) <= document["seconds"] + 0.01
    plain = call(
        *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy", "--profile"),
        *("-o", files / "out.jsonl"),
    )
    assert [line.split()[0] for line in plain.stderr.splitlines()[-5:]] == [
        *("read", "search", "decide", "write", "rest")
    ]
    beside = [line.split()[0] for line in plain.stderr.splitlines() if "beside the others" in line]
    assert beside == ["read", "write"]
