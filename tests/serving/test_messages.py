"""Chat messages to the text that is embedded."""

from __future__ import annotations

import pytest

from benchrouter.serving.messages import BadPrompt, text_of


def said(role, content, **rest):
    return {"role": role, "content": content, **rest}


def part(text):
    return {"type": "text", "text": text}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = said("assistant", None, tool_calls=[{"id": "1", "function": {"name": "f"}}])
RESULT = said("tool", "42 degrees", tool_call_id="1")


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("as it is\n", "as it is\n"),
        ([said("user", "one")], "one"),
        ([said("system", "be brief"), said("user", "one")], "one"),
        ([said("developer", "be brief"), said("user", "one")], "one"),
        ([said("user", "one"), said("assistant", "1"), said("user", "two")], "two"),
        ([said("user", "one"), said("user", "two")], "one\ntwo"),
        ([said("user", [part("one"), IMAGE, part("two")])], "one\ntwo"),
        ([said("user", [{"type": "input_text", "text": "one"}])], "one"),
        ([said("user", ["one", "two"])], "one\ntwo"),
        # a turn with tools is routed as it was before the tools
        ([said("user", "how warm?"), CALL, RESULT], "how warm?"),
        ([said("user", "a"), said("assistant", "b"), said("user", "c"), CALL, RESULT], "c"),
        ([said("user", "one"), said("assistant", "an answer that is go")], "one"),
        # an image alone: what was said before it
        ([said("user", "look"), said("assistant", "where?"), said("user", [IMAGE])], "look"),
        ([said("system", "greet the user")], "greet the user"),
        ([said("user", None), said("assistant", "hi")], "hi"),
    ],
)
def test_what_is_asked_now_counts(prompt, text):
    assert text_of(prompt) == text


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (DEEP, r"messages\[0\]: found list '\[\[\["),
        ("", "without text"),
        (" \n\t", "without text"),
        ([], "without text"),
        ([said("user", [IMAGE])], "without text"),
        ([said("user", [part(" ")])], "without text"),
        (None, "type NoneType, expected a str or chat messages"),
        (5, "type int"),
        (b"bytes", "type bytes"),
        ({"role": "user"}, "type dict"),
        (["text"], r"messages\[0\]: found str 'text', expected a dict with a role"),
        ([{"content": "no role"}], r"messages\[0\]: found dict"),
        ([said("user", "one"), said(3, "two")], r"messages\[1\]"),
        ([said("user", 7)], r"messages\[0\].content: found int '7'"),
        ([said("user", {"text": "one"})], r"messages\[0\].content: found dict"),
    ],
)
def test_what_is_no_prompt_is_refused(prompt, words):
    with pytest.raises(BadPrompt, match=words):
        text_of(prompt)


@pytest.mark.parametrize("text", [None, 5, ["a"], {"a": 1}])
def test_a_part_without_text_does_not_count(text):
    assert text_of([said("user", [{"type": "text", "text": text}, part("one")])]) == "one"
