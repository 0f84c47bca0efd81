"""A small router to be served, and ways to ask a service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from tables import make_table
from tiny_encoder import prompts_of, write_bert

from benchrouter import Encoder, Router
from benchrouter.serving.service import process

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("general-70b", "maths-13b", "small-3b")
N_RECORDS = 120


def write_router(folder: Path, seed: int = 0) -> Path:
    """Fit a router in folder/router, with its encoder in folder/encoder.

    Each model is good on a third of the prompts, by the direction in which their embeddings differ
    most, so that the rule "auto" has a reason to choose all of them.
    """
    encoder = folder / "encoder"
    if not encoder.exists():
        write_bert(encoder, max_seq_length=24)
    rng = np.random.default_rng(seed)
    dataset = np.repeat(np.arange(4), N_RECORDS // 4)
    prompts = prompts_of(rng.integers(3, 12, N_RECORDS).tolist(), seed=seed)
    rows = Encoder.load(str(encoder)).encode(prompts)
    along = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[0][:, 0]
    best = np.argsort(np.argsort(along)) * len(MODELS) // N_RECORDS
    skill = np.where(np.arange(len(MODELS)) == best[:, None], 0.9, 0.2)
    table = make_table(
        (rng.random(skill.shape) < skill).astype(np.float32),
        dataset,
        models=MODELS,
        prompts=prompts,
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


class Service:
    """`benchrouter serve` as a process of its own."""

    def __init__(self, folder: Path, *arguments: object, port: int = 0, **environment: str) -> None:
        command = [sys.executable, "-m", "benchrouter", "serve", "--port", str(port)]
        self.log = folder / f"stderr-{time.monotonic_ns()}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), self.log.read_text()
        self.url = line.split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def lines(self) -> list[dict]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(signal_number)
        try:
            code = self.process.wait(40)
        finally:
            self.process.kill()
        assert self.process.stdout.read() == ""
        return code


@contextmanager
def running(app, max_connections: int = 100) -> Iterator[int]:
    """Serve an application from a thread; the port."""
    bound = process.bind("127.0.0.1", 0)
    server = process.server_of(app, max_connections)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    port = bound.getsockname()[1]
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join(40)
        assert not thread.is_alive()


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer on a connection."""
    file = connection.makefile("rb")
    status = int(file.readline().split()[1])
    headers = {}
    while (line := file.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, file.read(int(headers["content-length"]))


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request as it goes over the wire."""
    head = [f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
