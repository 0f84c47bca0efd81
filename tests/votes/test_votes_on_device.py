"""Votes and decisions on a device equal the CPU's bit for bit; its bindings, errors and build.

Without a device the kernels run on the host (tests/votes/cuda_on_host/), by the same tests.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from device import ROOT, without_preload
from expect_cases import FAULTS as FAULTS_OF_EXPECT
from expect_cases import LEARNT_FAULTS, auto_case, large_case, outcomes_of, small
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table, unit_rows
from typer.testing import CliRunner
from vote_cases import cases, f32, i64, some_models

from benchrouter import _core
from benchrouter.cli import app
from benchrouter.cli.encoding import routing_device
from benchrouter.cli.output import EncoderUnavailable
from benchrouter.decisions import updatable
from benchrouter.decisions.on_device import OnDevice
from benchrouter.decisions.plan import plan_of
from benchrouter.decisions.policy import Policy
from benchrouter.neighbours.lists import Neighbours
from benchrouter.router import Router
from benchrouter.scores.expected import on_device as expected_on_device
from benchrouter.scores.expected.prompt_scores import Expected, expect
from benchrouter.votes import on_device as votes_on_device
from benchrouter.votes.outcomes import Chosen, PackedOutcomes, Votes, pack, unpack
from benchrouter.votes.votes import decide, votes

torch = pytest.importorskip("torch")

EXAMPLES = max(int(os.environ.get("BENCHROUTER_EXAMPLES", "1500")) // 15, 10)
some = settings(max_examples=EXAMPLES, deadline=None)


@pytest.fixture(scope="module", params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Name of a device in torch whose tensors the kernels take."""
    if request.param == "cuda":
        if not _core.has_cuda:
            pytest.fail("there is a device, but the extension was built without CUDA")
        yield "cuda"
        return
    with pytest.MonkeyPatch.context() as patch:
        for module in (votes_on_device, expected_on_device):
            patch.setattr(module, "_core", request.getfixturevalue("host_module"))
        yield "cpu"


def moved(value, device):
    """Arrays to tensors, also in dicts and named tuples."""
    if isinstance(value, np.ndarray):
        return torch.tensor(value, device=device)
    if isinstance(value, dict):
        return {name: moved(v, device) for name, v in value.items()}
    if isinstance(value, PackedOutcomes):
        return votes_on_device.to_device({"": value}, device)[""]
    return value


def votes_there(device, neighbours, outcomes, **options):
    defaults = {"k": None, "prior_weight": 0.0, "weights": None, "out": None}
    arguments = moved({**defaults, **options}, device)
    found = votes_on_device.votes(moved(neighbours, device), moved(outcomes, device), **arguments)
    return Votes(*(values.cpu().numpy() for values in found))


def decide_there(device, neighbours, similarities, outcomes, **options):
    defaults = {
        "rule": "mean", "prior_weight": 1.0, "threshold": 0.5, "p_table": None, "p_start": 0.0,
        "p_step": 1.0, "distance_limit": np.inf, "fallback_model": 0, "allowed": None,
        "weights": None, "out": None,
    }  # fmt: skip
    arguments = moved({**defaults, **options}, device)
    found = votes_on_device.decide(
        *(moved(values, device) for values in (neighbours, similarities, outcomes)), **arguments
    )
    return Chosen(*(values.cpu().numpy() for values in found))


def assert_same(found, expected):
    for name, ours, of_cpu in zip(expected._fields, found, expected, strict=True):
        assert ours.dtype == of_cpu.dtype
        np.testing.assert_array_equal(ours, of_cpu, err_msg=name)


@pytest.mark.parametrize("kind", ["binary", "scores"])
def test_votes_equal_those_of_the_cpu(device, kind):
    @some
    @given(cases(kind), st.sampled_from((0.0, 0.5, 1.0)), st.booleans())
    def check(case, prior_weight, first_only):
        outcomes = [case.outcomes]
        if kind == "binary":
            outcomes.append(pack(case.outcomes))
        else:
            correct = np.where(np.isnan(case.outcomes), np.nan, case.outcomes > 0)
            outcomes.append(pack(f32(correct)))
        n_columns = case.neighbours.shape[1]
        options = {
            "prior": case.prior, "prior_weight": prior_weight, "weights": case.weights,
            "k": int(case.rng.integers(0, n_columns + 1)) if first_only else None,
        }  # fmt: skip
        for o in outcomes:
            expected = votes(case.neighbours, o, **options)
            assert_same(votes_there(device, case.neighbours, o, **options), expected)

    check()


