"""A server on this machine that serves files as the Hub and Google Cloud Storage do, or badly."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
PAGE = 3  # objects on a page of a listing


@dataclass
class Seen:
    """A request, and the bytes of the body that were sent for it."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Server:
    files: dict[str, bytes] = field(default_factory=dict)  # by unquoted path
    objects: dict[str, dict] = field(default_factory=dict)  # of the bucket, by name
    # what to do with the next requests of a path, in place of serving it well
    script: dict[str, list[Callable[[Handler, Seen], None]]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    def requests_of(self, end: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.endswith(end)]

    def add_dataset(self, repository: str, files: dict[str, bytes], small: tuple[str, ...] = ()):
        """A dataset of the Hub; `small` files have git's checksum, the others are large."""
        siblings = []
        for name, content in files.items():
            self.files[f"/datasets/{repository}/resolve/{COMMIT}/{name}"] = content
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sha256 = hashlib.sha256(content).hexdigest()
            lfs = {"sha256": sha256, "size": len(content), "pointerSize": 9}
            large = {} if name in small else {"lfs": lfs}
            siblings.append({"rfilename": name, "size": len(content), "blobId": blob, **large})
        self.listing(repository, siblings)

    def listing(self, repository: str, siblings: list[dict], revisions=("main",), sha=COMMIT):
        text = json.dumps({"id": repository, "sha": sha, "siblings": siblings}).encode()
        for revision in revisions:
            self.files[f"/api/datasets/{repository}/revision/{revision}"] = text

    def add_object(
        self, name: str, content: bytes, *, gzipped: bool = False, checksum: str | None = "md5Hash"
    ):
        """An object of the bucket of HELM; those that several uploads make up have `crc32c`."""
        stored = gzip.compress(content) if gzipped else content
        item = {"name": name, "size": str(len(stored))}
        if checksum:
            digest = crc32c(stored) if checksum == "crc32c" else hashlib.md5(stored).digest()
            item[checksum] = base64.b64encode(digest).decode()
        if gzipped:
            item["contentEncoding"] = "gzip"
        self.objects[name] = item
        self.files[f"/crfm-helm-public/{name}"] = stored


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as servers do; else a kept connection waits 40 ms
    served: Server

    def setup(self) -> None:
        super().setup()
        self.served.connections += 1

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.title(): value for name, value in self.headers.items()}
        seen = Seen(unquote(parts.path), headers)
        self.served.seen.append(seen)
        script = self.served.script.get(seen.path)
        try:
            if script:
                script.pop(0)(self, seen)
            elif parts.path == "/storage/v1/b/crfm-helm-public/o":
                self._list(seen, {k: v[0] for k, v in parse_qs(parts.query).items()})
            else:
                serve(self, seen)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_CONNECT(self) -> None:  # asked of a proxy
        seen = Seen(self.path, dict(self.headers))
        self.served.seen.append(seen)
        self.served.script[self.path].pop(0)(self, seen)

    def begin(self, seen: Seen, status: int, headers: dict[str, object]) -> None:
        seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def body(self, seen: Seen, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()
        seen.sent += len(content)

    def _list(self, seen: Seen, query: dict[str, str]) -> None:
        prefix, first = query["prefix"], int(query.get("pageToken", "0"))
        names = [name for name in sorted(self.served.objects) if name.startswith(prefix)]
        page: dict[str, object] = {}
        if query.get("delimiter") == "/":
            rest = {name[len(prefix) :].partition("/")[0] for name in names}
            page["prefixes"] = [f"{prefix}{name}/" for name in sorted(rest)]
        elif names:
            wanted = re.search(r"items\((.*?)\)", query["fields"])[1].split(",")
            items = [self.served.objects[n] for n in names[first : first + PAGE]]
            page["items"] = [{k: v for k, v in item.items() if k in wanted} for item in items]
            if first + PAGE < len(names):
                page["nextPageToken"] = str(first + PAGE)
        text = json.dumps(page).encode()
        self.begin(seen, 200, {"Content-Length": len(text)})
        self.body(seen, text)

    def log_message(self, *args: object) -> None:
        pass


def crc32c(content: bytes) -> bytes:
    """CRC-32C bit by bit, after RFC 3720, appendix B.4."""
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x82F63B78 if remainder & 1 else 0)
    return (remainder ^ 0xFFFFFFFF).to_bytes(4, "big")


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha1(content).hexdigest()}"'


