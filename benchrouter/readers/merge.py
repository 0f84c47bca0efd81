"""Parts of several sources as one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.readers.part import Part, distinct, encode, key_codes, key_shown
from benchrouter.readers.source import shown
from benchrouter.table import BenchmarkTable, default_thresholds

if TYPE_CHECKING:
    import pyarrow as pa


def merge(parts: Sequence[Part], thresholds: Mapping[str, float | None] | None) -> BenchmarkTable:
    """Merge parts into a table.

    Parameters
    ----------
    parts : sequence of Part
        At least one. Records of the same dataset and sample_id are merged when their prompts
        agree and no model has a value in two parts.
    thresholds : dict of str to float, or None
        Per dataset, "*" = all others; before those of the sidecars.

    Returns
    -------
    BenchmarkTable
        Records and models in the order of their first appearance.

    Raises
    ------
    ValueError
        If parts contradict each other: both values and both places.
    """
    import pyarrow as pa

    datasets = pa.concat_arrays([p.all_datasets.take(pa.array(p.kept)) for p in parts])
    sample_ids = pa.concat_arrays([p.all_sample_ids.take(pa.array(p.kept)) for p in parts])
    prompts = pa.concat_arrays([p.prompts for p in parts])
    skipped = [message for p in parts for message in p.skipped]
    if len(datasets) == 0:
        raise ValueError(
            "no record is left of the input"
            + (f"; the first skipped: {skipped[0]}" if skipped else "")
        )
    first, record = _records(parts, datasets, sample_ids)
    usable = _same_prompts(parts, datasets, sample_ids, prompts, first, record, skipped)
    models = list(dict.fromkeys(m for p in parts for m in p.models))
    fill = _Fill(parts, models, len(first), record, usable, datasets, sample_ids, skipped)
    fill.mark_clashes()
    names, codes = _dataset_codes(datasets.take(pa.array(first)))
    source_rows, n_source_rows = _source_rows(parts, first)
    scores = fill.matrix(lambda part: part.scores)
    assert scores is not None  # every part has scores
    metrics, stated = _of_datasets(parts, names)
    return BenchmarkTable(
        scores=scores,
        dataset=codes,
        datasets=names,
        models=tuple(models),
        sample_ids=_strings(sample_ids.take(pa.array(first))),
        prompts=_strings(prompts.take(pa.array(first))),
        source_rows=source_rows,
        n_source_rows=n_source_rows,
        cost_usd=fill.matrix(lambda part: part.cost_usd),
        log_likelihood=fill.matrix(lambda part: part.log_likelihood),
        params_b=_params(parts, models),
        prices=_prices(parts, models),
        metrics=metrics,
        thresholds=_thresholds(scores, codes, names, stated, thresholds),
        skipped=tuple(skipped),
    )


def _records(
    parts: Sequence[Part], datasets: pa.Array, sample_ids: pa.Array
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each record among the rows of all parts, and the record of each row."""
    if len(parts) == 1:
        rows = np.arange(len(datasets), dtype=np.int64)
        return rows, rows
    return distinct(key_codes(datasets, sample_ids))


def _offsets(parts: Sequence[Part]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([p.n_records for p in parts])])


def _place(parts: Sequence[Part], row: int, model: str | None = None) -> str:
    """Where a row of the concatenated parts was read."""
    offsets = _offsets(parts)
    at = int(np.searchsorted(offsets, row, side="right")) - 1
    part = parts[at]
    column = part.models.index(model) if model in part.models else None
    return part.place(int(row - offsets[at]), column)


def _leave_out(part: Part, message: str, n_alike: int, skipped: list[str]) -> None:
    if part.on_error == "raise":
        more = f" ({n_alike - 1} more such records)" if n_alike > 1 else ""
        raise ValueError(message + more)
    skipped.append(message)


def _same_prompts(
    parts: Sequence[Part],
    datasets: pa.Array,
    sample_ids: pa.Array,
    prompts: pa.Array,
    first: NDArray[np.int64],
    record: NDArray[np.int64],
    skipped: list[str],
) -> NDArray[np.bool_]:
    """Rows whose prompt is that of their record's first row, shape (n_rows,)."""
    usable = np.ones(len(record), dtype=bool)
    if len(first) == len(record):
        return usable
    code, _ = encode(prompts)
    rows = np.flatnonzero(code != code[first[record]])
    for row in rows.tolist():
        earlier = int(first[record[row]])
        at = int(np.searchsorted(_offsets(parts), row, side="right")) - 1
        _leave_out(
            parts[at],
            f"{_place(parts, row)}: prompt of {key_shown(datasets, sample_ids, row)} is "
            f"{shown(prompts[row].as_py())}, but {shown(prompts[earlier].as_py())} in "
            f"{_place(parts, earlier)}",
            len(rows),
            skipped,
        )
    usable[rows] = False
    return usable


