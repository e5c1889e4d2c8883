"""What can be measured, in which units, and what was: the nouns of scaling.

A *frame* is what is known of one service at one moment: its tasks, each with its values, and what
is measured of the service as a whole. A *window* is frames in the order of time, some five seconds
apart. Decisions see frames and nothing else, so a simulator makes them as the leader does.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND = 1_000_000_000
PERIOD_NS = 5 * SECOND
"""How far apart samples are."""
WINDOW_NS = 600 * SECOND
"""How far back windows go; nodes keep as much."""
FRAMES_KEPT = WINDOW_NS // PERIOD_NS + 2
GAP_NS = 3 * PERIOD_NS
"""Frames further apart than this leave a hole in a window."""
SETTLING_NS = 15 * SECOND
"""How long a task that runs is young: what it uses while it starts is not what it will use. Longer
than values are smoothed for, so that of one that is settled all of them count."""

EPSILON = 1e-9
"""A number that lies so little above a whole one is that one."""

CPU, MEM = "cpu", "mem"
TASK_METRICS: Mapping[str, str] = MappingProxyType(
    {
        CPU: "cores",
        MEM: "bytes",
        "pids": "count",
        "net_rx": "bytes",
        "net_tx": "bytes",
        "psi.cpu": "share",
        "psi.mem": "share",
        "psi.io": "share",
    }
)
"""Measured of each task, and what the number is; ``net_*`` are bytes per second."""
GAUGES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("restarts", "unhealthy", "replicas", "pending"), "count")
)
"""Read off the tables, of the service as a whole: tasks that ended or were unhealthy within the
last minute, tasks that run, tasks that should run and do not."""
NAMED = "any"
"""What the number of a metric of the user's own is."""

UNITS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "%": ("share", 0.01),
        "us": ("seconds", 1e-6),
        "ms": ("seconds", 1e-3),
        "s": ("seconds", 1.0),
        "m": ("seconds", 60.0),
        "h": ("seconds", 3600.0),
        "B": ("bytes", 1.0),
        "KB": ("bytes", 1e3),
        "MB": ("bytes", 1e6),
        "GB": ("bytes", 1e9),
        "KiB": ("bytes", float(1 << 10)),
        "MiB": ("bytes", float(1 << 20)),
        "GiB": ("bytes", float(1 << 30)),
    }
)
"""By its name, what a unit measures and how much of that it is."""


class Bases(NamedTuple):
    """What 100 % of one task's CPU and memory are, in cores and bytes; 0 where nothing says so."""

    cpu: float = 0.0
    mem: float = 0.0

    def of(self, metric: str) -> float:
        """Return what 100 % of a metric are, 0 for unknown."""
        return self.cpu if metric == CPU else self.mem if metric == MEM else 0.0


class TaskPoint(NamedTuple):
    """One task that should run, at one moment.

    Attributes:
        ready: it runs, and is healthy if it has a check.
        age_ns: how long it has been running.
        values: what was measured, by metric; none of it: the sample is missing.
    """

    task_id: str
    ready: bool
    age_ns: int
    values: Mapping[str, float]

    @property
    def settled(self) -> bool:
        """True once what it uses is what it will use."""
        return self.ready and self.age_ns >= SETTLING_NS


class Frame(NamedTuple):
    """One service at one moment; ``named`` has the values of the user's own metrics."""

    at: int
    tasks: tuple[TaskPoint, ...] = ()
    gauges: Mapping[str, float] = MappingProxyType({})
    named: Mapping[str, tuple[float, ...]] = MappingProxyType({})


def kind_of(metric: str) -> str | None:
    """Return what the number of a built-in metric is, None for a name that is none."""
    return TASK_METRICS.get(metric) or GAUGES.get(metric)
