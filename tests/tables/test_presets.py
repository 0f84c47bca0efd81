"""Presets: the columns of tables that others publish, read without naming them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import table_from_arrow
from benchrouter.tables.layouts.presets import PRESETS
from benchrouter.tables.sources.open import open_source

NAN = float("nan")

EMBEDLLM = """prompt_id,model_id,category_id,category,prompt,label,model_name
7,0,1,mmlu,"What, then?",1,org__a
7,1,1,mmlu,"What, then?",0,org__b
9223372036854775807,1,2,gsm8k,How many?,1,org__b
"""
ROUTELLM = """prompt,mixtral-8x7b-instruct-v0.1,gpt-4-1106-preview{more}
"2 + 2 is
A. 4
Answer:",True,True{first}
Zero?,False,True{second}
"""


def put(path, text):
    path.write_text(text)
    return path


def test_embedllm(tmp_path):
    found = read(put(tmp_path / "train.csv", EMBEDLLM), preset="embedllm")
    assert found.models == ("org__a", "org__b")
    assert found.datasets == ("gsm8k", "mmlu") and found.dataset.tolist() == [1, 0]
    assert found.sample_ids == ["7", "9223372036854775807"]
    assert found.prompts == ["What, then?", "How many?"]
    assert_array_equal(found.scores, [[1, 0], [NAN, 1]])


def test_embedllm_without_names_and_categories(tmp_path):
    text = "model_id,prompt_id,prompt,label\n3,7,x,1\n4,7,x,0\n"
    found = read(put(tmp_path / "val.csv", text), preset="embedllm")
    assert (found.models, found.datasets) == (("3", "4"), ("val",))
    assert_array_equal(found.scores, [[1, 0]])


def test_a_pair_of_model_and_prompt_twice(tmp_path):
    path = put(tmp_path / "train.csv", EMBEDLLM + '7,0,1,mmlu,"What, then?",0,org__a\n')
    with pytest.raises(ValueError, match=r"row 4 \(line 5\): duplicate \(model 'org__a'"):
        read(path, preset="embedllm")
    assert read(path, preset="embedllm", on_error="skip").scores[0, 0] == 1


def test_routellm_mmlu(tmp_path):
    text = ROUTELLM.format(more="", first="", second="")
    paths = [put(tmp_path / f"mmlu_{name}.csv", text) for name in ("law", "algebra")]
    found = read(paths, preset="routellm")
    assert found.models == ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview")
    assert found.datasets == ("mmlu_algebra", "mmlu_law")
    assert found.sample_ids == ["1", "2", "1", "2"]
    assert found.prompts[:2] == ["2 + 2 is\nA. 4\nAnswer:", "Zero?"]
    assert_array_equal(found.scores, [[1, 1], [0, 1]] * 2)


def test_routellm_gsm8k_whose_answers_may_be_numbers(tmp_path):
    text = ROUTELLM.format(
        more=",mixtral-8x7b-instruct-v0.1_response,gpt-4-1106-preview_response",
        first=",4,It is 4.",
        second=",0,Yes.",
    )
    path = put(tmp_path / "gsm8k_responses.csv", text)
    found = read(path, preset="routellm")
    assert found.models == ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview")
    assert_array_equal(found.scores, [[1, 1], [0, 1]])
    # Unasked, a column with a number in it is a model.
    assert len(read(path).models) == 3
    # Named, it is no answer.
    prompts = read(path, preset="routellm", prompt_column="gpt-4-1106-preview_response").prompts
    assert prompts == ["It is 4.", "Yes."]


def test_what_the_caller_names_wins(tmp_path):
    path = put(tmp_path / "train.csv", EMBEDLLM)
    found = read(path, preset="embedllm", columns={"model": "model_id", "dataset": "category_id"})
    assert (found.models, found.datasets) == (("0", "1"), ("1", "2"))
    assert read(path, preset="embedllm", dataset_column="category_id").datasets == ("1", "2")


def test_a_column_that_is_not_there(tmp_path):
    path = put(tmp_path / "t.csv", "prompt_id,prompt,label\n1,x,1\n")
    match = (
        "t.csv has no column 'model_name' or 'model_id' for model, which the preset 'embedllm' "
        "expects; it has 'prompt_id', 'prompt', 'label'"
    )
    with pytest.raises(ValueError, match=match):
        read(path, preset="embedllm")


def test_the_papers_preset_is_of_helm(tmp_path):
    path = put(tmp_path / "t.csv", EMBEDLLM)
    match = r"preset 'helm-paper' \(--preset\) is an option of helm; found only table"
    with pytest.raises(ValueError, match=match):
        read(path, preset="helm-paper")


def test_presets_are_of_tables(tmp_path):
    path = put(tmp_path / "t.csv", EMBEDLLM)
    with pytest.raises(ValueError, match="preset is 'nobody', expected .* embedllm, routellm"):
        read(path, preset="nobody")
    match = r"preset 'embedllm' \(--preset\) is an option of table; found only mixinstruct"
    with pytest.raises(ValueError, match=match):
        read(path, preset="embedllm", format="mixinstruct")
    assert read(path, preset="embedllm", format="table") == read(path, preset="embedllm")
    with pytest.raises(IsADirectoryError, match="is a directory without results of a known"):
        read(tmp_path, preset="embedllm")


def test_presets_of_tables_in_memory(tmp_path):
    columns = {
        "model_id": [0, 1],
        "prompt_id": [2**62, 2**62],
        "prompt": ["x", "x"],
        "label": [1, None],
        "category": ["mmlu", "mmlu"],
    }
    found = table_from_arrow(pa.table(columns), preset="embedllm")
    assert (found.models, found.sample_ids) == (("0", "1"), [str(2**62)])
    assert_array_equal(found.scores, [[1, NAN]])


def test_they_are_documented():
    for name in PRESETS:
        assert f'"{name}"' in read.__doc__


def test_the_real_mmlu_of_routellm(shared, tmp_path):
    """The published CSV has these columns; the values are those of the cleaned copy."""
    whole = read(shared / "data" / "routellm_mmlu.parquet", datasets=["abstract_algebra"])
    rows = [
        {"prompt": p, **{m: bool(s) for m, s in zip(whole.models, scores, strict=True)}}
        for p, scores in zip(whole.prompts, whole.scores.tolist(), strict=True)
    ]
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(rows).to_csv(tmp_path / "abstract_algebra.csv", index=False)
    found = read(tmp_path / "abstract_algebra.csv", preset="routellm")
    assert (found.models, found.datasets) == (whole.models, whole.datasets)
    assert found.prompts == whole.prompts
    assert_array_equal(found.scores, whole.scores)
    assert found.n_records == 100 and np.isfinite(found.scores).all()


def test_of_long_jsonl_only_the_columns_of_the_preset_are_kept(tmp_path, monkeypatch):
    rows = [
        {"prompt_id": n, "category_id": 1, "category": "mmlu", "prompt": f"q{n}", "label": n % 2}
        for n in range(3)
    ]
    lines = [{**row, "model_name": model, "answer": "x"} for row in rows for model in "ab"]
    path = put(tmp_path / "t.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    sources = []

    def opened(*args):
        sources.append(open_source(*args))
        return sources[-1]

    monkeypatch.setattr("benchrouter.tables.read.open_source", opened)
    table = read(path, preset="embedllm")
    assert_array_equal(table.scores, [[0, 0], [1, 1], [0, 0]])
    (source,) = sources
    for column, kept in (("label", True), ("prompt", True), ("category_id", False)):
        assert (source.load(column).null_count == 0) == kept
    assert len(source.load_coded("prompt").chunk(0).dictionary) == 3
    # What the caller names is kept as well, and so is everything of a wide table.
    assert read(path, preset="embedllm", columns={"dataset": "category_id"}).datasets == ("1",)
