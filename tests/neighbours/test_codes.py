"""Search by codes of 8 bits is exact whatever the codes lose, on every level and any threads."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import unit_rows

from benchrouter import _core
from benchrouter.neighbours.codes import MOST_DIMENSIONS, Codes

SIMD = ("scalar", "auto")
GROUP, STEP = _core.code_layout


def encoded(records, simd="auto", threads=0):
    n, dim = records.shape
    groups = -(-n // GROUP)
    values = np.empty((groups, -(-dim // STEP), GROUP, STEP), np.uint8)
    scales, errors = (np.empty((groups, GROUP), np.float32) for _ in range(2))
    bounds = _core.encode_records(records, values, scales, errors, threads, simd)
    return values, scales, errors, *bounds


def found(queries, records, k, simd="auto", threads=0):
    return _core.search(queries, records, *encoded(records, simd, threads), k, threads, simd)


def exact(queries, records, k):
    """Float64 similarities rounded once, sorted by (−similarity, id)."""
    similarities = (queries.astype(np.float64) @ records.astype(np.float64).T).astype(np.float32)
    ids = np.broadcast_to(np.arange(len(records)), similarities.shape)
    order = np.lexsort((ids, -similarities), axis=1)[:, :k]
    return order, np.take_along_axis(similarities, order, axis=1)


def expect_exact(queries, records, k, **run):
    ids, similarities = found(queries, records, k, **run)
    n = min(k, len(records))
    expected = exact(queries, records, n)
    np.testing.assert_array_equal(ids[:, :n], expected[0])
    np.testing.assert_array_equal(similarities[:, :n], expected[1])
    assert (ids[:, n:] == -1).all()
    assert (similarities[:, n:] == -np.inf).all()


def decoded(codes, n, dim):
    values, scales, *_ = codes
    rows = values.transpose(0, 2, 1, 3).reshape(len(values) * GROUP, -1).astype(np.float64) - 128
    return (rows * scales.reshape(-1, 1))[:n, :dim], rows[:, dim:]


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (63, 4), (64, 5), (65, 17), (4000, 384)])
def test_no_record_is_farther_from_its_codes_than_its_error(shape, threads, simd):
    records = unit_rows(*shape)
    codes = encoded(records, simd, threads)
    rows, padding = decoded(codes, *shape)
    off = np.linalg.norm(records - rows, axis=1)
    errors = codes[2].reshape(-1)
    assert (off <= errors[: len(records)]).all()
    assert (errors[: len(records)] <= off * 1.00001 + 1e-9).all()
    assert (errors[len(records) :] == -np.inf).all()
    assert (padding == 0).all()
    assert codes[3] >= np.linalg.norm(rows, axis=1).max()
    assert codes[4] == errors[: len(records)].max()
    steps = np.abs(rows / codes[1].reshape(-1, 1)[: len(records)])
    np.testing.assert_allclose(steps.max(axis=1), 127)  # all 8 bits are used


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n_queries", [1, 2, 5, 6, 7, 13, 29, 500])
def test_every_way_to_cut_the_work(n_queries, threads, simd):
    records, queries = unit_rows(3000, 96), unit_rows(n_queries, 96, seed=1)
    expect_exact(queries, records, 7, simd=simd, threads=threads)


def test_large_enough_for_threads_to_share_the_records():
    records, queries = unit_rows(9000, 1024), unit_rows(300, 1024, seed=1)
    for n in (1, 3, 300):
        expect_exact(queries[:n], records, 19, threads=2)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("k", [1, 19, 300, 2500])
@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-5, 1e-3])
def test_records_that_codes_cannot_tell_apart(spread, k, simd):
    noise = spread * np.random.default_rng(0).standard_normal((2000, 64))
    records = (unit_rows(1, 64, seed=3) + noise).astype(np.float32)
    records /= np.linalg.norm(records, axis=1, keepdims=True)
    queries = np.concatenate([records[[0, 1999]], unit_rows(3, 64, seed=4)])
    expect_exact(queries, records, k, simd=simd)


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearest_may_come_first_or_last(order):
    records, queries = unit_rows(5000, 32), unit_rows(4, 32, seed=1)
    by_nearness = np.argsort(records @ queries[0])[::order]
    expect_exact(queries, np.ascontiguousarray(records[by_nearness]), 10)


def test_one_large_value_hides_the_others():
    """Its scale rounds all other values to 0: the codes of all records are the same."""
    rest = unit_rows(800, 63) * np.float32(2e-3)
    records = np.concatenate([np.full((800, 1), 1, np.float32), rest], axis=1)
    queries = unit_rows(5, 64, seed=2)
    assert len(np.unique(decoded(encoded(records), 800, 64)[0], axis=0)) == 1
    expect_exact(queries, records, 12)


@pytest.mark.parametrize("simd", SIMD)
def test_rows_need_not_be_of_unit_norm(simd):
    scale = np.random.default_rng(0).uniform(0, 9, (700, 1)).astype(np.float32)
    expect_exact(50 * unit_rows(9, 40, seed=1), scale * unit_rows(700, 40), 11, simd=simd)


@pytest.mark.parametrize("simd", SIMD)
def test_rows_of_zeros_and_of_the_least_numbers(simd):
    records = unit_rows(200, 24)
    records[[3, 77]] = 0
    records[5] *= np.float32(1e-38)
    queries = np.concatenate([unit_rows(2, 24, seed=1), np.zeros((1, 24), np.float32)])
    expect_exact(queries, records, 200, simd=simd)


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("in_query", [False, True])
def test_what_is_not_finite_is_refused_however_far_it_is(value, in_query, simd):
    records, queries = unit_rows(1500, 24), unit_rows(3, 24, seed=1)
    (queries[2] if in_query else records[1234])[7] = value
    with pytest.raises(ValueError, match=r"must be finite, got none for query \d and record \d+"):
        found(queries, records, 5, simd=simd)


@given(
    st.integers(1, 200), st.integers(1, 12), st.integers(1, 70), st.integers(1, 40),
    st.integers(0, 1000), st.sampled_from(SIMD), st.integers(1, 4),
)  # fmt: skip
def test_any_shape(n_records, n_queries, dim, k, seed, simd, threads):
    rng = np.random.default_rng(seed)
    # few distinct values, so that there are many ties
    records = rng.integers(-2, 3, (n_records, dim)).astype(np.float32)
    queries = rng.integers(-2, 3, (n_queries, dim)).astype(np.float32)
    expect_exact(queries, records, k, simd=simd, threads=threads)


def test_the_most_dimensions_do_not_overflow():
    rows = np.full((3, MOST_DIMENSIONS), 1 / 256, np.float32)
    rows[1] *= -1
    rows[2, ::2] *= -1
    expect_exact(rows, rows, 3)
    with pytest.raises(ValueError, match="between 1 and 65536 dimensions, got 65537"):
        Codes(np.zeros((1, MOST_DIMENSIONS + 1), np.float32))


def test_codes_of_a_read_only_map(tmp_path):
    records, queries = unit_rows(300, 20), unit_rows(5, 20, seed=1)
    np.save(tmp_path / "records.npy", records)
    ids, similarities = Codes(np.load(tmp_path / "records.npy", mmap_mode="r")).search(queries, 4)
    np.testing.assert_array_equal(ids, exact(queries, records, 4)[0])
    np.testing.assert_array_equal(similarities, exact(queries, records, 4)[1])


def test_arguments_that_do_not_fit_each_other():
    records, queries = unit_rows(70, 20), unit_rows(5, 20)
    values, scales, errors, norm, error = encoded(records)
    others = (scales, errors, norm, error, 3, 1)
    with pytest.raises(ValueError, match="values has shape"):
        _core.search(queries, records, values[:1], *others)
    with pytest.raises(ValueError, match="scales has shape"):
        _core.search(queries, records, values, scales[:1], *others[1:])
    with pytest.raises(ValueError, match="queries has 19 dimensions, records have 20"):
        _core.search(np.ascontiguousarray(queries[:, :19]), records, values, *others)
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        _core.search(queries, records, values, scales, errors, norm, error, 0, 1)
    with pytest.raises(TypeError, match="queries must be float32"):
        _core.search(queries.astype(np.float64), records, values, *others)
    with pytest.raises(ValueError, match="shares memory"):
        _core.encode_records(records, values, errors, errors, 1)


@pytest.mark.skipif(_core.sanitized, reason="sanitizers take address space of their own")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_runs_out_in_a_thread_is_an_error():
    """In a process of its own, as it would be that process's end."""
    program = """if True:
        import resource
        import numpy as np
        from benchrouter.neighbours.codes import Codes

        rows = np.random.default_rng(0).standard_normal((50_000, 64)).astype(np.float32)
        codes = Codes(rows, threads=2)
        codes.search(rows[:240], 3)
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            codes.search(rows[:96], 40_000)
        except MemoryError:
            print("an error")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "an error\n"), done.stderr
