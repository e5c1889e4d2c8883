"""Start order: what the label ``swarmctl.depends-on`` asks for, and whether it is so yet.

``db:healthy,migrate:completed`` on a service holds back its *new* tasks until each service named is
that far. Laws:

- One task is enough for ``running`` and ``healthy``: whoever asks is answered by any of them, and
  waiting for all would make one lost node the outage of everything behind it. A task with a health
  check is RUNNING only once it is healthy, so both look for RUNNING; ``healthy`` says that a check
  is meant to stand behind it, and is refused where the service switched its check off.
- ``completed`` wants all of it: every completion of a job's present run, or every replica of a
  replicated service that does not restart what ended well.
- A service that was removed later is not waited for: it can never be that far, and what has to be
  replaced must not suffer for it.
- No service waits for itself, over however many others: refused when it is written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import InvalidArgument
from .change import Kind
from .labels import DEPENDS_ON
from .objects import Row, ServiceRow
from .scaling import replicas_of
from .task import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .objects import TaskRow
    from .spec import ServiceSpec

RUNNING, HEALTHY, COMPLETED = "running", "healthy", "completed"


class Dependency(NamedTuple):
    """One service that is waited for, by name, and how far it has to be."""

    name: str
    condition: str

    @property
    def key(self) -> str:
        """The name as the tables compare it."""
        return self.name.lower()


class Tables(Protocol):
    """What is asked of the cluster's state; ``store.view.View`` answers it."""

    def by_name(self, kind: Kind, name: str, /) -> Row | None: ...
    def tasks_of(self, service_id: str, /) -> list[TaskRow]: ...


def dependencies(labels: Mapping[str, str]) -> tuple[Dependency, ...]:
    """Return what a service waits for, from its labels."""
    text = labels.get(DEPENDS_ON)
    return _parse(text) if text else ()


@lru_cache(maxsize=1024)  # asked for every task that waits
def _parse(text: str) -> tuple[Dependency, ...]:
    """Return the label's parts; its grammar was checked when it was written (labels.py)."""
    parts = (part.partition(":") for part in text.split(","))
    return tuple(Dependency(name, condition) for name, _, condition in parts)


# --- is it so yet --------------------------------------------------------------------------------


def unmet(spec: ServiceSpec, tables: Tables) -> str:
    """Return what new tasks of a service still wait for, as a sentence, or "" for nothing."""
    reasons = [_lacks(one, tables) for one in dependencies(spec.Labels)]
    waits = [reason for reason in reasons if reason]
    return f"waits for {' and '.join(waits)}" if waits else ""


def _lacks(dependency: Dependency, tables: Tables) -> str:
    """Return how a service is not that far, in words that hold still while it gets there."""
    row = _find(dependency, tables)
    if row is None:
        return ""
    if dependency.condition == COMPLETED:
        return "" if _is_completed(row, tables) else f"{dependency.name} to be completed"
    if any(_serves(row, task) for task in tables.tasks_of(row.api.ID)):
        return ""
    stopped = ", which is stopped" if row.api.Stopped is not None else ""
    return f"{dependency.name} to be {dependency.condition}{stopped}"


def _find(dependency: Dependency, tables: Tables) -> ServiceRow | None:
    row = tables.by_name(Kind.SERVICE, dependency.name)
    return row if isinstance(row, ServiceRow) else None


def _serves(service: ServiceRow, task: TaskRow) -> bool:
    """Return whether a task runs and should; of a job, also whether it ran to its end."""
    state, wanted = task.api.Status.State, task.api.DesiredState
    if _is_job(service.api.Spec):
        return _of_present_run(service, task) and state in (TaskState.RUNNING, TaskState.COMPLETE)
    return state is TaskState.RUNNING and wanted <= TaskState.RUNNING


