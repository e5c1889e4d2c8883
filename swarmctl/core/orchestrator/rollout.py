"""Which outdated slots are replaced now: the rolling part of a service update.

A pure function of the tables. Slots are replaced stop-first, ``Parallelism`` at a time (0: all at
once). A slot is at work while its new task has not reached RUNNING, and for ``Delay`` after that.
What an update does beyond this (order, failure action, monitoring, status) belongs into
:func:`decide` too: its caller hands in the slots and acts on the answer, and knows nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.dirty import is_dirty
from ..model.spec import UpdateConfig
from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from .slots import Slot

DEFAULT_CONFIG = UpdateConfig(Parallelism=1)


class Rollout(NamedTuple):
    """The slots whose task is to be replaced now, and when to ask again at the latest."""

    replace: tuple[Slot, ...] = ()
    wake_at: int | None = None


NOTHING_TO_ROLL = Rollout()


def decide(service: ServiceRow, slots: Iterable[Slot], view: View, now: int) -> Rollout:
    """Return what the update does next.

    Args:
        slots: every slot that the service keeps and that has, or last had, a task.
    """
    dirty: list[Slot] = []
    clean: list[Slot] = []
    version = service.private.spec_index
    for slot in slots:
        task = slot.newest
        if task.private.spec_version == version or not _is_dirty(service, task, view):
            clean.append(slot)
        else:
            dirty.append(slot)
    if not dirty:
        return NOTHING_TO_ROLL
    config = service.api.Spec.UpdateConfig or DEFAULT_CONFIG
    if config.Parallelism == 0:
        return Rollout(tuple(dirty))
    busy = 0
    wake_at: int | None = None
    for slot in clean:
        until = _at_work_until(slot.newest, version, config.Delay, now)
        if until is None:
            continue
        busy += 1
        if until:
            wake_at = until if wake_at is None else min(wake_at, until)
    return Rollout(tuple(dirty[: max(0, config.Parallelism - busy)]), wake_at)


def _is_dirty(service: ServiceRow, task: TaskRow, view: View) -> bool:
    node = view.node(task.api.NodeID) if task.api.NodeID else None
    return is_dirty(service, task, node)


def _at_work_until(task: TaskRow, version: int, delay_ns: int, now: int) -> int | None:
    """Return when a slot lets the next one go, 0 for "when it runs", None if it holds up nobody.

    Only tasks that took the place of another count; replicas added by a scale do not.
    """
    if task.private.spec_version != version or not task.private.replaces:
        return None
    if max(task.api.DesiredState, task.api.Status.State) > TaskState.RUNNING:
        return None
    if task.api.Status.State < TaskState.RUNNING:
        return 0
    until = task.private.started_at + delay_ns
    return until if until > now else None
