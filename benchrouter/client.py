"""A client of the HTTP service, for programs that route without torch or a benchmark of their own.

Takes the extra `client` (httpx).

    ServiceError               no answer, or not the answer to what was asked
    ├── Unreachable            no connection, or no answer in time
    └── Refused                an answer with another status than 200
        └── Overloaded         429 or 503 at every attempt
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

import httpx

from benchrouter.files.errors import BenchrouterError

__all__ = [
    "AsyncClient",
    "Client",
    "Decision",
    "Overloaded",
    "Refused",
    "ServiceError",
    "Unreachable",
]

TIMEOUT_S = 10.0
TASK_TIMEOUT_S = 300.0  # for choose, which encodes up to 5,000 prompts
RETRIES = 2
FIRST_WAIT_S = 0.1
BUSY = (429, 503)
# The service keeps idle connections for 75 s.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=60.0)

Prompt: TypeAlias = str | Sequence[Mapping[str, Any]]
Answer: TypeAlias = dict[str, Any]  # a JSON object
Given = ParamSpec("Given")
Result = TypeVar("Result")


class ServiceError(BenchrouterError):
    """The service did not answer, or not with what was asked."""


class Unreachable(ServiceError):
    """No connection to the service, or no answer in time."""


class Refused(ServiceError):
    """The service refused a request.

    Attributes
    ----------
    status : int
        HTTP status.
    code : str
        Such as "invalid_request" or "router_not_found"; empty if something else answered.
    message : str
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}" if code else f"{status}: {message}")
        self.status, self.code, self.message = status, code, message


class Overloaded(Refused):
    """The service was busy or closing at every attempt."""


@dataclass(frozen=True)
class Decision:
    """The model for one prompt; the fields are those of `benchrouter.serving.Routed`.

    Attributes
    ----------
    model : str
    ranking : tuple of str
        All models allowed, best first; the first is `model`.
    scores : tuple of (float or None)
        Predicted scores in that order.
    fallback : bool
        Whether the prompt's neighbours did not decide.
    cause : str or None
        Why they did not.
    reason : str
    score, margin, distance, cost_usd : float or None
    chance, chance_low, chance_high : float or None
        The chance that `model` answers correctly, and its 80 % interval; None if not known, or not
        sent by an older service.
    over_limit : bool or None
    truncated, cached : bool
    router, version : str
    """

    model: str
    ranking: tuple[str, ...]
    scores: tuple[float | None, ...]
    fallback: bool
    cause: str | None
    reason: str
    score: float | None
    margin: float | None
    distance: float | None
    cost_usd: float | None
    over_limit: bool | None
    truncated: bool
    cached: bool
    router: str
    version: str
    chance: float | None = None
    chance_low: float | None = None
    chance_high: float | None = None


