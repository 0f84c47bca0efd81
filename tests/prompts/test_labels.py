"""Labels in: which models were right on the first prompts of a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchrouter.prompts.labels import read_labels, write_labels

NAN = np.nan


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def labels_of(path: Path) -> np.ndarray:
    return read_labels(path, ("a", "b"), ["x", "y", "z"])


def test_labels_are_ordered_by_model_and_unknown_is_nan(tmp_path):
    path = write(tmp_path / "l.csv", "b,prompt,a\n1,x,\n0,y,true\n")
    expected = np.float32([[np.nan, 1, np.nan], [1, 0, np.nan]])
    np.testing.assert_array_equal(read_labels(path, ("a", "b", "c"), ["x", "y", "z"]), expected)
    path = write(tmp_path / "l.jsonl", '{"b": 1}\n{"b": false, "a": 1.0, "c": null}\n')
    np.testing.assert_array_equal(read_labels(path, ("a", "b", "c"), ["x", "y", "z"]), expected)
    table = pa.table({"b": [1.0, 0.0], "a": [None, 1.0], "id": [1, 2]})
    pq.write_table(table, tmp_path / "l.parquet")
    found = read_labels(tmp_path / "l.parquet", ("a", "b", "c"), ["x", "y", "z"])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n1\n\n0\n", [[1, NAN], [NAN, NAN], [0, NAN]]),
        ("a\r\n1\r\n\r\n0\r\n", [[1, NAN], [NAN, NAN], [0, NAN]]),
        ("b\n\n1", [[NAN, NAN], [NAN, 1]]),
        ("b\n1\n\n", [[NAN, 1], [NAN, NAN]]),
        ('b\n1\n""\n', [[NAN, 1], [NAN, NAN]]),
        ("\ufeffa,b\n1,0\n,\n0,1\n", [[1, 0], [NAN, NAN], [0, 1]]),
        ('prompt,a\n"x",1\ny,0\n', [[1, NAN], [0, NAN]]),
    ],
)
def test_every_line_is_the_row_of_its_prompt(tmp_path, text, expected):
    found = labels_of(write(tmp_path / "l.csv", text))
    np.testing.assert_array_equal(found, np.float32(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prompt,a\nz,1\nx,0\n", [[0, NAN], [NAN, NAN], [1, NAN]]),
        ("row,a,b\n3,1,-\n1,,0.25\n", [[NAN, 0.25], [NAN, NAN], [1, NAN]]),
        ("row,prompt,a\n2,y,1\n", [[NAN, NAN], [1, NAN]]),
    ],
)
def test_rows_belong_to_the_prompts_that_they_name(tmp_path, text, expected):
    np.testing.assert_array_equal(labels_of(write(tmp_path / "l.csv", text)), np.float32(expected))


def test_rows_of_equal_prompts_are_taken_in_turn(tmp_path):
    path = write(tmp_path / "l.csv", "prompt,a\nx,1\ny,0\nx,0\n")
    found = read_labels(path, ("a",), ["x", "x", "y"])
    np.testing.assert_array_equal(found[:, 0], [1, 0, 0])


def test_scores_of_another_scale_are_read_on_demand(tmp_path):
    path = write(tmp_path / "l.csv", "a,b\n7,-3\n10,\n")
    found = read_labels(path, ("a", "b"), ["x", "y"], any_scale=True)
    np.testing.assert_array_equal(found, np.float32([[7, -3], [10, NAN]]))
    with pytest.raises(ValueError, match="row 1, a: found 'inf', expected a finite number"):
        read_labels(write(path, "a\ninf\n"), ("a", "b"), ["x", "y"], any_scale=True)


def test_what_is_written_to_fill_in_is_read_as_it_is(tmp_path):
    prompts = ["x", 'y, "quoted"\nand long', "z", "x"]
    labels = np.array([[1.0, NAN, 0.25], [NAN, NAN, NAN]])
    path = tmp_path / "l.csv"
    write_labels(path, ("a", "b", "c"), prompts, labels, [1, 3], ["a", "b"])
    assert path.read_text().splitlines()[0] == "row,prompt,a,b,c"
    assert path.read_bytes().split(b"\r\n")[1] == b"1,x,1,-,0.25"
    assert path.read_bytes().endswith(b"4,x,,,-\r\n")
    found = read_labels(path, ("a", "b", "c"), prompts)
    np.testing.assert_array_equal(found[0], np.float32([1, NAN, 0.25]))
    assert np.isnan(found[1:]).all() and len(found) == 4
    path.write_bytes(path.read_bytes().replace(b"4,x,,,-", b"4,x,0,1,-"))
    np.testing.assert_array_equal(
        read_labels(path, ("a", "b", "c"), prompts)[3], np.float32([0, 1, NAN])
    )


def test_columns_without_rows_are_no_labels(tmp_path):
    assert labels_of(write(tmp_path / "l.csv", "a,b\n")).shape == (0, 2)
    pq.write_table(pa.table({"a": pa.array([], pa.int8())}), tmp_path / "l.parquet")
    assert labels_of(tmp_path / "l.parquet").shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,gpt\n1,0\n", "found column 'gpt', expected models"),
        ("id\n1\n", "expected one of"),
        ("a\n1\n1\n1\n", "found 3 rows of labels for 2 prompts"),
        ("a,prompt\n1,other\n", "row 1: found prompt 'other', which is none of the task's"),
        ("a,prompt\n1,x\n0,x\n", "row 2: found labels of prompt 1 once more, after row 1"),
        ("a,row\n1,2\n0,2.0\n", "row 2: found labels of prompt 2 once more, after row 1"),
        ("a,row,prompt\n1,2,x\n", "row 1: found prompt 'x', the task's prompt 2 is 'y'"),
        ("a,row\n1,3\n", "row 1: found row '3', expected the number of a prompt, 1 to 2"),
        ("a,row\n1,0\n", "row 1: found row '0', expected the number"),
        ("a,row\n1,1.5\n", "row 1: found row '1.5', expected the number"),
        ("a\n2\n", "row 1, a: found '2', expected a score from 0 to 1 or nothing; of another"),
        ("a\n-1\n", "row 1, a: found '-1', expected a score from 0 to 1 or nothing"),
        ("a\ninf\n", "row 1, a: found 'inf', expected a score from 0 to 1 or nothing"),
        ("a\nyes\n", "row 1, a: found 'yes', expected a score from 0 to 1 or nothing"),
    ],
)
def test_bad_labels_are_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read_labels(write(tmp_path / "l.csv", text), ("a", "b"), ["x", "y"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.csv", "a,b\n1,0\n\n0,1\n", "line 3: found 0 cells, expected 2"),
        ("l.csv", "a,b\n1,0\n0\n", "line 3: found 1 cell, expected 2"),
        ("l.csv", "a,b\n1,0,1\n", "line 2: found 3 cells, expected 2"),
        ("l.csv", 'prompt,a\n"x\nx",1\ny\n', "line 4: found 1 cell, expected 2"),
        ("l.csv", 'a,b\n1,"0"x\n', "line 2: found no CSV record"),
        ("l.csv", "a,a\n1,0\n", "line 1: found several columns named 'a', expected one"),
        ("l.csv", "", "found an empty file, expected a header line"),
        ("l.csv", "id,prompt\n", "found columns .'id', 'prompt'., expected one of .'a', 'b'."),
        ("l.csv", "\n", "found an empty file, expected a header line"),
        ("l.csv", b"a\n1\n\xff\n", "line 3: found text that is not UTF-8"),
        ("l.csv", b"\xe9\n1\n", "line 1: found text that is not UTF-8"),
        ("l.jsonl", "", "found an empty file, expected a JSON object a line"),
        ("l.jsonl", "{}\n{}\n", "found columns .., expected one of .'a', 'b'."),
        ("l.jsonl", '{"a": 1}\n\n{"a": 0}\n', "line 2: found '', expected a JSON object"),
        ("l.jsonl", '{"a": 1, "a": 0}\n', "line 1: found the key 'a' twice in one object"),
        ("l.jsonl", "[1]\n", r"line 1: found \[1\], expected a JSON object"),
        ("l.jsonl", b'{"a": 1}\n{"\xff": 1}\n', "line 2: found text that is not UTF-8"),
        ("l.parquet", "text", "found no readable Parquet file"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=words) as error:
        labels_of(path)
    assert str(error.value).startswith(str(path))


def test_bad_columns_of_parquet_are_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([0])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="found a column name twice in .'a', 'a'."):
        labels_of(tmp_path / "twice.parquet")
    pq.write_table(pa.table({"id": pa.array([], pa.int8())}), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="found columns .'id'., expected one of .'a', 'b'."):
        labels_of(tmp_path / "none.parquet")
