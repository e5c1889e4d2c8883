"""Tasks that shall stop: first nobody sends them anything new, then their node is told.

Pure. A task that runs and is to stop is *leaving*: in the tables it is not ready any more. Its node
is told to stop it once every node that could send to it says that its kernel knows, or after
:data:`DRAIN_S`; for a node that is out of touch and not down yet, after :data:`ABSENT_S`. That
holds whatever the reason for stopping is, since it is decided where the order goes out.

Laws:

- Nothing is written down: a new leader begins the wait anew, for a task that the one before it may
  have told already, and nodes take nothing back. So an order is delayed at most, and never lost.
- Who is down, or has nothing that carries traffic, is not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..model.objects import TaskRow

DRAIN_S = 2.0
"""How long a task that shall stop goes on at most for nodes that do not say that they know."""
ABSENT_S = 10.0
"""The same for nodes out of touch: a daemon that restarts leaves its kernel sending as before."""


class Known(NamedTuple):
    """The oldest version of the tables that nodes of a network know; None where there are none.

    Attributes:
        present: of nodes in session.
        absent: of nodes that are out of touch and not down.
    """

    present: int | None = None
    absent: int | None = None


class _Leaving(NamedTuple):
    """A task whose node was not told yet.

    Attributes:
        networks: where it was, and the version of the tables that tell that it leaves.
        since: when it was seen first that it shall stop.
    """

    node_id: str
    networks: Mapping[str, int]
    since: float


class Drains:
    """The tasks that leave."""

    def __init__(self) -> None:
        self._leaving: dict[str, _Leaving] = {}
        self._told: set[str] = set()

    def next_deadline(self, now: float) -> float:
        """Return when somebody is not waited for any longer."""
        ends = (one.since + wait for one in self._leaving.values() for wait in (DRAIN_S, ABSENT_S))
        return min((end for end in ends if end > now), default=float("inf"))

    def holds(
        self,
        row: TaskRow,
        networks: Mapping[str, int],
        known: Callable[[str], Known],
        now: float,
    ) -> bool:
        """Return whether a task's order to stop has to wait.

        Args:
            networks: where it is a member, and the version of the tables in which that changed
                last.
            known: returns what the nodes of a network know.
        """
        task_id = row.api.ID
        if not is_leaving(row) or task_id in self._told:
            return False
        if task_id not in self._leaving:
            leaving = _Leaving(row.api.NodeID, networks, now)
            if _is_over(leaving, known, now):
                self._told.add(task_id)
                return False
            self._leaving[task_id] = leaving
        return True

    def settle(self, known: Callable[[str], Known], now: float) -> set[str]:
        """Let go what need not wait any longer; return the nodes that are to be told."""
        over = {
            task_id: one.node_id
            for task_id, one in self._leaving.items()
            if _is_over(one, known, now)
        }
        for task_id in over:
            del self._leaving[task_id]
        self._told.update(over)
        return set(over.values())

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


def _is_over(leaving: _Leaving, known: Callable[[str], Known], now: float) -> bool:
    for network_id, version in leaving.networks.items():
        present, absent = known(network_id)
        if present is not None and present < version and now < leaving.since + DRAIN_S:
            return False
        if absent is not None and absent < version and now < leaving.since + ABSENT_S:
            return False
    return True
