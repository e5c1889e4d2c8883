"""An executor's handle on one task: its container on any engine, from pull to removal.

Every method first looks at what is there, so each may be called again after a cancellation or a
restart of the daemon: a running container is adopted by finding it under the task's name.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError, ExitStatus, TaskObservation

from .calls import Refused, quoted
from .container import Container, inspect
from .endpoints import endpoints, joined
from .labels import TASK_LABEL
from .pull import Wanted
from .spec import container_spec, stop_grace_ns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from swarmctl.plugins import LogLine, LogOptions, NodeIdentity
    from swarmctl.plugins.model import TaskAssignment

    from .calls import Engine
    from .changes import Changes
    from .dialect import Body, Dialect
    from .files import TaskFiles
    from .inspection import Inspection
    from .networks import EngineNetworks
    from .observe import Observer
    from .pull import Images


@dataclass(frozen=True)
class Host:
    """What all controllers of a node share.

    Attributes:
        disk: lets one thread at a time at ``files``.
    """

    identity: NodeIdentity
    engine: Engine
    changes: Changes
    observer: Observer
    images: Images
    networks: EngineNetworks
    files: TaskFiles
    disk: trio.CapacityLimiter


class ContainerTask:
    """One task as a container; implements :class:`swarmctl.plugins.TaskController`."""

    def __init__(self, host: Host, assignment: TaskAssignment) -> None:
        self._host = host
        self._dialect: Dialect = host.engine.dialect
        self._assignment = assignment
        self._task_id = assignment.task.ID
        self._container: Container | None = None
        self._was_unhealthy = False
        self._has_check = False
        self._kill_at: float | None = None
        self._networks_remade = False

    async def prepare(self) -> None:
        async with self._no_files_after_failure():
            found = await self._look()
            if found is None or found.never_started:
                await self._prepare(found)

    async def _prepare(self, found: Inspection | None) -> None:
        """Make everything ready; ``found`` is the container if there is one, not started yet."""
        files = self._host.files
        body = self._dialect.body(
            self._assignment,
            self._host.identity,
            prefix=await self._host.engine.prefix(),
            files=files,
        )
        failure = None if found else await self._host.images.try_pull(self._wanted())
        await self._host.networks.join(self._task_id, joined(self._assignment))
        # Also for a container that exists: since it was made the machine may have been rebooted.
        profile = self._dialect.profile(self._assignment)
        await trio.to_thread.run_sync(
            files.write, self._assignment, profile, limiter=self._host.disk
        )
        if found is None:
            await self._create(body, failure)
        await self._connect()

    async def start(self) -> None:
        async with self._no_files_after_failure():
            container, seen = await self._existing()
            if seen.never_started:
                await self._start(container)
            if not seen.has_health_check:
                return
            seen = await self._while_probed(container, container.until_ended_or_judged)
            if seen.is_running and seen.is_healthy is False:
                await self._stop_unhealthy()

    async def wait(self) -> ExitStatus:
        async with self._no_files_after_failure():
            container = self._container or (await self._existing())[0]
            over = container.until_ended_or_unhealthy
            while (seen := await self._while_probed(container, over)).is_running:
                await self._stop_unhealthy()
        await self._drop_files()
        if seen.never_started:
            raise ExecutorError("the container was never started")
        status = seen.exit_status()
        if self._was_unhealthy and not status.error:
            return msgspec.structs.replace(status, error=seen.unhealthy)
        return status

    async def shutdown(self) -> None:
        seen = await self._look()
        if seen is None or self._container is None or not seen.is_running:
            await self._drop_files()
            return
        if self._kill_at is None:  # called again, the grace that is left goes on
            await self._container.signal(seen.stop_signal)
            grace_s = stop_grace_ns(container_spec(self._assignment)) / 1e9
            self._kill_at = trio.current_time() + grace_s
        await self._container.end_by(self._kill_at)
        await self._drop_files()

    async def kill(self) -> None:
        seen = await self._look()
        if seen is not None and self._container is not None and seen.is_running:
            await self._container.end_by(trio.current_time())
        await self._drop_files()

    async def remove(self) -> None:
        await self.shutdown()
        if await self._look() is not None and self._container is not None:
            await self._container.remove()
        if self._assignment.task.NetworksAttachments:
            await self._host.networks.leave(self._task_id)
        await self._drop_files()

    async def observe(self) -> TaskObservation:
        seen = await self._look()
        return TaskObservation() if seen is None else seen.observation(self._assignment.ports)

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        return self._dialect.read_logs(self._host.engine, self._look, options)

    # --- finding and making the container ---------------------------------------------------

    async def _look(self) -> Inspection | None:
        """Look at the task's container; None when there is none of ours."""
        await self._host.changes.settled(self._task_id)
        if self._container is not None:
            seen = await inspect(self._host.engine, self._container.container_id)
        else:
            seen = await inspect(self._host.engine, self._assignment.name)
            if seen is None or not self._is_mine(seen):
                return None
            self._container = self._handle(seen.container_id)
        if seen is not None:
            self._has_check = seen.has_health_check
        return seen

    async def _existing(self) -> tuple[Container, Inspection]:
        """Look at the task's container, which has to exist by now."""
        seen = await self._look()
        if seen is None or self._container is None:
            raise ExecutorError(f"No such container: {self._assignment.name}")
        return self._container, seen

    async def _create(self, body: Body, pull_failure: str | None) -> None:
        """Create the container; pull after all when the image turns out to be missing."""
        if await self._try_create(body):
            return
        if pull_failure is None:
            pull_failure = await self._host.images.try_pull(self._wanted(), even_if_fresh=True)
            if await self._try_create(body):
                return
        image = container_spec(self._assignment).Image
        raise ExecutorError(f"No such image: {image}" + (f": {pull_failure}" * bool(pull_failure)))

    async def _try_create(self, body: Body) -> bool:
        """Create the container, or find it made already; False when its image is missing."""
        name = self._assignment.name
        try:
            complete = await self._dialect.complete(self._host.engine, self._assignment, body)
            made = await self._host.changes.post(
                self._task_id, "/containers/create", complete, name=name
            )
        except Refused as error:
            if self._dialect.is_no_image(error):
                return False
            if self._dialect.is_no_network(error):  # removed by hand, just now
                self._host.networks.forget(joined(self._assignment))
                raise EngineUnavailable(str(error)) from error
            if not self._dialect.is_name_taken(error):
                raise ExecutorError(str(error)) from error
            taken = await inspect(self._host.engine, name)  # noqa: ASYNC120 - cancelled, nobody asks why
            if taken is None:  # by another daemon, just now; the next try finds out
                raise EngineUnavailable(str(error)) from error
            if not self._is_mine(taken):
                raise ExecutorError(
                    f"a container that is not this node's has the name {name}; remove or rename it"
                ) from error
            made = {"Id": taken.container_id}
        self._container = self._handle(made["Id"])
        self._host.images.resolved(self._wanted())
        return True

    async def _connect(self) -> None:
        """Connect the container to those of its networks that it was not created on."""
        places = endpoints(self._assignment)
        if len(places) < 2:
            return
        container, seen = await self._existing()
        for name, place in places.items():
            if name in seen.networks:
                continue
            body = self._dialect.place_body(container.container_id, place)
            if body is None:
                return
            try:
                path = f"/networks/{quoted(name)}/connect"
                await self._host.changes.post(self._task_id, path, body)
            except Refused as error:
                if error.status == 404:
                    self._host.networks.forget(joined(self._assignment))
                    raise EngineUnavailable(f"network {name}: {error}") from error
                raise ExecutorError(f"network {name} cannot be joined: {error}") from error

    async def _start(self, container: Container) -> None:
        try:
            path = f"/containers/{container.container_id}/start"
            await self._host.changes.post(self._task_id, path)
        except Refused as error:
            # An engine that is going down refuses too. Look before the task is called failed.
            if not (await container.inspect()).never_started:  # noqa: ASYNC120 - cancelled, nobody asks why
                return
            await self._remake_networks(error)  # noqa: ASYNC120 - the same
            raise ExecutorError(f"starting container failed: {error}") from error

    async def _remake_networks(self, error: Refused) -> None:
        """Have networks made again that somebody removed, once; the next try then starts it.

        Raises:
            EngineUnavailable: it is worth another try.
        """
        if self._dialect.is_no_network(error) and not self._networks_remade:
            self._networks_remade = True
            networks = joined(self._assignment)
            self._host.networks.forget(networks)
            await self._host.networks.join(self._task_id, networks)
            raise EngineUnavailable(str(error)) from error

    async def _while_probed(
        self, container: Container, condition: Callable[[], Awaitable[Inspection]]
    ) -> Inspection:
        """Wait for a condition of a container, and run its health check meanwhile.

        Whoever waits for a task sees to its checks, where the engine does not: so they begin with
        the daemon that adopted it, and end with the wait.
        """
        probe = self._dialect.probe
        if probe is None or not self._has_check:
            return await condition()
        outcome: Inspection | ExecutorError | EngineUnavailable
        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe, container, name=f"health of task {self._task_id}")
            try:
                outcome = await condition()
            except (ExecutorError, EngineUnavailable) as error:
                outcome = error  # raised below, outside the nursery, which would wrap it
            nursery.cancel_scope.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @asynccontextmanager
    async def _no_files_after_failure(self) -> AsyncIterator[None]:
        """Drop the task's files when a step fails: failed for good, it is not taken again."""
        try:
            yield
        except ExecutorError:
            await self._drop_files()  # noqa: ASYNC120 - cancelled, nobody asks why
            raise

    async def _drop_files(self) -> None:
        """Remove the task's secrets and configs: a container of a task is not started twice."""
        await trio.to_thread.run_sync(
            self._host.files.remove, self._task_id, limiter=self._host.disk
        )

    async def _stop_unhealthy(self) -> None:
        self._was_unhealthy = True
        await self.shutdown()

    def _is_mine(self, seen: Inspection) -> bool:
        return seen.is_of(self._host.identity) and seen.labels[TASK_LABEL] == self._task_id

    def _handle(self, container_id: str) -> Container:
        return Container(self._host.engine, self._host.observer, container_id)

    def _wanted(self) -> Wanted:
        spec = msgspec.msgpack.encode((self._assignment.task.ServiceID, self._assignment.task.Spec))
        return Wanted(
            image=container_spec(self._assignment).Image,
            auth=self._assignment.registry_auth,
            spec_key=hashlib.sha256(spec).digest(),
        )
