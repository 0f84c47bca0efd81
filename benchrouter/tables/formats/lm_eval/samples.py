"""Read the samples of one task of lm-evaluation-harness as long rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import objects
from benchrouter.files.words import shown
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.doc_text import field_of, text_of
from benchrouter.tables.formats.fields import member, name_at, number_at
from benchrouter.tables.formats.lm_eval.files import Samples
from benchrouter.tables.formats.lm_eval.metric import metrics_of
from benchrouter.tables.formats.lm_eval.request import chosen_log_likelihood, request_text
from benchrouter.tables.formats.long_rows import FormatReading, Rows
from benchrouter.tables.layouts.sidecar import Sidecar

# What prompts are without a template, by the kind that was taken.
NO_TEMPLATE = {
    "request": "the requests, with their few-shot examples",
    "field": "a field of the documents",
}


@dataclass
class TaskReader:
    """Reads one file of samples, and keeps what was chosen.

    Attributes
    ----------
    metric, filter, prompt : str or None
        The choices; None until a sample decides. With `only_metric`, `metric` stays None for a
        task without it.
    found_metrics, found_filters : list of str
        Metrics and filters in the file.
    """

    samples: Samples
    choices: Choices
    metric: str | None = None
    filter: str | None = None
    prompt: str | None = None
    found_metrics: list[str] = field(default_factory=list)
    found_filters: list[str] = field(default_factory=list)
    has_log_likelihood: bool = False
    is_read: bool = False

    def read(self) -> FormatReading:
        """Read the file.

        Raises
        ------
        ValueError
            If the file is cut off or empty, or has no sample of the filter.
        """
        samples = self.samples
        self._config = samples.results.config(samples.task) if samples.results else {}
        self._metrics = metrics_of(samples)
        self.filter = self._metrics.main_filter(self.choices.metric, self.choices.filter)
        self._dataset, self._prefix = _dataset(samples, self.choices.groups)
        self._times_seen: Counter[Any] = Counter()
        rows = Rows(str(samples.path))

        def take(place: str, row: dict[str, Any]) -> None:
            if self._is_wanted(row):
                rows.add(place, **self._cells(row))

        rows.take_each(objects(samples.path), take)
        if not rows.places:
            raise BadInput(
                f"{samples.path}: found the filters {self.found_filters}, expected {self.filter!r}"
            )
        self.is_read = True
        wanted = self.choices.metric
        lacks = wanted not in (None, self.metric) and bool(self.found_metrics)
        found = tuple(self.found_metrics) if lacks else None
        return FormatReading(rows.source(), self._sidecar(), lacks=found)

    @property
    def is_grouped(self) -> bool:
        """Whether the dataset is a group of tasks."""
        return self._dataset != self.samples.task

    def _is_wanted(self, row: dict[str, Any]) -> bool:
        """Whether a row has the chosen filter; each document has a row for every filter."""
        found = row.get("filter")
        if found is None:  # before 0.4.5; a document's rows follow the order of the filters
            doc = row.get("doc_id")
            known = self._metrics.filters or ["none"]
            times = self._times_seen[str(doc)]
            self._times_seen[str(doc)] += 1
            found = known[min(times, len(known) - 1)]
        if not isinstance(found, str):
            raise BadInput(f"filter is {shown(found)}, expected text")
        if found not in self.found_filters:
            self.found_filters.append(found)
        if self.filter is None:
            self.filter = found
        return found == self.filter

    def _cells(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.metric is None:
            self.metric = self._main_metric(row)
        if self.metric is not None and self.metric not in row:
            raise BadInput(f"found no {self.metric!r}, the metric of the samples before")
        doc_id = name_at(row, "doc_id")
        likelihood = chosen_log_likelihood(row) if self._is_of_choices() else None
        self.has_log_likelihood |= likelihood is not None
        return {
            "model": self.samples.model,
            "dataset": self._dataset,
            "sample_id": None if doc_id is None else self._prefix + doc_id,
            "prompt": self._prompt_of(row),
            "score": None if self.metric is None else number_at(row, self.metric),
            "log_likelihood": likelihood,
        }

    def _main_metric(self, row: dict[str, Any]) -> str | None:
        self.found_metrics = self._metrics.ordered(row)
        wanted = self.choices.metric
        if wanted is not None and wanted in self._metrics.of_sample(row):
            return wanted
        if wanted is not None and self.choices.only_metric:
            return None
        if not self.found_metrics:
            raise BadInput(f"found the keys {list(row)}, expected a metric that is a number")
        return self.found_metrics[0]

    def _is_of_choices(self) -> bool:
        return self._config.get("output_type") in (None, "multiple_choice")

    def _prompt_of(self, row: dict[str, Any]) -> str:
        if self.prompt is None:
            self.prompt = self._kind_of_prompt(row)
        if self.prompt == "request":
            return request_text(row)
        doc = row.get("doc")
        if not isinstance(doc, dict):
            raise BadInput(f"doc is {shown(doc)}, expected a JSON object")
        if self.prompt == "field":
            return field_of(doc)
        return text_of(self._config.get("doc_to_text"), doc)

    def _kind_of_prompt(self, row: dict[str, Any]) -> str:
        """Choose "request", "template" or "field" by the options and the task."""
        if self.choices.prompt == "request":
            return "request"
        try:
            text_of(self._config.get("doc_to_text"), row["doc"])
        except (ValueError, LookupError, TypeError):
            return "field" if self.choices.prompt == "instance" else "request"
        return "template"

    def _sidecar(self) -> Sidecar:
        results, metric = self.samples.results, self.metric
        if metric is None:
            return Sidecar(path=str(self.samples.path))
        shown_metric = metric if self.filter == "none" else f"{metric},{self.filter}"
        lower = metric in self._metrics.lower_is_better
        return Sidecar(
            path=str(results.path if results else self.samples.path),
            params_b=_params(self.samples),
            metrics={self._dataset: shown_metric},
            # Lower is better: no score counts as correct.
            thresholds={self._dataset: math.nan} if lower else {},
        )

    def notes(self) -> list[str]:
        """Say what was chosen, once the file is read."""
        if self.metric is None:
            lacks = self.choices.only_metric and bool(self.found_metrics)
            return [f"has no metric {self.choices.metric!r}: no scores"] if lacks else []
        notes = [
            f"metric {self.metric}, filter {self.filter}"
            + _others("metrics", self.found_metrics, self.metric)
            + _others("filters", self._metrics.filters or self.found_filters, self.filter)
        ]
        for what in ("metric", "filter"):
            wanted, taken = getattr(self.choices, what), getattr(self, what)
            if wanted not in (None, taken):
                notes.append(f"has no {what} {wanted!r}, took {taken!r}")
        if self.metric in self._metrics.lower_is_better:
            notes.append(f"less of {self.metric} is better, so no score counts as correct")
        kind = self.prompt or ""
        if kind in NO_TEMPLATE and (kind == "field" or self.choices.prompt is None):
            notes.append(
                f"prompts are {NO_TEMPLATE[kind]}, since the configuration has no simple "
                "doc_to_text"
            )
        if self.has_log_likelihood:
            notes.append("log-likelihoods are of the whole most likely choice")
        return notes


def _others(what: str, found: Sequence[str], taken: str | None) -> str:
    others = ", ".join(name for name in found if name != taken)
    return f"; other {what}: {others}" if others else ""


def _dataset(samples: Samples, groups: bool) -> tuple[str, str]:
    """Dataset of a task, and the prefix of its sample ids."""
    group = _outermost_group(samples) if groups else None
    return (samples.task, "") if group is None else (group, f"{samples.task}/")


def _outermost_group(samples: Samples) -> str | None:
    if samples.results is None:
        return None
    group_of = samples.results.group_of
    found, path = samples.task, set[str]()
    while found in group_of and found not in path:
        path.add(found)
        found = group_of[found]
    return found if path else None


def _params(samples: Samples) -> dict[str, float]:
    """Billions of parameters by model, if the run counted them."""
    results = samples.results
    if results is None:
        return {}
    count = member(results.content, "config", results.path).get("model_num_parameters")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < 1 << 60:
        return {}
    return {samples.model: count / 1e9}
