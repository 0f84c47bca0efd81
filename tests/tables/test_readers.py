"""Readers: layouts, formats, names, merging, and what every kind of bad input is told."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_from_arrow

NAN = float("nan")


def put(path, content):
    """Write a file: text or bytes as they are, a list of dicts as JSONL, an object as JSON."""
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    elif isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zstd(data):
    """Compress as the command zstd does, in a stream."""
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def parquet(columns):
    file = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), file, store_schema=False)
    return file.getvalue().to_pybytes()


PARQUET = parquet({"prompt": ["x"], "a": [1]})
WIDE = "dataset,sample_id,prompt,a,b\nd2,1,hello,1,0.5\nd1,1,bye,,0\nd2,2,again,0,nan\n"


def test_wide_csv_by_hand(tmp_path):
    found = read(put(tmp_path / "t.csv", WIDE))
    assert (found.datasets, found.models) == (("d1", "d2"), ("a", "b"))
    assert_array_equal(found.dataset, [1, 0, 1])
    assert found.sample_ids == ["1", "1", "2"]
    assert found.prompts == ["hello", "bye", "again"]
    assert_array_equal(found.scores, [[1, 0.5], [NAN, 0], [0, NAN]])
    assert_array_equal(found.thresholds, [0.5, 0.5])
    assert_array_equal(found.source_rows, [0, 1, 2])
    assert (found.n_source_rows, found.metrics, found.skipped) == (3, ("", ""), ())
    assert np.isnan(found.params_b).all() and np.isnan(found.prices).all()
    assert found.cost_usd is None and found.log_likelihood is None


LONG_ROWS = [
    {"model": "a", "dataset": "d2", "sample_id": 1, "prompt": "hello", "score": 1},
    {"model": "b", "dataset": "d2", "sample_id": 1, "prompt": "hello", "score": 0.5},
    {"model": "b", "dataset": "d1", "sample_id": 1, "prompt": "bye", "score": 0},
    {"model": "a", "dataset": "d2", "sample_id": 2, "prompt": "again", "score": False},
    {"model": "b", "dataset": "d2", "sample_id": 2, "prompt": "again", "score": None},
]


def test_long_jsonl_is_the_same_table(tmp_path):
    wide = read(put(tmp_path / "wide.csv", WIDE))
    long = read(put(tmp_path / "long.jsonl", LONG_ROWS))
    assert long == wide
    assert_array_equal(long.source_rows, [0, 1, 2])
    assert long.n_source_rows == 3


def test_long_with_costs_and_log_likelihoods(tmp_path):
    rows = [dict(row, cost_usd=i / 4, log_likelihood=-i) for i, row in enumerate(LONG_ROWS)]
    found = read(put(tmp_path / "t.jsonl", rows))
    assert_array_equal(found.cost_usd, [[0, 0.25], [NAN, 0.5], [0.75, 1]])
    assert_array_equal(found.log_likelihood, [[0, -1], [NAN, -2], [-3, -4]])


def test_wide_costs_and_log_likelihoods(tmp_path):
    text = "prompt,a,b,cost::b,log_likelihood::a\nx,1,0,0.25,-2\ny,1,0,,\n"
    found = read(put(tmp_path / "t.csv", text))
    assert_array_equal(found.cost_usd, [[NAN, 0.25], [NAN, NAN]])
    assert_array_equal(found.log_likelihood, [[-2, NAN], [NAN, NAN]])


def test_without_dataset_and_sample_id_the_stem_and_the_row_number(tmp_path):
    text = b"prompt,a\nx,1\ny,0\n"
    packed = {"": text, ".gz": gzip.compress(text), ".zst": zstd(text)}
    for end, content in packed.items():
        found = read(put(tmp_path / f"mine.csv{end}", content))
        assert (found.datasets, found.sample_ids) == (("mine",), ["1", "2"])
        assert read(put(tmp_path / f"mine.CSV{end.upper()}", content)) == found


def test_names_of_others(tmp_path):
    text = "model_id,prompt_id,question,label,task\na,7,hello,1,t1\nb,7,hello,0,t1\n"
    path = put(tmp_path / "t.csv", text)
    columns = {"model": "model_id", "sample_id": "prompt_id", "score": "label"}
    found = read(path, columns=columns, dataset_column="task", prompt_column="question")
    assert (found.models, found.datasets, found.sample_ids) == (("a", "b"), ("t1",), ["7"])
    assert_array_equal(found.scores, [[1, 0]])
    columns |= {"dataset": "task", "prompt": "question"}
    assert read(path, columns=columns) == found


def test_numbers_as_text_booleans_and_what_counts_as_missing(tmp_path):
    cells = ["0.5", " 1 ", "+.5", "1e-1", "True", "false", "", "nan", "NULL", "NA"]
    text = "prompt,a\n" + "".join(f"p{i},{cell}\n" for i, cell in enumerate(cells))
    found = read(put(tmp_path / "t.csv", text))
    expected = np.array([0.5, 1, 0.5, 0.1, 1, 0, NAN, NAN, NAN, NAN], dtype=np.float32)
    assert_array_equal(found.scores[:, 0], expected)


def test_csv_keeps_text_as_it_stands(tmp_path):
    text = 'sample_id,prompt,a\r\n007,"NA",1\r\n08,"two\r\nlines, ""quoted""",0\r\n'
    found = read(put(tmp_path / "t.csv", b"\xef\xbb\xbf" + text.encode()))
    assert found.sample_ids == ["007", "08"]
    assert found.prompts == ["NA", 'two\r\nlines, "quoted"']


