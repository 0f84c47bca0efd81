"""``benchrouter demo``: every step on a small synthetic benchmark."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.choose import show_task
from benchrouter.cli.encoding import encode_all, load_encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchrouter.decisions.answers import Explanation, TaskDecision
    from benchrouter.demo import Demo
    from benchrouter.evaluation import LeaveOneOut
    from benchrouter.router import Router

RULES = ("BMA", "S1", "S2", "S3", "S3 with fallback", "auto", "oracle")
LEGEND = (
    ("BMA", "best model on average, over the benchmark's datasets"),
    ("S1", "mean over the task's prompts of the vote of their nearest benchmark records"),
    ("S2", "share of the prompts whose vote is above t (0.5): predicted right"),
    ("S3", "S2, allowing for wrong predictions: S2·p̂ + (1 − S2)(1 − p̂)"),
    ("p̂", "chance that such a prediction is right, learned from the other datasets"),
    ("u", "mean cosine distance from prompts to their nearest benchmark records"),
    ("fallback", "BMA, unless the chosen model beats it with probability above η (0.6)"),
    ("auto", "expected accuracy: benchmark mean, moved towards the task's neighbourhood"),
    ("oracle", "the best choice, known only afterwards; no rule can do better"),
    ("source", "S1, S2, S3, p̂, u: arXiv 2309.15789"),
)
HELD_OUT_PART = 5  # one record in five is held out


def demo(
    directory: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Save the router there."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Encoder: minilm, a local folder, or a hub name.")
    ] = "minilm",
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    as_json: options.Json = False,
) -> None:
    """Fit and try a router on a small synthetic benchmark made on the spot."""
    from benchrouter.demo import handful, make_demo
    from benchrouter.evaluation import leave_one_dataset_out
    from benchrouter.router import Router
    from benchrouter.scores.fitted import Settings
    from benchrouter.scores.saved import check_target

    if directory is not None:
        check_target(directory)
    stages = output.StageClock()
    made = make_demo()
    with stages("load encoder"):
        loaded = load_encoder(encoder, device=device)
    with stages("encode"):
        rows = encode_all(loaded, made.table.prompts)
    with stages("fit"), output.StageProgress() as progress:
        router = Router.fit(
            made.table,
            encoder=loaded,
            embeddings=rows,
            threads=threads,
            device=device,
            progress=progress,
        )
    with stages("leave one dataset out"), output.StageProgress() as progress:
        held_out = leave_one_dataset_out(
            made.table,
            rows,
            settings=Settings(label_shares=(0.0,), draws=1),
            nestings=("strict",),
            threads=threads,
            progress=progress,
        )
    with stages("hold out records"):
        by_record = route_held_out_records(made, rows, threads=threads)
    with stages("choose and route"):
        rows = loaded.encode(made.new_task)
        tasks = {
            "S1": router.choose(embeddings=rows, score="s1"),
            "S3": router.choose(embeddings=rows, score="s3"),
            "auto": router.choose(embeddings=rows),
            f"auto, {len(made.labels)} labels": router.choose(embeddings=rows, labels=made.labels),
        }
        reasons = [router.explain(prompt) for prompt in handful()]
    if directory is not None:
        router.save(directory)
    if as_json:
        output.emit(_document(made, held_out, by_record, tasks, reasons, stages.seconds))
        return
    _show_benchmark(made, router)
    print()
    output.facts(LEGEND)
    _show_held_out(held_out)
    _show_by_record(by_record)
    _show_task(made, router, tasks)
    _show_reasons(reasons)
    output.facts(
        [("seconds", ", ".join(f"{n} {s:.1f}" for n, s in stages.seconds.items()))]
        + ([("router written to", str(directory))] if directory else [])
    )
    _show_next(directory)


def route_held_out_records(
    made: Demo, rows: NDArray[np.float32], *, threads: int = 0
) -> dict[str, float]:
    """Accuracy of routing prompts one by one, by rule, on records held out of the fit.

    `rows` are the embeddings of the records, shape (n_records, dim).
    """
    import numpy as np

    from benchrouter.demo import SEED
    from benchrouter.router import Router
    from benchrouter.scores.fitted import Settings

    table = made.table
    order = np.random.default_rng(SEED).permutation(table.n_records)
    n_out = table.n_records // HELD_OUT_PART
    out, kept = np.sort(order[:n_out]), np.sort(order[n_out:])
    router = Router.fit(
        table.rows(kept),
        settings=Settings(label_shares=(0.0,)),
        embeddings=rows[kept],
        threads=threads,
    )
    scores = table.scores[out]
    found = {
        "BMA": scores[:, table.models.index(router.best_on_average)],
        "a model at random": scores.mean(axis=1),
    }
    for name, rule, k in (
        *(("auto", "auto", None), ("mean", "mean", None)),
        *(("raw, k = 10", "raw", 10), ("s3", "s3", None)),
    ):
        decisions = router.route(embeddings=rows[out], rule=rule, k=k)  # type: ignore[arg-type]
        found[f"rule {name}"] = scores[np.arange(n_out), decisions.model]
    found["oracle"] = scores.max(axis=1)
    return {name: float(right.mean(dtype=np.float64)) for name, right in found.items()}


def _show_by_record(by_record: dict[str, float]) -> None:
    base = by_record["BMA"]
    output.table(
        "synthetic, prompts routed one by one: a random fifth of the records held out",
        ["rule", "accuracy", "against BMA"],
        [[name, f"{right:.3f}", f"{right - base:+.3f}"] for name, right in by_record.items()],
    )


def _show_next(directory: Path | None) -> None:
    router = "DIR" if directory is None else str(directory)
    print()
    output.facts(
        [
            ("what to try next", "fit your own table: benchrouter fit TABLE -o DIR"),
            ("", f"one model for a task of yours: benchrouter choose {router} PROMPTS.txt"),
            ("", "layouts of tables, rules, limits: README.md"),
        ]
    )


def _show_benchmark(made: Demo, router: Router) -> None:
    table = made.table
    output.table(
        "synthetic benchmark: each model's chance of being right, as stated; nothing was measured",
        ["", *table.models],
        [
            ["params B", *(f"{p:.0f}" for p in table.params_b)],
            ["US$/10⁶ tokens", *(f"{p:.2f}" for p in table.prices[:, 0])],
            *(
                [name, *(f"{p:.2f}" for p in skills)]
                for name, skills in zip(table.datasets, made.skills, strict=True)
            ),
            ["mean", *(f"{p:.2f}" for p in made.skills.mean(axis=0))],
        ],
    )
    output.facts(
        [
            (
                "synthetic records",
                f"{table.n_records:,}: {table.n_datasets} datasets of "
                f"{table.n_records // table.n_datasets}, outcomes drawn once",
            ),
            ("best on average", router.best_on_average),
        ]
    )


def _show_held_out(held_out: LeaveOneOut) -> None:
    from benchrouter.evaluation.report.sheets.table_one import table_one
    from benchrouter.evaluation.report.sheets.task_sheets import by_dataset, chosen_models
    from benchrouter.evaluation.results import Pool
    from benchrouter.evaluation.tasks.measures import table_one as measures

    rows = {"strict": tuple(measures(held_out, "strict"))}
    pool = Pool("synthetic, each dataset held out in turn", "demo", {}, held_out, rows)
    for sheet in (table_one, chosen_models, by_dataset):
        output.show_sheet(sheet(pool, "strict"))
    output.facts([("synthetic result", verdict(held_out))])


def verdict(held_out: LeaveOneOut) -> str:
    """Say which rules beat the best model on average, and which do not."""
    base = held_out.macro_accuracy("strict", "BMA")
    gains = {
        rule: held_out.macro_accuracy("strict", rule) - base
        for rule in RULES
        if rule not in ("BMA", "oracle")
    }
    ahead = [rule for rule, gain in gains.items() if gain > 0]
    behind = [rule for rule, gain in gains.items() if gain < 0]
    parts = [
        f"{', '.join(rules)} {what} the best model on average"
        for rules, what in ((ahead, "beat"), (behind, "lost to"))
        if rules
    ]
    return "; ".join(parts) or "no rule did better or worse than the best model on average"


def _show_task(made: Demo, router: Router, tasks: dict[str, TaskDecision]) -> None:
    from benchrouter.demo import NEW_TASK

    skills = dict(zip(router.models, made.new_task_skills.tolist(), strict=True))
    best = max(skills, key=lambda name: skills[name])
    show_task(
        tasks["auto"], f"synthetic new task, {NEW_TASK}: {len(made.new_task)} prompts, no labels"
    )
    output.table(
        f"synthetic new task: what was chosen, and how often it is right there as stated "
        f"({best}, the best, {skills[best]:.2f})",
        ["by", "model", "stated", "why"],
        [[name, t.model, f"{skills[t.model]:.2f}", t.reason] for name, t in tasks.items()],
    )


def _show_reasons(reasons: list[Explanation]) -> None:
    output.table(
        "synthetic prompts, routed one by one (rule auto); of the neighbours the ten nearest",
        ["prompt", "model", "score", "chance", "u", "neighbours", "right"],
        [
            [
                output.shorten(found.prompt or "", 48),
                found.model,
                f"{found.score:.2f}",
                None if found.chance is None else f"{found.chance[_model(found)]:.2f}",
                f"{found.distance:.2f}",
                _neighbours(found),
                f"{_right(found)} of {len(found.neighbours)}"
                + (", fallback" if found.fallback else ""),
            ]
            for found in reasons
        ],
        cut=["prompt"],
    )


def _neighbours(found: Explanation) -> str:
    counts = Counter(n.dataset for n in found.neighbours)
    return ", ".join(f"{name} {n}" for name, n in counts.most_common())


def _model(found: Explanation) -> int:
    return found.models.index(found.model)


def _right(found: Explanation) -> int:
    return sum(n.scores[found.model] == 1.0 for n in found.neighbours)


def _document(
    made: Demo,
    held_out: LeaveOneOut,
    by_record: dict[str, float],
    tasks: dict[str, TaskDecision],
    reasons: list[Explanation],
    seconds: dict[str, float],
) -> dict[str, Any]:
    table = made.table
    return {
        "synthetic": True,
        "records": table.n_records,
        "datasets": list(table.datasets),
        "models": [
            {
                "model": name,
                "params_b": table.params_b[m],
                "usd_per_million_tokens": table.prices[m],
                "skills": dict(zip(table.datasets, made.skills[:, m].tolist(), strict=True)),
                "new_task_skill": made.new_task_skills[m],
            }
            for m, name in enumerate(table.models)
        ],
        "leave_one_dataset_out": held_out.to_dict(),
        "held_out_records": by_record,
        "new_task": {name: task.to_dict() for name, task in tasks.items()},
        "prompts": [found.to_dict() for found in reasons],
        "seconds": seconds,
    }
