"""Tasks that shall stop: first nobody sends them anything new, then their node is told.

Pure. A task that runs and is to stop is *leaving*: in the tables it is not ready any more. Its node
is told to stop it once every node that could send to it says that its kernel knows, or after
:data:`DRAIN_S`. That holds whatever the reason for stopping is, since it is decided where the order
goes out.

Laws:

- Nothing is written down: a new leader begins the wait anew, for a task that the one before it may
  have told already, and nodes take nothing back. So an order is delayed at most, and never lost.
- Nodes out of touch are waited for too, down or not: a daemon that restarts leaves its kernel
  sending as before.
- Who has nothing that carries traffic, or is away or does not come round for :data:`DRAIN_S`, is
  not waited for. So a lost host, or a kernel that nothing can be written into, delays orders once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..model.objects import TaskRow

    Known = Callable[[str], int | None]
    """The oldest version of the tables that nodes of a network know; None without nodes."""

DRAIN_S = 10.0
"""How long a task that shall stop goes on at most for nodes that do not say that they know.

On a machine with ten times as much to do as it can, a driver took three seconds.
"""
BELIEVED_S = 1.2
"""How much longer where clients have members' addresses by name: an answer is believed for 1 s."""


class _Leaving(NamedTuple):
    """A task whose node was not told yet.

    Attributes:
        networks: where it was, and the version of the tables that tell that it leaves.
        since: when it was seen first that it shall stop.
        rest_s: how much longer it goes on once all nodes know.
        known_at: when it was first seen that they do.
    """

    node_id: str
    networks: Mapping[str, int]
    since: float
    rest_s: float
    known_at: float = float("inf")


class Released(NamedTuple):
    """A task whose node is to be told.

    Attributes:
        unknown: networks in which not all nodes say that they know, with the version they lack.
    """

    task_id: str
    node_id: str
    unknown: Mapping[str, int]


class Drains:
    """The tasks that leave."""

    def __init__(self) -> None:
        self._leaving: dict[str, _Leaving] = {}
        self._told: set[str] = set()

    def next_deadline(self, now: float) -> float:
        """Return when somebody is not waited for any longer."""
        leaving = self._leaving.values()
        ends = (end for one in leaving for end in (one.since + DRAIN_S, one.known_at + one.rest_s))
        return min((end for end in ends if end > now), default=float("inf"))

    def holds(
        self,
        row: TaskRow,
        networks: Mapping[str, int],
        known: Known,
        now: float,
        *,
        rest_s: float = 0.0,
    ) -> bool:
        """Return whether a task's order to stop has to wait.

        Args:
            networks: where it is a member, and the version of the tables in which that changed
                last.
            known: returns what the nodes of a network know.
            rest_s: how much longer it goes on once all nodes know.
        """
        task_id = row.api.ID
        if not is_leaving(row) or task_id in self._told:
            return False
        if task_id not in self._leaving:
            leaving = _Leaving(row.api.NodeID, networks, now, rest_s)
            if not rest_s and not _unknown(leaving, known):
                self._told.add(task_id)
                return False
            self._leaving[task_id] = leaving
        return True

    def settle(self, known: Known, now: float) -> list[Released]:
        """Let go what need not wait any longer, and return it."""
        over = []
        for task_id, one in self._leaving.items():
            unknown = _unknown(one, known)
            known_at = one.known_at if unknown else min(one.known_at, now)
            if now >= min(known_at + one.rest_s, one.since + DRAIN_S):
                over.append(Released(task_id, one.node_id, unknown))
            else:
                self._leaving[task_id] = one._replace(known_at=known_at)
        for released in over:
            del self._leaving[released.task_id]
            self._told.add(released.task_id)
        return over

    def forget(self, task_id: str) -> None:
        """Forget a task that has ended, or is gone."""
        self._leaving.pop(task_id, None)
        self._told.discard(task_id)

    def keep_only(self, is_there: Callable[[str], bool]) -> None:
        """Forget all tasks that do not leave any more."""
        for task_id in [one for one in (*self._leaving, *self._told) if not is_there(one)]:
            self.forget(task_id)


def is_leaving(row: TaskRow) -> bool:
    """Return whether a task runs and is to stop."""
    return row.api.Status.State is TaskState.RUNNING and row.api.DesiredState >= TaskState.SHUTDOWN


def _unknown(leaving: _Leaving, known: Known) -> dict[str, int]:
    """Return the networks in which a node may not know yet, with the version that it lacks."""
    unknown = {}
    for network_id, version in leaving.networks.items():
        oldest = known(network_id)
        if oldest is not None and oldest < version:
            unknown[network_id] = version
    return unknown
