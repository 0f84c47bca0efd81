"""``benchrouter encode``: embeddings of prompts, to be used again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchrouter.cli import options, output
from benchrouter.cli.encoding import WINDOW, cache_folder, load_encoder


def encode(
    prompts: options.Prompts,
    target: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.npy", help="float32 rows, one a record."),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="minilm, a local folder, or a hub name; sentence-transformers/all-mpnet-base-v2 "
            "if not given."
        ),
    ] = None,
    cache: options.Cache = True,
    cache_dir: options.CacheDir = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "auto",
    prompt_column: options.PromptColumn = "prompt",
    format: options.Format = None,
    as_json: options.Json = False,
) -> None:
    """Encode prompts to a file for --embeddings; FILE.npy.json beside it names the encoder.

    PROMPTS may be a benchmark table too: every record needs a prompt.
    """
    options.check_dtype(dtype)
    options.check_format(format)
    if target.suffix != ".npy":
        raise typer.BadParameter(f"found {target}, expected FILE.npy", param_hint="--output")
    import numpy as np

    from benchrouter.embeddings import save_embeddings
    from benchrouter.files.os_errors import naming
    from benchrouter.prompts.batches import read_prompts

    batches = read_prompts(prompts, prompt_column=prompt_column, format=format)
    loaded = load_encoder(
        encoder, device=device, dtype=dtype, cache_dir=cache_folder(cache, cache_dir)
    )

    def texts() -> Iterator[str]:
        for batch in batches:
            yield from batch.prompts

    # Rows go to a plain file first, because .npy states their number at its start.
    beside = target.with_name(f".{target.name}.{os.getpid()}.rows")
    try:
        with output.Progress("encode", "prompts") as advance:
            with naming(target):
                file = open(beside, "wb")  # noqa: SIM115  closed below
            with file:
                for block in loaded.encode_stream(texts(), window=WINDOW):
                    with naming(target):
                        file.write(np.ascontiguousarray(block, np.float32).data)
                        file.flush()
                    advance(len(block))
            n, seconds = advance.done, advance.seconds
        if n == 0:
            raise ValueError(f"{prompts}: found no prompt, expected at least one")
        rows = np.memmap(beside, np.float32, "r", shape=(n, loaded.dim))
        save_embeddings(target, rows, loaded.fingerprint)
    finally:
        beside.unlink(missing_ok=True)
    document = {
        "output": str(target),
        "prompts": n,
        "dim": loaded.dim,
        "seconds": seconds,
        "encoder": loaded.fingerprint.to_dict(),
    }
    if as_json:
        output.emit(document)
    else:
        output.say(f"encoded {n:,} prompts in {seconds:.1f} s, {n / seconds:,.0f} a second")
