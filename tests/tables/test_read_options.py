"""Options of reading: which format each is of, and metrics that only some sources have."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields

import numpy as np
import pytest
from helm_runs import entry, request, spec, write_run, write_simple
from numpy.testing import assert_array_equal
from small_results import DATE, RECORD, SAMPLE, UUID
from typer.testing import CliRunner

from benchrouter import BenchmarkTable, table_from_arrow, table_report
from benchrouter import read_table as read
from benchrouter.cli import app
from benchrouter.tables.read_options import FORMATS_OF, ReadKeywords, ReadOptions, flag

NAN = float("nan")

CSV = "dataset,sample_id,prompt,m,n\nd,1,p,1,0\nd,2,q,0,1\n"
WITH_F1 = "dataset,sample_id,prompt,m,n,f1::m,f1::n\ne,1,p,1,0,0.5,0.25\ne,2,q,0,1,,0.75\n"
ROUTERBENCH = "sample_id,prompt,eval_name,m,m|total_cost\na.1,q?,r,1,0.5\n"


def mixinstruct(source, *scores):
    """Return records of one candidate each."""
    return [
        {
            "id": f"{source}/{n}",
            "instruction": f"say {n}",
            "candidates": [{"model": "m", "scores": found}],
        }
        for n, found in enumerate(scores)
    ]


def put(folder, format):
    """Write a source of a format."""
    folder.mkdir(parents=True, exist_ok=True)
    if format == "helm":
        return write_simple(folder / "run", spec("mmlu:subject=x,model=m"), [1, 0])
    name, text = {
        "table": ("t.csv", CSV),
        "lm-eval": (f"samples_t_{DATE}.jsonl", json.dumps(SAMPLE)),
        "every-eval-ever": (f"{UUID}_samples.jsonl", json.dumps(RECORD)),
        "mixinstruct": ("m.json", json.dumps(mixinstruct("u", {"bertscore": 0.5}))),
        "routerbench": ("r.csv", ROUTERBENCH),
    }[format]
    (folder / name).write_text(text)
    return folder / name


FORMATS = ("table", "helm", "lm-eval", "every-eval-ever", "mixinstruct", "routerbench")
OTHER = {
    "layout": "wide",
    "columns": {"dataset": "dataset"},
    "dataset_column": "dataset",
    "prompt_column": "prompt",
    "metric": "f1",
    "prompt": "request",
    "split": "test",
    "train_trials": "first",
    "perturbations": "all",
    "filter": "none",
    "shots": 0,
    "runs": "latest",
    "groups": True,
}


def refusal(*args, **kwargs):
    """Return what is said of an option that does not fit; none if another thing is said."""
    try:
        read(*args, **kwargs)
    except (ValueError, OSError) as error:
        return str(error) if "is an option of" in str(error) else ""
    return ""


@pytest.mark.parametrize("option", OTHER)
@pytest.mark.parametrize("format", FORMATS)
def test_an_option_of_other_formats_is_refused(tmp_path, format, option):
    source, given = put(tmp_path, format), {option: OTHER[option]}
    said = refusal(source, **given)
    if format in FORMATS_OF[option]:
        assert said == ""
        return
    fits = ", ".join(FORMATS_OF[option])
    assert said == f"{option} ({flag(option)}) is an option of {fits}; found only {format}"
    # The same as by default says nothing.
    default = {field.name: field.default for field in fields(ReadOptions)}[option]
    assert refusal(source, **{option: default}) == ""


def test_every_option_is_checked():
    own = {
        field.name
        for field in fields(ReadOptions)
        if field.name not in inspect.signature(BenchmarkTable.select).parameters
    }
    for_all = {"only_metric", "thresholds", "on_error", "format", "aliases", "align", "on_conflict"}
    assert own - for_all - {"preset"} == set(FORMATS_OF) == set(OTHER)
    assert {field.name for field in fields(ReadOptions)} == set(ReadKeywords.__annotations__)


def test_an_option_may_fit_one_of_several_sources(tmp_path):
    table, run = put(tmp_path / "t", "table"), put(tmp_path / "h", "helm")
    assert read([table, run], split="test").n_records == 4
    assert read([table, run], dataset_column="dataset").n_records == 4
    words = r"filter \(--filter\) is an option of lm-eval; found only table and helm"
    with pytest.raises(ValueError, match=words):
        read([table, run], filter="none")
    with pytest.raises(ValueError, match=r"columns \(--columns\) is an option of table; found o"):
        read(run, columns={"dataset": "d", "score": "f1"})


def test_a_preset_may_fit_one_of_several_sources(tmp_path):
    run_spec = spec("imdb:model=google/flan-ul2", "google/flan-ul2", groups=["imdb"])
    run = write_simple(tmp_path / "imdb", run_spec, [1, 0], "quasi_exact_match")
    assert read([put(tmp_path, "table"), run], preset="helm-paper").datasets == ("d", "imdb")
    long = tmp_path / "train.csv"
    long.write_text("model_name,category,prompt_id,prompt,label\nm,c,1,p,1\n")
    assert read([long, run], preset="embedllm").datasets == ("c", "imdb")
    words = r"preset 'embedllm' \(--preset\) is an option of table; found only helm"
    with pytest.raises(ValueError, match=words):
        read(run, preset="embedllm")


def test_one_score_of_a_table(tmp_path):
    path = put(tmp_path, "table")
    with pytest.raises(ValueError, match="columns maps 'score' to 'm', but metric is 'n'"):
        read(path, columns={"score": "m"}, metric="n")
    run = write_simple(tmp_path / "run", spec("mmlu:subject=x,model=m"), [1, 0])
    long = tmp_path / "l.csv"
    long.write_text("model,dataset,sample_id,prompt,label\nm,l,1,p,1\n")
    found = read([long, run], columns={"score": "label"}, metric="exact_match")
    assert_array_equal(found.scores, [[1, NAN], [NAN, 1], [NAN, 0]])


def test_options_of_a_table_in_memory():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"prompt": ["p"], "m": [1.0]})
    words = r"preset 'helm-paper' \(--preset\) is an option of helm; found only table"
    with pytest.raises(ValueError, match=words):
        table_from_arrow(frame, preset="helm-paper")
    frame = pandas.DataFrame(
        {"sample_id": ["a"], "prompt": ["p"], "eval_name": ["e"], "m": [1.0], "m|total_cost": [1.0]}
    )
    words = r"dataset_column \(--dataset-column\) is an option of table; found only routerbench"
    with pytest.raises(ValueError, match=words):
        table_from_arrow(frame, dataset_column="eval_name")


@pytest.mark.parametrize("words", [["--split", "test"], ["--filter", "x"], ["--also", "f1"]])
@pytest.mark.parametrize("command", ["convert", "fit", "evaluate"])
def test_the_command_line_names_the_option(tmp_path, command, words):
    source, target = put(tmp_path, "routerbench"), tmp_path / "t.csv"
    if command == "fit" and words[0] == "--also":
        words = ["--metric", "f1"]
    result = CliRunner().invoke(app, [command, str(source), "-o", str(target), *words])
    assert result.exit_code == 1
    assert words[0] in result.stderr and "found only routerbench" in result.stderr


def test_a_helm_run_without_a_further_metric_has_no_scores(tmp_path):
    for model, metrics in (("a", {"exact_match": 1, "f1": 0.5}), ("b", {"exact_match": 0})):
        run_spec = spec(f"mmlu:subject=x,model={model}", model)
        requests, stats = [request("id0", "text 0")], [entry("id0", metrics)]
        write_run(tmp_path / model, run_spec, requests, stats)
    found = read(tmp_path, metric="f1", only_metric=True)
    assert found.models == ("a", "b") and found.metrics == ("f1",)
    assert_array_equal(found.scores, [[0.5, NAN]])
    lacking = "'f1', so no scores, in 1 run ('mmlu:subject=x,model=b')"
    assert table_report(found).notes[-1] == f"{tmp_path}: no metric {lacking}"
    with pytest.raises(ValueError, match=r"b: per_instance_stats.json: found the metrics exact_m"):
        read(tmp_path, metric="f1")
    for only in (False, True):
        with pytest.raises(ValueError, match="(found no metric|expected) 'bleu'"):
            read(tmp_path, metric="bleu", only_metric=only)


def test_helm_runs_without_the_metric_are_all_named(tmp_path):
    for model, metric in (("a", "f1"), ("b", "exact_match"), ("c", "exact_match")):
        run_spec = spec(f"mmlu:subject=x,model={model}", model)
        write_simple(tmp_path / model, run_spec, [1, 0], metric)
    words = (
        r"b: of 2 runs \('mmlu:subject=x,model=b', 'mmlu:subject=x,model=c'\) without 'f1' the "
        "first: per_instance_stats.json: found the metrics exact_match; expected 'f1'$"
    )
    with pytest.raises(ValueError, match=words):
        read(tmp_path, metric="f1")
    found = read(tmp_path, metric="f1", on_error="skip")
    assert found.models == ("a",) and len(found.skipped) == 2
    assert "c: per_instance_stats.json: found the metrics exact_match" in found.skipped[1]


def test_a_file_of_mixinstruct_without_a_further_metric_has_no_scores(tmp_path):
    for name, scores in (("u", {"bertscore": 0.5, "bleurt": 0.25}), ("v", {"bertscore": 0.75})):
        (tmp_path / f"{name}.json").write_text(json.dumps(mixinstruct(name, scores)))
    paths = [tmp_path / "u.json", tmp_path / "v.json"]
    found = read(paths, metric="bleurt", only_metric=True)
    assert found.datasets == ("u", "v")
    assert_array_equal(found.scores, [[0.25], [NAN]])
    for given, path in ((paths, "v.json"), (paths[1], "v.json")):
        with pytest.raises(ValueError, match=rf"{path}: found no score 'bleurt'; the candidates h"):
            read(given, metric="bleurt")
    with pytest.raises(ValueError, match=r"v\.json: found no metric 'bleurt', but bertscore"):
        read(paths[1], metric="bleurt", only_metric=True)


def test_tables_without_a_further_metric_have_no_scores(tmp_path):
    one, other, long = tmp_path / "t.csv", tmp_path / "u.csv", tmp_path / "l.csv"
    one.write_text(CSV)
    other.write_text(WITH_F1)
    long.write_text("model,dataset,sample_id,prompt,score\nm,l,1,p,1\n")
    routerbench = put(tmp_path, "routerbench")
    paths = [one, other, long, routerbench]
    found = read(paths, metric="f1", only_metric=True)
    assert found.datasets == ("d", "e", "l", "r")
    assert_array_equal(found.scores[2:4], [[0.5, 0.25], [NAN, 0.75]])
    assert np.isnan(found.scores[[0, 1, 4, 5]]).all()
    with pytest.raises(ValueError, match=r"t.csv and 2 more: found no metric 'f2', but score, f1"):
        read(paths[:3], metric="f2", only_metric=True)
    with pytest.raises(ValueError, match=r"t\.csv has no column 'f1' for score"):
        read(paths, metric="f1")


def test_what_a_further_metric_lacks_is_told(tmp_path):
    one, other = tmp_path / "t.csv", tmp_path / "u.csv"
    one.write_text(CSV)
    other.write_text(WITH_F1)
    target = tmp_path / "both.parquet"
    words = ["convert", str(one), str(other), "-o", str(target), "--also", "F=f1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    assert "note: metric 'F' lacks 5 of 8 values; there are none in 'd'" in result.stderr
    found = read(target, metric="F")
    assert_array_equal(found.scores[2:], [[0.5, 0.25], [NAN, 0.75]])
    result = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(result.stdout)["notes"][-1].startswith("metric 'F' lacks 5 of 8 values")


def test_a_further_metric_is_not_the_column_named_for_the_score(tmp_path):
    source, target = tmp_path / "t.csv", tmp_path / "u.parquet"
    source.write_text("model,dataset,sample_id,prompt,label,f1\nm,d,1,p,1,0.5\n")
    words = ["convert", source, "-o", target, "--columns", "score=label", "--also", "f1"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    assert (read(target).scores, read(target, metric="f1").scores) == ([[1.0]], [[0.5]])


def test_evaluate_takes_metrics_as_convert_does(tmp_path):
    source = tmp_path / "t.csv"
    source.write_text(WITH_F1)
    words = ["evaluate", str(source), "--metric", "F=f1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", " ").split())
    assert "found 'F=f1', expected the score to take; a further metric is --also F=f1" in said
