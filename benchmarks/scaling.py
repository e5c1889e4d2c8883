"""Scaling under six shapes of load: our default policy beside Kubernetes' HPA, simulated.

    python -m benchmarks.scaling              the table
    python -m benchmarks.scaling --shape step one shape, minute by minute

One service, its replicas behind a balancer: a fluid queue. Each replica serves 50 requests a second
when it is busy all the time; requests arrive at random around the shape's rate; what is not served
waits, and is given up after ten seconds. Response time is the service's own 20 ms, stretched as a
queue stretches it, and the wait; a second of requests violates the objective of 300 ms as soon as
they take longer. Both scalers aim at 70 % CPU, from 2 to 60 replicas; a replica is ready 5 s after
it was asked for. Each sees what it would see: ours means over 5 s as they come, HPA the metrics
server's means over 15 s, every 15 s.

Everything is seeded; the same table comes out each time.
"""

from __future__ import annotations

import argparse
import math
import random
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.hpa import SYNC_S, Hpa, Pod
from swarmctl.core.autoscaler.metrics import SECOND
from swarmctl.core.autoscaler.policy import policy_of
from swarmctl.core.autoscaler.replay import Replay
from swarmctl.core.model.spec import (
    ReplicatedService,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.core.autoscaler.policy import Policy

HOUR = 3600
RATE = 50.0
BASE_S, OBJECTIVE_S, PATIENCE_S = 0.02, 0.3, 10.0
START_S = 5
SCRAPED_AT = 7
LEAST, MOST, TARGET = 2, 60, 0.7
SEEDS = range(5)


def constant(_at: float, _noise: random.Random) -> float:
    """The same all the time."""
    return 500.0


def step(at: float, _noise: random.Random) -> float:
    """Four times as much at once, for an hour."""
    return 800.0 if HOUR <= at % (3 * HOUR) < 2 * HOUR else 200.0


def ramp(at: float, _noise: random.Random) -> float:
    """Up in 20 minutes, down in 20."""
    part = at % (2 * HOUR)
    return 200.0 + 800.0 * max(0.0, 1 - abs(part - HOUR) / 1200)


def diurnal(at: float, _noise: random.Random) -> float:
    """A day in four hours: low at night, high at noon."""
    return 550.0 - 450.0 * math.cos(2 * math.pi * at / (4 * HOUR))


def spike(at: float, _noise: random.Random) -> float:
    """Six times as much for two minutes, every hour."""
    return 1200.0 if 1800 <= at % HOUR < 1920 else 200.0


def sawtooth(at: float, noise: random.Random) -> float:
    """A ten minute saw with a fifth of noise on it."""
    return (300.0 + 400.0 * (at % 600) / 600) * (1 + noise.uniform(-0.2, 0.2))


SHAPES = {one.__name__: one for one in (constant, step, ramp, diurnal, spike, sawtooth)}
LONG_S = {"diurnal": 8 * HOUR, "step": 6 * HOUR}


class Outcome(NamedTuple):
    """What a run came to: the share of requests that took too long, hours, changes."""

    violated: float
    hours: float
    changes: int


class Queue:
    """Requests waiting for replicas, second by second."""

    def __init__(self, seed: int) -> None:
        self.waiting = 0.0
        self.asked = self.late = 0.0
        self._random = random.Random(seed)

    def second(self, rate: float, replicas: int) -> float:
        """Let a second pass; return how busy each replica was."""
        capacity = max(1e-9, replicas * RATE)
        came = max(0.0, self._random.gauss(rate, math.sqrt(rate)))
        done = min(self.waiting + came, capacity)
        self.waiting = min(self.waiting + came - done, PATIENCE_S * capacity)
        busy = done / capacity
        inside = BASE_S * (1 + busy ** (2 * math.sqrt(replicas + 1) - 1) / max(0.02, 1 - busy))
        self.asked += came
        if inside + self.waiting / capacity > OBJECTIVE_S:
            self.late += came
        return busy


def run_ours(shape: Callable[[float, random.Random], float], seed: int, long_s: int) -> Outcome:
    """Scale by our default policy."""
    world = Replay(_policy(), LEAST, start_ns=START_S * SECOND)
    queue, noise = Queue(seed), random.Random(seed)
    total = changes = 0
    busy = [0.0] * 5
    for at in range(long_s):
        ready = world.ready(at * SECOND)
        busy[at % 5] = queue.second(shape(at, noise), ready)
        total += world.count
        if at % 5 == 4:
            before = world.count
            world.look({"cpu": ready * sum(busy) / 5})
            changes += world.count != before
    return Outcome(queue.late / queue.asked, total / HOUR, changes)


def run_hpa(shape: Callable[[float, random.Random], float], seed: int, long_s: int) -> Outcome:
    """Scale as Kubernetes does by default."""
    scaler = Hpa(LEAST, MOST, TARGET)
    queue, noise = Queue(seed), random.Random(seed)
    born = [-600.0] * LEAST
    total = changes = 0
    busy: list[float] = []
    measured: dict[int, tuple[float, float]] = {}
    for at in range(long_s):
        ready = sum(one + START_S <= at for one in born)
        busy.append(queue.second(shape(at, noise), ready))
        total += len(born)
        if (
            at % SYNC_S == SCRAPED_AT
        ):  # the metrics server and the controller do not agree on a second
            mean = sum(busy[-SYNC_S:]) / len(busy[-SYNC_S:])
            measured = {
                number: (mean, float(at))
                for number, one in enumerate(born)
                if one + START_S + SYNC_S <= at
            }
        if at % SYNC_S == SYNC_S - 1:
            count = scaler.decide(_pods(born, measured, at), at)
            changes += count != len(born)
            born = [*born[:count], *[float(at)] * (count - len(born))]
    return Outcome(queue.late / queue.asked, total / HOUR, changes)


def _pods(born: list[float], measured: dict[int, tuple[float, float]], at: int) -> list[Pod]:
    pods = []
    for number, one in enumerate(born):
        ready = one + START_S if one + START_S <= at else None
        usage, when = measured.get(number, (None, 0.0))
        pods.append(Pod(one, ready, usage, when))
    return pods


def _policy() -> Policy:
    reserved = Resources(NanoCPUs=1_000_000_000)
    labels = {"min": str(LEAST), "max": str(MOST), "target": f"cpu={TARGET:.0%}"}
    policy = policy_of(
        ServiceSpec(
            Name="web",
            Labels={f"swarmctl.scale.{name}": value for name, value in labels.items()},
            Mode=ServiceMode(Replicated=ReplicatedService()),
            TaskTemplate=TaskSpec(Resources=ResourceRequirements(Reservations=reserved)),
        )
    )
    assert policy is not None
    return policy


def mean(outcomes: list[Outcome]) -> Outcome:
    """Return what came out on average."""
    number = len(outcomes)
    return Outcome(
        sum(one.violated for one in outcomes) / number,
        sum(one.hours for one in outcomes) / number,
        round(sum(one.changes for one in outcomes) / number),
    )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES))
    asked = parser.parse_args()
    columns = ("late requests", "replica hours", "changes")
    print("| load |", " | ".join(f"{name}: swarmctl | HPA" for name in columns), "|")
    print("|---|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        if asked.shape not in (None, name):
            continue
        long_s = LONG_S.get(name, 4 * HOUR)
        ours = mean([run_ours(shape, seed, long_s) for seed in SEEDS])
        hpa = mean([run_hpa(shape, seed, long_s) for seed in SEEDS])
        print(
            f"| {name} | {ours.violated:.2%} | {hpa.violated:.2%} "
            f"| {ours.hours:.1f} | {hpa.hours:.1f} | {ours.changes} | {hpa.changes} |"
        )


if __name__ == "__main__":
    main()
