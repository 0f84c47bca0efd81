"""Definitions of rules and columns, for terminal and report."""

from __future__ import annotations

# Rules that choose one model for a whole dataset.
TASK_RULES = {
    "auto": "the default of choose: an estimate of every model's accuracy from all the evidence "
    "at hand, which leaves BMA only where that pays in expectation",
    "labels": "labels alone: each model's mean on the labelled prompts, ties by BMA",
    "BMA": "best model on average over the benchmark's datasets (strict: without the one held "
    "out; published: with it)",
    "S1": "mean vote of the k nearest benchmark records (eq. 3)",
    "S2": "share of prompts whose vote is above t (eq. 4)",
    "S3": "S2 allowing for a wrong predictor: S2·p̂ + (1 − S2)(1 − p̂) (eq. 7)",
    "S3 with fallback": "S3's model if it beats BMA with probability above η, else BMA (eq. 8)",
    "S3 true p": "S3 with fallback, with the held-out dataset's true p in place of p̂",
    "LL": "highest mean log-likelihood of the model's own answers; needs every model run",
    "cheapest": "lowest cost, then fewest parameters",
    "random": "a model drawn at random: the mean over models",
    "oracle": "the dataset's best model, known only afterwards; inflated, as any maximum over "
    "noise",
    "oracle (split-half)": "the best model chosen on one half of the records and scored on the "
    "other: the ceiling without that inflation",
    "oracle per record": "a right model for every record that any model answers",
}

# Rules that choose a model for every prompt.
PROMPT_RULES = {
    "auto": "the default of route: every model's standing and what the nearest records, their "
    "datasets and the embedding add, as far as held-out records say that it pays",
    "mean": "(Σ scores of the k nearest + the model's standing) / (votes + 1)",
    "raw": "plain mean score of the k nearest",
    "s3": "ḡ·p̂(u) + (1 − ḡ)(1 − p̂(u)), u the prompt's own distance",
    "BMA": "best model on average over the benchmark",
    "cheapest": "lowest cost, then fewest parameters",
    "random": "a model drawn at random: the mean over models",
    "oracle": "the best model of every prompt, the cheapest of them; known only afterwards",
    "oracle per dataset": "the best model of every dataset's test prompts; known only afterwards, "
    "and inflated, as any maximum over noise",
    "linear regression": "baseline: every model's score by least squares on the embedding",
    "kNN-100": "baseline: mean score of the 100 nearest",
}

TABLE_ONE = (
    ("accuracy", "mean correctness of the chosen model, macro average over datasets"),
    ("95 %", "bootstrap interval over datasets (percentile); of a difference: paired"),
    ("vs BMA", "accuracy less that of BMA on the same datasets"),
    ("ratio", "accuracy / accuracy of the dataset's best model, mean over datasets"),
    ("Pearson, Spearman", "correlation of the rule's scores with the true accuracies over models"),
    ("% BMA", "share of datasets on which the choice is BMA's"),
    ("params B", "mean size of the chosen models, billions of parameters"),
    ("rank", "place of the chosen model among all models of the dataset, 1 = best"),
)

NESTINGS = {
    "strict": "Strict nesting: the held-out dataset is kept out of BMA, and of the predictors "
    "behind the training pairs of p̂ as well",
    "published": "Published nesting, as in the paper's experiments: only the dataset's own pairs "
    "are dropped, and BMA includes it",
}

# arXiv 2309.15789, Table 1: HELM, 29 datasets × 18 models; not our results.
PAPER_TABLE_ONE = (
    ("S1", 0.662, 0.855, 0.685, 0.465, 0.17, 40.3, 6.172),
    ("S2", 0.676, 0.868, 0.636, 0.468, 0.10, 44.3, 5.897),
    ("S3", 0.694, 0.898, 0.727, 0.492, 0.48, 49.8, 5.310),
    ("S3 true p", 0.735, 0.944, 0.799, 0.596, 0.22, 33.8, 3.800),
    ("LL", 0.684, 0.869, 0.714, 0.459, 0.10, None, 6.517),
    ("BMA (llama-2-70b)", 0.688, 0.884, None, None, 1.00, 70.0, 6.069),
    ("oracle", 0.773, 1.000, None, None, 0.21, 29.1, 1.000),
)
