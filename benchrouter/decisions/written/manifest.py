"""What a job that writes parts has done so far: the one file that says which parts count."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from benchrouter.decisions.answers import Decisions
from benchrouter.files.atomic import partial_of, put_file
from benchrouter.files.os_errors import naming

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
SAMPLES = 64  # blocks of a file that its fingerprint looks at, spread evenly
SAMPLE_BYTES = 1 << 16


@dataclass
class Totals:
    """What was routed.

    Attributes
    ----------
    prompts, rejected, fallbacks : int
    models : Counter of str
        Prompts by model.
    cost_usd : float
        Expected costs; 0 where costs do not count.
    over_limit : int
        Prompts on which no model was within the limit of cost.
    """

    prompts: int = 0
    rejected: int = 0
    fallbacks: int = 0
    models: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    over_limit: int = 0

    def add(self, n_rejected: int, decisions: Decisions | None) -> None:
        """Count a batch; None where it has no prompt."""
        self.rejected += n_rejected
        if decisions is not None:
            self.prompts += len(decisions)
            self.fallbacks += int(decisions.fallback.sum())
            counts = np.bincount(decisions.model, minlength=len(decisions.models)).tolist()
            chosen = zip(decisions.models, counts, strict=True)
            self.models.update({name: n for name, n in chosen if n})
            if decisions.cost_usd is not None and decisions.over_limit is not None:
                self.cost_usd += float(decisions.cost_usd.sum(dtype="float64"))
                self.over_limit += int(decisions.over_limit.sum())


@dataclass(frozen=True)
class Part:
    """One file of decisions.

    Attributes
    ----------
    name : str
    bytes : int
    first_row : int
        Position of its first record in the input.
    rows, prompts, rejected : int
        Records of the input that it covers, and the good and the bad among them.
    """

    name: str
    bytes: int
    first_row: int
    rows: int
    prompts: int
    rejected: int


@dataclass
class Manifest:
    """A job and the parts of it that are done.

    Attributes
    ----------
    job : dict
        Everything that the decisions depend on: input, router, options; plain values.
    parts : list of Part
        From the first record on, without a gap.
    totals : Totals
        Over these parts.
    complete : bool
        Whether they cover the input.
    """

    job: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    complete: bool = False

    @property
    def next_row(self) -> int:
        """Position of the first record that no part covers."""
        return self.parts[-1].first_row + self.parts[-1].rows if self.parts else 0

    def write(self, directory: Path) -> None:
        """Write it in one step, replacing the one before."""
        target = directory / MANIFEST
        content = {
            "format_version": FORMAT_VERSION,
            "job": self.job,
            "parts": [asdict(part) for part in self.parts],
            "totals": vars(self.totals),
            "complete": self.complete,
        }
        partial = partial_of(target)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        try:
            with naming(target):
                partial.write_text(text, encoding="utf-8")
                put_file(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def read_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of a directory; None if it has none.

    Raises
    ------
    ValueError
        If it is damaged or of another format, or a part that it lists is missing or has another
        size.
    """
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, this release reads {FORMAT_VERSION}")
        totals = content["totals"]
        manifest = Manifest(
            job=dict(content["job"]),
            parts=[Part(**part) for part in content["parts"]],
            totals=Totals(**{**totals, "models": Counter(totals["models"])}),
            complete=content["complete"],
        )
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise ValueError(f"{path} cannot be read: {e}") from e
    row = 0
    for part in manifest.parts:
        if part.first_row != row:
            raise ValueError(f"{path}: {part.name} begins with row {part.first_row}, not {row}")
        row += part.rows
        file = directory / part.name
        found = file.stat().st_size if file.is_file() else None
        if found != part.bytes:
            raise ValueError(
                f"{file}: found {'no file' if found is None else f'{found} bytes'}, the manifest "
                f"says {part.bytes} bytes"
            )
    return manifest


def check_same_job(directory: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume another job than the one that was begun.

    A file is the same if its size and fingerprint are, whatever its path.

    Raises
    ------
    ValueError
        Naming every difference.
    """
    differences = [
        f"{name} was {_shown(begun.get(name))}, is {_shown(now.get(name))}"
        for name in {**begun, **now}
        if _without_path(begun.get(name)) != _without_path(now.get(name))
    ]
    if differences:
        raise ValueError(
            f"{directory} holds parts of another job: {'; '.join(differences)}; give what it was "
            "begun with, or another directory"
        )


def mark_of(path: str | Path, opened: BinaryIO | None = None) -> dict[str, Any]:
    """Path, size and fingerprint of a file, by which it is known again.

    The fingerprint is the SHA-256 of `SAMPLES` blocks of `SAMPLE_BYTES` spread over the file, its
    first and last bytes among them: all of a file of up to 4 MiB, and 4 MiB of a longer one.

    Parameters
    ----------
    path : str or Path
    opened : binary file, optional
        The file, if it is open; its position is kept.

    Returns
    -------
    dict
        ``path``, ``bytes``, ``fingerprint``; the last two are None for what is no regular file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    mark: dict[str, Any] = {"path": str(path), "bytes": None, "fingerprint": None}
    if str(path) == "-" or (Path(path).exists() and not Path(path).is_file()):
        return mark
    digest = hashlib.sha256()
    with open(path, "rb") if opened is None else nullcontext(opened) as file:
        position = file.tell()
        size = os.fstat(file.fileno()).st_size
        last = max(0, size - SAMPLE_BYTES)
        step = max(SAMPLE_BYTES, -(-last // (SAMPLES - 1)))
        for start in sorted({min(i * step, last) for i in range(SAMPLES)}):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
        file.seek(position)
    return {**mark, "bytes": size, "fingerprint": digest.hexdigest()}


def _without_path(value: object) -> object:
    return {k: v for k, v in value.items() if k != "path"} if isinstance(value, dict) else value


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['path']} ({value['bytes']} bytes, {str(value['fingerprint'])[:12]}…)"
    return repr(value)
