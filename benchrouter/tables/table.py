"""BenchmarkTable: what every model scored on every record of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchrouter.tables.origin import Origin

# Trimmed before a prompt counts as empty; the same set as in sources/columns.py.
BLANK = " \t\n\r\x0b\x0c"
# Metrics in [0, 1]; METHOD: correctness is score > 0.5 (arXiv 2309.15789, sec. 5).
UNIT_THRESHOLD = 0.5
# A table's origin is no part of what it says.
NOT_COMPARED = ("source_rows", "n_source_rows", "skipped", "origin")


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkTable:
    """Scores of models on records, with what is known of both.

    Attributes
    ----------
    scores : float32 array, shape (n_records, n_models)
        The datasets' own metrics; NaN = not run. Never infinite.
    dataset : int32 array, shape (n_records,)
        Number of each record's dataset.
    datasets : tuple of str
        Names, sorted; each has at least one record.
    models : tuple of str
        Names, distinct; ties are decided by their order.
    sample_ids : list of str, length n_records
        Names of the records within their datasets.
    prompts : list of str, length n_records
        None of them blank.
    source_rows : int64 array, shape (n_records,)
        Place of each record among all records read, before any selection or skipping.
        Wide files: the row among the rows of all files in turn, the first where several files
        share a record. If any file is long: the number of the record among the distinct
        (dataset, sample_id), in order of first appearance.
    n_source_rows : int
        How many such places there are.
    cost_usd : float32 array, shape (n_records, n_models), or None
        US$ of each answer; NaN = unknown.
    log_likelihood : float32 array, shape (n_records, n_models), or None
        Mean log-likelihood of each model's own answer; NaN = unknown.
    params_b : float64 array, shape (n_models,)
        Billions of parameters; NaN = unknown.
    prices : float64 array, shape (n_models, 2)
        US$ per million tokens in and out; NaN = unknown.
    metrics : tuple of str
        Name of each dataset's metric; "" = not stated.
    thresholds : float64 array, shape (n_datasets,)
        A score strictly above it is correct; NaN = none is known.
    skipped : tuple of str
        What reading left out, with on_error="skip".
    origin : Origin or None
        What reading and merging met, for `report`; None if the table was not read.

    Raises
    ------
    TypeError
        If an array has another dtype.
    ValueError
        If shapes disagree, or a value is one that the table cannot hold.
    """

    scores: NDArray[np.float32]
    dataset: NDArray[np.int32]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    sample_ids: list[str]
    prompts: list[str]
    source_rows: NDArray[np.int64]
    n_source_rows: int
    cost_usd: NDArray[np.float32] | None = None
    log_likelihood: NDArray[np.float32] | None = None
    params_b: NDArray[np.float64]
    prices: NDArray[np.float64]
    metrics: tuple[str, ...]
    thresholds: NDArray[np.float64]
    skipped: tuple[str, ...] = ()
    origin: Origin | None = None

    def __post_init__(self) -> None:
        """Check the fields against each other and make the arrays read-only."""
        n, m, d = len(self.sample_ids), len(self.models), len(self.datasets)
        if n == 0 or m == 0:
            raise ValueError(f"a table needs a record and a model, found {n} and {m}")
        _check_array("scores", self.scores, np.float32, (n, m))
        _check_array("dataset", self.dataset, np.int32, (n,))
        _check_array("source_rows", self.source_rows, np.int64, (n,))
        _check_array("params_b", self.params_b, np.float64, (m,))
        _check_array("prices", self.prices, np.float64, (m, 2))
        _check_array("thresholds", self.thresholds, np.float64, (d,))
        for name in ("cost_usd", "log_likelihood"):
            if getattr(self, name) is not None:
                _check_array(name, getattr(self, name), np.float32, (n, m))
        for name, expected in (("prompts", n), ("metrics", d)):
            if len(getattr(self, name)) != expected:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} items, expected {expected}"
                )
        _check_names("models", self.models)
        _check_names("datasets", self.datasets)
        self._check_datasets()
        if self.source_rows.min() < 0 or self.source_rows.max() >= self.n_source_rows:
            raise ValueError(
                f"source_rows reach from {self.source_rows.min()} to {self.source_rows.max()}, "
                f"expected 0 to {self.n_source_rows - 1}"
            )
        blank = next((i for i, text in enumerate(self.prompts) if not text.strip(BLANK)), None)
        if blank is not None:
            raise ValueError(f"prompt of record {blank} is {self.prompts[blank]!r}, expected text")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                view = value.view()
                view.flags.writeable = False
                object.__setattr__(self, field.name, view)

    def _check_datasets(self) -> None:
        if list(self.datasets) != sorted(self.datasets):
            raise ValueError(f"datasets must be sorted by name, found {list(self.datasets)}")
        d = len(self.datasets)
        low, high = int(self.dataset.min()), int(self.dataset.max())
        if low < 0 or high >= d:
            raise ValueError(f"dataset has codes from {low} to {high}, expected 0 to {d - 1}")
        empty = np.flatnonzero(np.bincount(self.dataset, minlength=d) == 0)
        if len(empty):
            raise ValueError(f"dataset {self.datasets[empty[0]]!r} has no record")

    @property
    def n_records(self) -> int:
        """Number of records."""
        return len(self.sample_ids)

    @property
    def n_models(self) -> int:
        """Number of models."""
        return len(self.models)

    @property
    def n_datasets(self) -> int:
        """Number of datasets."""
        return len(self.datasets)

    def __eq__(self, other: object) -> bool:
        """Compare everything but source_rows, n_source_rows, skipped and origin; NaN is NaN."""
        if not isinstance(other, BenchmarkTable):
            return NotImplemented
        names = [field.name for field in fields(self) if field.name not in NOT_COMPARED]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]

    def correctness(self) -> NDArray[np.float32]:
        """Return whether each score lies strictly above its dataset's threshold.

        Returns
        -------
        float32 array, shape (n_records, n_models)
            1 = correct, 0 = not, NaN = missing. METHOD, "correctness".

        Raises
        ------
        ValueError
            If a dataset has no threshold.
        """
        unknown = [self.datasets[i] for i in np.flatnonzero(np.isnan(self.thresholds))]
        if unknown:
            raise ValueError(
                f"datasets {unknown} have scores outside [0, 1] and no threshold: give one per "
                'dataset, --correct-above DATASET=VALUE (in Python thresholds={"name": 0.5})'
            )
        # Rounded as the scores are, so that a recorded 0.3 is not above 0.3.
        thresholds = self.thresholds.astype(np.float32)
        correct = (self.scores > thresholds[self.dataset][:, None]).astype(np.float32)
        correct[np.isnan(self.scores)] = np.nan
        return correct

    def select(
        self,
        *,
        models: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        max_params: float | None = None,
        min_records: int | None = None,
        complete: bool = False,
    ) -> BenchmarkTable:
        """Select models, then records, then datasets that have enough of them.

        Parameters
        ----------
        models : sequence of str
            Only these, in this order.
        datasets : sequence of str
            Only these.
        max_params : float
            Only models known to have at most so many billions of parameters.
        min_records : int
            Only datasets with at least so many of the records selected.
        complete : bool
            Only records with a score of every model selected.

        Returns
        -------
        BenchmarkTable
            With the same ``n_source_rows``.

        Raises
        ------
        ValueError
            If a name is unknown, or nothing is left.
        """
        table = self._with_models(names_given("models", models), max_params)
        keep = np.ones(self.n_records, dtype=bool)
        named = names_given("datasets", datasets)
        if named is not None:
            _check_known("datasets", named, self.datasets)
            keep &= np.isin(self.dataset, [self.datasets.index(name) for name in named])
        if complete:
            keep &= ~np.isnan(table.scores).any(axis=1)
        if min_records is not None:
            counts = np.bincount(table.dataset[keep], minlength=self.n_datasets)
            keep &= counts[table.dataset] >= min_records
        if not keep.any():
            raise ValueError(
                f"no record of {self.n_records} is left: datasets={named}, "
                f"complete={complete}, min_records={min_records}, {table.n_models} models"
            )
        return table if keep.all() else table.rows(keep)

    def _with_models(
        self, models: Sequence[str] | None, max_params: float | None
    ) -> BenchmarkTable:
        chosen = list(range(self.n_models))
        if models is not None:
            _check_known("models", models, self.models)
            chosen = [self.models.index(name) for name in models]
        if max_params is not None:
            # Unknown is NaN, and no NaN is at most anything.
            small = [i for i in chosen if self.params_b[i] <= max_params]
            if not small:
                raise ValueError(
                    f"no model of {len(chosen)} is known to have at most {max_params} billion "
                    f"parameters; known: {self._known_params(chosen)}"
                )
            chosen = small
        if chosen == list(range(self.n_models)):
            return self

        def columns(matrix: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
            return None if matrix is None else np.ascontiguousarray(matrix[:, chosen])

        return replace(
            self,
            scores=np.ascontiguousarray(self.scores[:, chosen]),
            models=tuple(self.models[i] for i in chosen),
            cost_usd=columns(self.cost_usd),
            log_likelihood=columns(self.log_likelihood),
            params_b=self.params_b[chosen],
            prices=self.prices[chosen],
        )

    def _known_params(self, chosen: Sequence[int]) -> str:
        known = [f"{self.models[i]} {self.params_b[i]:g}" for i in chosen if self.params_b[i] >= 0]
        return ", ".join(known) or "none; model_params_billion of a sidecar would tell"

    def rows(self, records: NDArray[Any] | Sequence[int]) -> BenchmarkTable:
        """Return some of the records; datasets without any are dropped.

        Parameters
        ----------
        records : bool array, shape (n_records,), or integers
            A mask, or record numbers in [0, n_records), in the order wanted.

        Returns
        -------
        BenchmarkTable
            With the same ``n_source_rows``.

        Raises
        ------
        TypeError
            If `records` holds neither booleans nor integers.
        ValueError
            If a mask has another length, a number is out of range, or nothing is left.
        """
        ids = np.asarray(records)
        if ids.dtype == bool:
            if ids.shape != (self.n_records,):
                raise ValueError(f"mask has shape {ids.shape}, table has {self.n_records} records")
            ids = np.flatnonzero(ids)
        if ids.size == 0:
            raise ValueError(f"found no record to keep of {self.n_records}")
        if not np.issubdtype(ids.dtype, np.integer) or ids.ndim != 1:
            raise TypeError(f"records must be booleans or integers in one row, got {ids!r}")
        if ids.min() < 0 or ids.max() >= self.n_records:
            raise ValueError(
                f"records reach from {ids.min()} to {ids.max()}, expected 0 to {self.n_records - 1}"
            )
        codes = self.dataset[ids]
        kept = np.unique(codes)
        numbers = ids.tolist()
        return replace(
            self,
            scores=self.scores[ids],
            dataset=np.searchsorted(kept, codes).astype(np.int32),
            datasets=tuple(self.datasets[i] for i in kept),
            sample_ids=[self.sample_ids[i] for i in numbers],
            prompts=[self.prompts[i] for i in numbers],
            source_rows=self.source_rows[ids],
            cost_usd=None if self.cost_usd is None else self.cost_usd[ids],
            log_likelihood=None if self.log_likelihood is None else self.log_likelihood[ids],
            metrics=tuple(self.metrics[i] for i in kept),
            thresholds=self.thresholds[kept],
        )

    def aligned(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of an embedding file that belong to this table's records.

        Parameters
        ----------
        embeddings : array, shape (n_source_rows, dim) or (n_records, dim)
            One row per record read (see ``source_rows``), or per record of this table; if both
            are as many, the former.

        Returns
        -------
        array, shape (n_records, dim)
            Of the same dtype.

        Raises
        ------
        TypeError
            If they are no array.
        ValueError
            If there are more or fewer rows.
        """
        if not isinstance(embeddings, np.ndarray):
            raise TypeError(f"embeddings must be an array, got {type(embeddings).__name__}")
        n = len(embeddings)
        if n == self.n_records and np.array_equal(self.source_rows, np.arange(n)):
            return embeddings  # not copied: it may be large, and memory-mapped
        if n == self.n_source_rows:
            return np.asarray(embeddings[self.source_rows])
        if n == self.n_records:
            return embeddings
        raise ValueError(
            f"embeddings have {n} rows, expected {self.n_source_rows} (one per row of the input) "
            f"or {self.n_records} (one per record of the table)"
        )

    def describe(self) -> dict[str, Any]:
        """Return counts and names, ready for JSON: what was read, and what is missing.

        Returns
        -------
        dict
            n_records, n_models, n_datasets, n_source_rows, n_skipped, skipped, missing (share of
            scores in [0, 1]), has_cost_usd, has_log_likelihood; ``models``: name, n_scores,
            mean_score, params_b, usd_per_million_tokens ([in, out]); ``datasets``:
            name, n_records, metric, threshold. Unknown is None.
        """
        present = ~np.isnan(self.scores)
        n_scores = present.sum(axis=0)
        totals = np.where(present, self.scores, 0).sum(axis=0, dtype=np.float64)
        counts = np.bincount(self.dataset, minlength=self.n_datasets)
        return {
            "n_records": self.n_records,
            "n_models": self.n_models,
            "n_datasets": self.n_datasets,
            "n_source_rows": self.n_source_rows,
            "n_skipped": len(self.skipped),
            "skipped": list(self.skipped),
            "missing": 1.0 - float(present.mean()),
            "has_cost_usd": self.cost_usd is not None,
            "has_log_likelihood": self.log_likelihood is not None,
            "models": [
                {
                    "name": name,
                    "n_scores": int(n_scores[i]),
                    "mean_score": float(totals[i] / n_scores[i]) if n_scores[i] else None,
                    "params_b": _known(self.params_b[i]),
                    "usd_per_million_tokens": [_known(price) for price in self.prices[i]],
                }
                for i, name in enumerate(self.models)
            ],
            "datasets": [
                {
                    "name": name,
                    "n_records": int(counts[i]),
                    "metric": self.metrics[i] or None,
                    "threshold": _known(self.thresholds[i]),
                }
                for i, name in enumerate(self.datasets)
            ],
        }


