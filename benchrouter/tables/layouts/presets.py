"""Column names of tables that others publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchrouter.files.errors import BadInput
from benchrouter.tables.sources.source import Source

OPTIONAL = ("dataset",)  # by default the file's stem


@dataclass(frozen=True)
class Preset:
    """Column names in the files of one publisher.

    Attributes
    ----------
    columns : dict of str to tuple of str
        Our names to theirs; the first that a file has counts.
    answers : str
        Suffix of the columns that hold a model's answers.
    """

    columns: Mapping[str, tuple[str, ...]]
    answers: str = ""


PRESETS = {
    # huggingface.co/datasets/RZ412/EmbedLLM, train.csv, val.csv, test.csv: long.
    "embedllm": Preset(
        {
            "model": ("model_name", "model_id"),
            "dataset": ("category",),
            "sample_id": ("prompt_id",),
            "prompt": ("prompt",),
            "score": ("label",),
        }
    ),
    # github.com/lm-sys/RouteLLM, routellm/evals/mmlu/responses/mmlu_*.csv and
    # routellm/evals/gsm8k/gsm8k_responses.csv: wide, True or False, a dataset a file.
    "routellm": Preset({"prompt": ("prompt",)}, answers="_response"),
}


def unmistakable(source: Source) -> str | None:
    """Long preset whose columns a source has in full; None if there is none."""
    for name, preset in PRESETS.items():
        if is_long_preset(name) and all(
            any(column in source.columns for column in theirs) for theirs in preset.columns.values()
        ):
            return name
    return None


def names_of_preset(name: str) -> set[str]:
    """All columns that a preset may map."""
    return {theirs for names in PRESETS[name].columns.values() for theirs in names}


def is_long_preset(name: str) -> bool:
    """Whether a preset is of tables with a row per model and record."""
    return "model" in PRESETS[name].columns


def apply_preset(
    name: str, source: Source, wanted: Mapping[str, str]
) -> tuple[Source, dict[str, str]]:
    """Map our names to a source's columns as a preset says.

    Parameters
    ----------
    name : str
        Key of `PRESETS`.
    source : Source
    wanted : dict of str to str
        What the caller named; it wins over the preset.

    Returns
    -------
    source : Source
        Without the columns that hold answers.
    wanted : dict of str to str
        Our names to columns of the source.

    Raises
    ------
    ValueError
        If the source lacks a column.
    """
    preset = PRESETS[name]
    named = dict(wanted)
    for ours, theirs in preset.columns.items():
        found = next((column for column in theirs if column in source.columns), None)
        if ours in named or (found is None and ours in OPTIONAL):
            continue
        if found is None:
            raise BadInput(
                f"{source.name} has no column {' or '.join(map(repr, theirs))} for {ours}, which "
                f"the preset {name!r} expects; it has {source.list_columns()}"
            )
        named[ours] = found
    kept = {
        column: kind
        for column, kind in source.columns.items()
        if column in named.values() or not _is_answer(column, preset.answers, source)
    }
    return replace(source, columns=kept, untyped=source.untyped & kept.keys()), named


def _is_answer(column: str, end: str, source: Source) -> bool:
    of_model = column.removesuffix(end)
    return bool(end) and of_model != column and of_model in source.columns
