"""What managers, and nodes that become managers, say to each other beside consensus."""

from __future__ import annotations

from ..model.base import PrivateStruct

JOIN = "join_managers"
RESIGN = "resign"
FORWARD = "forward"
OUTPUT = "output"
"""A stream: the output of a task, from whichever node has it, through the leader."""
ROOM = "room"
"""Asks a manager why its disk takes no changes; the answer is a sentence, empty while it does."""


class JoinManagers(PrivateStruct, frozen=True, kw_only=True):
    """A node with a manager's certificate wants a member number; who asks, the certificate says.

    Attributes:
        addr: where others reach it, ``host:port``; the leader dials it before it lets it in.
        raft_id: the number it has, 0 for none. With the number that the tables know, only the
            address is news.
        format_level: of its release.
    """

    addr: str
    raft_id: int = 0
    format_level: int = 1


class ManagerPlace(PrivateStruct, frozen=True, kw_only=True):
    """Where one manager is."""

    raft_id: int
    addr: str


class Joined(PrivateStruct, frozen=True, kw_only=True):
    """The answer: the newcomer's member number, and who the others are."""

    raft_id: int
    managers: tuple[ManagerPlace, ...]


class Forwarded(PrivateStruct, frozen=True, kw_only=True):
    """A call that only the leader can answer, passed on by the manager that got it.

    Attributes:
        certificate: of the node that called, in PEM or DER; empty for a caller without one.
    """

    method: str
    body: bytes
    certificate: bytes = b""
