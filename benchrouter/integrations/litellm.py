"""LiteLLM: virtual models, "benchrouter/NAME", that stand for the model that suits the prompt.

`Routing` is a callback of the proxy; `Router` puts one before LiteLLM's Router in a program. Before
LiteLLM looks for a deployment, both turn a request for a virtual model into one for the chosen
model, with the rest of the ranking as its fallbacks. Retries, cooldowns, limits and logs of the
chosen model stay LiteLLM's. Requests for other models are not changed.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import litellm
from litellm.integrations.custom_logger import CustomLogger

from benchrouter.integrations.litellm_gateway import KEY, PREFIX, Gateway, deployment_of, opened
from benchrouter.serving import BadPrompt, Engine, RoutePolicy, UnknownRouter, text_of
from benchrouter.serving.messages import LONGEST

if TYPE_CHECKING:
    from benchrouter.client import AsyncClient, Client

PROMPTS = {  # calls that are routed, and the argument that holds the prompt
    "acompletion": "messages",
    "completion": "messages",
    "anthropic_messages": "messages",
    "aresponses": "input",
    "responses": "input",
    "atext_completion": "prompt",
    "text_completion": "prompt",
}
PAUSE_S = 1.0  # until a service that failed is asked again
STATUS_OF_MODEL = (401, 403, 404, 408, 429)  # and 5xx; the request is to blame for others
OF_CALLER = ("timeout", "api_key", "api_base", "base_url")  # these may bring about any error

Request: TypeAlias = dict[str, Any]  # the arguments of a call of LiteLLM

log = logging.getLogger("benchrouter")
_PAUSED = RuntimeError("the service failed a moment ago and was not asked")


class Answer(Protocol):
    """What `benchrouter.serving.Routed` and `benchrouter.client.Decision` have in common."""

    @property
    def model(self) -> str:
        """The model chosen, by its name in the benchmark."""

    @property
    def ranking(self) -> tuple[str, ...]:
        """All models allowed, best first."""

    @property
    def reason(self) -> str:
        """Why, in a sentence."""


class Routing(CustomLogger):
    """Chooses among the deployments of LiteLLM for requests that name a virtual model.

    "benchrouter/NAME" is routed by the router NAME, "benchrouter/NAME:POLICY" under one of
    `policies`. A deployment belongs to the model of the benchmark that its
    ``model_info: {benchrouter: …}`` names, or else to that of its own ``model_name``; models
    without a deployment are not chosen. The chosen model is the best of the ranking that neither
    cools down nor failed at its last request; the others follow as fallbacks. Once in every
    `cooldown_time` of LiteLLM's router, one request tries whether a failed model answers again.
    Callers of the proxy get the models that they may use by name; if they may use none of them,
    they get any.

    Errors are logged. The request then goes to LiteLLM's `model_group_alias` for the virtual name,
    or else to the models known to be the router's, or else to the first deployment. LiteLLM refuses
    virtual names that nobody knows.

    The decision is in the request's metadata under "benchrouter", in that of LiteLLM's logs under
    "spend_logs_metadata", and in the headers x-benchrouter-model, -router, -version and -reason of
    the proxy's answer.

    Parameters
    ----------
    source : Engine, AsyncClient or Client
        Routes in this process, or asks a service. An `AsyncClient` serves event loops; a `Client`
        serves threads (`Router.completion`) and also event loops, by threads.
    policy : RoutePolicy, optional
        Instead of that of the engine or the service.
    policies : mapping of str to RoutePolicy, optional
        By name.

    Raises
    ------
    TypeError
        If the source or a policy has another type.

    Examples
    --------
    >>> routing = Routing(Engine("router"))  # doctest: +SKIP
    """

    def __init__(
        self,
        source: Engine | AsyncClient | Client,
        *,
        policy: RoutePolicy | None = None,
        policies: Mapping[str, RoutePolicy] | None = None,
    ) -> None:
        super().__init__()
        self._source = _Source(source)
        self._policies = {"": policy or RoutePolicy(), **(policies or {})}
        for each in self._policies.values():
            if not isinstance(each, RoutePolicy):
                raise TypeError(f"policies must be RoutePolicy, got {type(each).__name__}")
        self._narrowed: dict[tuple[str, ...], RoutePolicy] = {}
        self._known: dict[str, tuple[str, ...]] = {}  # models of the last ranking, by virtual name
        self._failed_at: dict[str, float] = {}  # by group, until it answers again

    # --- requests --------------------------------------------------------------------------------

    async def prepare(
        self,
        request: Request,
        router: litellm.Router,
        prompt: str = "messages",
        previous_response: str | None = None,
    ) -> None:
        """Turn a request for a virtual model into one for the chosen model, in place.

        Parameters
        ----------
        request : dict
            Arguments of a call of LiteLLM; model, fallbacks and metadata change.
        router : litellm.Router
            Its deployments are chosen from.
        prompt : "messages", "input" or "prompt"
            Argument that is routed.
        previous_response : str, optional
            Id, from LiteLLM's router, of the response of OpenAI's Responses that is continued. The
            model that gave it answers, since no other knows of it.
        """
        try:
            asked = self._asked(request, router, prompt, previous_response)
            if asked is None:
                return
            gateway, continued = asked.gateway, asked.continues
            if continued is not None and await gateway.may_use(continued, request):
                reason = f"continues a response of {continued}"
                request["model"] = continued
                _note(request, _Told(router=asked.router, deployment=continued, reason=reason))
                return
            found = self._ranked(asked, await self._source.ask(asked))
            if found is None:
                return
            ranked, told = found
            cooling = await gateway.cooling()
            allowed = await self._allowed(request, asked, ranked, cooling)
            if allowed[0] != ranked[0]:
                told["reason"] += f"; this key may not use {ranked[0]}"
            self._apply(request, asked, allowed, told, cooling)
        except Exception:
            log.exception("a request for %r is left as it is", request.get("model"))

    def prepare_blocking(
        self, request: Request, router: litellm.Router, prompt: str = "messages"
    ) -> None:
        """Do the same from a thread.

        Parameters
        ----------
        request, router, prompt
            As in :meth:`prepare`.
        """
        try:
            asked = self._asked(request, router, prompt, None)
            found = None if asked is None else self._ranked(asked, self._source.ask_blocking(asked))
            if asked is not None and found is not None:
                self._apply(request, asked, *found, asked.gateway.cooling_blocking())
        except Exception:
            log.exception("a request for %r is left as it is", request.get("model"))

    def _asked(
        self, request: Request, router: litellm.Router, prompt: str, previous: str | None
    ) -> _Asked | None:
        """Find what to route; None if the model is not one of our virtual ones."""
        virtual = request.get("model")
        if not isinstance(virtual, str) or not virtual.startswith(PREFIX):
            return None
        name, _, policy = virtual.removeprefix(PREFIX).partition(":")
        if policy not in self._policies:
            return None
        gateway = Gateway(router)
        try:
            text = _text(request.get(prompt))
        except BadPrompt:
            text = ""  # the best model on average will answer
        narrowed = self._policy(policy, tuple(gateway.groups))
        continues = gateway.group_of(deployment_of(previous))
        return _Asked(virtual, name, narrowed, text, gateway, continues)

    def _policy(self, name: str, models: tuple[str, ...]) -> RoutePolicy:
        """Allow only models that have a deployment."""
        found = self._narrowed.get((name, *models))
        if found is None:  # making a policy takes a while
            policy = self._policies[name]
            allowed = policy.known_among(models)
            found = replace(policy, models=allowed) if allowed else policy
            self._narrowed = {(name, *models): found, **dict(list(self._narrowed.items())[:99])}
        return found

    def _ranked(self, asked: _Asked, answer: Answer | Exception) -> tuple[list[str], _Told] | None:
        """Groups by the decision, best first, or those to try without one."""
        if isinstance(answer, UnknownRouter) or getattr(answer, "code", "") == "router_not_found":
            return None
        ranked: list[str] = []
        if isinstance(answer, Exception):
            told = _Told(router=asked.router, fallback=True, cause="error")
            told["reason"] = "benchrouter could not be asked"
        else:
            self._known[asked.virtual] = answer.ranking
            names = ("router", "version", "model", "fallback", "cause", "reason")
            told = _Told((name, getattr(answer, name)) for name in names)
            ranked = asked.gateway.deployed(answer.ranking)
            if not ranked:
                log.warning("%r knows none of %s", asked.virtual, list(asked.gateway.groups))
        ranked = ranked or self._without_ranking(asked)
        if not ranked:
            log.error("there is no deployment to answer %r", asked.virtual)
            return None
        return ranked, told

    def _without_ranking(self, asked: _Asked) -> list[str]:
        """Find groups to try without a decision."""
        gateway = asked.gateway
        alias = gateway.alias_of(asked.virtual)
        ours = gateway.deployed(self._known.get(asked.virtual, ())) or gateway.marked
        found = dict.fromkeys([*([alias] if alias else []), *ours])
        return list(found) or gateway.deployed(gateway.groups)[:1]

    async def _allowed(
        self, request: Request, asked: _Asked, ranked: list[str], cooling: set[str]
    ) -> list[str]:
        """Leave out the groups that the caller may not use by name, unless that is all of them."""
        gateway, allowed, n_well = asked.gateway, [], 0
        for group in ranked:
            if await gateway.may_use(group, request):
                allowed.append(group)
                n_well += self._is_well(group, gateway, cooling)
                if n_well > gateway.max_fallbacks:  # LiteLLM tries no more
                    break
        if allowed:
            return allowed
        alias = gateway.alias_of(asked.virtual)  # a key for what it stands for may use it too
        return [alias] if alias and await gateway.may_use(alias, request) else ranked

    def _apply(
        self, request: Request, asked: _Asked, ranked: list[str], told: _Told, cooling: set[str]
    ) -> None:
        """Write a decision into the request."""
        order = self._healthy_first(ranked, asked.gateway, cooling)
        if order[0] != ranked[0]:
            told["reason"] += f"; {ranked[0]} does not answer at the moment"
        told["deployment"] = order[0]
        given = request.get("fallbacks") or asked.gateway.fallbacks
        own = [target for target in _fallbacks_of(given, asked.virtual) if target not in order]
        request["model"] = order[0]
        request["fallbacks"] = _alike([*order[1:], *own])
        _note(request, told)

    def _healthy_first(
        self, ranked: Sequence[str], gateway: Gateway, cooling: set[str]
    ) -> list[str]:
        """Put groups that do not answer last, except one that this request is to try again."""
        well = [group for group in ranked if self._is_well(group, gateway, cooling)]
        now = time.monotonic()
        for group in ranked:
            if group in well[:1]:
                break
            if now - self._failed_at.get(group, now) >= gateway.cooldown_s:
                self._failed_at[group] = now
                well.insert(0, group)
                break
        return [*well, *(group for group in ranked if group not in well)]

    def _is_well(self, group: str, gateway: Gateway, cooling: set[str]) -> bool:
        return group not in self._failed_at and not gateway.cools(group, cooling)

    # --- hooks of LiteLLM ------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: Request, call_type: str
    ) -> Request:
        """Prepare a request of the proxy."""
        from litellm.proxy.proxy_server import llm_router

        if call_type in PROMPTS and llm_router is not None:
            previous = opened(data.get("previous_response_id"), user_api_key_dict)
            await self.prepare(data, llm_router, PROMPTS[call_type], previous)
        return data

    async def async_post_call_response_headers_hook(
        self,
        data: Request,
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Tell the caller of the proxy the decision."""
        return _headers(data)

    async def log_success_fallback_event(
        self, original_model_group: str, kwargs: Request, original_exception: Exception
    ) -> None:
        """Remember that a model failed; another answered."""
        self._note_failure(kwargs, original_model_group, original_exception)

    async def log_failure_fallback_event(
        self, original_model_group: str, kwargs: Request, original_exception: Exception
    ) -> None:
        """Remember that a fallback failed."""
        self._note_failure(kwargs, original_model_group, original_exception)

    async def async_post_call_failure_hook(
        self,
        request_data: Request,
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Remember that a model failed and no other could answer."""
        from fastapi import HTTPException

        if not isinstance(original_exception, HTTPException):  # by which the proxy itself refuses
            self._note_failure(request_data, None, original_exception)

    async def async_log_success_event(
        self, kwargs: Request, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Forget that a model failed; it answers."""
        self._note_success((kwargs.get("litellm_params") or {}).get("metadata") or {})

    def _note_failure(
        self, request: Mapping[str, Any], group: str | None, error: Exception
    ) -> None:
        """Remember that a model that we chose failed, by default the one asked first."""
        told, status = _told(request), getattr(error, "status_code", 500)
        if told is None or not getattr(error, "llm_provider", ""):
            return  # we did not choose, or the error is not the model's
        if any(request.get(name) is not None for name in OF_CALLER):
            return
        if not isinstance(status, int) or status >= 500 or status in STATUS_OF_MODEL:
            self._failed_at[group or told["deployment"]] = time.monotonic()

    def _note_success(self, metadata: Mapping[str, Any]) -> None:
        self._failed_at.pop(metadata.get("model_group", ""), None)


class Router:
    """LiteLLM's Router with virtual models in `acompletion` and `completion`.

    Everything else is that of the Router within. The decision is in the response's
    ``_hidden_params["additional_headers"]``, beside what LiteLLM tells of retries and fallbacks.

    Parameters
    ----------
    router : litellm.Router
    routing : Routing
    """

    def __init__(self, router: litellm.Router, routing: Routing) -> None:
        self._router = router
        self._routing = routing
        litellm.logging_callback_manager.add_litellm_callback(routing)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._router, name)

    async def acompletion(
        self, model: str, messages: list[Any], stream: bool = False, **kwargs: Any
    ) -> Any:
        """As `litellm.Router` does, with virtual models."""
        request = _request({"model": model, "messages": messages, "stream": stream, **kwargs})
        await self._routing.prepare(request, self._router)
        try:
            response = await self._router.acompletion(**request)
        except Exception as e:
            self._routing._note_failure(request, None, e)
            raise
        return self._with_headers(response, request)

    def completion(self, model: str, messages: list[Any], **kwargs: Any) -> Any:
        """As `litellm.Router` does, with virtual models."""
        request = _request({"model": model, "messages": messages, **kwargs})
        self._routing.prepare_blocking(request, self._router)
        try:
            response = self._router.completion(**request)
        except Exception as e:
            self._routing._note_failure(request, None, e)
            raise
        return self._with_headers(response, request)

    def _with_headers(self, response: Any, request: Mapping[str, Any]) -> Any:
        """Put the decision into a response, and forget that the model failed before."""
        decided, hidden = _headers(request), getattr(response, "_hidden_params", None)
        if decided and isinstance(hidden, dict):
            found = hidden["additional_headers"] = {**(hidden.get("additional_headers") or {})}
            self._routing._note_success({"model_group": found.get("x-litellm-model-group", "")})
            found.update(decided)
        return response


