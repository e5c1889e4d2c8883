"""What the leader knows of load: the newest sample of each task, and a window for each service.

In memory only. Frames are made from the tables and the newest samples, by the leader's own clock;
those before it led are made from what the nodes kept. Pure: it is told the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.task import TaskState
from .metrics import FRAMES_KEPT, GAP_NS, PERIOD_NS, SECOND, Frame, TaskPoint
from .tracking import answer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..model.objects import ServiceRow, TaskRow
    from ..model.session import TaskSample
    from ..store.view import View
    from .decide import Verdict
    from .policy import Policy
    from .tracking import Answer

RECENT_NS = 60 * SECOND
"""How far back ``restarts`` and ``unhealthy`` count."""

Past = dict[str, list[tuple[int, "TaskSample"]]]
"""By task, what it used at which time, oldest first."""


class Window:
    """What is known of one service, and what was made of it.

    Attributes:
        frames: oldest first.
        answers: what its targets wanted, oldest first.
        verdict: the last one.
        asked: the nodes that have been asked for what they kept.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.answers: list[Answer] = []
        self.verdict: Verdict | None = None
        self.past: Past = {}
        self.asked: set[str] = set()
        self.reads_back = True

    def add(self, frame: Frame) -> None:
        """Take in the newest frame."""
        self.frames.append(frame)
        del self.frames[:-FRAMES_KEPT]

    def judged(self, verdict: Verdict) -> None:
        """Take in what was decided."""
        self.verdict = verdict
        if verdict.answer is not None:
            self.answers.append(verdict.answer)
            del self.answers[:-FRAMES_KEPT]

    def go_back(self, policy: Policy, born: Mapping[str, int], now: int) -> Iterator[None]:
        """Put before the first frame what the nodes kept; done when the iterator ends.

        That takes a while where there are many tasks, so each step is the work of one frame. Newer
        frames may come in between.

        Args:
            born: by task, since when it runs.
        """
        self.reads_back = False
        past, self.past = self.past, {}
        first = self.frames[0].at if self.frames else now
        frames: list[Frame] = []
        answers: list[Answer] = []
        for frame in frames_of_past(past, born, first):
            frames.append(frame)
            answers.append(answer_of(policy, frames))
            yield
        self.frames[:0] = frames
        del self.frames[:-FRAMES_KEPT]
        self.answers[:0] = answers
        del self.answers[:-FRAMES_KEPT]


class Book:
    """All windows, and the newest samples.

    Attributes:
        windows: by service id.
        no_psi: by node, why it cannot tell pressure.
    """

    def __init__(self) -> None:
        self.windows: dict[str, Window] = {}
        self.no_psi: dict[str, str] = {}
        self._newest: dict[str, tuple[int, dict[str, float]]] = {}
        self._watched: set[str] = set()

    def take(self, node_id: str, rows: Iterable[TaskSample], no_psi: str, now: int) -> None:
        """Take in what a node measured; only what belongs to a scaled service is kept."""
        if no_psi:
            self.no_psi[node_id] = no_psi
        else:
            self.no_psi.pop(node_id, None)
        for row in rows:
            if row.task_id in self._watched:
                self._newest[row.task_id] = (now, values_of(row))

    def watch(self, services: Iterable[str], tasks: set[str]) -> None:
        """Keep windows of these services and samples of these tasks, and no others."""
        wanted = set(services)
        for service_id in [one for one in self.windows if one not in wanted]:
            del self.windows[service_id]
        for service_id in wanted:
            self.windows.setdefault(service_id, Window())
        self._watched = tasks
        for task_id in [one for one in self._newest if one not in tasks]:
            del self._newest[task_id]

    def forget(self) -> None:
        """Begin anew: the clock was set, so no time that is known means anything."""
        self.windows.clear()
        self._newest.clear()

    def frame(
        self,
        view: View,
        row: ServiceRow,
        now: int,
        named: Mapping[str, tuple[float, ...]] | None = None,
    ) -> Frame:
        """Return what is known of a service now."""
        tasks = view.tasks_of(row.api.ID)
        wanted = wanted_tasks(tasks)
        points = tuple(self._point(task, now) for task in wanted)
        return Frame(now, points, gauges_of(tasks, points, now), named or {})

    def _point(self, task: TaskRow, now: int) -> TaskPoint:
        ready = task.api.Status.State is TaskState.RUNNING
        age = max(0, now - task.private.started_at) if ready and task.private.started_at else 0
        at, values = self._newest.get(task.api.ID, (0, {}))
        fresh = ready and now - at <= GAP_NS
        return TaskPoint(task.api.ID, ready, age, values if fresh else {})


def wanted_tasks(tasks: Iterable[TaskRow]) -> list[TaskRow]:
    """Return the tasks of a service that should run; one that stands in for another is extra."""
    return [
        task
        for task in tasks
        if task.api.DesiredState <= TaskState.RUNNING
        and task.api.Status.State <= TaskState.RUNNING
        and not task.private.relieves
    ]


def gauges_of(tasks: Iterable[TaskRow], points: Sequence[TaskPoint], now: int) -> dict[str, float]:
    """Return what is measured of a service as a whole."""
    running = sum(point.ready for point in points)
    ended = [
        task
        for task in tasks
        if task.api.Status.State in (TaskState.FAILED, TaskState.COMPLETE)
        and now - task.private.applied_at <= RECENT_NS
    ]
    return {
        "replicas": float(running),
        "pending": float(len(points) - running),
        "restarts": float(len(ended)),
        "unhealthy": float(sum("unhealthy" in task.api.Status.Err for task in ended)),
    }


def values_of(row: TaskSample) -> dict[str, float]:
    """Return what a sample has a value for, by metric."""
    found = {
        "cpu": row.cpu,
        "mem": row.mem,
        "pids": row.pids,
        "net_rx": row.net_rx,
        "net_tx": row.net_tx,
        "psi.cpu": row.psi_cpu,
        "psi.mem": row.psi_mem,
        "psi.io": row.psi_io,
    }
    return {metric: value for metric, value in found.items() if value is not None}


def frames_of_past(past: Past, born: Mapping[str, int], before: int) -> Iterator[Frame]:
    """Yield the frames that a leader would have made of what the nodes kept, oldest first.

    Of the service as a whole and of the user's own metrics nothing was kept: they are missing.

    Args:
        before: the time of the first frame that is there.
    """
    oldest = min((rows[0][0] for rows in past.values() if rows), default=before)
    places = dict.fromkeys(past, 0)
    count = min(FRAMES_KEPT, max(0, (before - oldest) // PERIOD_NS))
    for at in range(before - count * PERIOD_NS, before, PERIOD_NS):
        points: list[TaskPoint] = []
        for task_id, rows in past.items():
            while places[task_id] < len(rows) and rows[places[task_id]][0] <= at:
                places[task_id] += 1
            since = born.get(task_id, 0)
            if not since or since > at:
                continue
            seen = rows[places[task_id] - 1] if places[task_id] else None
            values = values_of(seen[1]) if seen is not None and at - seen[0] <= GAP_NS else {}
            points.append(TaskPoint(task_id, True, at - since, values))
        if points:
            yield Frame(at, tuple(points))
