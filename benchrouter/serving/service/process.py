"""One process that serves: its socket, its limits, its signals."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import resource
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from benchrouter.serving.service.connections import KEEP_ALIVE_S, Waiting, connections_of

BACKLOG = 2048
MAX_CONNECTIONS = 10_000
FILES_BESIDE = 256  # descriptors of a process that are no connections
DRAIN_S = 25  # for what is being answered; Kubernetes kills after 30 s
LAST_WORDS_S = 3.0  # for clients that are in the middle of a request meanwhile

log = logging.getLogger("benchrouter.service")


def bind(host: str, port: int) -> socket.socket:
    """Take an address; it is listened on later.

    Parameters
    ----------
    host : str
        A name or an address, IPv4 or IPv6.
    port : int
        0 = any that is free.

    Returns
    -------
    socket

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
    """Serve until SIGTERM or SIGINT; then what is being answered is answered.

    A second signal ends the process at once. Python's garbage collector leaves out what there is
    by now: to look through all of it, torch included, it would stop all requests for 0.2 s.

    Parameters
    ----------
    app : ASGI application
    bound : socket
        By :func:`bind`; closed in the end.
    when_ready : callable
        Called when requests are taken.
    """
    waiting = Waiting(min(MAX_CONNECTIONS, _raise_file_limit() - FILES_BESIDE))
    gc.collect()
    gc.freeze()
    Server(app, waiting, when_ready).run(sockets=[bound])


class Server(uvicorn.Server):
    """uvicorn's server, with our limits, and our way to end.

    Parameters
    ----------
    app : ASGI application
    waiting : Waiting
        Limits of connections.
    when_ready : callable
    """

    should_exit: bool

    def __init__(self, app: ASGIApp, waiting: Waiting, when_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=connections_of(waiting),
                ws="none",
                loop="asyncio",  # uvloop, where something else brought it, gains little here
                lifespan="off",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
            )
        )
        self._waiting = waiting
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._waiting.watch())
        self._when_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, and let what was asked be answered."""
        self._waiting.patience_s = min(self._waiting.patience_s, LAST_WORDS_S)
        await super().shutdown(sockets)
        self._watching.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at a signal, with exit code 0; uvicorn would raise the signal again when done."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True


def _raise_file_limit() -> int:
    """Allow as many open files as may be, and tell how many."""
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