class _Source:
    """What is asked for decisions; a service that failed is left alone for a while."""

    def __init__(self, source: Any) -> None:
        if not callable(getattr(source, "route", None)):
            found = type(source).__name__
            raise TypeError(f"source must be an Engine, an AsyncClient or a Client, got {found}")
        self._source = source
        self._is_engine = isinstance(source, Engine)
        self._paused_until = 0.0

    async def ask(self, asked: _Asked) -> Answer | Exception:
        """Ask without blocking the event loop; whatever goes wrong is returned."""
        if not inspect.iscoroutinefunction(self._source.route):
            return await asyncio.to_thread(self.ask_blocking, asked)
        if self._is_paused:
            return _PAUSED
        try:
            found: Answer = await self._source.route(asked.text, **self._options(asked))
        except Exception as e:  # of any kind: the request is answered all the same
            return self._failed(e)
        return found

    def ask_blocking(self, asked: _Asked) -> Answer | Exception:
        """Ask from a thread; whatever goes wrong is returned."""
        route = self._source.route_blocking if self._is_engine else self._source.route
        if self._is_paused:
            return _PAUSED
        try:
            if inspect.iscoroutinefunction(route):
                raise TypeError("completion needs an Engine or a Client, got an AsyncClient")
            found: Answer = route(asked.text, **self._options(asked))
        except Exception as e:
            return self._failed(e)
        return found

    def _options(self, asked: _Asked) -> dict[str, Any]:
        if self._is_engine:
            return {"router": asked.router, "policy": asked.policy}
        fields = asdict(asked.policy).items()
        policy = {name: value for name, value in fields if value is not None}
        return {"router": asked.router, "policy": policy}

    @property
    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _failed(self, error: Exception) -> Exception:
        log.error("benchrouter could not be asked: %s: %s", type(error).__name__, error)
        is_of_request = getattr(error, "status", None) in (413, 422)
        if not self._is_engine and not is_of_request:
            self._paused_until = time.monotonic() + PAUSE_S
        return error


