"""Start-first: a task that goes on until another of its slot runs.

Two things ask for it: a drained node, where the service's update order is ``start-first``, and the
rebalancer, which names a better node (``move_to``, scheduler/rebalance.py). The new task says whom
it *relieves*; that is all the progress there is, so any leader goes on from the tables.

Laws:

- The one relieved stays wanted until its relief runs, so no replica is ever missing for it.
- A move that does not work out is given up, and its task stays where it is; it is tried once. A
  drain does not give up (docs/decisions/0012): its task stays on the node until another runs
  elsewhere, or its user says stop-first. What fails is tried again after the restart delay, then
  ever more seldom.
- As many slots are relieved at a time as an update may replace. Those tried least have their turn
  first, so one that fails holds up nobody for long.
- Once it is over, one way or the other, the slot is an ordinary one with a task too many, or with
  one task.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..model.base import MINUTE
from ..model.defaults import DEFAULT_UPDATE
from ..model.dirty import is_dirty
from ..model.pinned import pins_tasks
from ..model.rolling import START_FIRST, why_not_start_first
from ..model.task import MOVE_OFFER_NS, TaskState
from .restart import DEFAULT_DELAY_NS, restart_delay, start_time
from .slots import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from .slots import Fates, Slot

MOVE_TIMEOUT_NS = 5 * MINUTE
"""How long a moved task may take until it runs."""
BACKOFF_MAX_NS = 5 * MINUTE
"""How long the next try of a drain waits at the most, unless the user's own delay is longer."""
_DOUBLINGS_MAX = 16


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
    if has_to_leave and not leaves_start_first(service, old, fates):
        return Judgement(Step.OVER)  # the user has changed his mind
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


class Attempt(NamedTuple):
    """The next relief of a task: how many before it failed, and how long it waits for that."""

    tries: int = 0
    delay_ns: int = 0


def next_attempt(service: ServiceRow, slot: Slot, task: TaskRow) -> Attempt:
    """Return how the next relief of a task is tried; another spec begins anew."""
    for other in reversed(slot.tasks):
        if other.private.relieves == task.api.ID:
            state = other.api.Status.State
            failed = state > TaskState.RUNNING and state is not TaskState.SHUTDOWN
            if not failed or other.private.spec_version != service.private.spec_index:
                return Attempt()
            tries = other.private.tries + 1
            return Attempt(tries, _backed_off(restart_delay(other, Fate.KEPT), tries))
    return Attempt()


def _backed_off(delay_ns: int, tries: int) -> int:
    """Return the restart delay after one failure, then twice as much after each."""
    if tries == 1:
        return delay_ns
    least = max(delay_ns, DEFAULT_DELAY_NS)
    return min(least << min(tries - 1, _DOUBLINGS_MAX), max(delay_ns, BACKOFF_MAX_NS))


def places(service: ServiceRow, slots: Iterable[Slot]) -> int | None:
    """Return how many more slots may be relieved now, None for any number."""
    update = service.api.Spec.UpdateConfig or DEFAULT_UPDATE
    if not update.Parallelism:
        return None
    return max(0, update.Parallelism - sum(pair_of(slot) is not None for slot in slots))


def is_to_move(slot: Slot, task: TaskRow, service: ServiceRow, view: View, now: int) -> bool:
    """Return whether a task that runs is to be moved now, as the rebalancer asked."""
    private = task.private
    if not private.move_to or now >= private.move_at + MOVE_OFFER_NS:
        return False
    if task.api.Status.State is not TaskState.RUNNING:
        return False
    node = view.node(private.move_to)
    if pins_tasks(service.api.Spec):
        return False  # the two cannot both have the slot's address
    if node is None or node.api.Status.State != "ready" or node.api.Spec.Availability != "active":
        return False
    if any(
        other.private.relieves == task.api.ID and other.api.CreatedAt >= private.move_at
        for other in slot.tasks
    ):
        return False  # it was tried
    return not is_dirty(service, task, view.node(task.api.NodeID))
