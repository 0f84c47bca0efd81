"""Ray Data: routing on many machines or GPUs, with a router in every actor.

`route_dataset` adds the columns of decisions to a dataset. `RouteBatch` runs in the actors, and can
be given to `Dataset.map_batches` directly. Ray feeds the actors no faster than they work, restarts
lost ones and repeats their batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.decisions.policy import Rule
from benchrouter.decisions.written import arrow_columns
from benchrouter.decisions.written.writers import CHANCE, RESULTS
from benchrouter.embeddings import Encoder
from benchrouter.router import Router
from benchrouter.scores.saved import read_description

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

BATCH = 1024


class RouteBatch:
    """Adds a decision to every row of a batch; made once in every actor of `map_batches`.

    It adds the columns model (string), score, margin, distance (float32), fallback (bool) and, by
    the rule "auto", chance (float32, NaN = not known) of `benchrouter.Decisions`; all other columns
    stay as they are. Batches are Arrow tables, which keep nulls and types, unlike dictionaries of
    NumPy arrays. An actor uses as many threads as it has CPUs, at least one.

    Parameters
    ----------
    directory : path
        A saved router; every machine reads it.
    rule : "auto", "mean", "raw" or "s3"
        As in `Router.route`.
    models : sequence of str, optional
        Models that may be chosen, as in `Router.route`.
    prompt_column : str
        Column of the prompts, strings.
    embeddings_column : str, optional
        Column of their embeddings: lists of float16 or float32, unit rows by the router's encoder.
        Prompts are then not read.
    encoder : str, optional
        Where the router's encoder is found, if not under its recorded name.
    device : str, optional
        Where the router encodes and decides. By default the first GPU that Ray gave the actor
        (``num_gpus``), or else the CPU. Without CUDA kernels (`benchrouter` was built without nvcc)
        only the encoder runs on a GPU.
    prefix : str
        Put before the names of the new columns.
    drop_columns : sequence of str
        Columns to leave out of the result.

    Raises
    ------
    ValueError
        If the directory is not a whole router, or the encoder, rule or a model is not the router's.

    Examples
    --------
    >>> import ray
    >>> dataset = ray.data.read_parquet("s3://prompts/")  # doctest: +SKIP
    >>> routed = dataset.map_batches(  # doctest: +SKIP
    ...     RouteBatch,
    ...     fn_constructor_kwargs={"directory": "router"},
    ...     batch_format="pyarrow",
    ...     batch_size=1024,
    ...     concurrency=4,
    ...     num_gpus=1,
    ... )
    >>> routed.write_parquet("s3://decisions/")  # doctest: +SKIP
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        rule: Rule = "auto",
        models: Sequence[str] | None = None,
        prompt_column: str = "prompt",
        embeddings_column: str | None = None,
        encoder: str | None = None,
        device: str | None = None,
        prefix: str = "",
        drop_columns: Sequence[str] = (),
    ) -> None:
        n_cpus, n_gpus = _given_resources()
        self.rule = rule
        self.models = models
        self.prompt_column = prompt_column
        self.embeddings_column = embeddings_column
        self.results = (*RESULTS, *CHANCE) if rule == "auto" else RESULTS
        self.names = [prefix + name for name in self.results]
        self.drop_columns = list(drop_columns)
        self.router = _load(
            directory,
            encoder=encoder,
            device=device or ("cuda:0" if n_gpus else "cpu"),
            threads=n_cpus,
            encodes=embeddings_column is None,
        )
        self.router.check_rule(rule, models=models)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Route one batch.

        Parameters
        ----------
        batch : pyarrow.Table

        Returns
        -------
        pyarrow.Table
            The same rows in the same order.

        Raises
        ------
        TypeError
            If the batch is not an Arrow table.
        ValueError
            If a prompt is null or empty (the message shows the row; remove such rows first, with
            `Dataset.filter`), embeddings are not unit rows of the router's length, a column is
            missing, or one has the name of a new column.
        """
        import pyarrow as pa

        if not isinstance(batch, pa.Table):
            raise TypeError(
                f"found a batch of type {type(batch).__name__}, expected a pyarrow.Table: "
                "map_batches(…, batch_format='pyarrow')"
            )
        taken = [name for name in self.names if name in batch.column_names]
        if taken:
            raise ValueError(
                f"found a column {taken[0]!r} already, which the decisions need: rename it, or "
                "give a prefix"
            )
        if self.embeddings_column is None:
            prompts = _prompts(batch, self.prompt_column)
            decisions = self.router.route(prompts, rule=self.rule, models=self.models)
        else:
            rows = _embeddings(batch, self.embeddings_column)
            decisions = self.router.route(embeddings=rows, rule=self.rule, models=self.models)
        values = [arrow_columns.of(decisions, name) for name in self.results[1:]]
        columns = (pa.array(decisions.names(), pa.string()), *map(pa.array, values))
        found = batch.drop_columns(self.drop_columns)
        for name, column in zip(self.names, columns, strict=True):
            found = found.append_column(name, column)
        return found


def route_dataset(
    dataset: Dataset,
    directory: str | Path,
    *,
    batch_size: int = BATCH,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **options: Any,
) -> Dataset:
    """Add decisions to a dataset, lazily.

    Parameters
    ----------
    dataset : ray.data.Dataset
    directory : path
        A saved router; every machine reads it.
    batch_size : int
        Prompts of a batch.
    concurrency : int or (int, int), optional
        Number of actors, or its least and most. By default Ray starts with one and adds more while
        they are behind and the cluster has room.
    num_cpus, num_gpus : float, optional
        Of an actor.
    **options
        Of `RouteBatch`: rule, models, prompt_column, embeddings_column, encoder, device, prefix,
        drop_columns.

    Returns
    -------
    ray.data.Dataset

    Examples
    --------
    >>> import ray
    >>> dataset = ray.data.read_parquet("s3://prompts/")  # doctest: +SKIP
    >>> routed = route_dataset(dataset, "router", num_gpus=1)  # doctest: +SKIP
    >>> routed.write_parquet("s3://decisions/")  # doctest: +SKIP
    """
    from ray.data import ActorPoolStrategy

    if concurrency is None:
        pool = ActorPoolStrategy(min_size=1)
    elif isinstance(concurrency, int):
        pool = ActorPoolStrategy(size=concurrency)
    else:
        pool = ActorPoolStrategy(min_size=concurrency[0], max_size=concurrency[1])
    return dataset.map_batches(
        RouteBatch,
        fn_constructor_kwargs={"directory": str(directory), **options},
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=pool,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


def _load(
    directory: str | Path, *, encoder: str | None, device: str, threads: int, encodes: bool
) -> Router:
    """Load a router, and its encoder if it `encodes`, so that a missing one is found at once.

    Without CUDA kernels only the encoder runs on a GPU.
    """
    loaded: Encoder | str | None = encoder
    if device != "cpu" and not _core.has_cuda:
        recorded = read_description(Path(directory))["encoder"]
        name = encoder or (recorded and recorded["name"])
        loaded = Encoder.load(name, device=device) if encodes and name else None
        device = "cpu"
    router = Router.load(directory, encoder=loaded, device=device, threads=threads)
    if encodes:
        _ = router.encoder
    return router


def _given_resources() -> tuple[int, int]:
    """CPUs (0 = all) and GPUs that Ray gave this process.

    Ray sets OMP_NUM_THREADS for its workers, which limits BLAS, faiss and torch as well.
    """
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().get_actor_id() is None:
        return 0, 0
    given = ray.get_runtime_context().get_assigned_resources()
    return max(1, int(given.get("CPU", 0.0))), math.ceil(given.get("GPU", 0.0))


def _column(batch: pa.Table, name: str) -> pa.Array:
    """A column as one array; an extension type (Ray's tensors) as its storage."""
    import pyarrow as pa

    if batch.column_names.count(name) != 1:
        raise ValueError(f"found columns {batch.column_names}, expected one {name!r}")
    column = batch.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no chunks
        column = pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def _prompts(batch: pa.Table, name: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(batch, name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"column {name!r} is {column.type}, expected string")
    empty = pc.equal(pc.utf8_trim_whitespace(column), "")
    bad = np.flatnonzero(pc.fill_null(empty, True).to_numpy(zero_copy_only=False))
    if len(bad):
        found = "an empty prompt" if column[bad[0]].is_valid else "null"
        raise ValueError(f"{_place(batch, bad[0], name)}: found {found}, expected text")
    prompts: list[str] = column.to_pylist()
    return prompts


def _embeddings(batch: pa.Table, name: str) -> NDArray[Any]:
    """Rows of a column of lists, shape (n, dim), of the column's dtype."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(batch, name)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise ValueError(f"column {name!r} is {column.type}, expected lists of float32 or float16")
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(lengths != lengths.max())
    if len(bad):
        found = "null" if lengths[bad[0]] < 0 else f"{lengths[bad[0]]} numbers"
        expected = f"expected {lengths.max()} as in other rows"
        raise ValueError(f"{_place(batch, bad[0], name)}: found {found}, {expected}")
    rows: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    return rows.reshape(len(column), -1)


def _place(batch: pa.Table, row: int, name: str) -> str:
    """Where a bad value is. Batches have no number, so the other columns are shown."""
    others = batch.drop_columns([name]).slice(row, 1).to_pylist()[0]
    return f"column {name!r}, row {row} of a batch of {len(batch)} (the row: {others!r:.200})"