class _Fill:
    """Places every part's values in the merged matrices."""

    def __init__(
        self,
        parts: Sequence[Part],
        models: list[str],
        n_records: int,
        record: NDArray[np.int64],
        usable: NDArray[np.bool_],
        datasets: pa.Array,
        sample_ids: pa.Array,
        skipped: list[str],
    ) -> None:
        self.parts = parts
        self.models = models
        self.n_records = n_records
        self.record = record
        self.usable = usable
        self.datasets = datasets
        self.sample_ids = sample_ids
        self.skipped = skipped
        self.offsets = _offsets(parts)
        self.columns = [np.array([models.index(m) for m in p.models], np.int64) for p in parts]

    def mark_clashes(self) -> None:
        """Report rows that bring a value for a model that has one; they are used no more."""
        if len(self.record) == self.n_records:
            return
        for what, values_of in (
            ("score", lambda part: part.scores),
            ("cost_usd", lambda part: part.cost_usd),
            ("log_likelihood", lambda part: part.log_likelihood),
        ):
            # Which row of the concatenated parts brought the value; −1 = none yet.
            brought = np.full((self.n_records, len(self.models)), -1, dtype=np.int64)
            for at in range(len(self.parts)):
                self._mark_clashes_of(at, what, values_of, brought)

    def _mark_clashes_of(
        self,
        at: int,
        what: str,
        values_of: Callable[[Part], NDArray[np.float32] | None],
        brought: NDArray[np.int64],
    ) -> None:
        values = values_of(self.parts[at])
        if values is None:
            return
        start, end = int(self.offsets[at]), int(self.offsets[at + 1])
        cells = np.ix_(self.record[start:end], self.columns[at])
        present = ~np.isnan(values) & self.usable[start:end, None]
        clash = present & (brought[cells] >= 0)
        rows = np.flatnonzero(clash.any(axis=1))
        for row in rows.tolist():
            column = int(np.flatnonzero(clash[row])[0])
            self._report(at, row, column, what, values_of, brought, len(rows))
        self.usable[start + rows] = False
        present[rows] = False
        known = brought[cells]
        brought[cells] = np.where(present, np.arange(start, end)[:, None], known)

    def _report(
        self,
        at: int,
        row: int,
        column: int,
        what: str,
        values_of: Callable[[Part], NDArray[np.float32] | None],
        brought: NDArray[np.int64],
        n_alike: int,
    ) -> None:
        part, here = self.parts[at], int(self.offsets[at]) + row
        model = part.models[column]
        there = int(brought[self.record[here], self.models.index(model)])
        other_at = int(np.searchsorted(self.offsets, there, side="right")) - 1
        other = self.parts[other_at]
        mine, theirs = values_of(part), values_of(other)
        assert mine is not None and theirs is not None  # both brought a value
        before = theirs[there - int(self.offsets[other_at]), other.models.index(model)]
        same = mine[row, column] == before
        _leave_out(
            part,
            f"{_place(self.parts, here, model)}: {what} of model {model!r} for "
            f"{key_shown(self.datasets, self.sample_ids, here)} is {mine[row, column]:g}, "
            + (
                f"and so it is in {_place(self.parts, there, model)}: the same record stands in "
                "both; expected it once"
                if same
                else f"but {before:g} in {_place(self.parts, there, model)}; expected one of them"
            ),
            n_alike,
            self.skipped,
        )

    def matrix(
        self, values_of: Callable[[Part], NDArray[np.float32] | None]
    ) -> NDArray[np.float32] | None:
        """Values of all parts, float32 (n_records, n_models); None if no part has any."""
        if all(values_of(part) is None for part in self.parts):
            return None
        if len(self.parts) == 1:
            return values_of(self.parts[0])
        filled = np.full((self.n_records, len(self.models)), np.nan, dtype=np.float32)
        for at, part in enumerate(self.parts):
            values = values_of(part)
            if values is None:
                continue
            start, end = int(self.offsets[at]), int(self.offsets[at + 1])
            usable = self.usable[start:end]
            cells = np.ix_(self.record[start:end][usable], self.columns[at])
            filled[cells] = np.where(np.isnan(values[usable]), filled[cells], values[usable])
        return filled


