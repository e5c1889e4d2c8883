"""The host's own servers, out of its ``/etc/resolv.conf``.

Pure. Search domains and options are for programs that look names up; who only passes questions on
needs the servers alone.
"""

from __future__ import annotations

import ipaddress

MAX_SERVERS = 3  # as every C library reads them (MAXNS)
LOCAL = ("127.0.0.1",)
"""resolv.conf(5): without any entry the server is on the local machine."""


def parse_servers(text: str) -> tuple[str, ...]:
    """Return the servers that a file names, in its order; an IPv6 one may have a zone."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        # A comment stands at a line's start; what follows an address is no part of it either.
        if len(words) > 1 and words[0] == "nameserver" and is_address(words[1]):
            found.append(words[1])
    return tuple(dict.fromkeys(found))[:MAX_SERVERS] or LOCAL


def is_address(text: str) -> bool:
    """Return whether ``text`` is one address of either family."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(server: str) -> bool:
    """Return whether a server is on the machine, or in the namespace, that asks it."""
    return server == "::1" or server.startswith("127.")


def chosen(named: tuple[str, ...], hosts: tuple[str, ...], own: frozenset[str]) -> tuple[str, ...]:
    """Return whom to ask.

    Args:
        named: by the one who asks; one on its own loopback is not the one on ours.
        hosts: the host's servers, for those who name none.
        own: our own addresses; we would ask ourselves for ever.
    """
    servers = tuple(one for one in named if not is_loopback(one)) if named else hosts
    return tuple(server for server in servers if server not in own)
