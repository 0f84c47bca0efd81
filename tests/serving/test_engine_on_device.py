"""The engine searches where its routers are; without a device the kernels run on the host."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from served import write_router
from tiny_encoder import prompts_of

from benchrouter import Router, _core
from benchrouter.decisions import updatable
from benchrouter.decisions.on_cpu import OnCpu
from benchrouter.decisions.on_device import OnDevice
from benchrouter.embeddings import Encoder
from benchrouter.scores.expected import on_device as expected_on_device
from benchrouter.serving import Engine, Loading, RoutePolicy, encoders, engine, routers
from benchrouter.votes import on_device as votes_on_device

torch = pytest.importorskip("torch")

PROMPTS = prompts_of([3, 9, 5, 20, 7, 4] * 4, seed=3)


@pytest.fixture(scope="module", params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Name of a device; the host stands in for one."""
    if request.param == "cuda":
        if not _core.has_cuda:
            pytest.fail("there is a device, but the extension was built without CUDA")
        yield "cuda:0"
        return
    loaded = Encoder.load

    def load(name, *, device, **options):
        return loaded(name, device="cpu", **options)

    with pytest.MonkeyPatch.context() as patch:
        for module in (votes_on_device, expected_on_device):
            patch.setattr(module, "_core", request.getfixturevalue("host_module"))
        patch.setattr(engine, "check_device", lambda device: device)
        for module in (routers, updatable):
            patch.setattr(module, "full_name", lambda device: device)
        patch.setattr(encoders.Encoder, "load", load)
        yield "cpu:0"  # to torch the CPU, to benchrouter another device


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_router(tmp_path_factory.mktemp("router"))


@pytest.fixture(scope="module")
def encoder(directory):
    return Encoder.load(directory.parent / "encoder", device="cpu", dtype="float32")


@pytest.fixture
def searched(monkeypatch):
    """Rows that were scored, by the device of the benchmark."""
    found = {"cpu": [], "device": []}

    def watched(name, plain):
        def score(backend, rows, plan):
            found[name].append(rows)
            return plain(backend, rows, plan)

        return score

    monkeypatch.setattr(OnCpu, "score", watched("cpu", OnCpu.score))
    monkeypatch.setattr(OnDevice, "score", watched("device", OnDevice.score))
    return found


def made(source, device, **options):
    options |= {"deadline_s": None, "reload_every_s": None, "loading": Loading("float32")}
    return Engine(source, devices=[device], **options)


def wait_until(true, seconds=10.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "policy", [RoutePolicy(), RoutePolicy(rule="raw"), RoutePolicy(within=0.1)]
)
def test_a_router_that_is_read_is_searched_where_its_prompts_are_encoded(
    directory, encoder, device, searched, policy
):
    with made(directory, device, policy=policy) as served:
        found = served.route_many_blocking(PROMPTS)
        why = asyncio.run(served.explain(PROMPTS[0]))
        encoded = list(searched["device"])
        again = served.route_many_blocking(None, embeddings=encoder.encode(PROMPTS))
    assert encoded and not searched["cpu"]
    assert all(torch.is_tensor(rows) for rows in encoded)  # they never left the device
    expected = Router.load(directory, encoder=encoder).rank(PROMPTS, policy=policy)
    assert [routed.model for routed in found] == expected.decisions.names()
    assert [routed.model for routed in again] == expected.decisions.names()
    assert why.model == found[0].model
    assert {routed.cause for routed in found} <= {None, "far"}
    np.testing.assert_allclose([r.distance for r in found], expected.decisions.distance, atol=1e-3)


def test_a_router_in_memory_is_searched_where_it_is(directory, encoder, device, searched):
    there, here = Router.load(directory, device=device), Router.load(directory)
    expected = Router.load(directory, encoder=encoder).route(PROMPTS).names()
    for source, used, unused in ((there, "device", "cpu"), (here, "cpu", "device")):
        searched[used].clear()
        searched[unused].clear()
        for place in ("cpu", device):
            with made(source, place) as served:
                found = served.route_many_blocking(PROMPTS)
            assert [routed.model for routed in found] == expected
        assert searched[used] and not searched[unused]


def test_without_kernels_only_prompts_are_encoded_on_the_device(
    directory, encoder, device, searched, monkeypatch
):
    def missing(device):
        raise votes_on_device.NoCudaKernels("not built")

    monkeypatch.setattr(routers, "full_name", missing)
    with made(directory, device) as served:
        found = served.route_many_blocking(PROMPTS)
    expected = Router.load(directory, encoder=encoder).route(PROMPTS).names()
    assert [routed.model for routed in found] == expected
    assert searched["cpu"] and not searched["device"]


def test_a_device_that_fails_at_a_decision_fails(directory, device, monkeypatch):
    plain = OnDevice.score

    def score(backend, rows, plan):
        if len(rows) == 1:
            raise RuntimeError("an illegal memory access")
        return plain(backend, rows, plan)

    with made(directory, device) as served:
        monkeypatch.setattr(OnDevice, "score", score)
        found = served.route_blocking("w1")
        assert (found.cause, found.fallback) == ("encoder", True)
        assert served.failures == {device: "an illegal memory access"}
        monkeypatch.undo()
        wait_until(lambda: served.ready)  # it is tried again, though nobody asks
        assert served.route_blocking("w1").cause in (None, "far")
