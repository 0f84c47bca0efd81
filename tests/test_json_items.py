"""Items of a large JSON array: as json reads them, in little memory, and where they are broken."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchrouter.readers import json_items
from benchrouter.readers.json_items import items, read_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    values=st.lists(VALUES, max_size=6),
    block=st.sampled_from([1, 2, 3, 7, 64]),
    indent=st.sampled_from([None, 1]),
    escaped=st.booleans(),
)
def test_items_are_those_that_json_reads(tmp_path, monkeypatch, values, block, indent, escaped):
    monkeypatch.setattr(json_items, "BLOCK_BYTES", block)
    path = tmp_path / "values.json"
    path.write_bytes(json.dumps(values, indent=indent, ensure_ascii=escaped).encode())
    assert list(items(path)) == values
    holder = {"before": values, "items": values, "after": 1.5}
    path.write_bytes(json.dumps(holder, indent=indent, ensure_ascii=escaped).encode())
    assert list(items(path, "items")) == values
    assert read_object(path) == holder


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_every_cut_is_an_error(tmp_path, monkeypatch, block):
    monkeypatch.setattr(json_items, "BLOCK_BYTES", block)
    path = tmp_path / "cut.json"
    whole = (
        '{"é": "\\u00e9", "items": [{"a": [1, -2.5e3, true]}, null, NaN, -Infinity, "x"]}'.encode()
    )
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ValueError, match=r"cut\.json"):
            list(items(path, "items"))
    path.write_bytes(whole)
    assert len(list(items(path, "items"))) == 5


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "character 1: found the file's end, expected '['"),
        ("[1 2]", "character 4: found '2]', expected ',' or ']'"),
        ("[1,]", "character 4: Expecting value"),
        ('[{"a": 1, "b": tru}]', "character 16: Expecting value"),
        ('[{"a": {"b": 1, "b": 1}}]', "value at character 2: found the key 'b' twice in an object"),
        ("[" + "9" * 5000 + "]", "value at character 2: Exceeds the limit"),
        ("[1]\n]", "character 5: found ']', expected the end"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, content, error):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        list(items(path))
    assert str(caught.value).startswith(f"{path}, {error}")


def test_a_file_takes_the_memory_of_a_block(tmp_path):
    path = tmp_path / "large.json"
    item = {"text": "x" * 1000, "tokens": [{"logprob": -0.5}] * 20}
    path.write_text(json.dumps({"request_states": [item] * 8000}, indent=1))
    assert path.stat().st_size > 10 * json_items.BLOCK_BYTES
    tracemalloc.start()
    assert sum(1 for found in items(path, "request_states") if found == item) == 8000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * json_items.BLOCK_BYTES
