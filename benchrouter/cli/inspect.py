"""``benchrouter inspect``: what is inside a router."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchrouter.cli import options, output


def inspect(directory: options.RouterDir, as_json: options.Json = False) -> None:
    """Show what a router holds; the hash of every file is checked."""
    from benchrouter.router import Router

    document = {
        **Router.load(directory, verify=True).describe(),
        "verified": True,
        "files": _files(directory),
    }
    if as_json:
        output.emit(document)
    else:
        _show(document)


def _files(directory: Path) -> dict[str, dict[str, Any]]:
    return dict(json.loads((directory / "router.json").read_text(encoding="utf-8"))["files"])


def _show(document: dict[str, Any]) -> None:
    models, datasets, files = document["models"], document["datasets"], document["files"]
    output.table(
        "models",
        ["model", "standing", *output.MODEL_FACTS],
        [
            [
                m["name"],
                m["standing"],
                output.amount(m["params_b"]),
                output.amount(m["cost_usd"]),
                output.amounts(m["usd_per_million_tokens"]),
            ]
            for m in models
        ],
    )
    output.table(
        "datasets",
        ["dataset", "records", "distance u"],
        [[d["name"], d["n_records"], d["distance"]] for d in datasets],
    )
    output.table(
        "files, every hash as recorded",
        ["file", "bytes", "SHA-256"],
        [[name, f["bytes"], f["sha256"][:16]] for name, f in files.items()],
    )
    encoder = document["encoder"]
    settings = document["settings"]
    output.facts(
        [
            ("records", document["n_records"]),
            ("best on average", document["best_on_average"]),
            ("fallback model", document["fallback"]),
            ("distance limit", document["distance_limit"]),
            ("k, κ", f"{settings['k']}, {settings['kappa']}"),
            ("σ, η, t", ", ".join(str(settings[n]) for n in ("sigma", "eta", "threshold"))),
            ("τ", document["tau"]),
            ("estimated from", document["estimated_from"]),
            ("compact", "yes" if document["compact"] else "no: records were added since"),
            ("index", output.index(document["approximation"])),
            ("encoder", "none recorded" if encoder is None else _encoder(encoder)),
        ]
    )


def _encoder(encoder: dict[str, Any]) -> str:
    return (
        f"{encoder['name']}, revision {encoder['revision']}, weights "
        f"{encoder['weights_sha256'][:16]}, {encoder['pooling']} pooling, "
        f"{encoder['max_tokens']} tokens, dim {encoder['dim']}, {encoder['dtype']}"
    )