def test_jsonl_keys_may_differ_and_u2028_ends_no_line(tmp_path):
    lines = [
        '{"prompt": "one\u2028two", "a": 1}',
        "",
        '{"b": 0.5, "prompt": "x", "sample_id": "s"}',
        '{"prompt": "y", "a": true, "sample_id": 3, "b": "0.25", "extra": [1]}',
    ]
    put(tmp_path / "t.jsonl", "\r\n".join(["\ufeff" + lines[0], *lines[1:]]))
    with pytest.raises(ValueError, match=r"t.jsonl, row 1 \(line 1\): sample_id is None"):
        read(tmp_path / "t.jsonl")
    found = read(tmp_path / "t.jsonl", on_error="skip")
    assert (found.sample_ids, found.models) == (["s", "3"], ("a", "b"))
    assert_array_equal(found.scores, [[NAN, 0.5], [1, 0.25]])
    assert_array_equal(found.source_rows, [1, 2])
    found = read(put(tmp_path / "u.jsonl", lines[0] + "\n"))
    assert found.prompts == ["one\u2028two"]


def test_jsonl_batches_agree_on_a_columns_kind(tmp_path, monkeypatch):
    monkeypatch.setattr("benchrouter.tables.sources.jsonl.BATCH_ROWS", 2)
    rows = [{"prompt": f"p{i}", "sample_id": i, "a": i % 2} for i in range(5)]
    rows[3]["a"] = 0.5
    rows[4]["sample_id"] = "last"
    rows[4]["late"] = 1
    found = read(put(tmp_path / "t.jsonl", rows))
    assert found.sample_ids == ["0", "1", "2", "3", "last"]
    assert found.models == ("a", "late")
    assert_array_equal(found.scores, [[0, NAN], [1, NAN], [0, NAN], [0.5, NAN], [0, 1]])


