"""Services, loads and windows for tests of scaling: a small world with a clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.autoscaler.decide import Situation, Verdict, decide
from swarmctl.core.autoscaler.metrics import PERIOD_NS, SECOND, SETTLING_NS, Frame, TaskPoint
from swarmctl.core.autoscaler.policy import policy_of
from swarmctl.core.autoscaler.tracking import answer_of
from swarmctl.core.model.scaling import with_decision
from swarmctl.core.model.service import ScaleDecision
from swarmctl.core.model.spec import (
    ReplicatedService,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swarmctl.core.autoscaler.policy import Policy
    from swarmctl.core.autoscaler.tracking import Answer

EPOCH = 1_700_000_000 * SECOND
GIB = 1 << 30


def spec_of(replicas: int | None = 1, cpus: float = 1.0, **labels: str) -> ServiceSpec:
    """A service that reserves one core and a GiB; ``up__when`` stands for ``up.when``."""
    reserved = Resources(NanoCPUs=int(cpus * 1e9), MemoryBytes=GIB if cpus else 0)
    return ServiceSpec(
        Name="web",
        Labels={f"swarmctl.scale.{name.replace('__', '.')}": labels[name] for name in labels},
        Mode=ServiceMode(Replicated=ReplicatedService(Replicas=replicas)),
        TaskTemplate=TaskSpec(Resources=ResourceRequirements(Reservations=reserved)),
    )


def rules(**labels: str) -> Policy:
    """The rules of such a service."""
    policy = policy_of(spec_of(**labels))
    assert policy is not None
    return policy


def point(name: str, age_s: float = 3600, *, ready: bool = True, **values: float) -> TaskPoint:
    """A task; values by metric."""
    return TaskPoint(name, ready, int(age_s * SECOND), values)


def frames_of(*rows: Sequence[float], **named: float) -> list[Frame]:
    """A window of five second steps that ends at ``EPOCH``: the CPU of each task, row by row."""
    return [
        Frame(
            EPOCH - (len(rows) - 1 - at) * PERIOD_NS,
            tuple(point(f"t{number}", cpu=cpu) for number, cpu in enumerate(row)),
            {"replicas": float(len(row)), "pending": 0.0},
            {name: (value,) for name, value in named.items()},
        )
        for at, row in enumerate(rows)
    ]


def answers_of(policy: Policy, frames: Sequence[Frame]) -> list[Answer]:
    """What the targets wanted at each frame of a window."""
    return [answer_of(policy, frames[:end]) for end in range(1, len(frames) + 1)]


class World:
    """A service whose load is a function of the time; tasks start at once and share it evenly.

    Attributes:
        load: seconds -> cores that are wanted altogether; None: nothing can be measured.
    """

    def __init__(
        self, policy: Policy, count: int, load: Callable[[float], float | None], start_s: float = 0
    ) -> None:
        self.policy, self.count, self.load = policy, count, load
        self.now = EPOCH
        self.decisions: tuple[ScaleDecision, ...] = ()
        self.frames: list[Frame] = []
        self.answers: list[Answer] = []
        self.history: list[int] = []
        self.born = [EPOCH - int(start_s * SECOND) - SETTLING_NS] * count
        self.room: int | None = None

    def tick(self) -> Verdict:
        """Let five seconds pass, look, decide, do it."""
        self.now += PERIOD_NS
        wanted = self.load((self.now - EPOCH) / SECOND)
        share = None if wanted is None else min(1.5, wanted / max(1, self.count))
        tasks = tuple(
            TaskPoint(f"t{at}", True, self.now - born, {} if share is None else {"cpu": share})
            for at, born in enumerate(self.born)
        )
        self.frames = [*self.frames[-120:], Frame(self.now, tasks)]
        situation = Situation(count=self.count, decisions=self.decisions, room=self.room)
        verdict = decide(self.policy, situation, self.frames, self.answers, self.now)
        if verdict.answer is not None:
            self.answers = [*self.answers[-120:], verdict.answer]
        if verdict.count != self.count:
            step = ScaleDecision(
                at=self.now,
                rule=verdict.rule,
                before=self.count,
                after=verdict.count,
                reason=verdict.reason,
            )
            self.decisions = with_decision(self.decisions, step)
            self.born = self.born[: verdict.count]
            self.born += [self.now] * (verdict.count - len(self.born))
            self.count = verdict.count
        self.history.append(self.count)
        return verdict

    def run(self, seconds: float) -> list[int]:
        """Let time pass; return the numbers of tasks there were, step by step."""
        start = len(self.history)
        for _ in range(int(seconds * SECOND / PERIOD_NS)):
            self.tick()
        return self.history[start:]
