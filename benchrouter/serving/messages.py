"""The text of a prompt that is embedded."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from benchrouter.files.errors import BadInput

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = str | Sequence[Message]

LONGEST = 200_000  # characters of a prompt; the rest is ignored
TEXT_PARTS = ("text", "input_text", "output_text")


class BadPrompt(BadInput):
    """A prompt without text, or of no shape that is known; the message says what was found."""


def text_of(prompt: Prompt) -> str:
    """Reduce a prompt to the text that is embedded.

    A string is taken as it is. Chat messages, in the shapes of OpenAI's API, are reduced to what is
    asked now: the user's messages after the last answer that has text. System and developer
    messages, tool calls, tool results and unfinished answers are ignored, so that all requests of
    one turn with tools are routed alike. If the user's last messages have no text (an image alone),
    the nearest earlier ones with text count; if the user wrote no text at all, the text of all
    messages does. If a content is a list, its text parts are joined by line feeds; images, audio
    and files are ignored.

    Parameters
    ----------
    prompt : str or sequence of dict
        Messages have a "role", and a "content" that is a str, a list of parts or None.

    Returns
    -------
    str
        Not blank.

    Raises
    ------
    BadPrompt
        Naming what was found and what was expected.
    """
    text = prompt if isinstance(prompt, str) else _of_messages(prompt)
    if not text.strip():
        raise BadPrompt("found a prompt without text")
    return text


def _of_messages(messages: object) -> str:
    if not isinstance(messages, Sequence) or isinstance(messages, (bytes, bytearray)):
        raise BadPrompt(
            f"found a prompt of type {type(messages).__name__}, expected a str or chat messages"
        )
    said = [(_role(message, i), _content(message, i)) for i, message in enumerate(messages)]
    turn: list[str] = []
    for role, text in reversed(said):
        if role == "assistant" and text and turn:
            break
        if role == "user" and text:
            turn.append(text)
    return "\n".join(reversed(turn)) or "\n".join(text for _, text in said if text)


def _role(message: object, i: int) -> str:
    role = message.get("role") if isinstance(message, Mapping) else None
    if not isinstance(role, str):
        raise BadPrompt(f"messages[{i}]: found {_shortly(message)}, expected a dict with a role")
    return role


def _content(message: Message, i: int) -> str:
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content if content.strip() else ""
    if not isinstance(content, Sequence):
        raise BadPrompt(
            f"messages[{i}].content: found {_shortly(content)}, expected a str or a list of parts"
        )
    parts = [part if isinstance(part, str) else _text_of_part(part) for part in content]
    return "\n".join(part for part in parts if part.strip())


def _text_of_part(part: object) -> str:
    if not isinstance(part, Mapping) or part.get("type") not in TEXT_PARTS:
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else ""


def _shortly(value: object) -> str:
    shown = value if isinstance(value, str) else reprlib.repr(value)  # however deep it is
    return f"{type(value).__name__} {shown[:40]!r}"
