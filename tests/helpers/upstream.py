"""Servers in OpenAI's shapes that answer by their model's name, and can be broken."""

from __future__ import annotations

import asyncio
import json
import threading

HEAD = "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"


class Upstream:
    """Answers requests on a port of its own, in a thread.

    Attributes
    ----------
    url : str
    requests : list of dict
        Bodies of all requests.
    status : int
        Of the answers; other than 200 = an error.
    """

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.status = 200
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def kill(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        self._loop.call_soon_threadsafe(self._killed.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self, started: threading.Event) -> None:
        asyncio.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._killed = asyncio.get_running_loop(), asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        started.set()
        await self._killed.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if "content-length:" not in head:  # LiteLLM asks what models there are
                    writer.write(HEAD.format(status=404, kind="text/plain", length=0).encode())
                    continue
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                request = json.loads(await reader.readexactly(length))
                self.requests.append(request)
                kind, body = self._answer(head.split()[1], request)
                answer = HEAD.format(status=self.status, kind=kind, length=len(body))
                writer.write(answer.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _answer(self, path: str, request: dict) -> tuple[str, bytes]:
        if self.status != 200:
            error = {"error": {"message": "broken", "type": "broken", "code": self.status}}
            return "application/json", json.dumps(error).encode()
        if path.endswith("/embeddings"):
            row = {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            return _json(request, object="list", data=[row], usage=usage)
        message = {"role": "assistant", "content": f"I am {request['model']}"}
        if request.get("stream"):
            return "text/event-stream", _events(request, message)
        if path.endswith("/responses"):
            part = {"type": "output_text", "text": message["content"], "annotations": []}
            output = {"id": "2", "type": "message", "status": "completed", "role": "assistant"}
            return _json(request, object="response", output=[{**output, "content": [part]}])
        text = {"text": message["content"]} if "/chat/" not in path else {}
        choices = [{"index": 0, "message": message, **text, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        return _json(request, object="chat.completion", choices=choices, usage=usage)


def _json(request: dict, **fields) -> tuple[str, bytes]:
    content = {"id": "1", "created": 1, "created_at": 1, "model": request["model"], **fields}
    return "application/json", json.dumps(content).encode()


def _events(request: dict, message: dict) -> bytes:
    words = message["content"].split(" ")
    deltas = [{**message, "content": words[0]}, *({"content": f" {w}"} for w in words[1:]), {}]
    events = []
    for i, delta in enumerate(deltas):
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if not delta else None}
        _, event = _json(request, object="chat.completion.chunk", choices=[choice], n=i)
        events.append(b"data: " + event + b"\n\n")
    return b"".join(events) + b"data: [DONE]\n\n"
