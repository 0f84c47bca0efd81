"""JSON objects as json reads them, of lines and arrays, in little memory; where they break."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchrouter.files import json_objects
from benchrouter.files.json_objects import document, items, objects

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES)


def values(found):
    return [value for _, value in found]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(OBJECTS, min_size=1, max_size=6),
    block=st.sampled_from([1, 2, 3, 7, 64]),
    indent=st.sampled_from([None, 1]),
    escaped=st.booleans(),
    before=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n \n"]),
)
def test_objects_are_those_that_json_reads(
    tmp_path, monkeypatch, rows, block, indent, escaped, before
):
    monkeypatch.setattr(json_objects, "BLOCK_BYTES", block)
    path = tmp_path / "values.json"

    def write(value):
        text = json.dumps(value, indent=indent, ensure_ascii=escaped)
        path.write_bytes(before + text.encode())

    write(rows)
    assert values(items(path)) == values(objects(path)) == rows
    holder = {"before": rows, "items": rows, "after": 1.5}
    write(holder)
    assert values(items(path, "items")) == rows
    assert document(path) == holder
    lines = [json.dumps(row, ensure_ascii=escaped).encode() for row in rows]
    path.write_bytes(before + b"\r\n\n".join(lines))
    assert values(objects(path)) == rows


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_every_cut_is_an_error(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_objects, "BLOCK_BYTES", block)
    path = tmp_path / "cut.json"
    whole = (
        '{"é": "\\u00e9", "items": [{"a": [1, -2.5e3, true]}, {"b": [NaN, -Infinity, "x"]}]}'
    ).encode()
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        place = r"cut\.json, line 1, column \d+: found "
        with pytest.raises(ValueError, match=place):
            list(items(path, "items"))
        with pytest.raises(ValueError, match=place):
            document(path)
    path.write_bytes(whole)
    assert len(list(items(path, "items"))) == 2


DEEP = "[" * 200_000
OBJECT = "expected a JSON object"


@pytest.mark.parametrize("block", [2, 1 << 20])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "line 1, column 1: found the file's end, expected '['"),
        ("[{} {}]", "line 1, column 5: found '{}]', expected ',' or ']'"),
        ("[{},]", f"line 1, column 5: found ']', {OBJECT} (expecting value)"),
        ('[{},\n {"é": tru}]', f"line 2, column 8: found 'tru}}]', {OBJECT} (expecting value)"),
        ('[{"a": "x', f"line 1, column 8: found '\"x', {OBJECT} (unterminated string)"),
        ('[\n{"a": "\t"}]', "line 2, column 8: found '\\t\"}]', " + OBJECT + " (invalid control"),
        ("[" + "9" * 5000 + "]", "line 1, column 2: found '999"),
        (DEEP, "line 1, column 2: found '[["),
        ("[{}]\n]", "line 2, column 1: found ']', expected the end"),
        (b'[{},\n"\xc3\xa9", "\xff"]', "line 2, column 7: found text that is not UTF-8 (byte 0xff"),
        (b'[{}, "\xc3', "line 1, column 7: found text that is not UTF-8 (byte 0xc3, unexpected"),
        ("[]", None),
    ],
)
def test_where_an_array_breaks(tmp_path, monkeypatch, content, error, block):
    monkeypatch.setattr(json_objects, "BLOCK_BYTES", block)
    path = tmp_path / "wrong.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as caught:
        list(items(path))
    expected = f"{path} is empty: found no JSON object" if error is None else f"{path}, {error}"
    found = str(caught.value)
    # Of what follows, a small block shows less.
    assert found.partition(": found")[0] == expected.partition(": found")[0]
    assert block == 2 or found.startswith(expected)
    if content == DEEP:
        assert found.endswith("(nested too deeply)")


BAD = [
    ("3", "found 3, expected a JSON object"),
    ("[{}]", "found [{}], expected a JSON object"),
    ('{"a": {"b": 1, "\\u0062": 1}}', "found the key 'b' twice in one object, expected it once"),
    ('{"a": "x\\uD83d"}', "found '\\ud83d', half of a surrogate pair, expected text"),
    ('{"\\udc00": 1}', "found '\\udc00', half of a surrogate pair, expected text"),
]
GOOD = {"a": "\U0001f600", "n": 2**64}


@pytest.mark.parametrize(("bad", "why"), BAD)
def test_a_bad_object_is_named_and_the_next_one_read(tmp_path, bad, why):
    path = tmp_path / "x.json"
    good = json.dumps(GOOD)
    path.write_text(f"{good}\n\n{bad}\n{good}")
    assert list(objects(path)) == [
        (f"{path}, line 1", GOOD),
        (f"{path}, line 3", why),
        (f"{path}, line 4", GOOD),
    ]
    path.write_text(f"[{good},\n\n{bad}, {good}]")
    assert list(objects(path)) == [
        (f"{path}, item 1 (line 1)", GOOD),
        (f"{path}, item 2 (line 3)", why),
        (f"{path}, item 3 (line 3)", GOOD),
    ]
    path.write_text(bad)
    with pytest.raises(ValueError) as caught:
        document(path)
    assert str(caught.value) == f"{path}: {why}"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            b'{"a" 1}',
            "found '{\"a\" 1}', expected a JSON object (expecting ':' delimiter at column 6)",
        ),
        (b"{} {}", "found '{} {}', expected a JSON object (extra data at column 4)"),
        (b"  oops \r", "found 'oops', expected a JSON object (expecting value at column 3)"),
        (
            b'{"\xc3\xa9": \xff}',
            "found text that is not UTF-8 (byte 0xff, invalid start byte) at column 7",
        ),
        (b"oops", "found 'oops', expected a JSON object (expecting value)"),
        (b'{"a":' * 50_000, "(nested too deeply)"),
        (b'{"a": ' + b"9" * 5000 + b"}", "(exceeds the limit (4300"),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path, line, why):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"{}\n" + line + b"\n{}")
    first, (place, found), last = objects(path)
    assert (first[1], place, last[1]) == ({}, f"{path}, line 2", {})
    assert found == why if why.startswith("found") else why in found


def test_a_long_broken_line_is_shown_where_it_breaks(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "' + "x" * 3000 + '", "b": oops, "c": "' + "y" * 3000 + '"}\n')
    ((_, found),) = objects(path)
    assert '"b": oops, "c"' in found and found.endswith("(expecting value at column 3016)")
    assert len(found) < 200


def test_keys_around_an_array_stand_once(tmp_path):
    path = tmp_path / "x.json"
    for content, why in (
        ('{"rows": [{}],\n"rows": [{}]}', "line 2: found the key 'rows' twice in one object"),
        ('{"rows": [{}],\n"x": {"a": 1, "a": 2}}', "line 2: found the key 'a' twice in one object"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError) as caught:
            list(items(path, "rows"))
        assert str(caught.value) == f"{path}, {why}, expected it once"
    path.write_text('{"a": [], "rows": []}')
    with pytest.raises(ValueError, match=r"x\.json, rows is empty: found no JSON object"):
        list(items(path, "rows"))
    with pytest.raises(ValueError, match=r"found the keys \['a', 'rows'\], expected 'b' too"):
        list(items(path, "b"))


def test_halves_of_pairs_are_let_through_where_asked_for(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"a": "\\ud83d"}, {"b": 1, "b": 1}]')
    found = values(items(path, half_pairs=True))
    assert found[0] == {"a": "\ud83d"} and "the key 'b' twice" in found[1]


@pytest.mark.parametrize("content", ["[]", " [ ]\n", "\n", ""])
def test_a_file_without_objects_says_so(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is empty: found no JSON object"):
        list(objects(path))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("content", [b'[{"a": 1}, {"a": 2}]', b'{"a": 1}\n{"a": 2}'])
def test_packed_files_are_read_to_their_end(tmp_path, suffix, content):
    path = tmp_path / f"x.json.{suffix}"
    packed = (
        gzip.compress(content)
        if suffix == "gz"
        else pa.compress(content, codec="zstd", asbytes=True)
    )
    path.write_bytes(packed)
    assert values(objects(path)) == [{"a": 1}, {"a": 2}]
    path.write_bytes(packed[:-3])
    kind = {"gz": "gzip", "zst": "zstd"}[suffix]
    with pytest.raises(ValueError, match=rf"{path.name}: not a whole {kind} file"):
        list(objects(path))


@pytest.mark.parametrize("key", [None, "request_states"])
def test_a_file_takes_the_memory_of_a_block(tmp_path, key):
    path = tmp_path / "large.json"
    item = {"text": "x" * 1000, "tokens": [{"logprob": -0.5}] * 20}
    rows = [item] * 8000
    path.write_text(json.dumps(rows if key is None else {key: rows}, indent=1))
    assert path.stat().st_size > 40 * json_objects.BLOCK_BYTES
    tracemalloc.start()
    found = objects(path) if key is None else items(path, key)
    assert sum(1 for _, value in found if value == item) == 8000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * json_objects.BLOCK_BYTES
