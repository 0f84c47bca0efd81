"""Decisions that were made before; the least recently used are forgotten first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from hashlib import blake2b

from benchrouter.serving.answer import Routed

Key = tuple[Hashable, ...]


class DecisionCache:
    """Decisions by router, version, policy and text; safe to share between threads.

    Parameters
    ----------
    most : int
        Decisions kept; 0 = none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Routed] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count the decisions."""
        return len(self._kept)

    def get(self, router: str, version: str, policy: Hashable, text: str) -> Routed | None:
        """Find a decision, marked as `cached`; None if it is not kept.

        Parameters
        ----------
        router, version : str
        policy : hashable
            `Policy.key`.
        text : str
        """
        if not self._most:
            return None
        key = _key_of(router, version, policy, text)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        return found

    def put(self, routed: Routed, policy: Hashable, text: str) -> None:
        """Keep a decision of its router and version, on a text under a policy."""
        if not self._most:
            return
        key = _key_of(routed.router, routed.version, policy, text)
        kept = replace(routed, cached=True)
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _key_of(router: str, version: str, policy: Hashable, text: str) -> Key:
    """What a decision depends on, with a hash in place of the text."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return router, version, policy, digest
