"""Damaged files of every format: each gives a table, or an error that names the file.

20,000 mutations (--mutations N; --quick: 1,000) of the small examples of fuzz_inputs.py: bytes
flipped, deleted, inserted, cut off and doubled, tokens of JSON and CSV swapped or made odd. A
mutation N is the same in every run of one --seed and --format; `--only N` shows what it does.

Reading happens in a child process. A finding is: another kind of exception than BadInput,
ValueError, TypeError and OSError, or one from the libraries inside; a message without the name of a
file; a warning or a traceback on stderr; a crash of the interpreter; no answer within 10 s. The
exit code is 1 if there is one.
Errors of tables should also tell a row or line where they are about one; how many do is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz_inputs import EXAMPLES, Example, damage, format_name, table
from report import Report, parse_arguments, print_table

from benchrouter import BadInput, BenchmarkTable, read_table
from benchrouter.tables.formats import FORMATS, TABLE

DEADLINE_S = 10.0
MEMORY_BYTES = 8 << 30  # of addresses; Arrow reserves some that it never uses
PLACE = re.compile(r"\b(row|line|record|position|byte|column|instance|item)s? \d+", re.IGNORECASE)
# What became of a mutation.
READ, PLACED, NAMED, FINDING = "table", "error with place", "error with file", "finding"


@dataclass(frozen=True)
class Outcome:
    """What became of one mutation; `text` says more of a finding."""

    number: int
    example: str
    what: str
    text: str = ""


def fuzz(
    examples: Mapping[str, Example], n: int, seed: int, deadline: float = DEADLINE_S
) -> Iterator[Outcome]:
    """Read damaged examples in turn, in child processes.

    Parameters
    ----------
    examples : mapping of str to function
        As `EXAMPLES`; each function must be one that a child process can import.
    n : int
        Mutations in all.
    seed : int
    deadline : float
        Seconds that one may take.

    Yields
    ------
    Outcome
        One for every mutation.
    """
    context = multiprocessing.get_context("spawn")
    number = 0
    while number < n:
        ours, theirs = context.Pipe()
        child = context.Process(target=_work, args=(theirs, dict(examples), number, n, seed))
        child.start()
        theirs.close()
        # Starting takes the time of its imports.
        if not ours.poll(60 + deadline) or ours.recv() != "ready":
            raise RuntimeError("the child process did not start")
        while number < n:
            try:
                outcome = ours.recv() if ours.poll(deadline) else None
            except EOFError:
                child.join()
                outcome = None
            if outcome is None:
                example = list(examples)[number % len(examples)]
                code = child.exitcode
                text = f"no answer in {deadline:g} s" if code is None else f"exit code {code}"
                yield Outcome(number, example, FINDING, text)
                number += 1
                child.kill()
                break
            yield outcome
            number += 1
        child.join()


def _work(
    connection: Connection, examples: Mapping[str, Example], start: int, end: int, seed: int
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(prefix="fuzz.") as folder:
        # What a first read imports must not count as its time.
        read_table(table(Path(folder), layout="wide", suffix=".jsonl"))
        connection.send("ready")
        for number in range(start, end):
            connection.send(one(number, examples, seed, Path(folder)))


def one(number: int, examples: Mapping[str, Example], seed: int, folder: Path) -> Outcome:
    """Make and judge one mutation; the folder is emptied first."""
    name = list(examples)[number % len(examples)]
    rng = random.Random(f"{seed}/{name}/{number}")
    shutil.rmtree(folder)
    folder.mkdir()
    path = examples[name](folder)
    lost: list[str] = []  # exceptions that nobody can catch
    sys.unraisablehook = lambda about: lost.append(repr(about.exc_value))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    # The table itself more often than what lies beside it.
    damage(path if path.is_file() and rng.random() < 0.8 else rng.choice(files), rng)
    what, text = READ, ""
    try:
        format = rng.choice(["auto", format_name(name)])
        found = read_table(path, on_error=rng.choice(["raise", "skip"]), format=format)
        if not isinstance(found, BenchmarkTable):
            raise RuntimeError(f"found {type(found)}")
    except BaseException as error:
        what, text = judged(error, folder)
    return Outcome(number, name, *((FINDING, f"on stderr: {lost}") if lost else (what, text)))


def judged(error: BaseException, folder: Path) -> tuple[str, str]:
    """What an error is, by its type and message, and the text to show."""
    message = str(error)
    foreign = type(error) not in (BadInput, ValueError, TypeError) and not (
        isinstance(error, OSError) and type(error).__module__ == "builtins"
    )
    if foreign or str(folder) not in message:
        return FINDING, "".join(traceback.format_exception(error))
    return (PLACED if PLACE.search(message) else NAMED), message


def without_example() -> list[str]:
    """Formats that no example is written for."""
    written = set(map(format_name, EXAMPLES))
    return [name for name in (TABLE, *FORMATS) if name not in written]


def main() -> None:
    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--mutations", type=int, metavar="N", help="20,000; --quick: 1,000")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--only", type=int, metavar="N", help="show what mutation N does")
        parser.add_argument("--format", default="", help="only examples whose name begins so")

    arguments = parse_arguments(__doc__, options)
    examples = {k: v for k, v in EXAMPLES.items() if k.startswith(arguments.format)}
    if arguments.only is not None:
        with tempfile.TemporaryDirectory(prefix="fuzz.") as folder:
            print(one(arguments.only, examples, arguments.seed, Path(folder)))
        return
    report = Report("fuzz_readers", arguments)
    n = arguments.mutations or (1_000 if arguments.quick else 20_000)
    counts = {name: Counter[str]() for name in examples}
    n_findings = 0
    for outcome in fuzz(examples, n, arguments.seed):
        counts[outcome.example][outcome.what] += 1
        if outcome.what == FINDING:
            n_findings += 1
            print(f"\nmutation {outcome.number}, {outcome.example}: {outcome.text}", flush=True)
    kinds = (READ, PLACED, NAMED, FINDING)
    rows = [
        [name, *(f"{count[kind]:,}" for kind in kinds), f"{count.total():,}"]
        for name, count in counts.items()
    ]
    total = sum(counts.values(), Counter[str]())
    rows.append(["all", *(f"{total[kind]:,}" for kind in kinds), f"{total.total():,}"])
    print_table(f"{n:,} mutations, seed {arguments.seed}", ["", *kinds, "mutations"], rows)
    for kind in kinds:
        report.row(kind, total[kind], "mutations")
    for name in without_example():
        print(f"  format {name}: no example is written for it")
    report.aim("mutations", total.total(), "", at_least=n)
    report.aim("findings", n_findings, "", at_most=0)
    report.finish()
    if n_findings:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
