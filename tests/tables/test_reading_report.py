"""The report of what was read: its rows, each of its warnings, its notes, its two forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tables import make_table

from benchrouter import read_table as read
from benchrouter import table_report, write_table
from benchrouter.tables import formats
from benchrouter.tables.formats.long_rows import FormatReading, Rows
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.origin import Origin, SourceRead
from benchrouter.tables.report import TableWarning
from benchrouter.tables.report.ranges import range_of

NAN = float("nan")


def put(path, content):
    """Write text, or an object as JSON."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def files(tmp_path):
    """Two sources: of three datasets, one score stands in both, one differs."""
    header = "dataset,sample_id,prompt,"
    one = put(
        tmp_path / "one.csv",
        f"{header}a,b\nd,1,p,1,0\nd,2,q,0,\ne,1,r,0.25,0.5\nf,1,s,-3,-1\nf,2,t,-2,-2.5\n",
    )
    two = put(tmp_path / "two.csv", f"{header}a,c\nd,1,p,1,1\nd,2,q,1,0\n")
    put(tmp_path / "one.json", {"metrics": {"d": "acc", "f": "bartscore"}, "thresholds": {"e": 0}})
    return [one, two]


def kinds(table):
    return [warning.kind for warning in table_report(table).warnings]


def test_rows_of_datasets_and_models(files):
    report = table_report(read(files, on_conflict="first"))
    assert report.n_records == 5
    assert [
        (d.name, d.n_records, d.n_scores, d.metric, d.threshold, d.duplicates, d.conflicts)
        for d in report.datasets
    ] == [
        ("d", 2, 5, "acc", 0.5, 1, 1),
        ("e", 1, 2, None, 0.0, 0, 0),
        ("f", 2, 4, "bartscore", None, 0, 0),
    ]
    assert [d.missing for d in report.datasets] == pytest.approx([1 / 6, 1 / 3, 1 / 3])
    assert [
        (m.name, m.n_scores, m.n_datasets, m.duplicates, m.conflicts) for m in report.models
    ] == [("a", 5, 3, 1, 1), ("b", 4, 3, 0, 0), ("c", 2, 1, 0, 0)]
    assert [m.missing for m in report.models] == pytest.approx([0, 0.2, 0.6])
    assert report.sources == (
        SourceRead(
            str(files[0]), 5, ("a", "b"), sidecar=str(files[0].with_suffix(".json")), guessed=True
        ),
        SourceRead(str(files[1]), 2, ("a", "c"), guessed=True),
    )
    assert report.notes == (
        "scores read again with the same value, which count once: 1",
        "score: values that differ from an earlier one, of which the first is kept: 1",
    )


def test_a_selection_is_reported_as_what_is_left(files):
    table = read(files, on_conflict="first", datasets=["d", "f"], models=["c", "b"])
    report = table_report(table)
    assert [(d.name, d.n_records, d.duplicates) for d in report.datasets] == [
        ("d", 2, 0),
        ("f", 2, 0),
    ]
    assert [(m.name, m.n_scores, m.n_datasets) for m in report.models] == [
        ("c", 2, 1),
        ("b", 3, 2),
    ]
    assert len(report.sources) == 2


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_duplicates_of_a_source_are_counted(tmp_path, layout):
    if layout == "wide":
        text = "dataset,sample_id,prompt,a,b\nd,1,p,1,0\nd,1,p,1,\nd,1,p,0,1\ne,1,p,0,1\n"
    else:
        text = "dataset,sample_id,prompt,model,score\n" + "".join(
            f"{row}\n"
            for row in ("d,1,p,a,1", "d,1,p,b,0", "d,1,p,a,1", "d,1,p,b,", "e,1,p,a,0", "d,1,p,a,0")
        )
        text += "d,1,p,b,1\n"
    table = read(put(tmp_path / "t.csv", text), on_error="skip", aliases={"A": "a"})
    report = table_report(table)
    assert [(d.name, d.duplicates) for d in report.datasets] == [("d", 3), ("e", 0)]
    assert [(m.name, m.duplicates) for m in report.models] == [("A", 2), ("b", 1)]
    assert len(report.skipped) == {"wide": 2, "long": 4}[layout]


# --- warnings: each is given where it should be, and not elsewhere -------------------------------


def fine(**fields):
    """A table of three datasets and two models without a warning."""
    scores = [[1, 0], [0, 1], [1, 1], [0, 1], [0, 0], [1, 0]]
    return make_table(**{"scores": scores, "dataset": [0, 0, 1, 1, 2, 2], **fields})


def test_nothing_is_odd():
    assert table_report(fine()).warnings == ()
    assert table_report(fine(metrics=("acc", "", "a metric of our own"))).warnings == ()