def test_parquet_kinds(tmp_path):
    columns = {
        "dataset": pa.array(["d", "d", "e"]).dictionary_encode(),
        "sample_id": pa.array([3, 4, 3], pa.int16()),
        "prompt": pa.array(["x", "y", "z"], pa.large_string()),
        "flag": pa.array([True, None, False]),
        "whole": pa.array([1, 0, None], pa.uint8()),
        "double": pa.array([0.5, NAN, 1.0]),
        "text": pa.array(["0.5", "1", "0"]),
        "__index_level_0__": pa.array([7, 8, 9]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=2)
    found = read(tmp_path / "t.parquet")
    assert found.models == ("flag", "whole", "double")
    assert_array_equal(found.scores, [[1, 1, 0.5], [NAN, 0, NAN], [0, NAN, 1]])
    assert found.sample_ids == ["3", "4", "3"]
    assert table_from_arrow(pa.table(columns)) == found
    # Text is no model by itself, but numbers if asked for.
    assert_array_equal(read(tmp_path / "t.parquet", models=["text"]).scores, [[0.5], [1], [0]])


def test_from_arrow_calls_its_dataset_table():
    found = table_from_arrow(pa.table({"prompt": ["x"], "a": [1]}), thresholds={"*": 0.9})
    assert (found.datasets, found.thresholds.tolist()) == (("table",), [0.9])
    with pytest.raises(TypeError, match=r"table must be a pyarrow.Table, got dict"):
        table_from_arrow({"prompt": ["x"]})
    with pytest.raises(ValueError, match="table is empty"):
        table_from_arrow(pa.table({"prompt": pa.array([], pa.string())}))
    with pytest.raises(ValueError, match="table, row 2: prompt is '', expected text"):
        table_from_arrow(pa.table({"prompt": ["x", ""], "a": [1, 0]}))


SIDECAR = {
    "name": "t",
    "layout": "wide",
    "model_columns": ["b", "a"],
    "extra_columns": ["n"],
    "key_columns": ["task", "uid"],
    "prompt_column": "question",
    "model_params_billion": {"a": 7, "b": None, "gone": 3},
    "model_price_usd_per_million_tokens_as_stated_in_repo": {"a": [0.1, None]},
    "metric": "exact match",
    "metrics": {"t2": "BLEU"},
    "thresholds": {"t2": 30, "elsewhere": 1},
}
SIDECAR_CSV = "task,uid,question,n,a,b\nt1,x,hello,4,1,0\nt2,x,bye,4,31.5,12\n"


def test_sidecar(tmp_path):
    put(tmp_path / "t.json", SIDECAR)
    found = read(put(tmp_path / "t.csv", SIDECAR_CSV))
    assert found.models == ("b", "a")
    assert_array_equal(found.params_b, [NAN, 7])
    assert_array_equal(found.prices, [[NAN, NAN], [0.1, NAN]])
    assert (found.datasets, found.metrics) == (("t1", "t2"), ("exact match", "BLEU"))
    assert_array_equal(found.thresholds, [0.5, 30])
    assert_array_equal(found.correctness(), [[0, 1], [0, 1]])
    # What the caller names goes first.
    assert read(tmp_path / "t.csv", thresholds={"t2": 5}).thresholds.tolist() == [0.5, 5]
    assert read(tmp_path / "t.csv", thresholds={"*": 5}).thresholds.tolist() == [5, 5]
    swapped = read(tmp_path / "t.csv", columns={"dataset": "uid", "sample_id": "task"})
    assert (swapped.datasets, swapped.sample_ids) == (("x",), ["t1", "t2"])
    assert read(tmp_path / "t.csv", models=["n"]).models == ("n",)


def test_thresholds_outside_the_unit_interval_are_never_guessed(tmp_path):
    path = put(tmp_path / "t.csv", "dataset,sample_id,prompt,a\nd,1,x,1\ne,1,x,2\n")
    assert_array_equal(read(path).thresholds, [0.5, NAN])
    assert_array_equal(read(path, thresholds={"e": 1.5}).thresholds, [0.5, 1.5])
    assert_array_equal(read(path, thresholds={"d": None, "*": 0.25}).thresholds, [NAN, 0.25])
    with pytest.raises(
        ValueError, match=r"thresholds .--correct-above. names the dataset 'f'; there are \['d'"
    ):
        read(path, thresholds={"f": 1})
    with pytest.raises(ValueError, match="threshold of dataset 'd' is inf"):
        read(path, thresholds={"d": float("inf")})


def csv_of(*rows, header="dataset,sample_id,prompt,a"):
    return "\n".join([header, *rows]) + "\n"


BAD = [
    # file, content, keywords, words of the error
    (
        "t.csv",
        csv_of("d,1,x,1", "d,2,y,abc"),
        {},
        r"t.csv, row 2 \(line 3\): score of model 'a' is 'abc', expected a finite number",
    ),
    (
        "t.csv",
        csv_of("d,1,x,inf", "d,2,y,0"),
        {},
        r"row 1 \(line 2\): score of model 'a' is 'inf', expected a finite",
    ),
    ("t.csv", csv_of("d,1,x,1e39"), {}, r"score of model 'a' is '1e39'"),
    (
        "t.csv",
        csv_of("d,1,x,0x1", "d,2,x,1_0", "d,3,x,1"),
        {},
        r"row 1 .*'0x1'.* \(1 more such row\)",
    ),
    (
        "t.csv",
        csv_of('d,1,"x\ny",1', "d,2,  ,1"),
        {},
        r"row 2 \(line 4\): prompt is '  ', expected text",
    ),
    ("t.csv", csv_of("d,1,,1"), {}, r"row 1 \(line 2\): prompt is ''"),
    ("t.csv", csv_of(",1,x,1"), {}, r"row 1 \(line 2\): dataset is ''"),
    ("t.csv", csv_of("d,,x,1"), {}, r"row 1 \(line 2\): sample_id is ''"),
    (
        "t.csv",
        csv_of("d,1,x,1", "e,1,x,1", "d,1,y,0"),
        {},
        r"row 3 \(line 4\): duplicate \(dataset 'd', sample_id '1'\), found before in row 1",
    ),
    (
        "t.csv",
        csv_of("d,1,x,1", "", "d,2,y,1,9"),
        {},
        r"row 2 \(line 4\): found 5 cells, expected 4",
    ),
    ("t.csv", csv_of("d,1,x"), {}, r"row 1 \(line 2\): found 3 cells, expected 4"),
    (
        "t.csv",
        'prompt,a\nx,1\ny,"0\nz,1\n',
        {},
        r"row 2 \(line 3\): found no CSV record \(an opening quote without a closing one\)",
    ),
    (
        "t.csv",
        b"prompt,a\nx,1\n\xff,1\n",
        {},
        r"t.csv, row 2 \(line 3\): found text that is not UTF-8",
    ),
    ("t.csv", "", {}, "t.csv is empty: found 0 bytes"),
    ("t.csv", "\n\n", {}, "t.csv: found an empty file, expected a header line"),
    ("t.csv", csv_of(), {}, "t.csv is empty: found no data row"),
    ("t.csv", "prompt,a,a\nx,1,1\n", {}, "found several columns named 'a'"),
    ("t.csv", "question,a\nx,1\n", {}, "t.csv has no column 'prompt'; it has 'question', 'a'"),
    (
        "t.csv",
        csv_of("d,1,x,1"),
        {"dataset_column": "task"},
        "has no column 'task' for dataset; it has 'dataset', 'sample_id'",
    ),
    (
        "t.csv",
        csv_of("d,1,x,1"),
        {"models": ["z"]},
        r"unknown models \['z'\]; the input has \['a'\]",
    ),
    ("t.csv", csv_of("d,1,x,1"), {"models": ["prompt"]}, r"unknown models \['prompt'\]"),
    (
        "t.csv",
        csv_of("d,1,x,1"),
        {"columns": {"question": "a"}},
        "columns: found 'question', expected one of dataset, sample_id, prompt",
    ),
    (
        "t.csv",
        csv_of("d,1,x,1"),
        {"columns": {"prompt": "a"}, "prompt_column": "prompt"},
        "columns maps 'prompt' to 'a', but prompt_column is 'prompt'",
    ),
    (
        "t.csv",
        csv_of("d,1,x,1"),
        {"layout": "tall"},
        "layout is 'tall', expected one of auto, wide, long",
    ),
    ("t.csv", csv_of("d,1,x,1"), {"layout": "long"}, "has no column 'model'"),
    (
        "t.csv",
        csv_of("d,1,x,1"),
        {"on_error": "ignore"},
        "on_error is 'ignore', expected 'raise' or 'skip'",
    ),
    (
        "t.csv",
        csv_of("d,1,x,text"),
        {},
        "found no numeric column to take as a model; it has 'dataset'",
    ),
    (
        "t.csv",
        csv_of("d,1,x,1,2", header="dataset,sample_id,prompt,a,cost::b"),
        {},
        "found column 'cost::b', but there is no column 'b'",
    ),
    (
        "t.csv",
        csv_of("d,1,x,1,cheap", header="dataset,sample_id,prompt,a,cost::a"),
        {},
        "cost of model 'a' is 'cheap'",
    ),
    ("t.txt", "x", {}, "found suffix '.txt', expected one of .parquet, .csv"),
    (
        "t.jsonl",
        '{"prompt": "x", "a": 1}\n\n{"prompt": "y"\n',
        {},
        r"t.jsonl, row 2 \(line 3\): found '\{\"prompt\": \"y\"', expected a JSON object",
    ),
    ("t.jsonl", "[1, 2]\n", {}, r"row 1 \(line 1\): found \[1, 2\], expected a JSON object"),
    (
        "t.jsonl",
        b'{"prompt": "\xff", "a": 1}\n',
        {},
        r"row 1 \(line 1\): found .*expected|not UTF-8",
    ),
    (
        "t.jsonl",
        '{"prompt": "\\ud800", "a": 1}\n',
        {},
        r"row 1 \(line 1\): found '\\ud800', half of a surrogate pair, expected text",
    ),
    ("t.jsonl", "\n \n", {}, "t.jsonl is empty: found no data row"),
    (
        "t.jsonl",
        [{"prompt": "x", "a": 1}, {"prompt": "y", "a": "abc"}],
        {},
        r"row 2 \(line 2\): score of model 'a' is 'abc'",
    ),
    (
        "t.jsonl",
        [{"prompt": "x", "a": 1}, {"prompt": "y", "a": [1]}],
        {},
        r"row 2 \(line 2\): score of model 'a' is \[1\]",
    ),
    (
        "t.jsonl",
        [{"prompt": "x", "a": 1}, {"prompt": 5, "a": 1}],
        {},
        r"row 2 \(line 2\): prompt is 5, expected text",
    ),
    (
        "t.jsonl",
        [{"prompt": 5, "a": 1}],
        {},
        "column 'prompt' holds int64 .5 in its first row., expected text",
    ),
    (
        "t.jsonl",
        [{"prompt": "x", "sample_id": 0.5, "a": 1}],
        {},
        "column 'sample_id' holds double .0.5 in its first row., expected text or whole numbers",
    ),
    (
        "t.jsonl",
        [{"prompt": "x", "sample_id": "s", "a": 1}, {"prompt": "x", "sample_id": True, "a": 1}],
        {},
        r"row 2 \(line 2\): sample_id is true, expected text",
    ),
    (
        "t.jsonl",
        '{"prompt": "x", "a": Infinity}\n',
        {},
        r"score of model 'a' is inf, expected a finite number",
    ),
    (
        "t.jsonl",
        [*LONG_ROWS, LONG_ROWS[1]],
        {},
        r"row 6 .*: duplicate \(model 'b', dataset 'd2', sample_id '1'\), found before in row 2",
    ),
    (
        "t.jsonl",
        [LONG_ROWS[0], dict(LONG_ROWS[1], prompt="HELLO")],
        {},
        r"row 2 .*: prompt is 'HELLO', but 'hello' for the same dataset and sample_id in row 1",
    ),
    (
        "t.jsonl",
        [LONG_ROWS[0], dict(LONG_ROWS[1], prompt=None)],
        {},
        r"row 2 \(line 2\): prompt is None",
    ),
    (
        "t.jsonl",
        [LONG_ROWS[0], dict(LONG_ROWS[1], model=" ")],
        {},
        r"row 2 \(line 2\): model is ' '",
    ),
    (
        "t.jsonl",
        [LONG_ROWS[0], dict(LONG_ROWS[1], score="abc")],
        {},
        r"row 2 \(line 2\): score is 'abc', expected a finite number",
    ),
    (
        "t.jsonl",
        [{k: v for k, v in LONG_ROWS[0].items() if k != "sample_id"}],
        {},
        "has no column 'sample_id'",
    ),
    (
        "t.jsonl",
        LONG_ROWS,
        {"models": ["a", "z"]},
        r"unknown models \['z'\]; the input has \['a', 'b'\]",
    ),
    ("t.parquet", b"PAR1 but not really PAR1", {}, "t.parquet is not a readable Parquet file"),
    ("t.parquet", PARQUET.replace(b"prompt", b"\xffrompt"), {}, "t.parquet is not a readable Par"),
]


@pytest.mark.parametrize(("name", "content", "kwargs", "words"), BAD)
def test_bad_input_is_named(tmp_path, name, content, kwargs, words):
    with pytest.raises(ValueError, match=words):
        read(put(tmp_path / name, content), **kwargs)


def test_missing_file_and_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.csv: no such file"):
        read(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match="found no path"):
        read([])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model_columns": ["a", "z"]},
            r"t.json: model_columns names unknown models \['z'\]; .*t.csv has 'task'",
        ),
        (
            {"model_columns": ["a", "question"]},
            "model_columns names 'question', which is the column of",
        ),
        ({"model_columns": ["a", "a"]}, "model_columns names 'a' more than once"),
        ({"model_columns": "a"}, "model_columns is 'a', expected a list of column names"),
        (
            {"cost_columns": ["cost::a"]},
            "t.json names a column 'cost::a' that .*t.csv does not have",
        ),
        ({"prompt_column": "text"}, "t.csv has no column 'text' for prompt"),
        ({"layout": "tall"}, "t.json: layout is 'tall', expected 'wide' or 'long'"),
        (
            {"model_params_billion": {"a": "7B"}},
            "model_params_billion of 'a' is '7B', expected a finite number or nothing",
        ),
        ({"model_params_billion": {"a": -7}}, "model_params_billion of 'a' is -7"),
        ({"model_params_billion": [7]}, r"model_params_billion is \[7\], expected a JSON object"),
        (
            {"model_price_usd_per_million_tokens": {"a": 1}},
            r"of 'a' is 1, expected \[US\$ in, US\$ out\]",
        ),
        ({"model_price_usd_per_million_tokens": {"a": [1, -1]}}, "expected prices >= 0"),
        ({"thresholds": {"t1": "half"}}, "thresholds of 't1' is 'half'"),
        ({"metrics": {"t1": 1}}, "metrics of 't1' is 1, expected text"),
    ],
)
def test_bad_sidecar_is_named(tmp_path, changes, words):
    put(tmp_path / "t.csv", SIDECAR_CSV)
    put(tmp_path / "t.json", SIDECAR | changes)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "{",
            "t.json, line 1, column 2: found .*; the file is the sidecar of .*t.csv",
        ),
        ("[1]", "found \\[1\\], expected a JSON object"),
        ('{"metrics": {"t": "a", "t": "b"}}', "t.json: found the key 't' twice in one object"),
    ],
)
def test_broken_sidecar_is_named(tmp_path, content, words):
    put(tmp_path / "t.json", content)
    with pytest.raises(ValueError, match=words):
        read(put(tmp_path / "t.csv", SIDECAR_CSV))


