"""Panels of options of ``benchrouter route``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchrouter.cli import options
from benchrouter.prompts import ENCODED_BATCH, GIVEN_BATCH, PART_SIZE

if TYPE_CHECKING:
    from benchrouter.decisions.written import Reading


@dataclass(frozen=True)
class ReadingOptions:
    """How prompts are read."""

    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Prompts in memory at a time; {GIVEN_BATCH} with --embeddings, else "
            f"{ENCODED_BATCH}.",
        ),
    ] = None
    prompt_column: options.PromptColumn = "prompt"
    format: options.Format = None
    on_error: Annotated[
        str,
        typer.Option(
            help="What a bad record does: report (go on, write it to the side file, exit 4), skip "
            "(go on, list it, exit 0) or raise (stop)."
        ),
    ] = "report"

    def is_listed(self, target: str, rejected: str | Path | None) -> bool:
        """Whether bad records are reported one by one, for want of a place to write them to."""
        return self.on_error == "report" and target == "-" and rejected is None

    def reading(self, embeddings: Path | None, tokens_column: str | None) -> Reading:
        """The same as the library takes it."""
        from benchrouter.decisions.written import Reading

        return Reading(
            prompt_column=self.prompt_column,
            format=self.format,
            on_error="raise" if self.on_error == "raise" else "skip",
            embeddings=embeddings,
            tokens_column=tokens_column,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True)
class WritingOptions:
    """How decisions are written."""

    rejected: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Side file of bad records; OUTPUT.rejected.jsonl with --on-error report. A "
            "directory has a folder of its own for them.",
        ),
    ] = None
    keep_prompt: Annotated[
        bool, typer.Option("--prompt/--no-prompt", help="Write the prompts too.")
    ] = True
    prefix: Annotated[
        str,
        typer.Option(help="Put before model, score and the other results in the output."),
    ] = ""
    part_size: Annotated[
        int | None,
        typer.Option(min=1, help=f"Records of the input that a part covers; {PART_SIZE}."),
    ] = None
    output_format: Annotated[
        str | None, typer.Option(help="Parts: parquet (if not given) or jsonl.")
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the parts in the directory, after any kill."),
    ] = False


@dataclass(frozen=True)
class RayOptions:
    """Whether, and with how many actors, a cluster routes."""

    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Route on a Ray cluster (local: start one here; auto: join the one that runs). An "
            "actor has one GPU with --device cuda, and --threads CPUs (0: one).",
        ),
    ] = None
    ray_actors: Annotated[
        int | None,
        typer.Option(min=1, help="Actors on the cluster; as many as there is room for by default."),
    ] = None

    def check(self, prompts: str, target: str, device: str) -> None:
        """Refuse what does not go with a cluster, and actors without one."""
        from benchrouter.cli.route_ray import check_ray

        if self.ray is not None:
            check_ray(prompts, target, device)
        elif self.ray_actors is not None:
            raise typer.BadParameter("found no --ray ADDRESS", param_hint="--ray-actors")
