"""Options that several commands share, alone and in panels."""

from __future__ import annotations

import csv
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_type_hints

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from benchrouter.decisions.policy import Rule
    from benchrouter.decisions.task import Score

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
RouterDir = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a fitted router.")]
Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="Prompts: .txt (one a line), .jsonl, .csv (these also .gz or .zst) or .parquet; - is "
        "stdin.",
    ),
]
PromptColumn = Annotated[str, typer.Option(help="Name of the field that holds the prompt.")]
CorrectAbove = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[DATASET=]VALUE",
        help="A score above VALUE is correct; for one dataset, or for all.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A,B", help="Only these models; a name that holds a comma in double quotes."
    ),
]
ModelsAtHand = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="A,B",
        help="Choose among these models only; a name that holds a comma in double quotes.",
    ),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A,B", help="Only these datasets; a name that holds a comma in double quotes."
    ),
]
MaxParams = Annotated[
    float | None, typer.Option(help="Only models of at most so many billion parameters.")
]
MinRecords = Annotated[
    int | None, typer.Option(min=1, help="Only datasets of at least so many records.")
]
Complete = Annotated[
    bool, typer.Option("--complete", help="Only records with a score of every model.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="Names of columns: score=label,model=model_id."),
]
DatasetColumn = Annotated[str | None, typer.Option(help="Column that names the dataset.")]
TablePromptColumn = Annotated[str | None, typer.Option(help="Column that holds the prompt.")]
Layout = Annotated[str, typer.Option(help="auto, long or wide.")]
Format = Annotated[
    str | None,
    typer.Option(
        help="txt, jsonl, csv or parquet, where the suffix does not say. stdin that begins with "
        "{ is taken for jsonl, any other for txt."
    ),
]
OnError = Annotated[
    str, typer.Option(help="What a bad record does: raise (stop) or skip (leave out and list).")
]
Embeddings = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npy",
        help="Embeddings of the prompts, one row a record of the file, bad ones included; none is "
        "computed.",
    ),
]
EncoderName = Annotated[
    str | None,
    typer.Option(help="Encoder: minilm, a local folder, or a hub name."),
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep embeddings on disk for the next time.")
]
CacheDir = Annotated[
    Path | None, typer.Option(envvar="BENCHROUTER_CACHE", help="Where they are kept.")
]
Device = Annotated[
    str, typer.Option(help="Where the encoder runs, and prompts are routed: cpu, cuda, cuda:1 …")
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Arithmetic of the encoder: float32, bfloat16, float16, int8 (on a CPU with VNNI: "
        "faster, less exact), or auto: bfloat16 where the device multiplies it."
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        help="Threads of ranking and voting, 0 = all (BLAS, faiss and torch have their own: "
        "OMP_NUM_THREADS).",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn.")]


def panelled(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of its panels as options.

    A panel is a parameter whose type is a dataclass of annotated fields. Those that the command
    lacks are named in the annotation, ``Annotated[Panel, "field", …]``, and are None.
    """
    own = inspect.signature(command, eval_str=True)
    panels: dict[str, tuple[type, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        panel, *lacking = get_args(parameter.annotation) or (parameter.annotation,)
        if not is_dataclass(panel):
            parameters.append(parameter)
            continue
        hints = get_type_hints(panel, include_extras=True)
        shown = [field for field in fields(panel) if field.name not in lacking]
        panels[name] = cast(type, panel), [field.name for field in fields(panel)]
        parameters += [
            inspect.Parameter(
                field.name, parameter.kind, default=field.default, annotation=hints[field.name]
            )
            for field in shown
        ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, (panel, names) in panels.items():
            given[name] = panel(**{field: given.pop(field, None) for field in names})
        command(**given)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def lacking(options: Mapping[str, str]) -> type[TyperCommand]:
    """Kind of command that says why it lacks some options, by the reason of each."""

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            for word in takewhile(lambda word: word != "--", args):
                option = word.partition("=")[0]
                if option in options:
                    raise typer.BadParameter(options[option], param_hint=option)
            return super().parse_args(ctx, args)

    return Command


@dataclass(frozen=True)
class RuleOptions:
    """How the model of a prompt is chosen."""

    rule: Annotated[
        str,
        typer.Option(help="auto (expected score, as held-out records taught), mean, raw or s3."),
    ] = "auto"
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            min=1,
            help="Neighbours that vote by the rules mean, raw and s3, instead of the router's.",
        ),
    ] = None
    models: ModelsAtHand = None

    def checked(self) -> Rule:
        """Return the rule; an unknown one, or k with the rule auto, is wrong usage."""
        one_of(self.rule, ("auto", "mean", "raw", "s3"), "--rule")
        if self.rule == "auto" and self.k is not None:
            raise typer.BadParameter(
                f"found {self.k} with the rule auto, which has the number of neighbours that "
                "held-out records chose; it is for --rule mean, raw or s3",
                param_hint="--k",
            )
        return cast("Rule", self.rule)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter of the command was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse options that mean nothing beside another one.

    `names` are the parameters' names in Python; the message is the first option given, and `why`.
    """
    for name in names:
        if is_given(context, name):
            option = next(p for p in context.command.params if p.name == name)
            raise typer.BadParameter(f"{'/'.join([*option.opts, *option.secondary_opts])} {why}")


def side_file_of(target: str, on_error: str, rejected: Path | None) -> Path | None:
    """File for the bad records of an output file; None where none is kept."""
    if rejected is not None and on_error == "raise":
        raise typer.BadParameter("--on-error raise keeps none", param_hint="--rejected")
    if rejected is None and on_error == "report" and target != "-":
        return Path(f"{target}.rejected.jsonl")
    return rejected


def check_distinct_files(**files: str | Path | None) -> None:
    """Refuse one file under two options, by their names: one would overwrite the other."""
    seen: dict[Path, str] = {}
    for name, file in files.items():
        if file is None or str(file) == "-":
            continue
        path = Path(file).resolve()
        if path.exists() and not path.is_file():
            continue  # a device or a directory
        option = name.upper() if name == "prompts" else f"--{name}"
        if path in seen:
            raise typer.BadParameter(
                f"found {str(file)!r}, which is {seen[path]} too, expected another file",
                param_hint=option,
            )
        seen[path] = option


def one_of(value: str, expected: Sequence[str], option: str) -> None:
    """Refuse a value that is not one of those expected, as wrong usage."""
    if value not in expected:
        raise typer.BadParameter(
            f"found {value!r}, expected {', '.join(expected)}", param_hint=option
        )


def check_score(score: str) -> Score:
    """Refuse an unknown score."""
    one_of(score, ("auto", "s1", "s2", "s3"), "--score")
    return cast("Score", score)


def check_dtype(dtype: str) -> None:
    """Refuse an unknown dtype."""
    from benchrouter.embeddings.devices import DTYPES

    one_of(dtype, DTYPES, "--dtype")


def check_format(format: str | None) -> None:
    """Refuse an unknown format of prompts."""
    if format is not None:
        one_of(format, ("txt", "jsonl", "csv", "parquet"), "--format")


def check_on_error(on_error: str) -> None:
    """Refuse anything but raise and skip."""
    one_of(on_error, ("raise", "skip"), "--on-error")


def listed(values: list[str] | None) -> list[str] | None:
    """Names given as ``A,B`` or by repeating the option; None if there is none.

    A name that holds a comma stands in double quotes, as in CSV: ``'"A,1",B'``.
    """
    if not values:
        return None
    cells = csv.reader(values, skipinitialspace=True)
    names = [name.strip() for row in cells for name in row or [""]]
    if not all(names):
        raise typer.BadParameter(f"found an empty name in {','.join(values)!r}")
    return names


def pairs(values: list[str] | None, expected: str) -> dict[str, str]:
    """``A=1,B=2``, or the option repeated, as a dictionary; the first ``=`` ends a name."""
    found: dict[str, str] = {}
    for text in listed(values) or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value or name in found:
            raise typer.BadParameter(f"found {text!r}, expected {expected}, each name once")
        found[name] = value
    return found


def thresholds(values: list[str] | None) -> dict[str, float] | None:
    """``DATASET=VALUE``, or VALUE for every dataset not named."""
    if not values:
        return None
    found: dict[str, float] = {}
    for text in listed(values) or []:
        name, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        key = name if equals else "*"
        if number != number or not key or key in found:
            raise typer.BadParameter(
                f"found {text!r}, expected VALUE or DATASET=VALUE, each dataset once",
                param_hint="--correct-above",
            )
        found[key] = number
    return found


def shares(text: str | None) -> tuple[float, ...] | None:
    """``0,.02,.04`` as numbers."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"found {text!r}, expected numbers such as 0,.02,.04", param_hint="--label-shares"
        ) from None


def sizes(values: list[str] | None) -> list[float | None]:
    """``13,all`` as sizes in billions of parameters, None for all models."""
    found: list[float | None] = []
    for text in listed(values) or ["all"]:
        try:
            size = None if text == "all" else float(text)
        except ValueError:
            size = float("nan")
        if (size is not None and not 0 < size < float("inf")) or size in found:
            raise typer.BadParameter(
                f"found {text!r}, expected billions of parameters such as 13, or all, each once",
                param_hint="--max-params",
            )
        found.append(size)
    return found


def further_metrics(values: list[str] | None) -> dict[str, str]:
    """``NAME=METRIC``, or METRIC, which then is the name as well."""
    found: dict[str, str] = {}
    for text in listed(values) or []:
        name, equals, metric = text.partition("=")
        metric = metric if equals else name
        if not name or not metric or name in found or name == "score":
            raise typer.BadParameter(
                f"found {text!r}, expected METRIC or NAME=METRIC, each name once and none 'score'",
                param_hint="--also",
            )
        found[name] = metric
    return found
