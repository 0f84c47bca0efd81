"""Approximate indexes of faiss by name: what they find, what is recorded, how they are kept."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import call, write
from numpy.testing import assert_array_equal
from tables import make_table, unit_rows

from benchrouter import Router, Settings
from benchrouter.neighbours.by_faiss import Approximate
from benchrouter.neighbours.index import Index

N, DIM = 2000, 16
OPTIONS = dict(k=5, kappa=7, label_shares=(0.0,), draws=1)


@pytest.fixture(scope="module", autouse=True)
def faiss():
    """The package; without it everything here is skipped."""
    return pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def benchmark():
    """Forty clusters, so that an inverted list holds whole neighbourhoods."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 40, N)
    rows = unit_rows(40, DIM, seed=1)[cluster] + 0.2 * unit_rows(N, DIM, seed=2)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = (rng.random((N, 4)) < rng.random((40, 4))[cluster]).astype(np.float32)
    return make_table(scores, np.arange(N) % 3), rows.astype(np.float32)


def brute_force(queries, records, k):
    similarities = queries.astype(np.float64) @ records.astype(np.float64).T
    return np.argsort(-similarities.astype(np.float32), axis=1, kind="stable")[:, :k]


def test_an_index_that_misses_nothing_is_exact(benchmark):
    _, rows = benchmark
    queries = unit_rows(50, DIM, seed=3)
    index = Index(rows, approximate=Approximate.train(rows, "Flat"))
    exact = Index(rows).search(queries, 9)
    found = index.search(queries, 9)
    assert_array_equal(found.ids, exact.ids)
    assert_array_equal(found.similarities, exact.similarities)
    assert index.search(queries[:0], 9).ids.shape == (0, 9)


@pytest.mark.parametrize("factory", ["IVF32,Flat", "HNSW16", "IVF16,SQ8", "PCA8,IVF16,Flat"])
def test_recall_and_agreement_are_those_of_brute_force(benchmark, factory):
    table, rows = benchmark
    router = Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index=factory))
    recorded = router.describe()["approximation"]
    assert recorded["factory"] == factory
    assert recorded["n_queries"] == 1000
    queries = np.random.default_rng(5).choice(N, 400, replace=False)
    k = router._fit.expectation.neighbours
    exact = brute_force(rows[queries], rows, k + 1)[:, 1:]
    index = router.decider.index
    found = index.search(rows[queries], max(k, 7) + 1).ids[:, : k + 1]  # as many as were measured
    hits = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert np.mean(hits) / k == pytest.approx(recorded["recall"], abs=0.03)
    assert recorded["recall"] > 0.6
    assert recorded["agreement"] > 0.8
    plain = Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS))
    prompts = unit_rows(40, DIM, seed=1)
    same = router.route(embeddings=prompts).model == plain.route(embeddings=prompts).model
    assert same.mean() > 0.8


def test_what_it_proposes_is_ranked_by_exact_similarity(benchmark):
    """Product quantizers of 4 bits order badly; of what they propose, the order is exact."""
    _, rows = benchmark
    queries = unit_rows(30, DIM, seed=4)
    trained = Approximate.train(rows, "PQ2x4")
    found = Index(rows, approximate=trained).search(queries, 5)
    exact = np.einsum("qd,qkd->qk", queries.astype(np.float64), rows[found.ids].astype(np.float64))
    assert_array_equal(found.similarities, exact.astype(np.float32))
    assert (np.diff(found.similarities, axis=1) <= 0).all()
    own = trained.search(queries, 5)
    reference = brute_force(queries, rows, 5)
    own_hits, of_ranked = (
        np.mean([len(set(a) & set(b)) for a, b in zip(ids.tolist(), reference.tolist())])  # noqa: B905
        for ids in (own, found.ids)
    )
    assert of_ranked > own_hits


@pytest.mark.parametrize("factory", ["HNSW16", "PCA8,HNSW16"])
def test_a_graph_is_searched_as_widely_as_documented(benchmark, factory, faiss):
    index = Approximate.train(benchmark[1], factory)._index
    graph = faiss.downcast_index(index.index) if factory.startswith("PCA") else index
    assert graph.hnsw.efSearch == 128


