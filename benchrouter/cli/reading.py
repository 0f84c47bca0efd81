"""How benchmark results are read: the options that commands which read them share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchrouter.cli import options

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE",
        help="Benchmark results: tables (.parquet, .csv, .jsonl; the latter two also .gz, .zst), "
        "or files and folders of another format, which is recognised.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Score to take, where a format has several."),
]

Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]METRIC,…",
        help="Further metrics of the same records, beside the score; missing where a source lacks "
        "them.",
    ),
]


def _shared(
    format: Annotated[
        str,
        typer.Option(
            help="auto, table, helm, lm-eval, every-eval-ever, mixinstruct or routerbench."
        ),
    ] = "auto",
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="embedllm, routellm: names of the columns in published tables. helm-paper: only "
            "HELM runs of the paper's 29 datasets and 18 models.",
        ),
    ] = None,
    columns: options.Columns = None,
    dataset_column: options.DatasetColumn = None,
    prompt_column: options.TablePromptColumn = None,
    layout: options.Layout = "auto",
    filter: Annotated[
        str | None, typer.Option(metavar="NAME", help="lm-eval: filter of the answers.")
    ] = None,
    prompt_from: Annotated[
        str | None,
        typer.Option(
            metavar="request|instance",
            help="HELM, lm-eval: the prompt is what was sent to the models, few-shot examples "
            "included, or the record's own text.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="HELM: only instances of this split.")
    ] = None,
    train_trials: Annotated[
        str, typer.Option(metavar="mean|first", help="HELM: of several choices of examples.")
    ] = "mean",
    perturbations: Annotated[
        str, typer.Option(metavar="original|all", help="HELM: perturbed instances out, or in.")
    ] = "original",
    shots: Annotated[
        int | None, typer.Option(min=0, help="lm-eval: only runs with so many few-shot examples.")
    ] = None,
    runs: Annotated[
        str,
        typer.Option(
            metavar="alike|latest",
            help="lm-eval: of several runs the latest, if they are alike, or in any case.",
        ),
    ] = "alike",
    groups: Annotated[
        bool, typer.Option("--groups", help="lm-eval: a group of tasks is one dataset.")
    ] = False,
    align: Annotated[
        str,
        typer.Option(
            metavar="sample_id|prompt",
            help="Rows of a dataset are one record by the same sample_id, or the same prompt.",
        ),
    ] = "sample_id",
    aliases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Names of models: lines of 'name = other name, another name'."
        ),
    ] = None,
    on_conflict: Annotated[
        str,
        typer.Option(
            metavar="error|first|mean", help="What becomes of values that sources state otherwise."
        ),
    ] = "error",
    on_error: options.OnError = "raise",
) -> None:
    """Hold the options; never called."""


def reads_results(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above in the place of its parameter `reading`.

    Parameters
    ----------
    command : callable
        Takes `reading`, a dict: keyword arguments of `read_table`.
    """
    own = inspect.signature(command, eval_str=True)
    shared = inspect.signature(_shared, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        parameters += shared.values() if name == "reading" else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        reading = {name: given.pop(name) for name in shared}
        command(**given, reading=_checked(reading))

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _checked(reading: dict[str, Any]) -> dict[str, Any]:
    from benchrouter.tables.read_options import ALLOWED, flag

    reading["prompt"] = reading.pop("prompt_from")
    for name, values in ALLOWED.items():
        if reading[name] is not None:
            options.one_of(reading[name], [one for one in values if one], flag(name))
    return {**reading, "columns": options.pairs(reading["columns"], "OURS=THEIRS") or None}