def test_skip_leaves_out_records_of_wide_files_and_lists_them(tmp_path):
    text = csv_of(
        "d,1,x,abc,1",
        "d,2,,1,1",
        "d,3,y,1,0,9",
        "d,4,z,1,1",
        "d,4,z,0,0",
        "d,1,x,0,1",
        header="dataset,sample_id,prompt,a,b",
    )
    found = read(put(tmp_path / "t.csv", text), on_error="skip")
    # Row 1 is bad, so row 6 is no duplicate of it.
    assert found.sample_ids == ["4", "1"]
    assert_array_equal(found.scores, [[1, 1], [0, 1]])
    assert_array_equal(found.source_rows, [3, 5])
    assert found.n_source_rows == 6
    where = [message.removeprefix(str(tmp_path)) for message in found.skipped]
    assert where == [
        "/t.csv, row 1 (line 2): score of model 'a' is 'abc', expected a finite number or nothing",
        "/t.csv, row 2 (line 3): prompt is '', expected text that is not blank",
        "/t.csv, row 3 (line 4): found 6 cells, expected 5",
        "/t.csv, row 5 (line 6): duplicate (dataset 'd', sample_id '4'), found before in row 4",
    ]
    assert found.describe()["n_skipped"] == 4


def test_skip_leaves_out_rows_of_long_files(tmp_path):
    rows = [
        dict(LONG_ROWS[0], score="abc"),
        LONG_ROWS[1],
        dict(LONG_ROWS[2], score=[]),
        *LONG_ROWS[3:],
        dict(LONG_ROWS[3], score=1),
        {"model": "c"},
    ]
    path = put(tmp_path / "t.jsonl", rows)
    path.write_bytes(path.read_bytes() + b"{broken\n")
    found = read(path, on_error="skip")
    # The record of row 3 has no row left; it still counts as a source row.
    assert (found.sample_ids, found.datasets, found.models) == (["1", "2"], ("d2",), ("a", "b"))
    assert_array_equal(found.scores, [[NAN, 0.5], [0, NAN]])
    assert_array_equal(found.source_rows, [0, 2])
    assert found.n_source_rows == 3
    assert [message.split(": ")[0].split(", ")[1] for message in found.skipped] == [
        f"row {row} (line {row})" for row in (1, 3, 6, 7, 8)
    ]


