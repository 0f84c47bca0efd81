"""A small stand-in for the HTTP service: the page, and answers of real routers of the demo."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

import numpy as np

from benchrouter import CostPolicy, Router
from benchrouter.files.plain import finite
from benchrouter.serving.service.decision_page import page

DIM = 256


def embed(prompts: list[str]) -> np.ndarray:
    """Unit rows, shape (n, DIM): trigrams of each prompt, hashed and counted."""
    rows = np.zeros((len(prompts), DIM), dtype=np.float32)
    for row, prompt in zip(rows, prompts, strict=True):
        text = f"  {prompt.lower()} "
        for i in range(len(text) - 2):
            row[crc32(text[i : i + 3].encode()) % DIM] += 1
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class FakeService:
    """Serve the page and `/v1/*` on loopback.

    Attributes
    ----------
    requests : list of (str, dict)
        Path and body of every POST so far.
    key : str or None
        What `Authorization` must bring, where set.
    refusal : (int, dict, object) or None
        Status, headers and content that every POST is answered with, where set.
    delay_s : float
        Waited before a POST is answered.
    closed : bool
        Whether nothing is answered any more.
    """

    def __init__(self, routers: dict[str, Router], encode: Callable[[list[str]], Any] = embed):
        self.routers = routers
        self.encode = encode
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.key: str | None = None
        self.refusal: tuple[int, dict[str, str], Any] | None = None
        self.delay_s = 0.0
        self.closed = False
        self.versions = dict.fromkeys(routers, "0123456789ab")
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        serving = {"target": self._server.serve_forever, "kwargs": {"poll_interval": 0.01}}
        threading.Thread(**serving, daemon=True).start()

    def close(self) -> None:
        """Stop serving, also on connections that the browser opened ahead."""
        self.closed = True
        self._server.shutdown()
        self._server.server_close()

    def listing(self) -> dict[str, Any]:
        """What GET /v1/models answers."""
        described = {name: router.describe() for name, router in self.routers.items()}
        columns = ("standing", "params_b", "cost_usd", "usd_per_million_tokens")
        return {
            "object": "list",
            "data": [
                {"id": m["name"], "router": name, **{column: m[column] for column in columns}}
                for name, content in described.items()
                for m in content["models"]
            ],
            "routers": [
                {
                    "name": name,
                    "version": self.versions[name],
                    "n_records": content["n_records"],
                    "datasets": content["datasets"],
                    "best_on_average": content["best_on_average"],
                    "fallback": content["fallback"],
                }
                for name, content in described.items()
            ],
        }

    def explain(self, body: dict[str, Any]) -> dict[str, Any]:
        """What POST /v1/explain answers."""
        router = self.routers[body["router"]]
        policy = dict(body.get("policy", {}))
        rule = policy.pop("rule", "auto")
        models = policy.pop("models", None)
        policy = CostPolicy(**policy) if policy else None
        described = router.describe()
        embedding = self.encode([body["prompt"]])
        found = router.explain(
            body["prompt"],
            embedding=embedding[0],
            rule=rule,
            policy=policy,
        ).to_dict()
        ranking = router.rank(
            [body["prompt"]], embeddings=embedding, rule=rule, policy=policy, models=models
        )
        decided = ranking.decisions
        return found | {
            "decision": {
                "model": decided.names()[0],
                "fallback": bool(decided.fallback[0]),
                "cause": "far" if decided.fallback[0] else None,
                "reason": found["reason"],
                "score": float(decided.score[0]),
                "margin": float(decided.margin[0]),
                **{
                    name: None if values is None else float(values[0])
                    for name, values in (
                        ("chance", decided.chance),
                        ("chance_low", decided.chance_low),
                        ("chance_high", decided.chance_high),
                    )
                },
                "over_limit": None if decided.over_limit is None else bool(decided.over_limit[0]),
            },
            "router": body["router"],
            "version": self.versions[body["router"]],
            "truncated": len(body["prompt"]) > 4000,
            "distance_limit": described["distance_limit"],
            "benchmark_distances": [dataset["distance"] for dataset in described["datasets"]],
        }

    def choose(self, body: dict[str, Any]) -> dict[str, Any]:
        """What POST /v1/choose answers."""
        router = self.routers[body["router"]]
        rows = [[row.get(model) for model in router.models] for row in body.get("labels", [])]
        labels = np.array(rows, dtype=np.float32) if rows else None
        embeddings = self.encode(body["prompts"])
        found = router.choose(body["prompts"], labels, embeddings=embeddings, score=body["score"])
        named = {"router": body["router"], "version": self.versions[body["router"]]}
        return found.to_dict() | named


class _Handler(BaseHTTPRequestHandler):
    service: FakeService

    def do_GET(self) -> None:
        if self.path == "/":
            content, headers = page()
            self._send(200, headers, content)
        elif self.path == "/v1/models":
            self._answer(200, {}, self.service.listing())
        else:
            self._answer(404, {}, {"error": {"message": f"nothing is at {self.path}"}})

    def do_POST(self) -> None:
        service = self.service
        if service.closed:
            return
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        service.requests.append((self.path, body))
        time.sleep(service.delay_s)
        if service.refusal is not None:
            self._answer(*service.refusal)
            return
        try:
            answer = {"/v1/explain": service.explain, "/v1/choose": service.choose}[self.path](body)
        except ValueError as error:
            self._answer(422, {}, {"error": {"message": str(error)}})
        else:
            self._answer(200, {}, answer)

    def _answer(self, status: int, headers: dict[str, str], content: Any) -> None:
        key = self.service.key
        if key is not None and self.headers["Authorization"] != f"Bearer {key}":
            status, headers, content = 401, {}, {"error": {"message": "a key is needed"}}
        body = content if isinstance(content, bytes) else json.dumps(finite(content)).encode()
        self._send(status, {"Content-Type": "application/json", **headers}, body)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        try:
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the browser cancelled

    def log_message(self, *_: object) -> None:
        """Print nothing."""