class _Service:
    """What a service can be asked, for both clients: makes calls that are not sent yet."""

    def __init__(self, base_url: str, api_key: str | None, timeout_s: float, retries: int) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url: found {base_url!r}, expected http://… or https://…")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, got {timeout_s}")
        if retries < 0:
            raise ValueError(f"retries must be at least 0, got {retries}")
        key = api_key or os.environ.get("BENCHROUTER_API_KEY") or ""
        if not all("!" <= character <= "~" for character in key):
            raise ValueError("api_key: expected printable ASCII characters without spaces")
        self.base_url = base_url.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.timeout_s = timeout_s
        self.retries = retries

    def route(
        self,
        prompt: Prompt,
        *,
        router: str | None = None,
        policy: Mapping[str, Any] | None = None,
        deadline_ms: float | None = None,
    ) -> _Call[Decision]:
        """Choose a model for a prompt.

        Parameters
        ----------
        prompt : str, or chat messages
            Messages are dicts in OpenAI's shapes.
        router : str, optional
            Name; needed where the service has several.
        policy : mapping, optional
            Fields of `benchrouter.serving.RoutePolicy`, such as {"cost_weight": 20.0}.
        deadline_ms : float, optional
            After it the service answers with the fallback model.

        Returns
        -------
        Decision
        """
        body = _body(_prompt(prompt), router=router, policy=policy, deadline_ms=deadline_ms)
        return _Call(self, "POST", "/v1/route", body, _decision)

    def route_many(
        self,
        prompts: Sequence[str],
        *,
        router: str | None = None,
        policy: Mapping[str, Any] | None = None,
        deadline_ms: float | None = None,
    ) -> _Call[list[Decision]]:
        """Choose a model for each of several prompts.

        Parameters
        ----------
        prompts : sequence of str
        router, policy
            As in :meth:`route`.
        deadline_ms : float, optional
            For all of them together; many prompts need more than the service's 500 ms.

        Returns
        -------
        list of Decision
        """
        body = _body(_prompts(prompts), router=router, policy=policy, deadline_ms=deadline_ms)
        return _Call(self, "POST", "/v1/route", body, _decisions)

    def choose(
        self,
        prompts: Sequence[str],
        labels: Sequence[Mapping[str, float | None]] | None = None,
        *,
        router: str | None = None,
        score: str = "auto",
        label_threshold: float | None = None,
        policy: Mapping[str, Any] | None = None,
        timeout_s: float = TASK_TIMEOUT_S,
    ) -> _Call[Answer]:
        """Choose one model for a task.

        Parameters
        ----------
        prompts : sequence of str
        labels : sequence of dict, optional
            Scores of the models on each of the first prompts; None or NaN = not run.
        router : str, optional
        score : str
            "auto", "s1", "s2" or "s3".
        label_threshold : float, optional
            A label above it is correct. Without it, labels must lie in [0, 1].
        policy : mapping, optional
            As in :meth:`route`, without a rule and k.
        timeout_s : float
            Instead of the client's, since many prompts must be encoded.

        Returns
        -------
        dict
            As `TaskDecision.to_dict`, and "router" and "version".
        """
        body = _body(
            _prompts(prompts),
            labels=_labels(labels),
            label_threshold=label_threshold,
            router=router,
            score=score,
            policy=policy,
        )
        return _Call(self, "POST", "/v1/choose", body, _as_it_is, timeout_s)

    def explain(
        self,
        prompt: Prompt,
        *,
        router: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> _Call[Answer]:
        """Explain the decision on a prompt.

        Parameters
        ----------
        prompt, router, policy
            As in :meth:`route`.

        Returns
        -------
        dict
            As `Explanation.to_dict`, with more fields; the service describes them at /docs.
        """
        body = _body(_prompt(prompt), router=router, policy=policy)
        return _Call(self, "POST", "/v1/explain", body, _as_it_is)

    def models(self, router: str | None = None) -> _Call[Answer]:
        """List the models, and the routers that know them.

        Parameters
        ----------
        router : str, optional
            Only of this one.

        Returns
        -------
        dict
        """
        return _Call(self, "GET", "/v1/models", _body({}, router=router), _as_it_is)


class _Call(Generic[Result]):
    """One call and its attempts."""

    def __init__(
        self,
        service: _Service,
        method: str,
        path: str,
        content: Answer,
        read: Callable[[Answer], Result],
        timeout_s: float | None = None,
    ) -> None:
        self._request: dict[str, Any] = {"method": method, "url": service.base_url + path}
        self._request["headers"] = service.headers
        if method == "GET":
            self._request["params"] = content
        else:
            self._request["content"] = _json(content)
        self._where = f"{method} {service.base_url}{path}"
        self._read = read
        self._left = service.retries
        self._ends = time.monotonic() + (timeout_s or service.timeout_s)
        self._backoff_s = FIRST_WAIT_S
        self.wait_s = 0.0

    def options(self) -> dict[str, Any]:
        """Arguments of httpx for the next attempt."""
        return {**self._request, "timeout": max(0.001, self._ends - time.monotonic())}

    def take(self, response: httpx.Response) -> Result | None:
        """Read an answer; None if the call is to be tried again after `wait_s`."""
        if response.status_code == 200:
            try:
                found = response.json()
            except ValueError as e:
                raise ServiceError(f"{self._where}: found no JSON in the answer ({e})") from e
            if not isinstance(found, dict):
                raise ServiceError(f"{self._where}: found JSON that is no object in the answer")
            return self._read(found)
        if response.status_code in BUSY and self._again(response.headers.get("Retry-After")):
            return None
        raise _refusal(response)

    def lost(self, e: httpx.RequestError) -> None:
        """Note an attempt that failed; raise if it was the last."""
        if not self._again(None):
            late = isinstance(e, httpx.TimeoutException)
            why = "no answer in time" if late else str(e) or type(e).__name__
            raise Unreachable(f"{self._where}: {why}") from e

    def _again(self, retry_after: str | None) -> bool:
        """Whether there is an attempt left, and time for it."""
        told = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        # spread the clients that were refused at the same time
        self.wait_s = max(told, self._backoff_s) * random.uniform(1.0, 1.25)
        self._backoff_s *= 2
        self._left -= 1
        return self._left >= 0 and time.monotonic() + self.wait_s < self._ends


def _sent(
    ask: Callable[Concatenate[_Service, Given], _Call[Result]],
) -> Callable[Concatenate[Client, Given], Result]:
    """Make a method of `Client` that sends a call and returns what is answered."""

    @wraps(ask)
    def method(client: Client, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        call = ask(client._service, *args, **kwargs)
        while True:
            try:
                found = call.take(client._http.request(**call.options()))
            except httpx.RequestError as e:
                call.lost(e)
            else:
                if found is not None:
                    return found
            time.sleep(call.wait_s)

    return method


def _awaited(
    ask: Callable[Concatenate[_Service, Given], _Call[Result]],
) -> Callable[Concatenate[AsyncClient, Given], Coroutine[Any, Any, Result]]:
    """Make a method of `AsyncClient` that sends a call and returns what is answered."""

    @wraps(ask)
    async def method(client: AsyncClient, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        call = ask(client._service, *args, **kwargs)
        while True:
            try:
                found = call.take(await client._http.request(**call.options()))
            except httpx.RequestError as e:
                call.lost(e)
            else:
                if found is not None:
                    return found
            await asyncio.sleep(call.wait_s)

    return method


class Client:
    """Asks a service; safe to use from many threads.

    Parameters
    ----------
    base_url : str
        Such as "http://127.0.0.1:8000".
    api_key : str, optional
        By default BENCHROUTER_API_KEY of the environment.
    timeout_s : float
        For a call and its retries. An answer that has begun is read to its end.
    retries : int
        After a lost connection or an answer 429 or 503.
    http : httpx.Client, optional
        Used instead of one made here, for certificates or proxies.

    Raises
    ------
    ServiceError
        Raised by all methods; see the module.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.route("What is 17 times 24?").model
    'maths-13b'
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        http: httpx.Client | None = None,
    ) -> None:
        self._service = _Service(base_url, api_key, timeout_s, retries)
        self._http = http or httpx.Client(limits=LIMITS)

    route = _sent(_Service.route)
    route_many = _sent(_Service.route_many)
    choose = _sent(_Service.choose)
    explain = _sent(_Service.explain)
    models = _sent(_Service.models)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class AsyncClient:
    """The same for event loops: what :class:`Client` returns is awaited here.

    Parameters
    ----------
    base_url, api_key, timeout_s, retries
        As of :class:`Client`.
    http : httpx.AsyncClient, optional

    Examples
    --------
    >>> async with AsyncClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     (await client.route("What is 17 times 24?")).model
    'maths-13b'
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._service = _Service(base_url, api_key, timeout_s, retries)
        self._http = http or httpx.AsyncClient(limits=LIMITS)

    route = _awaited(_Service.route)
    route_many = _awaited(_Service.route_many)
    choose = _awaited(_Service.choose)
    explain = _awaited(_Service.explain)
    models = _awaited(_Service.models)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()


def _refusal(response: httpx.Response) -> Refused:
    try:
        error = response.json()["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "", response.text[:200] or response.reason_phrase
    kind = Overloaded if response.status_code in BUSY else Refused
    return kind(response.status_code, code, message)


def _prompt(prompt: Prompt) -> Answer:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    return {"messages": [dict(message) for message in prompt]}


def _prompts(prompts: Sequence[str]) -> Answer:
    if isinstance(prompts, str):
        raise TypeError("prompts must be a list of strings, got a single string")
    return {"prompts": list(prompts)}


def _labels(
    labels: Sequence[Mapping[str, float | None]] | None,
) -> list[dict[str, float | None]] | None:
    if labels is None:
        return None
    return [
        {name: None if score is None or score != score else score for name, score in row.items()}
        for row in labels
    ]


def _body(given: Answer, **more: Any) -> Answer:
    """Fields that are not None."""
    return {**given, **{name: value for name, value in more.items() if value is not None}}


def _json(content: Answer) -> bytes:
    """Body of a request; half a surrogate pair, which UTF-8 lacks, becomes a question mark."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _decision(answer: Answer) -> Decision:
    (decision,) = _decisions({"decisions": [answer.get("decision")]})
    return decision


def _decisions(answer: Answer) -> list[Decision]:
    """Read the decisions of an answer; fields that a newer service adds are ignored."""
    try:
        found = [
            {
                f.name: each[f.name]
                for f in fields(Decision)
                if f.default is MISSING or f.name in each
            }
            for each in answer["decisions"]
        ]
        return [
            Decision(**{**each, "ranking": tuple(each["ranking"]), "scores": tuple(each["scores"])})
            for each in found
        ]
    except (KeyError, TypeError) as e:
        raise ServiceError(f"found no decision in the answer (at {e}): another version?") from e
