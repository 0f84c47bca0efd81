"""``benchrouter choose``: one model for a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchrouter.cli import options, output
from benchrouter.cli.cost_options import CostOptions
from benchrouter.cli.encoding import EncodingOptions, encode_all, load_router

if TYPE_CHECKING:
    from benchrouter.decisions.answers import TaskDecision
    from benchrouter.decisions.suggestions import LabelSuggestion
    from benchrouter.decisions.written.source import Task
    from benchrouter.files.arrays import Floats
    from benchrouter.router import Router


@dataclass(frozen=True)
class LabelOptions:
    """Labels of some prompts, and whether to ask for more."""

    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scores from 0 (wrong) to 1 (right), or nothing, of models on some prompts: .csv, "
            ".jsonl or .parquet, a column a model, a row a prompt. Rows are those of the first "
            "prompts, or of the prompts that a column `row` (from 1) or `prompt` names.",
        ),
    ] = None
    label_threshold: Annotated[
        float | None,
        typer.Option(
            help="A label above it is right. Without it labels must lie in [0, 1], and are right "
            "above 0.5.",
        ),
    ] = None
    suggest_labels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Name N prompts, and the models to grade on them next: those that may still be "
            "the best. With --output as a CSV file to fill in and hand back by --labels.",
        ),
    ] = None
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.csv",
            help="For --suggest-labels: labels so far, and empty cells to fill in.",
        ),
    ] = None
    max_regret: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="For --suggest-labels: no more labels are needed once the choice lies with 90 % "
            "chance at most so far below the best model's accuracy.",
        ),
    ] = 0.01

    def check(self, on_error: str) -> None:
        """Refuse options that need others."""
        file = self.output_file
        if file is not None and (self.suggest_labels is None or file.suffix != ".csv"):
            raise typer.BadParameter(f"--output {file} expects --suggest-labels N and a .csv")
        if self.labels is not None and on_error == "skip":
            raise typer.BadParameter("--labels needs every prompt, so --on-error must be raise")


@options.panelled
def choose(
    directory: options.RouterDir,
    prompts: options.Prompts,
    *,
    labels: LabelOptions,
    score: Annotated[
        str, typer.Option(help="auto (expected accuracy, from all evidence), s1, s2 or s3.")
    ] = "auto",
    models: options.ModelsAtHand = None,
    costs: Annotated[CostOptions, "tokens"],
    encoding: EncodingOptions,
    prompt_column: options.PromptColumn = "prompt",
    format: options.Format = None,
    on_error: options.OnError = "raise",
    as_json: options.Json = False,
) -> None:
    """Choose one model for a task, from some of its prompts.

    With an option of costs, a model's score on the task is weighed against its expected cost, the
    mean over the prompts: --budget-usd is for all these prompts, and --min-success takes the
    cheapest model whose expected accuracy exceeds τ.
    """
    chosen_score = options.check_score(score)
    options.check_format(format)
    options.check_on_error(on_error)
    labels.check(on_error)
    from benchrouter.decisions.written import PromptSource, Reading
    from benchrouter.prompts.labels import read_labels, write_labels

    policy = costs.policy()
    reading = Reading(prompt_column, format, on_error, encoding.embeddings, costs.tokens_column)
    with PromptSource(prompts, reading) as source:
        task = source.read_all()
        output.say_skipped(task.rejected)
        if not task.prompts:
            raise ValueError(f"{prompts}: found no prompt, expected at least one")
        router = load_router(directory, encoding, source.embeddings)
    known = None
    if labels.labels is not None:
        known = read_labels(
            *(labels.labels, router.models, task.prompts),
            prompt_column=prompt_column,
            any_scale=labels.label_threshold is not None,
        )
    if task.embeddings is None:
        task = task._replace(embeddings=encode_all(router.encoder, task.prompts))
    listed = options.listed(models)
    decision = router.choose(
        *(task.prompts, known),
        embeddings=task.embeddings,
        score=chosen_score,
        label_threshold=labels.label_threshold,
        models=listed,
        policy=policy,
        tokens=task.tokens,
    )
    asked = _suggestion(router, task, known, labels, listed)
    if asked is not None and labels.output_file is not None:
        write_labels(
            *(labels.output_file, router.models, task.prompts, known),
            *(asked.prompts.tolist(), asked.models),
            prompt_column=prompt_column,
        )
    if as_json:
        suggestion = {} if asked is None else {"suggestion": asked.to_dict()}
        output.emit({**decision.to_dict(), **suggestion, "skipped": task.rejected})
        return
    show_task(decision)
    if asked is not None:
        show_suggestion(asked, task.prompts, labels.output_file)


def _suggestion(
    router: Router,
    task: Task,
    known: Floats | None,
    labels: LabelOptions,
    models: list[str] | None,
) -> LabelSuggestion | None:
    """The labels to ask for next, if --suggest-labels is given."""
    if labels.suggest_labels is None:
        return None
    return router.suggest_labels(
        *(task.prompts, known),
        n=labels.suggest_labels,
        embeddings=task.embeddings,
        max_regret=labels.max_regret,
        label_threshold=labels.label_threshold,
        models=models,
    )


REPEATED = 0.8  # share of effective prompts below which the user is told of repeats
NAMES = {"auto": "expected accuracy", "s1": "S1", "s2": "S2", "s3": "S3"}


def show_task(decision: TaskDecision, title: str = "") -> None:
    """Print a table of all models and the choice."""
    import numpy as np

    used = getattr(decision, decision.score)
    order = np.argsort(-used, kind="stable").tolist()  # NaN comes last
    chosen = decision.models.index(decision.model)
    here = decision.task_cost_usd
    own = [] if here is None else ["US$ here"]
    rows: list[list[Any]] = [
        [
            decision.models[m],
            _plus_minus(float(decision.auto[m]), float(decision.auto_sd[m])),
            *(float(a[m]) for a in (decision.s1, decision.s2, decision.s3, decision.p_hat)),
            int(decision.support[m]),
            float(decision.standing[m]),
            output.amount(decision.params_b[m]),
            output.amount(decision.cost_usd[m]),
            output.amounts(decision.prices[m]),
            *([] if here is None else [output.amount(here[m])]),
        ]
        for m in order
    ]
    output.table(
        title or f"{decision.n_prompts:,} prompts, by {NAMES[decision.score]}",
        [
            "model",
            "accuracy",
            "S1",
            "S2",
            "S3",
            "p̂",
            "support",
            "standing",
            *output.MODEL_FACTS,
            *own,
        ],
        rows,
        marked=order.index(chosen),
    )
    u = decision.benchmark_distances
    known = u[~np.isnan(u)]
    span = f"; the benchmark's own {known.min():.3f} to {known.max():.3f}" if len(known) else ""
    facts = [
        ("model", decision.model),
        ("why", decision.reason),
        ("expected accuracy", _expected(decision)),
        *_expected_cost(decision),
        ("distance u", f"{decision.distance:.3f}{span}"),
    ]
    if decision.n_labels:
        facts.append(("labelled prompts", f"{decision.n_labels:,}"))
    if decision.warning:
        facts.append(("warning", decision.warning))
    output.facts(facts)


def _expected_cost(decision: TaskDecision) -> list[tuple[str, str]]:
    """Expected cost of the choice, if a policy asked for it."""
    cost, n = decision.expected_cost_usd, decision.n_prompts
    if cost is None:
        return []
    return [("expected cost", f"US$ {cost:.4g} a prompt, US$ {cost * n:.4g} for all {n:,}")]


def show_suggestion(asked: LabelSuggestion, prompts: Sequence[str], file: Path | None) -> None:
    """Print which labels to grade next, or that no more are needed."""
    facts: list[tuple[str, Any]] = [
        (
            "good enough",
            f"{asked.best} lies at most {asked.max_regret:g} below the best model with "
            f"{asked.chance:.0%} chance; " + ("90 % are needed" if not asked.reached else "enough"),
        )
    ]
    if asked.reached:
        facts.append(("labels", "no more are needed"))
    elif len(asked.prompts) == 0:
        facts.append(("labels", "every prompt has some; give more prompts"))
    else:
        facts.append(("models to grade", ", ".join(asked.models)))
        facts.append(("on prompts", f"{len(asked.prompts):,}, fresh ones"))
    if file is not None:
        facts.append(("written", f"{file}: fill in the empty cells, and give it by --labels"))
    elif len(asked.prompts):
        rows = [[int(i) + 1, output.shorten(prompts[i])] for i in asked.prompts]
        output.table("prompts to grade", ["row", "prompt"], rows)
    output.facts(facts)


def _plus_minus(mean: float, sd: float) -> str:
    return f"{mean:.3f}" if sd != sd else f"{mean:.3f} ± {sd:.3f}"


def _expected(decision: TaskDecision) -> str:
    """Expected accuracy of the choice and its interval, or why there is none."""
    if decision.interval is None:
        return (
            f"{decision.expected_accuracy:.3f} (too few datasets in the benchmark for an interval)"
        )
    low, high = decision.interval
    unlabelled = decision.n_prompts - decision.n_labels
    on = f"{decision.n_prompts:,} prompts of the task"
    if 0 < unlabelled < decision.n_prompts:
        on = f"the {unlabelled:,} prompts without labels"
    if decision.n_effective < REPEATED * (unlabelled or decision.n_prompts):
        on += f" (many repeat: they tell as much as {decision.n_effective:,.0f})"
    return (
        f"{decision.expected_accuracy:.3f}; measured on {on}, with 80 % chance between "
        f"{low:.3f} and {high:.3f} (sampling error included)"
    )
