"""Tables in memory: pandas, polars, pyarrow and Hugging Face datasets give the same table."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from numpy.testing import assert_array_equal

from benchrouter import read_table, table_from_arrow

NAN = float("nan")
COLUMNS = {
    "dataset": ["d", "d", "e"],
    "sample_id": ["1", "2", "1"],
    "prompt": ["x\u2028y\x85", "y", "z"],
    "a": [1.0, None, 0.25],
    "b": [0, 1, 1],
}
LONG = {
    "model": ["m", "n", "m"],
    "sample_id": [2**63 - 1, 2**63 - 1, 2**53 + 1],
    "prompt": ["x", "x", "y"],
    "score": [1.0, 0.0, None],
}


def expected():
    return table_from_arrow(pa.table(COLUMNS))


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


@pytest.fixture
def polars():
    return pytest.importorskip("polars")


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def test_the_golden_table():
    found = expected()
    assert (found.models, found.datasets) == (("a", "b"), ("d", "e"))
    assert found.prompts == COLUMNS["prompt"] and found.sample_ids == ["1", "2", "1"]
    assert_array_equal(found.scores, [[1, 0], [NAN, 1], [0.25, 1]])
    assert found.dataset.tolist() == [0, 0, 1]


def test_pyarrow():
    table = pa.table(COLUMNS)
    assert table_from_arrow(pa.record_batch(COLUMNS)) == expected()
    assert table_from_arrow(table.to_reader(max_chunksize=1)) == expected()
    assert table_from_arrow(pa.dataset.dataset(table)) == expected()
    assert table_from_arrow(pa.dataset.dataset([table.slice(0, 1), table.slice(1)])) == expected()


def test_whatever_hands_out_arrow_data():
    class Capsule:
        def __arrow_c_stream__(self, requested_schema=None):
            return pa.table(COLUMNS).__arrow_c_stream__(requested_schema)

    assert table_from_arrow(Capsule()) == expected()


@pytest.mark.parametrize(
    "change",
    [
        lambda pandas, frame: frame,
        lambda pandas, frame: frame.astype(object),
        lambda pandas, frame: frame.astype({"a": "Float64", "b": "Int8", "prompt": "string"}),
        lambda pandas, frame: frame.convert_dtypes(dtype_backend="pyarrow"),
        lambda pandas, frame: frame.astype({"dataset": "category", "prompt": "category"}),
        lambda pandas, frame: frame.assign(b=[False, True, True]),
        lambda pandas, frame: frame.assign(b=pandas.array([False, True, True], dtype="boolean")),
        lambda pandas, frame: frame.set_index(["dataset", "sample_id"]),
        lambda pandas, frame: frame.set_index("prompt"),
        lambda pandas, frame: frame.set_index(pandas.Index([7, 8, 9], name="row")),
        lambda pandas, frame: frame.set_index(pandas.Index([7, 8, 9])),
        lambda pandas, frame: frame.iloc[[2, 1, 0]].sort_index(),
        # Several kinds in a column, which Arrow has no type for.
        lambda pandas, frame: frame.assign(sample_id=["1", 2, np.int64(1)]),
        lambda pandas, frame: frame.assign(a=[1, "NA", "0.25"]),
        lambda pandas, frame: frame.assign(a=[True, None, 0.25], b=["0", 1, 1.0]),
        lambda pandas, frame: frame.assign(a=[1, pandas.NA, np.float32(0.25)], b=["0", 1, True]),
    ],
)
def test_pandas(pandas, change):
    frame = change(pandas, pandas.DataFrame(COLUMNS))
    before = frame.copy()
    found = table_from_arrow(frame)
    columns = [name for name in ("a", "b") if name in found.models]
    assert table_from_arrow(frame, models=["a", "b"]) == expected() and columns == ["a", "b"]
    pandas.testing.assert_frame_equal(frame, before)


def test_a_pandas_index_that_the_caller_names(pandas):
    frame = pandas.DataFrame(COLUMNS).drop(columns=["dataset", "sample_id"])
    frame.index = pandas.Index([5, 6, 7], name="number")
    assert table_from_arrow(frame).sample_ids == ["1", "2", "3"]
    assert table_from_arrow(frame, columns={"sample_id": "number"}).sample_ids == ["5", "6", "7"]


def test_missing_in_pandas_spelled_six_ways(pandas):
    values = [None, NAN, pandas.NA, pandas.NaT, "", "NaN", "null", "0.5"]
    frame = pandas.DataFrame({"prompt": list("abcdefgh"), "m": values}, dtype=object)
    assert_array_equal(table_from_arrow(frame, models=["m"]).scores[:, 0], [NAN] * 7 + [0.5])
    frame.loc[7, "m"] = 0.5  # now of several kinds
    assert_array_equal(table_from_arrow(frame).scores[:, 0], [NAN] * 7 + [0.5])


def test_bad_cells_of_pandas_are_named(pandas):
    frame = pandas.DataFrame(COLUMNS).assign(a=[1, "x", 0.5])
    with pytest.raises(ValueError, match="table, row 2: score of model 'a' is 'x', expected a fin"):
        table_from_arrow(frame)
    assert table_from_arrow(frame, on_error="skip").n_records == 2
    frame = pandas.DataFrame(COLUMNS).assign(prompt=["x", 3, "y"])
    with pytest.raises(ValueError, match="table, row 2: prompt is 3, expected text"):
        table_from_arrow(frame)
    frame = pandas.DataFrame([[1, "x", 2]], columns=["a", "prompt", "a"])
    with pytest.raises(ValueError, match="table: found several columns named 'a', expected one"):
        table_from_arrow(frame)
    frame = pandas.DataFrame({"prompt": ["x", "\ud800"], "a": [1, 0]}, dtype=object)
    with pytest.raises(ValueError, match="table: column 'prompt' holds what is no text"):
        table_from_arrow(frame)
    with pytest.raises(ValueError, match="table is empty: found no data row"):
        table_from_arrow(pandas.DataFrame(COLUMNS).iloc[:0])


def test_polars(polars):
    frame = polars.DataFrame(COLUMNS)
    assert table_from_arrow(frame) == expected()
    coded = frame.with_columns(
        polars.col("dataset").cast(polars.Categorical),
        polars.col("sample_id").cast(polars.Enum(["1", "2"])),
        polars.col("b").cast(polars.Boolean),
    )
    assert table_from_arrow(coded) == expected()
    assert table_from_arrow(polars.concat([frame[:1], frame[1:]], rechunk=False)) == expected()
    with pytest.raises(TypeError, match="got LazyFrame; also taken: data frames"):
        table_from_arrow(frame.lazy())
    with pytest.raises(TypeError, match="table of type Series: "):
        table_from_arrow(frame["a"])


def test_hugging_face(datasets):
    split = datasets.Dataset.from_dict(COLUMNS)
    assert table_from_arrow(split) == expected()
    assert table_from_arrow(split.with_format("numpy")) == expected()
    assert table_from_arrow(split.select([2, 1, 0]).select([2, 1, 0])) == expected()
    labels = datasets.ClassLabel(names=["wrong", "right"])
    assert table_from_arrow(split.cast_column("b", labels)) == expected()
    assert table_from_arrow(
        datasets.concatenate_datasets([split, split.select([0])]).select(range(3))
    ) == (expected())
    with pytest.raises(TypeError, match="DatasetDict of the splits 'train', 'test': give one of"):
        table_from_arrow(datasets.DatasetDict({"train": split, "test": split}))
    with pytest.raises(TypeError, match="got IterableDataset; also taken"):
        table_from_arrow(split.to_iterable_dataset())


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "polars", "datasets"])
def test_long_tables(library):
    module = pytest.importorskip(library)
    make = {
        "pyarrow": lambda: module.table(LONG),
        "pandas": lambda: module.DataFrame(LONG),
        "polars": lambda: module.DataFrame(LONG),
        "datasets": lambda: module.Dataset.from_dict(LONG),
    }
    found = table_from_arrow(make[library]())
    assert (found.models, found.datasets) == (("m", "n"), ("table",))
    assert found.sample_ids == [str(2**63 - 1), str(2**53 + 1)]
    assert_array_equal(found.scores, [[1, 0], [NAN, NAN]])


@pytest.mark.parametrize(
    "other", [{"prompt": ["x"]}, [1], np.zeros((2, 2)), None, "t.csv", pa.array([1])]
)
def test_what_is_no_table(other):
    with pytest.raises(
        TypeError, match=f"table must be a pyarrow.Table, got {type(other).__name__}"
    ):
        table_from_arrow(other)


def test_no_library_is_imported():
    code = (
        "import sys, pyarrow as pa\n"
        "from benchrouter import table_from_arrow\n"
        "table_from_arrow(pa.table({'prompt': ['x'], 'a': [1]}))\n"
        "print(sorted({'polars', 'datasets'} & set(sys.modules)))\n"  # pyarrow imports pandas
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_class_labels_are_their_names_where_text_is_expected(datasets):
    rows = {
        "model": ["x", "y", "x"],
        "dataset": ["e", "e", "d"],
        "sample_id": ["1", "1", "1"],
        "prompt": ["p", "p", "q"],
        "score": [1.0, 0.0, 1.0],
    }
    split = datasets.Dataset.from_dict(rows)
    expected = table_from_arrow(split)
    coded = split.class_encode_column("model").class_encode_column("dataset")
    assert table_from_arrow(coded) == expected
    renamed = coded.rename_column("model", "llm")
    assert table_from_arrow(renamed, columns={"model": "llm"}) == expected


def test_read_is_for_files_and_says_what_is_for_tables():
    with pytest.raises(TypeError, match="got a Table: tables in memory are read by .*from_arrow"):
        read_table(pa.table(COLUMNS))
