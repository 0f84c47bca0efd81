"""Figures quoted in docs/ are those of kept runs; commands and options named there exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from benchrouter.cli.app import app
from benchrouter.tables.formats import FORMATS, TABLE
from benchrouter.tables.read_options import FORMATS_OF, ReadKeywords, TableKeywords

ROOT = Path(__file__).resolve().parents[2]
RULES = ("BMA", "S1", "S2", "S3", "S3 with fallback", "auto")


PROMPT_RULES = ("auto", "mean", "kNN-100", "linear regression")


@pytest.fixture(scope="module")
def parts():
    """The part of the page on prompts, and the one on tasks."""
    return (ROOT / "docs" / "quality.md").read_text().split("## How well `auto` chooses for tasks")


@pytest.fixture(scope="module")
def page(parts):
    return parts[1]


@pytest.fixture(scope="module")
def kept(page):
    return kept_run(page)


def kept_run(page):
    """Rows of the kept run that a part of the page quotes."""
    name = re.search(r"\.\./(benchmarks/results/quality-[\w.-]+\.json)", page).group(1)
    content = json.loads((ROOT / name).read_text())
    assert not content["quick"] and content["commit"] in page
    return {row["name"]: row["value"] for row in content["rows"]}


def tables(page):
    """Every table of the page, as rows of cells without the header."""
    found = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in found
    ]


def test_quality_of_prompts(parts):
    prompts, kept = parts[0], kept_run(parts[0])
    gains, _, chances = tables(prompts)
    assert len(gains) == len(chances) >= 25
    for (name, _, *cells), (again, *told) in zip(gains, chances, strict=True):
        assert name == again
        for i, what in enumerate(("split", "left out")):
            of = f"{name}, prompts, {what}:"
            values = [kept[f"{of} {rule} − BMA"] for rule in PROMPT_RULES]
            found = cells[6 * i : 6 * i + 6]
            assert found[:4] == [f"{value:+.4f}" for value in values], name
            low, high = (kept[f"{of} auto − BMA, {end}"] for end in ("low", "high"))
            assert found[4] == f"{low:+.3f} … {high:+.3f}", name
            gap = kept[f"{of} oracle per dataset − BMA"]
            assert found[5] == (f"{values[0] / gap:.0%}" if gap > 0 else "–"), name
            assert told[4 * i : 4 * i + 4] == [
                *(f"{kept[f'{of} ECE, {over}']:.3f}" for over in ("all", "chosen")),
                f"{kept[f'{of} log loss − that of the standings']:+.4f}",
                f"{kept[f'{of} interval holds']:.0%}",
            ], name


def test_gains_for_prompts_quoted_in_the_text_and_the_readme(parts):
    kept = kept_run(parts[0])
    columns = [
        kept[f"{name}, prompts, {what}: auto − BMA"]
        for what in ("split", "left out")
        for name in ("A", "B", "C")
    ]
    assert f"{sum(columns) / 6:+.4f}" in parts[0]
    readme = (ROOT / "README.md").read_text()
    for value in columns:
        assert f"{value:+.3f}" in readme


def test_quality_without_labels(page, kept):
    rows = tables(page)[0]
    assert len(rows) > 20
    for name, _, *cells in rows:
        values = [kept[f"{name}: {rule}"] for rule in RULES]
        assert cells[:6] == [f"{value:.4f}" for value in values], name
        best = max(values[0], values[1], values[3])
        assert float(cells[6]) == pytest.approx(values[5] - best, abs=6e-5), name
        low, high = (kept[f"{name}: auto − BMA, {end}"] for end in ("low", "high"))
        assert cells[7] == f"{low:+.3f} … {high:+.3f}", name
        oracles = [f"{kept[f'{name}: {rule}']:.4f}" for rule in ("oracle, split half", "oracle")]
        assert cells[8:10] == oracles, name
        assert cells[10] == f"{kept[f'{name}, 0 labels: interval holds']:.0%}", name


def test_quality_with_labels(page, kept):
    rows = tables(page)[1]
    assert [row[0] for row in rows] == [row[0] for row in tables(page)[0]]
    for name, *cells in rows:
        for i, n_labels in enumerate((20, 50)):
            without, labels, auto = (
                kept[f"{name}, {n_labels} labels: {rule}"]
                for rule in ("auto without", "labels", "auto")
            )
            found = cells[5 * i : 5 * i + 5]
            assert found[:3] == [f"{value:.4f}" for value in (without, labels, auto)], name
            assert float(found[3]) == pytest.approx(auto - max(without, labels), abs=6e-5), name
            assert found[4] == f"{kept[f'{name}, {n_labels} labels: interval holds']:.0%}", name


def test_coverage_and_bias_quoted_in_the_text(page, kept):
    for n_labels in (0, 20, 50):
        held, error = (
            [v for name, v in kept.items() if name.endswith(f", {n_labels} labels: {what}")]
            for what in ("interval holds", "estimate − measured")
        )
        assert f"{sum(held) / len(held):.0%}" in page
        assert f"{sum(error) / len(error):.3f}" in page


def test_averages_quoted_in_the_text(page, kept):
    for name in ("auto − BMA", "auto − S1", "auto − S3"):
        rule = name.removeprefix("auto − ")
        tables = [key.removesuffix(f": {rule}") for key in kept if key.endswith(f": {rule}")]
        mean = sum(kept[f"{t}: auto"] - kept[f"{t}: {rule}"] for t in tables) / len(tables)
        assert f"{mean:+.4f}" in page, name
    for n_labels in (20, 50):
        end = f", {n_labels} labels: auto"
        tables = [key.removesuffix(end) for key in kept if key.endswith(end)]
        for other in ("auto without", "labels"):
            gain = [kept[f"{t}{end}"] - kept[f"{t}, {n_labels} labels: {other}"] for t in tables]
            assert f"{sum(gain) / len(gain):+.4f}" in page, (n_labels, other)


def commands_of(text):
    """Commands of a page, in backticks and in shell examples, as words."""
    found = re.findall(r"`(benchrouter [^`]+)`", text)
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        found += [line for line in block.splitlines() if line.startswith("benchrouter ")]
    return [shlex.split(command, comments=True) for command in found]


def test_data_names_commands_and_options_that_there_are():
    page = (ROOT / "docs" / "data.md").read_text()
    commands = get_command(app).commands
    found = commands_of(page)
    assert len(found) >= 11
    for _, name, *words in found:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        unknown = [word for word in words if word.startswith("-") and word not in options]
        assert not unknown, (name, words)
    shared = {option for parameter in commands["convert"].params for option in parameter.opts}
    named = set(re.findall(r"`(--[a-z-]+)", page.split("## Public results")[0]))
    assert len(named) >= 10 and named <= shared


def test_data_says_which_keywords_are_called_otherwise():
    page = (ROOT / "docs" / "data.md").read_text()
    table = page.split("| command line | `read_table` | `table_from_arrow` |")[1].split("\n\n")[0]
    differing, lacking = (
        {option for row in rows for option in re.findall(r"`--([a-z-]+)", row.split("|")[1])}
        for rows in (table.splitlines()[2:-1], table.splitlines()[-1:])
    )
    options = {
        option.removeprefix("--")
        for parameter in get_command(app).commands["convert"].params
        for option in parameter.opts
        if option.startswith("--")
    } - {"output", "json", "help", "source"}
    of_read, of_arrow = (
        {name.replace("_", "-") for name in keywords.__annotations__}
        for keywords in (ReadKeywords, TableKeywords)
    )
    assert options - of_read == differing - {"metric"}
    of_one_format = {name.replace("_", "-") for name, of in FORMATS_OF.items() if TABLE not in of}
    assert (options & of_read) - of_arrow - of_one_format == lacking | {"metric"}


def test_data_names_every_format():
    page = (ROOT / "docs" / "data.md").read_text()
    for name in FORMATS:
        assert f"| `{name}` |" in page
