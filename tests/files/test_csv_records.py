"""Records of CSV: what Python's csv module finds, for fields of any length."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchrouter.files.csv_records import CsvError, CsvRecords


def records(text: str) -> list[list[str]]:
    return list(CsvRecords(io.StringIO(text, newline="\n")))


FIELDS = st.text(st.sampled_from('ab," \n\u2028é'), max_size=6)


@given(
    st.lists(st.lists(FIELDS, min_size=1, max_size=4), max_size=5),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_csv_writes_is_read_back(rows, end, quoting):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end, quoting=quoting).writerows(rows)
    assert records(file.getvalue()) == rows


@given(st.text(st.sampled_from('ab,"\n'), max_size=12))
def test_every_text_is_read_as_the_csv_module_reads_it(text):
    expected = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    found = CsvRecords(io.StringIO(text, newline="\n"))
    while True:
        try:
            record = next(expected, None)
        except csv.Error:
            with pytest.raises(CsvError):
                next(found)
            return
        assert next(found, None) == record
        assert found.line_num == expected.line_num
        if record is None:
            return


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"a"b\n', "a quote that closes before the end"),
        ("a\rb\n", "a carriage return within a line"),
        ('"a",b\rc\n', "a carriage return within a line"),
    ],
)
def test_after_a_bad_record_reading_goes_on_with_the_next_line(line, words):
    found = CsvRecords(io.StringIO(line + 'x,"y"\n', newline="\n"))
    with pytest.raises(CsvError, match=words):
        next(found)
    assert next(found) == ["x", "y"]


def test_a_quote_that_is_not_closed_is_an_error():
    found = CsvRecords(io.StringIO('"a\nb\n', newline="\n"))
    with pytest.raises(CsvError, match="an opening quote without a closing one"):
        next(found)
    assert (found.line_num, next(found, None)) == (2, None)
