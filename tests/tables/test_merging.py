"""Several sources as one table: keys and prompts, other names of models, values that meet."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import write_table
from benchrouter.tables import formats
from benchrouter.tables.formats.long_rows import FormatReading, Rows
from benchrouter.tables.layouts.sidecar import Sidecar

NAN = float("nan")


def put(path, content):
    """Write text, a list of dicts as JSONL, or an object as JSON."""
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    elif isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode())
    return path


def wide(path, models, *rows):
    """Write a wide CSV of rows "dataset,sample_id,prompt,…"."""
    return put(path, "\n".join([f"dataset,sample_id,prompt,{models}", *rows]) + "\n")


def by_key(table):
    """Scores by (dataset, sample_id, prompt, model), without those that are missing."""
    found = {}
    for i in range(table.n_records):
        key = table.datasets[table.dataset[i]], table.sample_ids[i], table.prompts[i]
        for j, model in enumerate(table.models):
            if not np.isnan(table.scores[i, j]):
                found[(*key, model)] = float(table.scores[i, j])
    return found


# --- values that meet ----------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    """Three files that agree on record 1 and differ on record 2."""
    header = "a,cost::a,log_likelihood::a"
    return [
        wide(tmp_path / "one.csv", header, "d,1,x,1,0.25,", "d,2,y,0,0.5,-1"),
        wide(tmp_path / "two.csv", header, "d,1,x,1,,-4", "d,2,y,1,,-2"),
        wide(tmp_path / "three.csv", header, "d,1,x,,0.75,-6", "d,2,y,1,1.5,", "d,3,z,0,1,-1"),
    ]


def test_equal_values_count_once(three):
    found = read([three[0], wide(three[0].parent / "four.csv", "b,a", "d,2,y,1,0", "d,1,x,0,1")])
    assert_array_equal(found.scores, [[1, 0], [0, 1]])
    assert found.origin.duplicates == {("d", "a"): 2}
    assert found.origin.conflicts == {}
    assert found.origin.notes == ("scores read again with the same value, which count once: 2",)


def test_values_that_differ_are_an_error_that_shows_both(three):
    words = (
        r"two.csv, row 2 \(line 3\): score of model 'a' for \(dataset 'd', sample_id '2'\) is 1, "
        r"but 0 in .*one.csv, row 2 \(line 3\); expected one of them, or 'first' or "
        r"'mean' to settle it \(on_conflict, --on-conflict\)"
    )
    with pytest.raises(ValueError, match=words):
        read(three)
    words = r"two.csv, row 1 .*cost_usd of model 'a' .* is 0.75, but 0.25 in .*one.csv, row 1 "
    wide(three[1], "a,cost::a", "d,1,x,,0.75", "d,2,y,0,0.5")
    with pytest.raises(ValueError, match=words):
        read(three[:2])


def test_values_that_differ_by_little_are_shown_with_enough_digits(tmp_path):
    files = [
        wide(tmp_path / "one.csv", "a", "d,1,x,0.33333334"),
        wide(tmp_path / "two.csv", "a", "d,1,x,0.3333333"),
    ]
    with pytest.raises(ValueError, match=r"is 0.333333313, but 0.333333343 in"):
        read(files)


def test_the_first_of_values_that_differ(three):
    found = read(three, on_conflict="first")
    assert_array_equal(found.scores, [[1], [0], [0]])
    assert_array_equal(found.cost_usd, [[0.25], [0.5], [1]])
    assert_array_equal(found.log_likelihood, [[-4], [-1], [-1]])
    assert found.origin.duplicates == {("d", "a"): 1}
    assert found.origin.conflicts == {("d", "a"): 2}
    assert found.origin.notes == (
        "scores read again with the same value, which count once: 1",
        "score: values that differ from an earlier one, of which the first is kept: 2",
        "cost_usd: values that differ from an earlier one, of which the first is kept: 2",
        "log_likelihood: values that differ from an earlier one, of which the first is kept: 2",
    )
    reversed_ = read(three[::-1], on_conflict="first")
    assert by_key(reversed_)["d", "2", "y", "a"] == 1


def test_the_mean_of_values_that_differ(three):
    found = read(three, on_conflict="mean")
    assert_array_equal(found.scores, np.float32([[1], [2 / 3], [0]]))
    assert_array_equal(found.cost_usd, [[0.5], [1], [1]])
    assert_array_equal(found.log_likelihood, [[-5], [-1.5], [-1]])
    assert found.origin.notes[1].startswith("score: values that differ from")
    assert found.origin.notes[1].endswith("of which the mean is taken: 2")


def test_a_row_left_out_for_its_cost_has_no_say_in_the_scores(tmp_path):
    files = [
        wide(tmp_path / "one.csv", "a,cost::a,b", "d,1,x,1,0.5,"),
        wide(tmp_path / "two.csv", "a,cost::a,b", "d,1,x,1,0.75,0"),
        wide(tmp_path / "three.csv", "a,b", "d,1,x,1,1"),
    ]
    with pytest.raises(ValueError, match=r"three.csv, row 1 .*: score of model 'b' .* is 1, but 0"):
        read([files[0], wide(tmp_path / "four.csv", "b", "d,1,x,0"), files[2]])
    found = read(files, on_error="skip")
    # In the first pass the second file gives b a 0; without it, the third gives a 1.
    assert_array_equal(found.scores[:, found.models.index("b")], [NAN])
    assert [message.split(": ")[1].split(" of")[0] for message in found.skipped] == [
        "score",
        "cost_usd",
    ]


def test_prompts_that_differ(tmp_path):
    files = [
        wide(tmp_path / "one.csv", "a", "d,1,x,1", "d,2,y,0"),
        wide(tmp_path / "two.csv", "b", "d,1,x ,1", "d,2,Y,1"),
    ]
    ways = r"'first' .*\(on_conflict, --on-conflict\), 'prompt' .*\(align, --align\)"
    words = rf"prompt of .*'1'\) is 'x ', but 'x' in .*; expected one: {ways} \(1 more such"
    with pytest.raises(ValueError, match=words):
        read(files)
    found = read(files, on_conflict="first")
    assert (found.prompts, found.scores.tolist()) == (["x", "y"], [[1, 1], [0, 1]])
    assert found.origin.notes[0].endswith("the first prompt is kept (and 1 more such row)")
    assert read(files, on_conflict="mean") == found


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"model_params_billion": {"a": 7}}, {"model_params_billion": {"a": 8}}),
        ({"thresholds": {"d": 0.25}}, {"thresholds": {"d": 0.75}}),
        (
            {"model_price_usd_per_million_tokens": {"a": [1, 2]}},
            {"model_price_usd_per_million_tokens": {"a": [1, 3]}},
        ),
    ],
)
def test_of_what_sidecars_state_otherwise_the_first_is_kept(tmp_path, one, two):
    files = [wide(tmp_path / f"{n}.csv", "a", f"d,{n},x,1") for n in (1, 2)]
    put(tmp_path / "1.json", one)
    alone = read(files[0])
    put(tmp_path / "2.json", two)
    way = r"'first' keeps the first \(on_conflict, --on-conflict\)$"
    with pytest.raises(ValueError, match=rf"2.json, but .* in .*1.json; expected one: .*{way}"):
        read(files)
    found = read(files, on_conflict="first")
    assert read(files, on_conflict="mean") == found
    assert_array_equal(found.thresholds, alone.thresholds)
    assert_array_equal(found.params_b, alone.params_b)
    assert_array_equal(found.prices, alone.prices)
    assert found.origin.notes[0].endswith("1.json; the first is kept")


def test_given_thresholds_come_before_those_that_sidecars_state_otherwise(tmp_path):
    rows = [("d,1,x,1", "e,1,x,1"), ("d,2,x,1", "e,2,x,1")]
    files = [wide(tmp_path / f"{n}.csv", "a", *found) for n, found in enumerate(rows)]
    put(tmp_path / "0.json", {"thresholds": {"d": 0.5, "e": 0.5}})
    put(tmp_path / "1.json", {"thresholds": {"d": 0.6, "e": 0.5}})
    words = (
        r"'d' is 0.6 in .*, but 0.5 in .*; expected one: name it \(thresholds, --correct-above\)"
    )
    for chosen in (None, {"e": 0.7}):
        with pytest.raises(ValueError, match=words):
            read(files, thresholds=chosen)
    for chosen, expected in (
        ({"d": 0.7}, [0.7, 0.5]),
        ({"*": 0.7}, [0.7, 0.7]),
        ({"d": None}, [NAN, 0.5]),
    ):
        found = read(files, thresholds=chosen)
        assert_array_equal(found.thresholds, expected)
        assert not found.origin.notes


def test_a_source_of_which_nothing_is_left(tmp_path):
    one = wide(tmp_path / "one.csv", "a", "d,1,x,1")
    two = put(tmp_path / "two.csv", "dataset,sample_id,prompt,model,score\nd,1,x,b,high\n")
    three = wide(tmp_path / "three.csv", "a", "d,1,,1")
    for ways in ({}, {"align": "prompt"}, {"on_conflict": "mean"}):
        found = read([three, two, one], on_error="skip", **ways)
        assert (found.models, found.scores.tolist()) == (("a",), [[1]])
        assert len(found.skipped) == 2
    with pytest.raises(ValueError, match=r"no record is left .*; the first skipped: .*three.csv"):
        read([three, two], on_error="skip")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"on_conflict": "last"}, "on_conflict is 'last', expected one of error, first, mean"),
        ({"align": "hash"}, "align is 'hash', expected 'sample_id' or 'prompt'"),
    ],
)
def test_ways_that_there_are_not(three, wrong, words):
    with pytest.raises(ValueError, match=words):
        read(three, **wrong)


# --- aligned by prompts --------------------------------------------------------------------------


def test_records_with_equal_prompts_are_one(tmp_path):
    files = [
        wide(tmp_path / "one.csv", "a", "d,1,x,1", "d,2,y,0", "e,1,x,0.5"),
        wide(tmp_path / "two.csv", "b", "d,7,y,1", "d,8,x,0", "d,9,z,1"),
    ]
    found = read(files, align="prompt")
    assert found.sample_ids == ["1", "2", "1", "9"]
    assert found.prompts == ["x", "y", "x", "z"]
    assert_array_equal(found.scores, [[1, 0], [0, 1], [0.5, NAN], [NAN, 1]])
    # The rows of both files in turn.
    assert_array_equal(found.source_rows, [0, 1, 2, 5])
    assert found.n_source_rows == 6


def test_prompts_are_compared_as_they_are(tmp_path):
    files = [
        put(tmp_path / f"{name}.jsonl", [{"dataset": "d", "prompt": text, name: 1}])
        for name, text in (("a", "x"), ("b", "x "), ("c", "X"), ("e", "x"))
    ]
    found = read(files, align="prompt")
    assert found.prompts == ["x", "x ", "X"]
    assert by_key(found)["d", "1", "x", "e"] == 1


def test_sample_ids_of_other_prompts_are_told_apart(tmp_path):
    files = [
        wide(tmp_path / "one.csv", "a", "d,1,x,1", "d,1#2,w,1", "e,1,x,1"),
        wide(tmp_path / "two.csv", "a", "d,1,y,1", "d,1#2,z,1"),
        wide(tmp_path / "three.csv", "a", "d,1,v,1", "d,2,x,1"),
    ]
    found = read(files, align="prompt")
    assert list(zip(found.sample_ids, found.prompts, strict=True)) == [
        ("1", "x"),
        ("1#2", "w"),
        ("1", "x"),
        ("1#3", "y"),
        ("1#2#2", "z"),
        ("1#4", "v"),
    ]
    assert found.origin.notes[0].startswith("3 records had the sample_id of another prompt")
    write_table(found, tmp_path / "merged.parquet")
    assert read(tmp_path / "merged.parquet") == found
    # By sample_ids, these are contradictions.
    with pytest.raises(ValueError, match="two.csv, row 1 .*: prompt of .* is 'y', but 'x' in "):
        read(files)


def test_equal_prompts_within_a_source_are_one_record(tmp_path):
    path = wide(tmp_path / "one.csv", "a,b", "d,1,x,1,", "d,2,x,1,0", "d,3,x,0,1", "e,3,x,0,1")
    with pytest.raises(
        ValueError,
        match=r"row 3 \(line 4\): score of model 'a' for \(dataset 'd', sample_id '3'\) is 0, "
        r"but 1 in .*row 1 \(line 2\)",
    ):
        read(path, align="prompt")
    first = read(path, align="prompt", on_conflict="first")
    assert first.sample_ids == ["1", "3"]
    assert_array_equal(first.scores, [[1, 0], [0, 1]])
    assert first.origin.duplicates == {("d", "a"): 1}
    assert first.origin.conflicts == {("d", "a"): 1, ("d", "b"): 1}
    mean = read(path, align="prompt", on_conflict="mean")
    assert_array_equal(mean.scores, np.float32([[2 / 3, 0.5], [0, 1]]))
    skipped = read(path, align="prompt", on_error="skip")
    assert_array_equal(skipped.scores, [[1, 0], [0, 1]])
    assert len(skipped.skipped) == 1


def test_source_rows_of_long_files_aligned_by_prompts(tmp_path):
    row = {"model": "a", "dataset": "d", "score": 1}
    one = put(
        tmp_path / "one.jsonl",
        [row | {"sample_id": "1", "prompt": "x"}, row | {"sample_id": "2", "prompt": "y"}],
    )
    two = put(
        tmp_path / "two.jsonl",
        [
            row | {"sample_id": "1", "prompt": "z"},
            row | {"sample_id": "2", "prompt": ""},
            row | {"sample_id": "3", "prompt": "y", "model": "b"},
            row | {"sample_id": "4", "prompt": "w"},
        ],
    )
    found = read([one, two], align="prompt", on_error="skip")
    assert found.prompts == ["x", "y", "z", "w"]
    # One is skipped, and still has its place.
    assert_array_equal(found.source_rows, [0, 1, 2, 5])
    assert found.n_source_rows == 6


# --- other names of models -----------------------------------------------------------------------


@pytest.fixture
def two_names(tmp_path):
    """Files that call one model openai/gpt2 and huggingface/gpt2."""
    one = wide(tmp_path / "one.csv", "openai/gpt2,b", "d,1,x,1,0")
    two = wide(tmp_path / "two.csv", "cost::hf/gpt2,hf/gpt2", "d,2,y,0.5,0")
    put(tmp_path / "two.json", {"model_params_billion": {"hf/gpt2": 1.5}})
    return [one, two]


ALIASES = "# names\r\n\n openai/gpt2 = gpt-2 ,hf/gpt2  # of the hub\nb = meta/b\n"


@pytest.mark.parametrize("kind", ["mapping", "file"])
def test_other_names_become_one(two_names, tmp_path, kind):
    aliases = {"openai/gpt2": ["gpt-2", "hf/gpt2"], "b": "meta/b"}
    if kind == "file":
        aliases = put(tmp_path / "aliases.txt", ALIASES)
    found = read(two_names, aliases=aliases)
    assert found.models == ("openai/gpt2", "b")
    assert_array_equal(found.scores, [[1, 0], [0, NAN]])
    assert_array_equal(found.cost_usd, [[NAN, NAN], [0.5, NAN]])
    assert_array_equal(found.params_b, [1.5, NAN])
    assert found.origin.notes == (
        "aliases: no source has a model 'gpt-2' (another name of 'openai/gpt2')",
        "aliases: no source has a model 'meta/b' (another name of 'b')",
    )
    # The first name is the one to ask for.
    assert read(two_names, aliases=aliases, models=["openai/gpt2"]).models == ("openai/gpt2",)
    with pytest.raises(ValueError, match=r"unknown models \['hf/gpt2'\]; the input has \['openai"):
        read(two_names, aliases=aliases, models=["hf/gpt2"])


def test_two_columns_of_a_source_become_one_model(tmp_path):
    aliases = {"a": "A"}
    path = wide(tmp_path / "one.csv", "A,b,a", "d,1,x,1,0,", "d,2,y,,0,0", "d,3,z,1,1,1")
    found = read(path, aliases=aliases)
    assert found.models == ("a", "b")
    assert_array_equal(found.scores, [[1, 0], [0, 0], [1, 1]])
    wide(path, "A,b,a", "d,1,x,1,0,", "d,2,y,0.5,0,0")
    with pytest.raises(
        ValueError,
        match=r"one.csv, row 2 \(line 3\): score of model 'a' for .*'2'\) is 0, "
        r"but 0.5 in .*one.csv, row 2 \(line 3\) \(read as 'A'\)",
    ):
        read(path, aliases=aliases)
    assert_array_equal(read(path, aliases=aliases, on_conflict="first").scores, [[1, 0], [0.5, 0]])
    mean = read(path, aliases=aliases, on_conflict="mean")
    assert_array_equal(mean.scores, [[1, 0], [0.25, 0]])
    skipped = read(path, aliases=aliases, on_error="skip")
    assert (skipped.sample_ids, len(skipped.skipped)) == (["1"], 1)
    wide(path, "A,a", "d,2,y,0.5,0")
    with pytest.raises(ValueError, match=r"no record is left.*; the first skipped: .*row 1"):
        read(path, aliases=aliases, on_error="skip")


def test_two_names_in_a_long_file(tmp_path):
    row = {"dataset": "d", "sample_id": "1", "prompt": "x"}
    rows = [row | {"model": "a", "score": 1}, row | {"model": "A", "score": 0}]
    path = put(tmp_path / "one.jsonl", rows)
    with pytest.raises(
        ValueError, match=r"row 2 .*: score of model 'a' \(read as 'A'\) .* is 0, but 1 in .*row 1 "
    ):
        read(path, aliases={"a": "A"})
    assert_array_equal(read(path, aliases={"a": "A"}, on_conflict="mean").scores, [[0.5]])


def test_a_sidecar_that_states_two_values_of_one_model(tmp_path):
    path = wide(tmp_path / "one.csv", "a,A", "d,1,x,1,1")
    put(tmp_path / "one.json", {"model_params_billion": {"a": 1, "A": 2}})
    with pytest.raises(ValueError, match=r"one.json: two names of model 'a' state 1.0 and 2.0"):
        read(path, aliases={"a": "A"})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a = b\nb = c", "line 2: 'b' has other names, but is another name of 'a' in .*line 1"),
        ("a = b\nb = a", "'[ab]' has other names, but is another name of '[ab]'"),
        ("a = a", "line 1: 'a' has other names, but is another name of 'a'"),
        ("a = c\n\nb = c", "line 3: 'c' is another name of 'b', but of 'a' in .*, line 1"),
        ("a = b\nc", "line 2: found 'c', expected NAME = OTHER NAME, with blanks around '='"),
        ("a=b", "line 1: found 'a=b', expected NAME = OTHER NAME, with blanks around '='"),
        ("a = b,, c", "line 1: found 'a' beside a blank name"),
        ("a = ", "line 1: found 'a' beside a blank name"),
        ("= b", "line 1: found 'b' beside a blank name"),
    ],
)
def test_aliases_that_cannot_be(tmp_path, lines, words):
    table = wide(tmp_path / "one.csv", "a,b", "d,1,x,1,1")
    with pytest.raises(ValueError, match=words):
        read(table, aliases=put(tmp_path / "aliases.txt", lines))


def test_aliases_of_another_kind(tmp_path):
    table = wide(tmp_path / "one.csv", "a,b", "d,1,x,1,1")
    with pytest.raises(TypeError, match="aliases must be a mapping or a path, got list"):
        read(table, aliases=[("a", "b")])
    with pytest.raises(TypeError, match="aliases must be names, found 'a': 3"):
        read(table, aliases={"a": [3]})
    with pytest.raises(FileNotFoundError, match="no-such"):
        read(table, aliases=tmp_path / "no-such.txt")
    (tmp_path / "bytes.txt").write_bytes(b"a = \xff\n")
    with pytest.raises(ValueError, match="bytes.txt: expected UTF-8 text"):
        read(table, aliases=tmp_path / "bytes.txt")


def test_names_may_hold_the_sign_between_names(tmp_path):
    table = wide(tmp_path / "one.csv", "pretrained=x", "d,1,x,1")
    found = read(table, aliases=put(tmp_path / "aliases.txt", "a = pretrained=x\n"))
    assert found.models == ("a",)


# --- properties ----------------------------------------------------------------------------------

scores = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.25, 1.0]))
tmp_path_is_fine = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def grids(draw, n_sources=3):
    """A cell for every (source, record, model), with the keys of the records."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from("de"), st.integers(0, 5)), min_size=1, max_size=6, unique=True
        )
    )
    models = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    shape = n_sources, len(keys), len(models)
    cells = draw(st.lists(scores, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    values = np.array([NAN if c is None else c for c in cells], np.float32).reshape(shape)
    return keys, models, values


def write_source(path, keys, models, values, sample_id=str):
    """Write a wide Parquet file, a row per key; prompts and keys correspond."""
    columns = {
        "dataset": [d for d, _ in keys],
        "sample_id": [sample_id(s) for _, s in keys],
        "prompt": [f"prompt {s}" for _, s in keys],
    } | {m: pa.array(values[:, j], from_pandas=True) for j, m in enumerate(models)}
    pq.write_table(pa.table(columns), path)
    return path


@tmp_path_is_fine
@given(grid=grids(), data=st.data())
def test_the_order_of_disjoint_sources_does_not_matter(tmp_path, grid, data):
    keys, models, values = grid
    # Every cell is in one source.
    owner = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=len(keys) * len(models), max_size=99))
    )[: len(keys) * len(models)].reshape(len(keys), len(models))
    files = [
        write_source(
            tmp_path / f"{i}.parquet",
            keys,
            models,
            np.where(owner == i, values[0], np.float32(NAN)),
        )
        for i in range(3)
    ]
    expected = read(files)
    assert by_key(expected) == {
        (d, str(s), f"prompt {s}", m): float(values[0, i, j])
        for i, (d, s) in enumerate(keys)
        for j, m in enumerate(models)
        if not np.isnan(values[0, i, j])
    }
    order = data.draw(st.permutations(files))
    for ways in ({}, {"on_conflict": "mean"}, {"on_conflict": "first"}, {"align": "prompt"}):
        found = read(order, **ways)
        assert by_key(found) == by_key(expected)
        assert (found.datasets, set(found.models)) == (expected.datasets, set(expected.models))


