"""Options of costs that a command lacks, and why."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperCommand

OF_CHOOSE = {"--tokens": "a task has many prompts: their --tokens-column counts the tokens"}
OF_EXPLAIN = {
    "--budget-usd": "a budget is for all prompts together: give the --cost-weight that "
    "`benchrouter route` found for it",
    "--tokens-column": "one prompt has its --tokens",
}


def lacking(options: Mapping[str, str]) -> type[TyperCommand]:
    """Make a kind of command that says why it lacks some options.

    Parameters
    ----------
    options : mapping of str to str
        Option to the reason.

    Returns
    -------
    type
        For `typer.Typer.command`.
    """

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            for word in takewhile(lambda word: word != "--", args):
                option = word.partition("=")[0]
                if option in options:
                    raise typer.BadParameter(options[option], param_hint=option)
            return super().parse_args(ctx, args)

    return Command