def _is_completed(service: ServiceRow, tables: Tables) -> bool:
    mode = service.api.Spec.Mode
    tasks = tables.tasks_of(service.api.ID)
    done = [task for task in tasks if task.api.Status.State is TaskState.COMPLETE]
    if mode.Replicated is not None:
        version = service.private.spec_index
        slots = {task.api.Slot for task in done if task.private.spec_version == version}
        return len(slots) >= replicas_of(service)
    done = [task for task in done if _of_present_run(service, task)]
    if mode.ReplicatedJob is not None:
        total = mode.ReplicatedJob.TotalCompletions
        return len({task.api.Slot for task in done}) >= (1 if total is None else total)
    wanted = [
        task
        for task in tasks
        if _of_present_run(service, task) and task.api.DesiredState <= TaskState.COMPLETE
    ]
    return bool(done) and all(task.api.Status.State is TaskState.COMPLETE for task in wanted)


def _of_present_run(service: ServiceRow, task: TaskRow) -> bool:
    status, run = service.api.JobStatus, task.api.JobIteration
    present = status.JobIteration.Index if status is not None else 0
    return (run.Index if run is not None else 0) == present


def _is_job(spec: ServiceSpec) -> bool:
    return spec.Mode.ReplicatedJob is not None or spec.Mode.GlobalJob is not None


# --- may it be so --------------------------------------------------------------------------------


def check_start_order(
    spec: ServiceSpec, tables: Tables, *, before: ServiceSpec | None = None
) -> tuple[ServiceRow, ...]:
    """Check what a service asks to wait for; return the services this rests on.

    Whoever writes the spec requires that their specs stand still until then: so two writes that
    close a cycle between them cannot both take effect.

    Args:
        before: the spec that is replaced; what it named already may have gone since.

    Raises:
        InvalidArgument: a service that is not there or can never be that far, or a cycle, spelled
            out.
    """
    wanted = dependencies(spec.Labels)
    if not wanted:
        return ()
    known = dependencies(before.Labels) if before is not None else ()
    for one in wanted:
        if one in known or one.key == spec.Name.lower():
            continue  # the latter is the shortest cycle, and told below
        row = _find(one, tables)
        if row is None:
            raise InvalidArgument(
                f"label {DEPENDS_ON!r}: there is no service {one.name!r} to wait for; "
                "create it first"
            )
        _check_reachable(one, row.api.Spec)
    return _closure(spec, tables)


def _check_reachable(dependency: Dependency, spec: ServiceSpec) -> None:
    """Check that a service can ever be as far as somebody waits for."""
    name = dependency.name
    if dependency.condition == COMPLETED:
        restart = spec.TaskTemplate.RestartPolicy
        restarts = restart is None or restart.Condition in ("", "any")
        endless = spec.Mode.Global is not None or (spec.Mode.Replicated is not None and restarts)
        if endless:
            raise InvalidArgument(
                f"label {DEPENDS_ON!r}: service {name!r} is never completed: its tasks are "
                f"started again when they end; make it a job, or wait for {name}:{RUNNING}"
            )
    container = spec.TaskTemplate.ContainerSpec
    check = container.Healthcheck if container is not None else None
    if dependency.condition == HEALTHY and check is not None and check.Test[:1] == ("NONE",):
        raise InvalidArgument(
            f"label {DEPENDS_ON!r}: service {name!r} is never known to be healthy: its health "
            f"check is switched off; wait for {name}:{RUNNING}"
        )


def _closure(spec: ServiceSpec, tables: Tables) -> tuple[ServiceRow, ...]:
    """Return every service that is waited for, at whatever distance.

    Raises:
        InvalidArgument: the service itself is among them.
    """
    own = spec.Name.lower()
    found: dict[str, ServiceRow] = {}
    trail: list[tuple[str, Iterator[Dependency]]] = [(spec.Name, iter(dependencies(spec.Labels)))]
    while trail:
        step = next(trail[-1][1], None)
        if step is None:
            trail.pop()
            continue
        if step.key == own:
            path = " -> ".join((*(name for name, _ in trail), spec.Name))
            raise InvalidArgument(
                f"label {DEPENDS_ON!r}: services would wait for each other: {path}"
            )
        row = _find(step, tables)
        if row is not None and step.key not in found:
            found[step.key] = row
            trail.append((row.api.Spec.Name, iter(dependencies(row.api.Spec.Labels))))
    return tuple(found.values())
