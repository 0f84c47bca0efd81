"""Damaged files give a table or an error that names them; benchmarks/fuzz_readers.py, in small."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchrouter import read_table as read

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import fuzz_inputs
import fuzz_readers


def test_a_thousand_mutations():
    outcomes = list(fuzz_readers.fuzz(fuzz_inputs.EXAMPLES, 1_000, seed=0))
    assert [outcome.number for outcome in outcomes] == list(range(1_000))
    assert [o for o in outcomes if o.what == fuzz_readers.FINDING] == []
    counts = Counter(outcome.what for outcome in outcomes)
    # Most of the mutations are errors, many are harmless; errors of text mostly tell a place.
    assert counts[fuzz_readers.READ] > 200 and counts[fuzz_readers.PLACED] > 300
    assert {outcome.example for outcome in outcomes} == set(fuzz_inputs.EXAMPLES)


def test_every_format_has_an_example(tmp_path):
    assert fuzz_readers.without_example() == []
    for number, (name, example) in enumerate(fuzz_inputs.EXAMPLES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert read(example(folder)).n_records >= 3, name


def test_mutations_are_seeded_and_change_something():
    content = b'{"prompt": "x", "a": 1}\n'
    first, again = (fuzz_inputs.mutated(content, random.Random(i)) for i in (3, 3))
    assert first == again
    different = [fuzz_inputs.mutated(content, random.Random(i)) != content for i in range(200)]
    assert np.mean(different) > 0.8


def aborts(folder: Path) -> Path:
    os.abort()


def hangs(folder: Path) -> Path:
    time.sleep(60)
    return folder


@pytest.mark.parametrize(
    ("example", "words"),
    [(aborts, "exit code -6"), (hangs, "no answer in 4 s")],
)
def test_crashes_and_hangs_are_found(example, words):
    plain = fuzz_inputs.EXAMPLES["table, wide.csv"]
    bad, other = fuzz_readers.fuzz({"bad": example, "table": plain}, 2, seed=0, deadline=4)
    assert (bad.number, bad.example, bad.what) == (0, "bad", fuzz_readers.FINDING)
    assert words in bad.text
    # Another process goes on.
    assert (other.number, other.example) == (1, "table") and other.what != fuzz_readers.FINDING


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ValueError("{}/t.csv, row 3: found 1 field"), fuzz_readers.PLACED),
        (ValueError("{}/t.csv is empty"), fuzz_readers.NAMED),
        (FileNotFoundError("{}/t.csv: no such file"), fuzz_readers.NAMED),
        (ValueError("is empty"), fuzz_readers.FINDING),
        (KeyError("{}/t.csv"), fuzz_readers.FINDING),
        (pa.ArrowInvalid("{}/t.csv, row 3"), fuzz_readers.FINDING),
        (UnicodeEncodeError("utf-8", "{}/t.csv", 0, 1, "{}/t.csv"), fuzz_readers.FINDING),
    ],
)
def test_which_errors_are_findings(tmp_path, error, what):
    parts = [part.format(tmp_path) if isinstance(part, str) else part for part in error.args]
    assert fuzz_readers.judged(type(error)(*parts), tmp_path)[0] == what


# What the fuzzer found, by hand.


def test_text_that_is_not_utf8_in_parquet_is_named(tmp_path):
    for text in (pa.string(), pa.large_string()):
        raw = pa.array([b"a", b"\xff"], pa.binary() if text == pa.string() else pa.large_binary())
        column = pa.Array.from_buffers(text, 2, raw.buffers())
        numbers = pa.array([1.0, 0.0])
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"prompt": column, "a": numbers}), path)
        with pytest.raises(ValueError, match=r"t.parquet, column 'prompt' cannot be read: .*UTF8"):
            read(path)
        long = {"model": column, "prompt": column, "sample_id": column, "score": numbers}
        pq.write_table(pa.table(long), path)
        with pytest.raises(ValueError, match=r"t.parquet, column '\w+' cannot be read: .*UTF8"):
            read(path)


def test_a_parquet_file_that_miscounts_its_rows_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"prompt": list("abcde"), "a": [1.0] * 5}), path)
    whole = path.read_bytes()
    lies = 0
    for at in range(4, len(whole)):
        if whole[at] == 2 * 5:  # whole numbers are written doubled
            path.write_bytes(whole[:at] + bytes([2 * 3]) + whole[at + 1 :])
            try:
                lies += pq.read_metadata(path).num_rows == 3
            except pa.ArrowException:
                continue
            try:
                assert read(path).n_records == 5
            except ValueError as error:
                assert "t.parquet" in str(error)
    assert lies > 0


def test_a_parquet_column_whose_name_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"prompt": ["x"], "modelname": [1.0]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"modelname", b"model\xffame"))
    with pytest.raises(ValueError, match="t.parquet is not a readable Parquet file"):
        read(path)


def test_a_csv_row_with_too_many_fields_that_is_not_utf8(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"prompt,a\nx,1\ny,1,\xff\n")
    where = r"t.csv, row 2 \(line 3\): found text that is not UTF-8"
    with pytest.raises(ValueError, match=where):
        read(path)
    assert read(path, on_error="skip").prompts == ["x"]
    path.write_bytes(b"prompt,a\nx,1\ny\xe2\x80")  # cut within a character
    with pytest.raises(ValueError, match=where):
        read(path)


@pytest.mark.parametrize("depth", [100, 900, 940, 950, 960, 970, 980, 20_000])
@pytest.mark.parametrize("form", ["[{}]", '{{"a": {}}}'])
def test_deep_nesting_is_named(tmp_path, depth, form):
    start, end = form.split("{}") if form == "[{}]" else ('{"a": ', "}")
    nested = start * depth + "1" + end * depth
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"prompt": "x", "a": 1}}\n{{"prompt": "y", "a": {nested}}}\n')
    with pytest.raises(ValueError, match=r"t.jsonl, row 2 \(line 2\)"):
        read(path)
    path.write_text(f'{{"prompt": "x", "a": 1}}\n{nested}\n')
    with pytest.raises(ValueError, match=r"t.jsonl, row 2 \(line 2\)|has no column|prompt is None"):
        read(path)
    path.write_text('{"prompt": "x", "a": 1}\n')
    (tmp_path / "t.json").write_text(f'{{"thresholds": {{"t": {nested}}}}}')
    with pytest.raises(ValueError, match=r"t\.json"):
        read(path)


def test_huge_numbers_of_a_sidecar_are_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "x", "a": 1}\n')
    (tmp_path / "t.json").write_text('{"thresholds": {"t": 1' + "0" * 400 + "}}")
    with pytest.raises(
        ValueError, match=r"t\.json: thresholds of 't' is 1000.*, expected a finite"
    ):
        read(path)
