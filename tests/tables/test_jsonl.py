"""JSONL: Arrow's blocks say what Python's decoder says; texts are kept once; odd text, numbers."""

from __future__ import annotations

import gzip
import io
import json
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_from_arrow
from benchrouter.tables.sources import columns, jsonl

NAN = float("nan")
LONG = ("model", "dataset", "sample_id", "prompt", "score")


def put(path, lines):
    """Write lines: bytes or text as they are, objects as JSON."""
    texts = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    path.write_bytes(b"\n".join(t.encode() if isinstance(t, str) else t for t in texts) + b"\n")
    return path


def content(source):
    """Everything that a source says, ready to be compared."""
    columns = {
        name: (str(kind), source.load(name).to_pylist()) for name, kind in source.columns.items()
    }
    not_text = {name: cells.tolist() for name, cells in source.not_text.items()}
    places = source.positions.tolist(), source.n_positions, source.lines().tolist()
    return repr((columns, not_text, source.untyped, source.unreadable, places))


def both_ways(data, needed, batch_rows):
    """The source as it is read, the source by Python's decoder alone, and the blocks of Arrow."""
    blocks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BATCH_ROWS", batch_rows)

        def counted(lines, schema):
            table = read_block(lines, schema)
            blocks.append(table is not None)
            return table

        read_block = jsonl.read_block
        patch.setattr(jsonl, "read_block", counted)
        found = jsonl.read_jsonl(lambda: io.BytesIO(data), name="t", stem="t", needed=needed)
        patch.setattr(jsonl, "read_block", lambda lines, schema: None)
        expected = jsonl.read_jsonl(lambda: io.BytesIO(data), name="t", stem="t", needed=needed)
    return found, expected, sum(blocks)


FIRST = b'{"s": "x", "i": 1, "f": 0.5, "b": true, "n": null}\n'
ODD = [
    b'{"s": "x", "s": "y"}',
    b'{"s": "x"}{"s": "y"}',
    b'{"s": "x"} {"s": "y"}',
    b'{"s": \n"x"}',
    b'{"s": "x",\n"i": 1}',
    b'{"s": "x"}\n{"s": "y"}{"s": "z"}',
    b'{"f": 1}\n\n{"f": 0.25}{"f": 0.5}',
    b'{"s": "x"}\0',
    b'{"s": "x"}\0}',
    b'{"s": "x\0"}',
    b'{"s": "a\tb"}',
    b'{"s": "a\\u0000b"}',
    b'{"s": "\\ud83d\\ude00"}',
    b'{"s": "\\ud83d"}',
    b'{"s": "\\ude00"}',
    b'{"s": "\\uDE00x"}',
    b'{"s": "\xed\xa0\x80"}',
    b'{"s": "\xff"}',
    b'{"s": "\xc0\x80"}',
    b'{"\xff": "x"}',
    '{"s": "a\u2028b\u0085c\u00e9\U0001f600"}'.encode(),
    b'\xef\xbb\xbf{"s": "x"}',
    b'{"s": "x"}\r',
    b' {"s": "x"}',
    b'{"s": "x"} ',
    b"{}",
    b"",
    b"[]",
    b"null",
    b'{"f": NaN}',
    b'{"f": nan}',
    b'{"f": Infinity}',
    b'{"f": -Infinity}',
    b'{"f": Inf}',
    b'{"f": "NaN"}',
    b'{"f": 1e999}',
    b'{"f": 1e-999}',
    b'{"f": -0.0}',
    b'{"f": -0}',
    b'{"f": 1}',
    b'{"f": 9007199254740993}',
    b'{"f": 9223372036854775807}',
    b'{"f": 9223372036854775808}',
    b'{"f": 123456789012345678901234567890}',
    b'{"f": 0.1e1}',
    b'{"f": 01}',
    b'{"f": 1.}',
    b'{"f": .5}',
    b'{"f": +1}',
    b'{"f": 0x10}',
    b'{"f": 1_0}',
    b'{"f": 0.30000000000000004}',
    b'{"f": 2.2250738585072011e-308}',
    b'{"f": 179769313486231580793e289}',
    b'{"f": -}',
    b'{"i": 9223372036854775807}',
    b'{"i": -9223372036854775808}',
    b'{"i": 9223372036854775808}',
    b'{"i": 1.0}',
    b'{"i": 1e2}',
    b'{"i": -0}',
    b'{"i": "1"}',
    b'{"i": true}',
    b'{"i": NaN}',
    b'{"b": 1}',
    b'{"b": "true"}',
    b'{"b": TRUE}',
    b'{"n": 1}',
    b'{"n": "x"}',
    b'{"s": 1}',
    b'{"s": ["x"]}',
    b'{"s": {"s": "x"}}',
    b'{"s": null, "f": null}',
    b'{"new": 1}',
    b'{"\\u0073": "escaped key"}',
    b'{"s": "x", "\\u0073": "y"}',
    b'{"": "x"}',
    b'{"s": "x",}',
    b'{"s": "x" /* c */}',
    b"{'s': 'x'}",
    b'{"s": "\\x"}',
    b'{"s": "2020-01-01 00:00:00"}',
    b'{"s": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"i": 1' + b"0" * 5000 + b"}",
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kept", [None, frozenset({"s", "f", "i"})])
def test_an_odd_line_among_plain_ones_reads_as_by_python(odd, kept):
    plain = b'{"s": "y", "i": 2, "f": 0.75, "b": false, "n": null}\n{"s": "x", "i": 3}\n'
    data = FIRST + plain + odd + b"\n" + plain
    found, expected, _ = both_ways(data, lambda columns: kept, batch_rows=2)
    assert content(found) == content(expected)
    # The same at the end of the file, without a line feed.
    found, expected, _ = both_ways(FIRST + plain + odd, lambda columns: kept, batch_rows=2)
    assert content(found) == content(expected)


def test_plain_lines_are_read_in_blocks():
    _, _, n_blocks = both_ways(FIRST * 7, lambda columns: None, batch_rows=2)
    assert n_blocks == 3  # all but the first, which tells the columns
    # A column that becomes mixed is read again by Python, which knows how its cells are spelled.
    lines = [b'{"f": 0.5}', b'{"f": 1}', b'{"f": 1}', b'{"f": 2}', b'{"f": "x"}']
    found, _, n_blocks = both_ways(b"\n".join(lines), lambda columns: None, batch_rows=1)
    assert n_blocks == 3 and found.load("f").to_pylist() == ["0.5", "1", "1", "2", "x"]


VALUES = st.one_of(
    st.sampled_from(["x", "y", "", " ", "é", "\u2028", "nan", "1", "0.5", "2020-01-01"]),
    st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, 2**63, -(2**70)]),
    st.sampled_from([0.0, 0.5, 1.0, 1e300, 5e-324, NAN, float("inf")]),
    st.booleans(),
    st.none(),
    st.sampled_from([[], [1], {}, {"s": 1}]),
)
USUAL = {
    "s": st.sampled_from(["x", "y", "\n", "é"]),
    "i": st.integers(-3, 3),
    "f": st.sampled_from([0.0, 0.5, 1.0]),
    "b": st.booleans(),
    "n": st.none(),
}


