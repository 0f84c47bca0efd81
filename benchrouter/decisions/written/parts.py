"""A directory of decisions in parts: complete parts stay, whatever ends the run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchrouter.decisions.written.manifest import (
    MANIFEST,
    Manifest,
    Part,
    check_same_job,
    read_manifest,
)
from benchrouter.decisions.written.writers import DecisionWriter, fields_of, open_decisions
from benchrouter.files.lock import locked
from benchrouter.files.os_errors import naming
from benchrouter.prompts.rejected import RejectedWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from benchrouter.decisions.answers import Decisions
    from benchrouter.prompts.batches import PromptBatch

FORMATS = ("parquet", "jsonl")
REJECTED = "rejected"  # folder of the bad records, a file for every part that has any
_HIDDEN = re.compile(r"\.(part-\d{5,}|manifest)\..*\.partial")
_UNLISTED = re.compile(r"part-\d{5,}\.(parquet|jsonl)|" + _HIDDEN.pattern)


class PartsOutput:
    """Decisions as ``part-00000.parquet`` …, and ``manifest.json``, which says which parts count.

    A part covers `part_size` records of the input. It is written under a hidden name, renamed when
    it is complete, and then listed in the manifest, which is replaced in one step. A run that is
    killed in between leaves files that the manifest does not list; the next one removes them and
    continues after the last part in the list. Bad records go to ``rejected/part-00000.jsonl`` ….
    To be used in a ``with`` block.

    Parameters
    ----------
    directory : str or Path
        Made if it is missing.
    job : dict
        Everything that the decisions depend on; see `Manifest`.
    part_size : int
        Records of the input that a part covers, at least 1.
    format : "parquet" or "jsonl"
    prompt_column, prefix, further
        See `open_decisions`.
    resume : bool
        Whether the directory may hold parts of this job.

    Attributes
    ----------
    first_row : int
        Position of the record to continue with.
    totals : Totals
        Of all parts, including earlier runs.
    complete : bool
        Whether all is done.
    rejected : Path
        Folder of the bad records.

    Raises
    ------
    ValueError
        If another run writes there, or the directory holds parts of another job, other files, or
        (without `resume`) anything.
    OSError
        If it cannot be made or written.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        job: dict[str, Any],
        part_size: int,
        format: str = "parquet",
        prompt_column: str | None = "prompt",
        prefix: str = "",
        further: Sequence[str] = (),
        resume: bool = False,
    ) -> None:
        self._directory = Path(directory)
        self._part_size = part_size
        self._format = format
        self._prompt_column = prompt_column
        self._prefix = prefix
        self._further = further
        self._open: _OpenPart | None = None
        self.rejected = self._directory / REJECTED
        with naming(directory):
            self._directory.mkdir(exist_ok=True)
        self._lock = locked(self._directory)
        try:
            self._manifest = self._begun(job, resume)
            self._fields = self._fields_of_first_part()
        except BaseException:
            os.close(self._lock)
            raise
        self.first_row = self._manifest.next_row
        self.totals = self._manifest.totals

    @property
    def complete(self) -> bool:
        """Whether every part is done."""
        return self._manifest.complete

    @property
    def n_parts(self) -> int:
        """Number of parts that are done."""
        return len(self._manifest.parts)

    def write(self, batch: PromptBatch, decisions: Decisions | None) -> None:
        """Write one batch, and finish the part that ends with it.

        Parameters
        ----------
        batch : PromptBatch
            The next one; its records all belong to one part.
        decisions : Decisions or None
            None if it has no prompt.
        """
        if self._open is None:
            self._open = self._next_part()
        self._open.write(batch, decisions)
        self.totals.add(len(batch.rejected), decisions)
        if batch.end_row % self._part_size == 0:
            self._finish_part()

    def __enter__(self) -> PartsOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self.complete:
                self._finish()
        finally:
            if self._open is not None:
                self._open.abort()
            if not self.n_parts and not any(self.rejected.glob("[!.]*")):
                (self._directory / MANIFEST).unlink(missing_ok=True)
            for folder in (self.rejected, self._directory):
                with suppress(OSError):  # it is not empty, or not there
                    folder.rmdir()
            os.close(self._lock)

    def _begun(self, job: dict[str, Any], resume: bool) -> Manifest:
        names = sorted(path.name for path in self._directory.iterdir())
        if names and not resume:
            raise ValueError(
                f"{self._directory} is not empty (it holds {names[0]!r}), expected a new or empty "
                "directory, or --resume to go on with the parts in it"
            )
        manifest = read_manifest(self._directory)
        if manifest is None:
            manifest = Manifest(job)
            # Parts without a manifest are not ours: it is written before the first of them.
            foreign = [n for n in names if not _HIDDEN.fullmatch(n) and n != REJECTED]
            foreign += [f"{REJECTED}/{path.name}" for path in self.rejected.glob("[!.]*")]
            if foreign:
                raise ValueError(
                    f"{self._directory} has no manifest.json beside {foreign[0]!r}: there is no "
                    "job to resume"
                )
        check_same_job(self._directory, manifest.job, job)
        listed = {Path(part.name).stem for part in manifest.parts}
        for path in (*self._directory.iterdir(), *self.rejected.glob("*")):
            if _UNLISTED.fullmatch(path.name) and path.stem not in listed:
                path.unlink()
        return manifest

    def _fields_of_first_part(self) -> pa.Schema | None:
        """Other fields of the input, as in the first part; later parts keep them."""
        if self._format == "parquet":
            for part in self._manifest.parts:
                if part.prompts:
                    return fields_of(
                        self._directory / part.name, self._prompt_column, self._further
                    )
        return None

    def _next_part(self) -> _OpenPart:
        if not self.n_parts:
            self._manifest.write(self._directory)
        stem = f"part-{self.n_parts:05d}"
        return _OpenPart(
            self._manifest.next_row,
            open_decisions(
                self._directory / f"{stem}.{self._format}",
                prompt_column=self._prompt_column,
                prefix=self._prefix,
                further=self._further,
                fields=self._fields,
            ),
            RejectedWriter(self.rejected / f"{stem}.jsonl"),
        )

    def _finish_part(self) -> None:
        assert self._open is not None
        part = self._open.close()
        self._open = None
        self._manifest.parts.append(part)
        if self._fields is None:
            self._fields = self._fields_of_first_part()  # as a run that resumes reads them
        self._manifest.write(self._directory)

    def _finish(self) -> None:
        if self._open is None and not self.n_parts:
            self._open = self._next_part()  # no prompts make one empty part
        self._manifest.complete = True
        if self._open is not None:
            self._finish_part()
        else:
            self._manifest.write(self._directory)


class _OpenPart:
    """The part that is being written."""

    def __init__(self, first_row: int, decisions: DecisionWriter, rejected: RejectedWriter) -> None:
        self.decisions = decisions
        self._rejected = rejected
        self._first_row = first_row
        self._n_rows = self._n_rejected = 0

    def write(self, batch: PromptBatch, decisions: Decisions | None) -> None:
        if decisions is not None:
            self.decisions.write(batch, decisions)
        self._rejected.write(batch.rejected)
        self._n_rows += batch.n_source_rows
        self._n_rejected += len(batch.rejected)

    def close(self) -> Part:
        self._rejected.close()
        self.decisions.close()
        target = self.decisions.target
        assert target is not None
        return Part(
            name=target.name,
            bytes=target.stat().st_size,
            first_row=self._first_row,
            rows=self._n_rows,
            prompts=self._n_rows - self._n_rejected,
            rejected=self._n_rejected,
        )

    def abort(self) -> None:
        self.decisions.abort()
        self._rejected.abort()
