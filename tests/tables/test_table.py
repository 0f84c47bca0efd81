"""BenchmarkTable: checks, selection, correctness, round trips through files, the real tables."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from benchrouter import BenchmarkTable, read_table, write_table
from benchrouter.tables.table import default_thresholds

NAN = float("nan")


def fields_of(**changes):
    """Four records of two datasets and three models; d0 is a unit metric, d1 is not."""
    fields = {
        "scores": np.array(
            [[1, 0, 0.5], [0.75, NAN, 0.25], [0, 1, 1], [-3, 2, NAN]], dtype=np.float32
        ),
        "dataset": np.array([0, 0, 0, 1], dtype=np.int32),
        "datasets": ("d0", "d1"),
        "models": ("a", "b", "c"),
        "sample_ids": ["1", "2", "3", "1"],
        "prompts": ["p", "q", "r", "s"],
        "source_rows": np.array([0, 1, 2, 4]),
        "n_source_rows": 5,
        "cost_usd": None,
        "log_likelihood": np.full((4, 3), -1.5, dtype=np.float32),
        "params_b": np.array([7.0, NAN, 70.0]),
        "prices": np.array([[0.1, 0.2], [NAN, NAN], [1, NAN]]),
        "metrics": ("exact match", ""),
        "thresholds": np.array([0.5, NAN]),
    }
    return fields | changes


def table(**changes):
    return BenchmarkTable(**fields_of(**changes))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"scores": np.zeros((4, 3))}, TypeError, "scores must be float32, got float64"),
        ({"scores": [[1.0]]}, TypeError, "scores must be float32, got list"),
        (
            {"scores": np.zeros((4, 2), np.float32)},
            ValueError,
            r"scores has shape \(4, 2\), expected \(4, 3\)",
        ),
        (
            {"scores": np.full((4, 3), np.inf, np.float32)},
            ValueError,
            r"scores\[0, 0\] is inf, expected a finite number or NaN",
        ),
        ({"dataset": np.array([0, 0, 0, 1])}, TypeError, "dataset must be int32, got int64"),
        (
            {"dataset": np.array([0, 0, 0, 2], np.int32)},
            ValueError,
            "dataset has codes from 0 to 2, expected 0 to 1",
        ),
        ({"dataset": np.zeros(4, np.int32)}, ValueError, "dataset 'd1' has no record"),
        ({"datasets": ("d1", "d0")}, ValueError, "datasets must be sorted"),
        ({"models": ("a", "b", "a")}, ValueError, "models names 'a' more than once"),
        ({"models": ("a", "b", "")}, ValueError, "models must be names, found ''"),
        ({"prompts": ["p"]}, ValueError, "prompts has 1 items, expected 4"),
        ({"prompts": ["p", " \n", "r", "s"]}, ValueError, "prompt of record 1 is ' \\\\n'"),
        ({"metrics": ("m",)}, ValueError, "metrics has 1 items, expected 2"),
        ({"n_source_rows": 4}, ValueError, "source_rows reach from 0 to 4, expected 0 to 3"),
        ({"prices": np.zeros((3, 3))}, ValueError, r"prices has shape \(3, 3\), expected \(3, 2\)"),
        ({"params_b": np.array([1, 2, np.inf])}, ValueError, r"params_b\[2\] is inf"),
        ({"thresholds": np.array([0.5])}, ValueError, r"thresholds has shape \(1,\)"),
        ({"sample_ids": [], "prompts": []}, ValueError, "needs a record and a model, found 0"),
    ],
)
def test_constructor_refuses(changes, error, words):
    with pytest.raises(error, match=words):
        table(**changes)


def test_arrays_are_read_only_and_the_callers_stay_writable():
    scores = fields_of()["scores"]
    made = table(scores=scores)
    with pytest.raises(ValueError, match="read-only"):
        made.scores[0, 0] = 0
    scores[0, 0] = 0.25
    assert made.scores[0, 0] == 0.25


def test_equality_ignores_origin_and_takes_nan_for_nan():
    assert table() == table(n_source_rows=9, skipped=("x",), source_rows=np.arange(4))
    assert table() != table(params_b=np.array([7.0, 1.0, 70.0]))
    assert table() != table(cost_usd=np.zeros((4, 3), np.float32))
    assert table() != "a table"
    with pytest.raises(TypeError, match="unhashable"):
        hash(table())


def test_correctness_is_strictly_above_the_datasets_threshold():
    correct = table(thresholds=np.array([0.5, -3.0])).correctness()
    assert correct.dtype == np.float32
    # 0.5 is not above 0.5, nor −3 above −3.
    assert_array_equal(correct, [[1, 0, 0], [1, NAN, 0], [0, 1, 1], [0, 1, NAN]])


def test_a_score_equal_to_the_threshold_is_not_correct_however_it_is_rounded():
    # float32(0.3) > 0.3, but what was recorded was 0.3.
    for value in (0.1, 0.3, 0.6, 1 / 3):
        above = np.nextafter(np.float32(value), np.float32(1))
        scores = np.array([[value, above, 0]] * 4, dtype=np.float32)
        one = table(scores=scores, thresholds=np.array([value, value])).correctness()
        assert_array_equal(one, [[0, 1, 0]] * 4)


def test_correctness_names_datasets_without_threshold():
    with pytest.raises(ValueError, match=r"datasets \['d1'\] have scores outside \[0, 1\]"):
        table().correctness()


def test_default_thresholds():
    scores = np.array([[0, 1], [NAN, 0.3], [0.5, 1.5], [NAN, NAN]], dtype=np.float32)
    dataset = np.array([0, 0, 1, 2], dtype=np.int32)
    assert_array_equal(default_thresholds(scores, dataset, 3), [0.5, NAN, 0.5])


def test_select_models_in_the_order_asked_for():
    chosen = table().select(models=["c", "a"])
    assert chosen.models == ("c", "a")
    assert_array_equal(chosen.scores, [[0.5, 1], [0.25, 0.75], [1, 0], [NAN, -3]])
    assert_array_equal(chosen.params_b, [70, 7])
    assert_array_equal(chosen.prices, [[1, NAN], [0.1, 0.2]])
    assert_array_equal(chosen.log_likelihood, np.full((4, 2), -1.5))
    assert chosen.datasets == ("d0", "d1")


def test_select_max_params_keeps_unknown_sizes_out():
    assert table().select(max_params=70).models == ("a", "c")
    assert table().select(max_params=69.9).models == ("a",)
    unknown = table(params_b=np.full(3, NAN))
    with pytest.raises(ValueError, match="known: none; model_params_billion of a sidecar"):
        unknown.select(max_params=1)
    with pytest.raises(ValueError, match=r"at most 1 billion parameters; known: a 7, c 70"):
        table().select(max_params=1)


def test_select_takes_models_then_complete_records_then_datasets_with_enough():
    # Of a and b, record 1 lacks b: d0 keeps two records, d1 one.
    chosen = table().select(models=["a", "b"], complete=True)
    assert (chosen.n_records, chosen.sample_ids) == (3, ["1", "3", "1"])
    chosen = table().select(models=["a", "b"], complete=True, min_records=2)
    assert (chosen.datasets, chosen.sample_ids) == (("d0",), ["1", "3"])
    # Of a and c alone, d1's record is the incomplete one.
    chosen = table().select(models=["a", "c"], complete=True, min_records=3)
    assert (chosen.datasets, chosen.sample_ids) == (("d0",), ["1", "2", "3"])
    assert_array_equal(chosen.source_rows, [0, 1, 2])
    assert chosen.n_source_rows == 5


def test_select_datasets_drops_the_others_with_metric_and_threshold():
    chosen = table().select(datasets=["d1"])
    assert (chosen.datasets, chosen.metrics, chosen.prompts) == (("d1",), ("",), ["s"])
    assert_array_equal(chosen.dataset, [0])
    assert_array_equal(chosen.thresholds, [NAN])
    assert_array_equal(chosen.source_rows, [4])


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"models": ["a", "z"]}, ValueError, r"unknown models \['z'\]; the table has \['a', 'b'"),
        ({"models": ["a", "a"]}, ValueError, "models names 'a' more than once"),
        ({"models": "a"}, TypeError, "models must be a sequence of names, got the text 'a'"),
        ({"models": []}, ValueError, "models is empty"),
        ({"datasets": ["d2"]}, ValueError, r"unknown datasets \['d2'\]; the table has \['d0'"),
        ({"min_records": 4}, ValueError, "no record of 4 is left: .*min_records=4"),
    ],
)
def test_select_refuses(kwargs, error, words):
    with pytest.raises(error, match=words):
        table().select(**kwargs)


def test_rows_by_mask_and_by_number():
    by_mask = table().rows(np.array([False, True, False, True]))
    assert by_mask == table().rows([1, 3])
    assert (by_mask.sample_ids, by_mask.datasets) == (["2", "1"], ("d0", "d1"))
    assert_array_equal(by_mask.source_rows, [1, 4])
    assert table().rows([2, 0]).prompts == ["r", "p"]
    assert table().rows([3]).datasets == ("d1",)


@pytest.mark.parametrize(
    ("records", "error", "words"),
    [
        ([True, False], ValueError, r"mask has shape \(2,\), table has 4 records"),
        ([4], ValueError, "records reach from 4 to 4, expected 0 to 3"),
        ([-1], ValueError, "records reach from -1 to -1, expected 0 to 3"),
        ([0.0], TypeError, "booleans or integers"),
        ([], ValueError, "no record to keep of 4"),
        (np.zeros(4, bool), ValueError, "no record to keep of 4"),
    ],
)
def test_rows_refuses(records, error, words):
    with pytest.raises(error, match=words):
        table().rows(records)


def test_aligned_takes_one_row_per_source_row_or_per_record():
    rows = np.arange(5, dtype=np.float16)[:, None]
    assert_array_equal(table().aligned(rows), [[0], [1], [2], [4]])
    assert table().aligned(rows).dtype == np.float16
    assert_array_equal(table().rows([3, 0]).aligned(rows), [[4], [0]])
    assert_array_equal(table().aligned(rows[:4]), rows[:4])
    with pytest.raises(ValueError, match=r"embeddings have 3 rows, expected 5 .* or 4 "):
        table().aligned(rows[:3])


def test_describe_is_json_with_none_for_unknown():
    found = table(skipped=("t.csv, row 1: found x",)).describe()
    json.dumps(found, allow_nan=False)
    assert (found["n_records"], found["n_models"], found["n_datasets"]) == (4, 3, 2)
    assert (found["n_source_rows"], found["n_skipped"]) == (5, 1)
    assert found["missing"] == pytest.approx(2 / 12)
    assert found["models"][1] == {
        "name": "b",
        "n_scores": 3,
        "mean_score": 1.0,
        "params_b": None,
        "usd_per_million_tokens": [None, None],
    }
    assert found["datasets"] == [
        {"name": "d0", "n_records": 3, "metric": "exact match", "threshold": 0.5},
        {"name": "d1", "n_records": 1, "metric": None, "threshold": None},
    ]


def test_import_is_light():
    code = (
        "import sys, benchrouter.tables.table; "
        "print([m for m in ('torch', 'pyarrow', 'faiss') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# Text of every kind that a file can hold: quotes, line ends, U+2028, numbers, missing-looking.
awkward = st.sampled_from(
    [
        "a",
        "1",
        "007",
        "nan",
        "NA",
        "null",
        "true",
        '"',
        "''",
        "a,b",
        "a\nb",
        "a\r\nb",
        "\u2028",
        "é",
    ]
)
characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(awkward, st.text(characters, min_size=1, max_size=6)).filter(
    lambda text: text.strip(" \t\n\r\x0b\x0c")
)
values = st.one_of(
    st.just(NAN),
    st.sampled_from([0.0, 1.0, 0.5, -0.0]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
wide_floats = st.one_of(st.just(NAN), st.floats(0, 1e6))


@st.composite
def tables(draw):
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    keys = draw(st.lists(st.tuples(texts, texts), min_size=n, max_size=n, unique=True))
    reserved = {"dataset", "sample_id", "prompt"}
    model = texts.filter(lambda name: name not in reserved and "::" not in name)
    datasets = tuple(sorted({key[0] for key in keys}))
    d = len(datasets)

    def matrix():
        rows = draw(st.lists(values, min_size=n * m, max_size=n * m))
        return np.array(rows, dtype=np.float32).reshape(n, m)

    def column(items, count):
        return draw(st.lists(items, min_size=count, max_size=count))

    return BenchmarkTable(
        scores=matrix(),
        dataset=np.array([datasets.index(key[0]) for key in keys], dtype=np.int32),
        datasets=datasets,
        models=tuple(draw(st.lists(model, min_size=m, max_size=m, unique=True))),
        sample_ids=[key[1] for key in keys],
        prompts=column(texts, n),
        source_rows=np.arange(n),
        n_source_rows=n,
        cost_usd=matrix() if draw(st.booleans()) else None,
        log_likelihood=matrix() if draw(st.booleans()) else None,
        params_b=np.array(column(wide_floats, m)),
        prices=np.array(column(wide_floats, 2 * m)).reshape(m, 2),
        metrics=tuple(column(st.one_of(st.just(""), texts), d)),
        thresholds=np.array(
            column(st.one_of(st.just(NAN), st.floats(-1e9, 1e9)), d), dtype=np.float64
        ),
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made=tables())
def test_reading_what_was_written_gives_an_equal_table(tmp_path, suffix, made):
    path = tmp_path / f"t{suffix}"
    write_table(made, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["t.json", f"t{suffix}"])
    back = read_table(path)
    assert back == made
    assert_array_equal(back.source_rows, np.arange(made.n_records))
    # −0.0 == 0.0: the sign survives too.
    assert_array_equal(np.signbit(back.scores), np.signbit(made.scores) & ~np.isnan(made.scores))


def test_a_selected_table_is_written_without_what_was_left(tmp_path):
    chosen = table().select(models=["c", "b"], datasets=["d0"])
    write_table(chosen, tmp_path / "t.csv")
    back = read_table(tmp_path / "t.csv")
    assert back == chosen
    assert (back.n_source_rows, chosen.n_source_rows) == (3, 5)


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({}, "t.xlsx", "found suffix '.xlsx', expected one of .parquet, .csv"),
        ({}, "t.csv.gz", "found suffix '.csv.gz', expected one of .parquet, .csv, .jsonl"),
        ({"models": ("a", "prompt", "c")}, "t.csv", "model 'prompt' cannot be written"),
        ({"models": ("a", "cost::a", "c")}, "t.csv", "model 'cost::a' cannot be written"),
        (
            {"sample_ids": ["1", "1", "3", "1"]},
            "t.csv",
            r"4 records have 3 distinct \(dataset, sample_id\)",
        ),
    ],
)
def test_write_refuses_what_it_could_not_read_back(tmp_path, changes, name, words):
    with pytest.raises(ValueError, match=words):
        write_table(table(**changes), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "n_missing_params", "has_cost"),
    [
        ("mmlu_pro", 2, False),
        ("ulab_llmrouter", 0, False),
        ("zeroeval", 13, False),
        ("routellm_mmlu", 1, False),
        ("routellm_gsm8k", 1, False),
        ("routerarena", 2, True),
    ],
)
def test_real_tables(shared, name, n_missing_params, has_cost):
    found = read_table(shared / "data" / f"{name}.parquet")
    facts = json.loads((shared / "data" / f"{name}.json").read_text())
    assert list(found.models) == facts["model_columns"]
    counts = dict(zip(found.datasets, np.bincount(found.dataset).tolist(), strict=True))
    assert counts == facts["rows_per_dataset"]
    assert found.n_records == found.n_source_rows == facts["n_rows"]
    missing = np.isnan(found.scores).sum(axis=0)
    stated = facts["missing_values_per_model"]
    assert missing.tolist() == [stated.get(model, 0) for model in found.models]
    assert int(np.isnan(found.params_b).sum()) == n_missing_params
    assert (found.cost_usd is not None) == has_cost
    assert set(found.thresholds) == {0.5}


def test_real_prices(shared):
    found = read_table(shared / "data" / "ulab_llmrouter.parquet")
    assert_array_equal(found.prices[found.models.index("gemma-2-9b-it")], [0.1, 0.1])
    assert not np.isnan(found.prices).any()


@pytest.mark.parametrize(
    ("name", "file", "selection", "shape"),
    [
        (
            "A",
            "mmlu_pro",
            {"dataset_column": "src", "max_params": 50, "complete": True, "min_records": 100},
            (8597, 36, 19),
        ),
        ("B", "mmlu_pro", {"complete": True}, (11969, 14, 28)),
        ("C", "ulab_llmrouter", {}, (5983, 14, 9)),
    ],
)
def test_experiments_select_what_the_reference_selected(shared, name, file, selection, shape):
    found = read_table(shared / "data" / f"{file}.parquet", **selection)
    reference = json.loads((shared / "data" / "reference" / f"{name}.json").read_text())
    assert (found.n_records, found.n_datasets, found.n_models) == shape
    assert list(found.datasets) == reference["datasets"]
    assert list(found.models) == reference["models"]
    assert np.bincount(found.dataset).tolist() == reference["records_per_dataset"]
    correct = found.correctness().astype(np.float64)
    accuracy = [correct[found.dataset == d].mean(axis=0) for d in range(found.n_datasets)]
    # The reference is rounded to six digits.
    np.testing.assert_allclose(accuracy, reference["accuracy"], rtol=0, atol=5.01e-7)
    minilm = np.load(shared / "data" / f"{file}.minilm.npy", mmap_mode="r")
    assert found.aligned(minilm).shape == (found.n_records, 384)


def test_every_field_is_compared_or_named_as_origin():
    names = {field.name for field in dataclasses.fields(BenchmarkTable)}
    changed = {
        "scores": np.zeros((4, 3), np.float32),
        "dataset": np.array([0, 0, 1, 1], np.int32),
        "datasets": ("d0", "d2"),
        "models": ("a", "b", "d"),
        "sample_ids": ["1", "2", "4", "1"],
        "prompts": ["p", "q", "r", "t"],
        "cost_usd": np.zeros((4, 3), np.float32),
        "log_likelihood": None,
        "params_b": np.zeros(3),
        "prices": np.zeros((3, 2)),
        "metrics": ("f1", ""),
        "thresholds": np.zeros(2),
    }
    assert set(changed) == names - {"source_rows", "n_source_rows", "skipped", "origin"}
    for name, value in changed.items():
        assert table(**{name: value}) != table(), name
