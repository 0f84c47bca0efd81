"""Exact nearest neighbours: every proposal gives the reference's answer, ties by record number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import unit_rows

from benchrouter.embeddings import as_unit_rows
from benchrouter.neighbours.codes import Codes
from benchrouter.neighbours.index import Index, check_unit_rows
from benchrouter.neighbours.lists import Neighbours, merge, nearest

PROPOSALS = ("int8", "blas", "faiss", "bfloat16", "auto")


def exact(queries, records, k):
    """Float64 similarities rounded once, sorted by (−similarity, id)."""
    similarities = (queries.astype(np.float64) @ records.astype(np.float64).T).astype(np.float32)
    ids = np.broadcast_to(np.arange(len(records)), similarities.shape)
    order = np.lexsort((ids, -similarities), axis=1)[:, :k]
    return order, np.take_along_axis(similarities, order, axis=1)


@pytest.fixture(scope="module")
def crowded():
    """Records with long runs of identical rows, so that ties cross every boundary."""
    records = unit_rows(1200, 48)
    records[100:150] = records[7]
    records[600:900] = records[9]
    return records


@pytest.mark.parametrize("proposal", PROPOSALS)
@pytest.mark.parametrize("k", [1, 5, 19, 100, 1200])
def test_search_is_exact(crowded, proposal, k):
    if proposal == "faiss":
        pytest.importorskip("faiss")
    if proposal == "bfloat16":
        pytest.importorskip("torch")
    queries = np.concatenate([unit_rows(20, 48, seed=1), crowded[[7, 9, 100, 899]]])
    found = Index(crowded, proposal=proposal).search(queries, k)
    ids, similarities = exact(queries, crowded, k)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.similarities, similarities)
    assert found.ids.dtype == np.int64
    assert found.similarities.dtype == np.float32


def test_a_tie_goes_to_the_lower_record_number():
    records = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    found = Index(records).search(np.array([[1, 0]], dtype=np.float32), 4)
    np.testing.assert_array_equal(found.ids, [[1, 3, 0, 2]])
    np.testing.assert_array_equal(found.similarities, [[1, 1, 0, 0]])


def test_k_above_the_number_of_records_is_filled_with_none():
    found = Index(unit_rows(3, 8)).search(unit_rows(2, 8, seed=1), 5)
    assert (found.ids[:, :3] >= 0).all()
    np.testing.assert_array_equal(found.ids[:, 3:], -1)
    np.testing.assert_array_equal(found.similarities[:, 3:], -np.inf)


@pytest.mark.parametrize("n_records", [0, 5])
def test_no_queries_and_no_records(n_records):
    index = Index(unit_rows(n_records, 8))
    assert index.search(unit_rows(0, 8), 3).ids.shape == (0, 3)
    found = index.search(unit_rows(2, 8), 3)
    assert found.ids.shape == (2, 3)
    assert (found.ids == -1).all() == (n_records == 0)


def test_the_answer_does_not_depend_on_the_batch(crowded):
    queries = unit_rows(300, 48, seed=2)
    index = Index(crowded)
    together = index.search(queries, 19)
    alone = [index.search(queries[i : i + 1], 19) for i in range(len(queries))]
    np.testing.assert_array_equal(together.ids, np.concatenate([a.ids for a in alone]))
    np.testing.assert_array_equal(
        together.similarities, np.concatenate([a.similarities for a in alone])
    )


def test_many_threads_search_one_index(crowded):
    queries = [unit_rows(40, 48, seed=s) for s in range(16)]
    index = Index(crowded)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: index.search(q, 5), queries))
    for q, f in zip(queries, found, strict=True):
        np.testing.assert_array_equal(f.ids, exact(q, crowded, 5)[0])


def test_a_read_only_map_is_searched_in_place(tmp_path, crowded):
    np.save(tmp_path / "rows.npy", crowded)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for proposal in ("blas", "auto"):
        found = Index(mapped, proposal=proposal).search(crowded[:30], 3)
        np.testing.assert_array_equal(found.ids, exact(crowded[:30], crowded, 3)[0])


@pytest.mark.parametrize(
    ("sizes", "coded"),
    [([1], False), ([8], False), ([9], True), ([1, 1], True), ([0, 1], False)],
)
def test_codes_are_made_where_they_pay(crowded, sizes, coded, monkeypatch):
    made = []
    monkeypatch.setattr(
        "benchrouter.neighbours.index.Codes", lambda *of: made.append(of) or Codes(*of)
    )
    for vnni in (True, False):
        monkeypatch.setattr("benchrouter._core.has_vnni", vnni)
        made.clear()
        index = Index(crowded)
        for n in sizes:
            found = index.search(crowded[:n], 3)
            np.testing.assert_array_equal(found.ids, exact(crowded[:n], crowded, 3)[0])
        index.search(crowded[:0], 3)
        assert len(made) == (vnni and coded)


@pytest.mark.parametrize("with_faiss", [True, False])
def test_blocks_of_records_of_a_large_table_change_nothing(crowded, monkeypatch, with_faiss):
    if with_faiss:
        pytest.importorskip("faiss")
    queries = np.concatenate([unit_rows(30, 48, seed=3), crowded[[7, 700]]])
    dataset = np.random.default_rng(0).integers(0, 4, len(crowded)).astype(np.int32)
    sorted_dataset = np.sort(dataset)
    arguments = dict(n_datasets=4, skip=1, keep=30)
    few = [Index(crowded).search_per_dataset(queries, 25, d, **arguments)
           for d in (dataset, sorted_dataset)]  # fmt: skip
    monkeypatch.setattr("benchrouter.neighbours.proposals.WIDE", 100)
    monkeypatch.setattr("benchrouter.neighbours.proposals.TILE_QUERIES", 7)
    monkeypatch.setattr("benchrouter.neighbours.proposals.BLOCK_BYTES", 4 * 7 * 90)
    monkeypatch.setattr("benchrouter.neighbours.proposals.has_faiss", lambda: with_faiss)
    for k in (5, 300, 1200):
        found = Index(crowded, proposal="blas").search(queries, k)
        ids, similarities = exact(queries, crowded, k)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.similarities, similarities)
    for expected, codes in zip(few, (dataset, sorted_dataset), strict=True):
        found = Index(crowded).search_per_dataset(queries, 25, codes, **arguments)
        own = np.array([False, True, False, False])
        np.testing.assert_array_equal(merge(found, own, 30).ids, merge(expected, own, 30).ids)


@pytest.mark.parametrize("ranked_at_a_time", [1, 1 << 23])
def test_nearest_per_dataset_and_any_merge_of_them(crowded, monkeypatch, ranked_at_a_time):
    monkeypatch.setattr("benchrouter.neighbours.index.CANDIDATES", ranked_at_a_time)
    queries = np.concatenate([unit_rows(30, 48, seed=3), crowded[[7, 700]]])
    dataset = np.random.default_rng(0).integers(0, 6, len(crowded)).astype(np.int32)
    dataset[dataset == 4] = 5  # a dataset without records
    lists = Index(crowded).search_per_dataset(queries, 7, dataset, 6)
    assert lists.ids.shape == (32, 6, 7)
    for code in (0, 1, 2, 3, 5):
        members = np.flatnonzero(dataset == code)
        ids, similarities = exact(queries, crowded[members], 7)
        np.testing.assert_array_equal(lists.ids[:, code], members[ids])
        np.testing.assert_array_equal(lists.similarities[:, code], similarities)
    assert (lists.ids[:, 4] == -1).all()
    excluded = np.array([False, True, False, False, False, True])
    members = np.flatnonzero(~excluded[dataset])
    ids, similarities = exact(queries, crowded[members], 7)
    merged = merge(lists, excluded, 7)
    np.testing.assert_array_equal(merged.ids, members[ids])
    np.testing.assert_array_equal(merged.similarities, similarities)
    kept = Index(crowded).search_per_dataset(queries, 7, dataset, 6, skip=2, keep=9)
    assert (kept.ids[:, 2] == -1).all()
    assert (kept.ids == -1).sum() > (lists.ids == -1).sum() + lists.ids[:, 2].size
    others = np.array([False, False, True, False, False, False])
    np.testing.assert_array_equal(merge(kept, others, 9).ids, merge(lists, others, 9).ids)
    everything = merge(lists, np.ones(6, dtype=bool), 7)
    assert (everything.ids == -1).all()


@given(
    st.lists(
        st.tuples(
            st.integers(-1, 40),
            st.sampled_from([-1.0, -0.5, -0.0, 0.0, 1e-30, 0.25, 0.2500001, 1.0]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 35),
)
def test_nearest_sorts_as_python_does(pairs, k):
    pairs = [(i, s if i >= 0 else -np.inf) for i, s in pairs]
    ids = np.array([[i for i, _ in pairs]])
    similarities = np.array([[s for _, s in pairs]], dtype=np.float32)
    found = nearest(Neighbours(ids, similarities), k)
    real = sorted(((-float(np.float32(s)), i) for i, s in pairs if i >= 0))[:k]
    np.testing.assert_array_equal(found.ids[0, : len(real)], [i for _, i in real])
    np.testing.assert_array_equal(found.similarities[0, : len(real)], [-s for s, _ in real])
    assert (found.ids[0, len(real) :] == -1).all()


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (np.ones((2, 2)), TypeError, "must be a float32 array, got float64"),
        ([[1.0, 0.0]], TypeError, "must be a float32 array, got list"),
        (np.ones(3, np.float32), ValueError, r"must be a C-ordered matrix, got shape \(3,\)"),
        (np.asfortranarray(unit_rows(3, 2)), ValueError, "must be a C-ordered matrix"),
        (np.ones((2, 2), np.float32), ValueError, "row 0 has norm 1.41"),
        (np.full((1, 2), np.nan, np.float32), ValueError, "row 0 has norm nan"),
    ],
)
def test_bad_rows(rows, error, words):
    with pytest.raises(error, match=words):
        check_unit_rows(rows, "queries")
    with pytest.raises(error, match=words):
        Index(rows)


def test_bad_queries_and_bad_k():
    index = Index(unit_rows(4, 8))
    with pytest.raises(ValueError, match="queries have dim 6, index has dim 8"):
        index.search(unit_rows(1, 6), 3)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(unit_rows(1, 8), 0)
    with pytest.raises(ValueError, match="proposal must be .* got 'annoy'"):
        Index(unit_rows(4, 8), proposal="annoy")


@pytest.mark.parametrize("proposal", ["faiss", "bfloat16"])
def test_real_embeddings_give_the_same_neighbours_whatever_proposes(shared, proposal):
    pytest.importorskip("faiss" if proposal == "faiss" else "torch")
    records = as_unit_rows(np.load(shared / "data" / "mmlu_pro.minilm.npy"), "records")
    queries = as_unit_rows(np.load(shared / "data" / "ulab_llmrouter.minilm.npy")[::5], "queries")
    found = Index(records, proposal=proposal).search(queries, 19)
    expected = Index(records, proposal="blas").search(queries, 19)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
    ids, _ = exact(queries[:100], records, 19)
    np.testing.assert_array_equal(found.ids[:100], ids)
