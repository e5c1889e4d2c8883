"""Which outdated slots are replaced now, and how far the update is: rolling updates and rollbacks.

A pure function of the tables. Its caller hands in the slots (places of tasks, numbered or not) and
does what the answer says. Vocabulary:

- *dirty*: what stands in the slot is not what the service now asks for; else *clean*.
- *ready*: the slot has a task that should run and does, healthy if it has a check.
- *held*: a clean slot that is not ready, or became so less than ``Delay`` ago, and holds up others.
- *failure*: a task of this spec that ended by itself before it ran, or within ``Monitor`` after.

Laws:

- An update is written down before it touches a task: status, and a record of how many slots it
  began with. All progress is in the tables, so a new leader goes on, and an update begins anew
  whenever its user gives the service a spec again.
- **Floor.** A ready replica is taken away only while fewer than ``Parallelism`` slots are held.
  Slots that are not ready anyway come first, and one whose task never found a place holds up
  nobody. So stop-first never leaves fewer than replicas - parallelism ready, start-first takes
  none, save for what fails by itself. A failed replacement holds its place until it runs, unless
  the user said ``continue``.
- A slot whose replacement was started beside the old task and has used up its restart policy is
  *given up*: the old one goes on, the update ends without it.
- A failure counts once: for as long as its task should run it is seen here, and who replaces the
  task counts it in the record in the same transaction.
- Paused is paused: nothing is begun until the next ``service update``.

Rules: swarm-behaviour.md section 6.6, docker-api.md section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..errors import SwarmError
from ..model.base import Time
from ..model.crosscheck import (
    check_ingress_network,
    check_ports,
    check_references,
    resolve_networks,
    rests_on,
)
from ..model.dirty import is_dirty
from ..model.revision import given_up
from ..model.rolling import (
    COMPLETED,
    PAUSED,
    ROLLBACK_COMPLETED,
    ROLLBACK_PAUSED,
    ROLLBACK_STARTED,
    START_FIRST,
    UPDATING,
    settings_of,
    why_not_start_first,
)
from ..model.service import RolloutRecord, UpdateStatus
from ..model.task import TaskState
from .restart import EVICTED, gave_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..model.change import Requirement
    from ..model.objects import ServiceRow, TaskRow
    from ..model.spec import UpdateConfig
    from ..store.view import View
    from .slots import Fates, Slot

_FAILED = (TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED)


class Rollout(NamedTuple):
    """What an update does next.

    Attributes:
        replace: the slots whose task is to be replaced now.
        start_first: the new task is to run before a ready one is taken away.
        stop_first: why it is not though that is asked for, else "".
        rolls: false while it is paused: a replacement that failed is not tried again.
        failed: tasks whose failure counts once more when they are dealt with.
        row: the service as it is to be written, alone: the rest follows from what it then says.
        requires: what must hold for that.
        wake_at: when to ask again at the latest.
    """

    replace: tuple[Slot, ...] = ()
    start_first: bool = False
    stop_first: str = ""
    rolls: bool = True
    failed: frozenset[str] = frozenset()
    row: ServiceRow | None = None
    requires: tuple[Requirement, ...] = ()
    wake_at: int | None = None


NOTHING_TO_ROLL = Rollout()
_ON_HOLD = Rollout(rolls=False)


def decide(
    service: ServiceRow, slots: Iterable[Slot], fates: Fates, view: View, now: int
) -> Rollout:
    """Return what the update of a service does next.

    Args:
        slots: every slot that the service keeps and that has, or last had, a task.
    """
    status, record = service.api.UpdateStatus, service.private.rollout
    state = status.State if status is not None else ""
    if state in (PAUSED, ROLLBACK_PAUSED):
        return _ON_HOLD
    dirty, clean, given_up = _sorted(service, slots, view, now)
    under_way = state in (UPDATING, ROLLBACK_STARTED)
    if not under_way and not dirty:
        return NOTHING_TO_ROLL
    version = service.private.spec_index
    if not under_way or record is None or record.spec_version != version:
        over = not dirty
        row = _completed(service, given_up, now) if over else _begun(service, len(dirty), view, now)
        return Rollout(row=row)
    config = settings_of(service.api)
    failed: list[TaskRow] = []
    if config.FailureAction != "continue":
        failed = _failures((*dirty, *clean), config, record)
        last_straw = _one_too_many(failed, config, record)
        if last_straw is not None:
            return _stopped(service, last_straw, config, view, now)
    counted = frozenset(task.api.ID for task in failed)
    if not dirty:
        return _ending(service, clean, given_up, fates, config, now)._replace(failed=counted)
    return _going_on(service, dirty, clean, fates, config, now)._replace(failed=counted)


def is_outdated(service: ServiceRow, task: TaskRow, view: View) -> bool:
    """Return whether a task is not what its service now asks for."""
    if task.private.spec_version == service.private.spec_index:
        return False
    return is_dirty(service, task, view.node(task.api.NodeID) if task.api.NodeID else None)


def is_ready(slot: Slot, fates: Fates) -> bool:
    """Return whether a task of the slot should run and does."""
    return any(
        task.api.Status.State is TaskState.RUNNING and not fates.ended(task)
        for task in slot.runnable
    )


def _sorted(
    service: ServiceRow, slots: Iterable[Slot], view: View, now: int
) -> tuple[list[Slot], list[Slot], int]:
    """Return the dirty slots and the clean ones, and how many the update gave up."""
    dirty: list[Slot] = []
    clean: list[Slot] = []
    given_up = 0
    for slot in slots:
        if not is_outdated(service, slot.current, view):
            clean.append(slot)
        elif _is_given_up(service, slot, now):
            given_up += 1
        else:
            dirty.append(slot)
    return dirty, clean, given_up


def _is_given_up(service: ServiceRow, slot: Slot, now: int) -> bool:
    """Return whether an outdated task goes on because what was started beside it had its turn."""
    newest = slot.newest
    is_over = newest.api.DesiredState > TaskState.RUNNING
    is_ours = newest.private.spec_version == service.private.spec_index
    return bool(slot.runnable) and is_over and is_ours and gave_up(service, newest, now)


# --- beginning, going on, ending -----------------------------------------------------------------


def _begun(service: ServiceRow, count: int, view: View, now: int) -> ServiceRow:
    status = service.api.UpdateStatus
    if status is None or status.State != ROLLBACK_STARTED:
        message = "update in progress"
        reason = why_not_start_first(service.api.Spec, settings_of(service.api))
        if reason:
            message += f", stop-first: {reason}"
        status = UpdateStatus(State=UPDATING, StartedAt=Time(now), Message=message)
    record = RolloutRecord(spec_version=service.private.spec_index, slots=count, since=view.index)
    return replace(
        service,
        api=replace(service.api, UpdateStatus=status),
        private=replace(service.private, rollout=record),
    )


def _completed(service: ServiceRow, given_up: int, now: int) -> ServiceRow:
    status = service.api.UpdateStatus or UpdateStatus()
    back = status.State == ROLLBACK_STARTED
    message = "rollback completed" if back else "update completed"
    if given_up:
        tasks = "task goes on: its replacement" if given_up == 1 else "tasks go on: replacements"
        message += f"; {given_up} former {tasks} failed as often as the restart policy allows"
    done = replace(
        status,
        State=ROLLBACK_COMPLETED if back else COMPLETED,
        Message=message,
        CompletedAt=Time(now),
    )
    return replace(service, api=replace(service.api, UpdateStatus=done))


def _going_on(
    service: ServiceRow,
    dirty: Sequence[Slot],
    clean: Sequence[Slot],
    fates: Fates,
    config: UpdateConfig,
    now: int,
) -> Rollout:
    """Return which slots are next, as many as are not held."""
    held = 0
    wake_at: int | None = None
    for slot in clean:
        until = _held_until(slot, fates, config, now)
        if until is not None:
            held += 1
            if until:
                wake_at = until if wake_at is None else min(wake_at, until)
    ready: list[Slot] = []
    others: list[Slot] = []
    for slot in dirty:
        if is_ready(slot, fates):
            if len(slot.runnable) == 1:  # a second one goes first, see overlap.py
                ready.append(slot)
        elif len(slot.runnable) > 1:
            held += 1
        else:
            others.append(slot)
    free = len(dirty) if config.Parallelism == 0 else max(0, config.Parallelism - held)
    stop_first = why_not_start_first(service.api.Spec, config)
    return Rollout(
        (*others, *ready)[:free],
        start_first=config.Order == START_FIRST and not stop_first,
        stop_first=stop_first,
        wake_at=wake_at,
    )


def _held_until(slot: Slot, fates: Fates, config: UpdateConfig, now: int) -> int | None:
    """Return until when a clean slot holds up others, 0 for "until it is ready", None if not."""
    task = slot.current
    if not slot.runnable:
        return None  # settled: its policy wants no other task
    ended = fates.ended(task)
    if ended or task.api.Status.State < TaskState.RUNNING:
        if config.FailureAction == "continue" and (ended or task.private.failures):
            return None
        assigned = task.api.Status.State >= TaskState.ASSIGNED
        placed = task.private.owed or assigned or len(slot.runnable) > 1
        return 0 if placed else None
    if not task.private.owed:
        return None  # a replica more, by a scale
    until = min(task.private.started_at, now) + config.Delay
    return until if until > now else None


def _ending(
    service: ServiceRow,
    slots: Sequence[Slot],
    given_up: int,
    fates: Fates,
    config: UpdateConfig,
    now: int,
) -> Rollout:
    """Return the end of an update that has replaced every slot, or what it still waits for.

    That is for every replacement to be ready, and to have been so for the monitor period.
    """
    version = service.private.spec_index
    end = now
    for slot in slots:
        task = slot.current
        if len(slot.runnable) > 1:
            return NOTHING_TO_ROLL
        if is_ready(slot, fates):
            if task.private.spec_version == version and config.FailureAction != "continue":
                end = max(end, min(task.private.started_at, now) + config.Monitor)
        elif _held_until(slot, fates, config, now) is not None:
            return NOTHING_TO_ROLL
    if end > now:
        return Rollout(wake_at=end)
    return Rollout(row=_completed(service, given_up, now))


# --- failures ------------------------------------------------------------------------------------


def _failures(slots: Iterable[Slot], config: UpdateConfig, record: RolloutRecord) -> list[TaskRow]:
    """Return the failures that are not in the record yet, oldest first.

    A task that stopped because it was asked to does not count, nor one whose node was lost or no
    longer suits: the spec is not to blame.
    """
    found = [
        task
        for slot in slots
        for task in slot.runnable
        if task.private.spec_version == record.spec_version
        and task.api.Status.State in _FAILED
        and task.api.Status.Err != EVICTED
        and task.api.Version.Index > record.since
        and _is_early(task, config)
    ]
    found.sort(key=lambda task: (task.api.Version.Index, task.api.ID))
    return found


def _is_early(task: TaskRow, config: UpdateConfig) -> bool:
    started = task.private.started_at
    return not started or task.private.applied_at - started <= config.Monitor


def _one_too_many(
    failed: Sequence[TaskRow], config: UpdateConfig, record: RolloutRecord
) -> TaskRow | None:
    """Return the failure that is more than the settings tolerate, None while there is none."""
    for count, task in enumerate(failed, record.failures + 1):
        if count / max(1, record.slots) > config.MaxFailureRatio:
            return task
    return None


def _stopped(
    service: ServiceRow, task: TaskRow, config: UpdateConfig, view: View, now: int
) -> Rollout:
    """Return what becomes of an update that ``task`` was one failure too many for."""
    reason = f"due to failure or early termination of task {task.api.ID}"
    status = service.api.UpdateStatus or UpdateStatus()
    back = status.State == ROLLBACK_STARTED
    message = f"{'rollback' if back else 'update'} paused {reason}"
    previous = service.api.PreviousSpec
    if config.FailureAction == "rollback":
        obstacle = _why_no_way_back(service, view)
        if previous is not None and not obstacle:
            row = given_up(service, now, f"update rolled back {reason}")
            requires = rests_on(previous, view.networks(), own_id=service.api.ID)
            return Rollout(row=row, requires=requires)
        message += f"; it cannot be rolled back: {obstacle}"
    status = replace(status, State=ROLLBACK_PAUSED if back else PAUSED, Message=message)
    row = replace(service, api=replace(service.api, UpdateStatus=status))
    return Rollout(row=row, rolls=False)


def _why_no_way_back(service: ServiceRow, view: View) -> str:
    """Return why the previous spec cannot be had again, "" if it can."""
    previous = service.api.PreviousSpec
    if previous is None:
        return "the service does not have a previous spec"
    networks = list(view.networks())
    try:
        check_ingress_network(previous, networks)
        resolve_networks(previous, networks)
        check_references(previous, view)
        check_ports(previous, view.services(), own_id=service.api.ID)
    except SwarmError as error:
        return str(error)
    return ""
