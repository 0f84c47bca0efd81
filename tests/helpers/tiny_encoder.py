"""Small random-weight encoders in sentence-transformers' layout, made in a second."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = [f"w{i}" for i in range(300)]

BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}

# The configuration of all-mpnet-base-v2.
REAL_MPNET = dict(
    vocab_size=30527,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=514,
)


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_tokenizer(path: Path, names: list[str]) -> None:
    """Write a word-level tokenizer; `names` = padding, start, end, unknown, in order of number."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pad, start, end, unknown = names
    order = [start, pad, end, unknown] if start == "<s>" else [pad, start, end, unknown]
    vocabulary = {word: i for i, word in enumerate(order + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    # Left in published files as well: an encoder must set its own.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4, pad_id=vocabulary[pad], pad_token=pad)
    tokenizer.save(str(path))


def write_modules(folder: Path, kinds: tuple[str, ...] = ("Pooling", "Normalize")) -> None:
    """Write modules.json: the Transformer, then one module of each kind."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    modules += [
        {"idx": i, "name": str(i), "path": f"{i}_{k}", "type": f"sentence_transformers.models.{k}"}
        for i, k in enumerate(kinds, start=1)
    ]
    write_json(folder / "modules.json", modules)


def write_bert(folder: Path, *, pooling: str = "mean", max_seq_length: int = 48, seed: int = 0):
    """Write a tiny BERT encoder and return its folder."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    # A wide initial range: the default one makes all the rows nearly equal.
    config = BertConfig(vocab_size=len(WORDS) + 4, initializer_range=0.5, **BERT)
    BertModel(config).eval().save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    write_modules(folder)
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": BERT["hidden_size"], f"pooling_mode_{_FLAGS[pooling]}": True},
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_seq_length, "do_lower_case": False},
    )
    return folder


def write_mpnet(
    folder: Path, *, pooling: str = "mean", max_seq_length: int = 48, seed: int = 0, **config: int
) -> Path:
    """Write an MPNet encoder with random weights, tiny unless told otherwise."""
    import torch
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(seed)
    tiny = {**BERT, "vocab_size": len(WORDS) + 4, "initializer_range": 0.5}
    made = MPNetConfig(**(config or tiny), relative_attention_num_buckets=32, layer_norm_eps=1e-5)
    MPNetModel(made).eval().save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json", ["<pad>", "<s>", "</s>", "<unk>"])
    write_modules(folder)
    write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{_FLAGS[pooling]}": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length})
    return folder


_FLAGS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}


def prompts_of(lengths: list[int], seed: int = 0) -> list[str]:
    """Texts of given numbers of words."""
    import random

    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(n)) for n in lengths]