@tmp_path_is_fine
@given(grid=grids(), data=st.data())
def test_mean_is_numpys_nanmean_and_first_the_first(tmp_path, grid, data):
    keys, models, values = grid
    files = []
    for i in range(3):
        order = data.draw(st.permutations(range(len(keys))))
        files.append(
            write_source(
                tmp_path / f"{i}.parquet", [keys[k] for k in order], models, values[i][list(order)]
            )
        )
    for ways in ({}, {"align": "prompt"}):
        mean = read(files, on_conflict="mean", **ways)
        first = read(files, on_conflict="first", **ways)
        for i, (d, s) in enumerate(keys):
            for j, m in enumerate(models):
                there = values[:, i, j][~np.isnan(values[:, i, j])].astype(np.float64)
                key = (d, str(s), f"prompt {s}", m)
                assert by_key(mean).get(key) == (
                    float(np.float32(np.nanmean(there))) if len(there) else None
                )
                assert by_key(first).get(key) == (there[0] if len(there) else None)


@tmp_path_is_fine
@given(grid=grids(), data=st.data())
def test_prompts_align_as_sample_ids_where_these_correspond(tmp_path, grid, data):
    keys, models, values = grid
    orders = [data.draw(st.permutations(range(len(keys)))) for _ in range(3)]
    rows = [[keys[k] for k in order] for order in orders]
    files = [
        write_source(tmp_path / f"{i}.parquet", rows[i], models, values[i][orders[i]])
        for i in range(3)
    ]
    by_id = {way: read(files, on_conflict=way) for way in ("first", "mean")}
    for way, expected in by_id.items():
        found = read(files, on_conflict=way, align="prompt")
        assert found == expected
        assert found.origin == expected.origin
    # Whatever the later sources call the records.
    for i in (1, 2):
        write_source(files[i], rows[i], models, values[i][orders[i]], lambda s, i=i: f"{s} of {i}")
    for way, expected in by_id.items():
        assert read(files, on_conflict=way, align="prompt") == expected