def test_metrics_that_differ_between_sources(tmp_path):
    header = "dataset,sample_id,prompt,m\n"
    names = ("one", "two", "three", "four")
    paths = [
        put(tmp_path / f"{name}.csv", f"{header}d,{i},p,{i % 2}\ne,{i},p,{i % 2}\n")
        for i, name in enumerate(names)
    ]
    put(tmp_path / "one.json", {"metrics": {"d": "f1", "e": "em"}})
    put(tmp_path / "two.json", {"metric": "em", "metrics": {"d": "f1"}})
    assert "metrics differ" not in kinds(read(paths))
    put(tmp_path / "four.json", {"metrics": {"d": "exact_match"}})
    put(tmp_path / "three.json", {"metrics": {"d": "acc"}})
    table = read(paths)
    assert table.metrics == ("f1", "em")
    (found,) = (w for w in table_report(table).warnings if w.kind == "metrics differ")
    assert found.names == ("d",)
    assert found.message == (
        f"dataset 'd': its metric is 'f1' in {tmp_path / 'one.json'}, but 'acc' in "
        f"{tmp_path / 'three.json'}, 'exact_match' in {tmp_path / 'four.json'}; their "
        "scores stand side by side under the first name"
    )
    assert "metrics differ" not in kinds(read(paths, datasets=["e"]))


def test_scores_outside_the_range_of_their_metric():
    scores = np.float32([[1, 0], [0, 1], [1, 1], [-0.5, 1], [-3, -1], [-2, 0.25]])
    fields = dict(scores=scores, thresholds=np.array([0.5, 0.5, -2]))
    assert "outside range" not in kinds(fine(**fields))
    table = fine(**fields, metrics=("F1 score", "exact_match,strict-match", "BARTScore"))
    assert [w for w in table_report(table).warnings if w.kind == "outside range"] == [
        TableWarning(
            "outside range",
            ("dataset 1",),
            "dataset 'dataset 1': scores outside the range of "
            "'exact_match,strict-match', [0, 1]: 1, such as -0.5 of model 'model 0' on 'sample 3'",
        ),
        TableWarning(
            "outside range",
            ("dataset 2",),
            "dataset 'dataset 2': scores outside the range of 'BARTScore', [-inf, 0]: 1, "
            "such as 0.25 of model 'model 1' on 'sample 5'",
        ),
    ]
    # Rounding is no reason.
    scores = np.where(scores > 0.9, np.float32(1 + 3e-7), np.abs(scores) / 4)
    assert "outside range" not in kinds(fine(**fields | {"scores": scores}, metrics=("acc",) * 3))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("exact_match", (0, 1)),
        ("Rouge-L", (0, 1)),
        ("acc_norm,none", (0, 1)),
        ("bartscore", (-np.inf, 0)),
        ("bleu", (0, 100)),
        ("bleu_4", (0, 1)),
        ("mcc", (-1, 1)),
        ("perplexity", (1, np.inf)),
        ("", None),
        ("bleurt", None),
    ],
)
def test_ranges_of_known_metrics(metric, expected):
    assert range_of(metric) == expected


@pytest.mark.parametrize(
    ("scores", "threshold", "kind"),
    [
        ([[1, 0.75], [1, NAN]], 0.5, "all right"),
        ([[0, 0.5], [0.25, NAN]], 0.5, "all wrong"),
        ([[1, 0.5], [1, 1]], 0.5, None),
        # One model is always right, the other always wrong: that tells them apart.
        ([[1, 0], [1, 0]], 0.5, None),
        ([[0.3, 0.3], [0.3, 0.3]], 0.3, "all wrong"),
        ([[0.3, 0.3], [0.3, 0.3]], NAN, None),
        ([[NAN, NAN], [NAN, NAN]], 0.5, None),
    ],
)
def test_a_dataset_where_every_model_is_right_or_wrong(scores, threshold, kind):
    rows = np.float32([[1, 0], [0, 1], [1, 1], [0, 1], *scores])
    table = fine(scores=rows, thresholds=np.array([0.5, 0.5, threshold]))
    found = [w for w in table_report(table).warnings if w.kind.startswith("all ")]
    assert [(w.kind, w.names) for w in found] == ([(kind, ("dataset 2",))] if kind else [])
    if kind == "all right":
        assert found[0].message == (
            "dataset 'dataset 2': every model is right on every record (correct is above 0.5, "
            "scores are from 0.75 to 1): it tells no model from another"
        )


def test_models_with_fewer_than_three_datasets():
    scores = np.ones((6, 5), np.float32)
    scores[::2] = 0
    scores[4:, 0] = NAN
    assert kinds(fine(scores=scores)) == ["few datasets"]
    (found,) = table_report(fine(scores=scores)).warnings
    assert found.names == ("model 0",)
    assert found.message == "1 model has scores in fewer than 3 datasets: 'model 0' (2)"
    scores[2:, 1:] = NAN
    (found,) = table_report(fine(scores=scores)).warnings
    assert found.names == tuple(f"model {m}" for m in range(5))
    assert found.message == (
        "5 models have scores in fewer than 3 datasets: 'model 0' (2), 'model 1' (1), "
        "'model 2' (1) and 2 more"
    )
    scores[:] = [[0], [1], [0], [1], [0], [1]]
    scores[5, 0] = NAN
    assert kinds(fine(scores=scores)) == []


# --- notes and forms -----------------------------------------------------------------------------


