"""List the files of a source: names, addresses, sizes and checksums."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoSibling

from benchrouter.tables.download.sources import HelmRuns, HubDataset
from benchrouter.tables.download.web import Web, hub

STORAGE = "https://storage.googleapis.com"
NEEDED = ("run_spec.json", "scenario_state.json", "per_instance_stats.json")  # to read a HELM run


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes
    ----------
    path : str
        Where it goes, below the folder of its source; parts separated by ``/``.
    url : str
    size : int
        Bytes to be sent.
    checksum : str or None
        ``sha256:…``, ``md5:…``, ``crc32c:…`` or ``git-sha1:…`` of the bytes that are sent, in
        hexadecimal; None where the server states none.
    gzipped : bool
        Whether the server sends it gzipped.
    """

    path: str
    url: str
    size: int
    checksum: str | None
    gzipped: bool = False


@dataclass(frozen=True)
class Listing:
    """The files asked for, their version, and notes for the user."""

    remotes: list[Remote]
    version: str
    notes: list[str]


def list_hub(
    source: HubDataset, patterns: Sequence[str], revision: str | None, web: Web
) -> Listing:
    """List files of a dataset on the Hub, or on the mirror that HF_ENDPOINT names.

    Parameters
    ----------
    source : HubDataset
    patterns : sequence of str
        Shell patterns of names of files; empty for the usual ones.
    revision : str or None
        Commit, branch or tag; None for the one that `source` names.
    web : Web

    Returns
    -------
    Listing
        Its version is a commit.

    Raises
    ------
    ValueError
        If a file is missing, no name matches, or the listing is not as expected.
    DownloadRefused
        If the server refuses the listing.
    """
    names = [name for name in source.files if _matches(name, patterns or source.fetched)]
    if not names:
        raise ValueError(
            f"{source.name} has no file {' or '.join(patterns)}, it has {', '.join(source.files)}"
        )
    wanted = revision or source.revision
    url = f"{hub()}/api/datasets/{source.repository}/revision/{quote(wanted, safe='')}"
    ask = partial(HfApi(endpoint=hub()).dataset_info, source.repository, revision=wanted)
    with _form_of(url):
        info = web.attempt(url, partial(ask, files_metadata=True))
        commit = str(info.sha)
        held = {file.rfilename: file for file in info.siblings}
        remotes = [_hub_file(source, commit, held[name]) for name in names if name in held]
    missing = [name for name in names if name not in held]
    if missing:
        raise ValueError(
            f"{source.repository} has no {missing[0]} at revision {wanted}, it has "
            f"{', '.join(sorted(map(str, held)))}"
        )
    if commit == source.revision:
        _check_pinned(source, remotes)
    return Listing(remotes, commit, [])


def _check_pinned(source: HubDataset, remotes: Sequence[Remote]) -> None:
    """Refuse a checksum that is not the one known from elsewhere."""
    for remote in remotes:
        expected = source.sha256.get(remote.path)
        if expected and remote.checksum != f"sha256:{expected}":
            raise ValueError(
                f"{remote.url}: the server lists {remote.checksum}, expected sha256:{expected} at "
                f"revision {source.revision}"
            )


def list_helm(source: HelmRuns, patterns: Sequence[str], suite: str, web: Web) -> Listing:
    """List the run folders of a suite of HELM.

    BENCHROUTER_HELM_URL may name a mirror of ``https://storage.googleapis.com``.

    Parameters
    ----------
    source : HelmRuns
    patterns : sequence of str
        Shell patterns of names of runs; empty for all.
    suite : str
        PROJECT/VERSION, or a VERSION of the project ``classic``.
    web : Web

    Returns
    -------
    Listing
        Runs without a file that is needed to read them are left out, with a note.

    Raises
    ------
    ValueError
        If the suite is unknown, no run matches, or the listing is not as expected.
    DownloadRefused
        If the server refuses the listing.
    """
    project, _, version = suite.rpartition("/")
    project = project or "classic"
    folder = f"{project}/benchmark_output/runs/{version}/"
    runs: dict[str, dict[str, Remote]] = {}
    for pattern in patterns or ("*",):
        for item in _objects(source.bucket, folder + _literal(pattern), web):
            with _form_of(f"gs://{source.bucket}/{folder}"):
                run, _, file = item["name"].removeprefix(folder).partition("/")
                if fnmatchcase(run, pattern) and file in source.files:
                    runs.setdefault(run, {})[file] = _object(source.bucket, item)
    if not runs:
        raise ValueError(_no_runs(source, folder, patterns, project, web))
    lacking = {run: file for run in runs for file in NEEDED[::-1] if file not in runs[run]}
    remotes = [runs[r][file] for r in sorted(runs) if r not in lacking for file in sorted(runs[r])]
    return Listing(remotes, f"{project}/{version}", _left_out(lacking, len(runs)))


