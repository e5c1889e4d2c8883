"""The executor: one engine on this host, and all of this node's containers on it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import EngineUnavailable, InvalidArgument, TaskStats

from .calls import Engine, Refused
from .cgroups import Groups
from .changes import Changes
from .container import Container, ContainerGone
from .files import TaskFiles
from .networks import EngineNetworks
from .observe import Observer
from .pull import Images
from .task import ContainerTask, Host
from .visitors import Visitors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from swarmctl.plugins import (
        ExecutorDescription,
        ExecutorSettings,
        NodeIdentity,
        Sandbox,
        TaskController,
    )
    from swarmctl.plugins.model import HostNetwork, TaskAssignment

    from .dialect import Dialect

CLEANUP_S = 5.0


class EngineExecutor:
    """Implements :class:`swarmctl.plugins.Executor` on an engine that speaks ``dialect``.

    And :class:`swarmctl.plugins.NetworkHost`, and :class:`swarmctl.plugins.EngineHost`.
    """

    def __init__(self, settings: ExecutorSettings, dialect: Dialect) -> None:
        """Touches nothing yet.

        Raises:
            InvalidArgument: the engine is not named by a unix socket.
        """
        self.name = dialect.name
        self._dialect = dialect
        endpoint = settings.engine or dialect.endpoint
        if not endpoint.startswith("unix:///"):
            # An executor runs tasks on its own host, and shows them secrets by that host's files.
            raise InvalidArgument(
                f'engine "{endpoint}" must be a unix socket of this host, such as '
                f"{dialect.endpoint}"
            )
        self.engine_socket = endpoint.removeprefix("unix://")
        self._engine = Engine(self.engine_socket, dialect, changes=settings.limits.changes)
        self._changes = Changes(self._engine)
        self._observer = Observer(self._engine)
        self._images = Images(self._engine, pulls=settings.limits.pulls)
        self._groups = Groups()
        self._sampling = trio.CapacityLimiter(1)
        self._host: Host | None = None

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        disk = trio.CapacityLimiter(1)
        networks = EngineNetworks(self._engine, self._changes, identity, disk)
        host = self._host = Host(
            identity=identity,
            engine=self._engine,
            changes=self._changes,
            observer=self._observer,
            images=self._images,
            networks=networks,
            files=TaskFiles(self._dialect.files_dir(PurePosixPath(identity.state_dir))),
            disk=disk,
        )
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._changes.run, name=f"{self.name} changes")
                nursery.start_soon(self._observer.run, identity, name=f"{self.name} events")
                nursery.start_soon(networks.run, name=f"{self.name} networks")
                task_status.started()
        finally:
            self._engine.close()
            with trio.move_on_after(CLEANUP_S, shield=True):
                await trio.to_thread.run_sync(
                    host.files.close, limiter=host.disk, abandon_on_cancel=True
                )

    async def describe(self) -> ExecutorDescription:
        try:
            info = await self._engine.get("/info")
        except Refused as error:
            raise EngineUnavailable(f"the engine cannot describe itself: {error}") from error
        finally:
            if self._host is None:
                self._engine.close()  # asked while looking for an engine; maybe not chosen
        hostname = self._host.identity.hostname if self._host else ""
        return self._dialect.description(info, hostname=hostname)

    def controller(self, assignment: TaskAssignment) -> TaskController:
        return ContainerTask(self._running_host, assignment)

    async def known_tasks(self) -> Mapping[str, bool]:
        host = self._running_host
        with_files = await trio.to_thread.run_sync(host.files.task_ids, limiter=host.disk)
        known = dict.fromkeys(with_files, False)
        for row in await self._observer.containers(host.identity):
            known[row.task_id] = known.get(row.task_id, False) or row.is_running
        return known

    async def remove_leftover(self, task_id: str) -> None:
        host = self._running_host
        await self._changes.settled(task_id)
        for row in await self._observer.containers(host.identity):
            if row.task_id == task_id:
                await self._remove(Container(self._engine, self._observer, row.container_id))
        await host.networks.leave(task_id)
        await trio.to_thread.run_sync(host.files.remove, task_id, limiter=host.disk)

    async def stats(self, task_ids: Sequence[str]) -> Mapping[str, TaskStats]:
        wanted = set(task_ids)
        listed = await self._observer.containers(self._running_host.identity)
        running = {
            row.task_id: row.container_id
            for row in listed
            if row.task_id in wanted and row.is_running
        }
        samples = await trio.to_thread.run_sync(
            self._groups.sample, running, limiter=self._sampling
        )
        async with trio.open_nursery() as nursery:
            for task_id, container_id in running.items():
                if task_id not in samples:  # its group is not to be seen here
                    nursery.start_soon(self._sample, task_id, container_id, samples)
        return samples

    async def keep_networks(self, networks: Sequence[HostNetwork]) -> None:
        await self._running_host.networks.keep(networks)

    async def watch_visitors(self, tell: Callable[[Sequence[Sandbox]], None]) -> None:
        await Visitors(self._engine, self._running_host.networks).run(tell)

    async def _sample(self, task_id: str, container_id: str, into: dict[str, TaskStats]) -> None:
        try:
            sample = await self._dialect.sample(self._engine, container_id)
        except (Refused, EngineUnavailable):
            return  # left out, as promised
        if sample is not None:
            into[task_id] = sample

    async def _remove(self, container: Container) -> None:
        """Stop a container by its own signal and grace, since its spec is forgotten; remove it."""
        try:
            seen = await container.inspect()
            if seen.is_running:
                await container.signal(seen.stop_signal)
                await container.end_by(trio.current_time() + seen.stop_timeout_s)
        except ContainerGone:
            return
        await container.remove()

    @property
    def _running_host(self) -> Host:
        if self._host is None:
            raise EngineUnavailable(f"the {self.name} executor has not been started")
        return self._host
