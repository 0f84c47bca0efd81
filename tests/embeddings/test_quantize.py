"""The extension's 8-bit rows against NumPy, at every instruction set."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from test_attention import as_bfloat16, from_bfloat16

from benchrouter import _core

EXAMPLES = int(os.environ.get("BENCHROUTER_EXAMPLES", "150"))
SIMD = _core.simd_levels()
erf = np.vectorize(math.erf, otypes=[float])


def quantized(values, simd="auto"):
    found, scales = np.zeros(values.shape, np.uint8), np.zeros(len(values), np.float32)
    _core.quantize(values, found, scales, simd)
    return found, scales


@st.composite
def matrices(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rows, columns = draw(st.integers(0, 4)), draw(st.integers(1, 70))
    scale = draw(st.sampled_from([1e-20, 0.1, 1.0, 1e20]))
    return (rng.standard_normal((rows, columns)) * scale).astype(np.float32)


@settings(max_examples=EXAMPLES, deadline=None)
@given(matrices(), st.sampled_from(SIMD), st.booleans())
def test_quantized_to_half_a_step_of_each_row(values, simd, is_half):
    given_values = as_bfloat16(values) if is_half else values
    exact = from_bfloat16(given_values) if is_half else values
    found, scales = quantized(given_values, simd)
    largest = np.abs(exact).max(axis=1, initial=0.0)
    assert_allclose(scales, largest / 127, rtol=1e-6)
    back = scales[:, None].astype(np.float64) * (found.astype(np.float64) - 128)
    assert (np.abs(back - exact) <= 0.50001 * scales[:, None]).all()
    assert found.size == 0 or (found.min() >= 1 and found.max() <= 255)


@settings(max_examples=EXAMPLES, deadline=None)
@given(matrices(), st.sampled_from(SIMD), st.booleans(), st.booleans(), st.booleans())
def test_dequantized(values, simd, is_half, gelu, with_residual):
    values = np.clip(values, -20, 20)
    rng = np.random.default_rng(len(values))
    scales = rng.uniform(0.1, 2.0, len(values)).astype(np.float32)
    bias = rng.standard_normal(values.shape[1]).astype(np.float32)
    residual = rng.standard_normal(values.shape).astype(np.float32) if with_residual else None
    if is_half:
        values = as_bfloat16(values)
        residual = None if residual is None else as_bfloat16(residual)
    widen = from_bfloat16 if is_half else np.asarray
    expected = widen(values).astype(np.float64) * scales[:, None] + bias
    if gelu:
        expected = 0.5 * expected * (1 + erf(expected / math.sqrt(2)))
    if residual is not None:
        expected = expected + widen(residual)
    found = values.copy()
    _core.dequantize(found, scales, bias, residual, gelu, simd)
    # GELU is a polynomial to 6e-5; bfloat16 rounds to 2^-9 of a number
    tolerance = dict(rtol=2.0**-8, atol=1e-3) if is_half else dict(rtol=1e-5, atol=6e-5)
    assert_allclose(widen(found), expected, **tolerance)


@pytest.mark.parametrize("simd", SIMD)
def test_by_hand(simd):
    values = np.array([[127.0, -127.0, 63.4, 0.5, 1.5], [0, 0, 0, 0, 0]], np.float32)
    found, scales = quantized(values, simd)
    assert_array_equal(found, [[255, 1, 191, 128, 130], [128] * 5])  # ties to even
    assert_array_equal(scales, [1, 0])
    products = np.array([[0.0, 10.0, -10.0, -4.3, 1.0]], np.float32)
    _core.dequantize(products, np.ones(1, np.float32), np.zeros(5, np.float32), None, True, simd)
    assert_allclose(products[0], [0, 10, 0, 0, 0.841345], atol=6e-5)
    assert products[0, 2] == 0  # nothing is left of what is far below


@pytest.mark.parametrize("simd", SIMD)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 17, 36])
def test_what_is_not_finite_makes_its_row_nan(simd, odd, place):
    values = np.ones((3, 37), np.float32)
    values[1, place] = odd
    found, scales = quantized(values, simd)
    assert_array_equal(np.isnan(scales), [False, True, False])
    for gelu in (False, True):
        products = found.astype(np.float32)
        _core.dequantize(products, scales, np.zeros(37, np.float32), None, gelu, simd)
        assert np.isnan(products[1]).all() and np.isfinite(products[[0, 2]]).all()


ROWS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: quantized(ROWS.astype(np.float64)), TypeError, "values must be float32, got"),
        (
            lambda: _core.quantize(ROWS, np.empty((2, 4), np.uint8), np.empty(2, np.float32)),
            ValueError,
            r"quantized has shape \(2, 4\), expected \(2, 3\) as values",
        ),
        (
            lambda: _core.quantize(ROWS, np.empty((2, 3), np.uint8), np.empty(3, np.float32)),
            ValueError,
            "scales has 3 values, values has rows: 2",
        ),
        (
            lambda: _core.dequantize(ROWS.copy(), ROWS[0, :2], ROWS[0, :2], None, False),
            ValueError,
            "bias has 2 values, values has columns: 3",
        ),
        (
            lambda: _core.dequantize(ROWS.copy(), ROWS[0, :2], ROWS[0], ROWS[:1], False),
            ValueError,
            r"residual has shape \(1, 3\), expected \(2, 3\) as values",
        ),
        (
            lambda: _core.dequantize(ROWS, ROWS[0, :2], ROWS[0], ROWS, False),
            ValueError,
            "values shares memory with",
        ),
    ],
)
def test_bad_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()