@pytest.mark.parametrize("rule", ["mean", "s3"])
@pytest.mark.parametrize("kind", ["binary", "scores"])
def test_decisions_equal_those_of_the_cpu(device, kind, rule):
    @some
    @given(cases(kind), st.sampled_from((0.0, 1.0)), st.sampled_from((0.4, 1.0, np.inf)))
    def check(case, prior_weight, limit):
        n_columns = case.neighbours.shape[1]
        options = {
            "prior": case.prior,
            "preference": case.preference,
            "k": int(case.rng.integers(0, n_columns + 1)),
            "kappa": int(case.rng.integers(0, n_columns + 1)),
            "rule": rule,
            "prior_weight": prior_weight,
            "p_table": case.p_table if rule == "s3" else None,
            "p_start": 0.1,
            "p_step": 0.3,
            "distance_limit": limit,
            "weights": case.weights,
        }
        options["allowed"], options["fallback_model"] = some_models(case)
        if case.rng.random() < 0.5:
            options["allowed"] = None
        packed = [pack(case.outcomes)] if kind == "binary" else []
        for outcomes in (case.outcomes, *packed):
            arguments = (case.neighbours, case.similarities, outcomes)
            expected = decide(*arguments, **options)
            assert_same(decide_there(device, *arguments, **options), expected)

    check()


# ------------------------------------------------------------------------------- expected scores


def expect_there(device, learnt, queries, near, outcomes, **options):
    arguments = moved(options, device)
    found = expected_on_device.expect(
        expected_on_device.LearntOnDevice(learnt, device), moved(queries, device),
        moved(near.ids, device), moved(near.similarities, device), moved(outcomes, device),
        with_scores=True, **arguments,
    )  # fmt: skip
    return Expected(
        Chosen(*(values.cpu().numpy() for values in found.chosen)),
        found.strange.cpu().numpy(),
        found.scores.cpu().numpy(),
    )


