"""Search in torch: records and similarities of the CPU's index, bit for bit, on CPU and GPU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import unit_rows

from benchrouter.embeddings import as_unit_rows
from benchrouter.neighbours import on_device as search_on_device
from benchrouter.neighbours.by_faiss import faiss_devices
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.lists import Neighbours
from benchrouter.neighbours.on_device import TorchIndex

torch = pytest.importorskip("torch")

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.ids.cpu().numpy(), expected.ids)
    np.testing.assert_array_equal(
        found.similarities.cpu().numpy().view(np.int32), expected.similarities.view(np.int32)
    )


def rows_with_ties(rng, n, dim, n_distinct):
    """Unit rows of which many are equal, and some differ in the last bits only."""
    distinct = unit_rows(max(n_distinct, 1), dim, seed=int(rng.integers(2**31)))
    rows = distinct[rng.integers(0, len(distinct), n)]
    nudged = rng.random(n) < 0.2
    rows[nudged] *= np.float32(1) + rng.integers(-3, 4, (nudged.sum(), 1)) * np.float32(2**-23)
    return np.ascontiguousarray(rows)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_records=st.sampled_from((1, 2, 9, 40, 300)),
    dim=st.sampled_from((1, 3, 15, 16, 17, 48)),
    n_distinct=st.sampled_from((1, 4, 300)),
    k=st.sampled_from((1, 2, 5, 19, 50)),
    block=st.sampled_from((1, 4096, 1 << 20)),
)
def test_search_equals_the_index_of_the_cpu(seed, n_records, dim, n_distinct, k, block):
    rng = np.random.default_rng(seed)
    records = rows_with_ties(rng, n_records, dim, n_distinct)
    queries = np.concatenate([rows_with_ties(rng, 7, dim, 4), records[:3]])
    expected = Index(records, proposal="blas").search(queries, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(search_on_device.BLOCK_BYTES, "cpu", block)
        patch.setattr(search_on_device, "QUERIES", 4)
        found = TorchIndex(records).search(torch.from_numpy(queries), k)
    assert_equal(found, expected)


@pytest.mark.parametrize("k", [1, 19, 700])
def test_many_queries_and_long_ties(device, k):
    records = unit_rows(1200, 48)
    records[100:150] = records[7]
    records[600:900] = records[9]
    queries = np.concatenate([unit_rows(200, 48, seed=1), records[[7, 9, 100, 899]]])
    expected = Index(records, proposal="blas").search(queries, k)
    found = TorchIndex(records, device=device).search(torch.tensor(queries, device=device), k)
    assert_equal(found, expected)
    assert found.ids.dtype == torch.int64 and found.similarities.dtype == torch.float32
    assert found.ids.device.type == device


def test_a_tensor_of_records_is_not_copied():
    records = torch.from_numpy(unit_rows(5, 8))
    assert TorchIndex(records).records.data_ptr() == records.data_ptr()


@pytest.mark.parametrize("n_records", [0, 3])
def test_few_records_are_filled_up_with_none(device, n_records):
    found = TorchIndex(unit_rows(n_records, 8), device=device).search(
        torch.tensor(unit_rows(2, 8, seed=1), device=device), 5
    )
    assert (found.ids[:, n_records:] == -1).all()
    assert (found.similarities[:, n_records:] == -torch.inf).all()
    assert (found.ids[:, :n_records] >= 0).all()


def test_no_queries(device):
    found = TorchIndex(unit_rows(4, 8), device=device).search(torch.empty((0, 8), device=device), 3)
    assert found.ids.shape == (0, 3)


def test_products_are_never_rounded_to_tf32(monkeypatch):
    during = []
    topk = torch.topk

    def watched(*arguments, **options):
        during.append(torch.get_float32_matmul_precision())
        return topk(*arguments, **options)

    monkeypatch.setattr(torch, "topk", watched)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        TorchIndex(unit_rows(30, 8)).search(torch.from_numpy(unit_rows(2, 8, seed=1)), 3)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert during[0] == "highest"


class RoundedProducts:
    """Stands in for faiss on a device: what it proposes is right but for rounding."""

    def __init__(self):
        self.counts = []

    def search(self, queries, records, count):
        assert queries.dtype == records.dtype
        self.counts.append(count)
        top = torch.topk(queries.float() @ records.float().T, count)
        return Neighbours(top.indices, top.values)


@pytest.mark.parametrize("proposal", ["faiss", "faiss-float16"])
def test_what_rounding_hides_is_found(monkeypatch, proposal):
    monkeypatch.setattr(search_on_device, "FaissOnDevice", RoundedProducts)
    monkeypatch.setattr(search_on_device, "_choose", lambda proposal, device: proposal)
    # Similarities to the centre agree to float16's rounding: which are largest, it cannot tell.
    rng = np.random.default_rng(0)
    centre = unit_rows(1, 48)
    records = centre + 3e-3 * rng.standard_normal((400, 48)).astype(np.float32)
    records /= np.linalg.norm(records, axis=1, keepdims=True)
    records = np.ascontiguousarray(np.concatenate([records, unit_rows(100, 48, seed=3)]))
    queries = np.concatenate([centre, unit_rows(20, 48, seed=4)])
    searched = TorchIndex(records, proposal=proposal)
    found = searched.search(torch.from_numpy(queries), 5)
    assert_equal(found, Index(records, proposal="blas").search(queries, 5))
    more = len(searched._faiss.counts) > 1
    assert more == (proposal == "faiss-float16")


@pytest.mark.gpu
@pytest.mark.parametrize("proposal", ["faiss", "faiss-float16"])
@pytest.mark.parametrize("k", [1, 19, 2500])
def test_faiss_on_the_device(proposal, k):
    if faiss_devices() == 0:
        pytest.skip("faiss is not installed, or for CPUs only")
    records = rows_with_ties(np.random.default_rng(1), 3000, 48, 2000)
    queries = unit_rows(100, 48, seed=2)
    expected = Index(records, proposal="blas").search(queries, k)
    found = TorchIndex(records, device="cuda", proposal=proposal).search(
        torch.tensor(queries, device="cuda"), k
    )
    assert_equal(found, expected)


def test_faiss_where_it_has_no_device():
    if faiss_devices():
        pytest.skip("faiss has a device here")
    with pytest.raises(ValueError, match="proposal 'faiss' on cpu: found 0 CUDA devices that"):
        TorchIndex(unit_rows(3, 8), proposal="faiss")


@pytest.mark.parametrize(
    ("queries", "error", "words"),
    [
        (unit_rows(1, 8), TypeError, "queries must be a torch.Tensor, got ndarray"),
        (torch.ones((1, 8), dtype=torch.float64), TypeError, "torch.float32, got torch.float64"),
        (torch.ones(8), ValueError, r"must be a C-ordered matrix, got shape \(8,\)"),
        (torch.ones((8, 2)).T, ValueError, "must be a C-ordered matrix"),
        (torch.ones((1, 6)), ValueError, "queries have dim 6, index has dim 8"),
        (torch.ones((1, 8), device="meta"), ValueError, "queries are on meta, index is on cpu"),
        (torch.ones((1, 8)), ValueError, "row 0 has norm 2.82"),
        (torch.full((1, 8), torch.nan), ValueError, "row 0 has norm nan"),
    ],
)
def test_bad_queries(queries, error, words):
    with pytest.raises(error, match=words):
        TorchIndex(unit_rows(4, 8)).search(queries, 3)


def test_bad_records_k_and_proposal():
    with pytest.raises(ValueError, match="embeddings must have unit rows, row 0 has norm 1.41"):
        TorchIndex(torch.ones((2, 2)))
    with pytest.raises(TypeError, match="embeddings must be a float32 array, got float64"):
        TorchIndex(np.ones((2, 2)))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        TorchIndex(unit_rows(4, 8)).search(torch.from_numpy(unit_rows(1, 8)), 0)
    with pytest.raises(ValueError, match="proposal must be one of 'auto', .* got 'blas'"):
        TorchIndex(unit_rows(4, 8), proposal="blas")


def test_real_embeddings(shared, device):
    records = as_unit_rows(np.load(shared / "data" / "mmlu_pro.minilm.npy"), "records")
    queries = as_unit_rows(np.load(shared / "data" / "ulab_llmrouter.minilm.npy")[::9], "queries")
    found = TorchIndex(records, device=device).search(torch.tensor(queries, device=device), 19)
    assert_equal(found, Index(records, proposal="blas").search(queries, 19))


class Small:
    """A device whose memory holds blocks of so many bytes."""

    def __init__(self, monkeypatch, n_bytes):
        self.asked = []
        for name in ("_largest", "_rank"):
            monkeypatch.setattr(TorchIndex, name, self.held(getattr(TorchIndex, name), n_bytes))

    def held(self, step, n_bytes):
        def run(index, *arguments):
            self.asked.append(index._block_bytes)
            if index._block_bytes > n_bytes:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return step(index, *arguments)

        return run


def test_blocks_back_off_when_memory_runs_out(monkeypatch):
    records, queries = unit_rows(300, 16), unit_rows(20, 16, seed=1)
    expected = Index(records).search(queries, 7)
    device = Small(monkeypatch, 17 << 20)
    monkeypatch.setattr(search_on_device, "QUERIES", 5)
    index = TorchIndex(records)
    assert_equal(index.search(torch.from_numpy(queries), 7), expected)
    # of 64 MiB, halved twice, and never asked for again
    assert [n >> 20 for n in device.asked[:4]] == [64, 32, 16, 16]
    assert set(device.asked[2:]) == {16 << 20}


def test_a_search_that_does_not_fit_at_all_is_an_error(monkeypatch):
    device = Small(monkeypatch, 1000)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        TorchIndex(unit_rows(30, 16)).search(torch.from_numpy(unit_rows(2, 16)), 7)
    assert device.asked[-1] == 1 << 20
