"""What LiteLLM's router knows: deployments, aliases, cooldowns, and who may use what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

PREFIX = "benchrouter/"
KEY = "benchrouter"  # in a deployment's model_info, and in the metadata of a request
CHAT_MODES = (None, "chat", "completion", "responses")


class Gateway:
    """LiteLLM's router, read through its entry points or, before 1.110, its attributes.

    LiteLLM calls the deployments of one ``model_name`` a group.

    Parameters
    ----------
    router : litellm.Router

    Attributes
    ----------
    groups : dict of str to list of str
        Names of groups by model of the benchmark.
    marked : list of str
        Groups whose ``model_info`` names a model of the benchmark.
    fallbacks : list
        Those of the configuration.
    max_fallbacks : int
    cooldown_s : float
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
        if info.get("blocked") or info.get("team_id"):  # paused by an admin, or of one team only
            return
        self._ids.setdefault(group, set()).add(info.get("id", ""))
        of_model = self.groups.setdefault(info.get(KEY) or group, [])
        if group not in of_model:
            of_model.append(group)
        if KEY in info and group not in self.marked:
            self.marked.append(group)

    def deployed(self, models: Iterable[str]) -> list[str]:
        """Groups of models of the benchmark."""
        return [group for model in models for group in self.groups.get(model, ())]

    def alias_of(self, name: str) -> str | None:
        """What the configuration's `model_group_alias` has for a name."""
        found: str | None = self._resolve(name)
        return found

    def group_of(self, model_id: str | None) -> str | None:
        """Group of a deployment."""
        return next((group for group, ids in self._ids.items() if model_id in ids), None)

    async def may_use(self, group: str, request: Mapping[str, Any]) -> bool:
        """Whether the key, team and project of a request may use a group by name."""
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
        ids = self._ids.get(group, set())
        return bool(ids) and ids <= cooling

    async def cooling(self) -> set[str]:
        """Ids of the deployments that cool down."""
        found = await self._cooldowns.async_get_active_cooldowns(self._all_ids(), None)
        return {model_id for model_id, _ in found}

    def cooling_blocking(self) -> set[str]:
        """Ids of the deployments that cool down, from a thread."""
        found = self._cooldowns.get_active_cooldowns(self._all_ids(), None)
        return {model_id for model_id, _ in found}

    def _all_ids(self) -> list[str]:
        return [model_id for ids in self._ids.values() for model_id in ids]


def opened(response_id: Any, user: Any) -> str | None:
    """Decrypt the id of a response that the proxy gave to a caller; None if it is not theirs."""
    if not isinstance(response_id, str):
        return None
    try:
        from litellm.proxy.hooks.responses_id_security import ResponsesIDSecurity

        return str(ResponsesIDSecurity().authorize_response_id(response_id, user))
    except Exception:  # LiteLLM refuses the request itself after this hook
        return None


def deployment_of(response_id: str | None) -> str | None:
    """Id of the deployment that gave a response, from the response's own id."""
    if response_id is None:
        return None
    from litellm.responses.utils import ResponsesAPIRequestUtils

    found: str | None = ResponsesAPIRequestUtils.get_model_id_from_response_id(response_id)
    return found
