"""A fitted benchmark that can be updated while it is used, with what decides by it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.backend import full_name
from benchrouter.decisions.decider import Decider
from benchrouter.embeddings import Encoder, Fingerprint
from benchrouter.embeddings.of_prompts import Embedder
from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.files.arrays import Rows
from benchrouter.scores import updates
from benchrouter.scores.fitted import Fit
from benchrouter.tables.table import BenchmarkTable


class Updatable:
    """What a router holds, and how it is updated: decisions take it as it is when they begin.

    Parameters
    ----------
    fitted : Fit
    encoder : Encoder or str, optional
        Loaded, or where it is found if not under its recorded name.
    device : str
        "cpu", "cuda" or "cuda:N".
    cache_dir : path, optional
        Where an encoder that is loaded here keeps embeddings.
    threads : int
        0 = all.
    """

    def __init__(
        self,
        fitted: Fit,
        *,
        encoder: Encoder | str | None = None,
        device: str = "cpu",
        cache_dir: str | Path | None = None,
        threads: int = 0,
    ) -> None:
        self._device = full_name(device)
        self._threads = threads
        self._updating = threading.Lock()
        self._loaded_fallback: str | None = None  # given to Router.load
        self._embedder = Embedder(
            encoder,
            fingerprint=fitted.fingerprint,
            dim=fitted.embeddings.shape[1],
            device=self._device,
            cache_dir=cache_dir,
        )
        # All that an update replaces, in one object: a reader takes it once.
        self._state = _State(Decider(fitted, device=self._device, threads=threads), 0)

    @property
    def decider(self) -> Decider:
        """What decides on embedded prompts, as the router is now; an update makes a new one."""
        return self._state.decider

    @property
    def _fit(self) -> Fit:
        return self._state.decider.fit

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the candidate models."""
        return self._fit.models

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the benchmark's datasets."""
        return self._fit.datasets

    @property
    def best_on_average(self) -> str:
        """The best model on average (BMA)."""
        return self.models[self._fit.best_on_average]

    @property
    def fallback(self) -> str:
        """The model answered where evidence is too thin."""
        return self.models[self._fit.fallback]

    @property
    def revision(self) -> int:
        """How often this object has been updated: 0 when it was made, one more at every update."""
        return self._state.revision

    @property
    def fingerprint(self) -> Fingerprint | None:
        """Of the encoder of the benchmark; None where embeddings were given without one."""
        return self._fit.fingerprint

    @property
    def identity(self) -> dict[str, Any] | None:
        """What a job recognises the router by; None unless it is as it was read from a directory.

        The hash of the directory, the fallback model if `Router.load` was given one, and the
        encoder if none is recorded.
        """
        if self._fit.sha256 is None:
            return None
        unrecorded = self._embedder.encoder_name if self.fingerprint is None else None
        return {
            "router": self._fit.sha256,
            "encoder": unrecorded,
            "fallback": self._loaded_fallback,
        }

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded at first need and checked against the router's fingerprint."""
        return self._embedder.encoder

    def check_encoder(self, fingerprint: Fingerprint) -> None:
        """Raise ValueError for another encoder than the benchmark's, naming every difference."""
        self._embedder.check(fingerprint)

    @property
    def table(self) -> BenchmarkTable:
        """The benchmark inside, as a table without log-likelihoods; built anew at each call."""
        return updates.table_of(self._fit)

    def add_records(
        self,
        table: BenchmarkTable,
        embeddings: NDArray[np.floating] | None = None,
        *,
        compact: bool = True,
    ) -> None:
        """Add benchmark records; those there are not encoded again.

        Parameters
        ----------
        table : BenchmarkTable
            Results of some of the router's models on new records; a dataset that the router has
            keeps its metric and threshold.
        embeddings : float16 or float32 array, shape (n_records, dim), optional
            Unit rows of the new records, by the router's encoder; encoded here where absent.
        compact : bool
            Whether to :meth:`compact` at once. Otherwise neighbours, votes, standings, costs and
            the best on average are at once those of all records, while p̂, the distances of
            datasets, the distance limit, what `auto` trusts and the weight of labels under "s3"
            stay those of the last compact. An approximate index is then kept, and the new records
            are searched exactly beside it.

        Notes
        -----
        Updates take turns; one that fails leaves the router as it was. Other threads go on with the
        router as it was until an update is done, and then have all of it. A compact router equals
        a fresh fit on :attr:`table` to the last bit (but for a graph of faiss, which its threads
        build in any order). Meanwhile the embeddings are held up to three times.
        """

        def embed() -> Rows:
            if embeddings is None:
                return self.encoder.encode(table.prompts)
            return as_unit_rows(table.aligned(embeddings), "embeddings")

        self._update(updates.add_records, table, embed, compact=compact)

    def add_model(self, name: str, results: BenchmarkTable | NDArray[np.floating]) -> None:
        """Add a model with its scores on the router's records.

        Parameters
        ----------
        name : str
        results : BenchmarkTable or float array, shape (n_records,)
            A table with a column of that name, whose (dataset, sample_id) are some of the router's,
            in any order; its costs, parameters and prices of the model are taken too. Or scores in
            the order of :attr:`table`. NaN, and a record that is not there = not run.
        """
        self._update(updates.add_model, name, results)

    def remove(
        self,
        *,
        records: Iterable[tuple[str, str]] = (),
        models: Sequence[str] = (),
        datasets: Sequence[str] = (),
    ) -> None:
        """Remove records, as (dataset, sample_id), models and whole datasets.

        A model that is the fallback that was asked for cannot go.
        """
        self._update(updates.remove, records=records, models=models, datasets=datasets)

    def compact(self) -> None:
        """Learn anew what holding out datasets teaches, after :meth:`add_records` without it.

        An approximate index is trained anew as well. Does nothing where nothing was added.
        """
        self._update(updates.compacted)

    def _update(self, change: Callable[..., Fit], *arguments: object, **options: object) -> None:
        """Take a changed fit in the place of the old one, in one step."""
        with self._updating:
            old, threads = self._fit, self._threads
            fitted = change(old, *arguments, **options, threads=threads)
            if fitted is not old:
                decider = Decider(fitted, device=self._device, threads=threads)
                self._state = _State(decider, self.revision + 1)


class _State(NamedTuple):
    decider: Decider
    revision: int