def assert_same_expected(device, found, expected):
    """To the last bit on the host; a device's exp and log may move a score's last bit."""
    if device == "cpu":
        assert_same(found.chosen, expected.chosen)
        np.testing.assert_array_equal(found.strange, expected.strange)
        np.testing.assert_array_equal(found.scores, expected.scores)
        return
    scale = np.abs(expected.scores).max(initial=1e-30)
    np.testing.assert_allclose(found.strange, expected.strange, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6 * scale)
    for name in ("distance", "fallback"):
        ours, of_cpu = getattr(found.chosen, name), getattr(expected.chosen, name)
        np.testing.assert_array_equal(ours, of_cpu, err_msg=name)
    own = np.take_along_axis(found.scores, found.chosen.model[:, None].astype(np.int64), 1)
    np.testing.assert_array_equal(found.chosen.score, own[:, 0] if len(own) else [])
    same = found.chosen.model == expected.chosen.model
    assert same.sum() >= len(same) - max(1, len(same) // 10_000)  # ties within the last bit
    margins = found.chosen.margin[same], expected.chosen.margin[same]
    np.testing.assert_allclose(*margins, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("kind", ["binary", "scores"])
def test_expected_scores_equal_those_of_the_cpu(device, kind):
    @some
    @given(cases(kind))
    def check(case):
        learnt, queries, options = auto_case(case)
        near = Neighbours(case.neighbours, case.similarities)
        for outcomes in outcomes_of(case, kind):
            arguments = (queries, near, outcomes)
            expected = expect(_core.Expectation(**learnt), *arguments, with_scores=True, **options)
            found = expect_there(device, learnt, *arguments, **options)
            assert_same_expected(device, found, expected)

    check()


@pytest.mark.parametrize("n_models", [1, 11, 28, 64, 65, 130])
def test_many_prompts_by_expected_scores(device, n_models):
    n_queries, dim = (70, 101) if device == "cpu" else (30_001, 384)
    learnt, queries, near, outcomes, options = large_case(n_queries, n_models, dim)
    options |= {"fallback_model": n_models // 2, "home": n_models // 3}
    held = _core.Expectation(**learnt)
    for voters in (outcomes, unpack(outcomes, np.arange(500))):
        expected = expect(held, queries, near, voters, with_scores=True, **options)
        found = expect_there(device, learnt, queries, near, voters, **options)
        assert_same_expected(device, found, expected)


@pytest.mark.parametrize(("changes", "words"), LEARNT_FAULTS + FAULTS_OF_EXPECT)
def test_bad_values_for_expected_scores_are_refused_in_the_words_of_the_cpu(device, changes, words):
    learnt, queries, near, outcomes, options = small(**changes)
    with pytest.raises(ValueError, match=words) as of_cpu:
        expect(_core.Expectation(**learnt), queries, near, outcomes, **options)
    with pytest.raises(ValueError, match=words) as found:
        expect_there(device, learnt, queries, near, outcomes, **options)
    assert str(found.value) == str(of_cpu.value)


def test_bad_tensors_for_expected_scores(device):
    learnt, queries, near, outcomes, options = small()
    held = expected_on_device.LearntOnDevice(learnt, device)
    tensors = {
        "queries": moved(queries, device), "neighbours": moved(near.ids, device),
        "similarities": moved(near.similarities, device), "outcomes": moved(outcomes, device),
        **moved(options, device),
    }  # fmt: skip
    out = expected_on_device.expect(held, **tensors, with_scores=True)
    assert expected_on_device.expect(held, **tensors, out=out) is out
    for changes, error, words in (
        ({"queries": tensors["queries"].double()}, TypeError, "queries must be float32, got"),
        ({"queries": queries}, TypeError, "queries must be a tensor, as neighbours is, got ndarr"),
        ({"out": out._replace(strange=out.scores)}, ValueError, "out_strange must have 1 dimens"),
        ({"out": out._replace(scores=out.scores[:, :1])}, ValueError, r"out_scores has shape"),
        ({"out": out._replace(strange=out.chosen.score)}, ValueError, "out_strange shares memory"),
        (
            {"out": out._replace(strange=tensors["queries"][0])},
            ValueError,
            "out_strange shares memory with queries",
        ),
        (
            {"out": out._replace(strange=held.arguments["own_distance"][:1])},
            ValueError,
            "out_strange shares memory with own_distance",
        ),
    ):
        with pytest.raises(error, match=words):
            expected_on_device.expect(held, **(tensors | changes))


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("n_models", [1, 18, 64, 65, 200])
def test_many_queries(device, n_models, missing):
    rng = np.random.default_rng(n_models)
    n_queries = 400 if device == "cpu" else 100_003
    outcomes = f32(rng.integers(0, 2, (500, n_models)))
    outcomes[rng.random(outcomes.shape) < missing] = np.nan
    neighbours = rng.integers(-1, 500, (n_queries, 19))
    similarities = f32(rng.uniform(-1, 1, neighbours.shape))
    prior = f32(rng.random(n_models))
    options = {
        "prior": prior, "preference": rng.permutation(n_models).astype(np.int32), "k": 5,
        "kappa": 19, "distance_limit": 1.0,
    }  # fmt: skip
    for o in (outcomes, pack(outcomes)):
        assert_same(
            votes_there(device, neighbours, o, prior=prior, k=10),
            votes(neighbours, o, prior=prior, k=10),
        )
        arguments = (neighbours, similarities, o)
        assert_same(decide_there(device, *arguments, **options), decide(*arguments, **options))


def test_counts_beyond_a_byte(device):
    outcomes = np.ones((3, 9), np.float32)
    outcomes[2, 4] = np.nan
    neighbours = np.tile(i64([0, 1, 2]), (2, 400))
    found = votes_there(device, neighbours, pack(outcomes), prior=f32([0.5] * 9))
    np.testing.assert_array_equal(found.votes, 1.0)
    np.testing.assert_array_equal(found.support, [[1200] * 4 + [800] + [1200] * 4] * 2)


def test_no_models_and_no_queries(device):
    prior = f32([])
    found = votes_there(device, i64([[0]]), np.empty((1, 0), np.float32), prior=prior)
    assert found.votes.shape == (1, 0)
    found = votes_there(device, np.empty((0, 3), np.int64), f32([[1]]), prior=f32([1]))
    assert found.support.shape == (0, 1)


def test_out_is_written_and_returned(device):
    out = Votes(
        torch.zeros((1, 2), device=device), torch.zeros((1, 2), dtype=torch.uint16, device=device)
    )
    found = votes_on_device.votes(
        moved(i64([[0]]), device), moved(f32([[1, 0]]), device), prior=moved(f32([0, 0]), device),
        k=None, prior_weight=0.0, weights=None, out=out,
    )  # fmt: skip
    assert found is out
    assert out.votes.tolist() == [[1, 0]] and out.support.tolist() == [[1, 1]]


# ----------------------------------------------------------------------------------------- errors

GOOD = {
    "neighbours": i64([[0, 1], [1, -1], [0, 0]]),
    "similarities": f32([[0.5, 0.25], [1, -np.inf], [0, 0]]),
    "outcomes": f32([[1, 0], [np.nan, 1]]),
    "prior": f32([0.5, 0.5]),
    "preference": np.array([1, 0], np.int32),
    "k": 2,
    "kappa": 2,
}


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


FAULTS = [
    {"neighbours": changed(GOOD["neighbours"], (1, 0), 2)},
    {"neighbours": changed(GOOD["neighbours"], (2, 1), -2)},
    {"neighbours": i64([[0, 5], [7, -1], [0, 0]]), "similarities": f32([[np.nan] * 2] * 3)},
    {
        "neighbours": i64([[0]] * 3 + [[9]] * 50),
        "similarities": f32([[0.5]] * 53),
        "k": 1,
        "kappa": 1,
    },
    {"similarities": changed(GOOD["similarities"], (1, 0), np.nan)},
    {"similarities": changed(GOOD["similarities"], (2, 1), np.inf)},
    {"weights": f32([[1, 1], [1, -0.5], [1, 1]])},
    {"weights": f32([[1, 1], [1, 1], [np.nan, 1]])},
    {"outcomes": f32([[1, -np.inf], [0, 1]])},
    {"prior": f32([0.5, np.nan])},
    {"preference": np.array([0, 0], np.int32)},
    {"preference": np.array([0, 2], np.int32)},
    {"preference": np.array([-(2**31), 0], np.int32)},
    {"rule": "s3", "p_table": f32([[0.5, 0.5], [0.5, np.inf]])},
    {"rule": "s3", "p_table": f32([[0.5]])},
    {"rule": "s3", "p_table": np.empty((0, 2), np.float32)},
    {"rule": "s3", "p_table": f32([[0.5, 0.5]]), "p_step": 0.0},
    {"rule": "s3", "p_table": f32([[0.5, 0.5]]), "p_start": np.inf},
    {"rule": "best"},
    {"p_table": f32([[0.5, 0.5]])},
    {"threshold": np.nan},
    {"distance_limit": np.nan},
    {"fallback_model": 2},
    {"allowed": np.array([True])},
    {"allowed": np.zeros(2, bool)},
    {"allowed": np.array([False, True])},
    {"prior_weight": -1.0},
    {"k": 3},
    {"kappa": 3},
    {"outcomes": np.empty((2, 0), np.float32), "prior": f32([])},
    {"outcomes": PackedOutcomes(np.zeros((2, 2), np.uint64), None, 2)},
    {"outcomes": PackedOutcomes(np.zeros((2, 1), np.uint64), np.zeros((3, 1), np.uint64), 2)},
    {"outcomes": PackedOutcomes(np.zeros((2, 1), np.uint64), None, -1)},
    {"prior": f32([0.5])},
    {"preference": np.array([0], np.int32)},
    {"similarities": f32([[0.5]])},
    {"weights": f32([[0.5]])},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "+".join(fault))
def test_bad_values_are_refused_in_the_words_of_the_cpu(device, fault):
    arguments = {**GOOD, **fault}
    with pytest.raises(ValueError) as of_cpu:
        decide(**arguments)
    with pytest.raises(ValueError) as found:
        decide_there(device, **arguments)
    assert str(found.value) == str(of_cpu.value)


@pytest.mark.parametrize(
    ("name", "change", "error", "words"),
    [
        ("neighbours", lambda t: t.int(), TypeError, "neighbours must be int64, got int32"),
        ("neighbours", lambda t: t.flatten(), ValueError, r"2 dimensions, got shape \(6,\)"),
        ("prior", lambda t: t[None], ValueError, r"must have 1 dimension, got shape \(1, 2\)"),
        ("prior", lambda t: t.double(), TypeError, "prior must be float32, got float64"),
        ("prior", lambda t: t.bfloat16(), TypeError, "prior must be float32, got bfloat16"),
        ("prior", lambda t: t.bool(), TypeError, "prior must be float32, got bool"),
        ("prior", lambda t: t.tolist(), TypeError, "prior must be a tensor, as neighbours is, got"),
        (
            "similarities",
            lambda t: t.T.contiguous().T,
            ValueError,
            r"similarities must be C-contiguous, got strides \(4, 12\) for shape \(3, 2\)",
        ),
        ("outcomes", lambda t: t[:, ::2], ValueError, "outcomes must be C-contiguous"),
    ],
)
def test_bad_tensors(device, name, change, error, words):
    arguments = moved(GOOD, device)
    arguments[name] = change(arguments[name])
    with pytest.raises(error, match=words):
        decide_there(device, **arguments)


def test_bad_out(device):
    arguments = (moved(i64([[0]]), device), moved(f32([[1, 0]]), device))
    options = {"prior": moved(f32([0, 0]), device), "k": 1, "prior_weight": 0.0, "weights": None}
    both = torch.zeros((1, 2), device=device)
    support = torch.zeros((1, 2), dtype=torch.uint16, device=device)
    for out, error, words in (
        ((both, support), TypeError, "out must be Votes, got tuple"),
        (Votes(both, both), TypeError, "out.support must be uint16, got float32"),
        (Votes(both[:, :1], support), ValueError, "out.votes has shape .1, 1., expected .1, 2."),
        (Votes(arguments[1], support), ValueError, "out.votes shares memory with outcomes"),
        (Votes(both.cpu().numpy(), support), TypeError, "out.votes must be a tensor"),
    ):
        with pytest.raises(error, match=words):
            votes_on_device.votes(*arguments, **options, out=out)


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
alive = []  # what capsules point to


def capsule(array, *, device_type=2, device_id=0, name=b"dltensor", lanes=1, offset=0):
    """A capsule that says it is on a device; its memory is the host's, and is never looked at."""
    tensor = DLTensor(
        array.ctypes.data, device_type, device_id, array.ndim, CODES[array.dtype.kind],
        8 * array.itemsize, lanes, (ctypes.c_int64 * array.ndim)(*array.shape), None, offset,
    )  # fmt: skip
    alive.extend((array, tensor, name))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
    )
    return new(ctypes.addressof(tensor), name, None)


def vote_on(**changes):
    """Call the extension's own binding with capsules that say they are on cuda:0."""
    arrays = {
        "neighbours": i64([[0]]), "bits": None, "present": None, "scores": f32([[1]]),
        "n_models": 0, "prior": f32([0]), "k": 1, "prior_weight": 0.0, "weights": None,
        "out_votes": f32([[0]]), "out_support": np.zeros((1, 1), np.uint16), "fault": i64([0]),
        "stream": 0,
    }  # fmt: skip
    arguments = {
        name: capsule(value) if isinstance(value, np.ndarray) else value
        for name, value in {**arrays, **changes}.items()
    }
    _core.votes_on_device(**arguments)


needs_kernels = pytest.mark.skipif(
    not _core.has_cuda, reason="the extension was built without CUDA (no nvcc)"
)


@needs_kernels
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"prior": [0.0]}, TypeError, "prior must be a DLPack capsule, got list"),
        ({"prior": capsule(f32([0]), name=b"used_dltensor")}, ValueError, "got 'used_dltensor'"),
        (
            {"prior": capsule(f32([0]), device_type=1)},
            ValueError,
            "must be on a CUDA device, got the",
        ),
        (
            {"prior": capsule(f32([0]), device_type=10)},
            ValueError,
            "got device 0 of DLPack type 10",
        ),
        (
            {"prior": capsule(f32([0]), device_id=1)},
            ValueError,
            "prior must be on the device of neighbours, cuda:0, got cuda:1",
        ),
        ({"prior": capsule(f32([0]), lanes=4)}, TypeError, "must be float32, got float32x4"),
        ({"prior": capsule(f32([0, 0]), offset=2)}, ValueError, "prior must be aligned"),
        ({"scores": None}, ValueError, "either bits or scores must be given"),
        ({"fault": i64([0, 0])}, ValueError, r"fault has shape \(2,\), expected \(1,\)"),
    ],
)
def test_capsules_are_checked(changes, error, words):
    with pytest.raises(error, match=words):
        vote_on(**changes)


