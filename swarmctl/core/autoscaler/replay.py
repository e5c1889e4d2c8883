"""A load that is written down, put through a service's rules: how many tasks it would have had.

The load is the service's as a whole. Its tasks share it evenly, as behind a balancer; one that is
started takes its time before it takes its share, and stops at once. Room is without end. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..model.scaling import with_decision
from ..model.service import ScaleDecision
from .book import Window
from .decide import Situation, decide
from .metrics import PERIOD_NS, SECOND, SETTLING_NS, TASK_METRICS, Frame, TaskPoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .decide import Verdict
    from .policy import Policy

START_NS = 5 * SECOND


class Load(NamedTuple):
    """What the service has to bear from a time on: metrics of its tasks in sum, and its own."""

    at: int
    values: Mapping[str, float]


class Step(NamedTuple):
    """One look: what there was, and what was decided.

    Attributes:
        tasks: how many there were.
        ready: how many of the tasks took their share of the load.
        used: what each of them used, by metric.
    """

    at: int
    load: Mapping[str, float]
    tasks: int
    ready: int
    used: Mapping[str, float]
    verdict: Verdict


class Replay:
    """One service under a load, look by look.

    Args:
        policy: its rules.
        count: how many tasks it begins with; they have been running for long.
        start_ns: how long a task takes before it is ready.
        now: when it begins.
    """

    def __init__(
        self,
        policy: Policy,
        count: int,
        *,
        start_ns: int = START_NS,
        now: int = 0,
    ) -> None:
        self.policy = policy
        self.now = now
        self.decisions: tuple[ScaleDecision, ...] = ()
        self._start_ns = start_ns
        self._born = [now - start_ns - SETTLING_NS] * count
        self._window = Window()

    @property
    def count(self) -> int:
        """How many tasks there are."""
        return len(self._born)

    def ready(self, now: int) -> int:
        """Return how many tasks bear load at a time."""
        return sum(born + self._start_ns <= now for born in self._born)

    def look(self, load: Mapping[str, float], period_ns: int = PERIOD_NS) -> Step:
        """Let some time pass under a load, then look and decide."""
        self.now += period_ns
        ready = self.ready(self.now)
        used = {
            metric: value / max(1, ready)
            for metric, value in load.items()
            if metric in TASK_METRICS
        }
        window = self._window
        window.add(self._frame(load, used))
        situation = Situation(count=self.count, decisions=self.decisions)
        verdict = decide(self.policy, situation, window.frames, window.answers, self.now)
        window.judged(verdict)
        step = Step(self.now, load, self.count, ready, used, verdict)
        if verdict.count != self.count:
            self._scale(verdict)
        return step

    def _frame(self, load: Mapping[str, float], used: Mapping[str, float]) -> Frame:
        points = tuple(self._point(at, born, used) for at, born in enumerate(self._born))
        running = sum(point.ready for point in points)
        gauges = {"replicas": float(running), "pending": float(len(points) - running)}
        gauges |= {"restarts": 0.0, "unhealthy": 0.0}
        named = {name: (value,) for name, value in load.items() if name not in TASK_METRICS}
        return Frame(self.now, points, gauges, named)

    def _point(self, at: int, born: int, used: Mapping[str, float]) -> TaskPoint:
        age = self.now - born - self._start_ns
        ready = age >= 0
        return TaskPoint(f"t{at}", ready, max(0, age), used if ready else {})

    def _scale(self, verdict: Verdict) -> None:
        decision = ScaleDecision(
            at=self.now,
            rule=verdict.rule,
            before=self.count,
            after=verdict.count,
            reason=verdict.reason,
            values=verdict.values,
        )
        self.decisions = with_decision(self.decisions, decision)
        self._born = self._born[: verdict.count]
        self._born += [self.now] * (verdict.count - len(self._born))


def replay(
    policy: Policy,
    loads: Sequence[Load],
    *,
    count: int,
    start_ns: int = START_NS,
) -> Iterator[Step]:
    """Put a load through a service's rules, from its first line to its last.

    Args:
        loads: by time; each holds until the next.
        count: how many tasks there are at the beginning.
    """
    world = Replay(policy, count, start_ns=start_ns, now=loads[0].at)
    at = 0
    while world.now < loads[-1].at:
        while at + 1 < len(loads) and loads[at + 1].at <= world.now:
            at += 1
        yield world.look(loads[at].values)
