"""LiteLLM: virtual models, "benchrouter/NAME", that stand for whichever model suits the prompt.

`Routing` is a callback of the proxy; `Router` puts one before LiteLLM's Router in a program. Both
turn a request for a virtual model into one for the chosen model, with the rest of the ranking as
its fallbacks, before LiteLLM looks for a deployment: retries, cooldowns, limits and logs of the
chosen model are LiteLLM's. Requests for other models are not touched.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import litellm
from litellm.integrations.custom_logger import CustomLogger

from benchrouter.serving import BadPrompt, Engine, RoutePolicy, UnknownRouter, text_of
from benchrouter.serving.messages import LONGEST

if TYPE_CHECKING:
    from benchrouter.client import AsyncClient, Client

PREFIX = "benchrouter/"
KEY = "benchrouter"  # in a deployment's model_info, and in the metadata of a request
PROMPTS = {  # what is routed, and the argument that has the prompt
    "acompletion": "messages",
    "completion": "messages",
    "anthropic_messages": "messages",
    "aresponses": "input",
    "responses": "input",
    "atext_completion": "prompt",
    "text_completion": "prompt",
}
CHAT_MODES = (None, "chat", "completion", "responses")
PAUSE_S = 1.0  # after which a service that failed is asked again
STATUS_OF_MODEL = (401, 403, 404, 408, 429)  # and 5xx; other errors are the request's own
OF_CALLER = ("timeout", "api_key", "api_base", "base_url")  # with these any error may be

log = logging.getLogger("benchrouter")


class Answer(Protocol):
    """What is needed of `benchrouter.serving.Routed` and `benchrouter.client.Decision`."""

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
    cools down nor failed at its last request; the others follow as fallbacks. One request in every
    `cooldown_time` of LiteLLM's router tries whether a model that failed answers again. Of all
    these, callers of the proxy get what they may use by name; where that is none of them, any.

    Whatever goes wrong here is logged, and the request goes to what LiteLLM's `model_group_alias`
    has for the virtual name, or else to the models known to be the router's, or else to the first
    deployment. A virtual name that nobody knows is left to LiteLLM to refuse.

    What was decided is in the request's metadata under "benchrouter", in that of LiteLLM's logs
    under "spend_logs_metadata", and in the headers x-benchrouter-model, -router, -version and
    -reason of the proxy's answer.

    Parameters
    ----------
    source : Engine, AsyncClient or Client
        Routes in this process, or asks the service. An `AsyncClient` serves event loops, a `Client`
        threads (`Router.completion`) and, in threads, event loops.
    policy : RoutePolicy, optional
        Instead of that of the engine or the service.
    policies : mapping of str to RoutePolicy, optional
        By name.

    Raises
    ------
    TypeError
        If the source or a policy is of another type.

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
        if not callable(getattr(source, "route", None)):
            found = type(source).__name__
            raise TypeError(f"source must be an Engine, an AsyncClient or a Client, got {found}")
        self._policies = {"": policy or RoutePolicy(), **(policies or {})}
        for each in self._policies.values():
            if not isinstance(each, RoutePolicy):
                raise TypeError(f"policies must be RoutePolicy, got {type(each).__name__}")
        self._source: Any = source
        self._narrowed: dict[tuple[str, ...], RoutePolicy] = {}
        self._known: dict[str, tuple[str, ...]] = {}  # models of the last ranking, by virtual name
        self._failed_at: dict[str, float] = {}  # by name of LiteLLM, until it answers again
        self._paused_until = 0.0

    # --- requests --------------------------------------------------------------------------------

    async def prepare(
        self,
        request: dict[str, Any],
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
            Whose deployments there are.
        prompt : "messages", "input" or "prompt"
            Argument that is routed.
        previous_response : str, optional
            Id, from LiteLLM's router, of a response of OpenAI's Responses that is continued: by the
            model that gave it, for no other knows of it.
        """
        try:
            asked = self._asked(request, router, prompt, previous_response)
            if asked is None:
                return
            continued = asked.continues
            if continued is not None and await asked.gateway.may_use(continued, request):
                self._continue(request, asked, continued)
                return
            answer: Answer | Exception
            try:
                self._check_pause()
                answer = await self._route(asked)
            except Exception as e:  # of any kind: the request is answered all the same
                answer = e
            found = self._ranked(asked, answer)
            if found is not None:
                ranked, told = found
                cooling = await asked.gateway.cooling()
                allowed = await self._allowed(request, asked, ranked, cooling)
                if allowed[0] != ranked[0]:
                    told["reason"] += f"; this key may not use {ranked[0]}"
                self._apply(request, asked, allowed, told, cooling)
        except Exception:
            log.exception("a request for %r is left as it is", request.get("model"))

    def prepare_blocking(
        self, request: dict[str, Any], router: litellm.Router, prompt: str = "messages"
    ) -> None:
        """Do the same from a thread.

        Parameters
        ----------
        request, router, prompt
            As in :meth:`prepare`.
        """
        try:
            asked = self._asked(request, router, prompt, None)
            if asked is None:
                return
            answer: Answer | Exception
            try:
                self._check_pause()
                answer = self._route_blocking(asked)
            except Exception as e:
                answer = e
            found = self._ranked(asked, answer)
            if found is not None:
                self._apply(request, asked, *found, asked.gateway.cooling_blocking())
        except Exception:
            log.exception("a request for %r is left as it is", request.get("model"))

    def _asked(
        self, request: dict[str, Any], router: litellm.Router, prompt: str, previous: str | None
    ) -> _Asked | None:
        """Find what to route; None if the model is not a virtual one of ours."""
        virtual = request.get("model")
        if not isinstance(virtual, str) or not virtual.startswith(PREFIX):
            return None
        name, _, policy = virtual.removeprefix(PREFIX).partition(":")
        if policy not in self._policies:
            return None
        gateway = _Gateway(router)
        try:
            text = _text(request.get(prompt))
        except BadPrompt:
            text = ""  # is answered by the best model on average
        narrowed = self._policy(policy, tuple(gateway.groups))
        continues = gateway.group_of(_deployment_of(previous))
        return _Asked(virtual, name, narrowed, text, gateway, continues)

    def _policy(self, name: str, models: tuple[str, ...]) -> RoutePolicy:
        """Allow only models that have a deployment."""
        found = self._narrowed.get((name, *models))
        if found is None:  # checking a policy takes a while
            policy = self._policies[name]
            allowed = [m for m in models if policy.models is None or m in policy.models]
            found = replace(policy, models=tuple(allowed)) if allowed else policy
            self._narrowed = {(name, *models): found, **dict(list(self._narrowed.items())[:99])}
        return found

    async def _route(self, asked: _Asked) -> Answer:
        if not self._is_async:
            return await asyncio.to_thread(self._route_blocking, asked)
        found: Answer = await self._source.route(
            asked.text, router=asked.router, policy=self._written(asked.policy)
        )
        return found

    def _route_blocking(self, asked: _Asked) -> Answer:
        is_engine = isinstance(self._source, Engine)
        if self._is_async and not is_engine:
            raise TypeError("completion needs an Engine or a Client, got an AsyncClient")
        route = self._source.route_blocking if is_engine else self._source.route
        found: Answer = route(asked.text, router=asked.router, policy=self._written(asked.policy))
        return found

    @cached_property
    def _is_async(self) -> bool:
        return inspect.iscoroutinefunction(self._source.route)

    def _written(self, policy: RoutePolicy) -> RoutePolicy | dict[str, Any]:
        """Write a policy as the source takes it."""
        if isinstance(self._source, Engine):
            return policy
        return {name: value for name, value in asdict(policy).items() if value is not None}

    def _check_pause(self) -> None:
        if time.monotonic() < self._paused_until:
            raise _Paused("the service failed a moment ago and was not asked")

    def _ranked(self, asked: _Asked, answer: Answer | Exception) -> tuple[list[str], _Told] | None:
        """Groups of the decision, or of what there is instead of one, best first."""
        if isinstance(answer, UnknownRouter) or getattr(answer, "code", "") == "router_not_found":
            return None
        ranked: list[str] = []
        if isinstance(answer, Exception):
            self._tell(answer)
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

    async def _allowed(
        self, request: dict[str, Any], asked: _Asked, ranked: list[str], cooling: set[str]
    ) -> list[str]:
        """Leave out what the caller may not use by name, unless that is all."""
        gateway, allowed, n_well = asked.gateway, [], 0
        for group in ranked:
            if await gateway.may_use(group, request):
                allowed.append(group)
                n_well += self._is_well(group, gateway, cooling)
                if n_well > gateway.max_fallbacks:  # LiteLLM tries no more
                    break
        if allowed:
            return allowed
        alias = gateway.alias_of(asked.virtual)  # what it may use, it may use by its alias too
        return [alias] if alias and await gateway.may_use(alias, request) else ranked

    def _apply(
        self,
        request: dict[str, Any],
        asked: _Asked,
        ranked: list[str],
        told: _Told,
        cooling: set[str],
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

    def _continue(self, request: dict[str, Any], asked: _Asked, group: str) -> None:
        """Let the model answer that gave the response before: no other knows of it."""
        reason = f"continues a response of {group}"
        request["model"] = group
        _note(request, _Told(router=asked.router, deployment=group, reason=reason))

    def _without_ranking(self, asked: _Asked) -> list[str]:
        """Find where to go when benchrouter has no say."""
        gateway = asked.gateway
        ours = gateway.deployed(self._known.get(asked.virtual, ())) or gateway.marked
        alias = gateway.alias_of(asked.virtual)
        found = [*([alias] if alias else []), *ours]
        return list(dict.fromkeys(found)) or gateway.deployed(gateway.groups)[:1]

    def _healthy_first(
        self, ranked: Sequence[str], gateway: _Gateway, cooling: set[str]
    ) -> list[str]:
        """Put what does not answer at the end, but for one request that tries whether it does."""
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

    def _is_well(self, group: str, gateway: _Gateway, cooling: set[str]) -> bool:
        return group not in self._failed_at and not gateway.cools(group, cooling)

    def _tell(self, error: Exception) -> None:
        """Log a failure, and leave a service that fails alone for a while."""
        if isinstance(error, _Paused):
            return
        log.error("benchrouter could not be asked: %s: %s", type(error).__name__, error)
        is_of_request = getattr(error, "status", None) in (413, 422)
        if not isinstance(self._source, Engine) and not is_of_request:
            self._paused_until = time.monotonic() + PAUSE_S

    # --- hooks of LiteLLM ------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Prepare a request of the proxy."""
        from litellm.proxy.proxy_server import llm_router

        if call_type in PROMPTS and llm_router is not None:
            previous = _opened(data.get("previous_response_id"), user_api_key_dict)
            await self.prepare(data, llm_router, PROMPTS[call_type], previous)
        return data

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
    ) -> dict[str, str]:
        """Tell the caller of the proxy what was decided."""
        return _headers(data)

    async def log_success_fallback_event(
        self, original_model_group: str, kwargs: dict[str, Any], original_exception: Exception
    ) -> None:
        """Remember that a model failed; another answered."""
        self._note_failure(kwargs, original_model_group, original_exception)

    async def log_failure_fallback_event(
        self, original_model_group: str, kwargs: dict[str, Any], original_exception: Exception
    ) -> None:
        """Remember that a model failed, as a fallback did."""
        self._note_failure(kwargs, original_model_group, original_exception)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Remember that a model failed for which no other could answer."""
        from fastapi import HTTPException

        if not isinstance(original_exception, HTTPException):  # else the proxy refused, not it
            self._note_failure(request_data, None, original_exception)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Forget that a model failed; it answers."""
        self._note_success((kwargs.get("litellm_params") or {}).get("metadata") or {})

    def _note_failure(
        self, request: Mapping[str, Any], group: str | None, error: Exception
    ) -> None:
        """Remember that a model, by default the one asked first, failed a request of ours."""
        told, status = _told(request), getattr(error, "status_code", 500)
        if told is None or not getattr(error, "llm_provider", ""):
            return  # the request, or the error, is not of a model that we chose
        if any(request.get(name) is not None for name in OF_CALLER):
            return
        if not isinstance(status, int) or status >= 500 or status in STATUS_OF_MODEL:
            self._failed_at[group or told["deployment"]] = time.monotonic()

    def _note_success(self, metadata: Mapping[str, Any]) -> None:
        self._failed_at.pop(metadata.get("model_group", ""), None)


