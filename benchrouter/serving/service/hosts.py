"""The names by which a service is asked, where it asks for no key.

Any page of the web can give its own name the address 127.0.0.1 (DNS rebinding); the browser of
who looks at it then lets it read what a service on that machine answers. Such a page cannot change
its name, which stands in Host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

NEVER_PUBLIC = ("localhost", "local", "internal", "home.arpa", "test")  # RFC 6761, 6762, 8375


def are_local(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request names an address, or a host that is not on the public internet.

    Parameters
    ----------
    headers : sequence of (bytes, bytes)
        As ASGI gives them: names in lower case.

    Returns
    -------
    bool
        Also True where there is no Host.
    """
    return all(_is_local(value.decode("latin-1")) for name, value in headers if name == b"host")


def _is_local(host: str) -> bool:
    if host.startswith("["):  # an address of IPv6
        return True
    name = host.partition(":")[0].rstrip(".").lower()
    if "." not in name or name.endswith(tuple(f".{end}" for end in NEVER_PUBLIC)):
        return True
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True
