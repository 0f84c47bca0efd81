"""Files that lm-evaluation-harness writes: samples of a task, and results of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchrouter.readers.formats.fields import member
from benchrouter.readers.formats.paths import bare_name, files_below, head
from benchrouter.readers.json_objects import check_keys, document

DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<date>{DATE})\.jsonl?")
RESULTS = re.compile(rf".*?(?P<date>{DATE})\.json")
# Before 0.4.3 names had neither date nor "samples_": <model arguments>_<task>.jsonl, results.json.
SAMPLES_START = re.compile(rb'\s*\[?\s*\{\s*"doc_id"\s*:[^,]*,\s*"doc"\s*:')
RESULTS_START = re.compile(rb'\s*\{\s*"results"\s*:')
RESULTS_KEYS = ("configs", "config", "versions", "n-shot")
# As the harness itself looks for the model's name; the order matters.
MODEL_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path", "engine")


@dataclass(frozen=True)
class Results:
    """A file of results: what was run, and how."""

    path: Path
    date: str
    content: dict[str, Any]

    @property
    def model(self) -> str:
        """Name that the harness gave to the model, else the folder's."""
        named = self.content.get("model_name")
        if isinstance(named, str) and named.strip():
            return named
        return _model_of_arguments(self) or _model_of_folder(self.path)

    def of_task(self, key: str, task: str) -> Any:
        """Value of a task in one of the file's tables, None if there is none."""
        return member(self.content, key, self.path).get(task)

    def config(self, task: str) -> dict[str, Any]:
        """Configuration of a task."""
        return member(member(self.content, "configs", self.path), task, self.path)

    def tasks(self) -> list[str]:
        """Tasks that were run, without groups of them."""
        return list(member(self.content, "configs", self.path))


@dataclass(frozen=True)
class Samples:
    """A file of samples: one task of one run; `date` is "" where the name has none."""

    path: Path
    task: str
    date: str
    model: str
    results: Results | None


def is_samples(path: Path) -> bool:
    """Whether a file holds samples, by its name, or else by its first bytes."""
    name = bare_name(path)
    if SAMPLES.fullmatch(name):
        return True
    return name.endswith((".json", ".jsonl")) and bool(SAMPLES_START.match(head(path)))


def is_results(path: Path) -> bool:
    """Whether a file holds results: by its first bytes, and by its name or else all it holds.

    Other programs begin their files so as well.
    """
    name = bare_name(path)
    if not name.endswith(".json") or not RESULTS_START.match(head(path)):
        return False
    if name.startswith("results_") and RESULTS.fullmatch(name):
        return True
    try:
        content = document(path)
    except (OSError, ValueError):
        return name == "results.json"  # an error, rather than samples without their results
    results = content["results"]
    return (
        isinstance(results, dict)
        and all(isinstance(of_task, dict) for of_task in results.values())
        and any(isinstance(content.get(key), dict) for key in RESULTS_KEYS)
    )


def find(path: Path) -> tuple[list[Samples], list[Results]]:
    """Find the samples and results of a folder; of a file, what belongs to it.

    Parameters
    ----------
    path : Path
        A file of samples or of results, a run's folder, or a folder above several. A file that
        is not recognised is taken for samples.

    Returns
    -------
    samples : list of Samples
    results : list of Results
        In the order of the folders and of the names.

    Raises
    ------
    ValueError
        If a results file is not one, or there is no file of either kind.
    """
    recognised = any(is_samples(file) or is_results(file) for file in files_below(path))
    if path.is_dir():
        if not recognised:
            raise ValueError(
                f"{path}: found no samples, expected files samples_TASK_DATE.jsonl and "
                "results_DATE.json as lm_eval --log_samples writes them"
            )
        found = [
            _of_folder(folder, list(files)) for folder, files in groupby(files_below(path), _parent)
        ]
        return [s for samples, _ in found for s in samples], [r for _, rs in found for r in rs]
    beside = [file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path]
    samples, results = _of_folder(path.parent, [path, *beside])
    if not recognised:
        check_keys(path, ("doc_id", "doc"))
        samples = [_samples(path, results)]
    if any(s.path == path for s in samples):
        samples = [s for s in samples if s.path == path]
        return samples, [r for r in results if r is samples[0].results]
    return (
        [s for s in samples if s.results is not None and s.results.path == path],
        [r for r in results if r.path == path],
    )


def _parent(path: Path) -> Path:
    return path.parent


def _of_folder(folder: Path, files: list[Path]) -> tuple[list[Samples], list[Results]]:
    results = [
        Results(file, _date(file, RESULTS), document(file)) for file in files if is_results(file)
    ]
    samples = [_samples(file, results) for file in files if is_samples(file)]
    return samples, results


def _date(path: Path, pattern: re.Pattern[str]) -> str:
    found = pattern.fullmatch(bare_name(path))
    return found["date"] if found else ""


def _samples(path: Path, of_folder: list[Results]) -> Samples:
    date = _date(path, SAMPLES)
    dated = [results for results in of_folder if results.date == date]
    results = dated[0] if dated else None
    if not date and len(of_folder) == 1:
        results = of_folder[0]
    model = results.model if results else _model_of_folder(path)
    return Samples(path, _task(path, results), date, model, results)


def _task(path: Path, results: Results | None) -> str:
    name = bare_name(path)
    found = SAMPLES.fullmatch(name)
    if found:
        return found["task"]
    stem = name.rpartition(".")[0]
    known = [task for task in (results.tasks() if results else []) if stem.endswith(f"_{task}")]
    return max(known, key=len) if known else _decodable(stem.removeprefix("samples_"))


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
    """Name in a file system as text."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
