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
OF_COSTS = [
    *(["--cost-weight", 1], ["--max-cost-usd", 1], ["--budget-usd", 1], ["--within", 0.1]),
    *(["--min-success", 0.5], ["--costs", "models"], ["--output-tokens", 1]),
    *(["--prices", "p.json"], ["--tokens-column", "n"]),
]


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


def test_within_auto_takes_what_held_out_records_cannot_tell_apart(files):
    _, lines = route(files, "--within", "auto")
    expected = Router.load(files / "R").route(
        embeddings=np.load(files / "p.npy"), policy=CostPolicy(within="auto")
    )
    assert [line["model"] for line in lines] == expected.names()
    assert [line["cost_usd"] for line in lines] == pytest.approx(expected.cost_usd.tolist())
    result = call(
        *("choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"),
        *("--within", "auto", "--json"),
    )
    assert result.exit_code == 0, result.output
    found = Router.load(files / "R").choose(
        embeddings=np.load(files / "p.npy"), policy=CostPolicy(within="auto")
    )
    assert json.loads(result.stdout)["reason"] == found.reason


@pytest.mark.parametrize("command", ["route", "explain"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--within", "much"), "--within: found 'much', expected a number or auto"),
        (
            ("--within", "auto", "--rule", "raw"),
            "--within: found auto with the rule raw, expected a number; auto is for --rule auto",
        ),
        (
            ("--k", "7"),
            "--k: found 7 with the rule auto, which has the number of neighbours that held-out "
            "records chose; it is for --rule mean, raw or s3",
        ),
    ],
)
def test_what_does_not_go_with_a_rule_is_wrong_usage(files, tmp_path, command, words, message):
    np.save(files / "one.npy", np.load(files / "p.npy")[5:6])
    arguments = {
        "route": (files / "p.jsonl", "--embeddings", files / "p.npy", "-o", tmp_path / "o.jsonl"),
        "explain": ("x", "--embeddings", files / "one.npy"),
    }[command]
    result = call(command, files / "R", *arguments, *words)
    assert result.exit_code == 2
    assert message in plain(result.output)
    assert not (tmp_path / "o.jsonl").exists()


def test_k_is_the_neighbours_of_the_other_rules(files):
    _, lines = route(files, "--rule", "raw", "--k", 3)
    expected = Router.load(files / "R").route(embeddings=np.load(files / "p.npy"), rule="raw", k=3)
    assert [line["score"] for line in lines] == pytest.approx(expected.score.tolist())
    thirds = np.array([3 * line["score"] for line in lines])
    np.testing.assert_allclose(thirds, np.round(thirds), atol=1e-5)


def test_without_an_option_of_costs_nothing_is_said_of_them(files):
    document, lines = route(files)
    results = {"prompt", "model", "score", "margin", "distance", "fallback"}
    assert set(lines[0]) == {*results, "chance"}
    assert set(route(files, "--rule", "mean")[1][0]) == results
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
        names = ["prompt", *names, "r_chance", "r_cost_usd", "r_over_limit"]
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
            assert table.schema.field("r_chance").type == pa.float32()
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


# --- prices × tokens -----------------------------------------------------------------------------

OTHER = {"cheap": [1.0, 2.0], "middling": [9, 9], "dear": [3.0, 6.5]}


