"""Reader of Every Eval Ever's instance-level records."""

from __future__ import annotations

import gzip
import hashlib
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from benchrouter import read_table as read
from benchrouter.cli import app
from benchrouter.tables.formats import every_eval_ever, format_of
from benchrouter.tables.formats.choices import Choices

NAN = float("nan")
ID = "0f9c1b7e-3d52-4f6a-9a41-5a1f6f0f5e11"
ID2 = "7a5d0c3e-77aa-4bb1-8a52-ab5a4a4a9b02"


def line(sample_id, score, *, model="org/m", name="gsm8k", raw=None, formatted=None, **more):
    """One line with all keys of schema 0.2.2 that the published converters write."""
    raw = f"what is {sample_id}?" if raw is None else raw
    asked = {"raw": raw, "formatted": formatted, "reference": ["4"], "choices": None}
    hashed = json.dumps({"raw": raw, "reference": ["4"]}, sort_keys=True, separators=(",", ":"))
    evaluation = {"score": score, "is_correct": bool(score), "num_turns": None}
    return {
        "schema_version": "0.2.2",
        "evaluation_id": f"{name}/{model}/1770000000",
        "model_id": model,
        "evaluation_name": name,
        "sample_id": sample_id,
        "sample_hash": hashlib.sha256(hashed.encode()).hexdigest(),
        "interaction_type": "single_turn",
        "input": asked,
        "output": {"raw": ["4"], "reasoning_trace": []},
        "messages": None,
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": "4",
                "extraction_method": "exact_match",
                "is_terminal": True,
            }
        ],
        "evaluation": {**evaluation, **more.pop("evaluation", {})},
        "token_usage": {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10},
        "performance": {"latency_ms": None, "generation_time_ms": 6.5},
        "error": None,
        "metadata": None,
        **more,
    }


