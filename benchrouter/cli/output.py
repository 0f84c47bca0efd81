"""What the commands say: one JSON document or tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from benchrouter.tables.table import BenchmarkTable

Command = TypeVar("Command", bound=Callable[..., None])

BAD_INPUT = 1
NO_ENCODER = 3
SOME_REJECTED = 4
INTERRUPTED = 130
PIPE_CLOSED = 141
EXIT_CODES = (
    "Exit codes: 0 done; 1 the input is bad or a file cannot be read or written; 2 wrong usage; "
    "3 the encoder, its weights, its device or a package is missing; 4 done but for bad records, "
    "which are listed; 130 interrupted (143 by SIGTERM); 141 the reader of stdout went away."
)

SHOWN_SKIPS = 20  # messages about skipped records
MODEL_FACTS = ("params B", "US$ a prompt", "US$/10⁶ tokens")  # tokens in/out
PLAIN_WIDTH = 160  # columns of a table that goes to a file or a pipe, if COLUMNS is not set
MISSING = "–"
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
            if sys.stdout is None:  # so Python says that it was closed from the start
                raise OSError("stdout is closed, expected a place to write to")
            with _warnings_as_notes():
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
    if type(e).__name__ == "OutOfMemoryError":  # of torch, which may not be imported
        said = str(e).partition(" GPU ")[0]
        return BAD_INPUT, f"{said} (a smaller --batch-size needs less memory, or --device cpu)"
    if isinstance(e, Exception):
        return BAD_INPUT, f"{type(e).__name__}: {e} (not foreseen; --debug shows where)"
    raise e


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Say what the encoder or its cache warns of in one line, without the line of code."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *others: Any) -> None:
            if category.__name__ in ("CacheWarning", "TruncationWarning"):  # not imported yet
                say(f"note: {message}")
            else:
                shown(message, category, *others)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def encoder_needed() -> Iterator[None]:
    """Within, whatever fails means that the encoder cannot run here."""
    try:
        yield
    except (ImportError, OSError, ValueError, RuntimeError) as e:
        raise EncoderUnavailable(str(e)) from e


def emit(document: dict[str, Any]) -> None:
    """Print one JSON document: NumPy values as plain ones, null for what is not finite."""
    from benchrouter.files.plain import finite

    def of_numpy(value: Any) -> Any:
        return finite(value.tolist())

    print(
        json.dumps(
            finite(document), ensure_ascii=False, allow_nan=False, indent=2, default=of_numpy
        )
    )


def index(found: dict[str, Any] | None) -> str:
    """What a router searches by, and how near that comes to exact search."""
    if found is None:
        return "exact"
    return (
        f"{found['factory']}: finds {found['recall']:.1%} of the nearest records, chooses the same "
        f"model for {found['agreement']:.1%} of {found['n_queries']:,} held-out records"
    )


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_skipped(messages: Sequence[str], n: int | None = None, where: str = "") -> None:
    """Count skipped records on stderr and list the first of them; `where` all of them are."""
    n = len(messages) if n is None else n
    if n:
        say(f"skipped {n:,} bad records{where}")
        shown = messages[:SHOWN_SKIPS]
        for message in shown:
            say(f"  {message}")
        if n > len(shown):
            say(f"  and {n - len(shown):,} more")


def say_warnings(table: BenchmarkTable) -> None:
    """Say on stderr that scores may not be what they are taken for."""
    from benchrouter.tables.report import table_report

    for warning in table_report(table).warnings:
        if warning.kind in ("metrics differ", "outside range"):
            say(f"warning: {warning.message}")


class Skips:
    """Messages about bad records: the first ones, to be shown in the end, or all at once."""

    def __init__(self, *, listed: bool) -> None:
        self.listed = listed
        self.first: list[str] = []

    def note(self, messages: Sequence[str]) -> None:
        """Take messages of further records."""
        if self.listed:
            for message in messages:
                say(f"rejected {message}")
        self.first += messages[: SHOWN_SKIPS - len(self.first)]

    def say(self, n: int, kept_in: str | None) -> None:
        """Count all `n` of them on stderr, and show the first, unless each was told before."""
        if not self.listed:
            say_skipped(self.first, n, f", all in {kept_in}" if kept_in else "")


def say_models(document: dict[str, Any], n: int) -> None:
    """Tell on stderr how often each model was chosen, and how often for want of evidence.

    Parameters
    ----------
    document : dict
        With "models", a count by name, and "fallbacks".
    n : int
        Number of decisions.
    """
    if n:
        for model, count in document["models"].items():
            say(f"  {model}: {count:,} ({count / n:.1%})")
        say(f"  fallbacks: {document['fallbacks']:,} ({document['fallbacks'] / n:.1%})")


def console() -> Console:
    """Return the console for results, as wide as the terminal or as COLUMNS says.

    Elsewhere, as in a pipe, it is `PLAIN_WIDTH` wide. A reader that went away is a
    BrokenPipeError.
    """
    from rich.console import Console

    class OurConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process with its own exit code

    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    width = None if told else PLAIN_WIDTH
    return OurConsole(width=width, markup=False, highlight=False, emoji=False)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    marked: int | None = None,
    cut: Sequence[str] = (),
    right: Sequence[int] = (),
) -> None:
    """Print a table; numbers and the columns in `right` stand right, row `marked` is bold.

    Words are never broken: what does not fit is wrapped between words, or follows in a second
    block of columns. Only the columns named in `cut` are cut short. A column of which nothing is
    known is left out.
    """
    from rich import box
    from rich.table import Table

    rows = [list(row) for row in rows]
    shown = [
        i
        for i in range(len(columns))
        if i == 0 or not rows or any(cell(row[i]) != MISSING for row in rows)
    ]
    texts = [[columns[i], *(cell(row[i]) for row in rows)] for i in shown]
    least = [_least_width(t, whole=c == 0, cut=t[0] in cut) for c, t in enumerate(texts)]
    out = console()
    width = out.width
    for number, block in enumerate(_blocks(least, width)):
        grid = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        widths = _widths(
            [texts[c] for c in block],
            [least[c] for c in block],
            [columns[shown[c]] in cut for c in block],
            width,
        )
        out.width = max(width, sum(widths) + GAP * len(widths))  # rather too wide than broken
        for c, wide in zip(block, widths, strict=True):
            i = shown[c]
            to_the_right = (
                i in right
                or columns[i] in MODEL_FACTS
                or any(isinstance(row[i], (int, float)) for row in rows)
            )
            grid.add_column(
                columns[i],
                justify="right" if to_the_right else "left",
                no_wrap=columns[i] in cut,
                overflow="ellipsis" if columns[i] in cut else "fold",
                width=wide,
            )
        for r in range(len(rows)):
            grid.add_row(*(texts[c][r + 1] for c in block), style="bold" if r == marked else None)
        out.print()
        if number == 0:
            out.print(title, style="italic")
        out.print(grid)
    out.print()


GAP = 2  # between two columns
CUT_WIDTH = 24  # columns that may be cut short keep so many characters


def _least_width(texts: Sequence[str], *, whole: bool, cut: bool) -> int:
    """Width that a column needs so that no word of it is broken."""
    from rich.cells import cell_len

    longest = max(map(cell_len, texts))
    if cut:
        return min(longest, CUT_WIDTH)
    if whole:
        return max(longest if len(texts) == 1 else max(map(cell_len, texts[1:])), _word(texts[0]))
    return max(map(_word, texts))


def _word(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.split()), default=0)


def _blocks(least: Sequence[int], width: int) -> list[list[int]]:
    """Columns that stand side by side, the first one in every block."""
    blocks = [[0]]
    used = least[0]
    for column in range(1, len(least)):
        if used + GAP + least[column] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = least[0]
        blocks[-1].append(column)
        used += GAP + least[column]
    return blocks


def _widths(
    texts: Sequence[Sequence[str]], least: Sequence[int], cut: Sequence[bool], width: int
) -> list[int]:
    """Widths of the columns of one block: as wide as their texts, then cut, then wrapped."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, t)) for t in texts]
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    while excess > 0:
        spare = [(cut[c], w, c) for c, w in enumerate(widths) if w > least[c]]
        if not spare:
            break
        widths[max(spare)[-1]] -= 1
        excess -= 1
    return widths


def facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, cell(value))
    console().print(grid)


def cell(value: Any) -> str:
    """Text of a value in a table; what is missing is a dash."""
    if value is None or (isinstance(value, float) and value != value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 10 or value == 0 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def amount(value: float | None) -> str | None:
    """Three digits of a number that may be unknown (None or NaN)."""
    return None if value is None or value != value else f"{value:.3g}"


def amounts(values: Iterable[float | None]) -> str | None:
    """Several of them, with strokes between; None if all are unknown."""
    texts = [amount(value) for value in values]
    return "/".join(text or MISSING for text in texts) if any(texts) else None


def shorten(text: str, width: int = 60) -> str:
    """One printable line of a prompt, at most `width` characters."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * width])
    line = " ".join(line.split())
    return line if len(line) <= width and len(text) <= 4 * width else line[: width - 1] + "…"


class Progress:
    """Progress on stderr: a bar on a terminal, a plain line now and then elsewhere.

    Called with the number of things done since the last call and, where no total is known, the
    share of the input that has been read, from 0 to 1. The time left is that of the share left,
    at the speed since the first call. `before` things were done by an earlier run.
    """

    def __init__(self, label: str, unit: str, total: int | None = None, before: int = 0) -> None:
        self.label, self.unit, self.total = label, unit, total
        self.done = self._before = before
        self._share: float | None = None
        self._first: tuple[float, float] | None = None  # time and share at the first call
        self._done_said: int | None = None
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self.started = self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.label, total=None)
            self._bar.start()
        return self

    def __call__(self, n: int, share: float | None = None) -> None:
        """Count `n` things more as done."""
        self.done += n
        self._share = self.done / self.total if self.total else share
        now = time.monotonic()
        if self._first is None and self._share is not None:
            self._first = now, self._share
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=self._text(now),
                total=None if self._share is None else 1.0,
                completed=self._share or 0.0,
            )
        elif now - self._said >= PLAIN_SECONDS:
            self._say()

    def _say(self) -> None:
        self._said, self._done_said = time.monotonic(), self.done
        say(self._text(self._said))

    def _text(self, now: float) -> str:
        of = f" of {self.total:,}" if self.total else ""
        share = f" ({self._share:.0%})" if self._share is not None and not self.total else ""
        rate = (self.done - self._before) / max(now - self.started, 1e-9)
        speed = f", {rate:,.0f} a second" if rate >= 1 else ""
        left = self._seconds_left(now)
        time_left = "" if left is None else f", {duration(left)} left"
        return f"{self.label}: {self.done:,}{of} {self.unit}{share}{speed}{time_left}"

    def _seconds_left(self, now: float) -> float | None:
        if self._first is None or self._share is None or self._share >= 1:
            return None
        began, from_share = self._first
        read = self._share - from_share
        return None if read <= 0 else (now - began) * (1 - self._share) / read

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and self._done_said not in (None, self.done):
            self._say()  # who saw it begin sees it end

    @property
    def seconds(self) -> float:
        """Time since the start, in seconds."""
        return time.monotonic() - self.started


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest of them that are not 0."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