@needs_kernels
def test_a_launch_without_a_device_is_an_error():
    if torch.cuda.is_available():
        pytest.skip("this machine has a device")
    with pytest.raises(RuntimeError, match="cuda(Get|Set)Device failed: .*(driver|device)"):
        vote_on()


def test_without_kernels_the_error_says_how_to_build_them(monkeypatch):
    monkeypatch.setattr(votes_on_device, "_core", SimpleNamespace(has_cuda=False))
    with pytest.raises(RuntimeError, match="built without CUDA kernels: build it where nvcc"):
        votes_there("cpu", i64([[0]]), f32([[1]]), prior=f32([0]))
    with pytest.raises(RuntimeError, match="built without CUDA kernels"):
        decide_there("cpu", **GOOD)
    learnt, queries, near, outcomes, options = small()
    with pytest.raises(votes_on_device.NoCudaKernels, match="built without CUDA kernels"):
        expect_there("cpu", learnt, queries, near, outcomes, **options)


def test_tensors_on_the_cpu_are_no_arrays():
    with pytest.raises(TypeError, match="neighbours must be a NumPy array of int64, got Tensor"):
        votes(torch.zeros((1, 1), dtype=torch.int64), f32([[1]]), prior=f32([0]))


def test_tensors_on_a_device_are_voted_on_there(device, monkeypatch):
    if device == "cpu":
        is_tensor = lambda array: isinstance(array, torch.Tensor)  # noqa: E731
        monkeypatch.setattr("benchrouter.votes.votes._on_device", is_tensor)
    arguments = moved(GOOD, device)
    found = decide(**arguments)
    assert all(values.device.type == device for values in found)
    assert_same(Chosen(*(values.cpu().numpy() for values in found)), decide(**GOOD))
    few = {name: GOOD[name] for name in ("neighbours", "outcomes", "prior")}
    found = votes(**moved(few, device))
    assert_same(Votes(*(values.cpu().numpy() for values in found)), votes(**few))


