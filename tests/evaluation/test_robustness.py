"""Edits of prompts, and the decisions that flip under them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tables import make_table
from tiny_encoder import prompts_of, write_bert

from benchrouter import Encoder, Router, Settings
from benchrouter.evaluation.prompts.robustness import EDITS, flips


def test_edits_by_hand():
    edited = {name: edit("What is\n7 times 8?\n") for name, edit in EDITS.items()}
    assert edited == {
        "lower case": "what is\n7 times 8?\n",
        "upper case": "WHAT IS\n7 TIMES 8?\n",
        "doubled spaces": "What  is\n7  times  8?\n",
        "line breaks as spaces": "What is 7 times 8?",
        "no final punctuation": "What is\n7 times 8",
        "a trailing sentence": "What is\n7 times 8? Please answer.",
        "a leading sentence": "Here is a question. What is\n7 times 8?\n",
    }


def test_no_edit_leaves_nothing_to_encode():
    for text in ("?", ".", "…", " ? ", "x"):
        for name, edit in EDITS.items():
            assert edit(text).strip(), (name, text)


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    encoder = Encoder.load(write_bert(tmp_path_factory.mktemp("bert")))
    rng = np.random.default_rng(0)
    table = make_table(
        (rng.random((90, 3)) < 0.5), np.arange(90) % 3, prompts=prompts_of([6] * 90, seed=1)
    )
    return Router.fit(table, encoder=encoder, settings=Settings(label_shares=(0.0,), draws=1))


def test_flips_are_counted_over_changed_prompts(router):
    prompts = [*prompts_of([5, 9, 7, 4], seed=2), "w1"]

    def turned(prompt):
        return " ".join(reversed(prompt.split()))

    edits = {"nothing": str, "doubled spaces": EDITS["doubled spaces"], "turned": turned}
    found = flips(router, prompts, edits=edits)
    assert list(found) == list(edits)
    assert (found["nothing"].n_changed, found["nothing"].n_prompts) == (0, 5)
    assert np.isnan(found["nothing"].share) and np.isnan(found["nothing"].cosine)
    # The tokenizer splits at white space: two spaces are one.
    assert (found["doubled spaces"].share, found["doubled spaces"].n_changed) == (0.0, 4)
    assert found["doubled spaces"].cosine == pytest.approx(1.0, abs=1e-5)
    before, after = router.route(prompts[:4]), router.route([turned(p) for p in prompts[:4]])
    assert found["turned"].share == np.mean(before.model != after.model)
    first = {"turned": turned}
    by_mean = flips(router, prompts, edits=first, rule="mean")["turned"].share
    before, after = (
        router.route(texts, rule="mean")
        for texts in (prompts[:4], [turned(p) for p in prompts[:4]])
    )
    assert by_mean == np.mean(before.model != after.model)
    rows = [
        router.encoder.encode(texts) for texts in (prompts[:4], [turned(p) for p in prompts[:4]])
    ]
    assert found["turned"].cosine == pytest.approx((rows[0] * rows[1]).sum() / 4, abs=1e-5)
    json.dumps([one.to_dict() for one in found.values()], allow_nan=False)


def test_given_embeddings_give_the_same(router):
    prompts = prompts_of([5, 9, 7, 4], seed=3)
    rows = router.encoder.encode(prompts)
    given, encoded = flips(router, prompts, embeddings=rows), flips(router, prompts)
    for name, one in given.items():
        np.testing.assert_equal((one.share, one.n_changed), (encoded[name].share, one.n_changed))
        np.testing.assert_allclose(one.cosine, encoded[name].cosine, atol=1e-5)


def test_no_prompt_is_refused(router):
    with pytest.raises(ValueError, match="at least one prompt, found none"):
        flips(router, [])