@pytest.fixture(scope="module")
def counted(files):
    """The same prompts with a count of tokens each, in every format; other prices."""
    prompts = [json.loads(line)["prompt"] for line in (files / "p.jsonl").read_text().splitlines()]
    counts = (np.arange(200) * 7 % 300).tolist()
    rows = [{"prompt": p, "n": n} for p, n in zip(prompts, counts, strict=True)]
    (files / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{row['n']}.0,{row['prompt']}\n" for row in rows]
    (files / "n.csv").write_text("n,prompt\n" + "".join(lines))
    pq.write_table(pa.Table.from_pylist(rows), files / "n.parquet")
    (files / "prices.json").write_text(json.dumps(OTHER))
    cells = [f"{name},{i},{o}" for name, (i, o) in OTHER.items()]
    header = "model,input_usd_per_million_tokens,output_usd_per_million_tokens"
    (files / "prices.csv").write_text("\n".join([header, *cells]) + "\n")
    return files, np.array(counts)


def route_counted(files, prompts, *arguments):
    out = files / "counted.jsonl"
    given = ("--embeddings", files / "p.npy", "--batch-size", 64, "--tokens-column", "n")
    result = call(*("route", files / "R", files / prompts, *given, "-o", out, "--json", *arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("policy", [{"cost_weight": 900.0}, {"budget_usd": 0.07}])
def test_prices_and_tokens_of_files_decide_as_those_of_the_library(counted, suffix, policy):
    files, counts = counted
    ((name, value),) = policy.items()
    prices = files / ("prices.csv" if suffix == "csv" else "prices.json")
    document, lines = route_counted(
        *(files, f"n.{suffix}", "--prices", prices, "--output-tokens", 40),
        *("--" + name.replace("_", "-"), value),
    )
    expected = Router.load(files / "R").route(
        embeddings=np.load(files / "p.npy"),
        policy=CostPolicy(prices=OTHER, output_tokens=40, **policy),
        tokens=counts,
    )
    assert [line["model"] for line in lines] == expected.names()
    assert [line["cost_usd"] for line in lines] == pytest.approx(expected.cost_usd.tolist())
    assert [int(float(line["n"])) for line in lines] == counts.tolist()  # kept, as all fields are
    assert document["cost_usd"] == pytest.approx(expected.cost_usd.sum(dtype=float))
    assert len(set(expected.names())) > 1
    if "budget_usd" in policy:
        assert document["cost_weight"] > 0 and 0.069 < document["cost_usd"] <= 0.07 * (1 + 1e-6)


def test_prices_or_a_count_of_tokens_ask_for_costs_by_prices(counted):
    files, counts = counted
    policy = CostPolicy(costs="prices", output_tokens=40)
    router, rows = Router.load(files / "R"), np.load(files / "p.npy")
    _, lines = route_counted(files, "n.jsonl", "--output-tokens", 40)
    expected = router.route(embeddings=rows, policy=policy, tokens=counts)
    assert [line["cost_usd"] for line in lines] == pytest.approx(expected.cost_usd.tolist())
    _, lines = route(files, "--prices", files / "prices.json", "--output-tokens", 40)
    expected = router.route(
        [line["prompt"] for line in lines],
        embeddings=rows,
        policy=CostPolicy(prices=OTHER, output_tokens=40),
    )
    assert [line["cost_usd"] for line in lines] == pytest.approx(expected.cost_usd.tolist())


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("with_budget", [True, False])
def test_a_record_without_a_count_is_bad_and_moves_nothing(counted, tmp_path, suffix, with_budget):
    files, counts = counted
    bad = {3: None, 64: -1, 65: 1.5, 199: True} if suffix != "csv" else {3: "", 64: "-1", 65: "x"}
    bad = bad if suffix != "parquet" else {3: None, 64: -1.0, 65: 1.5}
    prompts = tmp_path / f"p.{suffix}"
    rows = [json.loads(line) for line in (files / "n.jsonl").read_text().splitlines()]
    for i, value in bad.items():
        rows[i]["n"] = value
    if suffix == "jsonl":
        rows[3].pop("n")
        rows[10] = {"n": 1}  # a bad record of another kind, before some of these
        bad[10] = None
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == "csv":
        prompts.write_text("n,prompt\n" + "".join(f"{r['n']},{r['prompt']}\n" for r in rows))
    else:
        columns = {"prompt": [r["prompt"] for r in rows]}
        columns["n"] = [None if r["n"] is None else float(r["n"]) for r in rows]
        pq.write_table(pa.table(columns), prompts)
    command = [
        *("route", files / "R", prompts, "--embeddings", files / "p.npy", "--batch-size", 64),
        *("--tokens-column", "n", "--output-tokens", 40, "--prices", files / "prices.json"),
    ]
    aim = ("--budget-usd", 1e9) if with_budget else ("--cost-weight", 900)
    result = call(*command, "-o", tmp_path / "o.jsonl", *aim)
    assert result.exit_code == 4, result.output
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    kept = [i for i in range(200) if i not in bad]
    expected = Router.load(files / "R").route(
        embeddings=np.load(files / "p.npy")[kept],
        policy=CostPolicy(
            prices=OTHER, output_tokens=40, cost_weight=0.0 if with_budget else 900.0
        ),
        tokens=counts[kept],
    )
    assert [line["model"] for line in lines] == expected.names()
    assert [line["cost_usd"] for line in lines] == pytest.approx(expected.cost_usd.tolist())
    side = (tmp_path / "o.jsonl.rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in side] == sorted(bad)
    reasons = {json.loads(line)["row"]: json.loads(line)["reason"] for line in side}
    assert reasons[3] == "found nothing in field 'n', expected a number of tokens"
    assert "expected a number of tokens" in reasons[64] and "1" in reasons[64]
    result = call(
        *command, "-o", tmp_path / "raised.jsonl", "--on-error", "raise", "--batch-size", 8
    )
    assert result.exit_code == 1
    assert "row 3: found nothing in field 'n'" in " ".join(result.stderr.split())
    assert not (tmp_path / "raised.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--prices", "prices.json"), 1, "takes output_tokens, the expected tokens of an answer"),
        (
            ("--prices", "prices.json", "--costs", "records"),
            2,
            "found records, expected prices, wh",
        ),
        (("--tokens-column", "n", "--costs", "models"), 2, "prices, which --tokens-column is for"),
        (
            ("--prices", "odd.json", "--output-tokens", 1),
            1,
            "prices name 'midling', no model of this router; of like names it has ['middling']",
        ),
        (("--prices", "no.json", "--output-tokens", 1), 1, "no.json"),
        (
            ("--tokens-column", "n", "--output-tokens", 1),
            1,
            "p.jsonl: found fields [] beside the prompt, expected 'n'",
        ),
    ],
)
def test_wrong_usage_of_prices_is_refused(counted, tmp_path, arguments, code, words):
    files, _ = counted
    (files / "odd.json").write_text('{"midling": [1, 2]}')
    arguments = [files / a if str(a).endswith(".json") else a for a in arguments]
    out = tmp_path / "o.jsonl"
    result = call(
        *("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy", "-o", out),
        *arguments,
    )
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert not out.exists()


def test_a_parquet_file_without_the_column_of_tokens(counted, tmp_path):
    files, _ = counted
    result = call(
        *("route", files / "R", files / "n.parquet", "--embeddings", files / "p.npy"),
        *("-o", tmp_path / "o.jsonl", "--tokens-column", "m", "--output-tokens", 1),
    )
    assert result.exit_code == 1
    assert "n.parquet: found columns ['n'], expected one 'm'" in result.stderr


def test_a_job_goes_on_only_with_its_prices_and_tokens(counted, tmp_path):
    files, _ = counted
    out = tmp_path / "out"
    command = [
        *("route", files / "R", files / "n.jsonl", "--embeddings", files / "p.npy", "-o", out),
        *("--output-tokens", 40, "--budget-usd", 0.07),  # of all prompts, over all runs
    ]
    given = ["--prices", files / "prices.json", "--tokens-column", "n"]
    assert call(*command, *given, "--part-size", 64).exit_code == 0
    manifest = out / "manifest.json"
    begun = json.loads(manifest.read_text())
    assert [p["rows"] for p in begun["parts"]] == [64, 64, 64, 8]
    for other, words in (
        (["--prices", files / "prices.json"], "tokens_column was 'n', is None"),
        (["--tokens-column", "n"], "costs was"),
    ):
        result = call(*command, *other, "--part-size", 64, "--resume")
        assert result.exit_code == 1
        assert words in " ".join(result.stderr.split())
    whole = pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("part-*")))
    models = whole["model"].to_pylist()[:64]
    totals = {
        "prompts": 64, "rejected": 0, "fallbacks": sum(whole["fallback"].to_pylist()[:64]),
        "models": {m: models.count(m) for m in MODELS},
        "cost_usd": sum(whole["cost_usd"].to_pylist()[:64]),
    }  # fmt: skip
    kept = {**begun, "parts": begun["parts"][:1], "complete": False}
    manifest.write_text(json.dumps({**kept, "totals": {**begun["totals"], **totals}}))
    # the same prices in another order and from another format
    again = ["--prices", files / "turned.json", "--tokens-column", "n"]
    (files / "turned.json").write_text(json.dumps(dict(reversed(OTHER.items()))))
    result = call(*command, *again, "--part-size", 64, "--resume")
    assert result.exit_code == 0, result.output
    found = pa.concat_tables(pq.read_table(part) for part in sorted(out.glob("part-*")))
    assert found.equals(whole)


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


