"""HELM: run folders, and suites of them (``benchmark_output/runs/SUITE``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from benchrouter.files.errors import BadInput
from benchrouter.files.words import counted
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.folders import folders_below
from benchrouter.tables.formats.helm.paper import (
    MODELS,
    not_found,
    paper_dataset,
    paper_model,
    whole,
)
from benchrouter.tables.formats.helm.run_folder import STATS, Tally, found_metrics, read_run
from benchrouter.tables.formats.helm.spec import (
    SPEC,
    Spec,
    has_spec,
    is_run,
    is_run_name,
    read_spec,
    run_file,
)
from benchrouter.tables.formats.long_rows import FormatReading, denied, refused, with_notes
from benchrouter.tables.layouts.sidecar import Sidecar


def recognises(path: Path) -> bool:
    """Whether a folder is a run or has runs below it."""
    return bool(_run_folders(path)[0])


def read(path: Path, choices: Choices) -> Iterator[FormatReading]:
    """Read a run or a suite, one run after the other.

    Parameters
    ----------
    path : Path
        A folder with ``run_spec.json``, or with such folders below it.
    choices : Choices

    Yields
    ------
    FormatReading
        One for each run, ordered by folder name. A run that cannot be read has no rows, and its
        source says why. Runs without the metric come last, so that the first of them can name
        all. The last reading has notes on all runs.

    Raises
    ------
    ValueError
        If no run has matching records.
    """
    closed: list[Path] = []
    runs, without_spec = _run_folders(path, closed)
    suite = _Suite(path, choices, without_spec)
    readings = chain(
        map(denied, map(str, closed)), map(suite.reading, runs), suite.without_metric()
    )
    found = False
    for reading in with_notes(
        filter(None, readings), lambda: (f"{path}: {note}" for note in suite.notes())
    ):
        found = True
        yield reading
    if not found:
        raise BadInput(f"{path}: {why_not_file(path) or suite.nothing()}")


def why_not_file(path: Path) -> str | None:
    """Message for a file of a run, which is no run itself; None for any other path."""
    if not path.is_file() or not is_run(path.parent):
        return None
    return f"is a file of a HELM run, expected the run's folder, {path.parent}"


def _run_folders(path: Path, closed: list[Path] | None = None) -> tuple[list[Path], list[Path]]:
    """Folders of runs at or below a path, and folders named like runs without ``run_spec.json``.

    Both are ordered by name, each folder once: HELM links ``runs/latest`` to its latest suite. A
    run that ended early has no ``run_spec.json``.
    """
    folders = folders_below(path, closed) if path.is_dir() else []
    return (
        [folder for folder, names in folders if has_spec(names)],
        [folder for folder, names in folders if not has_spec(names) and is_run_name(folder.name)],
    )


class _Suite:
    """The runs of a suite, and what was chosen and left out."""

    def __init__(self, path: Path, choices: Choices, without_spec: list[Path]) -> None:
        self.path = path
        self.without_spec = [folder.name for folder in without_spec]
        self.choices = choices
        self.tally = Tally()
        self.of_preset: set[tuple[str, str]] = set()
        self.not_of_preset: list[str] = []
        self.without_split: list[str] = []
        self.lacking: list[tuple[Spec, tuple[str, ...]]] = []  # and their metrics

    def reading(self, folder: Path) -> FormatReading | None:
        """Read a run; None if nothing in it matches."""
        dataset, model = None, None
        try:
            spec = read_spec(folder)
            if self.choices.preset is not None:
                dataset, model = paper_dataset(spec.dataset), paper_model(spec.model)
                if dataset is None or model is None:
                    self.not_of_preset.append(spec.name)
                    return None
            rows, metric, found = read_run(spec, self.choices, self.tally)
        except PermissionError as error:
            return denied(str(folder), error)
        except ValueError as error:
            return refused(str(folder), f"{folder}: {str(error).removeprefix(f'{folder}/')}")
        if metric is None:
            self.lacking.append((spec, found))
            if not self.choices.only_metric:
                return None
        if not rows.places:
            self.without_split.append(spec.name)
            return None
        if dataset is not None and model is not None:
            self.of_preset.add((dataset, model))
        params_b = {} if model is None else {spec.model: MODELS[model]}
        metrics = {} if metric is None else {spec.dataset: metric}
        sidecar = Sidecar(str(spec.path), metrics=metrics, params_b=params_b)
        return FormatReading(rows.source(), sidecar, lacks=found if metric is None else None)

    def without_metric(self) -> Iterator[FormatReading]:
        """Refuse the runs without the metric, unless `only_metric`."""
        if self.choices.only_metric:
            return
        for n, (spec, found) in enumerate(self.lacking):
            path = run_file(spec.folder, STATS)
            why = f"{path.name}: {found_metrics(found)}; expected {self.choices.metric!r}"
            if n == 0 and len(self.lacking) > 1:
                why = f"of {self._lacking()} without {self.choices.metric!r} the first: {why}"
            yield refused(str(spec.folder), f"{spec.folder}: {why}")

    def _lacking(self) -> str:
        return _some([spec.name for spec, _ in self.lacking], limit=10)

    def nothing(self) -> str:
        """Say why no run is left."""
        if self.without_split:
            return f"found {self._no_split()}"
        if not self.not_of_preset:
            return f"found no folder with {SPEC}, expected it or folders below it to have one"
        preset = self.choices.preset
        return (
            f"found no run of the preset {preset!r} among {_some(self.not_of_preset)}, "
            f"expected {whole()}"
        )

    def notes(self) -> Iterator[str]:
        """Say what was chosen and left out."""
        tally = self.tally
        yield f"instances by split: {_counts(tally.splits)}"
        if tally.n_perturbed:
            yield f"{counted(tally.n_perturbed, 'perturbed instance')} left out"
        if tally.n_of_several_trials:
            trials = f"{self.choices.train_trials} of the train trials"
            yield f"{trials} taken of runs that have several: {tally.n_of_several_trials:,}"
        without = Counter({name: n for name, n in tally.n_without_value.items() if n})
        if without:
            yield f"instances without a value of their metric: {_counts(without)}"
        if tally.n_without_generation:
            yield (
                f"no log-likelihood of runs that score references: {tally.n_without_generation:,}"
            )
        if tally.n_without_log_likelihood:
            yield (
                "runs whose log-likelihoods are missing, since they state 0 for most answers: "
                f"{tally.n_without_log_likelihood:,}"
            )
        if self.lacking and self.choices.only_metric:
            yield f"no metric {self.choices.metric!r}, so no scores, in {self._lacking()}"
        if self.without_split:
            yield self._no_split()
        if self.without_spec:
            yield f"folders of runs without {SPEC}, passed over: {_some(self.without_spec)}"
        if self.choices.preset is not None:
            yield from not_found(self.of_preset)
        if self.not_of_preset:
            yield f"not of the preset, left out: {_some(self.not_of_preset)}"

    def _no_split(self) -> str:
        return f"no instance of split {self.choices.split!r} in {_some(self.without_split)}"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _some(names: list[str], limit: int = 3) -> str:
    more = ", …" if len(names) > limit else ""
    return f"{counted(len(names), 'run')} ({', '.join(map(repr, names[:limit]))}{more})"
