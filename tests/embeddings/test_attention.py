"""The extension's attention against a float64 softmax, at every instruction set."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from benchrouter import _core

EXAMPLES = int(os.environ.get("BENCHROUTER_EXAMPLES", "150"))
SIMD = _core.simd_levels()


def reference(parts, runs, heads, bias=None):
    """One prompt, head and query at a time."""
    n_tokens, width = parts.shape
    dim = width // 3
    d = dim // heads
    query, key, value = (
        parts.astype(np.float64).reshape(n_tokens, 3, heads, d).transpose(1, 2, 0, 3)
    )
    out = np.empty((n_tokens, dim))
    start = 0
    for prompts, length in runs:
        for _ in range(prompts):
            here = slice(start, start + length)
            for h in range(heads):
                scores = query[h, here] @ key[h, here].T / np.sqrt(d)
                if bias is not None:
                    scores += bias[h, :length, :length]
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                weights /= weights.sum(axis=1, keepdims=True)
                out[here, h * d : (h + 1) * d] = weights @ value[h, here]
            start += length
    return out


def as_bfloat16(values):
    """Bits of the nearest bfloat16 numbers, uint16."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def attend(parts, runs, heads, bias=None, simd="auto"):
    out = np.zeros((len(parts), parts.shape[1] // 3), parts.dtype)
    _core.attention(parts, np.array(runs, dtype=np.int64), heads, bias, out, simd)
    return out


@st.composite
def batches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    heads, d = (
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 3, 8, 15, 16, 20, 32, 40, 64, 96])),
    )
    runs = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 70)), min_size=1, max_size=3))
    n_tokens = sum(prompts * length for prompts, length in runs)
    parts = rng.normal(0, draw(st.sampled_from([0.1, 1.0, 4.0])), (n_tokens, 3 * heads * d))
    side = max(length for _, length in runs) + draw(st.integers(0, 5))
    bias = rng.normal(0, 2, (heads, side, side)).astype(np.float32) if draw(st.booleans()) else None
    return parts.astype(np.float32), runs, heads, bias


@settings(max_examples=EXAMPLES, deadline=None)
@given(batches(), st.sampled_from(SIMD))
def test_equals_the_reference(batch, simd):
    parts, runs, heads, bias = batch
    expected = reference(parts, runs, heads, bias)
    scale = np.abs(parts).max()
    assert_allclose(attend(parts, runs, heads, bias, simd), expected, atol=2e-5 * max(scale, 1.0))
    half = as_bfloat16(parts)
    expected = reference(from_bfloat16(half), runs, heads, bias)
    found = from_bfloat16(attend(half, runs, heads, bias, simd))
    # the weights and the result are rounded to 8 bits each: 2^-9 of the values, twice
    assert_allclose(found, expected, atol=2.0 * 2.0**-8 * np.abs(from_bfloat16(half)).max())


@pytest.mark.parametrize("simd", SIMD)
def test_by_hand(simd):
    # one head, one dimension: scores are q·k; the second prompt is a single token
    parts = np.array([[0.0, 5.0, 1.0], [1.0, np.log(3.0), 3.0], [7.0, 7.0, 9.0]], np.float32)
    found = attend(parts, [(1, 2), (1, 1)], 1, simd=simd)
    # query 0 weighs both alike; query 1 has scores 5 and ln 3
    weight = 3.0 / (3.0 + np.exp(5.0))
    assert_allclose(found[:, 0], [2.0, 1.0 + 2.0 * weight, 9.0], rtol=1e-6)
    bias = np.zeros((1, 2, 2), np.float32)
    bias[0, 0] = [0.0, np.log(3.0)]
    found = attend(parts, [(1, 2), (1, 1)], 1, bias, simd)
    assert_allclose(found[0, 0], 0.25 * 1.0 + 0.75 * 3.0, rtol=1e-6)


@pytest.mark.parametrize("simd", SIMD)
def test_rounding_to_bfloat16_is_to_the_nearest_and_ties_to_even(simd):
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -1.0 - 2**-8 - 2**-20], np.float32)
    parts = np.zeros((1, 12), np.uint16)
    parts[0, 8:] = as_bfloat16(values)
    assert_array_equal(from_bfloat16(as_bfloat16(values)), [1.0, 1.0, 1.015625, -1.0078125])
    assert_array_equal(attend(parts, [(1, 1)], 1, simd=simd)[0], parts[0, 8:])


