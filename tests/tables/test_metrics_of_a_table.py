"""Several metrics of one table: the columns metric::<model> of a wide file, or a long file's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from benchrouter import read_table as read
from benchrouter import write_table

NAN = float("nan")
WIDE = """dataset,sample_id,prompt,a,b,bart::a,bart::b,cost::a,sim::b
d,1,hello,1,0,-3.5,-2,0.1,0.25
d,2,bye,,1,-1,,0.2,0.75
"""


def put(path, text, sidecar=None):
    path.write_text(text)
    if sidecar is not None:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def test_a_plain_read_takes_no_other_metric_for_a_model(tmp_path):
    table = read(put(tmp_path / "t.csv", WIDE))
    assert table.models == ("a", "b")
    assert_array_equal(table.scores, [[1, 0], [NAN, 1]])
    assert_array_equal(table.cost_usd, np.array([[0.1, NAN], [0.2, NAN]], np.float32))


def test_another_metric_is_read_in_place_of_the_score(tmp_path):
    table = read(put(tmp_path / "t.csv", WIDE), columns={"score": "bart"})
    assert table.models == ("a", "b")
    assert_array_equal(table.scores, np.array([[-3.5, -2], [-1, NAN]], np.float32))
    assert_array_equal(table.cost_usd[:, 0], np.array([0.1, 0.2], np.float32))
    assert table.metrics == ("bart",) and np.isnan(table.thresholds).all()
    some = read(tmp_path / "t.csv", columns={"score": "sim"})
    assert some.models == ("b",) and some.thresholds.tolist() == [0.5]
    chosen = read(tmp_path / "t.csv", columns={"score": "bart"}, models=["b"])
    assert_array_equal(chosen.scores[:, 0], [-2, NAN])


def test_thresholds_and_names_of_the_sidecar_are_the_scores(tmp_path):
    sidecar = {
        "model_columns": ["b", "a"],
        "model_params_billion": {"a": 7},
        "metric": "exact match",
        "thresholds": {"d": 0.9},
    }
    path = put(tmp_path / "t.csv", WIDE, sidecar)
    plain = read(path)
    assert (plain.models, plain.metrics) == (("b", "a"), ("exact match",))
    other = read(path, columns={"score": "sim"})
    assert (other.models, other.metrics) == (("b",), ("sim",))
    assert other.thresholds.tolist() == [0.5]
    both = read(path, columns={"score": "bart"})
    assert both.models == ("b", "a") and both.params_b.tolist()[1] == 7
    assert read(path, columns={"score": "bart"}, thresholds={"*": -3}).thresholds.tolist() == [-3]


def test_a_file_of_metrics_alone(tmp_path):
    text = "dataset,sample_id,prompt,bart::a,sim::a,cost::a\nd,1,hello,-2,0.5,0.1\n"
    table = read(put(tmp_path / "t.csv", text), columns={"score": "bart"})
    assert table.models == ("a",) and table.scores.tolist() == [[-2.0]]
    assert table.cost_usd.tolist() == [[np.float32(0.1)]]


def test_names_of_models_may_hold_the_mark(tmp_path):
    text = "prompt,org::a,bart::org::a,other::b\nhello,1,-2,0\n"
    path = put(tmp_path / "t.csv", text)
    assert read(path).models == ("org::a", "other::b")
    assert read(path, columns={"score": "bart"}).models == ("org::a",)
    # What a caller names is a model, whatever it looks like.
    assert read(path, models=["bart::org::a"]).scores.tolist() == [[-2.0]]


def test_a_long_file_has_the_metric_as_a_column(tmp_path):
    text = "model,dataset,sample_id,prompt,score,bart\na,d,1,hello,1,-2\nb,d,1,hello,0,-3\n"
    table = read(put(tmp_path / "t.csv", text), columns={"score": "bart"})
    assert table.scores.tolist() == [[-2.0, -3.0]]


def test_wide_files_of_two_models_are_merged(tmp_path):
    one = put(tmp_path / "1.csv", "dataset,sample_id,prompt,a,bart::a\nd,1,hello,1,-2\n")
    two = put(tmp_path / "2.csv", "dataset,sample_id,prompt,b,bart::b\nd,1,hello,0,-3\n")
    table = read([one, two], columns={"score": "bart"})
    assert table.models == ("a", "b") and table.scores.tolist() == [[-2.0, -3.0]]
    some = read([one, two], columns={"score": "bart"}, models=["b"])
    assert some.scores.tolist() == [[-3.0]]


def test_a_written_table_with_such_a_model_is_read_back(tmp_path):
    table = read(put(tmp_path / "t.csv", WIDE), models=["a", "bart::a"])
    write_table(table, tmp_path / "out.parquet")
    assert read(tmp_path / "out.parquet") == table


@pytest.mark.parametrize(
    "metric, words",
    [
        ("bleurt", r"no column 'bleurt' for score, nor columns 'bleurt::MODEL'; it has 'dataset'"),
        ("a", "no column 'model'"),
    ],
)
def test_a_metric_that_is_not_there(tmp_path, metric, words):
    with pytest.raises(ValueError, match=words):
        read(put(tmp_path / "t.csv", WIDE), columns={"score": metric})


def test_a_bad_cell_names_its_metric(tmp_path):
    text = WIDE.replace("-3.5", "good")
    with pytest.raises(ValueError, match=r"row 1 .*bart of model 'a' is 'good'"):
        read(put(tmp_path / "t.csv", text), columns={"score": "bart"})