def test_skipping_everything_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no record is left.*row 1 \(line 2\): prompt is ''"):
        read(put(tmp_path / "t.csv", csv_of("d,1,,1")), on_error="skip")
    with pytest.raises(ValueError, match=r"no readable row; .*row 1 \(line 1\): found 'x'"):
        read(put(tmp_path / "t.jsonl", "x\n"), on_error="skip")


def test_files_with_other_models_merge(tmp_path):
    first = put(tmp_path / "one.csv", csv_of("d,1,x,1", "d,2,y,0"))
    second = put(
        tmp_path / "two.csv",
        csv_of("e,1,z,,1", "d,2,y,,0", "d,1,x,,1", header="dataset,sample_id,prompt,a,b"),
    )
    found = read([first, second])
    assert found.sample_ids == ["1", "2", "1"]
    assert_array_equal(found.dataset, [0, 0, 1])
    assert_array_equal(found.scores, [[1, 1], [0, 0], [NAN, 1]])
    # Rows of both files in turn; shared records stand where they came first.
    assert_array_equal(found.source_rows, [0, 1, 2])
    assert found.n_source_rows == 5
    found = read([second, first])
    assert_array_equal(found.source_rows, [0, 1, 2])
    # No cell of the second file's column a is a number, so it is none of its models.
    assert found.models == ("b", "a")
    assert read([second, first], models=["b", "a"]).models == ("b", "a")


