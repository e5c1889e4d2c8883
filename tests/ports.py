"""Ports on loopback for daemons that are to listen there later, and again after a restart."""

from __future__ import annotations

import socket
from collections import deque

HELD_MAX = 256

_held: deque[socket.socket] = deque()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody is given by chance while this process runs.

    A socket is bound to it and never listens. Linux lets another one listen there when both have
    SO_REUSEADDR, as servers have, but gives the port neither to one that binds port 0 nor to one
    that connects; so it is not lost between the choice and the use, nor between two daemons. The
    oldest of many are let go.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    _held.append(keeper)
    if len(_held) > HELD_MAX:
        _held.popleft().close()
    port: int = keeper.getsockname()[1]
    return port