@st.composite
def files(draw):
    """Bytes of a JSONL file: mostly plain, with some odd values, keys and bytes."""
    lines = []
    for _ in range(draw(st.integers(1, 12))):
        row = {key: draw(usual) for key, usual in USUAL.items() if draw(st.integers(0, 9))}
        if draw(st.integers(0, 7)) == 0:
            row[draw(st.sampled_from([*USUAL, "other"]))] = draw(VALUES)
        text = json.dumps(row, ensure_ascii=draw(st.booleans())).encode()
        if draw(st.integers(0, 15)) == 0:
            at = draw(st.integers(0, len(text)))
            text = text[:at] + draw(st.binary(max_size=2)) + text[at + draw(st.integers(0, 2)) :]
        lines.append(text)
    if draw(st.integers(0, 4)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(ODD)))
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


@settings(max_examples=400, deadline=None)
@given(data=files(), kept=st.sampled_from([None, frozenset("sf"), frozenset("ibn")]))
def test_blocks_read_as_by_python(data, kept):
    for batch_rows in (1, 3):
        found, expected, _ = both_ways(data, lambda columns: kept, batch_rows)
        assert content(found) == content(expected)


def row_of(model, i, **changes):
    row = dict(zip(LONG, (model, f"d{i % 2}", f"s{i}", f"prompt {i}", i % 2), strict=True))
    return row | changes


def test_a_prompt_of_many_models_is_kept_once(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 8)
    rows = [row_of(f"m{m}", i, answer="long " * 50) for m in range(5) for i in range(20)]
    needed = frozenset(LONG)
    path = put(tmp_path / "t.jsonl", rows)
    source = jsonl.read_jsonl(
        partial(open, path, "rb"), name="t", stem="t", needed=lambda columns: needed
    )
    prompts = source.load("prompt")
    assert prompts.num_chunks == 1
    assert prompts.chunk(0).dictionary.to_pylist() == [f"prompt {i}" for i in range(20)]
    assert source.columns["prompt"] == pa.large_string()
    # Nobody asks for the answers: only that there is such a column is known.
    assert source.columns["answer"] == pa.null() and source.load("answer").null_count == 100
    found = read(tmp_path / "t.jsonl")
    assert found.prompts == [f"prompt {i}" for i in range(20)]
    assert_array_equal(found.scores, np.repeat([[0], [1]] * 10, 5, axis=1))


