"""How far a service is, decided from what the daemon lists: lines to show, and whether it is there.

After the docker CLI's rules (docker-api.md section 5): of a slot's tasks the one that is wanted
most counts, tasks on nodes that are down do not, and a task that has an error shows it instead of
its state. Pure: it asks nobody and knows no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from swarmctl.core.errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..api import Json

STATES = (
    *("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting"),
    *("running", "complete", "shutdown", "failed", "rejected"),
)
NUMBERS = {state: number for number, state in enumerate(STATES, 1)}
RUNNING = NUMBERS["running"]
MAX_BARS = 20
_ERROR_WIDTH = 75
_OVERALL = "overall progress"


class Line(NamedTuple):
    """One line of progress.

    Attributes:
        key: what it is about; a later line of the same key replaces it.
        step: how far along, of ``RUNNING`` steps; 0 for a line without a bar.
    """

    key: str
    text: str
    step: int = 0


class Look(NamedTuple):
    """What one look at a service shows."""

    lines: tuple[Line, ...]
    converged: bool


class Progress(Protocol):
    """Looks at a service again and again."""

    def look(
        self, service: Json, tasks: Sequence[Json], active_nodes: frozenset[str], *, back: bool
    ) -> Look:
        """Return where the service is now.

        Args:
            tasks: those that match the service's present spec.
            active_nodes: ids of the nodes that are not down.
            back: an update is being rolled back.
        """


def progress_of(service: Json) -> Progress:
    """Return what watches a service of this mode.

    Raises:
        SwarmError: the mode is none that is known here.
    """
    mode = service["Spec"]["Mode"]
    if (mode.get("Replicated") or {}).get("Replicas") is not None:
        return _Replicated()
    if mode.get("Global") is not None:
        return _Global()
    if mode.get("ReplicatedJob") is not None:
        return _Job()
    if mode.get("GlobalJob") is not None:
        return _Job()
    raise SwarmError("unrecognized service mode")


def is_over(state: str) -> bool:
    """Has a task of that state ended, or is it to end?"""
    return NUMBERS[state] > RUNNING


def runs(task: Json) -> bool:
    """Does the task run, and shall it?"""
    return not is_over(task["DesiredState"]) and bool(task["Status"]["State"] == "running")


def wanted_most(tasks: Iterable[Json], place: Callable[[Json], object]) -> dict[object, Json]:
    """Return for each place the task with the lowest desired, then the lowest observed state."""
    found: dict[object, Json] = {}
    for task in tasks:
        if task["DesiredState"] not in NUMBERS or task["Status"]["State"] not in NUMBERS:
            continue
        rival = found.get(place(task))
        if rival is None or _rank(task) < _rank(rival):
            found[place(task)] = task
    return found


def _rank(task: Json) -> tuple[int, int]:
    return NUMBERS[task["DesiredState"]], NUMBERS[task["Status"]["State"]]


class _Replicated:
    def __init__(self) -> None:
        self._places: dict[object, int] = {}  # slot -> line, in the order first seen

    def look(
        self, service: Json, tasks: Sequence[Json], active_nodes: frozenset[str], *, back: bool
    ) -> Look:
        replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"]
        here = [task for task in tasks if not task.get("NodeID") or task["NodeID"] in active_nodes]
        slots = wanted_most(here, lambda task: task.get("Slot", 0))
        for slot in sorted(slots, key=str):
            self._places.setdefault(slot, len(self._places) + 1)
        running = sum(map(runs, slots.values()))
        lines = [_overall(running, replicas, back=back)]
        if replicas <= MAX_BARS:
            by_place = {self._places[slot]: task for slot, task in slots.items()}
            lines += [_bar(f"{at}/{replicas}", by_place.get(at)) for at in range(1, replicas + 1)]
        return Look(tuple(lines), running == replicas)


class _Global:
    def look(
        self, service: Json, tasks: Sequence[Json], active_nodes: frozenset[str], *, back: bool
    ) -> Look:
        nodes = wanted_most(tasks, lambda task: task.get("NodeID", ""))
        if not nodes:  # not begun, or no node fits: nobody can tell from here
            return Look((Line(_OVERALL, "waiting for new tasks"),), converged=False)
        here = {node: task for node, task in nodes.items() if node in active_nodes}
        running = sum(map(runs, here.values()))
        lines = [_overall(running, len(nodes), back=back)]
        if len(nodes) <= MAX_BARS:
            lines += [_bar(str(node)[:12], here[node]) for node in sorted(here, key=str)]
        return Look(tuple(lines), running == len(nodes))


class _Job:
    """Jobs of both modes: so many places complete, out of so many; of the present run only."""

    def look(
        self, service: Json, tasks: Sequence[Json], active_nodes: frozenset[str], *, back: bool
    ) -> Look:
        run = _iteration(service.get("JobStatus"))
        now = [task for task in tasks if _iteration(task) == run]
        numbers = service["Spec"]["Mode"].get("ReplicatedJob")
        if numbers is not None:
            return _replicated_job(numbers, wanted_most(now, lambda task: task.get("Slot", 0)))
        return _global_job(wanted_most(now, lambda task: task.get("NodeID", "")))


def _replicated_job(numbers: Json, slots: dict[object, Json]) -> Look:
    total = numbers.get("TotalCompletions") or 0
    states = [task["Status"]["State"] for task in slots.values()]
    done = states.count("complete")
    active = sum(not is_over(state) for state in states)
    most = min(numbers.get("MaxConcurrent") or total, total - done)
    lines = [
        Line("job progress", f"{done} out of {total} complete"),
        Line("active tasks", f"{active} out of {most} tasks"),
    ]
    if total <= MAX_BARS:
        lines += [_job_bar(f"{slot + 1}/{total}", slots.get(slot)) for slot in range(total)]
    return Look(tuple(lines), done == total)


def _global_job(nodes: dict[object, Json]) -> Look:
    if not nodes:  # not begun, or no node fits
        return Look((Line(_OVERALL, "waiting for new tasks"),), converged=False)
    done = sum(task["Status"]["State"] == "complete" for task in nodes.values())
    lines = [Line("job progress", f"{done} out of {len(nodes)} complete")]
    if len(nodes) <= MAX_BARS:
        lines += [_job_bar(str(node)[:12], nodes[node]) for node in sorted(nodes, key=str)]
    return Look(tuple(lines), done == len(nodes))


def _iteration(holder: Json | None) -> int:
    number: int = ((holder or {}).get("JobIteration") or {}).get("Index", 0)
    return number


def _overall(running: int, wanted: int, *, back: bool) -> Line:
    text = f"{running} out of {wanted} tasks"
    return Line(_OVERALL, f"rolling back update: {text}" if back else text)


def _bar(key: str, task: Json | None) -> Line:
    if task is None:
        return Line(key, "")
    if _error(task):
        return Line(key, _error(task))
    state = task["Status"]["State"]
    if is_over(task["DesiredState"]) or is_over(state):
        return Line(key, "")
    return Line(key, state, NUMBERS[state])


def _job_bar(key: str, task: Json | None) -> Line:
    """A job's tasks shall end: a bar is full when its task is complete."""
    if task is None:
        return Line(key, "")
    if _error(task):
        return Line(key, _error(task))
    state = task["Status"]["State"]
    return Line(key, state, min(NUMBERS[state], RUNNING))


def _error(task: Json) -> str:
    error = " ".join(task["Status"].get("Err", "").splitlines())
    return error if len(error) <= _ERROR_WIDTH else f"{error[: _ERROR_WIDTH - 1]}…"
