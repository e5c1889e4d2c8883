"""Slots with more than one task that should run: who stays when a start-first update overlaps.

A task that runs stays until one of the present spec runs beside it, whatever else happens in
between: a second update, a rollback, a failure, another leader. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.task import TaskState
from .rollout import is_outdated
from .slots import creation_order

if TYPE_CHECKING:
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from .slots import Fates, Slot


class Overlap(NamedTuple):
    """What becomes of a slot's runnable tasks.

    Attributes:
        stays: the one that runs, or should.
        coming: the one that is to take its place once it runs; it may have failed.
        leaving: the others, to be shut down.
    """

    stays: TaskRow
    coming: TaskRow | None
    leaving: tuple[TaskRow, ...]


def judge(service: ServiceRow, slot: Slot, fates: Fates, view: View) -> Overlap:
    """Return who stays in a slot that has a runnable task or several."""
    wanted = [task for task in slot.runnable if not is_outdated(service, task, view)]
    alive = [task for task in slot.runnable if not fates.ended(task)]
    running = [task for task in alive if task.api.Status.State is TaskState.RUNNING]
    arrived = [task for task in running if any(task is one for one in wanted)]
    coming = None
    if arrived:
        stays = arrived[-1]
    elif running:
        stays = running[-1]
        later = [task for task in wanted if creation_order(task) > creation_order(stays)]
        coming = later[-1] if later else None
    else:
        stays = (alive or slot.runnable)[-1]
    leaving = tuple(task for task in slot.runnable if task is not stays and task is not coming)
    return Overlap(stays, coming, leaving)
