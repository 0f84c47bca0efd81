"""How results are read: what the caller chose, and whether the sources can follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from benchrouter.tables.formats import TABLE, names
from benchrouter.tables.formats.choices import ALLOWED as OF_FORMATS
from benchrouter.tables.formats.choices import Choices, check_values
from benchrouter.tables.layouts.names import LAYOUTS, wanted_names
from benchrouter.tables.layouts.presets import PRESETS
from benchrouter.tables.merging.aliases import Given

ALLOWED = {
    **OF_FORMATS,
    "format": names(),
    "layout": LAYOUTS,
    "align": ("sample_id", "prompt"),
    "on_conflict": ("error", "first", "mean"),
    "on_error": ("raise", "skip"),
}
# The formats that look at an option; what is not here is for all of them.
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


@dataclass(frozen=True)
class ReadOptions(Choices):
    """The keywords of `BenchmarkTable.read`, which describes them."""

    layout: str = "auto"
    columns: Mapping[str, str] | None = None
    dataset_column: str | None = None
    prompt_column: str | None = None
    models: Sequence[str] | None = None
    thresholds: Mapping[str, float | None] | None = None
    on_error: str = "raise"
    format: str = "auto"
    aliases: Given = None
    align: str = "sample_id"
    on_conflict: str = "error"

    def __post_init__(self) -> None:
        """Check the options that have few values."""
        check_values(self, ALLOWED)

    @property
    def columns_preset(self) -> str | None:
        """The preset, if it is one of columns."""
        return self.preset if self.preset in PRESETS else None

    @property
    def score(self) -> str | None:
        """The metric to take, which may be named as the score's column."""
        return self.metric if self.metric is not None else (self.columns or {}).get("score")

    def wanted(self) -> dict[str, str]:
        """Our names of columns to those that the caller named."""
        wanted = wanted_names(self.columns, self.dataset_column, self.prompt_column)
        if self.metric is not None:
            wanted.setdefault("score", self.metric)
        return wanted


def flag(name: str) -> str:
    """Return what the command line calls a keyword."""
    return {"prompt": "--prompt-from", "metric": "--metric, --also"}.get(
        name, "--" + name.replace("_", "-")
    )


def check_fit(options: ReadOptions, formats: Collection[str]) -> None:
    """Refuse an option that the format of no source looks at.

    Parameters
    ----------
    options : ReadOptions
    formats : collection of str
        Of the sources.

    Raises
    ------
    ValueError
        Names the option, its formats and those found. So of two that name the score of a table.
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
    """Options that are not as they are by default, with their formats."""
    defaults = {field.name: field.default for field in fields(options)}
    given: dict[str, Sequence[str]] = {
        name: of for name, of in FORMATS_OF.items() if getattr(options, name) != defaults[name]
    }
    if set(options.columns or ()) <= {"score"}:  # which is a metric elsewhere
        given.pop("columns", None)
        if options.score is not None:
            given["metric"] = FORMATS_OF["metric"]
    if options.preset is not None:
        given["preset"] = (TABLE,) if options.columns_preset is not None else ("helm",)
    return given