# --- many sources --------------------------------------------------------------------------------


class Suite:
    """A format of many readings, made as they are asked for; it notes what Arrow holds then."""

    def __init__(self, n_datasets, n_models, n_records, words=20):
        self.shape = n_datasets, n_models, n_records
        self.words = words
        self.allocated = []

    @staticmethod
    def recognises(path):
        return path.suffix == ".suite"

    def read(self, path, choices):
        n_datasets, n_models, n_records = self.shape
        for d in range(n_datasets):
            for m in range(n_models):
                rows = Rows(f"{path}/{d}/{m}")
                for i in range(n_records):
                    rows.add(
                        f"{path}/{d}/{m}, instance {i}",
                        model=f"model {m}",
                        dataset=f"dataset {d}",
                        sample_id=f"id{i}",
                        prompt=f"{d} {i} " * self.words,
                        score=float((d + m + i) % 2),
                    )
                self.allocated.append(pa.total_allocated_bytes())
                yield FormatReading(rows.source(), Sidecar(path=f"{path}/{d}/{m}"), ("read",))


def test_many_sources_merge_into_a_whole_table(tmp_path, monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "suite", Suite(7, 5, 11))
    path = put(tmp_path / "runs.suite", "")
    found = read(path)
    d, i, m = np.arange(77)[:, None] // 11, np.arange(77)[:, None] % 11, np.arange(5)
    assert_array_equal(found.scores, (d + m + i) % 2)
    assert found.models == tuple(f"model {m}" for m in range(5))
    assert len(found.origin.sources) == 35
    assert read(path, align="prompt") == found
    monkeypatch.setitem(formats.FORMATS, "suite", Suite(0, 5, 11))
    with pytest.raises(ValueError, match="found no results of the format 'suite'"):
        read(path)


def test_prompts_of_many_sources_take_the_memory_of_one(tmp_path, monkeypatch):
    suite = Suite(1, 40, 50, words=10_000)
    monkeypatch.setitem(formats.FORMATS, "suite", suite)
    before = pa.total_allocated_bytes()
    found = read(put(tmp_path / "runs.suite", ""))
    assert found.scores.shape == (50, 40)
    of_one = sum(map(len, found.prompts))
    assert of_one > 1_000_000
    # One part that waits for the second, and one that is being read, columns and records each.
    assert max(suite.allocated) - before < 6 * of_one
