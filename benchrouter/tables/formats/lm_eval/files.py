"""Files that lm-evaluation-harness writes: samples of a task, and results of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import check_keys, document
from benchrouter.tables.formats.fields import member
from benchrouter.tables.formats.folders import files_below
from benchrouter.tables.formats.long_rows import DENIED
from benchrouter.tables.formats.paths import bare_name, head

DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<date>{DATE})\.jsonl?")
RESULTS = re.compile(rf".*?(?P<date>{DATE})\.json")
# Before 0.4.3 names had neither date nor "samples_": <model arguments>_<task>.jsonl, results.json.
SAMPLES_START = re.compile(rb'\s*\[?\s*\{\s*"doc_id"\s*:[^,]*,\s*"doc"\s*:')
RESULTS_START = re.compile(rb'\s*\{\s*"results"\s*:')
TABLES = (
    *("results", "config", "configs", "versions", "n-shot", "n-samples"),
    *("higher_is_better", "group_subtasks"),
)
RESULTS_KEYS = ("configs", "config", "versions", "n-shot")
# The harness looks for the model's name in this order.
MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path", "engine")


@dataclass(frozen=True)
class Results:
    """A file of results: the configuration of a run."""

    path: Path
    date: str
    content: dict[str, Any]

    @property
    def model(self) -> str:
        """The harness's name of the model, else the folder's name."""
        named = self.content.get("model_name")
        if isinstance(named, str) and named.strip():
            return named
        return _model_of_arguments(self) or _model_of_folder(self.path)

    def of_task(self, key: str, task: str) -> Any:
        """Value of a task in one of the file's tables; None if missing."""
        return member(self.content, key, self.path).get(task)

    def config(self, task: str) -> dict[str, Any]:
        """Configuration of a task."""
        return member(member(self.content, "configs", self.path), task, self.path)

    def tasks(self) -> Collection[str]:
        """Tasks that were run, without groups."""
        return member(self.content, "configs", self.path).keys()

    @cached_property
    def group_of(self) -> dict[str, str]:
        """Group of each task, and of each nested group."""
        groups: dict[str, str] = {}
        for group, tasks in member(self.content, "group_subtasks", self.path).items():
            for task in tasks if isinstance(tasks, list) else ():
                if isinstance(task, str):
                    groups.setdefault(task, group)
        return groups


