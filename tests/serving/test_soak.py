"""The service under load for a minute keeps its memory; benchmarks/serve.py --soak, in small."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from served import Service, write_router

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from http_load import closed_loop, every
from serve import rss_mib

SECONDS = 60.0
LEAST_REQUESTS = 20_000
MIB_PER_REQUEST = 0.5 / 1024  # half a KiB; a decision alone takes more


@pytest.mark.slow
def test_memory_stays_as_it_is(tmp_path):
    service = Service(tmp_path, write_router(tmp_path), "--cache-size", 100, "--no-log-requests")
    words = np.random.default_rng(0).integers(0, 300, (100_000, 9)).tolist()
    bodies = [json.dumps({"prompt": " ".join(f"w{i}" for i in row)}).encode() for row in words]
    try:
        asyncio.run(closed_loop(service.port, bodies[::-1], 16, SECONDS / 4))
        with every(0.5, lambda: rss_mib(service.process.pid)) as mib:
            found = asyncio.run(closed_loop(service.port, bodies, 16, SECONDS))
    finally:
        assert service.end() == 0
    assert set(found.statuses) == {200}
    assert len(found.statuses) >= LEAST_REQUESTS, "too few to tell a leak from noise"
    grown = np.median(mib[-10:]) - np.median(mib[:10])
    assert grown <= MIB_PER_REQUEST * len(found.statuses), mib
