"""``benchrouter serve``: routers behind HTTP."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchrouter.cli import options, output

if TYPE_CHECKING:
    from benchrouter.serving import Observer

DEFAULT = "default"  # name of the router that is given without one


@dataclass(frozen=True)
class AddressOptions:
    """Where the service listens, and whom it lets in."""

    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a key is needed.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 = any that is free.")] = 8000
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keys, one a line, of which requests bring one (Authorization: Bearer KEY). "
            "BENCHROUTER_API_KEY holds one, too.",
        ),
    ] = None
    no_api_key: Annotated[
        bool,
        typer.Option(
            "--no-api-key",
            help="Let everyone in who reaches --host: something before this service asks for keys.",
        ),
    ] = False

    def keys(self) -> tuple[str, ...]:
        """Keys of the environment and of the file."""
        from benchrouter.serving.service.keys import ENVIRONMENT, checked, read_keys

        of_environment = os.environ.get(ENVIRONMENT)
        keys = () if not of_environment else (checked(of_environment, ENVIRONMENT),)
        if self.api_key_file is not None:
            keys = (*keys, *read_keys(self.api_key_file))
        if keys and self.no_api_key:
            raise typer.BadParameter(
                "found a key, expected none beside it", param_hint="--no-api-key"
            )
        return keys


@dataclass(frozen=True)
class LimitOptions:
    """Times, sizes and numbers of requests."""

    deadline_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            min=0,
            help="A prompt not routed by then gets the fallback model; 0 = wait for ever.",
        ),
    ] = 500
    max_batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a batch; by default by the device.")
    ] = None
    max_wait_ms: Annotated[
        float, typer.Option(min=0, help="Longest wait of a prompt for others to join its batch.")
    ] = 2
    cache_size: Annotated[
        int, typer.Option(min=0, help="Decisions kept for equal requests; 0 = none.")
    ] = 10_000
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Longest request; a longer one is refused with 413.")
    ] = 16 * 2**20
    max_prompts: Annotated[
        int, typer.Option(min=1, help="Most prompts of a request; more are refused with 422.")
    ] = 1000
    max_pending: Annotated[
        int, typer.Option(min=1, help="Prompts that may wait; more are refused with 429.")
    ] = 4096
    reload_every: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="How often to look whether a router was replaced; 0 = never.",
        ),
    ] = 2


@dataclass(frozen=True)
class LogOptions:
    """What is written of requests and decisions."""

    decision_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every decision as a line of JSON; rotates at 100 MB."
        ),
    ] = None
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Prompts too, in the log and --decision-log.")
    ] = False
    log_requests: Annotated[
        bool, typer.Option("--log-requests/--no-log-requests", help="Log every request on stderr.")
    ] = True


@options.panelled
def serve(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help=f"Directory of the router named {DEFAULT}."),
    ] = None,
    router: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="A further router. Repeat it for several."),
    ] = None,
    *,
    address: AddressOptions,
    limits: LimitOptions,
    models: options.ModelsAtHand = None,
    encoder: options.EncoderName = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the encoder runs: cpu (if not given), cuda, cuda:1 … Repeat it for several."
        ),
    ] = None,
    dtype: options.Dtype = "auto",
    threads: options.Threads = 0,
    logs: LogOptions,
) -> None:
    """Serve one or more routers over HTTP, until SIGTERM.

    Prints its address in one line once it takes prompts, and logs to stderr, a line of JSON each.
    On SIGTERM it answers the requests that have begun, then exits with code 0. GET /docs describes
    the requests. A router that is replaced on disk is read again, and no request is lost.
    """
    options.check_dtype(dtype)
    with output.encoder_needed():
        from benchrouter.embeddings import EncoderNotFound
        from benchrouter.embeddings.devices import check_device
        from benchrouter.serving import DecisionLog, Engine, Loading, RoutePolicy
        from benchrouter.serving.service import Metrics, Settings, make_app, process
        from benchrouter.serving.service.logs import log_to_stderr

        devices = [check_device(name) for name in device or ["cpu"]]
    routers = _routers(directory, router)
    among = options.listed(models)
    keys = address.keys()
    with ExitStack() as opened:
        bound = opened.enter_context(process.bind(address.host, address.port))
        if not (keys or address.no_api_key or process.is_loopback(bound)):
            raise typer.BadParameter(
                f"found {address.host}, which others can reach, and no key: give --api-key-file, "
                "or --no-api-key where something before this service asks for keys",
                param_hint="--host",
            )
        log_to_stderr()
        metrics = Metrics()
        observers: list[Observer] = [metrics]
        if logs.decision_log is not None:
            decisions = DecisionLog(logs.decision_log, with_prompts=logs.log_prompts)
            opened.callback(decisions.close)
            observers.append(decisions)
        try:
            engine = Engine(
                routers,
                encoder=encoder,
                devices=devices,
                loading=Loading(dtype, threads),
                max_batch_tokens=limits.max_batch_tokens,
                max_wait_s=limits.max_wait_ms / 1000,
                max_queue=limits.max_pending,
                deadline_s=limits.deadline_ms / 1000 if limits.deadline_ms else None,
                cache_size=limits.cache_size,
                reload_every_s=limits.reload_every or None,
                observers=observers,
                policy=None if among is None else RoutePolicy(models=tuple(among)),
            )
        except EncoderNotFound as e:
            raise output.EncoderUnavailable(str(e)) from e
        opened.enter_context(engine)
        for info in engine.routers.values():
            n = len(info.models)
            process.log.info("router %r: version %s, %d models", info.name, info.version, n)
        _check_models(among, {info.name: info.models for info in engine.routers.values()})
        settings = Settings(
            keys=keys,
            only_local_names=not (keys or address.no_api_key),
            max_body_bytes=limits.max_body_bytes,
            max_prompts=limits.max_prompts,
            log_requests=logs.log_requests,
            log_prompts=logs.log_prompts,
        )
        app = make_app(engine, settings, metrics=metrics)
        process.serve(
            app, bound, lambda: print(f"listening on {process.url_of(bound)}", flush=True)
        )


def _check_models(among: list[str] | None, models: dict[str, tuple[str, ...]]) -> None:
    """Refuse a model that no router has, and a router that would have no model left."""
    if among is None:
        return
    everyone = {name for names in models.values() for name in names}
    unknown = [name for name in among if name not in everyone]
    without = [router for router, names in models.items() if not set(among) & set(names)]
    if unknown or without:
        found = f"{unknown[0]!r}, of no router" if unknown else f"none of router {without[0]!r}"
        raise typer.BadParameter(
            f"found {found}, expected some of {sorted(everyone)}", param_hint="--models"
        )


def _routers(directory: Path | None, named: list[str] | None) -> dict[str, Path]:
    """Directories of routers by name."""
    found = {} if directory is None else {DEFAULT: directory}
    for text in named or []:
        name, _, path = text.partition("=")
        if not name or not path or name in found:
            raise typer.BadParameter(
                f"found {text!r}, expected NAME=DIR, each name once", param_hint="--router"
            )
        found[name] = Path(path)
    if not found:
        raise typer.BadParameter("found no router, expected DIR or --router NAME=DIR")
    return found