@dataclass(frozen=True)
class Samples:
    """A file of samples: one task of one run; `date` is "" if the name has none."""

    path: Path
    task: str
    date: str
    model: str
    results: Results | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file itself and that of its results."""
        return (self.path, self.results.path) if self.results else (self.path,)


def kind_of(path: Path) -> str:
    """Return "samples", "results" or "".

    Samples are recognised by name or first bytes; results by first bytes and either name or full
    content, since other programs' files begin alike.
    """
    name = bare_name(path)
    if SAMPLES.fullmatch(name):
        return "samples"
    if not name.endswith((".json", ".jsonl")):
        return ""
    start = head(path)
    if SAMPLES_START.match(start):
        return "samples"
    is_named = name.startswith("results_") and RESULTS.fullmatch(name) is not None
    is_results = name.endswith(".json") and RESULTS_START.match(start) is not None
    return "results" if is_results and (is_named or _holds_results(path)) else ""


def _holds_results(path: Path) -> bool:
    try:
        content = document(path)
    except (OSError, ValueError):
        # Reading it raises the error, which is better than samples without results.
        return bare_name(path) == "results.json"
    results = content["results"]
    return (
        isinstance(results, dict)
        and all(isinstance(of_task, dict) for of_task in results.values())
        and any(isinstance(content.get(key), dict) for key in RESULTS_KEYS)
    )


@dataclass
class Found:
    """Samples and results of a folder, or of several.

    Attributes
    ----------
    samples : list of Samples
    results : list of Results
        In the order of the folders and of the names.
    broken : dict of Path to str
        Results and folders that cannot be read, and why; their samples are left out.
    """

    samples: list[Samples] = field(default_factory=list)
    results: list[Results] = field(default_factory=list)
    broken: dict[Path, str] = field(default_factory=dict)


def find(path: Path) -> Found:
    """Find the samples and results below a folder, or those that belong to a file.

    Parameters
    ----------
    path : Path
        A file of samples or of results, a run's folder, or a folder above several. An unrecognised
        file is read as samples.

    Raises
    ------
    ValueError
        If there is no file of either kind.
    """
    return _below(path) if path.is_dir() else _of_file(path)


def _below(path: Path) -> Found:
    closed: list[Path] = []
    kinds = {file: kind_of(file) for file in files_below(path, closed)}
    if not any(kinds.values()):
        raise BadInput(
            f"{path}: found no samples, expected files samples_TASK_DATE.jsonl and "
            "results_DATE.json as lm_eval --log_samples writes them"
        )
    found = Found(broken={folder: f"{folder}: {DENIED}" for folder in closed})
    for _, files in groupby(kinds, lambda file: file.parent):
        of_folder = _of_folder({file: kinds[file] for file in files})
        found.samples += of_folder.samples
        found.results += of_folder.results
        found.broken |= of_folder.broken
    return found


def _of_file(path: Path) -> Found:
    beside = [file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path]
    kinds = {file: kind_of(file) for file in [path, *beside]}
    if not kinds[path]:
        check_keys(path, ("doc_id", "doc"))
        kinds[path] = "samples"
    found = _of_folder(kinds)
    samples = [one for one in found.samples if path in one.paths]
    paths = {path, *(file for one in samples for file in one.paths)}
    results = [one for one in found.results if one.path in paths]
    return Found(samples, results, {} if samples else found.broken)


def _of_folder(kinds: Mapping[Path, str]) -> Found:
    """Read a folder's results, and match them to its files of samples."""
    dates = {file: _date(file, SAMPLES) for file, kind in kinds.items() if kind == "samples"}
    found = Found()
    for file in _files_of_results(kinds, set(dates.values()) - {""}):
        try:
            found.results.append(_results(file))
        except (PermissionError, ValueError) as error:
            why = f"{file}: {DENIED}" if isinstance(error, PermissionError) else error
            found.broken[file] = f"{why}; so its samples cannot be read"
    without = {_date(file, RESULTS) for file in found.broken}
    dated = {one.date: one for one in reversed(found.results)}
    only = found.results[0] if len(found.results) == 1 else None
    found.samples = [
        _samples(file, date, dated.get(date) if date or only is None else only)
        for file, date in dates.items()
        if date not in without
    ]
    return found


def _files_of_results(kinds: Mapping[Path, str], dates: set[str]) -> Iterator[Path]:
    """Files of results; a name with the date of samples counts whatever the content."""
    for file, kind in kinds.items():
        named = not kind and file.name.startswith("results_") and _date(file, RESULTS) in dates
        if kind == "results" or named:
            yield file


def _results(path: Path) -> Results:
    content = document(path)
    for table in TABLES:
        member(content, table, path)
    return Results(path, _date(path, RESULTS), content)


def _date(path: Path, pattern: re.Pattern[str]) -> str:
    found = pattern.fullmatch(bare_name(path))
    return found["date"] if found else ""


def _samples(path: Path, date: str, results: Results | None) -> Samples:
    model = results.model if results else _model_of_folder(path)
    return Samples(path, _task(path, results), date, model, results)


def _task(path: Path, results: Results | None) -> str:
    name = bare_name(path)
    found = SAMPLES.fullmatch(name)
    if found:
        return found["task"]
    stem = name.rpartition(".")[0]
    tasks = results.tasks() if results else ()
    # Longest first.
    ends = (stem[at.end() :] for at in re.finditer("_", stem))
    known = next((end for end in ends if end in tasks), None)
    return known if known is not None else _decodable(stem.removeprefix("samples_"))


def _model_of_folder(path: Path) -> str:
    return _decodable(path.resolve().parent.name).replace("__", "/")


def _model_of_arguments(results: Results) -> str | None:
    arguments = member(results.content, "config", results.path).get("model_args")
    if isinstance(arguments, str):
        pairs = (pair.partition("=") for pair in arguments.split(","))
        arguments = {key.strip(): value for key, _, value in pairs}
    if not isinstance(arguments, dict):
        return None
    named = (arguments.get(key) for key in MODEL_ARGUMENTS)
    return next((name for name in named if isinstance(name, str) and name.strip()), None)


def _decodable(name: str) -> str:
    """A file's name as valid text."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
