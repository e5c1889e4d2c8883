"""The responder's own socket: packets of JSON between it, the daemon, and a responder that follows.

A packet socket keeps messages apart, carries descriptors beside them and tells who is at the other
end. Whoever connects is sent the responder's status at once and at every change; it may ask:

- ``load``: look at ``state.json`` again;
- ``handover``: give me your sockets. They come in packets, the last marked so; who took them says
  ``taken``, and the responder ends when it has answered what it had read;
- ``quit``: end.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.socket import SocketType

CONTROL, LOCK, LOG, STATE = "control.sock", "lock", "responder.log", "state.json"
MAX_PACKET_BYTES = 1024 * 1024
MAX_DESCRIPTORS = 200  # of one packet; the kernel takes 253
MAX_PROBLEMS = 50
LOAD, HANDOVER, TAKEN, QUIT = b"load", b"handover", b"taken", b"quit"
MAX_REQUEST_BYTES = 64


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """How the responder is.

    Attributes:
        build: which program it is.
        number: of the state that it answers from, once it listens wherever that says.
        served: ids of clients that it listens for inside of their namespaces.
        problems: sentences.
        counts: of questions, by what became of them.
    """

    build: str
    pid: int
    number: int = 0
    served: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    counts: dict[str, int] = msgspec.field(default_factory=dict)


class PlaceOnWire(msgspec.Struct, frozen=True, array_like=True):
    """A place whose two sockets come along; see ``sockets.Place``."""

    owner: str
    address: str
    port: int
    pid: int
    start: int


class Sockets(msgspec.Struct, frozen=True, kw_only=True, tag="sockets"):
    """Sockets that are handed over: of each place the UDP one and the TCP one."""

    places: tuple[PlaceOnWire, ...] = ()
    last: bool = False


def decode_packet(data: bytes) -> Status | Sockets:
    """Return what the responder sent.

    Raises:
        msgspec.DecodeError: it was something else.
    """
    return msgspec.json.decode(data, type=Status | Sockets)


def with_descriptors(sockets: Sequence[socket.socket]) -> list[tuple[int, int, bytes]]:
    """Return what ``sendmsg`` needs to carry sockets along."""
    numbers = array.array("i", [sock.fileno() for sock in sockets])
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers.tobytes())] if numbers else []


def connect(root: Path, patience_s: float) -> socket.socket:
    """Return a connection to the responder of a directory; blocks for a moment at most.

    Raises:
        OSError: none is there, or it takes no connections.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(patience_s)
        # Through a descriptor, since the path of a unix socket has room for 107 bytes only.
        sock.connect(f"/proc/self/fd/{folder}/{CONTROL}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def listen() -> socket.socket:
    """Return the responder's listening socket, in the present directory.

    Raises:
        OSError: it cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fresh = f".{CONTROL}.{os.getpid()}"
    try:
        sock.bind(fresh)
        os.chmod(fresh, 0o600)  # noqa: PTH101 - at a responder's start nothing else is loaded
        sock.listen()
        sock.setblocking(False)
        os.replace(fresh, CONTROL)  # noqa: PTH105
    except OSError:
        sock.close()
        raise
    return sock


def peer(sock: socket.socket | SocketType) -> tuple[int, int]:
    """Return pid and user of who is at the other end."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", data)
    return pid, uid
