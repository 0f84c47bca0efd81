"""Choose among several runs of a model on a task."""

from __future__ import annotations

from collections.abc import Sequence

from benchrouter.files.errors import BadInput
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.lm_eval.files import Samples


def chosen_runs(
    samples: Sequence[Samples], choices: Choices
) -> tuple[list[Samples], list[tuple[str, str]]]:
    """Choose one file of samples for each model and task.

    Parameters
    ----------
    samples : sequence of Samples
    choices : Choices
        `shots` keeps the runs with that many few-shot examples. The latest of equal runs is taken;
        with `runs` "latest", also of runs that differ.

    Returns
    -------
    samples : list of Samples
        In the order given.
    notes : list of (str, str)
        Task and message for runs that were left out.

    Raises
    ------
    ValueError
        If the choice between different runs is open, or none is left.
    """
    if choices.shots is not None:
        samples = _with_shots(samples, choices.shots)
    runs: dict[tuple[str, str], list[Samples]] = {}
    for one in samples:
        runs.setdefault((one.model, one.task), []).append(one)
    taken, notes = [], []
    for (model, task), alike in runs.items():
        latest = max(alike, key=lambda one: one.date)
        taken.append(latest)
        for other in alike:
            if other is not latest:
                _check_alike(latest, other, choices)
        if len(alike) > 1:
            notes.append((task, f"{len(alike)} runs of {model}, took the latest, {latest.date}"))
    return taken, notes


def check_comparable(samples: Sequence[Samples]) -> None:
    """Refuse models whose requests had different few-shot examples or chat templates.

    Raises
    ------
    ValueError
        Names two files.
    """
    first: dict[str, Samples] = {}
    for one in samples:
        other = first.setdefault(one.task, one)
        for what in ("few-shot examples", "chat template"):
            mine, theirs = _settings(one)[what], _settings(other)[what]
            if mine is not None and theirs is not None and mine != theirs:
                raise BadInput(
                    f"{one.path}: {what} of task {one.task!r} is {mine} for model {one.model!r}, "
                    f"but {theirs} for {other.model!r} in {other.path}: what was sent to them "
                    "differs; 'instance' takes the documents' own text (prompt, --prompt-from), "
                    "or choose runs by their examples (shots, --shots)"
                )


def _with_shots(samples: Sequence[Samples], shots: int) -> list[Samples]:
    found = [_settings(one)["few-shot examples"] for one in samples]
    kept = [one for one, n in zip(samples, found, strict=True) if n == shots]
    if samples and not kept:
        numbers = sorted({n for n in found if isinstance(n, int)})
        raise BadInput(
            f"{samples[0].path}: no run has {shots} few-shot examples, found runs with {numbers}"
        )
    return kept


def _check_alike(latest: Samples, other: Samples, choices: Choices) -> None:
    what = f"model {latest.model!r} has the task {latest.task!r} in several runs"
    if latest.date == other.date:
        raise BadInput(
            f"{latest.path}: {what}, another in {other.path}, and their names do not say which is "
            "the latest; expected one of them"
        )
    if choices.runs == "latest":
        return
    mine, theirs = _settings(latest), _settings(other)
    for key, value in mine.items():
        if value is not None and theirs[key] is not None and value != theirs[key]:
            raise BadInput(
                f"{latest.path}: {what}, with {key} {value} here and {theirs[key]} in "
                f"{other.path}; expected one: choose by examples (shots, --shots), or take the "
                "'latest' (runs, --runs)"
            )


def _settings(samples: Samples) -> dict[str, object]:
    """Settings of a run; None = unknown."""
    results = samples.results
    if results is None:
        return dict.fromkeys(("few-shot examples", "documents", "task version", "chat template"))
    counts = results.of_task("n-samples", samples.task)
    template = results.content.get("chat_template_sha")
    if "chat_template_sha" in results.content and template is None:
        template = "none"
    return {
        "few-shot examples": results.of_task("n-shot", samples.task),
        "documents": counts.get("effective") if isinstance(counts, dict) else None,
        "task version": results.of_task("versions", samples.task),
        "chat template": template,
    }
