"""What the commands say: one JSON document or tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., None])

BAD_INPUT = 1
NO_ENCODER = 3
INTERRUPTED = 130
PIPE_CLOSED = 141
EXIT_CODES = (
    "Exit codes: 0 done; 1 the input is bad or a file cannot be read or written; 2 wrong usage; "
    "3 the encoder, its weights, its device or a package is missing; 130 interrupted (143 by "
    "SIGTERM); 141 the reader of stdout went away."
)

SHOWN_SKIPS = 20  # messages about skipped records
MODEL_FACTS = ("params (B)", "US$ a prompt", "US$ per 10⁶ tokens in, out")
PLAIN_WIDTH = 160  # columns of a table that goes to a file or a pipe
PLAIN_SECONDS = 10.0  # between lines of progress where stderr is no terminal


class EncoderUnavailable(Exception):
    """The encoder cannot run here: no weights, no device, or a package is missing."""


class _Settings:
    debug = False


settings = _Settings()


def guarded(command: Command) -> Command:
    """Turn whatever a command raises into one line on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BrokenPipeError:
            # the interpreter flushes stdout once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except BaseException as e:
            if settings.debug:
                raise
            code, text = _exit_of(e)
            print(f"error: {' '.join(text.split())}", file=sys.stderr)
            raise typer.Exit(code) from None

    return run  # type: ignore[return-value]


def _exit_of(e: BaseException) -> tuple[int, str]:
    if isinstance(e, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(e, (EncoderUnavailable, ImportError)):
        return NO_ENCODER, str(e)
    if isinstance(e, OSError) and e.strerror:
        return BAD_INPUT, f"{e.filename}: {e.strerror}" if e.filename else e.strerror
    if isinstance(e, (ValueError, TypeError, OSError)):
        return BAD_INPUT, str(e)
    if isinstance(e, Exception):
        return BAD_INPUT, f"{type(e).__name__}: {e} (not foreseen; --debug shows where)"
    raise e


@contextmanager
def encoder_needed() -> Iterator[None]:
    """Within, whatever fails means that the encoder cannot run here."""
    try:
        yield
    except (ImportError, OSError, ValueError, RuntimeError) as e:
        raise EncoderUnavailable(str(e)) from e


def emit(document: dict[str, Any]) -> None:
    """Print one JSON document: NumPy values as plain ones, null for what is not finite."""
    from benchrouter.writers import finite

    def of_numpy(value: Any) -> Any:
        return finite(value.tolist())

    print(
        json.dumps(
            finite(document), ensure_ascii=False, allow_nan=False, indent=2, default=of_numpy
        )
    )


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_skipped(messages: Sequence[str], n: int | None = None) -> None:
    """Count skipped records on stderr and list the first of them."""
    n = len(messages) if n is None else n
    if n:
        say(f"skipped {n:,} bad records")
        for message in messages[:SHOWN_SKIPS]:
            say(f"  {message}")
        if n > SHOWN_SKIPS:
            say(f"  and {n - SHOWN_SKIPS:,} more")


def console() -> Console:
    """Return the console for results, as wide as the terminal, or `PLAIN_WIDTH` elsewhere."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    marked: int | None = None,
) -> None:
    """Print a table; numbers stand right, row `marked` is bold."""
    from rich import box
    from rich.table import Table

    rows = [list(row) for row in rows]
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        number = any(isinstance(row[i], (int, float)) for row in rows)
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for i, row in enumerate(rows):
        grid.add_row(*(cell(v) for v in row), style="bold" if i == marked else None)
    console().print(grid)


def facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(name, cell(value))
    console().print(grid)


def cell(value: Any) -> str:
    """Text of a value in a table; what is missing is a dash."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 10 or value == 0 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def amount(value: float | None) -> str | None:
    """Three digits of a number that may be unknown (None or NaN)."""
    return None if value is None or value != value else f"{value:.3g}"


def amounts(values: Iterable[float | None]) -> str | None:
    """Several of them; None if all are unknown."""
    texts = [amount(value) for value in values]
    return ", ".join(text or "–" for text in texts) if any(texts) else None


def shorten(text: str, width: int = 60) -> str:
    """One printable line of a prompt, at most `width` characters."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * width])
    line = " ".join(line.split())
    return line if len(line) <= width and len(text) <= 4 * width else line[: width - 1] + "…"


class Progress:
    """Progress on stderr: a bar on a terminal, a plain line now and then elsewhere.

    Called with the number of things done since the last call.
    """

    def __init__(self, label: str, unit: str, total: int | None = None) -> None:
        self.label, self.unit, self.total = label, unit, total
        self.done = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self.started = self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.label, total=self.total)
            self._bar.start()
        return self

    def __call__(self, n: int) -> None:
        """Count `n` things more as done."""
        self.done += n
        if self._bar is not None:
            self._bar.advance(self._task, n)
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_SECONDS:
            self._said = now
            of = f" of {self.total:,}" if self.total else ""
            rate = self.done / (now - self.started)
            speed = f", {rate:,.0f} a second" if rate >= 1 else ""
            say(f"{self.label}: {self.done:,}{of} {self.unit}{speed}")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Time since the start, in seconds."""
        return time.monotonic() - self.started


class StageProgress:
    """Progress of a library call that reports (stage, done, total), every stage by itself."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> StageProgress:
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report of the library."""
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            self._progress = Progress(stage, "steps", total).__enter__()
        if self._progress is not None:
            self._progress(done - self._progress.done)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__()
            self._progress = None


class Stages:
    """Time of the stages of a long command, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