def test_models_may_be_spread_over_files(tmp_path):
    first = put(tmp_path / "one.csv", csv_of("d,1,x,1"))
    second = put(tmp_path / "two.csv", csv_of("d,1,x,0", header="dataset,sample_id,prompt,b"))
    assert_array_equal(read([first, second], models=["b", "a"]).scores, [[0, 1]])
    with pytest.raises(ValueError, match=r"unknown models \['c'\]; the input has \['a', 'b'\]"):
        read([first, second], models=["a", "c"])


def test_wide_and_long_files_merge(tmp_path):
    wide = put(
        tmp_path / "one.csv",
        csv_of("d2,2,again,1", "d3,1,new,0", header="dataset,sample_id,prompt,c"),
    )
    long = put(tmp_path / "two.jsonl", LONG_ROWS)
    found = read([wide, long])
    assert found.models == ("c", "a", "b")
    assert list(zip(found.dataset.tolist(), found.sample_ids, strict=True)) == [
        (1, "2"),
        (2, "1"),
        (1, "1"),
        (0, "1"),
    ]
    assert_array_equal(found.scores, [[1, 0, NAN], [0, NAN, NAN], [NAN, 1, 0.5], [NAN, NAN, 0]])
    # Distinct records in order of first appearance.
    assert_array_equal(found.source_rows, [0, 1, 2, 3])
    assert found.n_source_rows == 4


def test_source_rows_of_mixed_files_count_skipped_records(tmp_path):
    wide = put(tmp_path / "one.csv", csv_of("d,1,x,abc", "d,2,y,1"))
    long = put(tmp_path / "two.jsonl", [dict(LONG_ROWS[0], model="b")])
    found = read([wide, long], on_error="skip", models=["a", "b"])
    assert found.sample_ids == ["2", "1"]
    assert_array_equal(found.source_rows, [1, 2])
    assert found.n_source_rows == 3


