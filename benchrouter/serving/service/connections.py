"""Connections that wait for their client: not for ever, and never in the way of others."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from benchrouter.serving.service.errors import Refused, body_of

REQUEST_S = 30.0  # that a client has for one request, and for reading an answer
KEEP_ALIVE_S = 75  # between two requests; longer than load balancers keep theirs (60 s)
MAX_HEADER_BYTES = 64 * 1024


class Waiting:
    """The connections whose client has the next move, the longest waiting first.

    Parameters
    ----------
    most : int
        Connections there may be. One more ends the one that has waited longest; where all are
        being answered, it is let in nevertheless.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.patience_s = REQUEST_S
        self._since: dict[Connection, float] = {}

    def add(self, connection: Connection) -> None:
        """Note that a connection waits from now on."""
        self._since[connection] = time.monotonic()

    def remove(self, connection: Connection) -> None:
        """Note that it does not."""
        self._since.pop(connection, None)

    def make_room(self, n_connections: int) -> None:
        """End the one that has waited longest, if there are too many."""
        if n_connections > self.most and self._since:
            next(iter(self._since)).give_up()

    async def watch(self) -> None:
        """End those that keep a request unfinished, or an answer unread, for too long."""
        while True:
            await asyncio.sleep(min(1.0, self.patience_s / 4))
            self.end_late()

    def end_late(self) -> None:
        """End them now."""
        late = time.monotonic() - self.patience_s
        for connection, since in list(self._since.items()):
            if since < late and not connection.is_between_requests:
                connection.give_up()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits where it has none: time and length of what is sent."""

    waiting: ClassVar[Waiting]  # of the server, by `connections_of`
    _header_bytes = 0

    @property
    def is_between_requests(self) -> bool:
        """Whether its answers were read and no request has begun; uvicorn has a timer for that."""
        return self.timeout_keep_alive_task is not None and not self.flow.write_paused

    @property
    def _awaits_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.waiting.add(self)
        self.waiting.make_room(len(self.connections))

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self.waiting.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; it has its time from its first byte to its last."""
        between = self.is_between_requests
        super().data_received(data)
        if self._awaits_request:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self._refuse(Refused(431, "headers_too_large", "the headers are too long"))
        else:
            self._header_bytes = 0
        if not self._awaits_request and not self.cycle.more_body:
            self.waiting.remove(self)
        elif between:
            self.waiting.remove(self)
            self.waiting.add(self)

    def on_response_complete(self) -> None:
        """Wait for the next request, or until the answer was read."""
        super().on_response_complete()
        self.waiting.remove(self)
        if self._awaits_request:
            self.waiting.add(self)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self.waiting.add(self)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        if not self._awaits_request:
            self.waiting.remove(self)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(Refused(400, "bad_request", msg))

    def give_up(self) -> None:
        """End the connection; a client in the middle of a request is told."""
        self.waiting.remove(self)
        unfinished = self._header_bytes > 0 or (
            self.cycle is not None and not self.cycle.response_started
        )
        if unfinished and not self.transport.is_closing():
            self._refuse(Refused(408, "request_timeout", "the request was not finished in time"))
        else:
            self.transport.abort()

    def _refuse(self, refused: Refused) -> None:
        body = body_of(refused)
        self.transport.write(
            STATUS_LINE[refused.status]
            + b"content-type: application/json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()


def connections_of(waiting: Waiting) -> type[Connection]:
    """Make the protocol of one server, for `uvicorn.Config(http=…)`."""
    return type("ServerConnection", (Connection,), {"waiting": waiting})
