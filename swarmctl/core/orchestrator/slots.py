"""Slots: the places of a service, what stands in them, and new tasks for them.

A replicated service has numbered slots, from 1 (a job from 0); one that runs on every node has the
nodes for slots. A slot is read off the tables each time; nothing about it is remembered.
Vocabulary:

- *run*: one execution of a job, by the number that every update raises (``JobIteration``).
- *runnable*: it shall reach the *goal*, RUNNING or for jobs COMPLETE, and it is a task of the
  present run that is not complete. A slot has at most one such task, save for the short overlap of
  a start-first update.
- *done*: a task of the present run is complete there. Only jobs get anything done.
- *ended*: it will not run (any more): its observed state is past RUNNING, or its node is drained,
  down or gone. UNKNOWN and DISCONNECTED nodes keep their tasks.
- *settled*: no runnable task, and the restart policy wants none. The slot is taken all the same.
- *vacant*: no runnable task, and nothing speaks against a new one.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ..model.base import Time, Version
from ..model.change import Advance, Create, Free, Index, Kind, Ref, SpecAt, Transaction
from ..model.objects import TaskRow
from ..model.task import Task, TaskPrivate, TaskState, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.change import Requirement
    from ..model.objects import ServiceRow
    from ..model.task import TaskFailure
    from ..store.view import View

WISHES_MAX = 200
"""Wishes in one transaction: a slot may have any number of tasks in its history."""

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
        return state < TaskState.ASSIGNED and task.api.DesiredState > TaskState.COMPLETE


class Slot(NamedTuple):
    """One place of a service and all its tasks, history included, oldest first.

    Attributes:
        number: 0 for the place on a node.
        runnable: the tasks that should reach the goal of the service.
        node_id: of a place on a node, else "".
        done: a task of the present run is complete here.
    """

    number: int
    tasks: list[TaskRow]
    runnable: list[TaskRow]
    node_id: str = ""
    done: bool = False

    @property
    def newest(self) -> TaskRow:
        return self.tasks[-1]

    @property
    def current(self) -> TaskRow:
        """The newest task that should run, else the newest of all."""
        return self.runnable[-1] if self.runnable else self.tasks[-1]

    @property
    def place(self) -> str:
        """The slot as indexes and counters name it."""
        return self.node_id or str(self.number)


def slots_of(view: View, service: ServiceRow) -> list[Slot]:
    """Return a service's slots by number, or by node id."""
    by_place: dict[tuple[int, str], list[TaskRow]] = {}
    for task in view.tasks_of(service.api.ID):
        node_id = task.api.NodeID if task.private.by_node else ""
        by_place.setdefault((task.api.Slot, node_id), []).append(task)
    run = run_of(service)
    slots: list[Slot] = []
    for place in sorted(by_place):
        tasks = by_place[place]
        if len(tasks) > 1:
            tasks.sort(key=creation_order)
        number, node_id = place
        if run is not None:
            slots.append(_job_slot(number, tasks, node_id, run))
            continue
        # Numbers compare faster than states, and a service may have ten thousand slots.
        runnable = [task for task in tasks if task.api.DesiredState.number <= _RUNNING]
        slots.append(Slot(number, tasks, runnable, node_id))
    return slots


def _job_slot(number: int, tasks: list[TaskRow], node_id: str, run: int) -> Slot:
    of_run = [task for task in tasks if is_of_run(task, run)]
    runnable = [
        task
        for task in of_run
        if task.api.DesiredState <= TaskState.COMPLETE
        and task.api.Status.State is not TaskState.COMPLETE
    ]
    done = any(task.api.Status.State is TaskState.COMPLETE for task in of_run)
    return Slot(number, tasks, runnable, node_id, done)


def run_of(service: ServiceRow) -> int | None:
    """Return the number of a job's present run; None for what is no job."""
    mode = service.api.Spec.Mode
    if mode.ReplicatedJob is None and mode.GlobalJob is None:
        return None
    status = service.api.JobStatus
    return 0 if status is None else status.JobIteration.Index


