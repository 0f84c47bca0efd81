"""Encoders and embeddings, as the commands need them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from benchrouter.cli import options
from benchrouter.cli.output import EncoderUnavailable, Progress, encoder_needed, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchrouter.embeddings import Encoder, Fingerprint
    from benchrouter.embeddings.stored_stream import EmbeddingFile
    from benchrouter.router import Router
    from benchrouter.tables.table import BenchmarkTable

WINDOW = 1024  # prompts between two updates of progress: some seconds on a CPU


@dataclass(frozen=True)
class EncodingOptions:
    """Embeddings of the prompts: given, or made by an encoder."""

    embeddings: options.Embeddings = None
    encoder: options.EncoderName = None
    cache: options.Cache = True
    cache_dir: options.CacheDir = None
    device: options.Device = "cpu"
    threads: options.Threads = 0


def load_encoder(
    name: str | None, *, device: str = "cpu", dtype: str = "auto", cache_dir: Path | None = None
) -> Encoder:
    """Load an encoder (None: the default one); `EncoderUnavailable` if it cannot run here."""
    with encoder_needed():
        from benchrouter.embeddings import DEFAULT_ENCODER, Encoder

        return Encoder.load(
            DEFAULT_ENCODER if name is None else name,
            device=device,
            dtype=dtype,
            cache_dir=cache_dir,
        )


def load_router(
    directory: Path,
    asked: EncodingOptions,
    embeddings: EmbeddingFile | None = None,
    *,
    fallback: str | None = None,
    route_on: str = "cpu",
) -> Router:
    """Load a router with its encoder, or check embeddings of a file against that encoder.

    The encoder runs on `asked.device`; prompts are routed on `route_on`, see `routing_device`.

    Raises
    ------
    EncoderUnavailable
        If the encoder cannot run here, or none is known.
    ValueError
        If the encoder, or that of the embeddings, is not the router's own, or `fallback` is not one
        of the router's models.
    """
    from benchrouter.router import Router
    from benchrouter.scores.saved import read_description

    if embeddings is not None and asked.encoder is not None:
        raise typer.BadParameter("the prompts have --embeddings: no encoder is needed")
    description = read_description(directory)
    if embeddings is not None:
        expected = description["dim"]
        if embeddings.dim != expected:
            raise ValueError(
                f"{embeddings.path}: embeddings have dim {embeddings.dim}, those of the router "
                f"have dim {expected}"
            )
        router = Router.load(directory, device=route_on, threads=asked.threads, fallback=fallback)
        if embeddings.fingerprint is not None:
            router.check_encoder(embeddings.fingerprint)
        return router
    recorded = description["encoder"]
    if asked.encoder is None and recorded is None:
        raise EncoderUnavailable(
            f"{directory} was fitted on given embeddings and records no encoder: give "
            "--embeddings, or --encoder"
        )
    loaded = load_encoder(
        recorded["name"] if asked.encoder is None else asked.encoder,
        device=asked.device,
        cache_dir=cache_folder(asked.cache, asked.cache_dir),
    )
    return Router.load(
        directory, encoder=loaded, device=route_on, threads=asked.threads, fallback=fallback
    )


def routing_device(device: str) -> str:
    """Device that routes: the encoder's, or the CPU with a note.

    Raises
    ------
    EncoderUnavailable
        If this machine has no such device.
    """
    if device == "cpu":
        return device
    from benchrouter import _core
    from benchrouter.embeddings.devices import check_device

    with encoder_needed():
        device = check_device(device)
    note_missing_kernels(device)
    return device if _core.has_cuda else "cpu"


def note_missing_kernels(device: str) -> None:
    """Say that only the encoder runs on a GPU, if no kernels for the rest were built."""
    from benchrouter import _core

    if not _core.has_cuda:
        say(
            f"note: only the encoder runs on {device}: benchrouter was built without CUDA kernels "
            "(no nvcc), so neighbours are searched and vote on the CPU"
        )


def cache_folder(wanted: bool, given: Path | None) -> Path | None:
    """Folder of the options --cache and --cache-dir; None = no cache.

    Raises
    ------
    ValueError
        If the given folder cannot be made or written. With the default folder the cache only warns,
        and is not used.
    """
    from benchrouter.embeddings import default_cache_dir

    if not wanted:
        return None
    if given is None:
        return default_cache_dir()
    try:
        given.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=given):
            pass
    except OSError as e:
        raise ValueError(f"--cache-dir {given}: cannot be written ({e.strerror})") from e
    return given


def encode_all(encoder: Encoder, prompts: Sequence[str]) -> NDArray[np.float32]:
    """Encode prompts with progress; float32 (n, dim)."""
    import numpy as np

    rows = np.empty((len(prompts), encoder.dim), np.float32)
    with Progress("encode", "prompts", len(prompts)) as advance:
        for block in encoder.encode_stream(prompts, window=WINDOW):
            rows[advance.done : advance.done + len(block)] = block
            advance(len(block))
    return rows


def load_all_embeddings(paths: Sequence[Path]) -> tuple[NDArray[Any], Fingerprint | None]:
    """Embeddings of one or more files, one after the other, and their encoder if one is recorded.

    Raises
    ------
    ValueError
        If the files differ in dim, or two sidecars in the encoder.
    """
    import numpy as np

    from benchrouter.embeddings import load_embeddings

    blocks: list[NDArray[Any]] = []
    recorded: Fingerprint | None = None
    for path in paths:
        block, fingerprint = load_embeddings(path)
        if blocks and block.shape[1] != blocks[0].shape[1]:
            raise ValueError(
                f"{path}: embeddings have dim {block.shape[1]}, those before {blocks[0].shape[1]}"
            )
        if recorded is not None and fingerprint is not None:
            refuse_difference(recorded, fingerprint, path)
        blocks.append(block)
        recorded = recorded or fingerprint
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks), recorded


def check_one_each(files: list[Path] | None, tables: list[Path] | None, of: str) -> None:
    """Refuse embeddings that do not come in one file for each table."""
    n_tables = len(tables or [])
    if files and len(files) != n_tables:
        raise typer.BadParameter(
            f"found {len(files)} files for {n_tables} {of}, expected one each",
            param_hint="--embeddings",
        )


def check_length(paths: Sequence[Path], n: int, table: BenchmarkTable) -> None:
    """Refuse more or fewer embeddings than records; the message names the files."""
    if n in (table.n_source_rows, table.n_records):
        return
    expected = f"{table.n_source_rows:,}, one a record of the input"
    if table.n_records != table.n_source_rows:
        expected += f", or {table.n_records:,}, one a record that was kept"
    raise ValueError(f"{', '.join(map(str, paths))}: found {n:,} embeddings, expected {expected}")


def refuse_difference(expected: Fingerprint, found: Fingerprint, path: Path) -> None:
    """Raise ValueError if two encoders differ."""
    differences = expected.difference(found)
    if differences:
        raise ValueError(f"{path}: embeddings of another encoder: {'; '.join(differences)}")
