"""What all benchmarks share: options, fair timing, tables, aims, machine facts, JSON.

A benchmark is a script beside this file::

    report = Report("votes", parse_arguments(__doc__))
    timings = interleave({"ours": ours, "NumPy": numpys}, repeats=11)
    report.timings("1e6 queries", timings, unit_of_work="queries", work=1_000_000, against="NumPy")
    report.aim("ours against NumPy", ratio, "x", at_least=50)
    report.finish()

Contenders take turns within one run, each is warmed up first, and medians are compared: whatever
slows the machine down for a while slows all of them down.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # real tables; a stranger's clone has none
VERSIONS = ("numpy", "pyarrow", "torch", "transformers", "faiss-cpu", "faiss-gpu", "scikit-learn")
FLAGS = ("sse", "ssse", "avx", "amx", "fma", "f16c", "bmi", "neon", "asimd", "sve")


@dataclass(frozen=True)
class Timing:
    """Seconds of every timed call of one contender."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        """Fastest call, in seconds."""
        return min(self.seconds)

    @property
    def high(self) -> float:
        """Slowest call, in seconds."""
        return max(self.seconds)


def parse_arguments(
    description: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parse --quick and --json FILE, and whatever `add` adds to the parser."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller, at most 45 s on 2 cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    if add is not None:
        add(parser)
    arguments = parser.parse_args()
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: there is no such folder")
    return arguments


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 1,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time contenders in turns.

    Parameters
    ----------
    contenders : mapping of name to function without arguments
        What is timed. On a device, each ends with a synchronisation.
    repeats : int
        Rounds; in each, every contender runs once.
    warmup : int
        Untimed rounds before them.
    seconds : float
        No further round starts once so much time has gone by; at least 3 rounds are made.
    clock : function
        Seconds, monotonic.

    Returns
    -------
    dict of str to Timing
        In the order of the contenders.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(warmup):
        for run in contenders.values():
            run()
    begun = clock()
    for done in range(repeats):
        if done >= 3 and clock() - begun > seconds:
            break
        for name, run in contenders.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: Timing(tuple(times)) for name, times in taken.items()}


def readable_seconds(seconds: float) -> str:
    """Seconds with a fitting unit: 3 digits."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}")
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())


class Report:
    """Collects the figures of one benchmark; `finish` prints the aims and writes the JSON.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    arguments : argparse.Namespace
        From :func:`parse_arguments`.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name = name
        self.json_path: Path | None = arguments.json
        self.quick: bool = arguments.quick
        self.rows: list[dict[str, Any]] = []
        self.aims: list[dict[str, Any]] = []
        self.machine = machine()
        self.begun = time.perf_counter()
        self.busy = busy_seconds()
        cpu = self.machine["cpu"]
        print(f"{name}: {cpu}, {self.machine['cores']} cores, commit {commit()}")

    def row(self, name: str, value: float, unit: str, n: int = 1) -> None:
        """Keep one figure; `n` = how many measurements it is the median of."""
        self.rows.append({"name": name, "value": value, "unit": unit, "n": n})

    def timings(
        self,
        title: str,
        timings: Mapping[str, Timing],
        *,
        against: str,
        work: float | None = None,
        unit_of_work: str = "",
    ) -> None:
        """Print and keep the times of contenders, and each one's speed relative to `against`."""
        base = timings[against].median
        header = ["", "median", "fastest", "slowest", "n", f"x {against}"]
        if work is not None:
            header.append(f"{unit_of_work}/s")
        table = []
        for name, timing in timings.items():
            n = len(timing.seconds)
            cells = [name]
            cells += [readable_seconds(s) for s in (timing.median, timing.low, timing.high)]
            cells += [str(n), f"{base / timing.median:.2f}"]
            if work is not None:
                cells.append(f"{work / timing.median:.3g}")
            table.append(cells)
            self.row(f"{title}: {name}", timing.median, "s", n)
            self.row(f"{title}: {name}, fastest", timing.low, "s", n)
            self.row(f"{title}: {name}, slowest", timing.high, "s", n)
            if name != against:
                ratio = base / timing.median
                self.row(f"{title}: {name} against {against}", ratio, "x", n)
        print_table(title, header, table)

    def aim(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Keep an aim with the figure reached; exactly one bound is given."""
        if (at_least is None) == (at_most is None):
            raise ValueError("give either at_least or at_most")
        aim = at_most if at_least is None else at_least
        met = value >= aim if at_least is not None else value <= aim
        bound = "at most" if at_least is None else "at least"
        self.aims.append(
            {"name": name, "value": value, "aim": aim, "met": met, "unit": unit, "bound": bound}
        )

    def finish(self) -> None:
        """Print the aims and write the JSON file, if one was asked for."""
        took = time.perf_counter() - self.begun
        if self.aims:
            table = [
                [
                    aim["name"],
                    f"{aim['value']:.4g} {aim['unit']}",
                    f"{aim['bound']} {aim['aim']:g}",
                    "met" if aim["met"] else "NOT MET",
                ]
                for aim in self.aims
            ]
            print_table("aims", ["", "reached", "aim", ""], table)
        others = busy_by_others(self.busy, took)
        said = "" if others is None else f", other processes took {others:.0%} of the cores' time"
        print(f"\n{self.name}: {took:.1f} s in all{said}")
        if self.json_path is None:
            return
        found = {
            "benchmark": self.name,
            "quick": self.quick,
            "date": time.strftime("%Y-%m-%d"),
            "machine": self.machine,
            "versions": versions(),
            "commit": commit(),
            "command": command(),
            "seconds": took,
            "busy_by_others": others,
            "rows": self.rows,
            "aims": self.aims,
        }
        self.json_path.write_text(json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Facts of this machine that figures depend on: no names, no paths."""
    facts: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cpu_flags": [],
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpus(),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                facts["cpu"] = value
            elif key in ("flags", "Features"):
                facts["cpu_flags"] = sorted(f for f in value.split() if f.startswith(FLAGS))
            elif key == "cache size":
                facts["cache"] = value
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        facts["memory_gib"] = round(int(meminfo.read_text().split()[1]) / 2**20, 1)
    return facts


def busy_seconds() -> tuple[float, float] | None:
    """Processor seconds of all processes so far, and of this one with its children."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split()[1:11])
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"), own


def busy_by_others(before: tuple[float, float] | None, seconds: float) -> float | None:
    """Share of the machine's processor time that other processes took since `before`."""
    after = busy_seconds()
    if before is None or after is None:
        return None
    others = (after[0] - before[0]) - (after[1] - before[1])
    return max(others / (seconds * (os.cpu_count() or 1)), 0.0)


def available_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Names of the NVIDIA devices."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.splitlines() if asked.returncode == 0 else []


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on, where installed."""
    found = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Commit of the checkout, with "+" where tracked files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if head.returncode != 0:
        return "unknown"
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"]).returncode != 0
    return head.stdout.strip() + ("+" if changed else "")


def command() -> str:
    """Command line of this run, with paths relative to the checkout."""
    words = []
    for word in [str(Path(sys.argv[0]).resolve()), *sys.argv[1:]]:
        path = Path(word)
        if path.is_absolute():
            inside = path.is_relative_to(ROOT)
            word = str(path.relative_to(ROOT)) if inside else path.name
        words.append(word)
    return " ".join(["python", *words])
