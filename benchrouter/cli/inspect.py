"""``benchrouter inspect``: what is inside a router."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchrouter.cli import options, output


def inspect(directory: options.RouterDir, as_json: options.Json = False) -> None:
    """Show what a router holds, and what its rule auto learnt; every file's hash is checked."""
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
    _show_learnt(document["auto"])
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
            ("neighbours that vote", f"{document['auto']['neighbours']} by the rule auto, else k"),
            ("k, κ", f"{settings['k']}, {settings['kappa']}"),
            ("σ, η, t", ", ".join(str(settings[n]) for n in ("sigma", "eta", "threshold"))),
            ("τ", document["tau"]),
            ("estimated from", document["estimated_from"]),
            ("compact", "yes" if document["compact"] else "no: records were added since"),
            ("index", output.index(document["approximation"])),
            ("encoder", "none recorded" if encoder is None else _encoder(encoder)),
        ]
    )


def _show_learnt(learnt: dict[str, Any]) -> None:
    """What held-out records taught the rule auto, for known prompts and for strange ones."""
    from benchrouter.scores.expected.prompt_scores import SCALE

    sides = [learnt["known"], learnt["strange"]]
    rows: list[list[str]] = [
        [f"weight of the {name}", *(_weights(side, i) for side in sides)]
        for i, name in enumerate(map(_view, learnt["views"]))
    ]
    rows += [
        ["the best on average is left", *(_margin(side["margin"]) for side in sides)],
        [
            "scores that count as equal, with costs",
            *(f"{side['tolerance']:.3f} apart" for side in sides),
        ],
        ["chance of success", *(_calibration(side, learnt["unit"]) for side in sides)],
        ["its spread over datasets", *(f"sd {side['spread']:.3f}" for side in sides)],
    ]
    output.table(
        "what held-out records taught the rule auto (weights: of differences between models; of "
        "what all models share)",
        ["", "known prompts", "strange prompts"],
        rows,
    )
    one, near, own, purity = learnt["gate"]
    output.facts(
        [
            (
                "strange, by chance",
                f"logistic of {one:.3g} {near:+.3g} × log(u + {SCALE}) {own:+.3g} × log(u of its "
                f"neighbours + {SCALE}) {purity:+.3g} × purity, the largest share of its "
                "neighbours in one dataset",
            )
        ]
    )


def _view(name: str) -> str:
    kind, _, penalty = name.partition(" ")
    return f"embedding (ridge penalty of {penalty} records)" if kind == "linear" else name


def _weights(side: dict[str, Any], i: int) -> str:
    return f"{side['weights'][i]:.2f}; {side['level_weights'][i]:.2f}"


def _margin(margin: float | None) -> str:
    if margin is None:
        return "never"
    return "for any lead" if margin == 0 else f"for leads above {margin:.3f}"


def _calibration(side: dict[str, Any], unit: bool) -> str:
    if side["calibration"] is None:
        return "not known: datasets without a threshold"
    slope, intercept = side["calibration"]
    of = "logit of the score" if unit else "score"
    return f"logistic of {slope:.2f} × {of} {intercept:+.2f}"


def _encoder(encoder: dict[str, Any]) -> str:
    return (
        f"{encoder['name']}, revision {encoder['revision']}, weights "
        f"{encoder['weights_sha256'][:16]}, {encoder['pooling']} pooling, "
        f"{encoder['max_tokens']} tokens, dim {encoder['dim']}, {encoder['dtype']}"
    )
