"""MixInstruct files: which cell a candidate's score becomes, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_report, write_table
from benchrouter.tables.formats import mixinstruct
from benchrouter.tables.formats.choices import Choices

NAN = float("nan")


def candidate(model, text="an answer", **scores):
    return {"decoding_method": "top_p_sampling", "model": model, "text": text, "scores": scores}


def record(**changes):
    fields = {
        "id": "unified_chip2/69962",
        "instruction": "Translate.",
        "input": "Guten Tag",
        "output": "Good day",
        "candidates": [candidate("alpaca", bertscore=0.5), candidate("mpt", bertscore=0.75)],
        "cmp_results": "null",
    }
    return {**fields, **changes}


GOLDEN = [
    record(
        candidates=[
            candidate("vicuna-13b-1.1", bertscore=0.75, bartscore=-2.5, bleurt=-0.5, rougeL=0.25),
            candidate("flan-t5-xxl", bertscore=0.5, bartscore=-3.0, bleurt=0.125, rougeL=0.0),
        ]
    ),
    record(
        id="sharegpt/7",
        instruction="",
        input="one\u2028two\x85three\r\n",
        cmp_results=None,
        candidates=[
            candidate("flan-t5-xxl", bertscore=0.625, bartscore=-1.5, bleurt=0.25, rougeL=1),
            candidate("vicuna-13b-1.1", bertscore=None, bartscore=-4, bleurt=-1.0),
        ],
    ),
    record(
        id="no source",
        instruction="Sing.",
        input="",
        candidates=[candidate("vicuna-13b-1.1", bertscore=0.25, bartscore=-5.0)],
    ),
]


def put(path, records, *, array=False, before=b"", line_end=b"\n"):
    texts = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    lines = [text.encode() for text in texts]
    if array:
        lines = [b"[", *(line + b"," for line in lines[:-1]), lines[-1], b"]"]
    data = before + b"".join(line + line_end for line in lines)
    if path.suffix.lower() == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        packed = pa.BufferOutputStream()
        with pa.CompressedOutputStream(packed, "zstd") as stream:
            stream.write(data)
        data = packed.getvalue().to_pybytes()
    path.write_bytes(data)
    return path


def test_the_golden_table(tmp_path):
    found = read(put(tmp_path / "test_data_prepared.jsonl", GOLDEN))
    assert found.models == ("vicuna-13b-1.1", "flan-t5-xxl")
    assert found.datasets == ("mix-instruct", "sharegpt", "unified_chip2")
    assert found.dataset.tolist() == [2, 1, 0]
    assert found.sample_ids == ["69962", "7", "no source"]
    assert found.prompts == ["Translate.\nGuten Tag", "one\u2028two\x85three\r\n", "Sing."]
    assert_array_equal(found.scores, [[0.75, 0.5], [NAN, 0.625], [0.25, NAN]])
    assert found.metrics == ("bertscore",) * 3
    assert np.isnan(found.thresholds).all()


def test_the_note_names_the_file_once(tmp_path):
    path = tmp_path / "test_data.jsonl"
    put(path, GOLDEN)
    taken = "took the metric 'bertscore'; there are also bartscore, bleurt, rougeL"
    assert table_report(read(path)).notes == (f"{path}: {taken}",)


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("bartscore", [[-2.5, -3], [-4, -1.5], [-5, NAN]]),
        ("bleurt", [[-0.5, 0.125], [-1, 0.25], [NAN, NAN]]),
        ("rougeL", [[0.25, 0], [NAN, 1], [NAN, NAN]]),
    ],
)
def test_other_metrics_have_the_same_records(tmp_path, metric, scores):
    path = put(tmp_path / "m.jsonl", GOLDEN)
    found, plain = read(path, metric=metric), read(path)
    assert_array_equal(found.scores, np.array(scores, np.float32))
    assert (found.metrics, found.sample_ids) == ((metric,) * 3, plain.sample_ids)
    assert np.isnan(found.thresholds).all()
    # As evaluate --metric names it.
    assert read(path, columns={"score": metric}) == found
    assert read(path, columns={"score": "bertscore"}, metric=metric) == found
    assert read(path, metric=metric, thresholds={"*": 0.5}).thresholds.tolist() == [0.5] * 3


def test_several_metrics_in_one_file(tmp_path):
    path = put(tmp_path / "m.jsonl", GOLDEN)
    tables = {metric: read(path, metric=metric) for metric in ("bartscore", "bleurt")}
    write_table(read(path), tmp_path / "t.parquet", metrics=tables)
    assert read(tmp_path / "t.parquet") == read(path)
    for metric, table in tables.items():
        found = read(tmp_path / "t.parquet", columns={"score": metric})
        assert_array_equal(found.scores, table.scores)
        assert (found.metrics, found.prompts) == (table.metrics, table.prompts)


def test_further_metrics_must_be_of_the_same_records(tmp_path):
    table = read(put(tmp_path / "m.jsonl", GOLDEN))
    with pytest.raises(ValueError, match="metric 'x' has other sample_ids"):
        write_table(table, tmp_path / "t.csv", metrics={"x": table.rows(np.array([1, 0, 2]))})
    with pytest.raises(ValueError, match="metric 'x' has other models"):
        write_table(table, tmp_path / "t.csv", metrics={"x": table.select(models=["flan-t5-xxl"])})
    swapped = replace(table, dataset=table.dataset[::-1].copy())
    with pytest.raises(ValueError, match="metric 'x' has records of other datasets"):
        write_table(table, tmp_path / "t.csv", metrics={"x": swapped})
    for name in ("", "cost", "log_likelihood", "a::b"):
        with pytest.raises(ValueError, match=f"metric '{name}' cannot be written"):
            write_table(table, tmp_path / "t.csv", metrics={name: table})
    assert not list(tmp_path.glob("t*"))


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "M.JSON.GZ", "m.json.zst", "m.jsonl.zst"])
@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n\n"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_arrays_and_lines_however_they_are_packed(tmp_path, name, array, before, line_end):
    plain = read(put(tmp_path / "plain.jsonl", GOLDEN))
    path = put(tmp_path / name, GOLDEN, array=array, before=before, line_end=line_end)
    assert read(path) == plain


def test_a_pretty_printed_array(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(GOLDEN, indent=2))
    assert read(tmp_path / "m.json") == read(put(tmp_path / "m.jsonl", GOLDEN))


def test_ids(tmp_path):
    big = 2**63 - 1
    ids = [big, "a/b/3", "/4", "5/", None]
    found = read(put(tmp_path / "m.jsonl", [record(id=value) for value in ids]))
    names = [found.datasets[i] for i in found.dataset]
    assert names == ["mix-instruct", "a/b", "mix-instruct", "mix-instruct", "mix-instruct"]
    assert found.sample_ids == [str(big), "3", "/4", "5/", "5"]


def test_without_ids_the_number_of_the_record(tmp_path):
    records = [{k: v for k, v in record().items() if k != "id"} for _ in range(2)]
    found = read(put(tmp_path / "m.jsonl", records))
    assert (found.datasets, found.sample_ids) == (("mix-instruct",), ["1", "2"])


def test_missing_scores_spelled_six_ways(tmp_path):
    spelled = ["NaN", "null", '"NaN"', '"nan"', '""', '"NA"', '" null "']
    texts = [f'{{"model": "m{i}", "scores": {{"bertscore": {s}}}}}' for i, s in enumerate(spelled)]
    texts += ['{"model": "none", "scores": {}}', '{"model": "null", "scores": null}']
    texts += ['{"model": "right", "scores": {"bertscore": "0.5"}}']
    texts += ['{"model": "true", "scores": {"bertscore": true}}']
    line = '{"instruction": "x", "candidates": [' + ", ".join(texts) + "]}"
    found = read(put(tmp_path / "m.jsonl", [line]))
    assert found.n_models == 11
    assert_array_equal(found.scores[0], [NAN] * 9 + [0.5, 1])


BAD = [
    (record(id=1.5), "id is 1.5, expected text or a whole number"),
    (record(id=True), "id is True, expected text or a whole number"),
    (record(instruction=3), "instruction is 3, expected text"),
    (record(instruction=" ", input="\n"), "instruction and input are blank"),
    (record(candidates=[]), r"candidates is \[\], expected a list that is not empty"),
    (record(candidates="[]"), "candidates is '\\[\\]', expected a list"),
    (record(candidates=[3]), "candidate 1 is 3, expected a JSON object"),
    (record(candidates=[{"model": " ", "scores": {}}]), "model of candidate 1 is ' '"),
    (record(candidates=[{"model": "a", "scores": [1]}]), r"scores of candidate 1 are \[1\]"),
    (
        record(candidates=[candidate("a", bertscore="?")]),
        "bertscore of model 'a' is '\\?', expected",
    ),
    (record(candidates=[candidate("a", bertscore=10**400)]), "bertscore of model 'a' is 1000"),
    (record(candidates=[candidate("a", bertscore=[1])]), r"bertscore of model 'a' is \[1\]"),
    ('{"candidates": [], "candidates": []}', "found the key 'candidates' twice"),
    ('{"a": {"b": 1, "b": 1}}', "found the key 'b' twice"),
    ('{"instruction": "\\ud800"}', r"found '\\ud800', half of a surrogate pair"),
    ("3", "found 3, expected a JSON object"),
]


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(("bad", "words"), BAD)
def test_what_is_refused_is_named(tmp_path, bad, words, array):
    path = put(tmp_path / "m.json", [GOLDEN[0], bad, GOLDEN[2]], array=array)
    place = "item 2 (line 3)" if array else "line 2"
    with pytest.raises(ValueError, match=rf"m.json, {re.escape(place)}: {words}"):
        read(path)
    found = read(path, on_error="skip")
    assert found.sample_ids == ["69962", "no source"]
    assert len(found.skipped) == 1 and f", {place}: " in found.skipped[0]


def test_infinite_scores_are_refused(tmp_path):
    bad = json.dumps(record(candidates=[candidate("a", bertscore=float("inf"))]))
    with pytest.raises(ValueError, match=r"m.jsonl, line 1: bertscore of model 'a' is inf"):
        read(put(tmp_path / "m.jsonl", [bad]))


def test_a_model_twice_in_a_record(tmp_path):
    twice = record(candidates=[candidate("a", bertscore=1), candidate("a", bertscore=0)])
    path = put(tmp_path / "m.jsonl", [twice])
    with pytest.raises(ValueError, match=r"m.jsonl, line 1: duplicate \(model 'a'"):
        read(path)
    assert read(path, on_error="skip").scores.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{oops", r"line 2: found '\{oops', expected a JSON object"),
        ("{} {}", r"line 2: found '\{\} \{\}', expected a JSON object \(extra data at column 4\)"),
        ("[" * 100_000, r"line 2: found '\[\["),
    ],
)
def test_broken_lines(tmp_path, text, words):
    path = put(tmp_path / "m.jsonl", [GOLDEN[0], text])
    with pytest.raises(ValueError, match=words):
        read(path)
    assert read(path, on_error="skip").n_records == 1


def test_lines_are_counted_from_the_first_even_if_it_is_blank(tmp_path):
    path = put(tmp_path / "m.jsonl", [record(id=1.5)], before=b"\n \n")
    with pytest.raises(ValueError, match=r"m.jsonl, line 3: id is 1.5"):
        read(path)


def test_a_line_that_is_not_utf8(tmp_path):
    path = put(tmp_path / "m.jsonl", GOLDEN[:1])
    path.write_bytes(path.read_bytes() + b'{"instruction": "\xff"}\n')
    with pytest.raises(ValueError, match=r"m.jsonl, line 2: found text that is not UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff]", "line 2, column 1: found text that is not UTF-8"),
        (b"", r"line 2, column 1: found the file's end, expected ',' or '\]'"),
        (b"; {}]", r"line 2, column 1: found '; \{\}\]', expected ',' or '\]'"),
        (b",\n{}]]", r"line 3, column 4: found '\]', expected the end"),
        (b",\n]", r"line 3, column 1: found '\]', expected a JSON object"),
        (b", {]", r"line 2, column 4: found '\]', expected a JSON object"),
        (b"," + b'{"a":' * 100_000, 'line 2, column 2: found \'{"a"'),
    ],
)
def test_broken_arrays(tmp_path, data, words):
    path = tmp_path / "m.json"
    path.write_bytes(b"[" + json.dumps(GOLDEN[0]).encode() + b"\n" + data)
    with pytest.raises(ValueError, match=f"m.json, {words}"):
        read(path)


def test_a_metric_that_there_is_not(tmp_path):
    path = put(tmp_path / "m.jsonl", GOLDEN)
    with pytest.raises(ValueError, match="no score 'BLEU'; the candidates have 'bertscore', 'bart"):
        read(path, metric="BLEU")


def test_nothing_in_it(tmp_path):
    for name, data in (("m.jsonl", b"\n"), ("m.json", b"[]")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} is empty: found no JSON object"):
            read(tmp_path / name, format="mixinstruct")
    with pytest.raises(FileNotFoundError, match="absent.json"):
        read(tmp_path / "absent.json", format="mixinstruct")


def test_a_cut_file(tmp_path):
    whole = put(tmp_path / "m.jsonl.gz", GOLDEN).read_bytes()
    (tmp_path / "m.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"m.jsonl.gz: not a whole gzip file"):
        read(tmp_path / "m.jsonl.gz", format="mixinstruct")


def test_tables_that_speak_of_candidates_are_tables(tmp_path):
    rows = [{"prompt": '"instruction": "candidates": [', "a": 1}]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n")
    assert read(path).prompts == [rows[0]["prompt"]]


def test_two_files_are_merged(tmp_path):
    other = record(candidates=[candidate("moss", bertscore=0.125)])
    paths = put(tmp_path / "a.jsonl", GOLDEN), put(tmp_path / "b.jsonl", [other])
    found = read(paths)
    assert found.models == ("vicuna-13b-1.1", "flan-t5-xxl", "moss")
    assert_array_equal(found.scores[0], [0.75, 0.5, 0.125])


def test_a_prompt_is_held_once_whatever_the_number_of_candidates(tmp_path):
    models = [f"model {m}" for m in range(11)]
    candidates = [candidate(model, bertscore=0.5) for model in models]
    records = [record(id=f"u/{n}", input=f"text {n}", candidates=candidates) for n in range(3)]
    path = put(tmp_path / "m.jsonl", records)
    (reading,) = mixinstruct.read(path, Choices())
    assert reading.source.n_rows == 33
    for column, n in (("prompt", 3), ("sample_id", 3), ("model", 11), ("dataset", 1)):
        (chunk,) = reading.source.load_coded(column).chunks
        assert len(chunk.dictionary) == n
    assert read(path).scores.shape == (3, 11)
