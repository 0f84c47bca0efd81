"""``benchrouter download``: public benchmark results, from where their authors publish them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output

if TYPE_CHECKING:
    from benchrouter.tables.download.folder import Fetched
    from benchrouter.tables.download.listing import Listing
    from benchrouter.tables.download.sources import HelmRuns, HubDataset

NAMES = ("helm", "mixinstruct", "routerbench")
PAPER = "paper"


def download(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="SOURCE", help="helm, mixinstruct or routerbench.")
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only these: names of HELM's runs, such as 'mmlu:*model=openai_*' (paper: those "
            "of the datasets of arXiv 2309.15789), or of files elsewhere. Repeat it for several.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="[PROJECT/]VERSION",
            help="Of HELM: classic/v0.3.0 (if not given), lite/v1.0.0 …",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit or branch of the others; a known commit if not given."),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(envvar="BENCHROUTER_CACHE", help="Files go to downloads/SOURCE in there."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the files and their sizes.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Fetch public benchmark results; run it again to go on after a break.

    Sizes and checksums are verified. HTTPS_PROXY, HF_ENDPOINT and HF_TOKEN are respected.
    """
    from benchrouter.tables.download.sources import SOURCES, HelmRuns

    options.one_of(name, NAMES, "SOURCE")
    source = SOURCES[name]
    if isinstance(source, HelmRuns):
        options.refuse_given(
            context, ["revision"], "says nothing of helm, whose runs have a --suite"
        )
        if not only and not dry_run:
            raise typer.BadParameter(
                "expected a pattern of runs: a suite is hundreds of gigabytes, '*' takes it all, "
                "--dry-run lists it",
                param_hint="--only",
            )
        other = "--suite"
    else:
        options.refuse_given(context, ["suite"], f"says nothing of {name}, which has a --revision")
        other = "--revision"
    try:
        from benchrouter.tables.download.folder import download as fetch_all
        from benchrouter.tables.download.listing import list_helm, list_hub
        from benchrouter.tables.download.web import Web
    except ImportError as e:
        raise ImportError(
            f"download needs aiohttp, fsspec, google-crc32c and huggingface-hub, found {e}; "
            "pip install 'benchrouter[download]'"
        ) from e
    web = Web(tell=output.say, hint=f"{other} takes another one; see {source.page}")
    if isinstance(source, HelmRuns):
        listing = list_helm(source, _patterns(source, only), suite or source.suite, web)
    else:
        listing = list_hub(source, only or [], revision, web)
    for note in listing.notes:
        output.say(f"note: {note}")
    folder = _folder(cache_dir) / name
    if dry_run:
        _list(source, listing, folder, as_json)
        return
    files = fetch_all(
        listing.remotes,
        folder,
        web=web,
        progress=lambda total, before: output.Progress(f"fetch {name}", "bytes", total, before),
    )
    following = _following(source, listing, files, folder)
    if as_json:
        output.emit(
            {
                **_facts(source, listing, folder),
                "files": [
                    {
                        "path": str(file.path),
                        "url": file.remote.url,
                        "bytes": file.bytes,
                        "checksum": file.remote.checksum,
                        "state": file.state,
                    }
                    for file in files
                ],
                "next": following,
            }
        )
    else:
        _show(source, listing, folder, files, following)


def _patterns(source: HelmRuns, only: list[str] | None) -> list[str]:
    return [
        pattern for given in only or [] for pattern in (source.paper if given == PAPER else [given])
    ]


def _folder(cache_dir: Path | None) -> Path:
    from benchrouter.embeddings import default_cache_dir

    return (cache_dir or default_cache_dir().parent).absolute() / "downloads"


def _facts(source: HelmRuns | HubDataset, listing: Listing, folder: Path) -> dict[str, Any]:
    return {
        "source": source.name,
        "title": source.title,
        "page": source.page,
        "version": listing.version,
        "licence": source.licence,
        "citation": source.citation,
        "folder": str(folder),
        "bytes": sum(remote.size for remote in listing.remotes),
    }


def _list(source: HelmRuns | HubDataset, listing: Listing, folder: Path, as_json: bool) -> None:
    facts = _facts(source, listing, folder)
    if as_json:
        files = [
            {"path": r.path, "url": r.url, "bytes": r.size, "checksum": r.checksum}
            for r in listing.remotes
        ]
        output.emit({**facts, "files": files})
        return
    for remote in listing.remotes:
        print(f"{remote.size:>17,}  {remote.path}")
    print(f"{facts['bytes']:>17,}  bytes in {len(listing.remotes):,} files, to {folder}")


def _following(
    source: HelmRuns | HubDataset, listing: Listing, files: list[Fetched], folder: Path
) -> list[str]:
    """What to type next, a line each."""
    from benchrouter.tables.formats.routerbench import conversion

    if source.name == "helm":
        project, _, version = listing.version.partition("/")
        suite = shlex.quote(str(folder / project / "benchmark_output" / "runs" / version))
        return [
            f"benchrouter convert {suite} --output helm.parquet",
            f"benchrouter fit {suite} --output router",
        ]
    first = files[0].path
    if source.name == "mixinstruct":
        return [
            f"benchrouter convert {shlex.quote(str(first))} --output mixinstruct.parquet",
            f"benchrouter fit {shlex.quote(str(first))} --output router",
        ]
    table = first.with_suffix(".csv")
    return [
        *(conversion(file.path) for file in files),
        f"benchrouter fit {shlex.quote(str(table))} --output router",
    ]


def _show(
    source: HelmRuns | HubDataset,
    listing: Listing,
    folder: Path,
    files: list[Fetched],
    following: list[str],
) -> None:
    states = [file.state for file in files]
    unchecked = sum(file.remote.checksum is None for file in files)
    print(source.citation)
    print()
    output.facts(
        [
            ("source", f"{source.title} ({source.page})"),
            ("version", listing.version),
            ("licence", source.licence),
            ("files", ", ".join(f"{states.count(s):,} {s}" for s in dict.fromkeys(states))),
            ("bytes", sum(file.bytes for file in files)),
            *([("checked by size only", unchecked)] if unchecked else []),
            ("folder", str(folder)),
        ]
    )
    print()
    if source.name == "routerbench":
        print("A pickle can run any code when it is read: read it only if you trust its authors.")
    print("\n".join(following))
