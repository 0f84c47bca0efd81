"""Tables and prompts read CSV alike: the same cells, or the same refusal at the same line."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchrouter import read_table
from benchrouter.files.lines import LineFile
from benchrouter.prompts.batches import read_prompts
from benchrouter.prompts.records import records_of
from benchrouter.prompts.rejected import Rejected
from benchrouter.tables.sources import csv_file
from benchrouter.tables.sources.open import open_source


def as_table(path):
    """Cells of good rows, and (line, words) of bad ones."""
    source = open_source(path)
    columns = [source.load(name).to_pylist() for name in source.columns]
    cells = [list(row) for row in zip(*columns, strict=True)]
    lines = source.lines()
    assert len(lines) == source.n_positions == len(cells) + len(source.unreadable)
    return cells, [(int(lines[position]), found) for position, found in source.unreadable]


def as_prompts(path):
    cells, bad = [], []
    with LineFile(path) as file:
        found = records_of(file, "csv", name=file.name, prompt_column="prompt", first_row=0)
        for record in found:
            if not isinstance(record, Rejected):
                cells.append([record[0], *record[1].values()])
            elif "found 0 cells" not in record.reason:  # tables pass over empty lines
                bad.append((record.line, record.reason))
    return cells, bad


QUOTE = "found no CSV record (a quote that closes before the end of its field), expected 2 cells"
RETURN = "found no CSV record (a carriage return within a line), expected 2 cells"
UNCLOSED = "found no CSV record (an opening quote without a closing one), expected 2 cells"


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("rows", "cells", "bad"),
    [
        (b"x,1\n", [["x", "1"]], []),
        (b'"x",1\r\n"y, ""z""\r\nw",""', [["x", "1"], ['y, "z"\r\nw', ""]], []),
        (b'5" disk,"a"\n', [['5" disk', "a"]], []),
        (b'"x"y,1\nz,2\n', [["z", "2"]], [(2, QUOTE)]),
        (b'"x"y",1\nz,2\n', [["z", "2"]], [(2, QUOTE)]),
        (b'"x" ,1\n"z",2\n', [["z", "2"]], [(2, QUOTE)]),
        (b'x, "1"\n', [["x", ' "1"']], []),
        (b'x,1\n"y,2\nz,3\n', [["x", "1"]], [(3, UNCLOSED)]),
        (b"x\ry,1\nz,2\n", [["z", "2"]], [(2, RETURN)]),
        (b"x,1\ry,1\rz,2\n", [], [(2, RETURN)]),
        (b'"x\ry",1\n', [["x\ry", "1"]], []),
        (b"x,1\r", [["x", "1"]], []),
        (b"x\x00y,1\nz,\x00\n", [["x\x00y", "1"], ["z", "\x00"]], []),
        (
            b"\xff,1\nz,2\n",
            [["z", "2"]],
            [(2, "found text that is not UTF-8 (invalid start byte), expected a CSV record")],
        ),
        (b"x\nz,2\ny,1,3\n", [["z", "2"]], [
            (2, "found 1 cell, expected 2"), (4, "found 3 cells, expected 2"),
        ]),
        (b"x,1\n\n\r\ny,2\n\n", [["x", "1"], ["y", "2"]], []),
        (b"\xef\xbb\xbfx,1\n", [["\ufeffx", "1"]], []),
        (b"x;1\nx\t1\nx,1\n", [["x", "1"]], [
            (2, "found 1 cell, expected 2"), (3, "found 1 cell, expected 2"),
        ]),
        (b" x , NA\n", [[" x ", " NA"]], []),
        ("\u2028x\x85,\x0b\x0c\n".encode(), [["\u2028x\x85", "\x0b\x0c"]], []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("start", [b"prompt,a\n", b"\xef\xbb\xbf\r\nprompt,a\r\n"])
def test_the_same_cells_or_the_same_refusal(tmp_path, start, rows, cells, bad, ending):
    path = tmp_path / f"t.csv{ending}"
    with pa.output_stream(str(path)) as file:  # packed by its suffix
        file.write(start + rows)
    later = start.count(b"\n") - 1
    expected = cells, [(line + later, words) for line, words in bad]
    assert as_table(path) == expected
    assert as_prompts(path) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'"prompt"x,a\nx,1\n', "line 1: found no CSV header (a quote that closes before the end"),
        (b"\nprompt,\xff\nx,1\n", "line 2: found text that is not UTF-8 (invalid start byte)"),
        (b"prompt,a,a\nx,1,1\n", "line 1: found several columns named 'a', expected one"),
        (b"\n\n", ": found an empty file, expected a header line"),
    ],
)
def test_the_same_refusal_of_a_header(tmp_path, text, words):
    path = tmp_path / "t.csv"
    path.write_bytes(text)
    for read in (as_table, as_prompts):
        with pytest.raises(ValueError) as caught:
            read(path)
        assert words in str(caught.value) and str(caught.value).startswith(str(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.text(st.sampled_from('ab,,""\n\r\x00\ufeffé'), max_size=40),
    st.sampled_from([4, 16, 1 << 20]),
)
def test_every_text_is_read_alike(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", block)
    path = tmp_path / "t.csv"
    path.write_text(f"prompt,a\nz,z\n{text}", encoding="utf-8", newline="")
    cells, bad = as_table(path)
    # prompts refuse empty ones, which are cells of a table
    empty = [row for row in cells if not row[0].strip()]
    expected, refused = as_prompts(path)
    assert [row for row in cells if row[0].strip()] == expected
    assert bad == [(line, found) for line, found in refused if "empty prompt" not in found]
    assert len(empty) == sum("empty prompt" in found for _, found in refused)


def test_regular_files_are_read_by_arrow_alone(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("prompt,a\n" + '"x ""y"",\n\rz",1\r\n\n' * 1000, newline="")
    monkeypatch.setattr(csv_file, "BLOCK_BYTES", 64)
    monkeypatch.setattr(csv_file, "_read_any", lambda rows: pytest.fail("read by our own reader"))
    cells, bad = as_table(path)
    assert cells == [['x "y",\n\rz', "1"]] * 1000 and bad == []
    assert open_source(path).lines().tolist() == list(range(2, 3002, 3))


def test_skip_leaves_the_same_rows_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('prompt,a\nx,1\n"y"y,1\nz,0\n', encoding="utf-8")
    words = "found no CSV record (a quote that closes before the end of its field)"
    with pytest.raises(ValueError, match="line 3") as caught:
        read_table(path)
    assert words in str(caught.value)
    with pytest.raises(ValueError, match="line 3") as caught:
        list(read_prompts(path))
    assert words in str(caught.value)
    table = read_table(path, on_error="skip")
    assert table.prompts == ["x", "z"] and len(table.skipped) == 1 and words in table.skipped[0]
    (batch,) = read_prompts(path, on_error="skip")
    assert list(batch.prompts) == ["x", "z"] and len(batch.rejected) == 1