@pytest.mark.gpu
def test_the_current_stream_is_the_one_that_is_used():
    neighbours = np.tile(GOOD["neighbours"], (20_000, 1))
    arguments = {name: moved(GOOD[name], "cuda") for name in ("outcomes", "prior")}
    coming = moved(neighbours, "cuda")
    ids = torch.zeros_like(coming)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # another stream would find zeros
        ids.copy_(coming)
        found = votes(ids, **arguments)
        answer = Votes(*(values.cpu().numpy() for values in found))
    assert_same(answer, votes(neighbours, GOOD["outcomes"], prior=GOOD["prior"]))


# --------------------------------------------------------------------------------------- pipeline


@pytest.fixture(scope="module")
def fitted():
    """A router on three datasets with missing scores, ties of prompts, and its own embeddings."""
    rng = np.random.default_rng(5)
    embeddings = unit_rows(240, 32)
    embeddings[100:110] = embeddings[3]
    scores = f32(rng.integers(0, 2, (240, 7)))
    scores[rng.random(scores.shape) < 0.1] = np.nan
    table = make_table(scores, np.repeat(np.arange(3), 80))
    fit = Router.fit(table, embeddings=embeddings)._fit
    return Router(dataclasses.replace(fit, distance_limit=0.65))  # some prompts lie beyond


