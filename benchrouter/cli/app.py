"""The application: all commands."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from benchrouter.cli import (
    choose,
    convert,
    cost_options,
    demo,
    download,
    encode,
    evaluate,
    explain,
    fit,
    inspect,
    options,
    output,
    route,
    serve,
    update,
)

app = typer.Typer(
    name="benchrouter",
    help="Route prompts to LLMs with per-sample results of benchmarks (arXiv 2309.15789).",
    epilog=output.EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from benchrouter.files.version import VERSION

        print(f"benchrouter {VERSION}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="BENCHROUTER_DEBUG", help="Show the traceback of an error."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    output.settings.debug = debug


for name, command, lacks in (
    ("convert", convert.convert, None),
    ("fit", fit.fit, None),
    ("choose", choose.choose, cost_options.OF_CHOOSE),
    ("route", route.route, None),
    ("serve", serve.serve, None),
    ("explain", explain.explain, cost_options.OF_EXPLAIN),
    ("inspect", inspect.inspect, None),
    ("update", update.update, None),
    ("encode", encode.encode, None),
    ("evaluate", evaluate.evaluate, None),
    ("download", download.download, None),
    ("demo", demo.demo, None),
):
    kind = None if lacks is None else options.lacking(lacks)
    app.command(name, cls=kind, epilog=output.EXIT_CODES)(output.guarded(command))


def main() -> None:
    """Run the command line; ends the process with an exit code."""
    # so that a stopped run drops its unfinished output file
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    app()
