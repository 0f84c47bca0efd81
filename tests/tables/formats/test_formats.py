"""Which format a path is taken for, and what is said of one that is of none or of several."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from helm_runs import spec, write_simple
from small_results import DATE, RECORD, SAMPLE, UUID

from benchrouter import read_table as read
from benchrouter import table_report
from benchrouter.tables.formats import format_of
from benchrouter.tables.formats.lm_eval import files as lm_eval_files


def put_samples(folder, name=f"samples_t_{DATE}.jsonl", row=SAMPLE):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(row) + "\n")
    return folder / name


def put_records(folder, name=f"{UUID}_samples.jsonl"):
    return put_samples(folder, name, RECORD)


def test_a_folder_of_several_formats_is_an_error(tmp_path):
    put_samples(tmp_path / "a")
    put_records(tmp_path / "b")
    words = "found results of several formats, lm-eval and every-eval-ever; expected one: name it"
    with pytest.raises(ValueError, match=f"{tmp_path}: {words}"):
        read(tmp_path)
    assert read(tmp_path, format="lm-eval").datasets == ("t",)
    assert read(tmp_path, format="every-eval-ever").datasets == ("e",)
    write_simple(tmp_path / "c" / "run", spec("mmlu:subject=x,model=m"), [1])
    with pytest.raises(ValueError, match="formats, helm and lm-eval and every-eval-ever; exp"):
        read(tmp_path)


def test_tables_beside_one_format_are_passed_over(tmp_path):
    put_samples(tmp_path)
    (tmp_path / "t.csv").write_text("sample_id,prompt,m\n1,p,1\n")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    (tmp_path / "t.jsonl").write_text('{"sample_id": 1, "prompt": "p", "m": 1}\n')
    assert format_of(tmp_path) == "lm-eval"
    assert read(tmp_path).datasets == ("t",)


@pytest.mark.parametrize(
    "content",
    [
        {"results": [1, 2]},
        {"results": {"a": 1}, "config": {}},
        {"results": {"a": {"score": 1}}},
        {"results": {"a": {"score": 1}}, "versions": 3},
    ],
)
def test_results_of_other_programs_are_not_those_of_lm_eval(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(IsADirectoryError, match="without results of a known format"):
        format_of(tmp_path)
    put_records(tmp_path)
    assert format_of(tmp_path) == "every-eval-ever"
    path.write_text(json.dumps({"results": {"a": {"score": 1}}, "versions": {"a": 1}}))
    assert format_of(path) == "lm-eval"


def test_a_named_format_reads_a_file_that_is_not_recognised(tmp_path):
    path = put_samples(tmp_path / "m", "mine.jsonl", {"filter": "none", **SAMPLE})
    moved = {key: SAMPLE[key] for key in reversed(SAMPLE)}
    path.write_text(json.dumps(moved) + "\n")
    assert format_of(path) == "table"
    table = read(path, format="lm-eval")
    assert (table.models, table.datasets, table.scores.tolist()) == (("m",), ("mine",), [[1]])
    path.write_text(json.dumps({key: RECORD[key] for key in reversed(RECORD)}))
    assert format_of(path) == "table"
    table = read(path, format="every-eval-ever")
    assert (table.models, table.datasets, table.scores.tolist()) == (("m",), ("e",), [[1]])


@pytest.mark.parametrize(
    ("format", "expected"),
    [("lm-eval", "'doc_id', 'doc'"), ("every-eval-ever", "'model_id', 'evaluation_name', 'eval")],
)
def test_a_named_format_says_what_it_finds_instead(tmp_path, format, expected):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1, "b": 2}')
    with pytest.raises(ValueError, match=rf"keys \['a', 'b'\], expected {expected}"):
        read(path, format=format)
    path.write_text(json.dumps({"a": 1, "b": 2}, indent=1))
    with pytest.raises(ValueError, match=rf"{path}: .*keys \['a', 'b'\], expected {expected}"):
        read(path, format=format)
    path.write_text("hello")
    with pytest.raises(
        ValueError, match=f"{path}, line 1, column 1: found 'hello', expected a JSON object"
    ):
        read(path, format=format)
    for nothing in ("", "\n", "[]"):
        path.write_text(nothing)
        with pytest.raises(ValueError, match=f"{path} is empty: found no JSON object"):
            read(path, format=format)
    with pytest.raises(ValueError, match=f"{tmp_path}: found no .*, expected files "):
        read(tmp_path, format=format)


def test_json_of_no_format(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("")
    with pytest.raises(ValueError, match=f"^{path} is empty: found 0 bytes$"):
        read(path)
    path.write_text('{"a": 1}')
    words = "found JSON of no known format; read from .json are mixinstruct .* and lm-eval"
    with pytest.raises(ValueError, match=f"^{path}: {words}"):
        read(path)


def test_the_sidecar_of_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("sample_id,prompt,m\n1,p,1\n")
    (tmp_path / "t.json").write_text('{"model_columns": ["m"]}')
    words = f"is the sidecar of a table, expected the table, {tmp_path / 't.csv'}"
    with pytest.raises(ValueError, match=f"^{tmp_path / 't.json'}: {words}"):
        read(tmp_path / "t.json")


def test_folders_of_formats_that_are_of_files(tmp_path):
    words = r"known format \(helm, lm-eval, every-eval-ever\), expected one with such, or a file"
    with pytest.raises(IsADirectoryError, match=f"{words}$"):
        read(tmp_path)
    (tmp_path / "t.csv").write_text("sample_id,prompt,m\n1,p,1\n")
    with pytest.raises(IsADirectoryError, match=f"{words} such as {tmp_path / 't.csv'}$"):
        read(tmp_path)
    for format in ("table", "mixinstruct", "routerbench"):
        with pytest.raises(IsADirectoryError, match=f"^{tmp_path}: is a directory, expected a f"):
            read(tmp_path, format=format)


def test_a_file_of_a_helm_run(tmp_path):
    write_simple(tmp_path / "run", spec("mmlu:subject=x,model=m"), [1])
    path = tmp_path / "run" / "scenario_state.json"
    words = f"is a file of a HELM run, expected the run's folder, {tmp_path / 'run'}"
    with pytest.raises(ValueError, match=f"^{path}: {words}"):
        read(path)
    with pytest.raises(ValueError, match=f"^{path}: {words}"):
        read(path, format="helm")


def test_an_aggregate_of_every_eval_ever(tmp_path):
    path = tmp_path / f"{UUID}.json"
    path.write_text(json.dumps({"schema_version": "0.2.2", "evaluation_results": []}))
    words = f"is an aggregate of every-eval-ever.* expected {tmp_path / UUID}_samples.jsonl"
    for format in ("auto", "every-eval-ever"):
        with pytest.raises(ValueError, match=f"^{path}: {words}"):
            read(path, format=format)


def put_run(folder):
    write_simple(folder / "run", spec("mmlu:subject=x,model=m"), [1])


@pytest.mark.parametrize(
    ("put", "format"),
    [(put_samples, "lm-eval"), (put_records, "every-eval-ever"), (put_run, "helm")],
)
def test_links_are_followed_and_end(tmp_path, put, format):
    real, given = tmp_path / "elsewhere", tmp_path / "given"
    put(real / "deep" / "model")
    given.mkdir()
    (given / "link").symlink_to(real, target_is_directory=True)
    (given / "again").symlink_to(real / "deep", target_is_directory=True)
    (given / "nowhere").symlink_to(tmp_path / "none")
    (given / "itself").symlink_to(given / "itself")
    (real / "deep" / "up").symlink_to(given, target_is_directory=True)
    assert format_of(given) == format
    table = read(given)
    assert (table.n_records, len(table_report(table).sources)) == (1, 1)
    assert table_report(table).sources[0].name.startswith(f"{given}/again/model")


def test_what_has_a_name_of_its_own_comes_before_links(tmp_path):
    (tmp_path / "z").mkdir()
    file = put_samples(tmp_path / "z" / "model")
    (tmp_path / "a").symlink_to(tmp_path / "z", target_is_directory=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / file.name).symlink_to(file)
    (tmp_path / "b" / file.name.replace("_t_", "_u_")).symlink_to(file)
    (source,) = table_report(read(tmp_path)).sources
    assert source.name == str(file)


def test_a_linked_file_is_read_by_its_name_here(tmp_path):
    file = put_samples(tmp_path / "elsewhere")
    (tmp_path / "model").mkdir()
    for name in (file.name, file.name.replace("_t_", "_u_")):
        (tmp_path / "model" / name).symlink_to(file)
    assert read(tmp_path / "model").datasets == ("t",)


def test_the_head_of_a_file_is_read_once(tmp_path, monkeypatch):
    for n in range(3):
        folder = tmp_path / f"run{n}"
        write_simple(folder, spec(f"mmlu:subject=x,model=m{n}", f"m{n}"), [1])
    seen = []
    head = lm_eval_files.head
    monkeypatch.setattr(lm_eval_files, "head", lambda path: seen.append(path) or head(path))
    assert format_of(tmp_path) == "helm"
    assert sorted(seen) == sorted(tmp_path.rglob("*.json"))


OTHER_UUID = UUID.replace("0f", "1f")
BROKEN = {
    "lm-eval": (
        put_samples,
        [f"samples_u_{DATE}.jsonl", f"samples_u_{DATE}.jsonl"],
        ["", '{"doc_id": 0'],
    ),
    "every-eval-ever": (put_records, [f"{OTHER_UUID}_samples.jsonl"] * 2, ["", "{"]),
}


@pytest.mark.parametrize("format", BROKEN)
@pytest.mark.parametrize("number", [0, 1])
def test_a_broken_file_of_a_folder_is_named_or_left_out(tmp_path, format, number):
    put, names, texts = BROKEN[format]
    put(tmp_path)
    broken = tmp_path / names[number]
    broken.write_text(texts[number])
    with pytest.raises(ValueError, match=f"^{broken}") as caught:
        read(tmp_path)
    table = read(tmp_path, on_error="skip")
    assert table.n_records == 1
    assert table.skipped == (str(caught.value),)


@pytest.mark.parametrize(
    "text",
    ['{"results": {"t": ', "{", '{"results": {}, "config": 1}', '{"results": {}, "a": 1, "a": 1}'],
)
def test_samples_whose_results_are_broken_are_left_out(tmp_path, text):
    put_samples(tmp_path / "good", f"samples_t_{DATE}.jsonl")
    put_samples(tmp_path / "bad", f"samples_u_{DATE}.jsonl")
    broken = tmp_path / "bad" / f"results_{DATE}.json"
    broken.write_text(text)
    with pytest.raises(ValueError, match=f"^{broken}.*; so its samples cannot be read$") as caught:
        read(tmp_path)
    table = read(tmp_path, on_error="skip")
    assert (table.datasets, table.models) == (("t",), ("good",))
    assert table.skipped == (str(caught.value),)
    with pytest.raises(ValueError, match=f"^{broken}.*; so its samples cannot be read$"):
        read(tmp_path / "bad" / f"samples_u_{DATE}.jsonl")


@pytest.fixture
def open_folder():
    """Return a folder whose parents any user may enter, as those of tmp_path may not be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def closed_to_us(*paths):
    """Take all permissions from paths, and from us those of root."""
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)  # nobody
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


