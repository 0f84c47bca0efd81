"""Results of single prompts made by hand, for tests of what is measured on them."""

from __future__ import annotations

import numpy as np

from benchrouter.evaluation.prompts.prompt_results import PromptResults


def make_results(scores, picks, *, dataset=None, predicted=None, fallback=None, **fields):
    """Build PromptResults from scores (Q, M) and picks per rule, all else filled in."""
    scores = np.asarray(scores, np.float32)
    n_prompts, n_models = scores.shape
    dataset = np.zeros(n_prompts, np.int32) if dataset is None else np.asarray(dataset, np.int32)
    n_datasets = int(dataset.max()) + 1
    defaults = dict(
        protocol="random split",
        datasets=tuple(f"dataset {d}" for d in range(n_datasets)),
        models=tuple(f"model {m}" for m in range(n_models)),
        k=5,
        kappa=19,
        seed=0,
        rows=np.arange(n_prompts),
        dataset=dataset,
        picks={rule: np.asarray(picked, np.int32) for rule, picked in picks.items()},
        predicted={r: np.asarray(p, np.float32) for r, p in (predicted or {}).items()},
        fallback={r: np.asarray(f, np.bool_) for r, f in (fallback or {}).items()},
        distance=np.full(n_prompts, 0.5),
        distance_limit=np.full(n_prompts, 0.9),
        scores={"score": scores},
        correctness=np.where(np.isnan(scores), np.nan, scores > 0.5).astype(np.float32),
        cost_usd=None,
        expected_cost_usd=None,
        params_b=np.full(n_models, np.nan),
        notes=(),
    )
    if fields.get("expected_cost_usd") is not None:  # of each prompt, or one row for all
        expected = np.asarray(fields["expected_cost_usd"], np.float32)
        fields["expected_cost_usd"] = np.broadcast_to(expected, scores.shape)
    return PromptResults(**{**defaults, **fields})
