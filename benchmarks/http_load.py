"""A small HTTP client that makes load: keep-alive connections in one event loop, no library."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answers:
    """What came back.

    Attributes
    ----------
    seconds : list of float
        From when a request was due to its answer.
    statuses : list of int
    bodies : list of dict or None
        As JSON; None where it was not kept.
    took : float
        Seconds from the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any] | None] = field(default_factory=list)
    took: float = 0.0


class Connection:
    """One keep-alive connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request and read its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        found = await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), found

    def close(self) -> None:
        """Close it; the next request opens it anew."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(
    port: int, bodies: Sequence[bytes], concurrency: int, seconds: float, *, keep: bool = False
) -> Answers:
    """Each of some connections sends its next request when the last one was answered.

    Parameters
    ----------
    port : int
    bodies : sequence of bytes
        Taken in turn.
    concurrency : int
    seconds : float
        In which requests are begun; 0 = every body once.
    keep : bool
        Whether to keep answers, in the order of the bodies (with `seconds` 0).
    """
    found = Answers(bodies=[None] * (len(bodies) if keep else 0))
    begun, place = time.perf_counter(), iter(range(1 << 62))

    async def one() -> None:
        connection = Connection(port)
        for i in place:
            start = time.perf_counter()
            if (start - begun > seconds) if seconds else (i >= len(bodies)):
                break
            status, body = await connection.post("/v1/route", bodies[i % len(bodies)])
            found.seconds.append(time.perf_counter() - start)
            found.statuses.append(status)
            if keep:
                found.bodies[i] = json.loads(body)
        connection.close()

    await asyncio.gather(*[one() for _ in range(concurrency)])
    found.took = time.perf_counter() - begun
    return found


async def open_loop(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> Answers:
    """Requests come at a rate, whether those before were answered or not.

    Parameters
    ----------
    port : int
    bodies : sequence of bytes
        Taken in turn.
    rate : float
        Requests a second, evenly spread.
    seconds : float
    """
    found = Answers()
    idle: list[Connection] = []

    async def one(i: int, due: float) -> None:
        connection = idle.pop() if idle else Connection(port)
        status, body = await connection.post("/v1/route", bodies[i % len(bodies)])
        found.seconds.append(time.perf_counter() - due)
        found.statuses.append(status)
        found.bodies.append(json.loads(body))
        idle.append(connection)

    begun = time.perf_counter()
    tasks = []
    for i in range(int(rate * seconds)):
        due = begun + i / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(i, due)))
    await asyncio.gather(*tasks)
    found.took = time.perf_counter() - begun
    for connection in idle:
        connection.close()
    return found


@contextmanager
def every(seconds: float, sample: Callable[[], float]) -> Iterator[list[float]]:
    """Take a sample now and then while the block runs, in a thread.

    Yields
    ------
    list of float
        The samples.
    """
    samples: list[float] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            samples.append(sample())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