# --- explain -------------------------------------------------------------------------------------


def explain(files, *arguments):
    np.save(files / "one.npy", np.load(files / "p.npy")[5:6])
    fixed = ("explain", files / "R", "x" * 24, "--embeddings", files / "one.npy")
    return call(*fixed, *arguments)


@pytest.mark.parametrize(
    "policy",
    [
        {"cost_weight": 3.0},
        {"within": 0.3, "max_cost_usd": 0.05},
        {"min_success": 0.6, "costs": "models"},
        {"prices": OTHER, "output_tokens": 40.0, "cost_weight": 900.0},
    ],
)
def test_explain_tells_costs_and_why(counted, policy):
    files, _ = counted
    words = [w for n, v in policy.items() for w in ("--" + n.replace("_", "-"), v) if n != "prices"]
    words += ["--prices", files / "prices.csv", "--tokens", 35] if "prices" in policy else []
    result = explain(files, *words, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    expected = Router.load(files / "R").explain(
        "x" * 24,
        embedding=np.load(files / "one.npy")[0],
        policy=CostPolicy(**policy),
        tokens=35 if "prices" in policy else None,
    )
    assert found == json.loads(json.dumps(expected.to_dict()))
    result = explain(files, *words)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert expected.reason in shown
    assert ("utility" in shown) == ("cost_weight" in policy)
    m = found["models"][0]
    lines = map(str.split, result.stdout.splitlines())
    row = next(line for line in lines if line[:1] == [m["model"]])
    assert f"{m['cost_usd']:.3g}" in row
    if "cost_weight" in policy:
        assert f"{m['utility']:.3f}".replace("-", "−") in [c.replace("-", "−") for c in row]


def test_explain_without_options_of_costs_tells_what_is_known(files):
    shown = explain(files).stdout
    assert "US$" in shown and "utility" not in shown
    found = json.loads(explain(files, "--json").stdout)
    assert all(m["cost_usd"] > 0 for m in found["models"]) and found["over_limit"] is None


def test_explain_refuses_what_does_not_fit(files):
    for arguments, code, words in (
        (("--cost-weight", 1, "--within", 0.1), 2, "found --cost-weight and --within, expected at"),
        (("--tokens", 3, "--costs", "records"), 2, "expected prices, which --tokens is for"),
        (("--costs", "prices"), 1, "takes output_tokens"),
        (("--budget-usd", 1), 2, "Invalid value for --budget-usd: a budget is for all prompts"),
        (("--tokens-column=n",), 2, "one prompt has its --tokens"),
    ):
        result = explain(files, *arguments)
        assert result.exit_code == code, result.output
        assert words in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group-by", "task", "--resume"], "--resume is for prompts one by one"),
        *((["--ray", "local", *words], f"{words[0]} does not go with --ray") for words in OF_COSTS),
        (["--ray", "local", "--profile"], "--profile does not go with --ray"),
    ],
)
def test_options_that_do_not_go_together(files, tmp_path, arguments, message):
    result = call("route", files / "R", files / "p.jsonl", "-o", tmp_path / "o.jsonl", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--tokens", 3], ["--tokens=3"]])
def test_choose_refuses_the_tokens_of_one_prompt(files, words):
    result = choose(files, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a task has many prompts: their --tokens-column" in plain(result.stderr)


def choose(files, *arguments):
    given = ("--embeddings", files / "p.npy")
    return call("choose", files / "R", files / "p.jsonl", *given, *arguments)


def plain(text):
    """What a box of typer says, in one line."""
    return " ".join(text.replace("│", " ").split())


POLICIES_OF_TASKS = [
    {"cost_weight": 3.0},
    {"max_cost_usd": 0.02},
    {"within": 0.2, "max_cost_usd": 0.05},
    {"min_success": 0.5},
    {"budget_usd": 9.0},
    {"costs": "prices", "output_tokens": 40.0, "cost_weight": 1000.0},
]


def words_of(policy):
    return [w for n, v in policy.items() for w in ("--" + n.replace("_", "-"), v)]


@pytest.mark.parametrize("policy", POLICIES_OF_TASKS)
@pytest.mark.parametrize("models", [None, ("middling", "cheap")])
def test_choose_decides_as_the_library_does(files, policy, models):
    among = () if models is None else ("--models", ",".join(models))
    result = choose(files, *words_of(policy), *among, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    prompts = [json.loads(line)["prompt"] for line in (files / "p.jsonl").read_text().splitlines()]
    expected = Router.load(files / "R").choose(
        *(prompts,), embeddings=np.load(files / "p.npy"), policy=CostPolicy(**policy), models=models
    )
    assert {**found, "skipped": None} == {**expected.to_dict(), "skipped": None}
    assert found["expected_cost_usd"] == expected.expected_cost_usd > 0
    if models is not None:
        assert found["model"] in models
        assert [m["allowed"] for m in found["models"]] == [True, True, False]


def test_choose_counts_tokens_and_tells_the_cost(files, tmp_path):
    lines = [json.dumps({"prompt": "x", "n": 100}) + "\n" for _ in range(200)]
    (tmp_path / "p.jsonl").write_text("".join(lines))
    result = call(
        *("choose", files / "R", tmp_path / "p.jsonl", "--embeddings", files / "p.npy"),
        *("--models", "middling", "--tokens-column", "n", "--output-tokens", 40),
    )
    assert result.exit_code == 0, result.output
    # middling costs 3 and 6 US$ per million tokens: (100 × 3 + 40 × 6) / 1e6
    assert "US$ 0.00054 a prompt, US$ 0.108 for all 200" in plain(result.stdout)
    assert "US$ here" in result.stdout and "among the models allowed" in plain(result.stdout)


@pytest.mark.parametrize("policy", [{}, {"within": 0.2}, {"budget_usd": 6.0}])
def test_route_among_some_models_decides_as_the_library_does(files, policy):
    models = ["dear", "cheap"]
    router = Router.load(files / "R")
    given = {"policy": CostPolicy(**policy)} if policy else {}
    for rule in ("auto", "mean"):
        _, lines = route(files, *words_of(policy), "--models", "dear,cheap", "--rule", rule)
        expected = router.route(
            embeddings=np.load(files / "p.npy"), rule=rule, models=models, **given
        )
        assert [line["model"] for line in lines] == expected.names()
        assert {line["model"] for line in lines} <= set(models)
        if rule == "auto":
            assert [line["chance"] for line in lines] == pytest.approx(expected.chance.tolist())
    assert {line["model"] for line in lines} == set(models)


@pytest.mark.parametrize("command", ["route", "choose", "explain", "groups"])
def test_a_model_that_the_router_lacks(files, tmp_path, command):
    out = ("-o", tmp_path / "o.jsonl")
    np.save(files / "one.npy", np.load(files / "p.npy")[5:6])
    arguments = {
        "route": ("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy", *out),
        "choose": ("choose", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy"),
        "explain": ("explain", files / "R", "?", "--embeddings", files / "one.npy"),
    }
    arguments["groups"] = (*arguments["route"], "--group-by", "task")
    for names, words in (
        ("dear,gone", "models: found 'gone', expected some of ['cheap', 'middling', 'dear']"),
        ("dear,,", "found an empty name"),
    ):
        result = call(*arguments[command], "--models", names)
        assert result.exit_code in (1, 2) and words in plain(result.stderr), result.output
    assert list(tmp_path.iterdir()) == []


def test_explain_among_some_models(files):
    np.save(files / "one.npy", np.load(files / "p.npy")[5:6])
    given = ("--embeddings", files / "one.npy", "--models", "cheap", "--json")
    found = json.loads(call("explain", files / "R", "?", *given).stdout)
    assert found["model"] == "cheap" and len(found["models"]) == 3
    assert found["reason"].endswith(", among the models allowed")


def test_a_job_is_not_resumed_with_other_models(files, tmp_path):
    fixed = ("route", files / "R", files / "p.jsonl", "--embeddings", files / "p.npy")
    fixed = (*fixed, "-o", tmp_path / "parts", "--part-size", 50)
    assert call(*fixed, "--models", "dear,cheap").exit_code == 0
    assert call(*fixed, "--resume", "--models", "cheap,dear").exit_code == 0  # the same
    for models in ((), ("--models", "cheap")):
        result = call(*fixed, "--resume", *models)
        assert result.exit_code == 1
        assert "models was" in plain(result.stderr) and "another job" in plain(result.stderr)


def test_a_prompt_may_look_like_an_option_behind_two_dashes(files):
    np.save(files / "one.npy", np.load(files / "p.npy")[5:6])
    fixed = ("explain", "--embeddings", files / "one.npy", "--json")
    result = call(*fixed, files / "R", "--", "--budget-usd")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["prompt"] == "--budget-usd"


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


def test_a_batch_without_any_count_of_tokens_is_all_bad(counted, tmp_path):
    files, _ = counted
    prompts = tmp_path / "p.parquet"
    rows = [json.loads(line) for line in (files / "n.jsonl").read_text().splitlines()]
    n = [None if i < 64 else row["n"] for i, row in enumerate(rows)]
    pq.write_table(pa.table({"prompt": [row["prompt"] for row in rows], "n": n}), prompts)
    result = CliRunner().invoke(
        app,
        list(map(str, [
            *("route", files / "R", prompts, "--embeddings", files / "p.npy", "--batch-size", 64),
            *("--tokens-column", "n", "--output-tokens", 40, "--prices", files / "prices.json"),
            *("--cost-weight", 1, "-o", tmp_path / "o.parquet"),
        ])),
    )  # fmt: skip
    assert result.exit_code == 4, result.stderr
    assert pq.read_table(tmp_path / "o.parquet").num_rows == len(rows) - 64
