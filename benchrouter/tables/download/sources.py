"""Published benchmark results: addresses, licences and citations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PublicSource:
    """Published benchmark results.

    Attributes
    ----------
    name : str
        Its name on the command line.
    title, page, licence, citation : str
        For people; `citation` is BibTeX.
    """

    name: str
    title: str
    page: str
    licence: str
    citation: str


@dataclass(frozen=True)
class HubDataset(PublicSource):
    """Files of a dataset on the Hugging Face Hub.

    Attributes
    ----------
    repository : str
        OWNER/NAME.
    revision : str
        The commit to fetch by default.
    files : tuple of str
        All files of results.
    fetched : tuple of str
        Those to fetch by default.
    sha256 : mapping of str to str
        SHA-256 of files at `revision` that is known from elsewhere than the Hub; the Hub's own is
        checked too.
    """

    repository: str
    revision: str
    files: tuple[str, ...]
    fetched: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HelmRuns(PublicSource):
    """Run folders of HELM, in a public bucket of Google Cloud Storage.

    Attributes
    ----------
    bucket : str
    suite : str
        PROJECT/VERSION to fetch by default.
    files : tuple of str
        Files to fetch of a run folder.
    paper : tuple of str
        Patterns of the names of the runs of the datasets of arXiv 2309.15789, table 4.
    """

    bucket: str
    suite: str
    files: tuple[str, ...]
    paper: tuple[str, ...]


HELM = HelmRuns(
    name="helm",
    title="HELM: prompts, answers and scores of every run",
    page="https://crfm-helm.readthedocs.io/en/latest/downloading_raw_results/",
    licence="HELM is Apache-2.0; none is stated for its results, and the prompts in them keep the "
    "licences of their datasets",
    citation="""\
@article{liang2023holistic,
  title={Holistic Evaluation of Language Models},
  author={Percy Liang and Rishi Bommasani and Tony Lee and Dimitris Tsipras and others},
  journal={Transactions on Machine Learning Research},
  year={2023},
  url={https://openreview.net/forum?id=iO4LZibEqW}
}""",
    bucket="crfm-helm-public",
    # No public suite holds the 18 models of arXiv 2309.15789, whose authors ran HELM themselves.
    # This one has all of its 29 datasets. Until 2025 it lay at the root of the bucket.
    suite="classic/v0.3.0",
    files=("run_spec.json", "scenario.json", "scenario_state.json", "per_instance_stats.json"),
    paper=(
        "raft:*",
        "imdb:model=*",
        "civil_comments:*",
        "babi_qa:task=all,*",
        "boolq:model=*",
        "bbq:subject=all,*",
        "legal_support,method=multiple_choice_joint:*",
        "lsat_qa:task=all,method=multiple_choice_joint,*",
        "truthful_qa:task=mc_single,method=multiple_choice_joint,*",
        "entity_matching:*",
        "entity_data_imputation:*",
        "mmlu:subject=abstract_algebra,method=multiple_choice_joint,*",
        "mmlu:subject=college_chemistry,method=multiple_choice_joint,*",
        "mmlu:subject=computer_security,method=multiple_choice_joint,*",
        "mmlu:subject=econometrics,method=multiple_choice_joint,*",
        "mmlu:subject=us_foreign_policy,method=multiple_choice_joint,*",
    ),
)

MIXINSTRUCT = HubDataset(
    name="mixinstruct",
    title="MixInstruct: answers of 11 models with BERTScore, BARTScore and BLEURT",
    page="https://huggingface.co/datasets/llm-blender/mix-instruct",
    licence="MIT, says its card; the prompts in it keep the licences of their sources",
    citation="""\
@inproceedings{llm-blender-2023,
  title={LLM-Blender: Ensembling Large Language Models with Pairwise Comparison and Generative \
Fusion},
  author={Jiang, Dongfu and Ren, Xiang and Lin, Bill Yuchen},
  booktitle={Proceedings of the 61st Annual Meeting of the Association for Computational \
Linguistics (ACL 2023)},
  year={2023}
}""",
    repository="llm-blender/mix-instruct",
    revision="c7f77a4ef0515a99d1752c6387c22366d6922da6",
    files=("train_data_prepared.jsonl", "val_data_prepared.jsonl", "test_data_prepared.jsonl"),
    fetched=("train_data_prepared.jsonl", "val_data_prepared.jsonl", "test_data_prepared.jsonl"),
)

ROUTERBENCH = HubDataset(
    name="routerbench",
    title="RouterBench: scores, answers and costs of 11 models",
    page="https://huggingface.co/datasets/withmartian/routerbench",
    licence="none stated on its card; ask its authors before you pass it on",
    citation="""\
@article{hu2024routerbench,
  title={RouterBench: A Benchmark for Multi-LLM Routing System},
  author={Qitian Jason Hu and Jacob Bieker and Xiuyu Li and Nan Jiang and Benjamin Keigwin and \
Gaurav Ranganath and Kurt Keutzer and Shriyash Kaustubh Upadhyay},
  journal={arXiv preprint arXiv:2403.12031},
  year={2024}
}""",
    repository="withmartian/routerbench",
    revision="784021482c3f320c6619ed4b3bb3b41a21424fcb",
    files=("routerbench_0shot.pkl", "routerbench_5shot.pkl", "routerbench_raw.pkl"),
    fetched=("routerbench_0shot.pkl", "routerbench_5shot.pkl"),
    sha256={
        # Published, for these files, by several projects that hold them.
        "routerbench_0shot.pkl": "ba4f77f19517610a707c374e99322d7750c30fc4ae7ff5527888595a1e65d36d",
        "routerbench_5shot.pkl": "fbd7d3d16fba2759a18fa0ad44409d3e0e92ba80d03d90827eed1a6d084c9ffe",
    },
)

SourceName = Literal["helm", "mixinstruct", "routerbench"]
SOURCES: Mapping[str, HelmRuns | HubDataset] = {
    source.name: source for source in (HELM, MIXINSTRUCT, ROUTERBENCH)
}
