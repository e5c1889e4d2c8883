"""Health checks: Podman runs one when asked and judges it; when is our business.

Podman itself would have a timer of systemd's ask, which not every host has. The check runs inside
Podman, which keeps the results, so a new daemon goes on with what is known. Two things it does not
do are here: a rhythm, with Docker's rules (the first run an interval after the start, a shorter
interval in the start period), and an end for a check that hangs.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from swarmctl.plugins import EngineUnavailable
from swarmctl.plugins.engine import ContainerGone, Refused
from swarmctl.plugins.model import NANOSECONDS_PER_SECOND

from .sessions import kill_session

if TYPE_CHECKING:
    from swarmctl.plugins.engine import Body, Container, Inspection, Json
    from swarmctl.plugins.model import HealthConfig

logger = logging.getLogger(__name__)

RHYTHM_LABEL = "swarmctl.health.rhythm"
DEFAULT_INTERVAL_NS = 30 * NANOSECONDS_PER_SECOND
DEFAULT_TIMEOUT_NS = 30 * NANOSECONDS_PER_SECOND
DEFAULT_START_INTERVAL_NS = 5 * NANOSECONDS_PER_SECOND
DEFAULT_RETRIES = 3
PROBES = 32
RETRY_S = 1.0
PATIENCE_S = 5.0  # beyond the check's own time: the engine's for starting it
OFF = ["NONE"]


class Rhythm(NamedTuple):
    """When a check runs, in nanoseconds; kept in a label, since Podman is told of no interval."""

    interval: int
    start_interval: int

    @classmethod
    def parse(cls, text: str) -> Rhythm:
        """Read a label; an unreadable one gives Docker's defaults."""
        words = text.split()
        if len(words) == 2 and all(word.isdecimal() for word in words):
            return cls(*map(int, words))
        return cls(DEFAULT_INTERVAL_NS, DEFAULT_START_INTERVAL_NS)

    def __str__(self) -> str:
        return f"{self.interval} {self.start_interval}"


def health_keys(wanted: HealthConfig | None, of_image: Json) -> tuple[Body | None, Rhythm]:
    """Return the ``healthconfig`` of a create, and the rhythm that goes into the label.

    What the spec leaves out is the image's; what neither has is Docker's default. None when there
    is neither, and nothing to switch off.
    """
    test = list(wanted.Test) if wanted is not None else []
    test = test or list(of_image.get("Test") or ())

    def chosen(key: str, default: int) -> int:
        own = getattr(wanted, key) if wanted is not None else 0
        return int(own or of_image.get(key) or default)

    rhythm = Rhythm(
        chosen("Interval", DEFAULT_INTERVAL_NS), chosen("StartInterval", DEFAULT_START_INTERVAL_NS)
    )
    if not test:
        return None, rhythm
    if test == OFF:
        return {"Test": OFF}, rhythm
    body: Body = {
        "Test": test,
        "Interval": 0,
        "Timeout": chosen("Timeout", DEFAULT_TIMEOUT_NS),
        "StartPeriod": chosen("StartPeriod", 0),
        "Retries": chosen("Retries", DEFAULT_RETRIES),
    }
    return body, rhythm


class Prober:
    """Runs the checks of all containers of one engine, so many at a time."""

    def __init__(self) -> None:
        self._places = trio.CapacityLimiter(PROBES)

    async def __call__(self, container: Container) -> None:
        """Run a container's check whenever it is due, until it has none or has ended.

        A daemon that was away begins anew with what Podman knows: an interval from now.
        """
        began = trio.current_time()
        while True:
            try:
                seen = await container.inspect()
                if not seen.is_running or not seen.has_health_check:
                    return
                age_s = trio.current_time() - began
                await trio.sleep(pause_s(seen, age_s))
                await self._once(container, seen)
            except ContainerGone:
                return  # which whoever waits for it finds out
            except EngineUnavailable as error:
                logger.info("health of %s: %s", container.container_id[:12], error)
                await trio.sleep(RETRY_S)

    async def _once(self, container: Container, seen: Inspection) -> None:
        timeout_s = _config(seen).get("Timeout", DEFAULT_TIMEOUT_NS) / NANOSECONDS_PER_SECOND
        failure: EngineUnavailable | None = None
        # The time of a check begins with its turn, and killing it takes none of the places.
        async with self._places, trio.open_nursery() as nursery:
            nursery.start_soon(self._end_late, container, seen, timeout_s)
            try:
                await container.engine.ask(
                    "GET",
                    f"/containers/{container.container_id}/healthcheck",
                    limiter=container.engine.unlimited,
                    patience_s=timeout_s + PATIENCE_S,
                )
            except Refused as error:  # it has just ended, or the check could not be started
                logger.info("health of %s: %s", container.container_id[:12], error)
            except EngineUnavailable as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        container.ring()

    async def _end_late(self, container: Container, seen: Inspection, timeout_s: float) -> None:
        """Kill a check that takes longer than it may; Podman then counts it as failed."""
        await trio.sleep(timeout_s)
        with suppress(EngineUnavailable, Refused, ContainerGone):
            now = await container.inspect()
            for session in now.body.get("ExecIDs") or ():
                run = await container.engine.get(f"/exec/{session}/json")
                if command_of(run) == argv(seen):
                    killing = container.engine.signals
                    await trio.to_thread.run_sync(kill_session, session, limiter=killing)


def pause_s(seen: Inspection, age_s: float) -> float:
    """Return how long to wait before the next run, for a container that is ``age_s`` old."""
    rhythm = Rhythm.parse(seen.labels.get(RHYTHM_LABEL, ""))
    start_period_s = _config(seen).get("StartPeriod", 0) / NANOSECONDS_PER_SECOND
    pause = rhythm.interval
    if seen.is_healthy is None and age_s < start_period_s:
        pause = min(pause, rhythm.start_interval)
    return pause / NANOSECONDS_PER_SECOND


def argv(seen: Inspection) -> list[str]:
    """Return the command line that a container's check is."""
    kind, *rest = _config(seen)["Test"]
    if kind == "CMD-SHELL":
        return ["/bin/sh", "-c", " ".join(rest)]
    return rest if kind == "CMD" else [kind, *rest]


def command_of(run: Json) -> list[str]:
    """Return the command line of an answer of ``GET /exec/{id}/json``."""
    process = run.get("ProcessConfig") or {}
    return [process.get("entrypoint", ""), *(process.get("arguments") or ())]


def _config(seen: Inspection) -> Json:
    config: Json = seen.body["Config"].get("Healthcheck") or {}
    return config