@pytest.fixture(scope="module")
def priced(fitted):
    """The same, with the costs of answers."""
    costs = f32(np.random.default_rng(6).random((240, 7)))
    mean = costs.mean(axis=0, dtype=np.float64)
    return Router(dataclasses.replace(fitted._fit, record_cost_usd=costs, cost_usd=mean))


def some_of(fit, left_out):
    """All models but one."""
    return tuple(name for m, name in enumerate(fit.models) if m != left_out)


@pytest.mark.parametrize("rule", ["mean", "raw", "s3"])
@pytest.mark.parametrize("k", [None, 1, 300])
def test_rules_on_a_device_decide_as_those_of_the_cpu(device, fitted, monkeypatch, rule, k):
    monkeypatch.setattr("benchrouter.decisions.on_device.BLOCK", 37)
    prompts = np.concatenate([unit_rows(90, 32, seed=9), unit_rows(1, 32)])
    fit, cpu = fitted._fit, fitted.decider.backend
    there = OnDevice(cpu.rules, device)
    for models in (None, some_of(fit, fit.fallback)):
        plan = plan_of(fit, Policy(rule=rule, k=k, models=models))
        found = there.decide(torch.tensor(prompts, device=device), plan).chosen
        expected = cpu.decide(prompts, plan).chosen
        assert expected.fallback.any() and not expected.fallback.all()
        assert_same(found, expected)
        assert plan.allowed[found.model].all()
        assert_same(there.decide(prompts, plan).chosen, expected)  # copied there


@pytest.mark.parametrize("rule", ["mean", "raw", "s3"])
@pytest.mark.parametrize("k", [None, 1, 300])
def test_rules_on_a_device_score_as_those_of_the_cpu(device, fitted, rule, k):
    prompts = np.concatenate([unit_rows(90, 32, seed=9), unit_rows(1, 32)])
    fit, cpu = fitted._fit, fitted.decider.backend
    for models in (None, some_of(fit, fit.fallback)):
        plan = plan_of(fit, Policy(rule=rule, k=k, models=models))
        found = OnDevice(cpu.rules, device).score(torch.tensor(prompts, device=device), plan)
        expected = cpu.score(prompts, plan)
        assert_same(found.neighbours, expected.neighbours)
        assert_same(found.chosen, expected.chosen)
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert found.strange is None


def test_the_rule_auto_on_a_device_expects_what_that_of_the_cpu_does(device, fitted, monkeypatch):
    monkeypatch.setattr("benchrouter.decisions.on_device.BLOCK", 37)
    prompts = np.concatenate([unit_rows(90, 32, seed=9), unit_rows(1, 32)])
    fit, cpu = fitted._fit, fitted.decider.backend
    rows, there = torch.tensor(prompts, device=device), OnDevice(cpu.rules, device)
    for models in (None, some_of(fit, fit.best_on_average)):
        plan = plan_of(fit, Policy(models=models))
        found, expected = there.score(rows, plan), cpu.score(prompts, plan)
        assert expected.chosen.fallback.any() and not expected.chosen.fallback.all()
        assert_same(found.neighbours, expected.neighbours)
        assert_same_expected(
            device, *(Expected(s.chosen, s.strange, s.scores) for s in (found, expected))
        )
        assert plan.allowed[found.chosen.model].all()
        decided = there.decide(rows, plan)
        assert_same(decided.chosen, found.chosen)
        chance = cpu.rules.success(found.chosen.score, found.strange)
        assert decided.success is not None and chance is not None
        np.testing.assert_array_equal(decided.success.chance, chance.chance)