def _left_out(lacking: dict[str, str], n_runs: int) -> list[str]:
    """Say which runs lack a file; none if no run does."""
    if not lacking:
        return []
    run = min(lacking)
    return [
        f"{len(lacking):,} of {n_runs:,} runs are left out: files that are needed to read them are "
        f"not published ({run} has no {lacking[run]})"
    ]


def _no_runs(source: HelmRuns, folder: str, patterns: Sequence[str], project: str, web: Web) -> str:
    """Say that nothing matches; for an unknown suite, name those there are."""
    if next(_objects(source.bucket, folder, web), None) is not None:
        return f"no run of {folder} is named {' or '.join(patterns)}"
    above = f"{project}/benchmark_output/runs/"
    known = [
        prefix.removeprefix(above).strip("/")
        for page in _pages(source.bucket, {"prefix": above, "delimiter": "/"}, web)
        for prefix in page.get("prefixes", [])
    ]
    return f"found no run at gs://{source.bucket}/{folder}, expected one of the suites " + (
        ", ".join(f"{project}/{name}" for name in known)
        or "classic/v0.3.0, lite/v1.0.0 and others (see " + source.page + ")"
    )


def _storage() -> str:
    return (os.environ.get("BENCHROUTER_HELM_URL") or STORAGE).rstrip("/")


def _hub_file(source: HubDataset, commit: str, file: RepoSibling) -> Remote:
    name = file.rfilename
    url = hf_hub_url(source.repository, name, repo_type="dataset", revision=commit, endpoint=hub())
    checksum = f"sha256:{file.lfs.sha256}" if file.lfs else f"git-sha1:{file.blob_id}"
    return Remote(_checked(name), url, int(file.size), checksum)


def _objects(bucket: str, prefix: str, web: Web) -> Iterator[dict[str, Any]]:
    fields = "nextPageToken,items(name,size,md5Hash,crc32c,contentEncoding)"
    for page in _pages(bucket, {"prefix": prefix, "fields": fields}, web):
        yield from page.get("items", [])


def _pages(bucket: str, query: dict[str, str], web: Web) -> Iterator[dict[str, Any]]:
    base = f"{_storage()}/storage/v1/b/{bucket}/o"
    token = None
    while True:
        more: dict[str, str] = {"pageToken": token} if token else {}
        url = f"{base}?{urlencode({**query, 'maxResults': '1000', **more})}"
        with _form_of(url):
            page = json.loads(web.read(url))
            token = page.get("nextPageToken")
        yield page
        if not token:
            return


def _object(bucket: str, item: dict[str, Any]) -> Remote:
    name = item["name"]
    # objects put together from several uploads have no MD5
    sums = {"md5": item.get("md5Hash"), "crc32c": item.get("crc32c")}
    stated = (f"{kind}:{base64.b64decode(text).hex()}" for kind, text in sums.items() if text)
    return Remote(
        path=_checked(name),
        url=f"{_storage()}/{bucket}/{quote(name)}",
        size=int(item["size"]),
        checksum=next(stated, None),
        gzipped=item.get("contentEncoding") == "gzip",
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _literal(pattern: str) -> str:
    """Literal beginning of a pattern."""
    ends = [pattern.index(c) for c in "*?[" if c in pattern]
    return pattern[: min(ends, default=len(pattern))]


def _checked(path: str) -> str:
    """Refuse a path that would leave the folder."""
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise ValueError(f"found the file name {path!r} in a listing, expected a relative path")
    return path


@contextmanager
def _form_of(url: str) -> Iterator[None]:
    """Make errors from an unexpected answer name its address."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise ValueError(f"{url}: the listing is not of the expected form: {e!r}") from e
