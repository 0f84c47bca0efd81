"""Wide tables: a row is a record, a column is a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Floats
from benchrouter.files.errors import BadInput
from benchrouter.tables.layouts.names import (
    LONG_ONLY,
    OF_MODEL,
    OURS,
    is_of_metric,
    metric_models,
    require,
)
from benchrouter.tables.layouts.part import (
    NUMBER,
    TEXT,
    Part,
    key_codes,
    key_shown,
    mark_duplicates,
)
from benchrouter.tables.layouts.presets import unmistakable
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.bad_rows import BadRows
from benchrouter.tables.sources.columns import is_numeric, numbers, texts
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

COST = "cost::"
LOG_LIKELIHOOD = "log_likelihood::"
# Row labels that pandas writes: to_csv without a name, read back and written again, to_parquet.
ROW_LABELS = ("", "Unnamed: 0", "__index_level_0__")


def read_wide(
    source: Source,
    sidecar: Sidecar,
    names: Mapping[str, str],
    *,
    models: Sequence[str] | None,
    metric: str | None = None,
    bad: BadRows,
) -> Part:
    """Read a wide source.

    Parameters
    ----------
    source : Source
        One row a record.
    sidecar : Sidecar
        May say which columns are models; otherwise numeric columns are.
    names : dict of str to str
        Our names to the columns of the source.
    models : sequence of str or None
        Read only these columns; a model missing here may be in another source.
    metric : str, optional
        Read the columns ``metric::<model>`` in place of ``<model>``. The sidecar's thresholds and
        name of the metric do not apply to them and are dropped.
    bad : BadRows
        Collects bad cells; the whole record of one is left out.

    Returns
    -------
    Part
        Records in the order of the rows.

    Raises
    ------
    ValueError
        Names the row and what was found.
    """
    measured = [] if metric is None else metric_models(source.columns, metric)
    _check_names(names, {"score"} if measured else set())
    require(source, "prompt", names.get("prompt", "prompt"))
    datasets = _datasets(source, names, bad)
    sample_ids = _sample_ids(source, names, bad)
    prompts, no_prompt = texts(source, names["prompt"], integers=False)
    bad.add_cells(no_prompt, names["prompt"], "prompt", TEXT)

    taken = {names[ours] for ours in ("dataset", "sample_id", "prompt") if ours in names}
    known, found = _models(source, sidecar, taken, models, measured)
    if measured:
        sidecar = replace(sidecar, metric=metric or "", metrics={}, thresholds={})
    _check_prefixed(source, sidecar, measured)
    scores = _matrix(source, found, f"{metric}{OF_MODEL}" if measured else "", bad)
    if scores is None:  # of the models asked for, this source has none
        scores = np.empty((source.n_rows, 0), dtype=np.float32)
    costs = _matrix(source, found, COST, bad)
    log_likelihoods = _matrix(source, found, LOG_LIKELIHOOD, bad)
    dropped = mark_duplicates(
        key_codes(datasets, sample_ids), lambda row: key_shown(datasets, sample_ids, row), bad
    )
    kept = np.flatnonzero(bad.keep)
    bare = source.without_columns()
    return Part(
        name=source.name,
        layout="wide",
        sidecar=sidecar,
        on_error=bad.on_error,
        models=list(found),
        known_models=known,
        all_datasets=datasets,
        all_sample_ids=sample_ids,
        all_positions=source.positions,
        n_positions=source.n_positions,
        kept=kept,
        prompts=prompts.filter(bad.keep),
        scores=_rows(scores, bad.keep),
        cost_usd=None if costs is None else _rows(costs, bad.keep),
        log_likelihood=None if log_likelihoods is None else _rows(log_likelihoods, bad.keep),
        place=lambda record, model: bare.place(int(kept[record])),
        skipped=bad.messages(),
        duplicates=Counter(
            (datasets[row].as_py(), model)
            for row in dropped.tolist()
            for model, score in zip(found, scores[row].tolist(), strict=True)
            if not np.isnan(score)
        ),
    )


def _check_names(names: Mapping[str, str], known: set[str]) -> None:
    """Refuse a column for what only long tables have."""
    for ours in LONG_ONLY:
        if names.get(ours, ours) != ours and ours not in known:
            raise BadInput(f"columns maps {ours!r}, which a wide table does not have")


def _models(
    source: Source,
    sidecar: Sidecar,
    taken: set[str],
    models: Sequence[str] | None,
    measured: list[str],
) -> tuple[list[str], list[str]]:
    """All models of a source and those to read; `measured` are the models of a further metric."""
    if measured:
        known = [m for m in sidecar.model_columns or () if m in measured] or measured
        found = known if models is None else [m for m in models if m in measured]
    else:
        known = _model_columns(source, sidecar, taken, any_kind=models is not None)
        found = known if models is None else [m for m in models if _may_be_model(source, m, taken)]
    if not found and models is None:
        raise BadInput(
            f"{source.name}: found no numeric column to take as a model; "
            f"it has {source.list_columns()}"
        )
    return known, found


def _datasets(source: Source, names: Mapping[str, str], bad: BadRows) -> pa.LargeStringArray:
    import pyarrow as pa

    if "dataset" not in names:
        return pa.repeat(pa.scalar(source.stem, pa.large_string()), source.n_rows)
    datasets, missing = texts(source, names["dataset"])
    bad.add_cells(missing, names["dataset"], "dataset", TEXT)
    return datasets


def _sample_ids(source: Source, names: Mapping[str, str], bad: BadRows) -> pa.LargeStringArray:
    import pyarrow as pa

    if "sample_id" not in names:
        return pa.array(source.positions + 1).cast(pa.large_string())
    sample_ids, missing = texts(source, names["sample_id"])
    bad.add_cells(missing, names["sample_id"], "sample_id", TEXT)
    return sample_ids


def _model_columns(
    source: Source, sidecar: Sidecar, taken: set[str], *, any_kind: bool
) -> list[str]:
    """Columns of models: those of the sidecar, else numeric ones, or all if `any_kind`."""
    if sidecar.model_columns is not None:
        return _named_models(sidecar, source, taken)
    preset = unmistakable(source)
    if preset is not None and not any_kind:
        raise BadInput(
            f"{source.name}: has the columns of {preset} ({source.list_columns()}): read it with "
            f"--preset {preset} (preset={preset!r}), or name the columns that are models (--models)"
        )
    return [
        column
        for column in source.columns
        if column not in OURS
        and column not in ROW_LABELS
        and not is_of_metric(source, column)
        and _may_be_model(source, column, taken)
        and (any_kind or is_numeric(source, column))
    ]


def _named_models(sidecar: Sidecar, source: Source, taken: set[str]) -> list[str]:
    columns = list(sidecar.model_columns or ())
    unknown = [m for m in columns if m not in source.columns]
    if unknown:
        raise BadInput(
            f"{sidecar.path}: model_columns names unknown models {unknown}; "
            f"{source.name} has {source.list_columns()}"
        )
    reserved = [m for m in columns if m in taken]
    if reserved:
        raise BadInput(
            f"{sidecar.path}: model_columns names {reserved[0]!r}, "
            "which is the column of the dataset, sample_id or prompt"
        )
    return columns


def _may_be_model(source: Source, column: str, taken: set[str]) -> bool:
    prefixed = column.startswith((COST, LOG_LIKELIHOOD))
    return column in source.columns and column not in taken and not prefixed


def _check_prefixed(source: Source, sidecar: Sidecar, measured: Sequence[str]) -> None:
    """Refuse costs and log-likelihoods without a model's column, or missing ones of the sidecar."""
    for column in sidecar.cost_columns + sidecar.log_likelihood_columns:
        if column not in source.columns:
            raise BadInput(
                f"{sidecar.path} names a column {column!r} that {source.name} does not have; "
                f"it has {source.list_columns()}"
            )
    for column in source.columns:
        for prefix in (COST, LOG_LIKELIHOOD):
            model = column.removeprefix(prefix)
            known = model in source.columns or model in measured
            if column.startswith(prefix) and not known:
                raise BadInput(
                    f"{source.name}: found column {column!r}, but there is no column {model!r}"
                )


def _matrix(source: Source, models: Sequence[str], prefix: str, bad: BadRows) -> Floats | None:
    """Read one column per model; None if none of the prefixed columns is there."""
    present = [m for m in models if prefix + m in source.columns]
    if prefix and not present:
        return None
    matrix = np.full((source.n_rows, len(models)), np.nan, dtype=np.float32)
    what = prefix.removesuffix("::") or "score"
    for j, model in enumerate(models):
        if model in present:
            matrix[:, j], wrong = numbers(source, prefix + model)
            bad.add_cells(wrong, prefix + model, f"{what} of model {model!r}", NUMBER)
    return matrix


def _rows(matrix: Floats, keep: NDArray[np.bool_]) -> Floats:
    return matrix if keep.all() else matrix[keep]
