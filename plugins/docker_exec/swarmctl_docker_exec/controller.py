"""An executor's handle on one task: its container, from pull to removal.

Every method first looks at what is there, so each may be called again after a cancellation or a
restart of the daemon: a running container is adopted by finding it under the task's name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError, ExitStatus, TaskObservation

from .container import Container, inspect
from .endpoints import endpoints, joined
from .engine import Refused, quoted
from .inspection import UNHEALTHY
from .labels import TASK_LABEL
from .logs import read_logs
from .pull import Wanted
from .translate import container_spec, create_body, stop_grace_ns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from swarmctl.plugins import LogLine, LogOptions, NodeIdentity
    from swarmctl.plugins.model import TaskAssignment

    from .changes import Changes
    from .engine import Engine
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


class DockerController:
    """One task as a container; implements :class:`swarmctl.plugins.TaskController`."""

    def __init__(self, host: Host, assignment: TaskAssignment) -> None:
        self._host = host
        self._assignment = assignment
        self._task_id = assignment.task.ID
        self._container: Container | None = None
        self._was_unhealthy = False
        self._kill_at: float | None = None
        self._networks_remade = False

    async def prepare(self) -> None:
        found = await self._look()
        if found is not None and not found.never_started:
            return
        files = self._host.files
        body = create_body(
            self._assignment,
            self._host.identity,
            level=await self._host.engine.level(),
            files=files.binds(self._assignment),
        )
        failure = None if found else await self._host.images.try_pull(self._wanted())
        await self._host.networks.join(self._task_id, joined(self._assignment))
        # Also for a container that exists: since it was made the machine may have been rebooted.
        await trio.to_thread.run_sync(files.write, self._assignment, limiter=self._host.disk)
        if found is None:
            try:
                await self._create(body, failure)
            except ExecutorError:
                await self._drop_files()  # noqa: ASYNC120 - cancelled, nobody asks why
                raise
        await self._connect()

    async def start(self) -> None:
        container, seen = await self._existing()
        if seen.never_started:
            try:
                await self._start(container)
            except ExecutorError:
                await self._drop_files()  # noqa: ASYNC120 - cancelled, nobody asks why
                raise
        if not seen.has_health_check:
            return
        seen = await container.until_ended_or_judged()
        if seen.is_running and seen.is_healthy is False:
            await self._stop_unhealthy()

    async def wait(self) -> ExitStatus:
        container = self._container or (await self._existing())[0]
        while (seen := await container.until_ended_or_unhealthy()).is_running:
            await self._stop_unhealthy()
        await self._drop_files()
        if seen.never_started:
            raise ExecutorError("the container was never started")
        status = seen.exit_status()
        if self._was_unhealthy and not status.error:
            return msgspec.structs.replace(status, error=UNHEALTHY)
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
        return read_logs(self._host.engine, self._look, options)

    # --- finding and making the container ---------------------------------------------------

    async def _look(self) -> Inspection | None:
        """Look at the task's container; None when there is none of ours."""
        await self._host.changes.settled(self._task_id)
        if self._container is not None:
            return await inspect(self._host.engine, self._container.container_id)
        seen = await inspect(self._host.engine, self._assignment.name)
        if seen is None or not self._is_mine(seen):
            return None
        self._container = self._handle(seen.container_id)
        return seen

    async def _existing(self) -> tuple[Container, Inspection]:
        """Look at the task's container, which has to exist by now."""
        seen = await self._look()
        if seen is None or self._container is None:
            raise ExecutorError(f"No such container: {self._assignment.name}")
        return self._container, seen

    async def _create(self, body: dict[str, object], pull_failure: str | None) -> None:
        """Create the container; pull after all when the image turns out to be missing."""
        if await self._try_create(body):
            return
        if pull_failure is None:
            pull_failure = await self._host.images.try_pull(self._wanted(), even_if_fresh=True)
            if await self._try_create(body):
                return
        image = container_spec(self._assignment).Image
        raise ExecutorError(f"No such image: {image}" + (f": {pull_failure}" * bool(pull_failure)))

    async def _try_create(self, body: dict[str, object]) -> bool:
        """Create the container, or find it made already; False when its image is missing."""
        name = self._assignment.name
        try:
            made = await self._host.changes.post(
                self._task_id, "/containers/create", body, name=name
            )
        except Refused as error:
            if error.status == 404 and "no such image" in str(error).lower():
                return False
            if error.status == 404 and "network" in str(error):  # removed by hand, just now
                self._host.networks.forget(joined(self._assignment))
                raise EngineUnavailable(str(error)) from error
            if error.status != 409:
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
        if len(joined(self._assignment)) < 2:
            return
        places = endpoints(self._assignment, await self._host.engine.level())
        container, seen = await self._existing()
        for name, place in places.items():
            if name in seen.networks:
                continue
            body = {"Container": container.container_id, "EndpointConfig": place}
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
        if error.status == 404 and "network" in str(error) and not self._networks_remade:
            self._networks_remade = True
            networks = joined(self._assignment)
            self._host.networks.forget(networks)
            await self._host.networks.join(self._task_id, networks)
            raise EngineUnavailable(str(error)) from error

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
