"""The requests that lm-evaluation-harness sent, and log-likelihoods of the answers."""

from __future__ import annotations

import json
import math
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.words import shown
from benchrouter.tables.sources.columns import number


def request_text(row: dict[str, Any]) -> str:
    """Text of a sample's first request, or the messages of a chat.

    Raises
    ------
    ValueError
        If there is none.
    """
    contexts = _contexts(row.get("arguments"))
    if not contexts or not isinstance(contexts[0], str):
        raise BadInput(
            f"arguments is {shown(row.get('arguments'))}, expected a request's text as "
            "gen_args_0.arg_0"
        )
    return _messages(contexts[0]) or contexts[0]


def chosen_log_likelihood(row: dict[str, Any]) -> float | None:
    """Log-likelihood of the most likely choice, in nats; None without several choices.

    It is the whole choice's: samples do not tell the number of tokens.
    """
    responses, contexts = row.get("resps"), _contexts(row.get("arguments"))
    if not isinstance(responses, list) or len(responses) < 2:
        return None
    likelihoods = []
    for i, repeats in enumerate(responses):
        # Mutual information also asks for every choice without a question.
        if i < len(contexts) and contexts[i] == "":
            continue
        try:
            (likelihood, _) = repeats[0]
            likelihoods.append(number(likelihood, finite=False))
        except (TypeError, ValueError, LookupError):
            return None
    found = [value for value in likelihoods if value is not None and math.isfinite(value)]
    return max(found, default=None)


def _contexts(arguments: Any) -> list[Any]:
    """First argument of every request: {"gen_args_0": {"arg_0": …}}, or lists in older files."""
    if isinstance(arguments, dict):
        arguments = [
            [request.get("arg_0")] if isinstance(request, dict) else request
            for request in arguments.values()
        ]
    if not isinstance(arguments, list):
        return []
    contexts = [
        request[0] if isinstance(request, list) and request else None for request in arguments
    ]
    # A chat for an API is a list of one text, which is JSON.
    return [c[0] if isinstance(c, list) and len(c) == 1 else c for c in contexts]


def _messages(text: str) -> str | None:
    """Joined messages of a chat in JSON; None for any other text."""
    if not text.startswith("[{"):
        return None
    try:
        messages = json.loads(text)
        return "\n\n".join(message["content"] for message in messages)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
