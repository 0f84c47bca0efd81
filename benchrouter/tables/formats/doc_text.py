"""Fill in simple templates of lm-evaluation-harness."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.words import shown

METHODS = ("strip", "lstrip", "rstrip", "lower", "upper", "capitalize", "title")
# {{question}}, {{choices[0]}}, {{ doc["text"].strip() }}, {{question | trim}}
EXPRESSION = re.compile(
    r"\{\{\s*([A-Za-z_]\w*)"
    r"((?:\.\w+(?:\(\))?|\[\d+\]|\[\"[^\"{}]*\"\]|\['[^'{}]*'\])*)"
    r"\s*(\|\s*trim\s*)?\}\}"
)
STEP = re.compile(r"\.(\w+)(\(\))?|\[(\d+)\]|\[[\"']([^\"']*)[\"']\]")
SOURCE_CODE = re.compile(r"\s*(def |@|lambda |<function|functools)")
# Tried in this order if the template is not simple and the caller wants the document's text.
FIELDS = (
    *("question", "query", "problem", "instruction", "prompt"),
    *("input", "text", "sentence", "goal", "context"),
)


def text_of(template: Any, doc: dict[str, Any]) -> str:
    """Fill in a task's template for a document, without few-shot examples.

    Parameters
    ----------
    template : object
        ``doc_to_text`` of the task's configuration: the name of a field, or a Jinja template.
        A template may use only fields, their items and the methods `METHODS`; others, and Python
        functions, are not run.
    doc : dict

    Raises
    ------
    ValueError
        If the template is not simple, or the document lacks what it names.
    """
    if isinstance(template, str) and template in doc:
        return _text(doc[template], template)
    if not isinstance(template, str) or "{{" not in template or SOURCE_CODE.match(template):
        raise BadInput(f"doc_to_text is {shown(template)}, which is no simple template")
    rest = EXPRESSION.sub("", template)
    if any(mark in rest for mark in ("{{", "}}", "{%", "%}", "{#", "#}")):
        raise BadInput(f"doc_to_text is {shown(template)}, which is no simple template")
    fill: Callable[[re.Match[str]], str] = lambda found: _value(found, doc)  # noqa: E731
    return EXPRESSION.sub(fill, template)


def field_of(doc: dict[str, Any]) -> str:
    """Text of the first of `FIELDS` that a document has.

    Raises
    ------
    ValueError
        If it has none.
    """
    found = next((doc[key] for key in FIELDS if isinstance(doc.get(key), str)), None)
    if found is None:
        raise BadInput(
            f"doc has the fields {list(doc)}, expected one of {', '.join(FIELDS)}; "
            "'request' takes what was sent to the model (prompt, --prompt-from)"
        )
    return str(found)


def _value(found: re.Match[str], doc: dict[str, Any]) -> str:
    field, steps, trim = found.groups()
    if field not in doc:
        raise BadInput(f"doc has no field {field!r}, which doc_to_text names")
    value = doc[field]
    for attribute, call, item, key in STEP.findall(steps):
        try:
            if call:
                if attribute not in METHODS:
                    raise BadInput(f"doc_to_text calls {attribute}(), which is not simple")
                value = getattr(_text(value, field), attribute)()
            else:
                value = value[int(item)] if item else value[attribute or key]
        except (LookupError, TypeError) as error:
            raise BadInput(
                f"doc has {field!r} {shown(doc[field])}, but doc_to_text names {field}{steps}"
            ) from error
    text = str(value)
    return text.strip() if trim else text


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"doc has {field!r} {shown(value)}, expected text")
    return value
