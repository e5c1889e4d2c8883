"""When a task's health check runs, and what its results mean.

Pure. Defaults and rules are the Docker engine's: failures during the start period do not count,
the first success ends it, and ``Retries`` failures in a row make a task unhealthy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import NANOSECONDS_PER_SECOND

if TYPE_CHECKING:
    from swarmctl.plugins.model import HealthConfig

DEFAULT_INTERVAL_S = 30.0
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_START_INTERVAL_S = 5.0
DEFAULT_RETRIES = 3
UNHEALTHY = "unhealthy container"  # the words that Docker's clients know
MIN_DURATION_NS = 1_000_000


class Health(NamedTuple):
    """What is known so far.

    Attributes:
        healthy: None until a verdict.
        failures: in a row, as far as they count.
        started: the start period is over, by a success or by time.
    """

    healthy: bool | None = None
    failures: int = 0
    started: bool = False


class HealthCheck(NamedTuple):
    """How to check: durations in seconds."""

    argv: tuple[str, ...]
    interval_s: float
    timeout_s: float
    start_period_s: float
    start_interval_s: float
    retries: int

    def pause_s(self, health: Health, age_s: float) -> float:
        """Return how long to wait before the next run, for a task that is ``age_s`` old."""
        if not health.started and age_s < self.start_period_s:
            # The first run after the start period counts, so it must not be much too early.
            return min(self.start_interval_s, self.interval_s)
        return self.interval_s

    def judge(self, health: Health, age_s: float, *, passed: bool) -> Health:
        """Return what is known after one more run that ended when the task was ``age_s`` old."""
        if passed:
            return Health(healthy=True, failures=0, started=True)
        started = health.started or age_s >= self.start_period_s
        if not started:
            return health
        failures = health.failures + 1
        healthy = False if failures >= self.retries else health.healthy
        return Health(healthy=healthy, failures=failures, started=True)


def health_check(config: HealthConfig | None) -> HealthCheck | None:
    """Return what ``config`` asks for, None for no check.

    Raises:
        ExecutorError: it cannot be understood.
    """
    if config is None or not config.Test or config.Test == ("NONE",):
        return None
    kind, *rest = config.Test
    if kind == "CMD" and rest:
        argv = tuple(rest)
    elif kind == "CMD-SHELL" and len(rest) == 1:
        argv = ("/bin/sh", "-c", rest[0])
    else:
        raise ExecutorError(
            'ContainerSpec.Healthcheck.Test: must be ["NONE"], ["CMD", program, arguments...] '
            'or ["CMD-SHELL", command]'
        )
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if getattr(config, name) != 0 and getattr(config, name) < MIN_DURATION_NS:
            raise ExecutorError(f"ContainerSpec.Healthcheck.{name}: must be 0 or at least 1ms")
    if config.Retries < 0:
        raise ExecutorError("ContainerSpec.Healthcheck.Retries: must not be negative")
    return HealthCheck(
        argv=argv,
        interval_s=config.Interval / NANOSECONDS_PER_SECOND or DEFAULT_INTERVAL_S,
        timeout_s=config.Timeout / NANOSECONDS_PER_SECOND or DEFAULT_TIMEOUT_S,
        start_period_s=config.StartPeriod / NANOSECONDS_PER_SECOND,
        start_interval_s=config.StartInterval / NANOSECONDS_PER_SECOND or DEFAULT_START_INTERVAL_S,
        retries=config.Retries or DEFAULT_RETRIES,
    )
