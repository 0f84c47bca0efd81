"""The page at ``/``, with headers that let it run its own script and style and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response


def serve_page(app: FastAPI) -> None:
    """Serve the page at ``/``.

    Parameters
    ----------
    app : FastAPI
    """
    from starlette.responses import Response

    content, headers = page()

    @app.get("/", include_in_schema=False)
    async def answer() -> Response:
        return Response(content, headers=headers)


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
    content = resources.files("benchrouter.serving.service").joinpath("page.html").read_bytes()
    policy = {
        "default-src": "'none'",
        "script-src": _hash(content, b"script"),
        "style-src": _hash(content, b"style"),
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


def _hash(content: bytes, tag: bytes) -> str:
    """SHA-256 of what stands between the tags, byte by byte, as a source of the policy."""
    (inside,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), content, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside).digest()).decode()}'"
