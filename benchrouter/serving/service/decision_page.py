"""The page at ``/``, with headers that let it run its own script and style and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources


@cache
def page() -> tuple[bytes, dict[str, str]]:
    """Read the page.

    Returns
    -------
    content : bytes
        HTML in UTF-8.
    headers : dict of str to str
        Of the response, ``Content-Type`` included.
    """
    content = resources.files("benchrouter.serving.service").joinpath("page.html").read_bytes()
    return content, {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy_of(content.decode()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
    }


def policy_of(page: str) -> str:
    """Content-Security-Policy of a page: its own scripts and styles by their hashes, no others."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes(page, 'script')}",
            f"style-src {_hashes(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Whatever the script does, no text of a benchmark becomes markup.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _hashes(page: str, tag: str) -> str:
    """SHA-256 of what stands in each element, as sources of a policy; 'none' for no element."""
    inside = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
