"""One container on the engine: look at it, signal it, sleep until it has ended, remove it.

Stopping never occupies the engine or a thread while a grace period runs: a signal is one short
call, the end is an event, and the kill at the deadline is another short call. So thirty containers
that take ten seconds to stop stand in nobody's way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError

from .calls import Refused, quoted

if TYPE_CHECKING:
    from .calls import Engine
    from .inspection import Inspection
    from .observe import Observer

DESTROYED = "dockerexec: container destroyed"  # Docker's own words
REMOVAL_PATIENCE_S = 15.0
KILL_PATIENCE_S = 30.0  # the engine itself waits up to 10 s for a killed process to go


class ContainerGone(ExecutorError):
    """Somebody removed the container under our feet."""

    def __init__(self) -> None:
        super().__init__(DESTROYED)


async def inspect(engine: Engine, reference: str) -> Inspection | None:
    """Look at a container by id or name; None when there is none.

    Raises:
        EngineUnavailable: the engine does not answer, or cannot tell.
    """
    try:
        body = await engine.get(f"/containers/{quoted(reference)}/json")
    except Refused as error:
        # Podman says so with another status of one that is on its way out.
        if error.status == 404 or "no such container" in str(error):
            return None
        raise EngineUnavailable(f"the engine cannot inspect {reference}: {error}") from error
    return engine.dialect.inspection(body)


class Container:
    """A container of ours, by id."""

    def __init__(self, engine: Engine, observer: Observer, container_id: str) -> None:
        self.container_id = container_id
        self.engine = engine
        self._observer = observer

    async def inspect(self) -> Inspection:
        """Look at it.

        Raises:
            ContainerGone: it was removed.
            EngineUnavailable: the engine does not answer.
        """
        seen = await inspect(self.engine, self.container_id)
        if seen is None:
            raise ContainerGone
        return seen

    def ring(self) -> None:
        """Have whoever waits for it look again."""
        self._observer.ring(self.container_id)

    async def until_ended(self) -> Inspection:
        """Sleep until it does not run, and return what is then seen. Raises as :meth:`inspect`."""
        with self._observer.bell(self.container_id) as bell:
            while (seen := await self.inspect()).is_running:
                await bell.wait()
        return seen

    async def until_ended_or_judged(self) -> Inspection:
        """Sleep until it has ended or its health check has a verdict. Raises as :meth:`inspect`."""
        with self._observer.bell(self.container_id) as bell:
            while (seen := await self.inspect()).is_running and seen.is_healthy is None:
                await bell.wait()
        return seen

    async def until_ended_or_unhealthy(self) -> Inspection:
        """Sleep until it has ended or fails its health check. Raises as :meth:`inspect`."""
        with self._observer.bell(self.container_id) as bell:
            while (seen := await self.inspect()).is_running and seen.is_healthy is not False:
                await bell.wait()
        return seen

    async def end_by(self, deadline: float) -> None:
        """Let it end by itself until ``deadline`` (trio's clock), then kill it; return when over.

        Raises:
            EngineUnavailable: the engine does not answer; calling again goes on.
        """
        try:
            with trio.move_on_at(deadline):
                await self.until_ended()
                return
            await self.signal("SIGKILL")
            await self.until_ended()
        except ContainerGone:
            return

    async def signal(self, signal: str) -> None:
        """Send its first process a signal; one that has ended or is gone is left in peace.

        Raises:
            EngineUnavailable: the engine does not answer, or could not do it.
        """
        try:
            await self.engine.post(
                f"/containers/{self.container_id}/kill",
                signal=signal,
                limiter=self.engine.signals,
                patience_s=KILL_PATIENCE_S,
            )
        except Refused as error:
            if not self.engine.dialect.is_not_running(error):
                raise EngineUnavailable(f"cannot send {signal}: {error}") from error

    async def remove(self) -> None:
        """Remove it with its anonymous volumes, killing it when it runs.

        Raises:
            EngineUnavailable: the engine does not answer, or could not do it yet.
        """
        try:
            query = self.engine.dialect.removal
            await self.engine.delete(f"/containers/{self.container_id}", **query)
        except Refused as error:
            if error.status == 409:  # somebody is at it, perhaps we, before we were cancelled
                await self._until_gone()  # noqa: ASYNC120 - cancelled, nobody asks why
            elif error.status != 404:
                raise EngineUnavailable(f"cannot remove the container: {error}") from error

    async def _until_gone(self) -> None:
        with trio.move_on_after(REMOVAL_PATIENCE_S), self._observer.bell(self.container_id) as bell:
            while await inspect(self.engine, self.container_id) is not None:
                await bell.wait()
            return
        raise EngineUnavailable("the engine takes too long to remove the container")
