"""Fetch many files into a folder, a few at a time; intact ones are kept."""

from __future__ import annotations

import json
import os
import queue
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchrouter.files.lock import locked
from benchrouter.files.os_errors import naming
from benchrouter.tables.download.fetching import Advance, bytes_here, checksum_of, fetch, no_room
from benchrouter.tables.download.listing import Remote
from benchrouter.tables.download.web import Web

JOBS = 4  # files at a time
RECORD = (
    ".downloaded.jsonl"  # a line for every file that was fetched; the last one of a name counts
)


@dataclass(frozen=True)
class Fetched:
    """A file in the folder: fetched by this run, resumed, or kept from an earlier one."""

    remote: Remote
    path: Path
    bytes: int
    state: Literal["fetched", "resumed", "kept"]


def download(
    remotes: Sequence[Remote],
    folder: Path,
    *,
    web: Web,
    progress: Callable[[int, int], AbstractContextManager[Advance]],
) -> list[Fetched]:
    """Fetch files into a folder.

    Parameters
    ----------
    remotes : sequence of Remote
    folder : Path
        Made if it is missing.
    web : Web
        Its `stop` is set when the transfers end.
    progress : callable
        Takes the bytes of the files to fetch, and how many of them an earlier run left.

    Returns
    -------
    list of Fetched
        In the order of `remotes`.

    Raises
    ------
    ValueError
        If another run writes there, or a file is not as listed.
    DownloadRefused
        If a server refuses a file or fails too often.
    OSError
        If a file cannot be written, or the folder has no room for all of them.
    """
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = locked(folder)
    try:
        record = _Record(folder / RECORD)
        here = [r for r in remotes if (folder / r.path).exists()]
        if here:
            web.tell(f"checking the {len(here):,} files that are there")
        kept = {r.path for r in here if record.holds(r, folder / r.path)}
        missing = [r for r in remotes if r.path not in kept]
        states = _fetch_missing(missing, folder, record, web, progress) if missing else {}
    finally:
        os.close(lock)
    return [
        Fetched(r, path := folder / r.path, path.stat().st_size, states.get(r.path, "kept"))
        for r in remotes
    ]


def _fetch_missing(
    missing: Sequence[Remote],
    folder: Path,
    record: _Record,
    web: Web,
    progress: Callable[[int, int], AbstractContextManager[Advance]],
) -> dict[str, Literal["fetched", "resumed"]]:
    total = sum(r.size for r in missing)
    before = sum(bytes_here(r, folder / r.path) for r in missing)
    if total - before > shutil.disk_usage(folder).free:
        raise no_room(folder, total - before)
    states: dict[str, Literal["fetched", "resumed"]] = {}
    events = _in_threads(missing, folder, web)
    with progress(total, before) as advance, closing(events):
        for event in events:
            if isinstance(event, int):
                advance(event)
                continue
            remote, resumed = event
            record.add(remote, folder / remote.path)
            states[remote.path] = "resumed" if resumed else "fetched"
    return states


class _Record:
    """List of fetched files in lines of JSON; a line cut short by a kill is ignored."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
                self._lines[entry["path"]] = entry
            except (ValueError, TypeError, KeyError):
                continue

    def holds(self, remote: Remote, path: Path) -> bool:
        """Whether a file is the one listed, byte for byte if a checksum is known."""
        entry = self._lines.get(remote.path, {})
        if entry.get("of") == _version(remote):
            return bool(entry.get("sha256") == checksum_of(path, "sha256:"))
        known = remote.checksum is not None and not remote.gzipped
        return known and checksum_of(path, remote.checksum) == remote.checksum

    def add(self, remote: Remote, path: Path) -> None:
        """Note a file that was fetched just now."""
        known = remote.checksum or ""
        as_sent = known.startswith("sha256:") and not remote.gzipped
        entry = {
            "path": remote.path,
            "of": _version(remote),
            "sha256": known if as_sent else checksum_of(path, "sha256:"),
            "url": remote.url,
        }
        self._lines[remote.path] = entry
        with naming(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}\n")  # an earlier line may have been cut short


def _version(remote: Remote) -> str:
    return f"{remote.checksum or remote.url} {remote.size}"


@dataclass(frozen=True)
class _Ended:
    """A thread has ended, by an error or because no work is left."""

    error: BaseException | None


def _in_threads(
    remotes: Sequence[Remote], folder: Path, web: Web
) -> Generator[int | tuple[Remote, bool], None, None]:
    """Fetch files; yields bytes received, and each finished file with whether it was resumed."""
    tasks: queue.SimpleQueue[Remote] = queue.SimpleQueue()
    events: queue.SimpleQueue[int | tuple[Remote, bool] | _Ended] = queue.SimpleQueue()
    for remote in remotes:
        tasks.put(remote)

    def work() -> None:
        try:
            while True:
                remote = tasks.get_nowait()
                events.put(
                    (remote, fetch(remote, folder / remote.path, web=web, advance=events.put))
                )
        except queue.Empty:
            events.put(_Ended(None))
        except BaseException as e:
            events.put(_Ended(e))

    # daemons, so that a hanging read does not delay the end of the program
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(JOBS, len(remotes)))]
    for thread in threads:
        thread.start()
    running = len(threads)
    try:
        while running:
            event = events.get()
            if not isinstance(event, _Ended):
                yield event
            elif event.error is not None:
                raise event.error
            else:
                running -= 1
    finally:
        web.stop.set()
        for thread in threads:
            thread.join(1.0)
