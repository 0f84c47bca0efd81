"""Every Eval Ever (arXiv 2606.14516): instance-level records, ``<uuid>_samples.jsonl``.

A line is one model's score on one sample. The aggregate ``<uuid>.json`` beside the file, if there,
tells the metric's name and direction. The schema (0.3.0) has tokens but no costs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import check_keys, document, objects
from benchrouter.files.lines import COMPRESSIONS
from benchrouter.files.words import counted
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.fields import member, name_at, number_at, text_at
from benchrouter.tables.formats.folders import files_below
from benchrouter.tables.formats.long_rows import FormatReading, Rows, denied, read_or_refused
from benchrouter.tables.formats.paths import bare_name, head
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.table import UNIT_THRESHOLD

SAMPLES_SUFFIX = "_samples.jsonl"
UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
NAME = re.compile(UUID + re.escape(SAMPLES_SUFFIX))
START = re.compile(rb'\s*\{\s*"schema_version"\s*:')
SCORE, IS_CORRECT = "score", "is_correct"
PLAIN = (None, SCORE, IS_CORRECT)  # metrics that every line has


def recognises(path: Path) -> bool:
    """Whether a file, or one in a folder, holds instance-level records."""
    return any(_is_samples(file) for file in files_below(path))


def read(path: Path, choices: Choices) -> list[FormatReading]:
    """Read a file, or all in a folder and the folders in it.

    Parameters
    ----------
    path : Path
    choices : Choices
        `metric`: "score", "is_correct", or the metric or ``evaluation_result_id`` of a result, for
        evaluations that have it. The default is the score, of several results of a sample the
        first for which more is better. `prompt`: "request" takes ``input.formatted`` where there
        is one; otherwise the prompt is ``input.raw``.

    Returns
    -------
    list of FormatReading
        One for each file. A file that cannot be read has no rows, and its source says why: it is
        cut off or empty, has only results that were not asked for, or does not say which of
        several results of a sample to take.

    Raises
    ------
    ValueError
        If there is no file of such records.
    """
    closed: list[Path] = []
    files = _files(path, closed)
    return [denied(str(folder)) for folder in closed] + [
        read_or_refused(str(file), _FileReader(file, choices).read) for file in files
    ]


def _files(path: Path, closed: list[Path]) -> list[Path]:
    """Files to read; a file given itself may have any name."""
    files = [file for file in files_below(path, closed) if _is_samples(file)]
    if path.is_dir():
        if not files:
            raise BadInput(f"{path}: found no records, expected files UUID{SAMPLES_SUFFIX}")
        return files
    if not files:
        why = why_not_aggregate(path)
        if why is not None:
            raise BadInput(f"{path}: {why}")
        check_keys(path, ("model_id", "evaluation_name", "evaluation"))
    return [path]


def why_not_aggregate(path: Path) -> str | None:
    """Message for an aggregate, which has no samples; None for any other file."""
    name = bare_name(path)
    stem = name.removesuffix(".json")
    if stem == name or not (re.fullmatch(UUID, stem) or START.match(head(path))):
        return None
    return (
        "is an aggregate of every-eval-ever, without samples; expected "
        f"{path.with_name(stem + SAMPLES_SUFFIX)}"
    )


def _is_samples(path: Path) -> bool:
    name = bare_name(path)
    if NAME.fullmatch(name):
        return True
    return name.endswith(".jsonl") and bool(START.match(head(path)))


@dataclass
class _FileReader:
    """Reads the lines of one file; takes one result of each sample."""

    path: Path
    choices: Choices
    # The result taken for each (model, evaluation, sample), and the results left out.
    taken: dict[tuple[str | None, ...], str | None] = field(default_factory=dict)
    left: dict[str | None, Counter[str | None]] = field(default_factory=dict)
    n_unlike: Counter[str | None] = field(default_factory=Counter)
    n_failed: Counter[str | None] = field(default_factory=Counter)
    asked: dict[tuple[str | None, str | None], bool] = field(default_factory=dict)
    lacking: set[str | None] = field(default_factory=set)  # evaluations without the metric
    has_metric: bool = False

    def read(self) -> FormatReading:
        rows = Rows(str(self.path))
        self.results = _results(self.path)

        def take(place: str, line: dict[str, Any]) -> None:
            cells = self._cells(line)
            if cells is not None:
                rows.add(place, **cells)

        rows.take_each(objects(self.path), take)
        self._check_order()
        lacks = self.choices.metric not in PLAIN and not self.has_metric
        if not rows.places and not self.choices.only_metric:
            raise BadInput(
                f"{self.path}: found lines of {', '.join(self.metrics_found())}, "
                "expected one of them to be named (metric, --metric)"
            )
        found = tuple(self.metrics_found()) if lacks else None
        return FormatReading(rows.source(), self._sidecar(), tuple(self._notes()), lacks=found)

    def _cells(self, line: dict[str, Any]) -> dict[str, Any] | None:
        """Cells of a line; None if its result is not taken."""
        model, dataset, sample_id, result = (
            name_at(line, key)
            for key in ("model_id", "evaluation_name", "sample_id", "evaluation_result_id")
        )
        evaluation, asked = member(line, "evaluation"), member(line, "input")
        score = number_at(evaluation, SCORE)
        is_correct = number_at(evaluation, IS_CORRECT)
        key = (model, dataset, sample_id)
        if (dataset, result) not in self.asked:
            self.asked[dataset, result] = self._is_asked_for(dataset, result)
        if not self.asked[dataset, result] or self.taken.setdefault(key, result) != result:
            self.left.setdefault(dataset, Counter())[result] += 1
            return None
        if score is not None and is_correct is not None:
            self.n_unlike[dataset] += (score > UNIT_THRESHOLD) != (is_correct > 0)
        self.n_failed[dataset] += bool(line.get("error"))
        formatted = asked.get("formatted") if self.choices.prompt == "request" else None
        return {
            "model": model,
            "dataset": dataset,
            "sample_id": sample_id,
            "prompt": text_at(asked, "raw" if formatted is None else "formatted"),
            "score": self._score(dataset, score, is_correct),
        }

    def _score(
        self, dataset: str | None, score: float | None, is_correct: float | None
    ) -> float | None:
        if self.choices.metric == IS_CORRECT:
            return is_correct
        return None if self.choices.only_metric and dataset in self.lacking else score

    def _is_asked_for(self, dataset: str | None, result: str | None) -> bool:
        """Whether a result may be taken; of several, the first in the file is."""
        metric, config = self.choices.metric, self._config(dataset, result)
        of_dataset = [one for one in self.results if one.get("evaluation_name") == dataset]
        if metric not in PLAIN:
            if metric in (result, *_metric_names(config)):
                self.has_metric = True
                return True
            if not of_dataset or any(metric in _names_of(one) for one in of_dataset):
                return False
            self.lacking.add(dataset)
        if not _less_is_better(config) or metric == IS_CORRECT:
            return True
        return all(_less_is_better(member(one, "metric_config")) for one in of_dataset)

    def _config(self, dataset: str | None, result: str | None) -> dict[str, Any]:
        """``metric_config`` of a result; empty if the aggregate is ambiguous."""
        found = [
            one
            for one in self.results
            if one.get("evaluation_name") == dataset
            and (result is None or one.get("evaluation_result_id") == result)
        ]
        return member(found[0], "metric_config") if len(found) == 1 else {}

    def metrics_found(self) -> list[str]:
        """Metrics of all results, for messages."""
        left = [str(result) for results in self.left.values() for result in results]
        named = [name for one in self.results for name in _names_of(one)]
        return list(dict.fromkeys([*named, *left, SCORE, IS_CORRECT]))

    def _check_order(self) -> None:
        """Refuse a result that is taken for some samples and not for others."""
        for (_, dataset, sample_id), result in self.taken.items():
            if result in self.left.get(dataset, ()) and self.choices.metric is None:
                others = sorted(str(name) for name in self.left[dataset])
                raise BadInput(
                    f"{self.path}: samples of {dataset!r} have several results in changing order, "
                    f"first {result!r} for {sample_id!r}; expected one of {others} to be named "
                    "(metric, --metric)"
                )

    def _of_dataset(self) -> dict[str, dict[str, Any]]:
        """``metric_config`` of each evaluation, by the first result taken."""
        configs: dict[str, dict[str, Any]] = {}
        for (_, dataset, _), result in self.taken.items():
            if dataset is not None and dataset not in configs:
                configs[dataset] = self._config(dataset, result)
        return configs

    def _sidecar(self) -> Sidecar:
        configs = self._of_dataset()
        if self.choices.metric == IS_CORRECT:
            return Sidecar(str(self.path), metrics=dict.fromkeys(configs, IS_CORRECT))
        if self.choices.only_metric:
            configs = {name: c for name, c in configs.items() if name not in self.lacking}
        metrics = {name: next(iter(_metric_names(c)), "") for name, c in configs.items()}
        lower = [name for name, config in configs.items() if _less_is_better(config)]
        return Sidecar(
            path=str(self.path),
            metrics={name: metric for name, metric in metrics.items() if metric},
            # No score above a threshold is a good one.
            thresholds=dict.fromkeys(lower, math.nan),
        )

    def _notes(self) -> list[str]:
        notes = []
        for dataset, config in self._of_dataset().items():
            takes_score = self.choices.metric != IS_CORRECT
            if takes_score and _less_is_better(config):
                notes.append(f"{dataset}: less is better, so no score counts as correct")
            elif takes_score and self.n_unlike[dataset]:
                notes.append(
                    f"{dataset}: is_correct is not score > {UNIT_THRESHOLD} in "
                    f"{counted(self.n_unlike[dataset], 'line')}; the metric 'is_correct' takes it "
                    "(metric, --metric)"
                )
            if self.n_failed[dataset]:
                notes.append(
                    f"{dataset}: in {counted(self.n_failed[dataset], 'line')} an error is told of, "
                    "taken as scored"
                )
            if dataset in self.left:
                others = ", ".join(sorted(map(str, self.left[dataset])))
                notes.append(f"{dataset}: other results of the same samples: {others}")
        return notes


def _results(samples: Path) -> list[dict[str, Any]]:
    """``evaluation_results`` of the aggregate beside a file; empty without one."""
    stem = bare_name(samples).removesuffix(SAMPLES_SUFFIX)
    beside = [samples.with_name(f"{stem}.json{end}") for end in ("", *COMPRESSIONS)]
    path = next((path for path in beside if path.is_file()), None)
    if not bare_name(samples).endswith(SAMPLES_SUFFIX) or path is None:
        return []
    results = document(path).get("evaluation_results")
    listed = results if isinstance(results, list) else []
    found = [result for result in listed if isinstance(result, dict)]
    for result in found:
        member(result, "metric_config", path)  # checked here, where the file's name is known
    return found


def _names_of(result: dict[str, Any]) -> list[str]:
    """Names by which the caller may choose a result."""
    id = result.get("evaluation_result_id")
    return [*_metric_names(member(result, "metric_config")), *([id] if isinstance(id, str) else [])]


def _less_is_better(config: dict[str, Any]) -> bool:
    return config.get("lower_is_better") is True


def _metric_names(config: dict[str, Any]) -> list[str]:
    named = (config.get(key) for key in ("metric_id", "metric_name"))
    return [name for name in named if isinstance(name, str) and name]
