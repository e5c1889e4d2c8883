"""Where the responder listens: at the gateways of networks, and inside of namespaces.

At a gateway a container is answered from its first packet on, whoever asks for it: Docker's own
resolver in the container passes on what it does not know, Podman's containers ask directly. Inside
of its namespace it is answered whatever firewall the host has, whichever other name server has the
host's port 53, and whatever becomes of the engine; the driver's rules lead 127.0.0.11 there.

Sockets are bound to addresses that need not be there yet (``IP_FREEBIND``): a bridge may come, go
and come again. Functions here block, for the blink of an eye; a thread calls them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .state import ResponderState

GATEWAY_PORT = 53
INSIDE_ADDRESS = "127.0.0.11"  # Docker's, which configurations of many programs name
INSIDE_PORT = 61_053
"""Beyond the ports that programs get by chance (up to 60,999). Not 53: a name server in a container
listens there itself."""

T = TypeVar("T")

BACKLOG = 64
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # linux/in.h, linux/in6.h; Python has no names for them
_CLONE_NEWNET = 0x40000000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Place(NamedTuple):
    """Where to listen, and for whom.

    Attributes:
        owner: the id of a network, or of a client whose namespace it is in.
        pid, start: a process in that namespace; 0 for the host's.
    """

    owner: str
    address: str
    port: int
    pid: int = 0
    start: int = 0

    @property
    def inside(self) -> bool:
        """Is it in a client's namespace?"""
        return bool(self.pid)

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" + (f" in {self.owner}" if self.inside else "")


class Pair(NamedTuple):
    """The two sockets of a place."""

    datagram: socket.socket
    stream: socket.socket

    def close(self) -> None:
        """Stop listening; what was sent to us and not read is lost."""
        self.datagram.close()
        self.stream.close()


def places_of(state: ResponderState, gateway_port: int = GATEWAY_PORT) -> Iterator[Place]:
    """Yield where to listen for a state."""
    for table in state.networks:
        for gateway in table.network.gateways:
            yield Place(table.network.id, gateway.partition("/")[0], gateway_port)
    for client in state.clients:
        if client.pid:
            yield Place(client.id, INSIDE_ADDRESS, INSIDE_PORT, client.pid, client.start)


def open_pair(place: Place) -> Pair:
    """Listen at a place.

    Raises:
        OSError: somebody else listens there, or the namespace is gone.
    """
    if not place.inside:
        return _bind(place)
    with Path(f"/proc/{place.pid}/ns/net").open() as namespace:
        # The descriptor is open: what is found out now is about this very namespace.
        if start_of(place.pid) != place.start:
            raise ProcessLookupError(errno.ESRCH, "its process is gone")
        if os.fstat(namespace.fileno()).st_ino == Path("/proc/self/ns/net").stat().st_ino:
            raise OSError(errno.EINVAL, "it has the host's network")
        return call_in(namespace.fileno(), lambda: _bind(place))


def _bind(place: Place) -> Pair:
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    datagram = socket.socket(family, socket.SOCK_DGRAM)
    stream = socket.socket(family, socket.SOCK_STREAM)
    try:
        for sock in (datagram, stream):
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        # Connections of a responder before us may still be waiting for their last packets.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (datagram, stream):
            sock.bind((place.address, place.port))
        stream.listen(BACKLOG)
    except OSError:
        datagram.close()
        stream.close()
        raise
    return Pair(datagram, stream)


def call_in(namespace: int, function: Callable[[], T]) -> T:
    """Call a function in another network namespace; sockets stay in the one they are made in.

    Raises:
        OSError: it cannot be entered, or what the function raised.
    """
    made: list[T] = []
    failed: list[OSError] = []

    def enter() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            if libc.setns(namespace, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))  # noqa: TRY301
            made.append(function())
        except OSError as error:
            failed.append(error)

    # A thread of its own, which ends: no other work must ever run in a foreign namespace.
    thread = threading.Thread(target=enter, name="in another namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def is_there(place: Place) -> bool:
    """Return whether the namespace of a place is still its client's."""
    return not place.inside or start_of(place.pid) == place.start


def start_of(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        # The name stands in parentheses and may hold anything, also blanks and parentheses.
        state, *fields = text.rpartition(")")[2].split()
        return 0 if state in "ZX" else int(fields[18])
    except (OSError, IndexError, ValueError):
        return 0


def boot_id() -> str:
    """Return the identity of this boot of this machine."""
    return BOOT_ID.read_text().strip()
