"""RouterBench's wide tables: whose score and cost each column is, prompts, pickles."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_from_arrow
from benchrouter.tables.formats import routerbench

NAN = float("nan")
LLAMA = "meta/llama-2-70b-chat"
COLUMNS = {
    "sample_id": ["mmlu-law.val.1", "mbpp.dev.3", "mtbench.9"],
    "prompt": ["['Say \"A\"\\nor B.']", "Sort a list.", "['First.', \"It's second.\"]"],
    "eval_name": ["mmlu-law", "mbpp", "mtbench"],
    "gpt-4-1106-preview": [1.0, 0.0, 0.75],
    LLAMA: [0.0, None, 0.25],
    f"{LLAMA}|model_response": ["['1']", "['2']", "['3']"],
    "gpt-4-1106-preview|model_response": ["['4']", "['5']", "['6']"],
    f"{LLAMA}|total_cost": [0.25, 0.5, None],
    "gpt-4-1106-preview|total_cost": [2.0, 4.0, 8.0],
    "oracle_model_to_route_to": ["gpt-4-1106-preview", "no_model_correct", LLAMA],
}


def check(found):
    assert found.models == ("gpt-4-1106-preview", LLAMA)
    assert found.datasets == ("mbpp", "mmlu-law", "mtbench")
    assert found.dataset.tolist() == [1, 0, 2]
    assert found.sample_ids == COLUMNS["sample_id"]
    assert found.prompts == ['Say "A"\nor B.', "Sort a list.", "First.\nIt's second."]
    assert_array_equal(found.scores, [[1, 0], [0, NAN], [0.75, 0.25]])
    assert_array_equal(found.cost_usd, [[2, 0.25], [4, 0.5], [8, NAN]])
    assert found.thresholds.tolist() == [0.5] * 3


def write(path, columns=COLUMNS):
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        with pa.CompressedOutputStream(str(path), "gzip" if path.suffix == ".gz" else "zstd") as f:
            pa.csv.write_csv(table, f)
    return path


@pytest.mark.parametrize("name", ["r.parquet", "r.csv", "r.jsonl", "r.csv.gz", "r.csv.zst"])
def test_the_golden_table(tmp_path, name):
    check(read(write(tmp_path / name)))
    check(read(tmp_path / name, format="routerbench"))


def test_a_table_in_memory():
    pandas = pytest.importorskip("pandas")
    check(table_from_arrow(pa.table(COLUMNS)))
    frame = pandas.DataFrame(COLUMNS).astype(object)
    frame["gpt-4-1106-preview"] = [True, 0, "0.75"]
    frame[f"{LLAMA}|model_response"] = [["1"], "2", None]
    check(table_from_arrow(frame))


def test_a_byte_order_mark_and_carriage_returns(tmp_path):
    text = write(tmp_path / "r.csv").read_bytes()
    assert b"\\n" in text and text.count(b"\n") == 4
    (tmp_path / "r.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    check(read(tmp_path / "r.csv"))


def test_missing_spelled_six_ways_and_separators_in_text(tmp_path):
    columns = {
        "sample_id": [str(i) for i in range(7)],
        "prompt": ["['one\\u2028two']", "a\u2028b\x85c", *"vwxyz"],
        "eval_name": ["e"] * 7,
        "m": ["", "NaN", "nan", "null", "NA", "Null", "0.5"],
        "m|total_cost": ["0.125", "", "nan", "NULL", "na", "", "1e-5"],
    }
    found = read(write(tmp_path / "r.csv", columns))
    assert_array_equal(found.scores[:, 0], [NAN] * 6 + [0.5])
    assert_array_equal(found.cost_usd[:, 0], np.array([0.125, *[NAN] * 5, 1e-5], np.float32))
    assert found.prompts[:2] == ["one\u2028two", "a\u2028b\x85c"]


def test_whole_numbers_of_64_bits_as_sample_ids(tmp_path):
    ids = [2**63 - 1, 2**53 + 1, 0]
    found = read(write(tmp_path / "r.parquet", {**COLUMNS, "sample_id": ids}))
    assert found.sample_ids == [str(value) for value in ids]


@pytest.mark.parametrize(
    ("cell", "prompt"),
    [
        ("['a']", "a"),
        ("['a', 'b']", "a\nb"),
        ("[ 'a' , \"b\", ]", "a\nb"),
        (r"['\x']", r"['\x']"),
        ("['a' 'b']", "['a' 'b']"),
        ("['a'" + " " * 100_000, "['a'" + " " * 100_000),
        ("['a'," * 30_000, "['a'," * 30_000),
        ("[('a')]", "[('a')]"),
        (repr(['it\'s "so"\n\\ \u2028\x00', "\x85'"]), "it's \"so\"\n\\ \u2028\x00\n\x85'"),
        (repr(["'" * 30_000 + "\\" * 30_000]), "'" * 30_000 + "\\" * 30_000),
        (r"""["It's", '\u00e9\\n\n.']""", "It's\né\\n\n."),
        ("[1, 2]", "[1, 2]"),
        ("['a'", "['a'"),
        ("['a'] and so on", "['a'] and so on"),
        ("[x for x in y]", "[x for x in y]"),
        ("[__import__('os').getcwd()]", "[__import__('os').getcwd()]"),
        ("['a'.upper()]", "['a'.upper()]"),
        (r"['\ud800']", r"['\ud800']"),
        (r"['\d']", r"\d"),
        ("['a\x00']", "['a\x00']"),
        ("[" * 5_000 + "]" * 5_000, "[" * 5_000 + "]" * 5_000),
        ("[" + "-" * 20_000 + "1]", "[" + "-" * 20_000 + "1]"),
    ],
)
def test_prompts_that_are_lists(tmp_path, cell, prompt):
    columns = {**COLUMNS, "prompt": [cell, "b", "c"]}
    assert read(write(tmp_path / "r.parquet", columns)).prompts == [prompt, "b", "c"]


def test_prompts_that_are_lists_of_arrow(tmp_path):
    columns = {**COLUMNS, "prompt": [["a", "b"], ["c"], ["d"]]}
    assert read(write(tmp_path / "r.parquet", columns)).prompts == ["a\nb", "c", "d"]
    columns["prompt"] = [["a"], [], [None]]
    with pytest.raises(ValueError, match=r"r.parquet, row 2: prompt is '', expected text.*1 more"):
        read(write(tmp_path / "r.parquet", columns))


def test_bad_cells_are_named(tmp_path):
    text = write(tmp_path / "r.csv").read_text()
    (tmp_path / "r.csv").write_text(text.replace("0.75", "good"))
    match = r"r.csv, row 3 \(line 4\): score of model 'gpt-4-1106-preview' is 'good', expected a"
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "r.csv")
    assert read(tmp_path / "r.csv", on_error="skip").n_records == 2
    columns = {**COLUMNS, f"{LLAMA}|total_cost": [1.0, float("inf"), 1.0]}
    with pytest.raises(ValueError, match=f"row 2: cost of model '{LLAMA}' is inf"):
        read(write(tmp_path / "r.parquet", columns))
    rows = [{**row, "sample_id": i} for i, row in enumerate(pa.table(COLUMNS).to_pylist())]
    rows[1] |= {"prompt": 3, "sample_id": "one"}
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"row 2 \(line 2\): prompt is 3, expected text"):
        read(tmp_path / "r.jsonl")
    assert read(tmp_path / "r.jsonl", on_error="skip").sample_ids == ["0", "2"]
    columns = {**COLUMNS, "prompt": ["['']", "b", "c"]}
    with pytest.raises(ValueError, match="row 1: prompt is '', expected text that is not blank"):
        read(write(tmp_path / "r.parquet", columns))


def test_models_chosen(tmp_path):
    found = read(write(tmp_path / "r.parquet"), models=[LLAMA])
    assert_array_equal(found.scores[:, 0], [0, NAN, 0.25])
    assert_array_equal(found.cost_usd[:, 0], [0.25, 0.5, NAN])
    with pytest.raises(ValueError, match=r"unknown models \['gpt-5'\]"):
        read(tmp_path / "r.parquet", models=["gpt-5"])


def test_a_sidecar_beside_it(tmp_path):
    sidecar = {"model_params_billion": {LLAMA: 70}, "thresholds": {"mtbench": 0.7}}
    (tmp_path / "r.json").write_text(json.dumps(sidecar))
    found = read(write(tmp_path / "r.csv"))
    assert_array_equal(found.params_b, [NAN, 70])
    assert found.thresholds.tolist() == [0.5, 0.5, 0.7]


def test_models_need_no_costs(tmp_path):
    columns = {name: c for name, c in COLUMNS.items() if not name.endswith("|total_cost")}
    found = read(write(tmp_path / "r.parquet", columns))
    assert found.models == ("gpt-4-1106-preview", LLAMA) and found.cost_usd is None


def test_what_it_lacks_is_named(tmp_path):
    columns = {name: c for name, c in COLUMNS.items() if name != "eval_name"}
    with pytest.raises(ValueError, match=r"no column 'eval_name' of RouterBench; it has 'sample"):
        read(write(tmp_path / "r.csv", columns), format="routerbench")
    columns = {name: c for name, c in COLUMNS.items() if "|" not in name}
    with pytest.raises(ValueError, match="found no model with columns 'MODEL' and 'MODEL|total_"):
        read(write(tmp_path / "r.csv", columns), format="routerbench")
    # Without them it is a table like any other.
    assert read(tmp_path / "r.csv").models == ("gpt-4-1106-preview", LLAMA)


def test_a_broken_table_is_left_to_the_reader_of_tables(tmp_path):
    (tmp_path / "r.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(b"prompt,a\nx,1\n" * 99)[:30])
    for name in ("r.parquet", "r.csv.gz"):
        assert not routerbench.recognises(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)


def test_pickles_are_refused_with_their_conversion(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "routerbench_0shot.pkl"
    pandas.DataFrame(COLUMNS).astype(object).to_pickle(path)
    monkeypatch.setattr("pickle.load", lambda *_: pytest.fail("a pickle was loaded"))
    for format in ("auto", "routerbench"):
        with pytest.raises(ValueError, match="is a pickle, which is not read") as refused:
            read(path, format=format)
    monkeypatch.undo()
    text = str(refused.value)
    line = text[text.index("python -c ") :]
    assert "\n" not in text
    subprocess.run(line.replace("python", sys.executable, 1), shell=True, check=True)
    check(read(tmp_path / "routerbench_0shot.csv"))
    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
    assert line.replace(f"{tmp_path}/", "") in page.splitlines()
    assert line.replace(f"{tmp_path}/routerbench_0shot", "X") in routerbench.__doc__
