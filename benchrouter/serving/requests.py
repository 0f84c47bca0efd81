"""From what a caller passes to a pending request, or an error of the caller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeGuard

import numpy as np

from benchrouter.decisions.policy import Policy
from benchrouter.embeddings import as_unit_rows
from benchrouter.files.arrays import Rows
from benchrouter.serving.messages import LONGEST, Prompt, text_of
from benchrouter.serving.pending import Pending
from benchrouter.serving.routers import Served

LONGEST_S = 1e9  # 30 years; Python cannot wait for more than 292


class Asked(NamedTuple):
    """Prompts to route; rows without prompts, or prompts without rows, are None."""

    prompts: Sequence[Prompt | None] | None
    rows: Rows | None


def one(prompt: Prompt | None, embedding: Rows | None) -> Asked:
    """Ask for one prompt.

    Raises
    ------
    TypeError
        If it is a list of prompts. A list of dicts is one prompt: the messages of a chat.
    ValueError
        If the embedding has not one axis.
    """
    if _is_list(prompt) and len(prompt) and (isinstance(prompt[0], str) or _is_list(prompt[0])):
        raise TypeError(
            f"found a list of {len(prompt)} prompts, expected one: route_many and "
            "route_many_blocking take a list"
        )
    if embedding is None:
        return Asked([prompt], None)
    row = np.asarray(embedding)
    if row.ndim != 1:
        raise ValueError(f"embedding must have shape (dim,), got shape {row.shape}")
    return Asked([prompt], row[None])


def many(prompts: Sequence[Prompt] | None, embeddings: Rows | None) -> Asked:
    """Ask for several prompts.

    Raises
    ------
    TypeError
        If it is one prompt.
    ValueError
        If prompts and embeddings are both missing.
    """
    is_chat = _is_list(prompts) and len(prompts) and isinstance(prompts[0], Mapping)
    if isinstance(prompts, (str, bytes, bytearray)) or is_chat:
        found = "the messages of a chat" if is_chat else "a single string"
        raise TypeError(
            f"found {found}, expected a list of prompts: route and route_blocking take one prompt"
        )
    if prompts is None and embeddings is None:
        raise ValueError("prompts or embeddings are needed, got neither")
    return Asked(None if prompts is None else list(prompts), embeddings)


def pending_of(
    asked: Asked, served: Served, policy: Policy, deadline_s: float
) -> tuple[Pending, dict[int, str]]:
    """Make a pending request.

    Returns
    -------
    pending : Pending
    bad : dict of int to str
        What is wrong with the prompts that have neither a text nor an embedding.

    Raises
    ------
    TypeError, ValueError
        If the embeddings do not suit the router or the prompts.
    """
    if asked.rows is None:
        read = [_read(prompt) for prompt in asked.prompts or ()]
        bad = {i: why for i, (text, why) in enumerate(read) if text is None}
        return Pending(served, policy, [text for text, _ in read], None, deadline_s), bad
    rows = as_unit_rows(asked.rows, "embeddings")
    dim = served.info.description["dim"]
    if rows.shape[1] != dim:
        raise ValueError(f"embeddings have dim {rows.shape[1]}, the router's have dim {dim}")
    prompts = [None] * len(rows) if asked.prompts is None else asked.prompts
    if len(prompts) != len(rows):
        raise ValueError(f"{len(prompts)} prompts came with {len(rows)} embeddings")
    texts = [_read(prompt)[0] for prompt in prompts]
    return Pending(served, policy, texts, rows, deadline_s), {}


def with_default(policy: Policy | None, default: Policy) -> Policy:
    """Policy of a request: its own or the default, with the default's models if it names none.

    Raises
    ------
    TypeError
        If it is no policy.
    """
    if policy is None:
        return default
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a RoutePolicy, got {type(policy).__name__}")
    if default.models is None or policy.models is not None:
        return policy
    return replace(policy, models=default.models)


def narrowed(policy: Policy, models: Sequence[str]) -> Policy:
    """Allow the models that a router has; all of them if the policy allows none of them."""
    if policy.models is None:
        return policy
    return replace(policy, models=policy.known_among(models) or None)


def deadline_of(seconds: float | None) -> float:
    """Seconds to a deadline; infinite where None or more than `LONGEST_S` is given.

    Raises
    ------
    ValueError
        If it is not above 0.
    """
    if seconds is None:
        return math.inf
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"deadline_s must be seconds above 0, got {seconds!r}")
    return float(seconds) if seconds < LONGEST_S else math.inf


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number out of range.

    Raises
    ------
    ValueError
        Naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:g}, got {value!r}")


def _read(prompt: Prompt | None) -> tuple[str | None, str]:
    """Text of a prompt, or None and what is wrong with it."""
    if prompt is None:
        return None, "found None, expected a str or chat messages"
    try:
        return text_of(prompt)[:LONGEST], ""
    except Exception as e:  # BadPrompt, or whatever a strange object raises
        return None, str(e)


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
