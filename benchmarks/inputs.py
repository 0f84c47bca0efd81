"""What the benchmarks read: encoders and prompts, real ones where they can be had; unit rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import SHARED

from benchrouter import Settings
from benchrouter.router import Router
from benchrouter.tables.table import BenchmarkTable

# Percentiles 0, 5 … 100 of the tokens of mmlu_pro's prompts by all-MiniLM-L6-v2's tokenizer, cut
# at 256: 154 on the average.
LONG_TOKENS = (
    *(23, 56, 66, 76, 85, 93, 102, 111, 120, 131, 141, 154, 167, 183, 201, 223, 252),
    *(256, 256, 256, 256),
)
SHORT_TOKENS = 20  # mean of a chat prompt, drawn from a lognormal law between 4 and 80

MINILM = dict(
    architectures=["BertModel"],
    model_type="bert",
    hidden_act="gelu",
    hidden_size=384,
    intermediate_size=1536,
    layer_norm_eps=1e-12,
    max_position_embeddings=512,
    num_attention_heads=12,
    num_hidden_layers=6,
    pad_token_id=0,
    position_embedding_type="absolute",
    type_vocab_size=2,
    vocab_size=30522,
)
MPNET = dict(
    architectures=["MPNetModel"],
    model_type="mpnet",
    hidden_act="gelu",
    hidden_size=768,
    intermediate_size=3072,
    layer_norm_eps=1e-05,
    max_position_embeddings=514,
    num_attention_heads=12,
    num_hidden_layers=12,
    pad_token_id=1,
    relative_attention_num_buckets=32,
    vocab_size=30527,
)


def packaged_minilm() -> Path | None:
    """Folder of the packaged weights, where they are installed."""
    from benchrouter.embeddings import EncoderNotFound, resolve

    try:
        return resolve("minilm").folder
    except EncoderNotFound:
        return None


def random_encoder(folder: Path, config: dict[str, object]) -> Path:
    """Write an encoder of a real configuration with random weights, and return its folder.

    Its tokenizer is that of the packaged MiniLM where that is installed, else one of 30,000 words.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    kind = str(config["model_type"])
    made = transformers.AutoConfig.for_model(**config)
    # A wider range than the default: with it all embeddings are nearly equal.
    made.initializer_range = 0.05
    transformers.AutoModel.from_config(made).eval().save_pretrained(folder)
    packaged = packaged_minilm()
    if packaged is None:
        _write_words(folder, kind)
    else:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).write_bytes((packaged / name).read_bytes())
    (folder / "1_Pooling").mkdir(exist_ok=True)
    kinds = ("Transformer", "Pooling", "Normalize")
    for name, content in (
        ("sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False}),
        (
            "1_Pooling/config.json",
            {
                "word_embedding_dimension": config["hidden_size"],
                "pooling_mode_mean_tokens": True,
                "pooling_mode_cls_token": False,
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
            },
        ),
        (
            "modules.json",
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": "" if i == 0 else f"{i}_{part}",
                    "type": f"sentence_transformers.models.{part}",
                }
                for i, part in enumerate(kinds)
            ],
        ),
    ):
        (folder / name).write_text(json.dumps(content))
    (folder / "2_Normalize").mkdir(exist_ok=True)
    return folder


def _write_words(folder: Path, kind: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        if kind == "bert"
        else ["<s>", "<pad>", "</s>", "<unk>"]
    )
    start, end, unknown = (2, 3, 1) if kind == "bert" else (0, 2, 3)
    vocabulary = {word: i for i, word in enumerate([*names, *(f"w{i}" for i in range(30_000))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=names[unknown]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names[start]} $A {names[end]}",
        special_tokens=[(names[start], start), (names[end], end)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def long_prompts(n: int) -> tuple[list[str], str]:
    """Prompts of a benchmark, and what they are."""
    file = SHARED / "data" / "mmlu_pro.parquet"
    rng = np.random.default_rng(0)
    if file.exists():
        import pyarrow.parquet as pq

        every = pq.read_table(file, columns=["prompt"])["prompt"].to_pylist()
        return [every[i] for i in rng.choice(len(every), n, replace=False)], "mmlu_pro"
    lengths = np.interp(rng.uniform(0, 100, n), np.linspace(0, 100, 21), LONG_TOKENS)
    return words(rng, lengths - 2), "words, as many as mmlu_pro has tokens"


def short_prompts(n: int) -> list[str]:
    """Prompts of a few words, of English where MiniLM's vocabulary is there."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(np.log(SHORT_TOKENS) - 0.18, 0.6, n), 4, 80)
    return words(rng, lengths - 2)


def words(rng: np.random.Generator, lengths: np.ndarray) -> list[str]:
    """Texts of given numbers of words that are one token each."""
    packaged = packaged_minilm()
    if packaged is None:
        vocabulary = [f"w{i}" for i in range(30_000)]
    else:
        listed = (packaged / "vocab.txt").read_text().splitlines()
        vocabulary = [word for word in listed if word.isascii() and word.isalpha()]
    return [
        " ".join(vocabulary[i] for i in rng.integers(0, len(vocabulary), max(int(n), 1)))
        for n in lengths
    ]


def clusters(rng: np.random.Generator, n: int, dim: int) -> NDArray[np.float32]:
    """Centres of clusters: unit rows, float32 (n, dim)."""
    centres = rng.standard_normal((n, dim), dtype=np.float32)
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


def unit_rows(
    rng: np.random.Generator, centres: NDArray[np.float32], n: int
) -> NDArray[np.float32]:
    """Unit rows around centres, float32 (n, dim)."""
    rows = np.empty((n, centres.shape[1]), np.float32)
    noise = np.float32(1.2 / np.sqrt(centres.shape[1]))
    for start in range(0, n, 65536):
        block = rows[start : start + 65536]
        block[:] = noise * rng.standard_normal(block.shape, dtype=np.float32)
        block += centres[rng.integers(0, len(centres), len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def router_of(
    records: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    k: int,
    kappa: int,
    n_datasets: int = 2,
    device: str = "cpu",
) -> Router:
    """A router on synthetic records; its datasets only matter to `choose` and to fitting."""
    n, m = scores.shape
    table = BenchmarkTable(
        scores=scores,
        dataset=(np.arange(n) % n_datasets).astype(np.int32),
        datasets=tuple(f"dataset {d:02}" for d in range(n_datasets)),
        models=tuple(f"model {i}" for i in range(m)),
        sample_ids=[str(i) for i in range(n)],
        prompts=["synthetic"] * n,
        source_rows=np.arange(n),
        n_source_rows=n,
        params_b=np.full(m, np.nan),
        prices=np.full((m, 2), np.nan),
        metrics=("",) * n_datasets,
        thresholds=np.full(n_datasets, 0.5),
    )
    return Router.fit(
        table,
        embeddings=records,
        device=device,
        settings=Settings(k=k, kappa=kappa, label_shares=(0.0,), draws=1),
    )
