"""Prometheus metrics of a service: its engine and its requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from benchrouter.serving import Observer

if TYPE_CHECKING:
    from benchrouter.serving import Engine, Routed

REQUEST_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
BATCH_PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
BATCH_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
DISTANCE = tuple(x / 20 for x in range(1, 21))  # mean cosine distance; above 1 is rare


class Metrics(Observer):
    """Counts of one service, in a registry of their own.

    An observer of the engine, made before it; the service adds its requests. Labels take few
    values: known paths, statuses, causes, devices, routers and their models.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "benchrouter_requests",
            "Requests answered.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "benchrouter_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.batch_prompts = Histogram(
            "benchrouter_batch_prompts",
            "Prompts of a batch.",
            ["device"],
            buckets=BATCH_PROMPTS,
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "benchrouter_batch_tokens",
            "Tokens of a batch.",
            ["device"],
            buckets=BATCH_TOKENS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "benchrouter_batch_seconds",
            "Time that a batch took on its device.",
            ["device"],
            buckets=BATCH_SECONDS,
            registry=registry,
        )
        self.distance = Histogram(
            "benchrouter_distance",
            "Mean cosine distance of prompts to the nearest benchmark records.",
            ["router"],
            buckets=DISTANCE,
            registry=registry,
        )
        self.fallbacks = Counter(
            "benchrouter_fallbacks",
            "Prompts answered with the fallback model, and why.",
            ["cause"],
            registry=registry,
        )
        self.decisions = Counter(
            "benchrouter_decisions",
            "Prompts by the model they were routed to.",
            ["router", "model"],
            registry=registry,
        )
        self.reloads = Counter(
            "benchrouter_reloads",
            "Routers read again because their directory had changed.",
            ["router", "outcome"],
            registry=registry,
        )
        self.cache_hits = Counter(
            "benchrouter_cache_hits", "Prompts answered from the cache.", registry=registry
        )
        ProcessCollector(registry=registry)

    def watch(self, engine: Engine) -> None:
        """Show an engine's queue and routers too."""
        Gauge(
            "benchrouter_queue_prompts",
            "Prompts that wait for a device.",
            registry=self.registry,
        ).set_function(lambda: engine.queued)
        self.registry.register(_Routers(engine))

    def requested(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        """Count a prompt."""
        self.decisions.labels(routed.router, routed.model).inc()
        if routed.cause is not None:
            self.fallbacks.labels(routed.cause).inc()
        if routed.cached:
            self.cache_hits.inc()
        if routed.distance is not None:
            self.distance.labels(routed.router).observe(routed.distance)

    def batch(self, device: str, n_prompts: int, n_tokens: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_prompts.labels(device).observe(n_prompts)
        self.batch_tokens.labels(device).observe(n_tokens)
        self.batch_seconds.labels(device).observe(seconds)

    def reloaded(self, name: str, version: str, error: str | None) -> None:
        """Count a reload."""
        self.reloads.labels(name, "done" if error is None else "failed").inc()

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)


class _Routers(Collector):
    """The version of every router that is served; earlier versions are not shown."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = self._family()
        for name, info in self._engine.routers.items():
            family.add_metric([name, info.version, info.fallback], 1)
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "benchrouter_router_info",
            "The routers that are served.",
            labels=["router", "version", "fallback"],
        )
