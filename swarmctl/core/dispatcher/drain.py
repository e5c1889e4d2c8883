"""Tasks that shall stop: first nobody sends them anything new, then their node is told.

Pure. A task that runs and is to stop is *leaving*: in the tables it is not ready any more. Its node
is told to stop it once every node that could send to it says that its kernel knows, or after
:data:`DRAIN_S`. That holds whatever the reason for stopping is, since it is decided where the order
goes out.

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
"""How long a task that shall stop goes on at most, for nodes that do not say that they know."""


class _Leaving(NamedTuple):
    """A task whose node was not told yet.

    Attributes:
        networks: where it was, and the version of the tables that tell that it leaves.
        until: when it is not waited any longer.
    """

    node_id: str
    networks: Mapping[str, int]
    until: float


class Drains:
    """The tasks that leave."""

    def __init__(self) -> None:
        self._leaving: dict[str, _Leaving] = {}
        self._told: set[str] = set()

    @property
    def next_deadline(self) -> float:
        """When somebody is not waited for any longer."""
        return min((one.until for one in self._leaving.values()), default=float("inf"))

    def holds(
        self,
        row: TaskRow,
        networks: Mapping[str, int],
        known: Callable[[str], int | None],
        now: float,
    ) -> bool:
        """Return whether a task's order to stop has to wait.

        Args:
            networks: where it is a member, and the version of the tables in which that changed
                last.
            known: returns the version that all nodes of a network know; None: nobody counts.
        """
        task_id = row.api.ID
        if not is_leaving(row) or task_id in self._told:
            return False
        if task_id not in self._leaving:
            leaving = _Leaving(row.api.NodeID, networks, now + DRAIN_S)
            if _is_over(leaving, known, now):
                self._told.add(task_id)
                return False
            self._leaving[task_id] = leaving
        return True

    def settle(self, known: Callable[[str], int | None], now: float) -> set[str]:
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


def _is_over(leaving: _Leaving, known: Callable[[str], int | None], now: float) -> bool:
    if now >= leaving.until:
        return True
    for network_id, version in leaving.networks.items():
        so_far = known(network_id)
        if so_far is not None and so_far < version:
            return False
    return True
