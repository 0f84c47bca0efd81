"""The HELM runs of arXiv 2309.15789: 29 datasets and 18 models."""

from __future__ import annotations

import re
from collections.abc import Collection

PRESET = "helm-paper"
_RAFT = """
    ade_corpus_v2 banking_77 neurips_impact_statement_risks one_stop_english overruling
    semiconductor_org_types systematic_review_inclusion tai_safety_research terms_of_service
    tweet_eval_hate twitter_complaints
    """
_MMLU = """
    abstract_algebra college_chemistry computer_security econometrics us_foreign_policy
    """
# HELM's names of runs, without the arguments that do not choose a dataset.
DATASETS = (
    *(f"raft:subset={name}" for name in _RAFT.split()),
    "imdb",
    "civil_comments",
    "babi_qa",
    "boolq",
    "bbq",
    "legal_support",
    "lsat_qa",
    "truthful_qa",
    *(f"entity_matching:dataset={name}" for name in ("Beer", "Dirty_iTunes_Amazon", "Abt_Buy")),
    *(f"entity_data_imputation:dataset={name}" for name in ("Restaurant", "Buy")),
    *(f"mmlu:subject={name}" for name in _MMLU.split()),
)
# Billions of parameters.
MODELS = {
    "codegen-16b-mono": 16.0,
    "dial-flant5-xl": 3.0,
    "falcon-40b": 40.0,
    "flan-t5-xl": 3.0,
    "flan-t5-xxl": 11.0,
    "flan-ul2": 20.0,
    "gpt-jt-6b-v1": 6.0,
    "gpt-neox-20b": 20.0,
    "mpt-7b-instruct": 7.0,
    "mt0-xxl": 13.0,
    "llama-2-13b": 13.0,
    "llama-2-13b-chat": 13.0,
    "llama-2-13b-chat-beam": 13.0,
    "llama-2-70b": 70.0,
    "llama-2-70b-chat": 70.0,
    "llama-2-7b": 7.0,
    "llama-2-7b-chat": 7.0,
    "starcoder": 15.0,
}
_OTHER_NAMES = {"mpt-instruct-7b": "mpt-7b-instruct"}
# Arguments that choose a part of a dataset; these values mean all of it.
_CHOOSING = ("subset", "subject", "task", "demographic", "dataset", "only_contrast")
_WHOLE = ("all", "mc_single")


def paper_dataset(name: str) -> str | None:
    """Dataset of `DATASETS` for the name of a run or dataset; None if there is none."""
    scenario, *arguments = re.split("[:,]", name)
    pairs = [argument.partition("=") for argument in arguments]
    chosen = [
        f"{key}={value}" for key, _, value in pairs if key in _CHOOSING and value not in _WHOLE
    ]
    dataset = ":".join([scenario, ",".join(chosen)]) if chosen else scenario
    return dataset if dataset in DATASETS else None


def paper_model(name: str) -> str | None:
    """Model of `MODELS` for HELM's name, by whichever provider; None if there is none."""
    last = name.rpartition("/")[2].lower().removesuffix("-hf")
    model = _OTHER_NAMES.get(last, last)
    return model if model in MODELS else None


def whole() -> str:
    """Name some datasets and models of the preset."""
    return (
        f"one of the {len(DATASETS)} datasets ({', '.join(DATASETS[-3:])}, …) and of the "
        f"{len(MODELS)} models ({', '.join(list(MODELS)[-3:])}, …)"
    )


def not_found(found: Collection[tuple[str, str]]) -> list[str]:
    """Lines for the report: runs found, datasets and models without any, missing pairs.

    Parameters
    ----------
    found : collection of (str, str)
        Dataset and model of each run, by the paper's names.
    """
    datasets = [name for name in DATASETS if any(name == dataset for dataset, _ in found)]
    models = [name for name in MODELS if any(name == model for _, model in found)]
    whole = len(DATASETS) * len(MODELS)
    lines = [f"preset {PRESET}: {len(set(found))} of {whole} runs found"]
    for what, all_names, there in (
        ("datasets", DATASETS, datasets),
        ("models", tuple(MODELS), models),
    ):
        lacking = [name for name in all_names if name not in there]
        if lacking:
            listed = ", ".join(lacking)
            lines.append(f"no run of {len(lacking)} of the {len(all_names)} {what}: {listed}")
    for dataset in datasets:
        lacking = [model for model in models if (dataset, model) not in found]
        if lacking:
            lines.append(f"no run of {dataset} with {', '.join(lacking)}")
    return lines