class _Told(dict[str, Any]):
    """A decision; no caller can put a dict of this type into the metadata of a request."""


@dataclass(frozen=True)
class _Asked:
    """A request for a virtual model."""

    virtual: str
    router: str
    policy: RoutePolicy
    text: str
    gateway: Gateway
    continues: str | None  # the group that gave the response before, of OpenAI's Responses


def _text(prompt: Any) -> str:
    """Text of messages, of a prompt, or of the input of OpenAI's Responses."""
    if isinstance(prompt, list):
        if prompt and all(isinstance(each, str) for each in prompt):
            prompt = "\n".join(prompt)
        else:  # items without a role are calls of tools and their results
            prompt = [m for m in prompt if not isinstance(m, Mapping) or "role" in m]
    return text_of(prompt)[:LONGEST]


def _fallbacks_of(given: Any, virtual: str) -> list[Any]:
    """Fallbacks of a request, or of a configuration for the virtual name and for all names."""
    found: list[Any] = []
    for entry in given:
        if not isinstance(entry, Mapping) or isinstance(entry.get("model"), str):
            found.append(entry)
        else:
            for name in (virtual, "*"):
                found += entry.get(name) or []
    return found


def _alike(targets: list[Any]) -> list[Any]:
    """Fallbacks all as names or all as dicts; LiteLLM takes no mixture."""
    if all(isinstance(target, str) for target in targets):
        return targets
    return [{"model": t} if isinstance(t, str) else t for t in targets]


