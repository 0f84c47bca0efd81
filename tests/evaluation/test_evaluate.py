"""`benchrouter evaluate`: all protocols on one table, from Python and from the command line."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluations import QUICK, small_evaluation, small_table
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from benchrouter.cli import app
from benchrouter.evaluation import leave_one_dataset_out
from benchrouter.evaluation.evaluate import evaluate
from benchrouter.evaluation.prompts.protocols import evaluate_prompts
from benchrouter.evaluation.prompts.rule_rows import prompt_rows
from benchrouter.evaluation.tasks.measures import table_one
from benchrouter.scores.fitted import Settings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


# --- from Python ---------------------------------------------------------------------------------


def test_what_is_put_together_is_what_each_part_gives():
    table, rows = small_table(costs=True)
    found = evaluate(table, rows, settings=QUICK, threads=1)
    alone = leave_one_dataset_out(
        table, rows, settings=Settings(k=3, kappa=5, label_shares=(0.0, 0.1), draws=2)
    )
    (pool,) = found.pools
    for nesting in ("strict", "published"):
        for rule, chosen in alone.picks[nesting].items():
            assert_array_equal(pool.tasks.picks[nesting][rule], chosen)
        assert repr(pool.table_one[nesting]) == repr(tuple(table_one(alone, nesting)))
    share, rows_with_labels = pool.with_labels
    assert share == 1  # the share nearest to the paper's 0.05 at which there are labels
    assert repr(rows_with_labels) == repr(tuple(table_one(alone, "strict", 1)))
    for protocol in found.prompts:
        name = protocol.results.protocol
        by_hand = evaluate_prompts(table, rows, protocol=name, k=3, kappa=5)
        assert repr(protocol.rows) == repr(tuple(prompt_rows(by_hand)))
        baselines = {"mean", "linear regression", "kNN-100"}
        assert set(protocol.costs) == {"auto"} | baselines
        assert set(protocol.calibration) == {"auto", "s3", "BMA"} | baselines
    assert found.settings["k"] == 3
    assert set(found.seconds) == {
        "one dataset left out, all models",
        "prompts, random split",
        "prompts, leave-one-dataset-out",
    }


def test_every_pool_has_its_own_models_and_prompts_use_the_first():
    found = small_evaluation(pools={"two": {"max_params": 14}, "all": {}})
    assert [(p.title, len(p.tasks.models)) for p in found.pools] == [("two", 2), ("all", 3)]
    assert {len(p.results.models) for p in found.prompts} == {2}


def test_a_pool_of_fewer_records_finds_its_embeddings():
    table, rows = small_table()
    part = table.rows(table.dataset != 1)
    found = evaluate(
        table, rows, pools={"part": part}, experiments=["tasks"], settings=QUICK, threads=1
    )
    alone = leave_one_dataset_out(
        part,
        rows[table.dataset != 1],
        settings=Settings(k=3, kappa=5, label_shares=(0.0, 0.1), draws=2),
    )
    assert_array_equal(found.pools[0].tasks.s1, alone.s1)


def test_only_what_is_asked_for_is_run():
    table, rows = small_table()
    tasks = evaluate(table, rows, experiments=["tasks"], settings=QUICK)
    prompts = evaluate(table, rows, experiments=["prompts"], settings=QUICK)
    assert (len(tasks.prompts), tasks.pools[0].tasks is None) == (0, False)
    assert (len(prompts.prompts), prompts.pools[0].tasks) == (2, None)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"experiments": ["task"]}, ValueError, "must be of .*, got 'task'"),
        ({"robustness": 5}, ValueError, "robustness .* needs an encoder"),
        ({"embeddings": np.ones((3, 8), np.float32)}, ValueError, "have 3 rows, expected 96"),
        ({"embeddings": np.ones((96, 8), np.float32)}, ValueError, "norm 2.8.*, expected 1"),
        (
            {"pools": {"other": small_table(n_datasets=2)[0]}},
            ValueError,
            "pool 'other' is no selection of the table",
        ),
    ],
)
def test_bad_arguments(fields, error, words):
    table, rows = small_table()
    with pytest.raises(error, match=words):
        evaluate(table, fields.pop("embeddings", rows), settings=QUICK, **fields)


def test_robustness_needs_the_encoder_of_the_embeddings(tmp_path):
    pytest.importorskip("transformers")
    from tiny_encoder import prompts_of, write_bert

    from benchrouter.embeddings import Encoder

    table, rows = small_table(prompts=prompts_of([5 + i % 7 for i in range(96)]))
    encoder = Encoder.load(str(write_bert(tmp_path / "tiny")))
    own = encoder.encode(table.prompts)
    found = evaluate(
        table, own, experiments=["prompts"], settings=QUICK, encoder=encoder, robustness=6
    )
    assert found.robustness["a trailing sentence"].n_prompts == 6
    assert all(0 <= flips.share <= 1 for flips in found.robustness.values() if flips.n_changed)
    with pytest.raises(ValueError, match="robustness needs the encoder that made them"):
        evaluate(
            table, rows, experiments=["prompts"], settings=QUICK, encoder=encoder, robustness=6
        )


# --- from the command line -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The README's results.parquet and results.npy, in a folder."""
    root = tmp_path_factory.mktemp("evaluate")
    table, rows = small_table(n_datasets=3, per_dataset=20)
    columns = {
        "dataset": [table.datasets[d] for d in table.dataset],
        "sample_id": table.sample_ids,
        "prompt": table.prompts,
    }
    for m, name in enumerate(table.models):
        columns[name] = table.scores[:, m]
        columns[f"cost::{name}"] = np.full(table.n_records, 1e-5 * (m + 1), np.float32)
        columns[f"bartscore::{name}"] = table.scores[:, m] * 2 - 5
    pq.write_table(pa.table(columns), root / "results.parquet")
    sizes = dict(zip(table.models, [7.0, 13.0, 70.0], strict=True))
    (root / "results.json").write_text(json.dumps({"model_params_billion": sizes}))
    np.save(root / "results.npy", rows)
    return root


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def given(folder):
    return "evaluate", folder / "results.parquet", "--embeddings", folder / "results.npy"