def is_of_run(task: TaskRow, run: int) -> bool:
    """Return whether a task belongs to that run of its job."""
    return task.api.JobIteration is not None and task.api.JobIteration.Index == run


def goal_of(service: ServiceRow) -> TaskState:
    """Return what is wished of the tasks of a service: to run, or of a job to complete."""
    return TaskState.RUNNING if run_of(service) is None else TaskState.COMPLETE


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
    node_id: str = "",
    waits: bool = False,
    replaces: str = "",
    owed: bool = False,
    relieves: str = "",
    tries: int = 0,
    stop_first: str = "",
    start_delay_ns: int = 0,
    failures: tuple[TaskFailure, ...] = (),
) -> Create:
    """Return the creation of a task of the service's present spec and run.

    Args:
        node_id: the node whose place it takes or where it has to run, "" for a numbered slot that
            the scheduler finds one for.
        waits: it is to be prepared and not yet started.
        replaces: the task that has to stop first; it then waits.
        owed: it stands in for a replica that is replaced, or failed.
        relieves: the task that goes on until this one runs.
        tries: how many before it failed at that.
        stop_first: why the one before had to stop first although start-first was asked for.
        start_delay_ns: how long it has to wait.
    """
    spec = service.api.Spec
    run = run_of(service)
    cluster = view.cluster()
    default_driver = cluster.api.Spec.TaskDefaults.LogDriver if cluster is not None else None
    task = Task(
        ID=task_id,
        Spec=spec.TaskTemplate,
        ServiceID=service.api.ID,
        Slot=slot,
        NodeID=node_id,
        Status=TaskStatus(Timestamp=Time(now), State=TaskState.NEW, Message="created"),
        DesiredState=TaskState.READY if waits else goal_of(service),
        JobIteration=None if run is None else Version(Index=run),
    )
    private = TaskPrivate(
        spec_version=service.private.spec_index,
        service_name=spec.Name,
        service_labels=spec.Labels,
        endpoint=spec.EndpointSpec,
        registry_auth=service.private.registry_auth,
        by_node=bool(node_id) and not slot,
        replaces=replaces,
        owed=owed,
        relieves=relieves,
        tries=tries,
        stop_first=stop_first,
        start_delay_ns=start_delay_ns,
        failures=failures,
        log_driver=default_driver if spec.TaskTemplate.LogDriver is None else None,
    )
    return Create(row=TaskRow(api=task, private=private))


def slot_requirements(
    service: ServiceRow, place: str, *, holder: str = ""
) -> tuple[Requirement, ...]:
    """Return what must hold when a task is put into a slot.

    The service still asks for what was decided upon, and nobody but ``holder`` (the task to be
    replaced in the same transaction) is runnable there, or complete.
    """
    run = run_of(service)
    key = f"{service.api.ID}/{place}" if run is None else f"{service.api.ID}/{place}/{run}"
    return (spec_unchanged(service), Free(index=Index.SLOT, key=key, holder=holder))


def spec_unchanged(service: ServiceRow) -> SpecAt:
    """Return the requirement that the service still asks for what was decided upon."""
    return SpecAt(ref=Ref(Kind.SERVICE, service.api.ID), index=service.private.spec_index)


def wishes(
    tasks: Iterable[TaskRow], desired: TaskState, requires: tuple[Requirement, ...] = ()
) -> Iterator[Transaction]:
    """Yield what wishes more of tasks, none of it too large for an entry of the log."""
    changes = [
        Advance(task_id=task.api.ID, desired=desired)
        for task in tasks
        if task.api.DesiredState < desired
    ]
    for start in range(0, len(changes), WISHES_MAX):
        batch = tuple(changes[start : start + WISHES_MAX])
        yield Transaction(changes=batch, requires=requires)
