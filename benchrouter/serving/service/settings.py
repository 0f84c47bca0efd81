"""Limits and habits of the HTTP service."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TASK_PROMPTS = 5000  # of /v1/choose


@dataclass(frozen=True)
class Settings:
    """What the HTTP service refuses, and what it logs.

    Attributes
    ----------
    keys : tuple of str
        API keys, any of which is accepted; without keys everyone is let in.
    max_body_bytes : int
        Of a request; a longer one is refused (413) before it is read. All requests together may
        hold 16 times as much; further ones are asked to come back (429).
    max_prompts : int
        Of one request to /v1/route; more are refused (422).
    max_pending : int or None
        Prompts that may wait for the engine; a request beyond is asked to come back (429). None =
        as many as the engine's queue takes.
    max_tasks : int
        Requests to /v1/choose at once, each of which encodes a whole task; further ones are asked
        to come back (429).
    log_requests : bool
        Whether every request is logged.
    log_prompts : bool
        Whether the log holds prompts.
    only_local_names : bool
        Whether a request whose Host is a name of the public internet is refused (403): without
        keys, a page of the web could ask through its reader's browser.
    """

    keys: tuple[str, ...] = ()
    max_body_bytes: int = 16 * 2**20
    max_prompts: int = 1000
    max_pending: int | None = None
    max_tasks: int = 2
    log_requests: bool = True
    log_prompts: bool = False
    only_local_names: bool = False