class TwoReadings:
    """A format whose reader says something."""

    @staticmethod
    def recognises(path):
        return path.suffix == ".two"

    @staticmethod
    def read(path, choices):
        readings = []
        for i in range(3):
            rows = Rows(f"{path}/{i}")
            rows.add(
                f"{path}/{i}, 1", model=f"m{i}", dataset="d", sample_id="1", prompt="p", score=1.0
            )
            notes = ("metric is acc",) if i < 2 else ("2 perturbed instances left out",)
            if i == 2:
                notes += (f"{path}: 1 split",)
            readings.append(FormatReading(rows.source(), Sidecar(), notes))
        return readings


def test_what_readers_say_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "two", TwoReadings)
    path = put(tmp_path / "x.two", "")
    report = table_report(read(path, aliases={"a": "b"}))
    assert report.notes == (
        f"{path}/0 and 1 more: metric is acc",
        f"{path}/2: 2 perturbed instances left out",
        f"{path}: 1 split",
        "aliases: no source has a model 'b' (another name of 'a')",
    )
    assert [source.notes for source in report.sources] == [
        ("metric is acc",),
        ("metric is acc",),
        ("2 perturbed instances left out", f"{path}: 1 split"),
    ]


def test_text(files):
    assert table_report(read(files, on_conflict="first")).text().splitlines() == [
        "read 5 records of 3 datasets and 3 models from 2 sources",
        "",
        "dataset  metric     records  missing  threshold  duplicates  conflicts",
        "d        acc              2   16.7 %        0.5           1          1",
        "e        –                1   33.3 %          0           0          0",
        "f        bartscore        2   33.3 %          –           0          0",
        "",
        "model  records  missing  datasets  duplicates  conflicts",
        "a            5    0.0 %         3           1          1",
        "b            4   20.0 %         3           0          0",
        "c            2   60.0 %         1           0          0",
        "",
        "warning: dataset 'e': every model is right on every record (correct is above 0, scores "
        "are from 0.25 to 0.5): it tells no model from another",
        "warning: 1 model has scores in fewer than 3 datasets: 'c' (1)",
        "note: scores read again with the same value, which count once: 1",
        "note: score: values that differ from an earlier one, of which the first is kept: 1",
    ]


def test_long_text_is_shortened_with_a_count():
    n = 30
    scores = np.tile(np.float32([[1, 0], [0, 1]]), (n, 1))
    origin = Origin(notes=tuple(f"note {i}" for i in range(1200)))
    table = make_table(
        scores,
        np.repeat(np.arange(n), 2),
        datasets=tuple(f"dataset {i:02}" for i in range(n)),
        origin=origin,
        skipped=("row 1: found 'x'",),
    )
    lines = table_report(table).text(limit=3).splitlines()
    assert lines[0] == "read 60 records of 30 datasets and 2 models"
    assert lines[3:8] == [
        "dataset 00  –             2    0.0 %        0.5           0          0",
        "dataset 01  –             2    0.0 %        0.5           0          0",
        "dataset 02  –             2    0.0 %        0.5           0          0",
        "… and 27 more",
        "",
    ]
    assert lines[-5:] == [
        "note: note 0",
        "note: note 1",
        "note: note 2",
        "note: … and 1,197 more",
        "skipped: row 1: found 'x'",
    ]
    assert len(table_report(table).text(limit=30).splitlines()) == 2 + 31 + 1 + 3 + 1 + 31 + 1


@pytest.mark.parametrize(
    ("n_missing", "words"), [(1, "< 0.1 %"), (2, "0.1 %"), (1999, "> 99.9 %"), (0, "0.0 %")]
)
def test_a_little_is_not_nothing(n_missing, words):
    scores = np.zeros((2000, 1), np.float32)
    scores[:n_missing] = NAN
    table = make_table(scores, np.zeros(2000), thresholds=np.full(1, 0.5))
    assert words in table_report(table).text().splitlines()[3]


def test_json_has_everything(files):
    table = read(files, on_conflict="first")
    described = json.loads(json.dumps(table_report(table).describe(), allow_nan=False))
    assert described["datasets"][2] == {
        "name": "f",
        "n_records": 2,
        "n_scores": 4,
        "missing": pytest.approx(1 / 3),
        "metric": "bartscore",
        "threshold": None,
        "duplicates": 0,
        "conflicts": 0,
    }
    assert described["warnings"][1] == {
        "kind": "few datasets",
        "names": ["c"],
        "message": "1 model has scores in fewer than 3 datasets: 'c' (1)",
    }
    assert described["sources"][1] == {
        "name": str(files[1]),
        "n_records": 2,
        "models": ["a", "c"],
        "notes": [],
        "format": "table",
        "sidecar": "",
        "passed_over": [],
        "guessed": True,
    }
    assert set(described) == {
        *("n_records", "sources", "datasets", "models", "warnings", "notes", "skipped"),
    }


def test_a_report_is_no_part_of_what_a_table_says(files, tmp_path):
    table = read(files, on_conflict="first")
    write_table(table, tmp_path / "merged.parquet")
    again = read(tmp_path / "merged.parquet")
    assert again == table
    assert again.origin != table.origin
    assert table_report(make_table([[1.0]], [0])).sources == ()