@pytest.mark.parametrize("simd", SIMD)
def test_what_is_not_finite_does_not_vanish(simd):
    parts = np.ones((5, 3 * 32), np.float32)
    parts[3, :32] = np.nan  # its query
    found = attend(parts, [(1, 5)], 2, simd=simd)
    assert np.isnan(found[3]).all() and (found[:3] == 1).all()
    found = from_bfloat16(
        attend(as_bfloat16(np.nan_to_num(parts, nan=np.inf)), [(1, 5)], 2, simd=simd)
    )
    assert np.isnan(found[3]).all()


def test_large_scores_do_not_overflow():
    parts = np.zeros((4, 3), np.float32)
    parts[:, 0] = parts[:, 1] = [0, 30, 60, 90]
    parts[:, 2] = [1, 2, 3, 4]
    assert_allclose(attend(parts, [(1, 4)], 1)[:, 0], [2.5, 4, 4, 4], rtol=1e-6)


def test_no_tokens():
    assert attend(np.empty((0, 6), np.float32), np.empty((0, 2)), 2).shape == (0, 2)


def test_threads_agree():
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(0)
    jobs = [rng.standard_normal((60, 96)).astype(np.float32) for _ in range(16)]
    serial = [attend(parts, [(2, 20), (4, 5)], 4) for parts in jobs]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda parts: attend(parts, [(2, 20), (4, 5)], 4), jobs))
    for one, other in zip(serial, parallel, strict=True):
        assert_array_equal(one, other)


GOOD = dict(
    query_key_value=np.ones((4, 12), np.float32),
    runs=np.array([[2, 2]]),
    heads=2,
    bias=None,
    attended=np.empty((4, 4), np.float32),
)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(query_key_value=np.ones((4, 12))), TypeError, "query_key_value must be float32, got"),
        (dict(query_key_value=[[1.0]]), TypeError, "query_key_value must be a NumPy array"),
        (dict(query_key_value=np.ones((12, 4), np.float32).T), ValueError, "must be C-contiguous"),
        (dict(heads=3), ValueError, "12 columns, expected a multiple of 3 times heads = 3"),
        (dict(heads=0), ValueError, "times heads = 0"),
        (dict(attended=np.empty((4, 5), np.float32)), ValueError, r"attended has shape \(4, 5\)"),
        (dict(attended=np.empty((4, 4), np.uint16)), TypeError, "attended must be float32"),
        (dict(runs=np.array([[2, 1]])), ValueError, "runs hold 2 tokens, query_key_value has 4"),
        (
            dict(runs=np.array([[-2, -2]])),
            ValueError,
            r"runs must be in \[1, tokens = 4\], got \(-2",
        ),
        (dict(runs=np.array([[2**62, 4]])), ValueError, "runs must be in"),
        (dict(runs=np.array([[4, 1, 1]])), ValueError, "runs has 3 columns, expected 2"),
        (dict(runs=np.array([[4, 1]], np.int32)), TypeError, "runs must be int64"),
        (
            dict(bias=np.zeros((2, 1, 1), np.float32)),
            ValueError,
            "bias is of 1 tokens, the longest",
        ),
        (dict(bias=np.zeros((1, 2, 2), np.float32)), ValueError, r"bias has shape \(1, 2, 2\)"),
        (dict(bias=np.zeros((2, 2, 3), np.float32)), ValueError, r"bias has shape \(2, 2, 3\)"),
        (dict(simd="mmx"), ValueError, "simd must be one of 'auto'"),
    ],
)
def test_bad_arguments(change, error, words):
    with pytest.raises(error, match=words):
        _core.attention(**{**GOOD, **change})


def test_output_must_not_lie_over_input():
    memory = np.ones((4, 12), np.float32)
    with pytest.raises(ValueError, match="attended shares memory with query_key_value"):
        _core.attention(memory, np.array([[2, 2]]), 2, None, memory.reshape(-1)[:16].reshape(4, 4))