def test_contradicting_scores_show_both_values_and_places(tmp_path):
    first = put(tmp_path / "one.csv", csv_of("d,1,x,1", "d,2,y,0"))
    second = put(
        tmp_path / "two.csv",
        csv_of("d,3,z,1,1", "d,2,y,0.5,1", header="dataset,sample_id,prompt,a,b"),
    )
    words = (
        r"two.csv, row 2 \(line 3\): score of model 'a' for \(dataset 'd', sample_id '2'\) is 0.5, "
        r"but 0 in .*one.csv, row 2 \(line 3\)"
    )
    with pytest.raises(ValueError, match=words):
        read([first, second])
    found = read([first, second], on_error="skip")
    assert_array_equal(found.scores, [[1, NAN], [0, NAN], [1, 1]])
    assert len(found.skipped) == 1


def test_the_same_long_row_in_two_files_counts_once_and_is_told(tmp_path):
    first = put(tmp_path / "one.jsonl", LONG_ROWS)
    second = put(tmp_path / "two.jsonl", [dict(LONG_ROWS[0], model="c"), LONG_ROWS[2]])
    found = read([first, second])
    assert found.select(models=["a", "b"]) == read(first)
    assert found.origin.duplicates == {("d1", "b"): 1}
    put(second, [dict(LONG_ROWS[0], model="c"), dict(LONG_ROWS[2], score=1)])
    with pytest.raises(
        ValueError,
        match=r"two.jsonl, row 2 .*: score of model 'b' .* is 1, but 0 in .*one.jsonl, row 3 ",
    ):
        read([first, second])


def test_contradicting_prompts_show_both(tmp_path):
    first = put(tmp_path / "one.csv", csv_of("d,1,x,1"))
    second = put(tmp_path / "two.csv", csv_of("d,1,X,1", header="dataset,sample_id,prompt,b"))
    words = (
        r"two.csv, row 1 \(line 2\): prompt of \(dataset 'd', sample_id '1'\) is 'X', but 'x' in "
    )
    with pytest.raises(ValueError, match=words):
        read([first, second])
    found = read([first, second], on_error="skip")
    assert_array_equal(found.scores, [[1, NAN]])


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        (
            {"model_params_billion": {"a": 7}},
            {"model_params_billion": {"a": 8}},
            r"parameters \(billions\) of model 'a' is 8.0 in .*two.json, but 7.0 in .*one.json",
        ),
        (
            {"model_price_usd_per_million_tokens": {"a": [1, 2]}},
            {"model_price_usd_per_million_tokens": {"a": [1, 3]}},
            r"price .* of model 'a' is \(1.0, 3.0\)",
        ),
        (
            {"thresholds": {"d": 0.5}},
            {"thresholds": {"d": None}},
            "threshold of dataset 'd' is nan in .*two.json, but 0.5",
        ),
    ],
)
def test_contradicting_sidecars_are_named(tmp_path, one, two, words):
    paths = [
        put(tmp_path / "one.csv", csv_of("d,1,x,1")),
        put(tmp_path / "two.csv", csv_of("d,2,x,1")),
    ]
    put(tmp_path / "one.json", one)
    assert read(paths).n_records == 2
    put(tmp_path / "two.json", one)
    assert read(paths).n_records == 2
    put(tmp_path / "two.json", two)
    with pytest.raises(ValueError, match=words):
        read(paths)


cells = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))


@st.composite
def grids(draw):
    """Rows of a wide table as dicts, with distinct keys and two to four models."""
    models = draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=4, unique=True))
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from("xyz"), st.integers(0, 9)),
            min_size=1,
            max_size=8,
            unique=True,
        )
    )
    return models, [
        {"dataset": d, "sample_id": str(s), "prompt": f"{d}{s % 3}"}
        | {model: draw(cells) for model in models}
        for d, s in keys
    ]


def arrow(rows, models):
    kinds = {"dataset": pa.string(), "sample_id": pa.string(), "prompt": pa.string()}
    kinds |= dict.fromkeys(models, pa.float64())
    return pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))


def melted(rows, models):
    return [
        {"model": m, "score": row[m]} | {k: row[k] for k in ("dataset", "sample_id", "prompt")}
        for row in rows
        for m in models
    ]


@settings(max_examples=60, deadline=None)
@given(grid=grids(), data=st.data())
def test_permuted_rows_give_the_same_table_up_to_order(grid, data):
    models, rows = grid
    order = data.draw(st.permutations(range(len(rows))))
    found = table_from_arrow(arrow(rows, models))
    permuted = table_from_arrow(arrow([rows[i] for i in order], models))
    assert permuted == found.rows(list(order))