def _note(request: Request, told: _Told) -> None:
    """Write a decision where LiteLLM's logs take it from."""
    bucket = "litellm_metadata" if "litellm_metadata" in request else "metadata"
    if not isinstance(request.get(bucket), dict):
        request[bucket] = {}
    metadata = request[bucket]  # changed in place, as LiteLLM refers to it elsewhere
    spend = metadata.get("spend_logs_metadata")
    metadata["spend_logs_metadata"] = {**(spend if isinstance(spend, dict) else {}), KEY: told}
    metadata[KEY] = told


def _request(arguments: Request) -> Request:
    """The arguments of a call, with a copy of its metadata, which may be changed."""
    if isinstance(arguments.get("metadata"), dict):
        arguments["metadata"] = dict(arguments["metadata"])
    return arguments


def _told(request: Mapping[str, Any]) -> _Told | None:
    """The decision on a request; None if there is none."""
    for bucket in ("litellm_metadata", "metadata"):
        metadata = request.get(bucket)
        told = metadata.get(KEY) if isinstance(metadata, Mapping) else None
        if isinstance(told, _Told):
            return told
    return None


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    """The decision on a request, as headers of the answer."""
    told = _told(request) or _Told()
    names = {"model": "deployment", "router": "router", "version": "version", "reason": "reason"}
    found = {name: told.get(key) for name, key in names.items()}
    return {f"x-benchrouter-{name}": _header(value) for name, value in found.items() if value}


def _header(value: object) -> str:
    """One line of ASCII."""
    return " ".join(str(value).split()).encode("ascii", "replace").decode()[:500]