def default_thresholds(
    scores: NDArray[np.float32], dataset: NDArray[np.int32], n_datasets: int
) -> NDArray[np.float64]:
    """Return 0.5 for datasets whose scores all lie in [0, 1], NaN for the others.

    Parameters
    ----------
    scores : float32 array, shape (n_records, n_models)
        NaN = missing.
    dataset : int32 array, shape (n_records,)
        In [0, n_datasets).
    n_datasets : int

    Returns
    -------
    float64 array, shape (n_datasets,)
    """
    outside = ((scores < 0) | (scores > 1)).any(axis=1)
    thresholds = np.full(n_datasets, UNIT_THRESHOLD)
    thresholds[np.unique(dataset[outside])] = np.nan
    return thresholds


def _check_array(name: str, array: Any, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name} must be {np.dtype(dtype)}, got {found}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if np.issubdtype(array.dtype, np.floating) and np.isinf(array).any():
        at = tuple(int(i) for i in np.argwhere(np.isinf(array))[0])
        raise ValueError(f"{name}{list(at)} is {array[at]}, expected a finite number or NaN")


def _check_names(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what} must be names, found {name!r}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"{what} names {twice!r} more than once")


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"unknown {what} {unknown}; the table has {list(known)}")


def names_given(what: str, names: Iterable[str] | None) -> list[str] | None:
    """Return names as a list, None for None; refuse a text, no name, and one name twice."""
    if names is None:
        return None
    if isinstance(names, str):
        raise TypeError(f"{what} must be a sequence of names, got the text {names!r}")
    listed = list(names)
    if not listed:
        raise ValueError(f"{what} is empty, expected at least one name")
    _check_names(what, listed)
    return listed


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(type(a) is type(b) and a == b)
