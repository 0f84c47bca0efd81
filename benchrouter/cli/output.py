"""Output of the commands: one JSON document or tables on stdout, progress and errors on stderr."""

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

from benchrouter.files.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from benchrouter.evaluation.report.sheets.sheet import Cell, Sheet
    from benchrouter.prompts.batches import PromptBatch
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


class EncoderUnavailable(Unavailable):
    """The encoder cannot run here: no weights, no device, or a package is missing."""


class _Settings:
    debug = False


settings = _Settings()


def guarded(command: Command) -> Command:
    """Turn every error of a command into one line on stderr and an exit code."""

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
    """Print warnings of the encoder and its cache in one line, without the line of code."""
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
    """Turn errors of the block into `EncoderUnavailable`."""
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
    """A router's search, and how close it comes to exact search."""
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
    """Count skipped records on stderr and list the first of them; `where` says where all are."""
    n = len(messages) if n is None else n
    if n:
        say(f"skipped {n:,} bad records{where}")
        shown = messages[:SHOWN_SKIPS]
        for message in shown:
            say(f"  {message}")
        if n > len(shown):
            say(f"  and {n - len(shown):,} more")


def say_warnings(table: BenchmarkTable) -> None:
    """Warn on stderr that scores may mean something else than they seem to."""
    from benchrouter.tables.report import table_report

    for warning in table_report(table).warnings:
        if warning.kind in ("metrics differ", "outside range"):
            say(f"warning: {warning.message}")


def say_models(document: dict[str, Any], n: int) -> None:
    """Print on stderr how often each model was chosen, and how often as the fallback.

    `n` is the number of decisions; `document` holds "models", a count by name, and "fallbacks".
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
    """Print a table; numbers and the columns in `right` are aligned right, row `marked` is bold.

    Words are never broken: what does not fit is wrapped between words, or follows in a second
    block of columns. Only the columns named in `cut` are cut short. A column of which nothing is
    known is left out.
    """
    rows = [list(row) for row in rows]
    shown = [
        _Column(name, [row[i] for row in rows], whole=i == 0, cut=name in cut, right=i in right)
        for i, name in enumerate(columns)
    ]
    shown = [c for c in shown if c.whole or not rows or c.is_known]
    out = console()
    width = out.width
    for number, block in enumerate(_blocks([c.least for c in shown], width)):
        side_by_side = [shown[i] for i in block]
        widths = _widths(side_by_side, width)
        out.width = max(width, sum(widths) + GAP * len(widths))  # rather too wide than broken
        out.print()
        if number == 0:
            out.print(title, style="italic")
        out.print(_grid(side_by_side, widths, marked))
    out.print()


def _grid(columns: Sequence[_Column], widths: Sequence[int], marked: int | None) -> Table:
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, wide in zip(columns, widths, strict=True):
        grid.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=column.cut,
            overflow="ellipsis" if column.cut else "fold",
            width=wide,
        )
    for r, texts in enumerate(zip(*(column.texts[1:] for column in columns), strict=True)):
        grid.add_row(*texts, style="bold" if r == marked else None)
    return grid


def show_sheet(sheet: Sheet) -> None:
    """Print a table of an evaluation, then the reasons of its dashes."""
    from benchrouter.evaluation.report.sheets.sheet import absent

    def text(cell: Cell) -> str:
        return f"{cell.text} {sheet.mark(cell)}" if cell.why else cell.text

    table(
        sheet.title,
        sheet.columns,
        [[text(cell) for cell in row] for row in sheet.rows],
        marked=sheet.marked[0] if sheet.marked else None,
        right=[c for c in range(1, len(sheet.columns)) if all(r[c].is_number for r in sheet.rows)],
    )
    for why in sheet.footnotes():
        print(f"  {sheet.mark(absent(why))}  {why}")
    print()


GAP = 2  # between two columns
CUT_WIDTH = 24  # columns that may be cut short keep so many characters


class _Column:
    """A column of a table: its texts, the name first, and the width that it needs.

    No word of it is broken; only what may be cut short is.
    """

    def __init__(self, name: str, values: list[Any], *, whole: bool, cut: bool, right: bool):
        from rich.cells import cell_len

        self.name, self.whole, self.cut = name, whole, cut
        self.texts = [name, *map(cell, values)]
        self.is_known = any(text != MISSING for text in self.texts[1:])
        numbers = any(isinstance(value, (int, float)) for value in values)
        self.right = right or name in MODEL_FACTS or numbers
        lengths = [cell_len(text) for text in self.texts]
        self.longest = max(lengths)
        if cut:
            self.least = min(self.longest, CUT_WIDTH)
        elif whole:
            self.least = max([*(lengths[1:] or lengths), _word(name)])
        else:
            self.least = max(map(_word, self.texts))


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


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Widths of the columns of one block: as wide as their texts, then cut, then wrapped."""
    widths = [column.longest for column in columns]
    excess = sum(widths) + GAP * (len(widths) - 1) - width
    while excess > 0:
        spare = [(c.cut, w, i) for i, (c, w) in enumerate(zip(columns, widths, strict=True))]
        spare = [found for found in spare if found[1] > columns[found[2]].least]
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
    """Several amounts with slashes between; None if all are unknown."""
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
        """Count `n` more things as done."""
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
            self._say()  # after other lines of progress, say that it ended

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
    """Progress of a library call that reports (stage, done, total), each stage on its own."""

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


class PromptProgress:
    """Progress of a job on prompts, and the messages of its bad records.

    The first messages are shown at the end, or each of them at once if they are to be listed.
    """

    def __init__(self, *, listed: bool) -> None:
        self._listed = listed
        self.first: list[str] = []
        self._progress: Progress | None = None

    def __enter__(self) -> PromptProgress:
        return self

    def __call__(self, task: str, batch: PromptBatch | None) -> None:
        """Take a report of the library; no batch means that a task begins."""
        if batch is None:
            self.__exit__()
            self._progress = Progress(task, "prompts").__enter__()
            return
        if task == "route":
            messages = batch.skipped
            if self._listed:
                for message in messages:
                    say(f"rejected {message}")
            self.first += messages[: SHOWN_SKIPS - len(self.first)]
        if self._progress is not None:
            self._progress(len(batch), batch.share)

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind)
            self._progress = None

    def say(self, n: int, kept_in: str | None) -> None:
        """Count all `n` bad records on stderr, and show the first, unless each was listed."""
        if not self._listed:
            say_skipped(self.first, n, f", all in {kept_in}" if kept_in else "")


class StageClock:
    """Time of the stages of a long command, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
