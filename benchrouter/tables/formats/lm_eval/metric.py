"""The metric and the filter of a task of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from benchrouter.tables.formats.fields import member
from benchrouter.tables.formats.lm_eval.files import Samples
from benchrouter.tables.sources.columns import number

# Keys of a sample that are not metrics.
KEYS = (
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
)


class Metrics(NamedTuple):
    """Metrics and filters of a task, in the order of its configuration."""

    names: list[str]
    filters: list[str]
    pairs: list[tuple[str, str]]
    """(metric, filter) in the results."""
    lower_is_better: set[str]

    def of_sample(self, row: dict[str, Any]) -> list[str]:
        """Metrics of a sample, those of the task's ``metric_list`` first."""
        listed = row.get("metrics")
        keys = listed if isinstance(listed, list) else [key for key in row if key not in KEYS]
        return [name for name in _texts([*self.names, *keys]) if name in row]

    def ordered(self, row: dict[str, Any]) -> list[str]:
        """Metrics of a sample that are single numbers, in the order of ``metric_list``.

        Metrics of which less is better come last.
        """
        known = [name for name in self.of_sample(row) if _is_number(row, name)]
        return sorted(known, key=self.lower_is_better.__contains__)

    def main_filter(self, metric: str | None, filter: str | None) -> str | None:
        """Filter to take: the one asked for if it exists, else the main metric's first.

        None leaves the choice to the first sample.
        """
        if filter in self.filters or not self.filters:
            return filter
        wanted = [metric, *sorted(self.names, key=self.lower_is_better.__contains__)]
        for name in wanted:
            for found, its_filter in self.pairs:
                if found == name:
                    return its_filter
        return self.filters[0]


def metrics_of(samples: Samples) -> Metrics:
    """Read the metrics and filters of a task from its results."""
    results = samples.results
    if results is None:
        return Metrics([], [], [], set())
    task, place = samples.task, results.path
    config = results.config(task)
    better = member(member(results.content, "higher_is_better", place), task, place)
    listed = [entry for entry in _list(config.get("metric_list")) if isinstance(entry, dict)]
    lower = {name for name, higher in better.items() if higher is False}
    lower |= {str(e.get("metric")) for e in listed if e.get("higher_is_better") is False}
    pairs = []
    for key in member(member(results.content, "results", place), task, place):
        name, comma, filter = key.rpartition(",")
        if comma and not name.endswith("_stderr"):
            pairs.append((name, filter))
    configured = (e.get("name") for e in _list(config.get("filter_list")) if isinstance(e, dict))
    return Metrics(
        names=_texts([*(entry.get("metric") for entry in listed), *better]),
        filters=_texts([*configured, *(filter for _, filter in pairs)]),
        pairs=pairs,
        lower_is_better=lower,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(value for value in values if isinstance(value, str)))


def _is_number(row: dict[str, Any], name: str) -> bool:
    try:
        number(row[name], finite=False)
    except ValueError:
        return False
    return True