@pytest.mark.parametrize("policy", [Policy(), Policy(cost_weight=0.5), Policy(min_success=0.6)])
def test_a_router_on_a_device_ranks_and_explains_as_one_on_the_cpu(
    device, priced, monkeypatch, policy
):
    there = "cuda:0" if device == "cuda" else "cpu:0"
    if device != "cuda":
        monkeypatch.setattr(updatable, "full_name", lambda name: there)
    on_device = Router(priced._fit, device="cuda")
    prompts = unit_rows(50, 32, seed=11)
    for rule in ("auto", "mean", "s3"):
        found = on_device.rank(embeddings=prompts, policy=policy, rule=rule)
        expected = priced.rank(embeddings=prompts, policy=policy, rule=rule)
        np.testing.assert_array_equal(found.order, expected.order)
        most = 2e-6 if device == "cuda" and rule == "auto" else 0
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=most)
        if policy.counts_costs:
            np.testing.assert_array_equal(found.cost_usd, expected.cost_usd)
        told = on_device.explain(embedding=prompts[0], policy=policy, rule=rule)
        why = priced.explain(embedding=prompts[0], policy=policy, rule=rule)
        assert (told.model, told.reason) == (why.model, why.reason)
        assert told.neighbours == why.neighbours


def test_a_router_on_a_device(device, fitted, monkeypatch, tmp_path):
    there = "cuda:0" if device == "cuda" else "cpu:0"  # the host, as another device than "cpu"
    if device != "cuda":
        monkeypatch.setattr(updatable, "full_name", lambda name: there)
    fitted.save(tmp_path / "router")
    on_device = Router.load(tmp_path / "router", device="cuda")
    prompts = unit_rows(50, 32, seed=11)
    for rule in ("auto", "mean", "s3"):
        found = on_device.route(embeddings=prompts, rule=rule)
        expected = fitted.route(embeddings=prompts, rule=rule)
        assert found.names() == expected.names()
        np.testing.assert_array_equal(found.distance, expected.distance)
        # What a device's exp and log may move.
        most = 2e-6 if device == "cuda" and rule == "auto" else 0
        np.testing.assert_allclose(found.margin, expected.margin, rtol=0, atol=most)
        few = [name for name in fitted.models if name != fitted.fallback][:3]
        found = on_device.route(embeddings=prompts, rule=rule, models=few)
        expected = fitted.route(embeddings=prompts, rule=rule, models=few)
        assert found.names() == expected.names() and set(found.names()) <= set(few)
        np.testing.assert_allclose(found.margin, expected.margin, rtol=0, atol=most)
        (streamed,) = on_device.route_stream([(None, prompts)], rule=rule, models=iter(few))
        assert streamed.names() == expected.names()
    with pytest.raises(ValueError, match="prompts or embeddings are needed"):
        on_device.route()
    with pytest.raises(TypeError, match="prompts must be a list of strings, got a single string"):
        on_device.route("What?")
    with pytest.raises(ValueError, match="embeddings have dim 8, the router's have dim 32"):
        on_device.route(embeddings=unit_rows(1, 8))


class TensorEncoder:
    """Stands in for an encoder on the device; encode() would bring embeddings to the host."""

    fingerprint = None

    def __init__(self, device, rows):
        self.device, self._rows = device, rows

    def tokenise(self, prompts):
        return prompts

    def encode_tensor(self, prompts):
        return torch.tensor(self._rows[: len(prompts)], device=self.device)


def test_embeddings_of_an_encoder_there_stay_there(device, fitted, monkeypatch):
    there = "cuda:0" if device == "cuda" else "cpu:0"
    if device != "cuda":
        monkeypatch.setattr(updatable, "full_name", lambda name: there)
    rows = unit_rows(4, 32, seed=12)
    on_device = Router(fitted._fit, encoder=TensorEncoder(there, rows), device="cuda")
    found = on_device.route(["a", "b", "c", "d"])
    assert found.names() == fitted.route(embeddings=rows).names()


class NumberedEncoder(TensorEncoder):
    """Takes the row of "prompt N" to be row N."""

    def encode_tensor(self, prompts):
        numbers = [int(prompt.split()[1]) for prompt in prompts]
        return torch.tensor(self._rows[numbers], device=self.device)


