"""Slots: the numbered places of a replicated service, what stands in them, and new tasks for them.

A slot is read off the tables each time; nothing about it is remembered. Vocabulary:

- *runnable*: desired state RUNNING or below. A slot has at most one such task, save for the short
  overlap of a start-first update.
- *ended*: it will not run (any more): its observed state is past RUNNING, or its node is drained,
  down or gone. UNKNOWN and DISCONNECTED nodes keep their tasks.
- *settled*: no runnable task, and the restart policy wants none. The slot is taken all the same.
- *vacant*: no runnable task, and nothing speaks against a new one.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..model.base import Time
from ..model.change import Create, Free, Index, Kind, Ref, SpecAt
from ..model.objects import TaskRow
from ..model.task import Task, TaskPrivate, TaskState, TaskStatus

if TYPE_CHECKING:
    from ..model.change import Requirement
    from ..model.objects import ServiceRow
    from ..model.task import TaskFailure
    from ..store.view import View


_RUNNING = TaskState.RUNNING.number


class Fate(Enum):
    """What a task's node means for it."""

    KEPT = "kept"  # it may stay; also when it has no node yet
    DRAINED = "drained"  # it has to leave, in good order
    LOST = "lost"  # nobody can say what became of it, and nobody waits for it


class Fates:
    """The fate of each node, looked up once for one decision."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, Fate] = {"": Fate.KEPT}

    def of(self, task: TaskRow) -> Fate:
        """Return what the task's node means for it."""
        node_id = task.api.NodeID
        fate = self._known.get(node_id)
        if fate is None:
            fate = self._known[node_id] = self._judge(node_id)
        return fate

    def _judge(self, node_id: str) -> Fate:
        node = self._view.node(node_id)
        if node is None or node.api.Status.State == "down":
            return Fate.LOST
        return Fate.DRAINED if node.api.Spec.Availability == "drain" else Fate.KEPT

    def ended(self, task: TaskRow) -> bool:
        """Return whether a task will not run (any more)."""
        return task.api.Status.State.number > _RUNNING or self.of(task) is not Fate.KEPT

    def stopped(self, task: TaskRow) -> bool:
        """Return whether nothing of a task that should stop can still be running.

        One that was never assigned has nothing to stop; one on a lost node cannot be asked.
        """
        state = task.api.Status.State
        if state > TaskState.RUNNING or self.of(task) is Fate.LOST:
            return True
        return state < TaskState.ASSIGNED and task.api.DesiredState > TaskState.RUNNING


class Slot(NamedTuple):
    """One place of a service and all its tasks, history included, oldest first.

    ``runnable`` are those that should run.
    """

    number: int
    tasks: list[TaskRow]
    runnable: list[TaskRow]

    @property
    def newest(self) -> TaskRow:
        """The newest task that should run, else the newest of all."""
        return self.runnable[-1] if self.runnable else self.tasks[-1]


def slots_of(view: View, service_id: str) -> list[Slot]:
    """Return a service's slots by number."""
    by_number: dict[int, list[TaskRow]] = {}
    for task in view.tasks_of(service_id):
        by_number.setdefault(task.api.Slot, []).append(task)
    slots: list[Slot] = []
    for number in sorted(by_number):
        tasks = by_number[number]
        if len(tasks) > 1:
            tasks.sort(key=creation_order)
        # Numbers compare faster than states, and a service may have ten thousand slots.
        runnable = [task for task in tasks if task.api.DesiredState.number <= _RUNNING]
        slots.append(Slot(number, tasks, runnable))
    return slots


def creation_order(task: TaskRow) -> tuple[int, str]:
    """Order tasks by when they were made.

    A task's spec never changes, so its ``spec_index`` is the log index it was created at: a clock
    that all managers agree on, unlike CreatedAt.
    """
    return task.private.spec_index, task.api.ID


def new_task(
    service: ServiceRow,
    view: View,
    *,
    task_id: str,
    slot: int,
    now: int,
    desired: TaskState = TaskState.RUNNING,
    replaces: str = "",
    relieves: str = "",
    node_id: str = "",
    start_delay_ns: int = 0,
    failures: tuple[TaskFailure, ...] = (),
) -> Create:
    """Return the creation of a task of the service's present spec.

    Args:
        replaces: the task that has to stop first; it then starts at READY.
        relieves: the task that goes on until this one runs.
        node_id: where it has to run; "" leaves that to the scheduler.
        start_delay_ns: how long it has to wait at READY.
    """
    spec = service.api.Spec
    cluster = view.cluster()
    default_driver = cluster.api.Spec.TaskDefaults.LogDriver if cluster is not None else None
    task = Task(
        ID=task_id,
        Spec=spec.TaskTemplate,
        ServiceID=service.api.ID,
        Slot=slot,
        NodeID=node_id,
        Status=TaskStatus(Timestamp=Time(now), State=TaskState.NEW, Message="created"),
        DesiredState=desired,
    )
    private = TaskPrivate(
        spec_version=service.private.spec_index,
        service_name=spec.Name,
        service_labels=spec.Labels,
        endpoint=spec.EndpointSpec,
        registry_auth=service.private.registry_auth,
        replaces=replaces,
        relieves=relieves,
        start_delay_ns=start_delay_ns,
        failures=failures,
        log_driver=default_driver if spec.TaskTemplate.LogDriver is None else None,
    )
    return Create(row=TaskRow(api=task, private=private))


def slot_requirements(
    service: ServiceRow, slot: int, *, holder: str = ""
) -> tuple[Requirement, ...]:
    """Return what must hold when a task is put into a slot.

    The service still asks for what was decided upon, and nobody but ``holder`` (the task to be
    replaced in the same transaction) is runnable there.
    """
    return (
        SpecAt(ref=Ref(Kind.SERVICE, service.api.ID), index=service.private.spec_index),
        Free(index=Index.SLOT, key=f"{service.api.ID}/{slot}", holder=holder),
    )
