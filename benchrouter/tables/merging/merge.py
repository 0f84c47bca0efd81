"""Parts of several sources as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.layouts.part import encode
from benchrouter.tables.merging.all_rows import AllRows
from benchrouter.tables.merging.same_record import (
    RecordNumbers,
    compare_prompts,
    find_records,
    names_of,
    source_rows,
)
from benchrouter.tables.merging.stated import of_datasets, of_models, thresholds_of
from benchrouter.tables.merging.values import Values
from benchrouter.tables.origin import Origin, SourceRead
from benchrouter.tables.table import BenchmarkTable

if TYPE_CHECKING:
    import pyarrow as pa


def merge(
    rows: AllRows,
    *,
    align: str,
    on_conflict: str,
    thresholds: Mapping[str, float | None] | None,
    notes: Sequence[str] = (),
) -> BenchmarkTable:
    """Merge parts into a table.

    Parameters
    ----------
    rows : AllRows
        Of at least one part.
    align, on_conflict : str
        See `read_table`.
    thresholds : dict of str to float, or None
        Per dataset, "*" = all others; before those of the sidecars.
    notes : sequence of str
        For the report.

    Returns
    -------
    BenchmarkTable
        RecordNumbers and models in the order of their first appearance.

    Raises
    ------
    ValueError
        If parts contradict each other: both values and both places.
    """
    import pyarrow as pa

    rows.end()
    if len(rows) == 0:
        raise _nothing_left(rows)
    said = list(notes)
    records = find_records(rows, align)
    said += compare_prompts(rows, records, on_conflict)
    models = list(dict.fromkeys(m for part in rows.parts for m in part.models))
    values = Values(rows, records, models, on_conflict)
    scores, cost_usd, log_likelihood = values.matrices().values()
    duplicates, conflicts = _counts(rows, values)
    kept = _with_usable_rows(rows, records)
    if len(kept) < len(records):
        records = replace(records, first=records.first[kept])
        scores, cost_usd, log_likelihood = (
            None if matrix is None else matrix[kept]
            for matrix in (scores, cost_usd, log_likelihood)
        )
    assert scores is not None  # every part has scores
    names, codes = _dataset_codes(rows.datasets.take(pa.array(records.first)))
    sample_ids, renamed = names_of(rows, records, align)
    places, n_places = source_rows(rows, records, align)
    params_b, prices = of_models(rows.parts, models, on_conflict, said)
    metrics, stated = of_datasets(rows.parts, on_conflict, said, (thresholds or {}).keys())
    return BenchmarkTable(
        scores=scores,
        dataset=codes,
        datasets=names,
        models=tuple(models),
        sample_ids=sample_ids,
        prompts=rows.prompts(records.first),
        source_rows=places,
        n_source_rows=n_places,
        cost_usd=cost_usd,
        log_likelihood=log_likelihood,
        params_b=params_b,
        prices=prices,
        metrics=tuple(metrics[name][0][0] if name in metrics else "" for name in names),
        thresholds=thresholds_of(scores, codes, names, stated, thresholds),
        skipped=tuple(rows.skipped),
        origin=Origin(
            sources=tuple(
                SourceRead(
                    name=part.name,
                    n_records=part.n_records,
                    models=tuple(dict.fromkeys(part.models)),
                    notes=part.notes,
                    format=part.format,
                    sidecar=part.sidecar.path,
                    passed_over=part.passed_over,
                    guessed=part.guessed,
                )
                for part in rows.parts
            ),
            duplicates=duplicates,
            conflicts=conflicts,
            metrics={name: tuple(found) for name, found in metrics.items() if len(found) > 1},
            notes=(*said, *renamed, *_settled(values)),
        ),
    )


def _nothing_left(rows: AllRows) -> ValueError:
    first = f"; the first skipped: {rows.skipped[0]}" if rows.skipped else ""
    return ValueError(f"no record is left of the input{first}")


def _with_usable_rows(rows: AllRows, records: RecordNumbers) -> NDArray[np.int64]:
    """Return the records of which not every row was left out."""
    usable = np.bincount(records.record[records.usable], minlength=len(records)) > 0
    if not usable.any():
        raise _nothing_left(rows)
    return np.flatnonzero(usable)


def _dataset_codes(datasets: pa.Array) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Sorted names, and the number of each record's dataset among them."""
    codes, found = encode(datasets)
    names = found.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return tuple(names[i] for i in order), rank[codes]


def _counts(
    rows: AllRows, values: Values
) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Scores that count once though they were met again, and those that differ."""
    dataset, names = encode(rows.datasets)
    dataset_of = dataset[values.records.first]

    def count(met: Sequence[NDArray[np.int64]]) -> Counter[tuple[str, str]]:
        if not met:
            return Counter()
        record, model = np.concatenate(met, axis=1)
        pairs, n = np.unique(dataset_of[record] * len(values.models) + model, return_counts=True)
        of = np.divmod(pairs, len(values.models))
        return Counter(
            {
                (names[d].as_py(), values.models[m]): times
                for d, m, times in zip(*(x.tolist() for x in of), n.tolist(), strict=True)
            }
        )

    duplicates = count(values.equal)
    for part in rows.parts:
        duplicates.update(part.duplicates)
    return duplicates, count(values.differing)


def _settled(values: Values) -> list[str]:
    """Notes about values that met."""
    notes = []
    n_equal = sum(met.shape[1] for met in values.equal)
    if n_equal:
        notes.append(f"scores read again with the same value, which count once: {n_equal:,}")
    ways = {"first": "the first is kept", "mean": "the mean is taken"}
    for what, n in values.n_differing.items():
        if n:
            notes.append(
                f"{what}: values that differ from an earlier one, of which "
                f"{ways[values.on_conflict]}: {n:,}"
            )
    return notes