@pytest.mark.parametrize("where", ["encoder", "search", "votes"])
def test_a_job_that_runs_out_of_memory_on_a_device_goes_on(
    device, fitted, monkeypatch, tmp_path, where
):
    there = "cuda:0" if device == "cuda" else "cpu:0"
    if device != "cuda":
        monkeypatch.setattr(updatable, "full_name", lambda name: there)
    monkeypatch.setattr("benchrouter.cli.route_file.routing_device", lambda name: there)
    fitted.save(tmp_path / "router")
    prompts = [f"prompt {i}" for i in range(60)]
    rows = unit_rows(60, 32, seed=13)
    (tmp_path / "p.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    arguments = ["route", tmp_path / "router", tmp_path / "p.txt", "--device", "cuda"]
    arguments += ["--part-size", 20, "--batch-size", 10, "--resume", "-o", tmp_path / "out"]
    if where == "encoder":
        encoder, load = NumberedEncoder(there, rows), Router.load
        monkeypatch.setattr(
            "benchrouter.cli.route_file.load_router",
            lambda directory, *asked, **options: load(directory, encoder=encoder, device="cuda"),
        )
    else:
        np.save(tmp_path / "p.npy", rows)
        arguments += ["--embeddings", tmp_path / "p.npy"]
    said = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB"
    full = raising_at(4, torch.OutOfMemoryError(said))
    with monkeypatch.context() as patch:
        owner, name = {
            "encoder": (NumberedEncoder, "encode_tensor"),
            "search": (OnDevice, "decide"),
            "votes": (expected_on_device, "expect"),
        }[where]
        patch.setattr(owner, name, full(getattr(owner, name)))
        failed = CliRunner().invoke(app, list(map(str, arguments)))
    assert failed.exit_code == 1, failed.output
    assert failed.stderr.splitlines()[-1] == (
        "error: CUDA out of memory. Tried to allocate 20.00 MiB. (a smaller --batch-size needs "
        "less memory, or --device cpu)"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("manifest.json", "part-00000.parquet")
    ]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    parts = sorted((tmp_path / "out").glob("part-*"))
    found = pa.concat_tables(pq.read_table(part) for part in parts)
    assert found["prompt"].to_pylist() == prompts
    assert found["model"].to_pylist() == fitted.route(embeddings=rows).names()


def raising_at(n, error):
    """Wrap a function that raises at its call number n."""

    def wrap(function):
        calls = 0

        def called(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == n:
                raise error
            return function(*arguments, **options)

        return called

    return wrap


def test_a_router_for_a_device_that_is_not_there(fitted):
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(ValueError, match=f"device 'cuda:{count}': found {count} CUDA devices"):
        Router(fitted._fit, device=f"cuda:{count}")


def test_a_router_for_a_device_without_kernels(fitted, monkeypatch):
    monkeypatch.setattr("benchrouter.embeddings.devices.check_device", lambda name: "cuda:0")
    monkeypatch.setattr(votes_on_device, "_core", SimpleNamespace(has_cuda=False))
    with pytest.raises(RuntimeError, match="built without CUDA kernels"):
        Router(fitted._fit, device="cuda")


@pytest.mark.parametrize("built", [True, False])
def test_the_command_line_says_where_prompts_are_routed(monkeypatch, capsys, built):
    monkeypatch.setattr("benchrouter.embeddings.devices.check_device", lambda name: "cuda:0")
    monkeypatch.setattr(_core, "has_cuda", built)
    assert routing_device("cuda") == ("cuda:0" if built else "cpu")
    said = capsys.readouterr().err
    assert said.startswith("note: only the encoder runs on cuda:0") != built
    assert routing_device("cpu") == "cpu"


def test_the_command_line_refuses_a_device_that_is_not_there():
    with pytest.raises(EncoderUnavailable, match="device 'cuda:99': found"):
        routing_device("cuda:99")


# ------------------------------------------------------------------------------------------ build


@pytest.mark.parametrize(("name", "kernels"), [("votes/vote", 4), ("scores/expect", 2)])
def test_nvcc_compiles_the_kernels_without_spilling(tmp_path, name, kernels):
    nvcc, csrc = shutil.which("nvcc"), ROOT / "csrc"
    if nvcc is None:
        pytest.skip("nvcc is not on PATH")
    run = subprocess.run(
        [
            nvcc, "-std=c++17", "-O3", "-fmad=false", "-gencode", "arch=compute_90,code=sm_90",
            "-Werror", "all-warnings", "-Xptxas", "-v", "-I", str(csrc),
            "-c", str(csrc / f"{name}_cuda.cu"), "-o", str(tmp_path / "kernels.o"),
        ],
        env=without_preload(), capture_output=True, text=True,
    )  # fmt: skip
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-5000:]
    found = re.findall(r"Compiling entry function '\w*(?:votes|decide|expect)_kernel", output)
    assert len(found) == kernels
    assert set(re.findall(r"(\d+) bytes spill stores", output)) == {"0"}


FATBIN, PTX, CUBIN = struct.pack("<I", 0xBA55ED50), 1, 2


def device_code(binary):
    """(kind, architecture) of each piece of device code in a file, as nvcc 13 lays them out."""
    found = set()
    at = binary.find(FATBIN)
    while at >= 0:
        header, size = struct.unpack_from("<HQ", binary, at + 6)
        piece, end = at + header, at + header + size
        while piece < end:
            kind, header, size = struct.unpack_from("<HxxIQ", binary, piece)
            found.add((kind, *struct.unpack_from("<I", binary, piece + 28)))
            piece += header + size
        at = binary.find(FATBIN, end)
    return found


@needs_kernels
def test_the_extension_holds_code_for_each_architecture():
    found = device_code(Path(_core.__file__).read_bytes())
    assert found == {(CUBIN, 80), (CUBIN, 90), (PTX, 90)}
    cuobjdump = shutil.which("cuobjdump")
    if cuobjdump is not None:
        command = [cuobjdump, "--list-elf", _core.__file__]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"sm_(\d+)", listed)) == {"80", "90"}
