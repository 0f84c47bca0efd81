"""One process that serves: its socket, its limits, its signals."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

BACKLOG = 2048
MAX_CONNECTIONS = 10_000
FILES_BESIDE = 256  # descriptors of a process that are no connections
KEEP_ALIVE_S = 75  # between two requests; longer than load balancers keep theirs (60 s)
MAX_HEADER_BYTES = 64 * 1024
DRAIN_S = 25  # for what is being answered; Kubernetes kills after 30 s

log = logging.getLogger("benchrouter.service")


def bind(host: str, port: int) -> socket.socket:
    """Take an address; it is listened on later.

    Parameters
    ----------
    host : str
        A name or an address, IPv4 or IPv6.
    port : int
        0 = any that is free.

    Raises
    ------
    OSError
        Naming the address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as e:
        raise OSError(f"{host}:{port}: {e.strerror}") from None
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can connect to a socket."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Address of a socket as a URL."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: ASGIApp, bound: socket.socket, when_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests that have begun.

    A second signal ends the process at once. Python's garbage collector ignores every object that
    exists by now: looking through all of them, torch included, would stop all requests for 0.2 s.

    Parameters
    ----------
    app : ASGI application
    bound : socket
        By :func:`bind`; closed in the end.
    when_ready : callable
        Called when requests are taken.
    """
    server = server_of(app, min(MAX_CONNECTIONS, _raise_file_limit() - FILES_BESIDE))
    gc.collect()
    gc.freeze()
    asyncio.run(_run(server, bound, when_ready))


def server_of(app: ASGIApp, max_connections: int = MAX_CONNECTIONS) -> uvicorn.Server:
    """Make the server.

    Parameters
    ----------
    app : ASGI application
    max_connections : int
        Beyond it requests are refused (503).
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            # httptools would drop the body of a request that offers an upgrade to HTTP/2, as
            # Java's client does.
            http="h11",
            ws="none",
            loop="asyncio",  # uvloop, if something else brought it, gains little here
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=max_connections,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
    )


async def _run(
    server: uvicorn.Server, bound: socket.socket, when_ready: Callable[[], None]
) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        if server.should_exit:
            os._exit(128 + number)
        server.should_exit = True

    serving = asyncio.ensure_future(server.serve(sockets=[bound]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    # uvicorn's own handlers would end a process that has drained by the signal, not by exit code 0.
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    when_ready()
    await serving


def _raise_file_limit() -> int:
    """Allow as many open files as possible, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        best = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
            return best
        except (OSError, ValueError) as e:
            log.warning("cannot open more than %d files: %s", soft, e)
    return wanted if soft == resource.RLIM_INFINITY else soft
