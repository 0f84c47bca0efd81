"""A small router to be served, and ways to ask a service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np
from tables import make_table
from tiny_encoder import prompts_of, write_bert

from benchrouter import Router

MODELS = ("general-70b", "maths-13b", "small-3b")
N_RECORDS = 120


def write_router(folder: Path, seed: int = 0) -> Path:
    """Fit a router in folder/router, with its encoder in folder/encoder."""
    encoder = folder / "encoder"
    if not encoder.exists():
        write_bert(encoder, max_seq_length=24)
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(4), N_RECORDS // 4)
    right = rng.random((N_RECORDS, 3)) < rng.random((4, 3))[dataset]
    table = make_table(
        right.astype(np.float32),
        dataset,
        models=MODELS,
        prompts=prompts_of(rng.integers(3, 12, N_RECORDS).tolist(), seed=seed),
        cost_usd=rng.random((N_RECORDS, 3)).astype(np.float32) / 100,
        prices=np.array([[0.9, 0.9], [0.2, 0.2], [0.1, 0.1]]),
    )
    Router.fit(table, encoder=str(encoder)).save(folder / "router")
    return folder / "router"


def ask(app, method: str, path: str, content=None, **options) -> httpx.Response:
    """Send one request to an ASGI application."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **options)

    if content is not None:
        options["content"] = content if isinstance(content, bytes) else json.dumps(content)
        options["headers"] = {"Content-Type": "application/json", **options.get("headers", {})}
    return asyncio.run(send())
