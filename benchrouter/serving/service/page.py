"""The page at ``/``, with headers that let it run its own script and style and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).with_name("page.html")


@cache
def page() -> tuple[bytes, dict[str, str]]:
    """Read the page, and allow its one script and one style by their hashes.

    Returns
    -------
    content : bytes
        HTML in UTF-8.
    headers : dict of str to str
        Of the response, ``Content-Type`` included.
    """
    content = PAGE.read_bytes()
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(content, b"script"),
        "style-src": _hashes(content, b"style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        # Text of a benchmark or a model's name can then never become markup, whatever the script.
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return content, {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def _hashes(content: bytes, tag: bytes) -> str:
    """Sources of a policy: the SHA-256 of what stands between the tags, byte by byte."""
    inside = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), content, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inside)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