class Router:
    """LiteLLM's Router with virtual models in `acompletion` and `completion`.

    All else is as of the Router within. What was decided is among the response's
    ``_hidden_params["additional_headers"]``, where LiteLLM tells of retries and fallbacks.

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
        """As of `litellm.Router`."""
        request = _request({"model": model, "messages": messages, "stream": stream, **kwargs})
        await self._routing.prepare(request, self._router)
        try:
            response = await self._router.acompletion(**request)
        except Exception as e:
            self._routing._note_failure(request, None, e)
            raise
        return self._with_headers(response, request)

    def completion(self, model: str, messages: list[Any], **kwargs: Any) -> Any:
        """As of `litellm.Router`."""
        request = _request({"model": model, "messages": messages, **kwargs})
        self._routing.prepare_blocking(request, self._router)
        try:
            response = self._router.completion(**request)
        except Exception as e:
            self._routing._note_failure(request, None, e)
            raise
        return self._with_headers(response, request)

    def _with_headers(self, response: Any, request: Mapping[str, Any]) -> Any:
        """Put what was decided into a response, and forget that its model failed before."""
        decided, hidden = _headers(request), getattr(response, "_hidden_params", None)
        if decided and isinstance(hidden, dict):
            found = hidden["additional_headers"] = {**(hidden.get("additional_headers") or {})}
            self._routing._note_success({"model_group": found.get("x-litellm-model-group", "")})
            found.update(decided)
        return response


class _Paused(RuntimeError):
    """A service that failed was not asked."""


class _Told(dict[str, Any]):
    """What was decided; of a type that no caller can put into the metadata of a request."""


@dataclass(frozen=True)
class _Asked:
    """A request for a virtual model."""

    virtual: str
    router: str
    policy: RoutePolicy
    text: str
    gateway: _Gateway
    continues: str | None  # the group that gave the response before, of OpenAI's Responses


class _Gateway:
    """What LiteLLM's router knows, read through its entry points, or its attributes before 1.110.

    A group is what LiteLLM calls the deployments of one ``model_name``.

    Attributes
    ----------
    groups : dict of str to list of str
        Names of groups by the model of the benchmark.
    marked : list of str
        Groups whose ``model_info`` names such a model.
    """

    def __init__(self, router: Any) -> None:
        if hasattr(router, "registry"):
            registry, settings = router.registry(), router.settings()
            deployments, self._cooldowns = registry.all(), router.health().cooldowns
            self._resolve = lambda name: registry.resolve(name, kind="alias")
        else:
            settings = router
            deployments, self._cooldowns = router.model_list, router.cooldown_cache
            self._resolve = router.get_model_from_alias
        self.cooldown_s: float = settings.cooldown_time
        self.fallbacks: list[Any] = settings.fallbacks or []
        self.max_fallbacks: int = router.max_fallbacks
        self._router = router
        self._check_access = settings.fallback_access_check
        self.groups: dict[str, list[str]] = {}
        self.marked: list[str] = []
        self._ids: dict[str, set[str]] = {}
        for deployment in deployments:
            self._take(deployment["model_name"], deployment.get("model_info") or {})

    def _take(self, group: str, info: Mapping[str, Any]) -> None:
        if group.startswith(PREFIX) or "*" in group or info.get("mode") not in CHAT_MODES:
            return
        if info.get("blocked") or info.get("team_id"):  # paused by an admin; of one team only
            return
        self._ids.setdefault(group, set()).add(info.get("id", ""))
        for groups, is_in in (
            (self.groups.setdefault(info.get(KEY) or group, []), True),
            (self.marked, KEY in info),
        ):
            if is_in and group not in groups:
                groups.append(group)

    def deployed(self, models: Iterable[str]) -> list[str]:
        """Groups of models of the benchmark."""
        return [group for model in models for group in self.groups.get(model, ())]

    def alias_of(self, name: str) -> str | None:
        """What the configuration has as `model_group_alias` for a name."""
        found: str | None = self._resolve(name)
        return found

    def group_of(self, model_id: str | None) -> str | None:
        """Group of a deployment."""
        return next((group for group, ids in self._ids.items() if model_id in ids), None)

    async def may_use(self, group: str, request: Mapping[str, Any]) -> bool:
        """Whether the key, team and project of a request may name a group, as fallbacks must."""
        if self._check_access is None:
            return True
        if not hasattr(self._router, "registry"):
            check = partial(self._check_access, llm_router=self._router)
        else:
            from litellm.router_api import RoutingContext

            check = RoutingContext(self._router).fallback_access_allowed
        return bool(await check(model=group, request_kwargs=request))

    def cools(self, group: str, cooling: set[str]) -> bool:
        """Whether all deployments of a group are among those that cool down."""
        ids = self._ids.get(group)
        return bool(ids) and cooling.issuperset(ids or ())

    async def cooling(self) -> set[str]:
        """Find which deployments cool down."""
        ids = [model_id for ids in self._ids.values() for model_id in ids]
        found = await self._cooldowns.async_get_active_cooldowns(ids, None)
        return {model_id for model_id, _ in found}

    def cooling_blocking(self) -> set[str]:
        """Find the same from a thread."""
        ids = [model_id for ids in self._ids.values() for model_id in ids]
        return {model_id for model_id, _ in self._cooldowns.get_active_cooldowns(ids, None)}


def _opened(response_id: Any, user: Any) -> str | None:
    """Id of a response as the router of the proxy wrote it, from that which the proxy gave away."""
    if not isinstance(response_id, str):
        return None
    try:
        from litellm.proxy.hooks.responses_id_security import ResponsesIDSecurity

        return str(ResponsesIDSecurity().authorize_response_id(response_id, user))
    except Exception:  # it is not theirs, which LiteLLM tells them when this hook is over
        return None


def _deployment_of(response_id: str | None) -> str | None:
    """Deployment that gave a response, as the router wrote it into its id."""
    if response_id is None:
        return None
    from litellm.responses.utils import ResponsesAPIRequestUtils

    found: str | None = ResponsesAPIRequestUtils.get_model_id_from_response_id(response_id)
    return found


def _text(prompt: Any) -> str:
    """Text of messages, of a prompt, or of the input of OpenAI's Responses."""
    if isinstance(prompt, list):
        if prompt and all(isinstance(each, str) for each in prompt):
            prompt = "\n".join(prompt)
        else:  # items without a role are calls of tools and what came of them
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
    """Fallbacks all as names or all as dicts: LiteLLM takes no mixture."""
    if all(isinstance(target, str) for target in targets):
        return targets
    return [{"model": t} if isinstance(t, str) else t for t in targets]


