"""The options of reading, and whether the sources' formats have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypedDict

from benchrouter.tables.formats import TABLE, names
from benchrouter.tables.formats.choices import ALLOWED as OF_FORMATS
from benchrouter.tables.formats.choices import Choices, check_values
from benchrouter.tables.layouts.names import LAYOUTS, wanted_names
from benchrouter.tables.layouts.presets import PRESETS
from benchrouter.tables.merging.aliases import Given
from benchrouter.tables.table import names_given

ALLOWED = {
    **OF_FORMATS,
    "format": names(),
    "layout": LAYOUTS,
    "align": ("sample_id", "prompt"),
    "on_conflict": ("error", "first", "mean"),
    "on_error": ("raise", "skip"),
}
# The formats that have an option; all of them have those that are not listed.
FORMATS_OF = {
    "layout": (TABLE,),
    "columns": (TABLE,),
    "dataset_column": (TABLE,),
    "prompt_column": (TABLE,),
    "metric": (TABLE, "helm", "lm-eval", "every-eval-ever", "mixinstruct"),
    "prompt": ("helm", "lm-eval", "every-eval-ever"),
    "split": ("helm",),
    "train_trials": ("helm",),
    "perturbations": ("helm",),
    "filter": ("lm-eval",),
    "shots": ("lm-eval",),
    "runs": ("lm-eval",),
    "groups": ("lm-eval",),
}


class TableKeywords(TypedDict, total=False):
    """Options of `table_from_arrow`; `read_table` has and describes them too."""

    layout: str
    columns: Mapping[str, str] | None
    dataset_column: str | None
    prompt_column: str | None
    models: Sequence[str] | None
    datasets: Sequence[str] | None
    max_params: float | None
    min_records: int | None
    complete: bool
    thresholds: Mapping[str, float | None] | None
    on_error: str
    preset: str | None


class ReadKeywords(TableKeywords, total=False):
    """Options of `read_table`, which describes them."""

    format: str
    metric: str | None
    only_metric: bool
    filter: str | None
    prompt: str | None
    split: str | None
    train_trials: str
    perturbations: str
    shots: int | None
    runs: str
    groups: bool
    align: str
    aliases: Given
    on_conflict: str


@dataclass(frozen=True)
class ReadOptions(Choices):
    """The options of `read_table`, with their defaults."""

    layout: str = "auto"
    columns: Mapping[str, str] | None = None
    dataset_column: str | None = None
    prompt_column: str | None = None
    models: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    max_params: float | None = None
    min_records: int | None = None
    complete: bool = False
    thresholds: Mapping[str, float | None] | None = None
    on_error: str = "raise"
    format: str = "auto"
    aliases: Given = None
    align: str = "sample_id"
    on_conflict: str = "error"

    def __post_init__(self) -> None:
        """Check the names, and the options that have few values."""
        check_values(self, ALLOWED)
        for name in ("models", "datasets"):
            object.__setattr__(self, name, names_given(name, getattr(self, name)))

    @property
    def columns_preset(self) -> str | None:
        """The preset, if it is one of columns."""
        return self.preset if self.preset in PRESETS else None

    @property
    def score(self) -> str | None:
        """The metric to take, by `metric` or by the score's column."""
        return self.metric if self.metric is not None else (self.columns or {}).get("score")

    def wanted(self) -> dict[str, str]:
        """Our names of columns to those that the caller named."""
        wanted = wanted_names(self.columns, self.dataset_column, self.prompt_column)
        if self.metric is not None:
            wanted.setdefault("score", self.metric)
        return wanted


def of_metric(options: ReadOptions, metric: str) -> ReadOptions:
    """Return the options that read a further metric of the same records."""
    columns = {ours: theirs for ours, theirs in (options.columns or {}).items() if ours != "score"}
    return replace(
        options,
        columns=columns or None,
        metric=metric,
        only_metric=True,
        thresholds={"*": None},  # those that sources state are of the score
    )


def flag(name: str) -> str:
    """Name of an option on the command line."""
    return {"prompt": "--prompt-from", "metric": "--metric, --also"}.get(
        name, "--" + name.replace("_", "-")
    )


def check_fit(options: ReadOptions, formats: Collection[str]) -> None:
    """Refuse an option that none of the sources' formats has.

    Raises
    ------
    ValueError
        Names the option, its formats and those found; also if `columns` and `metric` name different
        scores of a table.
    """
    _check_score(options, formats)
    for name, of in _given(options).items():
        if set(of).isdisjoint(formats):
            what = f"preset {options.preset!r}" if name == "preset" else name
            found = " and ".join(dict.fromkeys(formats))
            raise ValueError(
                f"{what} ({flag(name)}) is an option of {', '.join(of)}; found only {found}"
            )


def _check_score(options: ReadOptions, formats: Collection[str]) -> None:
    column, metric = (options.columns or {}).get("score"), options.metric
    if set(formats) == {TABLE} and None not in (column, metric) and column != metric:
        raise ValueError(f"columns maps 'score' to {column!r}, but metric is {metric!r}")


def _given(options: ReadOptions) -> dict[str, Sequence[str]]:
    """Options that differ from their defaults, each with its formats."""
    defaults = {field.name: field.default for field in fields(options)}
    given: dict[str, Sequence[str]] = {
        name: of for name, of in FORMATS_OF.items() if getattr(options, name) != defaults[name]
    }
    if set(options.columns or ()) <= {"score"}:  # a metric in other formats
        given.pop("columns", None)
        if options.score is not None:
            given["metric"] = FORMATS_OF["metric"]
    if options.preset is not None:
        given["preset"] = (TABLE,) if options.columns_preset is not None else ("helm",)
    return given