FAST = ("--label-shares", "0,.1", "--draws", 2, "--threads", 1)


def test_the_readmes_commands_run(folder, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(folder)
    lines = [line for line in README.splitlines() if line.startswith("benchrouter evaluate ")]
    assert len(lines) == 3
    for line in lines:
        result = call(*shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        if "--json" in line:
            found = json.loads(result.stdout, parse_constant=pytest.fail)
            assert found["prompts"][0]["metrics"] == ["score", "BARTScore"]
        else:
            assert "Does routing pay here? Too few datasets to say for" in result.stdout
            assert "strict nesting, no labels" in result.stdout
            assert "routing" in result.stdout or "Routing" in result.stdout
    assert {p.name for p in (folder / "report").iterdir()} == {
        *("report.html", "report.json", "figures")
    }
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(list((folder / "report/figures").iterdir()))
    assert "results.parquet" in page


def test_a_real_table_gives_the_kept_numbers(shared):
    """Experiment C of the real tables: macro accuracies of a slow, independent script."""
    data = shared / "data"
    result = call(
        *("evaluate", data / "ulab_llmrouter.parquet"),
        *("--embeddings", data / "ulab_llmrouter.minilm.npy"),
        *("--label-shares", "0", "--draws", 1, "--protocols", "tasks", "--json"),
    )
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    strict = {row["rule"]: row["accuracy"] for row in found["pools"][0]["table_one"]["strict"]}
    kept = json.loads((data / "reference" / "C.json").read_text())["macro_accuracy"]
    for rule, key in (("BMA", "BMA"), ("S1", "S1"), ("S2", "S2"), ("oracle", "oracle")):
        assert strict[rule] == pytest.approx(kept[key], abs=1e-6)
    assert strict["S3"] == pytest.approx(kept["S3 no fallback, nested"], abs=1e-6)
    assert found["pools"][0]["table_one_with_labels"] is None


def test_pools_tables_and_footnotes_are_printed(folder):
    result = call(*given(folder), *FAST, "--max-params", "all,13", "--protocols", "tasks")
    assert result.exit_code == 0, result.output
    text = result.stdout
    for title in ("all models", "models of at most 13 billion parameters"):
        for nesting in ("strict", "published"):
            assert f"{title}, {nesting} nesting, no labels" in text
    assert re.search(r"^  a  over 3 datasets: an interval needs at least 6$", text, re.M)
    assert re.search(r"^  b  BMA against itself$", text, re.M)
    assert "One model per prompt" not in text
    assert "read 60 records, 3 datasets, 3 models" in result.stderr


def test_every_number_is_passed_on(folder):
    result = call(
        *given(folder),
        *("--k", 4, "--kappa", 6, "--sigma", 0.2, "--eta", 0.7, "--threshold", 0.4),
        *("--seed", 3, "--draws", 1, "--label-shares", "0,.2", "--correct-above", 0.25),
        *("--protocols", "tasks", "--json", "--models", "model 0,model 2"),
    )
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert found["settings"] == {
        **{"k": 4, "kappa": 6, "sigma": 0.2, "eta": 0.7, "threshold": 0.4},
        **{"label_shares": [0.0, 0.2], "draws": 1, "seed": 3},
    }
    described = found["pools"][0]["table"]
    assert [m["name"] for m in described["models"]] == ["model 0", "model 2"]
    assert {d["threshold"] for d in described["datasets"]} == {0.25}
    assert found["prompts"] == []


@pytest.mark.parametrize("shares", [".2", ".2,0", "0,.2,.2"])
def test_the_tables_without_labels_are_without_labels_whatever_shares_are_asked_for(folder, shares):
    options = ("--draws", 1, "--threads", 1, "--protocols", "tasks", "--json")
    result = call(*given(folder), "--label-shares", shares, *options)
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert found["settings"]["label_shares"] == [0.0, 0.2]
    assert found["pools"][0]["table_one_with_labels"]["label_share"] == 0.2
    accuracy = {row["rule"]: row["accuracy"] for row in found["pools"][0]["table_one"]["strict"]}
    assert accuracy["labels"] == accuracy["BMA"]


def test_a_table_of_one_dataset_gives_what_it_can(folder):
    result = call(*given(folder), *FAST, "--datasets", "dataset 1")
    assert result.exit_code == 0, result.output
    assert "read 20 records, 1 dataset, 3 models" in result.stderr
    assert "leave-one-dataset-out needs at least 2 datasets" in " ".join(result.stdout.split())
    assert "One model per prompt, random split" in result.stdout


def test_defaults_are_those_of_the_library():
    command = importlib.import_module("benchrouter.cli.evaluate").evaluate
    options = inspect.signature(command).parameters
    names = ("k", "kappa", "sigma", "eta", "threshold", "draws", "seed")
    assert {n: options[n].default for n in names} == {n: getattr(Settings(), n) for n in names}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--max-params", "small"), 2, "found 'small', expected billions of parameters"),
        (("--max-params", "13,13"), 2, "each once"),
        (("--max-params", "2"), 1, "no model of 3 is known to have at most 2.0 billion"),
        (("--also", "score"), 2, "none 'score'"),
        (("--also", "A=bleurt"), 1, "found no metric 'bleurt'"),
        (("--protocols", "dogs"), 2, "found 'dogs', expected tasks, prompts"),
        (("--label-shares", "1.5"), 1, "label_shares must be numbers in [0, 1)"),
        (("--embeddings", "x.npy"), 2, "found 2 files for 1 tables"),
    ],
)
def test_errors_have_a_code_and_say_what_was_expected(folder, arguments, code, words):
    result = call(*given(folder), *arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_a_directory_of_something_else_is_seen_before_any_work(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    result = call("evaluate", folder / "results.parquet", "-o", tmp_path, "--encoder", "./no-such")
    assert result.exit_code == 1
    assert "holds 'thesis.tex', which is no part of a report" in result.stderr


def test_without_matplotlib_figures_are_refused_before_any_work(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call(*given(folder), *FAST, "-o", tmp_path / "report")
    assert result.exit_code == 3
    assert "pip install 'benchrouter[evaluate]', or --no-figures" in result.stderr
    result = call(*given(folder), *FAST, "-o", tmp_path / "report", "--no-figures")
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "report" / "figures").iterdir()) == []


def test_without_jinja2_a_report_is_refused_before_any_work(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = call("evaluate", folder / "results.parquet", "-o", tmp_path, "--encoder", "./no-such")
    assert result.exit_code == 3
    assert "a report needs jinja2: pip install 'benchrouter[evaluate]'" in result.stderr


def test_without_scikit_learn_the_baselines_are_left_out_with_a_word(folder, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "sklearn":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = call(*given(folder), *FAST, "--protocols", "prompts", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "kNN-100" not in {row["rule"] for row in found["prompts"][0]["rows"]}
    assert "they need scikit-learn" in " ".join(found["missing"])
