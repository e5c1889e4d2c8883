"""Start-first: a task that goes on until another of its slot runs.

Two things ask for it: a drained node, where the service's update order is ``start-first``, and the
rebalancer, which names a better node (``move_to``, scheduler/rebalance.py). The new task says whom
it *relieves*; that is all the progress there is, so any leader goes on from the tables.

Laws:

- The one relieved stays wanted until its relief runs, so no replica is ever missing for it.
- A move that does not work out is given up, and its task stays where it is; it is tried once. A
  drain does not give up: its task stays on the node until there is a place for it elsewhere.
- Once it is over, one way or the other, the slot is an ordinary one with a task too many, or with
  one task.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..model.base import MINUTE
from ..model.dirty import is_dirty
from ..model.rolling import START_FIRST, why_not_start_first
from ..model.task import MOVE_OFFER_NS, TaskState
from .restart import restart_delay, start_time
from .slots import Fate

if TYPE_CHECKING:
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from .slots import Fates, Slot

MOVE_TIMEOUT_NS = 5 * MINUTE
"""How long a moved task may take until it runs."""


class Pair(NamedTuple):
    """A slot's two runnable tasks while one relieves the other."""

    old: TaskRow
    new: TaskRow


class Step(Enum):
    """What becomes of a pair."""

    GO_ON = "go on"
    DROP = "drop"  # the new one will not do; the old one stays, and may get another
    OVER = "over"  # one of them is too many, and which one can be seen


class Judgement(NamedTuple):
    """What becomes of a pair, and when to look again though nothing changes."""

    step: Step
    wake_at: int | None = None


def pair_of(slot: Slot) -> Pair | None:
    """Return a slot's pair, or None where nobody relieves anybody."""
    if len(slot.runnable) != 2:
        return None
    old, new = slot.runnable
    return Pair(old, new) if new.private.relieves == old.api.ID else None


def judge(pair: Pair, service: ServiceRow, view: View, fates: Fates, now: int) -> Judgement:
    """Return what becomes of a pair."""
    old, new = pair
    if new.api.Status.State is TaskState.RUNNING and not fates.ended(new):
        return Judgement(Step.OVER)
    if old.api.Status.State is not TaskState.RUNNING or fates.of(old) is Fate.LOST:
        return Judgement(Step.OVER)
    has_to_leave = fates.of(old) is Fate.DRAINED
    if fates.ended(new):
        if not has_to_leave:
            return Judgement(Step.OVER)
        if new.api.DesiredState is TaskState.READY and start_time(new) > now:
            return Judgement(Step.GO_ON, start_time(new))  # its delay holds for the next one, too
        return Judgement(Step.DROP)
    if is_dirty(service, new, view.node(new.api.NodeID) if new.api.NodeID else None):
        return Judgement(Step.DROP)
    if has_to_leave:
        return Judgement(Step.GO_ON)
    give_up_at = new.api.CreatedAt + MOVE_TIMEOUT_NS
    refused = new.api.Status.State is TaskState.PENDING and new.api.Status.Err
    if refused or now >= give_up_at:
        return Judgement(Step.DROP)
    return Judgement(Step.GO_ON, give_up_at)


def leaves_start_first(service: ServiceRow, task: TaskRow, fates: Fates) -> bool:
    """Return whether a task that runs on a drained node stays there until its relief runs."""
    update = service.api.Spec.UpdateConfig
    return (
        update is not None
        and update.Order == START_FIRST
        and not why_not_start_first(service.api.Spec, update)
        and _runs_where_it_cannot_stay(task, fates)
    )


def why_it_leaves_first(service: ServiceRow, task: TaskRow, fates: Fates) -> str:
    """Return why a task leaves a drained node before its relief runs, "" unless asked to stay."""
    if not _runs_where_it_cannot_stay(task, fates):
        return ""
    return why_not_start_first(service.api.Spec, service.api.Spec.UpdateConfig)


def _runs_where_it_cannot_stay(task: TaskRow, fates: Fates) -> bool:
    return task.api.Status.State is TaskState.RUNNING and fates.of(task) is Fate.DRAINED


def delay_of_next(slot: Slot, task: TaskRow) -> int:
    """Return how long the next relief of a task waits: as after a failure, if there was one."""
    for other in reversed(slot.tasks):
        if other.private.relieves == task.api.ID:
            state = other.api.Status.State
            failed = state > TaskState.RUNNING and state is not TaskState.SHUTDOWN
            return restart_delay(other, Fate.KEPT) if failed else 0
    return 0


def is_to_move(slot: Slot, task: TaskRow, service: ServiceRow, view: View, now: int) -> bool:
    """Return whether a task that runs is to be moved now, as the rebalancer asked."""
    private = task.private
    if not private.move_to or now >= private.move_at + MOVE_OFFER_NS:
        return False
    if task.api.Status.State is not TaskState.RUNNING:
        return False
    node = view.node(private.move_to)
    if node is None or node.api.Status.State != "ready" or node.api.Spec.Availability != "active":
        return False
    if any(
        other.private.relieves == task.api.ID and other.api.CreatedAt >= private.move_at
        for other in slot.tasks
    ):
        return False  # it was tried
    return not is_dirty(service, task, view.node(task.api.NodeID))