def put(folder, rows, results=None, uuid=ID):
    """Write `<uuid>_samples.jsonl`, and the aggregate with its `evaluation_results` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid}_samples.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    if results is not None:
        content = {"schema_version": "0.2.2", "evaluation_results": results}
        (folder / f"{uuid}.json").write_text(json.dumps(content))
    return path


def result(name="gsm8k", *, lower=False, id=None, **config):
    found = {"evaluation_name": name, "metric_config": {"lower_is_better": lower, **config}}
    return found if id is None else {**found, "evaluation_result_id": id}


def notes(path, **choices):
    found = every_eval_ever.read(path, Choices(**choices))
    return [note for reading in found for note in reading.notes]


def test_golden_table(tmp_path):
    data = tmp_path / "data"
    path = put(
        data / "gsm8k" / "org" / "m",
        [line("s1", 1.0), line("s2", 0.0), line("x", 0.25, name="f1qa")],
        [result(metric_id="accuracy"), result("f1qa", metric_name="F1")],
    )
    put(data / "gsm8k" / "org" / "n", [line("s2", 1, model="org/n")], uuid=ID2)
    table = read(data)
    assert format_of(data) == format_of(path) == "every-eval-ever"
    assert table.models == ("org/m", "org/n")
    assert table.datasets == ("f1qa", "gsm8k")
    assert table.sample_ids == ["s1", "s2", "x"]
    assert table.prompts == ["what is s1?", "what is s2?", "what is x?"]
    assert_array_equal(table.scores, [[1, NAN], [0, 1], [0.25, NAN]])
    assert (table.metrics, table.thresholds.tolist()) == (("F1", "accuracy"), [0.5, 0.5])
    assert table.cost_usd is None and table.log_likelihood is None
    assert notes(data) == [
        "f1qa: is_correct is not score > 0.5 in 1 line; the metric 'is_correct' takes it "
        "(metric, --metric)"
    ]


def test_a_further_metric_is_missing_where_an_evaluation_lacks_it(tmp_path):
    path = put(
        tmp_path,
        [line("a", 1.0), line("b", 0.25, name="f1qa")],
        [result(metric_id="accuracy"), result("f1qa", metric_name="F1")],
    )
    assert_array_equal(read(path, metric="F1").scores[:, 0], [1, 0.25])
    table = read(path, metric="F1", only_metric=True)
    assert_array_equal(table.scores[:, 0], [NAN, 0.25])
    assert (table.datasets, table.metrics) == (("f1qa", "gsm8k"), ("F1", ""))


def test_is_correct(tmp_path):
    rows = [line("a", 0.25), line("b", 7.5, evaluation={"is_correct": False}), line("c", 0)]
    path = put(tmp_path, rows, [result(metric_id="points")])
    assert_array_equal(read(path).scores[:, 0], np.float32([0.25, 7.5, 0]))
    assert np.isnan(read(path).thresholds[0])
    table = read(path, metric="is_correct")
    assert_array_equal(table.scores[:, 0], [1, 0, 0])
    assert (table.metrics, table.thresholds.tolist()) == (("is_correct",), [0.5])
    assert notes(path, metric="is_correct") == []


def test_less_is_better(tmp_path):
    path = put(tmp_path, [line("a", 0.25)], [result(lower=True, metric_id="wer")])
    table = read(path)
    assert table.metrics == ("wer",) and np.isnan(table.thresholds[0])
    assert notes(path) == ["gsm8k: less is better, so no score counts as correct"]
    assert read(path, metric="is_correct").thresholds.tolist() == [0.5]


def test_prompts(tmp_path):
    path = put(tmp_path, [line("a", 1, formatted="<user>what"), line("b", 1)])
    assert read(path).prompts == read(path, prompt="instance").prompts
    assert read(path).prompts == ["what is a?", "what is b?"]
    assert read(path, prompt="request").prompts == ["<user>what", "what is b?"]
    with pytest.raises(ValueError, match="prompt is 'raw', expected 'request' or 'instance'"):
        read(path, prompt="raw")


def several(order):
    scores = {"em": 1, "f1": 0.5}
    return [
        line(sample, scores[id], evaluation_result_id=id) for sample, ids in order for id in ids
    ]


def test_a_line_for_each_metric_of_a_sample(tmp_path):
    rows = several([("a", ["em", "f1"]), ("b", ["em", "f1"])])
    results = [result(id="em", metric_id="exact-match"), result(id="f1", metric_name="F1")]
    path = put(tmp_path, rows, results)
    assert_array_equal(read(path).scores[:, 0], [1, 1])
    assert read(path).metrics == ("exact-match",)
    assert notes(path) == ["gsm8k: other results of the same samples: f1"]
    for metric in ("f1", "F1"):
        table = read(path, metric=metric)
        assert_array_equal(table.scores[:, 0], [0.5, 0.5])
        assert table.metrics == ("F1",)
    with pytest.raises(
        ValueError,
        match=r"found no metric 'bleu', but exact-match, em, F1, f1, score, is_correct",
    ):
        read(path, metric="bleu")


def test_a_metric_where_an_evaluation_has_it(tmp_path):
    """As the converter of lm-evaluation-harness writes: ids name a metric, not an evaluation."""
    configs = {"acc": {"metric_id": "accuracy"}, "ppl": {"lower": True}, "em": {}}
    has = {"pick": ["ppl", "acc"], "ask": ["em"]}
    rows, results = [], []
    for name, ids in has.items():
        results += [result(name, id=id, **configs[id]) for id in ids]
        rows += [
            line("0", 0.25 if id == "ppl" else 1, name=name, evaluation_result_id=id) for id in ids
        ]
    path = put(tmp_path, rows, results)
    table = read(path)  # not the first, of which less is better
    assert table.datasets == ("ask", "pick")
    assert_array_equal(table.scores[:, 0], [1, 1])
    assert table.metrics == ("", "accuracy")
    table = read(path, metric="ppl")
    assert sorted(table.scores[:, 0]) == [0.25, 1]
    assert np.isnan(table.thresholds[1]) and table.thresholds[0] == 0.5
    (tmp_path / f"{ID}.json").unlink()
    assert read(path, metric="acc").datasets == ("pick",)


def test_nothing_but_results_that_nobody_asked_for(tmp_path):
    rows = [line("0", 0.25, evaluation_result_id="ppl")]
    path = put(tmp_path, rows, [result(lower=True, id="ppl"), result(id="acc")])
    words = r"found lines of ppl, acc, score, .* to be named \(metric, --metric\)"
    with pytest.raises(ValueError, match=words):
        read(path)
    assert_array_equal(read(path, metric="ppl").scores, [[0.25]])


def test_metrics_in_changing_order_are_not_mixed(tmp_path):
    path = put(tmp_path, several([("a", ["em", "f1"]), ("b", ["f1", "em"])]))
    with pytest.raises(
        ValueError, match=r"changing order, first 'em' for 'a'.*\(metric, --metric\)"
    ):
        read(path)
    assert_array_equal(read(path, metric="em").scores[:, 0], [1, 1])


def test_results_of_different_samples_are_all_taken(tmp_path):
    path = put(tmp_path, several([("a", ["em"]), ("b", ["f1"])]))
    assert_array_equal(read(path).scores[:, 0], [1, 0.5])


def test_a_sample_twice_is_an_error(tmp_path):
    path = put(tmp_path, [line("a", 1), line("a", 0)])
    with pytest.raises(ValueError, match=f"{path.name}, line 2: duplicate"):
        read(path)
    assert_array_equal(read(path, on_error="skip").scores, [[1]])


def test_lines_that_tell_of_an_error(tmp_path):
    assert notes(put(tmp_path, [line("a", 0, error="timeout"), line("b", 1)])) == [
        "gsm8k: in 1 line an error is told of, taken as scored"
    ]


def test_conversations_are_read_by_their_input(tmp_path):
    row = line("a", 1, interaction_type="multi_turn", output=None)
    row["messages"] = [{"turn_idx": 0, "role": "user", "content": "hi"}]
    assert read(put(tmp_path, [row])).prompts == ["what is a?"]


def test_bytes_that_trip_other_readers(tmp_path):
    rows = [line(2**63, 1, raw="a\u2028b\u0085c"), line("007", 0)]
    path = put(tmp_path, rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\n")
    table = read(path)
    assert table.sample_ids == ["9223372036854775808", "007"]
    assert table.prompts[0] == "a\u2028b\u0085c"


@pytest.mark.parametrize("how", ["gz", "zst"])
def test_compressed(tmp_path, how):
    path = put(tmp_path, [line("a", 1)], [result(metric_id="accuracy")])
    expected, data = read(path), path.read_bytes()
    path.unlink()
    path = path.with_name(f"{path.name}.{how}")
    if how == "gz":
        path.write_bytes(gzip.compress(data))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(data)
    assert read(tmp_path) == read(path) == expected
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{path.name}: not a whole"):
        read(tmp_path)


def test_nan_six_ways(tmp_path):
    path = put(tmp_path, [line(str(i), "@") for i in range(7)])
    data = path.read_bytes()
    for text in ("NaN", '"NaN"', '"nan"', "null", '""', '"NA"', '".5"'):
        data = data.replace(b'"score": "@"', f'"score": {text}'.encode(), 1)
    path.write_bytes(data)
    assert_array_equal(read(path).scores[:, 0], [NAN] * 6 + [0.5])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"evaluation": 3}, "evaluation is 3, expected a JSON object"),
        ({"input": "q"}, "input is 'q', expected a JSON object"),
        ({"input": {"raw": 3}}, "raw is 3, expected text"),
        ({"input": {}}, "prompt is None, expected text that is not blank"),
        ({"sample_id": None}, "sample_id is None, expected text that is not blank"),
        ({"sample_id": 1.5}, "sample_id is 1.5, expected text or a whole number"),
        ({"model_id": ["m"]}, "model_id is ['m'], expected text"),
        ({"evaluation_name": " "}, "dataset is ' ', expected text that is not blank"),
        ({"evaluation": {"score": "high"}}, "score is 'high', expected a finite number or nothing"),
        ({"evaluation": {"is_correct": "yes"}}, "is_correct is 'yes', expected a finite number"),
    ],
)
def test_bad_lines(tmp_path, change, words):
    path = put(tmp_path, [line("a", 1), {**line("b", 1), **change}])
    with pytest.raises(ValueError) as e:
        read(path)
    assert f"{path}, line 2: " in str(e.value) and words in str(e.value)
    table = read(path, on_error="skip")
    assert table.sample_ids == ["a"] and len(table.skipped) == 1


def test_duplicate_keys(tmp_path):
    path = put(tmp_path, [line("a", 1)])
    path.write_bytes(path.read_bytes().replace(b'"score": 1', b'"score": 1, "score": 0'))
    with pytest.raises(ValueError, match=r"line 1: found the key 'score' twice in one object"):
        read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ", line 1, column 2: found the file's end, expected a JSON object"),
        ("[]", r": found \[\], expected a JSON object"),
        ('{"evaluation_results": [{"a": 1, "a": 2}]}', ": found the key 'a' twice in one object"),
    ],
)
def test_broken_aggregate(tmp_path, content, words):
    path = put(tmp_path, [line("a", 1)])
    (tmp_path / f"{ID}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{ID}.json{words}"):
        read(path)


def test_a_broken_result_of_the_aggregate(tmp_path):
    path = put(tmp_path, [line("a", 1)], [{"evaluation_name": "other", "metric_config": 3}])
    with pytest.raises(ValueError, match=rf"{ID}.json: metric_config is 3, expected a JSON object"):
        read(path)


@pytest.mark.parametrize(
    "results", [3, [3], [{"evaluation_name": "gsm8k"}], [result(), result(metric_id="b")]]
)
def test_an_aggregate_that_says_nothing_of_the_metric(tmp_path, results):
    assert read(put(tmp_path, [line("a", 1)], results)).metrics == ("",)


def test_other_files_are_not_taken_for_it(tmp_path):
    (tmp_path / "my_samples.jsonl").write_text('{"model": "m"}\n')
    with pytest.raises(IsADirectoryError):
        format_of(tmp_path)
    path = put(tmp_path, [line("a", 1)])
    path.rename(tmp_path / "None_samples.jsonl")  # as a converter has named it
    assert format_of(tmp_path) == "every-eval-ever"
    assert read(tmp_path).sample_ids == ["a"]


def test_mutated_files_give_a_table_or_an_error_with_their_name(tmp_path):
    rows = several([("a", ["em", "f1"]), ("b", ["em", "f1"])])
    path = put(tmp_path, rows, [result(id="em", metric_id="exact-match")])
    files = sorted(tmp_path.iterdir())
    whole = [file.read_bytes() for file in files]
    dice = random.Random(20260214)
    n_tables = 0
    for _ in range(400):
        at = dice.randrange(len(files))
        data = bytearray(whole[at])
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(len(data))
            new = bytes(dice.choices(b'{}[]",:0e-\n\xff\x00ntx', k=dice.randrange(3)))
            data[place : place + dice.randrange(1, 4)] = new
        files[at].write_bytes(data)
        try:
            read(path, on_error=dice.choice(["raise", "skip"]))
            n_tables += 1
        except ValueError as error:
            assert str(tmp_path) in str(error)
        files[at].write_bytes(whole[at])
    assert 0 < n_tables < 400


@pytest.mark.parametrize("command", ["convert", "evaluate", "fit"])
def test_every_command_warns_of_metrics_that_differ(tmp_path, command):
    names = {ID: ("accuracy", "org/a"), ID2: ("f1", "org/b")}
    for uuid, (metric, model) in names.items():
        rows = [line(str(n), n % 2, model=model) for n in range(4)]
        put(tmp_path, rows, [result(metric_id=metric)], uuid)
    words = [command, tmp_path, "-o", tmp_path / "t.csv", "--encoder", "./none"]
    words = words[: 4 if command == "convert" else None]
    said = CliRunner().invoke(app, [str(word) for word in words]).stderr
    assert "warning: dataset 'gsm8k': its metric is 'accuracy' in" in said
    assert f"but 'f1' in {tmp_path / ID2}_samples.jsonl; their scores stand side by side" in said
