"""What a source holds: names, addresses, sizes and checksums of files, as its server lists them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from benchrouter.tables.download.sources import HelmRuns, HubDataset
from benchrouter.tables.download.web import Web

HUB = "https://huggingface.co"
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
        Bytes that are sent.
    checksum : str or None
        ``sha256:…``, ``md5:…``, ``crc32c:…`` or ``git-sha1:…`` of the bytes that are sent, in
        hexadecimal; None where the server states none.
    gzipped : bool
        Whether what is sent is the gzipped file.
    """

    path: str
    url: str
    size: int
    checksum: str | None
    gzipped: bool = False


@dataclass(frozen=True)
class Listing:
    """The files asked for, which version they are of, and what there is to say of them."""

    remotes: list[Remote]
    version: str
    notes: list[str]


def hub_tokens() -> dict[str, str]:
    """HF_TOKEN, for the host of HF_ENDPOINT only."""
    token = os.environ.get("HF_TOKEN", "").strip()
    return {urlsplit(_hub()).netloc: token} if token else {}


def list_hub(
    source: HubDataset, patterns: Sequence[str], revision: str | None, web: Web
) -> Listing:
    """List files of a dataset on the Hub, or on the mirror that HF_ENDPOINT names.

    Parameters
    ----------
    source : HubDataset
    patterns : sequence of str
        Of names of files, as a shell takes them; none for the usual ones.
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
    Refused
        If the server refuses the listing.
    """
    names = [
        name
        for name in source.files
        if (any(fnmatchcase(name, p) for p in patterns) if patterns else name in source.fetched)
    ]
    if not names:
        raise ValueError(
            f"{source.name} has no file {' or '.join(patterns)}, it has {', '.join(source.files)}"
        )
    wanted = revision or source.revision
    url = f"{_hub()}/api/datasets/{source.repository}/revision/{quote(wanted, safe='')}?blobs=true"
    answer = web.json(url)
    with _form_of(url):
        commit = str(answer["sha"])
        held = {str(file["rfilename"]): file for file in answer["siblings"]}
        missing = [name for name in names if name not in held]
        if not missing:
            remotes = [_hub_file(source, commit, held[name]) for name in names]
    if missing:
        raise ValueError(
            f"{source.repository} has no {missing[0]} at revision {wanted}, it has "
            f"{', '.join(sorted(held))}"
        )
    pinned = source.sha256 if commit == source.revision else {}
    for remote in remotes:
        expected = pinned.get(remote.path)
        if expected and remote.checksum != f"sha256:{expected}":
            raise ValueError(
                f"{remote.url}: the server lists {remote.checksum}, expected sha256:{expected} at "
                f"revision {commit}"
            )
    return Listing(remotes, commit, [])


def list_helm(source: HelmRuns, patterns: Sequence[str], suite: str, web: Web) -> Listing:
    """List the run folders of a suite of HELM.

    BENCHROUTER_HELM_URL may name a mirror in place of ``https://storage.googleapis.com``.

    Parameters
    ----------
    source : HelmRuns
    patterns : sequence of str
        Of names of runs, as a shell takes them; none for all runs.
    suite : str
        PROJECT/VERSION, or a VERSION of the project ``classic``.
    web : Web

    Returns
    -------
    Listing
        Runs that lack a file which is needed to read them are left out, with a note.

    Raises
    ------
    ValueError
        If the suite is unknown, no run matches, or the listing is not as expected.
    Refused
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
    whole = {run: files for run, files in sorted(runs.items()) if all(f in files for f in NEEDED)}
    notes = []
    if len(whole) < len(runs):
        left_out = next(run for run in sorted(runs) if run not in whole)
        lacks = next(file for file in NEEDED if file not in runs[left_out])
        notes.append(
            f"{len(runs) - len(whole):,} of {len(runs):,} runs are left out: files that are needed "
            f"to read them are not published ({left_out} has no {lacks})"
        )
    remotes = [files[name] for files in whole.values() for name in sorted(files)]
    return Listing(remotes, f"{project}/{version}", notes)


def _no_runs(source: HelmRuns, folder: str, patterns: Sequence[str], project: str, web: Web) -> str:
    """Say that nothing matches, and which suites there are if the suite is unknown."""
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


def _hub() -> str:
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _storage() -> str:
    return (os.environ.get("BENCHROUTER_HELM_URL") or STORAGE).rstrip("/")


def _hub_file(source: HubDataset, commit: str, file: dict[str, Any]) -> Remote:
    name = file["rfilename"]
    large = file.get("lfs")
    checksum = f"sha256:{large['sha256']}" if large else f"git-sha1:{file['blobId']}"
    url = f"{_hub()}/datasets/{source.repository}/resolve/{commit}/{quote(name)}"
    return Remote(_checked(name), url, int(file["size"]), checksum)


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
        page = web.json(url)
        with _form_of(url):
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


def _literal(pattern: str) -> str:
    """Beginning of a pattern that stands for itself."""
    ends = [pattern.index(c) for c in "*?[" if c in pattern]
    return pattern[: min(ends, default=len(pattern))]


def _checked(path: str) -> str:
    """Refuse a path that would leave the folder."""
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or "\0" in path:
        raise ValueError(f"found the file name {path!r} in a listing, expected a relative path")
    return path


@contextmanager
def _form_of(url: str) -> Iterator[None]:
    """Within, an answer that is not as expected names where it came from."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise ValueError(f"{url}: the listing is not of the expected form: {e!r}") from e
