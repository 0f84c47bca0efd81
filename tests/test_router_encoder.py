"""A router with an encoder: prompts in, decisions out, on a tiny random-weight BERT."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tables import make_table
from tiny_encoder import prompts_of, write_bert

from benchrouter import Encoder, EncoderNotFound, Router

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    scores = (rng.random((90, 3)) < 0.5).astype(np.float32)
    return make_table(scores, np.arange(90) % 3, prompts=prompts_of([6] * 90, seed=1))


PROMPTS = prompts_of([5, 9, 2, 30, 7], seed=2)


def test_fit_by_name_equals_fit_on_its_embeddings(folder, table):
    encoder = Encoder.load(folder)
    by_name = Router.fit(table, encoder=str(folder))
    given = Router.fit(table, encoder=encoder, embeddings=encoder.encode(table.prompts))
    rows = encoder.encode(PROMPTS)
    for router in (by_name, given):
        np.testing.assert_array_equal(
            router.route(PROMPTS).score, router.route(embeddings=rows).score
        )
    assert by_name.route(PROMPTS).names() == given.route(PROMPTS).names()
    assert by_name.choose(PROMPTS).to_dict() == given.choose(PROMPTS).to_dict()
    assert by_name.explain(PROMPTS[0]).prompt == PROMPTS[0]


def test_given_embeddings_leave_the_encoder_unloaded_until_a_prompt_comes(
    folder, table, monkeypatch
):
    rows = Encoder.load(folder).encode(table.prompts)
    loads = []
    load = Encoder.load
    monkeypatch.setattr(
        Encoder, "load", classmethod(lambda cls, *a, **k: loads.append(a) or load(*a, **k))
    )
    router = Router.fit(table, encoder=str(folder), embeddings=rows)
    router.route(embeddings=rows)
    assert loads == []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: router.route(PROMPTS).names(), range(16)))
    assert len(loads) == 1
    assert all(names == found[0] for names in found)


def test_a_saved_router_finds_its_encoder_again(folder, table, tmp_path):
    router = Router.fit(table, encoder=str(folder))
    router.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    assert loaded.route(PROMPTS).names() == router.route(PROMPTS).names()
    shutil.copytree(folder, tmp_path / "moved")
    moved = Router.load(tmp_path / "router", encoder=str(tmp_path / "moved"))
    assert moved.route(PROMPTS).names() == router.route(PROMPTS).names()


def test_another_encoder_is_refused(folder, table, tmp_path):
    Router.fit(table, encoder=str(folder)).save(tmp_path / "router")
    other = write_bert(tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="embedded by another encoder: .*weights"):
        Router.load(tmp_path / "router", encoder=Encoder.load(other))
    lazily = Router.load(tmp_path / "router", encoder=str(other))
    with pytest.raises(ValueError, match="embedded by another encoder: .*weights"):
        lazily.route(PROMPTS)
    shorter = Encoder.load(folder, max_tokens=16)
    with pytest.raises(ValueError, match="embedded by another encoder: .*16"):
        Router.load(tmp_path / "router", encoder=shorter)


def test_without_hub_and_weights_there_is_one_clear_error(table, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EncoderNotFound, match="minilm"):
        Router.fit(table, encoder="nobody/no-such-encoder")


def test_odd_prompts_are_routed(folder, table):
    router = Router.fit(table, encoder=str(folder))
    odd = ["", " ", "\x00", "w1 " * 100_000, "🙂", "\ud800", "שלום"]
    decisions = router.route(odd)
    assert len(decisions) == 7
    assert np.isfinite(decisions.score).all()
    with pytest.raises(TypeError, match="1"):
        router.route(["fine", 7])