@pytest.mark.parametrize("factory", ["HNSW8", "PCA8,IVF4,PQ4x4", "IVF4,Flat"])
def test_every_kind_survives_two_saves(benchmark, tmp_path, factory):
    table, rows = benchmark
    router = Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index=factory))
    router.save(tmp_path / "one")
    Router.load(tmp_path / "one").save(tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    prompts = unit_rows(60, DIM, seed=8)
    found = Router.load(tmp_path / "two").route(embeddings=prompts)
    assert_array_equal(found.model, router.route(embeddings=prompts).model)


def test_a_poor_index_says_so(benchmark):
    table, rows = benchmark
    poor = Router.fit(
        table, embeddings=rows, settings=Settings(**OPTIONS, index="PQ1x2")
    ).describe()["approximation"]
    assert poor["recall"] < 0.5


def test_it_is_kept_with_its_hash_and_memory_mapped(benchmark, tmp_path):
    table, rows = benchmark
    router = Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index="IVF32,Flat"))
    router.save(tmp_path / "R")
    assert "approximate.faiss" in json.loads((tmp_path / "R" / "router.json").read_text())["files"]
    loaded = Router.load(tmp_path / "R")
    assert loaded.describe() == router.describe()
    prompts = unit_rows(100, DIM, seed=6)
    first, second = (r.route(embeddings=prompts) for r in (router, loaded))
    assert_array_equal(first.model, second.model)
    assert_array_equal(first.score, second.score)
    assert "approximate.faiss" in Path("/proc/self/maps").read_text()
    loaded.save(tmp_path / "R")  # over the files that are mapped
    assert_array_equal(loaded.route(embeddings=prompts).model, first.model)
    again = Router.load(tmp_path / "R")
    assert_array_equal(again.route(embeddings=prompts).model, first.model)
    path = tmp_path / "R" / "approximate.faiss"
    with open(path, "r+b") as file:  # never shorter: threads of faiss may still read it ahead
        middle = path.stat().st_size // 2
        file.seek(middle)
        byte = file.read(1)[0]
        file.seek(middle)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ValueError, match=r"approximate\.faiss is damaged: its SHA-256"):
        Router.load(tmp_path / "R")


def test_a_router_without_one_replaces_it(benchmark, tmp_path):
    table, rows = benchmark
    Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index="Flat")).save(
        tmp_path / "R"
    )
    Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS)).save(tmp_path / "R")
    assert not (tmp_path / "R" / "approximate.faiss").exists()


def test_added_records_are_searched_exactly_until_the_compact(benchmark, tmp_path):
    table, rows = benchmark
    first, last = table.rows(np.arange(1900)), table.rows(np.arange(1900, N))
    router = Router.fit(
        first, embeddings=rows[:1900], settings=Settings(**OPTIONS, index="IVF32,Flat")
    )
    router.add_records(last, rows[1900:], compact=False)
    index = router.decider.index
    assert (index.approximate.n_records, index.n_records) == (1900, N)
    found = index.search(rows[1900:], 1).ids[:, 0]
    assert_array_equal(found, np.arange(1900, N))
    router.save(tmp_path / "R")
    router = Router.load(tmp_path / "R")
    assert_array_equal(router.decider.index.search(rows[1900:], 1).ids[:, 0], found)
    router.compact()
    fresh = Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index="IVF32,Flat"))
    assert router.describe() == fresh.describe()
    assert router.decider.index.approximate.n_records == N


@pytest.mark.parametrize("factory", ["nonsense", "IVF4096,Flat"])
def test_what_faiss_cannot_make_is_an_error_that_names_it(benchmark, factory):
    table, rows = benchmark
    with pytest.raises(
        ValueError, match=f"faiss cannot make the index '{factory}' of 2000 records"
    ):
        Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index=factory))


def test_without_faiss_the_error_says_how_to_get_it(benchmark, monkeypatch):
    table, rows = benchmark
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"'HNSW32' needs faiss.*pip install"):
        Router.fit(table, embeddings=rows, settings=Settings(**OPTIONS, index="HNSW32"))


def test_the_command_prints_how_near_it_comes(benchmark, tmp_path):
    table, rows = benchmark
    path = write(table, tmp_path / "t.parquet")
    np.save(tmp_path / "t.npy", rows)
    fit = ("fit", path, "--embeddings", tmp_path / "t.npy", "-o", tmp_path / "R")
    result = call(*fit, "--index", "IVF32,Flat")
    assert result.exit_code == 0, result.output
    recorded = Router.load(tmp_path / "R").describe()["approximation"]
    for words in ("IVF32,Flat", f"{recorded['recall']:.1%}", f"{recorded['agreement']:.1%}"):
        assert words in result.output
        assert words in call("inspect", tmp_path / "R").output
    shutil.rmtree(tmp_path / "R")
    found = json.loads(call(*fit, "--index", "IVF32,Flat", "--json").stdout)
    assert found["index"] == recorded
    assert call(*fit, "--index", "nonsense").exit_code == 1
