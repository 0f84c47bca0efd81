"""The synthetic benchmark: what it states, what it draws, and the command that shows it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchrouter.demo import MODELS, SKILLS, handful, make_demo

ROOT = Path(__file__).resolve().parents[2]


def test_every_dataset_holds_its_number_of_distinct_prompts():
    table = make_demo().table
    assert (table.n_records, table.n_datasets, table.n_models) == (1040, 8, 6)
    for code in range(8):
        mine = [p for p, c in zip(table.prompts, table.dataset, strict=True) if c == code]
        assert len(mine) == len(set(mine)) == 130
    assert len(set(table.sample_ids)) == 1040
    assert not np.isnan(table.scores).any()
    assert table.params_b.tolist() == [70, 34, 13, 15, 12, 3]
    assert table.prices[:, 0].tolist() == [price for _, _, price, _ in MODELS]


def test_outcomes_agree_with_the_stated_skills():
    """Each of the 48 frequencies stands within four standard errors of what was stated."""
    demo = make_demo(n=200)
    table = demo.table
    found = np.array([table.scores[table.dataset == d].mean(axis=0) for d in range(8)])
    stated = np.array([SKILLS[name] for name in table.datasets])
    np.testing.assert_array_equal(demo.skills, stated)
    error = np.sqrt(stated * (1 - stated) / 200)
    assert np.all(np.abs(found - stated) < 4 * error)


def test_the_same_seed_makes_the_same_benchmark():
    one, two, other = make_demo(n=40), make_demo(n=40), make_demo(n=40, seed=1)
    assert one.table.prompts == two.table.prompts
    assert one.new_task == two.new_task
    np.testing.assert_array_equal(one.table.scores, two.table.scores)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.table.prompts != other.table.prompts
    assert handful() == handful()


def test_the_new_task_is_in_no_dataset():
    demo = make_demo()
    assert len(set(demo.new_task)) == 130
    assert not set(demo.new_task) & set(demo.table.prompts)
    assert not set(handful()) & set(demo.new_task)
    assert demo.labels.shape == (30, 6)


@pytest.mark.parametrize("n", [0, 201])
def test_a_number_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match=f"n is {n}, expected 1 to 200"):
        make_demo(n=n)


@pytest.fixture(scope="module")
def minilm():
    from benchrouter.embeddings import EncoderNotFound, resolve

    try:
        resolve("minilm")
    except EncoderNotFound:
        pytest.skip("the packaged MiniLM weights (extra minilm) are not installed")
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from benchrouter.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", *arguments]
    return subprocess.run(command, capture_output=True, cwd=ROOT, text=True, timeout=300)


def test_the_command_shows_and_saves_the_whole_line(minilm, tmp_path):
    started = time.monotonic()
    result = demo("--json", "--output", str(tmp_path / "R"))
    assert time.monotonic() - started < 120  # twice the aim, for busy machines
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["synthetic"] is True
    macro = found["leave_one_dataset_out"]["macro_accuracy"]["strict"]
    accuracy = {rule: by_share[0] for rule, by_share in macro.items()}
    assert set(accuracy) >= {"BMA", "S1", "S2", "S3", "S3 with fallback", "auto", "oracle"}
    assert accuracy["oracle"] >= max(accuracy.values())
    # siblings are found: S1 leads the best model on average by more than the draws move it
    assert accuracy["S1"] - accuracy["BMA"] > 0.02
    assert found["new_task"]["S1"]["model"] == "maths-13b"
    assert found["new_task"]["auto, 30 labels"]["model"] == "maths-13b"
    assert len(found["prompts"]) == 9
    by_record = found["held_out_records"]
    assert list(by_record) == [
        *("BMA", "a model at random", "rule auto", "rule mean", "rule raw, k = 10", "rule s3"),
        "oracle",
    ]
    # six independent models: somebody is right on most prompts, a random one on three in five
    assert by_record["oracle"] > 0.97
    assert by_record["rule mean"] - by_record["a model at random"] > 0.1
    assert by_record["rule auto"] >= max(by_record["BMA"], by_record["rule mean"]) - 0.004
    assert {prompt["rule"] for prompt in found["prompts"]} == {"auto"}
    assert abs(by_record["a model at random"] - np.mean(list(SKILLS.values()))) < 0.04
    assert (tmp_path / "R" / "router.json").is_file()


def test_every_table_says_synthetic(minilm, monkeypatch):
    from typer.testing import CliRunner

    from benchrouter import demo as synthetic
    from benchrouter.cli import app, output

    monkeypatch.setattr(synthetic, "make_demo", lambda: make_demo(n=20))
    titles = []
    shown = output.table

    def table(title, *arguments, **options):
        titles.append(title)
        shown(title, *arguments, **options)

    monkeypatch.setattr(output, "table", table)
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0, result.output
    assert len(titles) == 8
    assert all("synthetic" in title for title in titles)
    for words in ("arXiv 2309.15789", "what to try next", "benchrouter fit TABLE -o DIR"):
        assert words in result.stdout
    for words in (*SKILLS, *(name for name, *_ in MODELS), "the best model on average"):
        assert words in result.stdout


def test_an_output_that_cannot_be_is_refused_before_the_work(tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    started = time.monotonic()
    result = demo("--output", str(tmp_path), "--encoder", "./no-such-folder")
    assert result.returncode == 1
    assert "is not a router" in result.stderr
    assert time.monotonic() - started < 10
