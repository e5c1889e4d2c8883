"""Which nodes have a daemon at work on this host.

Several may: each with a state directory of its own. What one of them made in the kernel and on an
engine carries its id; whether that is somebody's or a leaving of a node that this host was before
cannot be told by the thing itself. So a daemon holds a name while it is at work, which ends with
it. It is one of the host's network namespace, where the things in question are.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def _name(node_id: str) -> str:
    """Return the name of a unix socket that is in no file system."""
    return f"\0swarmctl node {node_id}"


@contextmanager
def at_work(node_id: str) -> Iterator[None]:
    """Be seen to be at work as this node, for the length of the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        with suppress(OSError):  # a daemon of the same node that is about to end has it
            held.bind(_name(node_id))
        yield


def is_at_work(node_id: str) -> bool:
    """Return whether a daemon of this node is at work on this host."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_name(node_id))
        except OSError:
            return False
    return True
