"""Holds published ports, so that no other process of this host gets one by mistake.

A socket is bound to each and never listens: what reaches it despite the rules is refused as by a
closed port, and a process that wants the port is told that it is in use, as Docker's proxy would.
A port that somebody has already is theirs: it is a problem to tell of, and tried again at each
audit. The sockets end with this daemon, the rules do not; so traffic goes on while it restarts.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}


class Place(NamedTuple):
    """Where a port is bound: ``0.0.0.0`` or ``::`` for every address of a family."""

    protocol: str
    address: str
    port: int


class Reservations:
    """The sockets."""

    def __init__(self) -> None:
        self._held: dict[Place, socket.socket] = {}

    def hold(self, wanted: Mapping[str, Iterable[Place]]) -> dict[str, str]:
        """Hold these and no others; return why not, for each key of which a place is taken."""
        places = {place for several in wanted.values() for place in several}
        for place in self._held.keys() - places:
            self._held.pop(place).close()
        refused: dict[str, str] = {}
        for key, several in wanted.items():
            for place in several:
                if place not in self._held:
                    try:
                        self._held[place] = _bound(place)
                    except OSError as error:
                        if error.errno == errno.EADDRINUSE:
                            refused[key] = "another process of this host has it"
                        elif error.errno not in _UNSUPPORTED:
                            refused[key] = f"{place.address}: {error.strerror}"
        return refused

    def close(self) -> None:
        """Let go of all."""
        for held in self._held.values():
            held.close()
        self._held.clear()


_UNSUPPORTED = (
    *(errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT),
    errno.EADDRNOTAVAIL,
)
"""Without sctp, without IPv6, or without that address, nobody else can have the port either."""


def _bound(place: Place) -> socket.socket:
    """Return a socket that nobody can share; or that only old connections of others share."""
    try:
        return _bind(place, reuse=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or place.protocol == "udp":
            raise
        return _bind(place, reuse=True)  # fails where somebody listens


def _bind(place: Place, *, reuse: bool) -> socket.socket:
    kind, protocol = _KINDS[place.protocol]
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    made = socket.socket(family, kind, protocol)
    try:
        if reuse:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_DGRAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        made.bind((place.address, place.port))
    except BaseException:
        made.close()
        raise
    return made