@settings(max_examples=60, deadline=None)
@given(grid=grids(), data=st.data())
def test_long_and_wide_forms_are_equal(grid, data):
    models, rows = grid
    wide = table_from_arrow(arrow(rows, models))
    long_rows = melted(rows, models)
    assert table_from_arrow(pa.Table.from_pylist(long_rows)) == wide
    shuffled = [long_rows[i] for i in data.draw(st.permutations(range(len(long_rows))))]
    found = table_from_arrow(pa.Table.from_pylist(shuffled))
    keys = list(zip(found.dataset.tolist(), found.sample_ids, strict=True))
    at = [keys.index(key) for key in zip(wide.dataset.tolist(), wide.sample_ids, strict=True)]
    assert found.select(models=models).rows(at) == wide


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(grid=grids(), data=st.data())
def test_splitting_a_table_into_files_and_merging_them_changes_nothing(tmp_path, grid, data):
    models, rows = grid
    whole = table_from_arrow(arrow(rows, models))
    cut = data.draw(st.integers(1, len(models) - 1))
    halves = models[:cut], models[cut:]
    paths = [tmp_path / "one.parquet", tmp_path / "two.jsonl"]
    pq.write_table(arrow(rows, halves[0]), paths[0])
    put(paths[1], melted(rows, halves[1]))
    assert read(paths) == whole
    at = data.draw(st.integers(0, len(rows)))
    pieces = [piece for piece in (rows[:at], rows[at:]) if piece]
    paths = [tmp_path / f"piece{i}.parquet" for i in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        pq.write_table(arrow(piece, models), path)
    merged = read(paths)
    assert merged == whole
    assert_array_equal(merged.source_rows, np.arange(len(rows)))
    assert merged.n_source_rows == len(rows)


def test_formats_give_equal_tables(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"dataset": f"d{i % 3}", "sample_id": f"{i:03d}", "prompt": f'say "{i}",\nplease'}
        | {f"m{j}": float(np.float32(rng.random())) for j in range(3)}
        for i in range(200)
    ]
    wide = arrow(rows, ["m0", "m1", "m2"])
    pq.write_table(wide, tmp_path / "t.parquet", row_group_size=64)
    pa.csv.write_csv(wide, tmp_path / "u.csv")
    put(tmp_path / "v.jsonl", rows)
    put(tmp_path / "w.jsonl.gz", gzip.compress((tmp_path / "v.jsonl").read_bytes()))
    put(tmp_path / "x.jsonl.zst", zstd((tmp_path / "v.jsonl").read_bytes()))
    put(tmp_path / "y.csv.zst", zstd((tmp_path / "u.csv").read_bytes()))
    found = read(tmp_path / "t.parquet")
    assert found.scores[17, 2] == np.float32(rows[17]["m2"])
    for name in ("u.csv", "v.jsonl", "w.jsonl.gz", "x.jsonl.zst", "y.csv.zst"):
        assert read(tmp_path / name) == found


@pytest.mark.parametrize("suffix", ["csv.gz", "jsonl.gz", "csv.zst", "jsonl.zst"])
def test_a_cut_compressed_file_is_named(tmp_path, suffix):
    rows = [
        f'{{"prompt": "question {i * i * 7919 % 10007} {i}", "a": {i % 2}}}' for i in range(999)
    ]
    if suffix.startswith("csv"):
        rows = ["prompt,a", *(f"question {i * i * 7919 % 10007} {i},{i % 2}" for i in range(999))]
    pack = gzip.compress if suffix.endswith("gz") else zstd
    whole = pack(("\n".join(rows) + "\n").encode())
    (tmp_path / f"t.{suffix}").write_bytes(whole)
    assert read(tmp_path / f"t.{suffix}").n_records == 999
    (tmp_path / f"t.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"t.{suffix}: .*([Tt]runcated|ended before)"):
        read(tmp_path / f"t.{suffix}")


def test_a_directory_is_no_table(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory without results of a known format"):
        read(tmp_path)


def test_long_records_of_a_csv(tmp_path, monkeypatch):
    prompt = "x\n" * 1_000_000
    path = put(tmp_path / "t.csv", f'prompt,a\n"{prompt}",1\ny,abc\n')
    for block in (1 << 22, 1 << 16):  # Arrow takes no record that is longer than a block
        monkeypatch.setattr("benchrouter.tables.sources.csv_file.BLOCK_BYTES", block)
        where = r"t.csv, row 2 \(line 1000003\): score of model 'a' is 'abc'"
        with pytest.raises(ValueError, match=where):
            read(path)
        assert read(path, on_error="skip").prompts == [prompt]


def test_models_may_come_from_an_iterator(tmp_path):
    path = put(tmp_path / "t.csv", csv_of("d,1,x,1,0", header="dataset,sample_id,prompt,a,b"))
    assert read(path, models=iter(["b", "a"])).models == ("b", "a")
