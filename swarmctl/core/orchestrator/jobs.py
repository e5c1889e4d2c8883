"""Jobs: so many tasks that shall complete, so many of them at a time.

Every update of a job starts a new *run* (``JobIteration``). The slots of a run are 0 to
``TotalCompletions`` - 1, and the lowest free ones are taken as long as fewer than
``MaxConcurrent`` are at work. What a slot has come to is read off its tasks of the present run:

- done: one is complete. Whatever else runs there (a successor of a task that was taken for lost)
  is stopped; the complete task stays while the run does, since it is the progress.
- at work: one shall complete. It is restarted as its policy says, and ``any`` means ``on-failure``.
- settled: its last one failed and the policy wants no other. The run ends short of its number.
- free: nothing of these; also when a task was stopped before it had its turn.

A new run removes the tasks of earlier ones, and starts no task beside those that still have to
stop: ``MaxConcurrent`` holds across runs. (swarm-behaviour.md section 6.4. There the old ones are
not waited for, and a slot whose policy gave up is filled again by accident.)
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from ..model.base import SECOND
from ..model.task import TaskState
from .restart import STOP_TIMEOUT_NS, gave_up
from .slots import Slot, is_of_run, run_of, slots_of
from .tend import Tending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Decision
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View

RECOUNT_NS = SECOND
"""How soon to count again while earlier tasks stop: one may be deleted before we saw it stop."""


def decide(view: View, service: ServiceRow, now: int, new_id: NewId) -> Decision:
    """Return what one replicated job needs."""
    tending = Tending(view, service, now, new_id)
    slots = {slot.number: slot for slot in slots_of(view, service)}
    stopping = _still_stopping(tending, end_earlier_runs(tending, slots.values()))
    at_work: list[Slot] = []
    taken: set[int] = set()
    for slot in slots.values():
        if slot.done:
            tending.stop(slot)
        elif slot.runnable:
            at_work.append(slot)
        elif not has_had_its_turn(service, slot, now):
            continue
        taken.add(slot.number)
    tending.tend(at_work)
    total, most = _numbers(service)
    room = most - len(at_work) - stopping
    free = (number for number in range(total) if number not in taken)
    for number in islice(free, max(0, room)):
        if not tending.fill(slots.get(number) or Slot(number, [], [])):
            break
    return tending.decision()


def has_had_its_turn(service: ServiceRow, slot: Slot, now: int) -> bool:
    """Return whether a slot without a runnable task is settled, of a job: in the present run.

    What is to be removed, as all of a service that was stopped, settles nothing.
    """
    if not slot.tasks or slot.newest.api.DesiredState is TaskState.REMOVE:
        return False
    run = run_of(service)
    is_present = run is None or is_of_run(slot.newest, run)
    return is_present and gave_up(service, slot.newest, now)


def end_earlier_runs(tending: Tending, slots: Iterable[Slot]) -> list[TaskRow]:
    """Have the tasks of earlier runs removed; return those that had not ended.

    What had ended is history, and of what failed nothing more is wished.
    """
    run = run_of(tending.service)
    assert run is not None
    earlier = [task for slot in slots for task in slot.tasks if not is_of_run(task, run)]
    left = [task for task in earlier if task.api.Status.State <= TaskState.RUNNING]
    tending.wish(left, TaskState.REMOVE)
    failed = (task for task in earlier if task.api.Status.State > TaskState.COMPLETE)
    tending.wish(failed, TaskState.SHUTDOWN)
    return left


def _still_stopping(tending: Tending, left: list[TaskRow]) -> int:
    """Return how many tasks of earlier runs the present one has to reckon with.

    It waits no longer for one than successors wait for their predecessors.
    """
    count = sum(1 for task in left if _holds_up(tending, task))
    if count:
        tending.look_again(tending.now + RECOUNT_NS)
    return count


def _holds_up(tending: Tending, task: TaskRow) -> bool:
    if tending.fates.stopped(task):
        return False
    if task.api.DesiredState < TaskState.REMOVE:
        return True  # it is asked to stop only now
    asked = task.api.UpdatedAt
    return asked <= tending.now < asked + STOP_TIMEOUT_NS  # else another leader's clock was ahead


def _numbers(service: ServiceRow) -> tuple[int, int]:
    """Return how many tasks shall complete, and how many at a time."""
    job = service.api.Spec.Mode.ReplicatedJob
    assert job is not None
    most = 1 if job.MaxConcurrent is None else job.MaxConcurrent
    return most if job.TotalCompletions is None else job.TotalCompletions, most