def _note(request: dict[str, Any], told: _Told) -> None:
    """Write what was decided where LiteLLM's logs take it from."""
    bucket = "litellm_metadata" if "litellm_metadata" in request else "metadata"
    if not isinstance(request.get(bucket), dict):
        request[bucket] = {}
    metadata = request[bucket]  # changed in place: LiteLLM holds it elsewhere too
    spend = metadata.get("spend_logs_metadata")
    metadata["spend_logs_metadata"] = {**(spend if isinstance(spend, dict) else {}), KEY: told}
    metadata[KEY] = told


def _request(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of a call, with metadata that may be changed."""
    if isinstance(arguments.get("metadata"), dict):
        arguments["metadata"] = dict(arguments["metadata"])
    return arguments


def _told(request: Mapping[str, Any]) -> _Told | None:
    """What was decided on a request; None where nothing was."""
    for bucket in ("litellm_metadata", "metadata"):
        metadata = request.get(bucket)
        told = metadata.get(KEY) if isinstance(metadata, Mapping) else None
        if isinstance(told, _Told):
            return told
    return None


def _headers(request: Mapping[str, Any]) -> dict[str, str]:
    """What was decided on a request, as headers of the answer."""
    told = _told(request) or _Told()
    names = {"model": "deployment", "router": "router", "version": "version", "reason": "reason"}
    found = {name: told.get(key) for name, key in names.items()}
    return {f"x-benchrouter-{name}": _header(value) for name, value in found.items() if value}


def _header(value: object) -> str:
    """One line of ASCII."""
    return " ".join(str(value).split()).encode("ascii", "replace").decode()[:500]