DENIED = "permission denied, expected it to be readable"


@pytest.mark.parametrize(
    ("put", "of_suite"),
    [(put_samples, "samples_*"), (put_records, "*.jsonl"), (put_run, "run/scenario_state.json")],
)
def test_what_may_not_be_read_is_an_error_or_left_out(open_folder, put, of_suite):
    for name in ("a", "b", "c"):
        put(open_folder / name)
    table = read(open_folder / "a")
    (file,) = (open_folder / "b").glob(of_suite)
    for closed in (file, open_folder / "b"):
        with closed_to_us(closed):
            with pytest.raises(ValueError, match=f"^{closed}: {DENIED}$"):
                read(open_folder)
            found = read(open_folder, on_error="skip")
        assert found.skipped == (f"{closed}: {DENIED}",)
        assert found.datasets == table.datasets
        assert sorted(table_report(found).sources[i].n_records for i in range(3)) == [0, 1, 1]


def test_results_that_may_not_be_read(open_folder):
    put_samples(open_folder / "good")
    put_samples(open_folder / "bad", f"samples_u_{DATE}.jsonl")
    results = open_folder / "bad" / f"results_{DATE}.json"
    results.write_text('{"results": {}, "configs": {}}')
    with closed_to_us(results):
        table = read(open_folder, on_error="skip")
    assert table.models == ("good",)
    assert table.skipped == (f"{results}: {DENIED}; so its samples cannot be read",)


def test_a_folder_with_nothing_but_what_may_not_be_read(open_folder):
    put_samples(open_folder / "a")
    with (
        closed_to_us(open_folder / "a"),
        pytest.raises(PermissionError, match=f"Permission denied: '{open_folder}/a'"),
    ):
        read(open_folder, on_error="skip")
