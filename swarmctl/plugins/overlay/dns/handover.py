"""How a responder takes the place of another: it gets the very sockets, and no question is lost.

Everything here blocks, with an end: it happens before the new responder serves anybody.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from .control import (
    HANDOVER,
    LOCK,
    MAX_DESCRIPTORS,
    MAX_PACKET_BYTES,
    TAKEN,
    Sockets,
    Status,
    connect,
    decode_packet,
    peer,
)
from .sockets import Pair, Place

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 5.0
LOCK_PATIENCE_S = 10.0
LOOK_AGAIN_S = 0.01


class Held(Exception):
    """A responder of this very build has the directory, or one that cannot be replaced."""


def take_lock(root: Path, build: str) -> tuple[int, dict[Place, Pair]]:
    """Return the directory's lock, and the sockets of the responder that had it before.

    Raises:
        Held: somebody else keeps it.
        OSError: it cannot be taken.
    """
    lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    inherited: dict[Place, Pair] = {}
    if not _try_lock(lock):
        with contextlib.suppress(OSError):
            inherited = _take_over(root, build)
        if not _wait_lock(lock):
            raise Held("another responder keeps the lock and does not answer")
    return lock, inherited


def _take_over(root: Path, build: str) -> dict[Place, Pair]:
    """Return the sockets of the responder that is there, and make it end.

    Raises:
        Held: it is of this build.
        OSError: nobody answers.
    """
    with connect(root, PATIENCE_S) as sock:
        try:
            first = decode_packet(sock.recv(MAX_PACKET_BYTES))
            if isinstance(first, Status) and first.build == build:
                raise Held("a responder of this version is there already")
            return _receive_sockets(sock)
        except (OSError, msgspec.DecodeError):
            # It took the connection and then said nothing, or nonsense: it serves nobody either.
            # The connection is still open, so the pid is still that of who is at its end.
            with contextlib.suppress(OSError):
                os.kill(peer(sock)[0], signal.SIGKILL)
            return {}


def _receive_sockets(sock: socket.socket) -> dict[Place, Pair]:
    sock.send(HANDOVER)
    found: dict[Place, Pair] = {}
    try:
        while True:
            packet, descriptors = _receive(sock)
            if isinstance(packet, Status):
                continue
            for number, place in enumerate(packet.places):
                datagram, stream = descriptors[2 * number : 2 * number + 2]
                key = Place(place.owner, place.address, place.port, place.pid, place.start)
                found[key] = Pair(datagram, stream)
            if packet.last:
                sock.send(TAKEN)
                return found
    except OSError:
        for pair in found.values():
            pair.close()
        raise


def _receive(sock: socket.socket) -> tuple[Status | Sockets, list[socket.socket]]:
    numbers = array.array("i")
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * numbers.itemsize)
    data, ancillary, _, _ = sock.recvmsg(MAX_PACKET_BYTES, room)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
    sockets = [socket.socket(fileno=number) for number in numbers]
    if not data:
        raise ConnectionError("it ended")
    packet = decode_packet(data)
    if isinstance(packet, Sockets) and len(sockets) != 2 * len(packet.places):
        raise ConnectionError("sockets were lost on the way")
    for one in sockets:
        one.setblocking(False)
    return packet, sockets


def _wait_lock(lock: int) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while time.monotonic() < deadline:
        if _try_lock(lock):
            return True
        time.sleep(LOOK_AGAIN_S)
    return False


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