def _dataset_codes(datasets: pa.Array) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Sorted names, and the number of each record's dataset among them."""
    codes, found = encode(datasets)
    names = found.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return tuple(names[i] for i in order), rank[codes]


def _source_rows(parts: Sequence[Part], first: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Position of each record before anything was skipped, and how many there were."""
    import pyarrow as pa

    if all(part.layout == "wide" for part in parts):
        starts = np.concatenate([[0], np.cumsum([p.n_positions for p in parts])])
        rows = [start + p.all_positions[p.kept] for start, p in zip(starts, parts, strict=False)]
        return np.concatenate(rows)[first], int(starts[-1])
    if len(parts) == 1:
        return parts[0].kept[first], parts[0].n_positions
    keys = key_codes(
        pa.concat_arrays([p.all_datasets for p in parts]),
        pa.concat_arrays([p.all_sample_ids for p in parts]),
    )
    whole = keys >= 0
    number = np.full(len(keys), -1, dtype=np.int64)
    firsts, number[whole] = distinct(keys[whole])
    starts = np.concatenate([[0], np.cumsum([len(p.all_datasets) for p in parts])])
    rows = [number[start + p.kept] for start, p in zip(starts, parts, strict=False)]
    return np.concatenate(rows)[first], len(firsts)


def _agree(what: str, values: Sequence[tuple[object, str]]) -> object:
    """Return the one value that the sidecars state; None if none does."""
    for value, path in values[1:]:
        before, before_path = values[0]
        if repr(value) != repr(before):
            raise ValueError(f"{what} is {value} in {path}, but {before} in {before_path}")
    return values[0][0] if values else None


def _params(parts: Sequence[Part], models: Sequence[str]) -> NDArray[np.float64]:
    params_b = np.full(len(models), np.nan)
    for i, model in enumerate(models):
        stated = [
            (p.sidecar.params_b[model], p.sidecar.path)
            for p in parts
            if model in p.sidecar.params_b
        ]
        value = _agree(f"number of parameters (billions) of model {model!r}", stated)
        if isinstance(value, float):
            params_b[i] = value
    return params_b


def _prices(parts: Sequence[Part], models: Sequence[str]) -> NDArray[np.float64]:
    prices = np.full((len(models), 2), np.nan)
    for i, model in enumerate(models):
        stated = [
            (p.sidecar.prices[model], p.sidecar.path) for p in parts if model in p.sidecar.prices
        ]
        value = _agree(f"price (US$ per million tokens in, out) of model {model!r}", stated)
        if isinstance(value, tuple):
            prices[i] = value
    return prices


def _of_datasets(
    parts: Sequence[Part], names: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Metric of every dataset ("" = not stated), and the thresholds that sidecars state."""
    import pyarrow as pa

    held = [set(p.all_datasets.take(pa.array(p.kept)).unique().to_pylist()) for p in parts]
    metrics, thresholds = [], {}
    for name in names:
        sidecars = [p.sidecar for p, datasets in zip(parts, held, strict=True) if name in datasets]
        stated = [(s.metrics.get(name, s.metric), s.path) for s in sidecars]
        metric = _agree(f"metric of dataset {name!r}", [s for s in stated if s[0]])
        metrics.append(metric if isinstance(metric, str) else "")
        found = [(s.thresholds[name], s.path) for s in sidecars if name in s.thresholds]
        threshold = _agree(f"threshold of dataset {name!r}", found)
        if isinstance(threshold, float):
            thresholds[name] = threshold
    return tuple(metrics), thresholds


def _thresholds(
    scores: NDArray[np.float32],
    codes: NDArray[np.int32],
    names: Sequence[str],
    stated: Mapping[str, float],
    given: Mapping[str, float | None] | None,
) -> NDArray[np.float64]:
    """Given before "*" before a sidecar's before 0.5 for scores in [0, 1] before none."""
    given = dict(given or {})
    for name, value in given.items():
        if name != "*" and name not in names:
            raise ValueError(
                f"thresholds (--correct-above) names the dataset {name!r}; there are {list(names)}"
            )
        if value is not None and not np.isfinite(value):
            raise ValueError(f"threshold of dataset {name!r} is {value}, expected a finite number")
    thresholds = default_thresholds(scores, codes, len(names))
    for i, name in enumerate(names):
        value = given.get(name, given.get("*", stated.get(name, thresholds[i])))
        thresholds[i] = np.nan if value is None else value
    return thresholds


def _strings(values: pa.Array) -> list[str]:
    # Four times as fast as to_pylist.
    strings: list[str] = values.to_numpy(zero_copy_only=False).tolist()
    return strings
