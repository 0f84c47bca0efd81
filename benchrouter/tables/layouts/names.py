"""Map our names of columns to those of a source."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from benchrouter.files.errors import BadInput
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.source import Source

OURS = ("dataset", "sample_id", "prompt", "model", "score", "cost_usd", "log_likelihood")
TEXTS = ("model", "dataset", "sample_id", "prompt")
LONG_ONLY = ("model", "score", "cost_usd", "log_likelihood")
LAYOUTS = ("auto", "wide", "long")
NO_METRIC = ("cost", "log_likelihood")  # columns NO_METRIC::MODEL of a wide table
OF_MODEL = "::"  # between the name of a metric and a model's, in a column of a wide table


def wanted_names(
    columns: Mapping[str, str] | None, dataset_column: str | None, prompt_column: str | None
) -> dict[str, str]:
    """Merge the three options that name columns into one mapping of our names to theirs.

    Raises
    ------
    ValueError
        If a name is not ours, or two options disagree.
    """
    wanted = dict(columns or {})
    for ours in wanted:
        if ours not in OURS:
            raise BadInput(f"columns: found {ours!r}, expected one of {', '.join(OURS)}")
    for ours, theirs in (("dataset", dataset_column), ("prompt", prompt_column)):
        if theirs is not None and wanted.setdefault(ours, theirs) != theirs:
            raise BadInput(
                f"columns maps {ours!r} to {wanted[ours]!r}, but {ours}_column is {theirs!r}"
            )
    return wanted


def source_names(source: Source, sidecar: Sidecar, wanted: Mapping[str, str]) -> dict[str, str]:
    """Map our names to the columns of a source; names without a column are left out.

    The caller's names come first, then the sidecar's, then our own. A score that the caller named
    may be columns ``metric::<model>`` of a wide source; it is then left out.

    Raises
    ------
    ValueError
        If a named column is not there.
    """
    named = _named(sidecar, wanted)
    names = {}
    for ours in OURS:
        theirs = named.get(ours, ours)
        if theirs in source.columns:
            names[ours] = theirs
        elif ours in named and not (ours == "score" and metric_models(source.columns, theirs)):
            require(source, ours, theirs)
    return names


def long_columns(
    columns: Collection[str], layout: str, wanted: Mapping[str, str], sidecar: Sidecar
) -> frozenset[str] | None:
    """Columns to read of a long source; None if it is wide or may turn out to be.

    `columns` may be only some of the source's; further ones do not make a long source wide.
    """
    named = _named(sidecar, wanted)
    names = {ours: named.get(ours, ours) for ours in OURS}
    if names["model"] not in columns or names["score"] not in columns:
        return None
    is_long = layout_of(layout, names, wanted, sidecar, columns) == "long"
    return frozenset(names.values()) if is_long else None


def _named(sidecar: Sidecar, wanted: Mapping[str, str]) -> dict[str, str]:
    """Our names to the columns that the caller, or else the sidecar, names."""
    named = dict(wanted)
    for ours, theirs in zip(("dataset", "sample_id"), sidecar.key_columns, strict=False):
        named.setdefault(ours, theirs)
    if sidecar.prompt_column is not None:
        named.setdefault("prompt", sidecar.prompt_column)
    return named


def require(source: Source, ours: str, theirs: str) -> None:
    """Refuse a source that lacks a column.

    Raises
    ------
    ValueError
        Names the columns that are there.
    """
    if theirs not in source.columns:
        what = "" if ours == theirs else f" for {ours}"
        if ours == "score" != theirs:
            what += f", nor columns {theirs + OF_MODEL + 'MODEL'!r}"
        raise BadInput(
            f"{source.name} has no column {theirs!r}{what}; it has {source.list_columns()}"
        )


def metric_models(columns: Collection[str], metric: str) -> list[str]:
    """Models with a column ``metric::<model>``, in the order of the source."""
    prefix = metric + OF_MODEL
    found = [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]
    return [model for model in found if model]


def has_metric(source: Source, metric: str | None) -> bool:
    """Whether a long source has a column of a metric, or a wide one columns; None = any."""
    return metric is None or metric in source.columns or bool(metric_models(source.columns, metric))


def metrics_of(source: Source) -> tuple[str, ...]:
    """Metrics of a wide table, "score" first."""
    found = [c.partition(OF_MODEL)[0] for c in source.columns if is_of_metric(source, c)]
    return tuple(dict.fromkeys(["score", *(name for name in found if name not in NO_METRIC)]))


def is_of_metric(source: Source, column: str) -> bool:
    """Whether a column is ``metric::<column>``, a further metric of that model."""
    at = column.find(OF_MODEL)
    while at > 0:
        if column[at + len(OF_MODEL) :] in source.columns:
            return True
        at = column.find(OF_MODEL, at + 1)
    return False


def layout_of(
    layout: str,
    names: Mapping[str, str],
    wanted: Mapping[str, str],
    sidecar: Sidecar,
    columns: Collection[str],
) -> str:
    """Decide between "wide" and "long" by the options, the sidecar, or the columns."""
    if layout not in LAYOUTS:
        raise BadInput(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if layout != "auto":
        return layout
    if "model" in wanted:
        return "long"
    if "score" in wanted:
        is_long = "model" in names and "score" in names
        return "wide" if metric_models(columns, wanted["score"]) and not is_long else "long"
    if sidecar.layout is not None:
        return sidecar.layout
    return "long" if "model" in names and "score" in names else "wide"
