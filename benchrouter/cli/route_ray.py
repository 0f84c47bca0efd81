"""``benchrouter route --ray``: the decisions come from the actors of a Ray cluster."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.cli.encoding import EncodingOptions, load_router, note_missing_kernels
from benchrouter.cli.output import EncoderUnavailable, say

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from benchrouter.decisions.answers import Decisions
    from benchrouter.decisions.policy import Policy
    from benchrouter.decisions.written import PromptSource, RouteJob
    from benchrouter.prompts.batches import PromptBatch

# Columns on the way to the actors
ROW = "__row"
PROMPT = "__prompt"
EMBEDDING = "__embedding"
LEAST_BLOCK_BYTES = 1 << 12


def check_ray(prompts: str, target: str, device: str) -> None:
    """Refuse options that do not go with a cluster, before anything is begun.

    Raises
    ------
    typer.BadParameter
        For standard input or output, and a device by number.
    ValueError
        If the prompts are in no regular file.
    ImportError
        If Ray Data is not installed.
    """
    if prompts == "-" or target == "-":
        raise typer.BadParameter("--ray reads and writes files, found -")
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(
            f"found {device!r}, expected cpu or cuda: Ray says which GPU", param_hint="--device"
        )
    if Path(prompts).exists() and not Path(prompts).is_file():
        raise ValueError(f"{prompts} is no regular file, expected one that --ray can read twice")
    try:
        import ray.data  # noqa: F401
    except ImportError as e:
        raise ImportError(f"--ray needs Ray Data, found {e}; pip install 'benchrouter[ray]'") from e


def decided_on_ray(
    address: str,
    directory: Path,
    job: RouteJob,
    *,
    policy: Policy,
    encoding: EncodingOptions,
    actors: int | None,
) -> Generator[tuple[PromptBatch, Decisions | None], None, None]:
    """Route prompts of a file on a cluster, whose machines see it under the same path.

    The file is read twice: a task there reads what the actors need, and its batches here say what
    is written. Decisions come back in the order of the file, each with its row.

    Yields
    ------
    (PromptBatch, Decisions or None)
        All batches in order; None for one without a prompt.

    Raises
    ------
    ValueError
        For bad input, as `route` without Ray raises it, or if a machine sees another file or
        another router.
    EncoderUnavailable
        If the encoder cannot run here, or a cluster that is started here has no GPU for it.
    """
    from benchrouter.decisions.written.manifest import mark_of
    from benchrouter.integrations.ray import route_dataset

    # Errors of the router and of the first prompts are raised here, as without Ray.
    source, embeddings, threads = job.source, encoding.embeddings, encoding.threads
    here = replace(encoding, device="cpu", threads=1)
    router = load_router(directory, here, source.embeddings)
    router.check_rule(policy=policy)
    prompts = source.prompts
    batches = prompts.batches(job.first_row, job.part_size)
    first = next(batches, None)
    if first is None:
        return
    path = Path(prompts.path).resolve()
    with _cluster(address, encoding.device, threads, _block_bytes(first, source)) as ray:
        read = ray.data.from_items([{"path": str(path)}]).map_batches(
            read_tables,
            fn_kwargs={
                "reading": {
                    "prompt_column": prompts.prompt_column,
                    "batch": prompts.batch,
                    "on_error": "skip",  # the batches here are those that raise
                    "format": prompts.format,
                    "first_row": job.first_row,
                    "part_size": job.part_size,
                },
                "embeddings": None if embeddings is None else str(embeddings.resolve()),
                "fingerprint": mark_of(path, prompts.opened)["fingerprint"],
            },
            batch_format="pyarrow",
            num_cpus=0,  # the actors may take every CPU; this task mostly waits for them
        )
        routed = route_dataset(
            read,
            directory.resolve(),
            rule=policy.rule,
            models=policy.models,
            prompt_column=PROMPT,
            embeddings_column=None if embeddings is None else EMBEDDING,
            encoder=_absolute(encoding.encoder),
            drop_columns=[PROMPT if embeddings is None else EMBEDDING],
            batch_size=prompts.batch,
            concurrency=actors,
            num_cpus=threads or 1,
            num_gpus=1 if encoding.device == "cuda" else None,
        )
        tables = iter(routed.iter_batches(batch_size=None, batch_format="pyarrow"))
        yield from paired(chain([first], batches), tables, router.models)


def read_tables(
    paths: pa.Table, *, reading: dict[str, Any], embeddings: str | None, fingerprint: str
) -> Iterator[pa.Table]:
    """Read files of prompts as Arrow tables.

    Yields
    ------
    pyarrow.Table
        The row of every prompt, and the prompt or its embedding.

    Raises
    ------
    ValueError
        If this machine sees another file than the one of this fingerprint; for bad input.
    """
    from benchrouter.decisions.written.manifest import mark_of
    from benchrouter.embeddings.stored_stream import EmbeddingFile, with_embeddings
    from benchrouter.prompts.batches import read_prompts

    for path in paths["path"].to_pylist():
        if mark_of(path)["fingerprint"] != fingerprint:
            raise ValueError(f"{path}: found another file there than where the command runs")
        batches = read_prompts(path, **reading)
        with nullcontext() if embeddings is None else EmbeddingFile(embeddings) as file:
            for batch, rows in with_embeddings(batches, file, first_row=reading["first_row"]):
                if batch.prompts:
                    yield _table(batch, rows)


def paired(
    batches: Iterator[PromptBatch], tables: Iterator[pa.Table], models: tuple[str, ...]
) -> Iterator[tuple[PromptBatch, Decisions | None]]:
    """Pair batches of prompts with decisions in the same order, whose tables end anywhere.

    Raises
    ------
    ValueError
        If the decisions are not those of these prompts, each once, or not between these models.
    """
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for batch in batches:
        n = len(batch.prompts)
        if n == 0:
            yield batch, None
            continue
        while sum(map(len, waiting)) < n:
            table = next(tables, None)
            if table is None:
                raise ValueError(
                    f"found no decision for input record {batch.rows[sum(map(len, waiting))]}, "
                    "expected one for every prompt"
                )
            if len(table):
                waiting.append(table)
        found = pa.concat_tables(waiting)
        waiting = [found.slice(n)]
        yield batch, _decisions(found.slice(0, n), batch.rows, models)
    more = sum(map(len, waiting)) + sum(map(len, tables))
    if more:
        raise ValueError(f"found {more} decisions behind the last prompt, expected none")


def _decisions(found: pa.Table, rows: NDArray[Any], models: tuple[str, ...]) -> Decisions:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from benchrouter.decisions.answers import Decisions
    from benchrouter.decisions.written.writers import CHANCE, RESULTS

    others = np.flatnonzero(found[ROW].to_numpy() != rows)
    if len(others):
        i = others[0]
        raise ValueError(f"found a decision for input record {found[ROW][i]}, expected {rows[i]}")
    model = pc.index_in(found["model"], pa.array(models, pa.string()))
    if model.null_count:
        unknown = found.filter(pc.is_null(model))["model"][0].as_py()
        raise ValueError(f"found model {unknown!r}, which the router here has not")
    names = [name for name in (*RESULTS[1:], *CHANCE) if name in found.column_names]
    return Decisions(models, model.to_numpy(), **{name: found[name].to_numpy() for name in names})


def _table(batch: PromptBatch, rows: NDArray[Any] | None) -> pa.Table:
    import pyarrow as pa

    if rows is None:
        return pa.table({ROW: batch.rows, PROMPT: pa.array(batch.prompts, pa.string())})
    lists = pa.FixedSizeListArray.from_arrays(rows.reshape(-1), rows.shape[1])
    return pa.table({ROW: batch.rows, EMBEDDING: lists})


def _block_bytes(batch: PromptBatch, source: PromptSource) -> int:
    """Size of a batch on its way: blocks no larger than that keep all actors busy to the end."""
    import numpy as np

    given = source.embeddings
    rows = None if given is None else np.empty((len(batch), given.dim), given.dtype)
    return max(LEAST_BLOCK_BYTES, _table(batch, rows).nbytes)


@contextmanager
def _cluster(address: str, device: str, threads: int, block_bytes: int) -> Iterator[Any]:
    """Connect to a cluster, or start one for the block; yields the module of Ray."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are told once, in one line
    with redirect_stdout(sys.stderr):  # where Ray repeats what its processes say
        ray.init(address=address, include_dashboard=False, logging_level=logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.target_max_block_size = block_bytes
        context.enable_progress_bars = False  # the command has its own
        try:
            there = ray.cluster_resources()
            say(f"Ray: {there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs")
            _check_cpus(address, there.get("CPU", 0), threads)
            if device == "cuda":
                _check_gpus(address, there.get("GPU", 0))
                note_missing_kernels("the actors' GPUs")
            yield ray
        except ray.exceptions.RayTaskError as e:
            raise ValueError(_reason_of(e)) from None
        except ray.exceptions.RayActorError as e:  # its text ends with what the actor raised
            words = _without_class(str(e).splitlines()[-1])
            raise ValueError(f"an actor could not start: {words}") from None
        finally:
            ray.shutdown()


def _reason_of(error: Any) -> str:
    """First error of a task or actor, which Ray tells only in the text of its own error."""
    raised, told, _ = str(error).partition("\nThe above exception was the direct cause")
    last = raised.strip().splitlines()[-1] if told else ""
    return _without_class(last) or str(error.cause).partition("\nFailed to ")[0]


def _without_class(line: str) -> str:
    """Drop the class before the words of a ValueError or of an error of our own."""
    return re.sub(r"^(ValueError|benchrouter\.[\w.]+): ", "", line)


def _check_cpus(address: str, n_cpus: float, threads: int) -> None:
    if threads <= n_cpus:
        return
    if address == "local":
        raise ValueError(
            f"--threads {threads}: an actor takes as many CPUs, and Ray finds {n_cpus:g} on this "
            "machine"
        )
    say(f"note: an actor takes {threads} CPUs, and waits until a machine of the cluster has them")


def _check_gpus(address: str, n_gpus: float) -> None:
    if n_gpus < 1 and address == "local":
        raise EncoderUnavailable("device 'cuda': Ray finds no GPU on this machine")
    if n_gpus < 1:
        say("note: the cluster has no GPU now, and --device cuda waits until it has one")


def _absolute(encoder: str | None) -> str | None:
    """Name of an encoder for other processes: a local folder by its absolute path."""
    return str(Path(encoder).resolve()) if encoder and Path(encoder).is_dir() else encoder