def test_which_columns_are_kept_follows_the_layout(tmp_path):
    rows = [row_of(m, i, n=i, prompt=f"p{m}{i}", sample_id=f"{m}{i}") for m in "ab" for i in (0, 1)]
    path = put(tmp_path / "t.jsonl", rows)
    assert read(path).models == ("a", "b")
    assert read(path, layout="wide").models == ("n",)  # and score is a name of ours
    (tmp_path / "t.json").write_text('{"layout": "wide", "model_columns": ["n"]}')
    assert_array_equal(read(path).scores, [[0], [1], [0], [1]])
    assert read(path, layout="long").models == ("a", "b")
    renamed = [{"who" if k == "model" else k: v for k, v in row.items()} for row in rows]
    path = put(tmp_path / "u.jsonl", renamed)
    assert read(path, columns={"model": "who"}).models == ("a", "b")
    # The first rows lack the column of the model, the later ones have it.
    late = [{"prompt": "p", "sample_id": "0"}, *rows]
    found = read(put(tmp_path / "v.jsonl", late), on_error="skip")
    assert (found.models, len(found.skipped)) == (("a", "b"), 1)


def test_mixed_prompts_of_a_long_file(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 2)
    rows = [row_of("a", i) for i in range(5)] + [row_of("a", 5, prompt=5), row_of("a", 6)]
    path = put(tmp_path / "t.jsonl", rows)
    with pytest.raises(ValueError, match=r"row 6 \(line 6\): prompt is 5, expected text"):
        read(path)
    found = read(path, on_error="skip")
    assert found.prompts == [f"prompt {i}" for i in (0, 1, 2, 3, 4, 6)]


def wrapped(path, content):
    """Write bytes, compressed if the suffix says so."""
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


ODD_TEXT = "a\u2028b\u0085c\x1cd\x0be\u00a0f\U0001f600"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_line_separators_in_strings_bom_and_crlf(tmp_path, layout, suffix, bom, end):
    prompts = [f"{ODD_TEXT} {i}" for i in range(3)]
    head = ["sample_id", "prompt", "m"]
    if layout == "long":
        head = ["sample_id", "prompt", "score", "model"]
    cells = [[f"i\u2028{i}", prompts[i], i / 2, "m"][: len(head)] for i in range(3)]
    if suffix.startswith("jsonl"):
        lines = [json.dumps(dict(zip(head, row, strict=True)), ensure_ascii=False) for row in cells]
    else:
        lines = [",".join(head), *(",".join(map(str, row)) for row in cells)]
    data = (bom + end.join(lines) + end).encode()
    found = read(wrapped(tmp_path / f"t.{suffix}", data))
    assert found.prompts == prompts
    assert found.sample_ids == [f"i\u2028{i}" for i in range(3)]
    assert_array_equal(found.scores, [[0], [0.5], [1]])
    # Such characters end no line: the bad row is named by the third or fourth line feed.
    data = data.replace(b"1.0", b"bad") if b"1.0" in data else data
    if suffix.startswith("csv"):
        with pytest.raises(ValueError, match=r"row 3 \(line 4\): score .*is 'bad'"):
            read(wrapped(tmp_path / f"t.{suffix}", data))
    else:
        with pytest.raises(ValueError, match=r"row 3 \(line 3\): found '.*, expected a JSON obj"):
            read(wrapped(tmp_path / f"t.{suffix}", data))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "x", "a": 1, "a": 0}', "found the key 'a' twice in one object"),
        ('{"prompt": "x", "\\u0061": 1, "a": 1}', "found the key 'a' twice"),
        ('{"prompt": "x", "a": 1, "n": {"k": 1, "k": 2}}', "found the key 'k' twice"),
    ],
)
def test_a_key_that_stands_twice_is_named(tmp_path, line, words):
    path = put(tmp_path / "t.jsonl", ['{"prompt": "v", "a": 1}', line])
    with pytest.raises(ValueError, match=rf"t.jsonl, row 2 \(line 2\): {words}"):
        read(path)
    assert read(path, on_error="skip").prompts == ["v"]


