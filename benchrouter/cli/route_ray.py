"""``benchrouter route --ray``: prompts of one file, routed by the actors of a Ray cluster."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.batch import PART_SIZE
from benchrouter.cli.encoding import load_router
from benchrouter.cli.output import SHOWN_SKIPS, say

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from benchrouter.batch.prompts import PromptBatch

EMBEDDINGS = "__embeddings"  # column on the way to the actors
LEAST_BLOCK_BYTES = 1 << 12
READ = "_read.json"  # what the reader says of the file


def route_on_ray(
    address: str,
    directory: Path,
    prompts: str,
    target: str,
    *,
    actors: int | None,
    embeddings: Path | None,
    encoder: str | None,
    device: str,
    threads: int,
    batch: int,
    rule: str,
    prompt_column: str,
    format: str | None,
    on_error: str,
    keep_prompt: bool,
    prefix: str,
) -> dict[str, Any]:
    """Route a file to a directory of Parquet parts, in the order of the file.

    All machines of the cluster see the router, the prompts and the output under the same paths.
    One task reads the file as ``route`` does without Ray, the actors route, other tasks write. The
    directory appears under its name when it holds a decision for every prompt that was read.

    Returns
    -------
    dict
        What ``route --json`` prints.
    """
    if prompts == "-" or target == "-":
        raise typer.BadParameter("--ray reads and writes files, found -")
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(
            f"found {device!r}, expected cpu or cuda: Ray says which GPU", param_hint="--device"
        )
    out = Path(os.path.realpath(target))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"output {target}: found it there, expected no or an empty directory")
    if not out.parent.is_dir():
        raise ValueError(f"output {target}: there is no directory {out.parent}")
    ray = _import_ray()
    from benchrouter.batch.prompts import read_prompts
    from benchrouter.integrations.ray import route_dataset
    from benchrouter.replacing import replacing

    # What is wrong with the router or the first prompts is said here, as without Ray.
    load_router(directory, encoder=encoder, embeddings=embeddings, device="cpu", threads=1)
    first = next(
        read_prompts(
            prompts, prompt_column=prompt_column, batch=batch, on_error=on_error, format=format
        ),
        None,
    )
    block_bytes = _bytes_of(first, prompt_column, embeddings)
    start = time.perf_counter()
    with replacing(out) as beside, _cluster(ray, address, block_bytes):
        read = ray.data.from_items([{"path": str(Path(prompts).resolve())}]).map_batches(
            read_tables,
            fn_kwargs={
                "embeddings": None if embeddings is None else str(embeddings.resolve()),
                "prompt_column": prompt_column,
                "batch": batch,
                "format": format,
                "on_error": on_error,
                "report": str(beside / READ),
            },
            batch_format="pyarrow",
            num_cpus=0,  # the actors may take every CPU; this task mostly waits for them
        )
        unwanted = [] if embeddings is None else [EMBEDDINGS]
        routed = route_dataset(
            read,
            directory.resolve(),
            rule=rule,
            prompt_column=prompt_column,
            embeddings_column=None if embeddings is None else EMBEDDINGS,
            encoder=_absolute(encoder),
            prefix=prefix,
            drop_columns=unwanted if keep_prompt else [*unwanted, prompt_column],
            batch_size=batch,
            concurrency=actors,
            num_cpus=threads or 1,
            num_gpus=1 if device == "cuda" else None,
        )
        routed.write_parquet(
            str(beside), min_rows_per_file=PART_SIZE, ray_remote_args={"num_cpus": 0}
        )
        document = _finish(beside, prefix)
    seconds = time.perf_counter() - start
    n = document["prompts"]
    return {
        "output": target,
        "rule": rule,
        **document,
        "seconds": seconds,
        "prompts_per_second": n / seconds,
    }


def read_tables(
    paths: pa.Table,
    *,
    embeddings: str | None,
    prompt_column: str,
    batch: int,
    format: str | None,
    on_error: str,
    report: str,
) -> Iterator[pa.Table]:
    """Read files of prompts as Arrow tables; at the end, write what was read to `report`.

    Yields
    ------
    pyarrow.Table
        Fields of the input, the prompt, and its embedding where there are some.
    """
    from benchrouter.batch.embedding_file import with_embeddings
    from benchrouter.batch.prompts import read_prompts

    skipped: list[str] = []
    n_prompts = n_skipped = 0
    schema: pa.Schema | None = None
    for path in paths["path"].to_pylist():
        batches = read_prompts(
            path, prompt_column=prompt_column, batch=batch, on_error=on_error, format=format
        )
        pairs = with_embeddings(batches, embeddings)
        for found, rows in pairs:
            n_prompts += len(found.prompts)
            n_skipped += len(found.skipped)
            skipped.extend(found.skipped[: SHOWN_SKIPS - len(skipped)])
            if found.prompts:
                fields = _fields(found, schema)
                schema = fields.schema
                yield _table(fields, found.prompts, prompt_column, rows)
    said = {"prompts": n_prompts, "skipped": n_skipped, "first_skipped": skipped}
    Path(report).write_text(json.dumps(said))


def _table(
    fields: pa.Table, prompts: list[str], prompt_column: str, rows: NDArray[Any] | None
) -> pa.Table:
    import pyarrow as pa

    if prompt_column in fields.column_names:
        raise ValueError(f"found a field {prompt_column!r} beside the prompt of this name")
    columns = dict(zip(fields.column_names, fields.columns, strict=True))
    columns[prompt_column] = pa.array(prompts, pa.string())
    if rows is not None:
        columns[EMBEDDINGS] = pa.FixedSizeListArray.from_arrays(rows.reshape(-1), rows.shape[1])
    return pa.table(columns)


def _fields(batch: PromptBatch, schema: pa.Schema | None) -> pa.Table:
    """Fields beside the prompts, of the types of the first batch."""
    import pyarrow as pa

    if not isinstance(batch.fields, list):
        return pa.Table.from_batches([batch.fields])
    names = list(dict.fromkeys(name for fields in batch.fields for name in fields))
    end = batch.first_row + batch.n_source_rows - 1
    where = f"input records {batch.first_row} to {end}"
    if schema is not None:
        new = [name for name in names if name not in schema.names]
        if new:
            raise ValueError(f"{where}: found a field {new[0]!r} that the first records have not")
        names = schema.names
    columns = {}
    for name in names:
        kind = None if schema is None else schema.field(name).type
        values = [fields.get(name) for fields in batch.fields]
        try:
            columns[name] = pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as e:
            raise ValueError(f"{where}: field {name!r} does not keep one type ({e})") from e
    return pa.table(columns)


def _finish(folder: Path, prefix: str) -> dict[str, Any]:
    """Number the parts, and count what is in them against what was read."""
    import pyarrow.parquet as pq

    report = folder / READ
    if not report.exists():
        raise ValueError(
            f"found no report of the reader in {folder.parent}: the machines of the cluster must "
            "share this directory"
        )
    said = json.loads(report.read_text())
    report.unlink()
    models: Counter[str] = Counter()
    n_fallback = 0
    for number, part in enumerate(sorted(folder.glob("*.parquet"))):
        found = pq.read_table(part, columns=[f"{prefix}model", f"{prefix}fallback"])
        for counted in found[0].value_counts().to_pylist():
            models[counted["values"]] += counted["counts"]
        n_fallback += found[1].to_numpy().sum().item()
        part.rename(folder / f"part-{number:06}.parquet")
    n = sum(models.values())
    if n != said["prompts"]:
        raise ValueError(f"found {n:,} decisions for {said['prompts']:,} prompts; run it again")
    return {
        "prompts": n,
        "models": dict(models.most_common()),
        "fallbacks": n_fallback,
        "skipped": said["skipped"],
        "first_skipped": said["first_skipped"],
    }


def _bytes_of(batch: PromptBatch | None, prompt_column: str, embeddings: Path | None) -> int:
    """Size of a batch on its way: blocks no larger than that keep all actors busy to the end."""
    from benchrouter.encoder import load_embeddings

    if batch is None or not batch.prompts:
        return LEAST_BLOCK_BYTES
    rows = None if embeddings is None else load_embeddings(embeddings)[0][: len(batch.prompts)]
    found = _table(_fields(batch, None), batch.prompts, prompt_column, rows).nbytes
    return max(LEAST_BLOCK_BYTES, found)


@contextmanager
def _cluster(ray: Any, address: str, block_bytes: int) -> Iterator[None]:
    """Connect to a cluster, or start one for as long as this takes."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are told once, in one line
    ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.target_max_block_size = block_bytes
    context.enable_progress_bars = sys.stderr.isatty()
    there = ray.cluster_resources()
    say(f"Ray: {there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs")
    try:
        yield
    except ray.exceptions.RayTaskError as e:
        raise ValueError(str(e.cause).partition("\nFailed to ")[0]) from None
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as e:
        raise ImportError(f"--ray needs Ray Data, found {e}; pip install 'benchrouter[ray]'") from e
    return ray


def _absolute(encoder: str | None) -> str | None:
    """Name of an encoder for processes that run elsewhere: a local folder by its whole path."""
    return str(Path(encoder).resolve()) if encoder and Path(encoder).is_dir() else encoder