def serve(handler: Handler, seen: Seen, *, ranges: bool = True, most: int | None = None) -> None:
    """Serve a file or a Range of it; at most so many bytes before the connection ends."""
    content = handler.served.files.get(seen.path)
    if content is None:
        return answer(404)(handler, seen)
    etag = etag_of(content)
    start, end = 0, len(content)
    wanted = seen.headers.get("Range") if ranges else None
    if wanted:
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(end, int(last) + 1)
        if start >= len(content):
            return answer(416)(handler, seen)
    item = handler.served.objects.get(seen.path.removeprefix("/crfm-helm-public/"), {})
    headers: dict[str, object] = {"ETag": etag, "Content-Length": end - start}
    if item.get("contentEncoding") == "gzip":
        if seen.headers.get("Accept-Encoding") != "gzip":  # unpacked on the way, length unknown
            content, headers = gzip.decompress(content), {"Connection": "close"}
            handler.close_connection = True
        else:
            headers["Content-Encoding"] = "gzip"
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    handler.begin(seen, 206 if wanted else 200, headers)
    body = content[start:end]
    if most is not None and most < len(body):
        body = body[:most]
        handler.close_connection = True
    for at in range(0, len(body), 1 << 16):
        handler.body(seen, body[at : at + (1 << 16)])


def answer(status: int, **headers: str) -> Callable[[Handler, Seen], None]:
    """Answer with a status and no file."""

    def act(handler: Handler, seen: Seen) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        handler.begin(seen, status, {"Content-Length": 0, **given})

    return act


def cut_after(n: int, *, ranges: bool = True) -> Callable[[Handler, Seen], None]:
    """Serve, but end the connection after so many bytes."""
    return lambda handler, seen: serve(handler, seen, ranges=ranges, most=n)


def without_ranges(handler: Handler, seen: Seen) -> None:
    """Serve the whole file, whatever range was asked for."""
    serve(handler, seen, ranges=False)


def stall_after(n: int, until: threading.Event) -> Callable[[Handler, Seen], None]:
    """Serve so many bytes, then nothing more."""

    def act(handler: Handler, seen: Seen) -> None:
        serve(handler, seen, most=n)
        until.wait(60)

    return act


def chunked(pieces: list[bytes], *, then: Callable[[Handler], None]) -> Callable:
    """Serve pieces without saying how long they are together; `then` ends it, well or badly."""

    def act(handler: Handler, seen: Seen) -> None:
        etag = etag_of(handler.served.files[seen.path])
        handler.begin(seen, 200, {"ETag": etag, "Transfer-Encoding": "chunked"})
        for piece in pieces:
            handler.wfile.write(b"%x\r\n" % len(piece))
            handler.body(seen, piece)
            handler.wfile.write(b"\r\n")
        then(handler)

    return act


def last_chunk(handler: Handler) -> None:
    handler.wfile.write(b"0\r\n\r\n")


def reset_in_a_chunk(handler: Handler) -> None:
    """Begin a chunk, and reset the connection."""
    handler.wfile.write(b"ffff\r\nbegun")
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def page(handler: Handler, seen: Seen) -> None:
    """A web page in place of what was asked for, as of a network that wants a login."""
    handler.begin(seen, 200, {"Content-Type": "text/html; charset=utf-8", "Connection": "close"})
    handler.body(seen, b"<html>log in</html>")


def redirect(status: int, location: str) -> Callable[[Handler, Seen], None]:
    return answer(status, Location=location)


class Running(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # of a client that went away
            super().handle_error(request, client_address)


def started(
    server: Server, *, protocol: str = "HTTP/1.1", certificate: str | None = None
) -> Running:
    """Serve it in a thread until `shutdown`; over TLS with a file of a certificate and its key."""
    handler = type("Bound", (Handler,), {"served": server, "protocol_version": protocol})
    running = Running(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        running.socket = context.wrap_socket(running.socket, server_side=True)
    server.url = f"http{'s' if certificate else ''}://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    return running