IDS = [2**53, 2**53 + 1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("more", [[], [2**63, 2**64 + 1, 10**30]])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_whole_numbers_of_any_size_are_ids(tmp_path, layout, more):
    ids = IDS + more
    names = {"a": 1} if layout == "wide" else {"model": "a", "score": 1}
    rows = [{"sample_id": i, "prompt": "x"} | names for i in ids]
    found = read(put(tmp_path / "t.jsonl", rows))
    assert found.sample_ids == [str(i) for i in ids]
    text = "sample_id,prompt,a\n" + "".join(f"{i},x,1\n" for i in ids)
    (tmp_path / "u.csv").write_text(text)
    assert read(tmp_path / "u.csv").sample_ids == found.sample_ids


def test_large_whole_numbers_are_scores(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 1)
    values = [0.5, 2**53 + 1, 2**63, 10**30, 1]
    rows = [{"prompt": "x", "a": value} for value in values]
    found = read(put(tmp_path / "t.jsonl", rows))
    assert_array_equal(found.scores[:, 0], np.array(values, dtype=np.float32))
    with pytest.raises(ValueError, match=r"row 1 .*score of model 'a' is 1(000)+, expected"):
        read(put(tmp_path / "t.jsonl", [{"prompt": "x", "a": 10**60}]))


MISSING_JSON = ["NaN", '"NaN"', '"nan"', '" NAN "', "null", '""', '"null"', '"NA"', '"na"']
MISSING_CSV = ["NaN", "nan", " NAN ", "", "null", "NULL", "NA", "na"]
NO_NUMBER = ["n/a", "#N/A", "None", "-", "?", "nan%", "<NA>", "-nan", "N.A."]


def test_how_a_missing_score_may_be_spelled(tmp_path):
    lines = [f'{{"prompt": "x", "a": {cell}, "b": 1}}' for cell in [*MISSING_JSON, "1"]]
    lines.append('{"prompt": "x", "b": 1}')
    found = read(put(tmp_path / "t.jsonl", lines), models=["a"])
    assert_array_equal(found.scores[:, 0], [NAN] * len(MISSING_JSON) + [1, NAN])
    lines = ["prompt,a,b", *(f"x,{cell},1" for cell in [*MISSING_CSV, "1"])]
    found = read(put(tmp_path / "t.csv", lines))
    assert_array_equal(found.scores[:, 0], [NAN] * len(MISSING_CSV) + [1])
    column = pa.array([NAN, None, 1.0])
    found = table_from_arrow(pa.table({"prompt": ["x"] * 3, "a": column}))
    assert_array_equal(found.scores[:, 0], [NAN, NAN, 1])


@pytest.mark.parametrize("cell", NO_NUMBER)
def test_other_words_are_no_missing_scores(tmp_path, cell):
    path = put(tmp_path / "t.jsonl", [{"prompt": "x", "a": 1}, {"prompt": "y", "a": cell}])
    with pytest.raises(ValueError, match=r"row 2 \(line 2\): score of model 'a' is '.*', expected"):
        read(path)
    path = put(tmp_path / "t.csv", ["prompt,a", "x,1", f"y,{cell}"])
    with pytest.raises(ValueError, match=r"row 2 \(line 3\): score of model 'a' is '.*', expected"):
        read(path)
    # Bare, only NaN is a number of JSON as Python writes it.
    path = put(tmp_path / "t.jsonl", [f'{{"prompt": "x", "a": {cell}}}'])
    with pytest.raises(ValueError, match=r"row 1 \(line 1\): found '.*', expected a JSON object"):
        read(path)


NUMBERS = [None, NAN, True, False, 3, -2.5, 2**64, "", " NaN ", "null", "NA", "TRUE", "false", "1"]
NUMBERS += [" -2.5e3\t", ".5", "1.", "+1"]
NONE = [
    10**400,
    float("inf"),
    "inf",
    "-Infinity",
    "1e999",
    "1_0",
    "0x1",
    "\u0663",
    "1 2",
    "nan%",
    "-",
]
NONE += [[1], {"a": 1}]


@pytest.mark.parametrize("value", NUMBERS + NONE, ids=repr)
def test_a_value_is_the_same_number_alone_and_in_a_column(value):
    line = json.dumps({"a": value}).encode()
    source = jsonl.read_jsonl(partial(io.BytesIO, line), name="t.jsonl", stem="t")
    values, bad = columns.numbers(source, "a")
    assert bad.tolist() == [value in NONE]
    if value in NONE:
        with pytest.raises(ValueError, match="expected a finite number or nothing"):
            columns.number(value)
    else:
        found = columns.number(value)
        assert_array_equal(values, np.float32([NAN if found is None else found]))


def test_infinite_numbers_where_they_are_asked_for():
    assert columns.number("-inf", finite=False) == columns.number(-np.inf, finite=False) == -np.inf
    assert columns.number(0.5, finite=False) == 0.5 and columns.number(NAN, finite=False) is None
    with pytest.raises(ValueError, match="'x', expected a number or nothing"):
        columns.number("x", finite=False)
