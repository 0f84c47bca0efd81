"""`benchrouter convert`, and the options of reading that other commands share with it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchrouter import read_table
from benchrouter.cli import app
from benchrouter.cli.app import app as whole
from benchrouter.tables.formats import names

CSV = "dataset,sample_id,prompt,a,b\nd,1,one,1,0\nd,2,two,0,1\ne,1,three,1,1\n"
LONG = "llm,task,n,prompt,label\nm,d,1,one,1\nm,d,2,two,0\nn,d,1,one,0\n"


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def put(path, text):
    path.write_text(text)
    return path


def mixinstruct(path):
    def record(n, *scores):
        candidates = [
            {"model": m, "text": "", "scores": {"bertscore": s, "bartscore": -10 * s}}
            for m, s in zip("xy", scores, strict=True)
        ]
        return {"id": f"u/{n}", "instruction": f"say {n}", "input": "", "candidates": candidates}

    return put(path, json.dumps([record(1, 0.5, 0.7), record(2, 0.25, 0.125)]))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_what_is_written_reads_as_the_source_does(tmp_path, suffix):
    source, target = put(tmp_path / "s.csv", CSV), tmp_path / f"t{suffix}"
    result = run("convert", source, "-o", target, "--correct-above", "e=0.9")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert read_table(target) == read_table(source, thresholds={"e": 0.9})
    assert {path.name for path in tmp_path.iterdir()} == {"s.csv", "t.json", f"t{suffix}"}


def test_it_says_what_was_read(tmp_path):
    source = put(tmp_path / "s.csv", CSV)
    result = run("convert", source, "-o", tmp_path / "t.parquet")
    lines = result.stderr.splitlines()
    assert lines[0] == "read 3 records of 2 datasets and 2 models from 1 source"
    assert any(line.split() == ["d", "–", "2", "0.0", "%", "0.5", "0", "0"] for line in lines)
    assert any(line.startswith("warning: dataset 'e': every model is right") for line in lines)
    assert lines[-1] == f"written to {tmp_path / 't.parquet'}"


def test_json(tmp_path):
    source, target = put(tmp_path / "s.csv", CSV), tmp_path / "t.parquet"
    result = run("convert", source, "-o", target, "--json")
    document = json.loads(result.stdout)
    assert document["output"] == str(target)
    assert document["n_records"] == 3
    assert [row["name"] for row in document["models"]] == ["a", "b"]


def test_columns_under_other_names(tmp_path):
    source, target = put(tmp_path / "s.csv", LONG), tmp_path / "t.parquet"
    names = "model=llm,dataset=task,sample_id=n,score=label"
    assert run("convert", source, "-o", target, "--columns", names).exit_code == 0
    np.testing.assert_array_equal(read_table(target).scores, [[1, 0], [0, np.nan]])


def test_sources_aliases_and_conflicts(tmp_path):
    one, other = put(tmp_path / "one.csv", CSV), put(tmp_path / "other.csv", CSV)
    other.write_text(CSV.replace("one,1,0", "one,0,0").replace("a,b", "org/a,b"))
    aliases, target = put(tmp_path / "names", "a = org/a\n"), tmp_path / "t.parquet"
    words = ("convert", one, other, "-o", target, "--aliases", aliases)
    result = run(*words)
    assert result.exit_code == 1
    assert "score of model 'a'" in result.stderr and not target.exists()
    assert run(*words, "--on-conflict", "mean").exit_code == 0
    assert read_table(target).scores[0, 0] == 0.5
    assert run(*words, "--on-conflict", "first").exit_code == 0
    assert read_table(target).scores[0, 0] == 1.0


def test_records_by_prompt(tmp_path):
    one = put(tmp_path / "one.csv", "dataset,sample_id,prompt,a\nd,1,one,1\nd,2,two,0\n")
    other = put(tmp_path / "other.csv", "dataset,sample_id,prompt,b\nd,x,two,1\nd,y,one,0\n")
    target = tmp_path / "t.parquet"
    assert run("convert", one, other, "-o", target, "--align", "prompt").exit_code == 0
    found = read_table(target)
    np.testing.assert_array_equal(found.scores, [[1, 0], [0, 1]])
    assert list(found.sample_ids) == ["1", "2"]


def test_further_metrics_stand_beside_the_scores(tmp_path):
    source, target = mixinstruct(tmp_path / "m.json"), tmp_path / "t.parquet"
    result = run("convert", source, "-o", target, "--also", "bartscore")
    assert result.exit_code == 0, result.stderr
    read = read_table
    np.testing.assert_allclose(read(target).scores, [[0.5, 0.7], [0.25, 0.125]])
    further = read(target, columns={"score": "bartscore"})
    np.testing.assert_allclose(further.scores, [[-5, -7], [-2.5, -1.25]])
    taken = run("convert", source, "-o", target, "--metric", "bartscore")
    assert taken.exit_code == 0
    np.testing.assert_array_equal(read(target).scores, further.scores)


@pytest.mark.parametrize(
    "words",
    [
        ["--format", "helmet"],
        ["--preset", "nobody"],
        ["--align", "id"],
        ["--on-conflict", "last"],
        ["--prompt-from", "there"],
        ["--train-trials", "all"],
        ["--perturbations", "some"],
        ["--runs", "any"],
        ["--on-error", "report"],
        ["--layout", "tall"],
    ],
)
@pytest.mark.parametrize("command", ["convert", "fit", "evaluate"])
def test_values_that_there_are_not_are_wrong_usage(tmp_path, command, words):
    source = put(tmp_path / "s.csv", CSV)
    result = run(command, source, "-o", tmp_path / "t.csv", *words)
    assert result.exit_code == 2
    text = " ".join(result.stderr.replace("│", " ").split())
    assert words[0] in text and f"found {words[1]!r}, expected" in text


@pytest.mark.parametrize("target", ["t.txt", "t", "none/t.parquet", "."])
def test_a_place_where_nothing_can_be_written_is_refused_before_reading(tmp_path, target):
    source = put(tmp_path / "s.csv", "this,is\nno,table\n")
    result = run("convert", source, "-o", tmp_path / target)
    assert result.exit_code == 1
    assert "s.csv" not in result.stderr.replace(str(tmp_path), "")


def test_a_folder_that_cannot_be_written_to_is_refused_before_reading(tmp_path, monkeypatch):
    source = put(tmp_path / "s.csv", "this,is\nno,table\n")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may always
    result = run("convert", source, "-o", tmp_path / "t.parquet")
    assert result.exit_code == 1
    assert f"t.parquet: the directory {str(tmp_path)!r} cannot be written to" in result.stderr


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    def full(table, where, **options):
        Path(where).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    source = put(tmp_path / "s.csv", CSV)
    result = run("convert", source, "-o", tmp_path / "t.parquet")
    assert result.exit_code == 1
    assert "t.parquet: No space left on device" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_help_names_every_format():
    text = " ".join(run("convert", "--help").stdout.replace("│", " ").split())
    assert all(name in text for name in names())


def test_every_command_that_reads_results_has_the_options():
    from typer.main import get_command

    commands = get_command(whole).commands
    shared = {"format", "preset", "columns", "align", "aliases", "on_conflict", "on_error"}
    for name in ("convert", "fit", "evaluate", "update"):
        assert shared <= {parameter.name for parameter in commands[name].params}, name


def test_fit_reads_what_convert_reads(tmp_path, shared):
    result = run(
        "convert", shared / "fixtures" / "lm_eval_dummy", "-o", tmp_path / "t.parquet", "--groups"
    )
    assert result.exit_code == 0, result.stderr
    table = read_table(tmp_path / "t.parquet")
    assert table == read_table(shared / "fixtures" / "lm_eval_dummy", groups=True)
    rows = np.random.default_rng(0).standard_normal((table.n_records, 8)).astype(np.float32)
    np.save(tmp_path / "e.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    for source in (tmp_path / "t.parquet", shared / "fixtures" / "lm_eval_dummy"):
        result = run(
            "fit", source, "--embeddings", tmp_path / "e.npy", "-o", tmp_path / "R",
            *([] if source.is_file() else ["--groups"]),
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr


def test_nothing_is_written_over(tmp_path):
    source = mixinstruct(tmp_path / "m.json")
    before = source.read_bytes()
    result = run("convert", source, "-o", tmp_path / "m.parquet")
    assert result.exit_code == 1 and "m.json: is a source" in result.stderr
    table = put(tmp_path / "s.csv", CSV)
    assert run("convert", table, "-o", table).exit_code == 1
    assert run("convert", table, "-o", tmp_path / "m.csv").exit_code == 1  # m.json is no sidecar
    assert source.read_bytes() == before and table.read_text() == CSV
    assert run("convert", table, "-o", tmp_path / "t.parquet").exit_code == 0
    result = run("convert", table, "-o", tmp_path / "t.csv")
    assert result.exit_code == 1 and "t.json: is the sidecar of" in result.stderr
    assert run("convert", table, "-o", tmp_path / "t.parquet").exit_code == 0  # once more


def test_a_file_in_a_source_is_not_written_over(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    name = "samples_t_2026-02-02T03-04-05.000006.jsonl"
    sample = {"doc_id": 0, "doc": {"question": "q?"}, "filter": "none", "acc": 1}
    asked = {"arguments": {"gen_args_0": {"arg_0": "q?"}}}
    source = put(folder / name, json.dumps({**sample, **asked}))
    before = source.read_text()
    result = run("convert", tmp_path, "-o", source)
    assert result.exit_code == 1 and result.stderr == (
        f"error: {source}: is in a source, and would be written over\n"
    )
    assert source.read_text() == before and [*folder.iterdir()] == [source]
    for _ in range(2):  # a table of ours may be written again
        result = run("convert", tmp_path, "-o", folder / "t.parquet")
        assert result.exit_code == 0, result.stderr


def test_metrics_of_a_table(tmp_path):
    csv = "dataset,sample_id,prompt,a,b,f1::a,f1::b\nd,1,one,1,0,0.5,0.25\nd,2,two,0,1,,0.75\n"
    source, target = put(tmp_path / "s.csv", csv), tmp_path / "t.parquet"
    assert run("convert", source, "-o", target, "--also", "f1").exit_code == 0
    expected = [[0.5, 0.25], [np.nan, 0.75]]
    read = read_table
    np.testing.assert_array_equal(read(target, columns={"score": "f1"}).scores, expected)
    np.testing.assert_array_equal(read(source, metric="f1").scores, expected)
    for option in ("--also", "--metric"):
        result = run("convert", source, "-o", target, option, "bleu")
        assert result.exit_code == 1 and "bleu" in result.stderr


def test_further_metrics_are_of_the_records_that_are_kept(tmp_path):
    source, target = mixinstruct(tmp_path / "m.json"), tmp_path / "t.parquet"
    content = json.loads(source.read_text())
    del content[0]["candidates"][0]["scores"]["bartscore"]
    source.write_text(json.dumps(content))
    result = run("convert", source, "-o", target, "--also", "bartscore", "--complete")
    assert result.exit_code == 0, result.stderr
    found = read_table(target, columns={"score": "bartscore"}).scores
    np.testing.assert_allclose(found, [[np.nan, -7], [-2.5, -1.25]])


def test_columns_that_may_be_no_models_are_doubted(tmp_path):
    source = put(tmp_path / "s.csv", "prompt,year,a\none,2020,1\ntwo,2021,0\n")
    result = run("convert", source, "-o", tmp_path / "t.parquet")
    assert "note: taken for models, as numeric columns: 'year'" in result.stderr
    named = run("convert", source, "-o", tmp_path / "u.parquet", "--models", "a")
    assert "note:" not in named.stderr


def test_evaluate_reads_a_folder(tmp_path, shared):
    folder = shared / "fixtures" / "lm_eval_dummy"
    rows = np.random.default_rng(0).standard_normal((70, 8)).astype(np.float32)
    np.save(tmp_path / "e.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    result = run(
        "evaluate", folder, "--embeddings", tmp_path / "e.npy", "--protocols", "prompts", "--json"
    )
    assert result.exit_code == 0, result.stderr


def test_a_further_metric_is_missing_where_a_task_lacks_it(tmp_path, shared):
    target = tmp_path / "t.parquet"
    words = (shared / "fixtures" / "lm_eval_dummy", "-o", target, "--also", "exact_match")
    result = run("convert", *words)
    assert result.exit_code == 0, result.stderr
    table = read_table(target)
    further = read_table(target, columns={"score": "exact_match"})
    missing = np.isnan(further.scores).all(axis=1)
    names = np.array(table.datasets)[table.dataset]
    np.testing.assert_array_equal(missing, names != "demo_gsm")


def test_a_table_beside_its_source_does_not_change_what_the_source_is(tmp_path):
    source = put(tmp_path / "s.csv", CSV)
    first = read_table(source)
    for _ in range(2):
        command = ("convert", source, "--models", "a", "--correct-above", "0.9")
        assert run(*command, "-o", tmp_path / "s.parquet").exit_code == 0
        assert read_table(source) == first
    written = read_table(tmp_path / "s.parquet")
    assert (written.models, set(written.thresholds)) == (("a",), {0.9})
    (tmp_path / "s.parquet").unlink()
    assert run("convert", source, "-o", tmp_path / "s.parquet").exit_code == 0


def test_a_table_and_its_sidecar_may_be_renamed_and_packed(tmp_path):
    source = put(tmp_path / "s.csv", CSV)
    assert run("convert", source, "-o", tmp_path / "t.csv", "--models", "a").exit_code == 0
    (tmp_path / "t.json").rename(tmp_path / "u.json")
    (tmp_path / "u.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    (tmp_path / "t.csv").rename(tmp_path / "u.csv")
    for name in ("u.csv", "u.csv.gz"):
        assert read_table(tmp_path / name).models == ("a",)


def test_a_sidecar_of_another_table_of_that_name_is_an_error(tmp_path):
    """What a kill between the two renames leaves: the earlier table, the new sidecar."""
    source, table = put(tmp_path / "s.csv", CSV), tmp_path / "t.csv"
    assert run("convert", source, "-o", table).exit_code == 0
    earlier = table.read_bytes()
    assert run("convert", source, "-o", table, "--models", "a").exit_code == 0
    table.write_bytes(earlier)
    with pytest.raises(ValueError, match=r"t.json: table_bytes is \d+, but .* has \d+ bytes"):
        read_table(table)
    told = json.loads((tmp_path / "t.json").read_text())
    del told["table_bytes"]
    (tmp_path / "t.json").write_text(json.dumps(told))
    assert read_table(table).models == ("a",)


def test_names_with_commas_stand_in_quotes(tmp_path):
    text = 'dataset,sample_id,prompt,a,"b,2"\n"mmlu:subject=x,method=y",1,one,0.3,1\nd,1,two,1,0\n'
    source = put(tmp_path / "s.csv", text)
    options = ("--datasets", '"mmlu:subject=x,method=y"', "--models", 'a,"b,2"')
    above = ("--correct-above", '"mmlu:subject=x,method=y"=0.2')
    result = run("convert", source, "-o", tmp_path / "t.csv", *options, *above)
    assert result.exit_code == 0, result.stderr
    found = read_table(tmp_path / "t.csv")
    assert (found.datasets, found.models) == (("mmlu:subject=x,method=y",), ("a", "b,2"))
    assert found.thresholds.tolist() == [0.2]


def test_a_column_of_theirs_may_hold_an_equals_sign(tmp_path):
    source = put(tmp_path / "s.csv", LONG.replace("llm", "llm=x"))
    mapped = "model=llm=x,dataset=task,sample_id=n,score=label"
    result = run("convert", source, "-o", tmp_path / "t.csv", "--columns", mapped)
    assert result.exit_code == 0, result.stderr
    assert read_table(tmp_path / "t.csv").models == ("m", "n")


def test_a_table_of_embedllm_without_its_preset_is_refused(tmp_path):
    source = put(
        tmp_path / "train.csv",
        "prompt_id,model_id,category_id,prompt,label,model_name,category\n1,0,0,one,1,m,d\n",
    )
    result = run("convert", source, "-o", tmp_path / "t.csv")
    assert result.exit_code == 1
    assert "has the columns of embedllm" in result.stderr and "--preset" in result.stderr
    assert run("convert", source, "-o", tmp_path / "t.csv", "--preset", "embedllm").exit_code == 0


def test_a_given_threshold_settles_those_that_sidecars_state_otherwise(tmp_path):
    files = []
    for number, threshold in enumerate((0.5, 0.6)):
        files.append(tmp_path / f"{number}.csv")
        files[-1].write_text(f"model,dataset,sample_id,prompt,score,f1\na,d,{number},x,1,0.25\n")
        sidecar = {"thresholds": {"d": threshold}}
        (tmp_path / f"{number}.json").write_text(json.dumps(sidecar))
    target = tmp_path / "t.jsonl"
    result = run("convert", *files, "-o", target)
    assert result.exit_code == 1
    assert "expected one: name it (thresholds, --correct-above), or 'first'" in result.stderr
    result = run("convert", *files, "-o", target, "--correct-above", "d=0.7", "--also", "f1")
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "t.json").read_text())["thresholds"] == {"d": 0.7}
    assert json.loads(target.read_text().splitlines()[0])["f1::a"] == 0.25
