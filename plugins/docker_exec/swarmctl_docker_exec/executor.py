"""The executor: one Docker engine on this host, and all of this node's containers on it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import EngineUnavailable, InvalidArgument, TaskStats

from .cgroups import Groups
from .changes import Changes
from .container import Container, ContainerGone
from .controller import DockerController, Host
from .describe import description, stats_sample
from .engine import Engine, Refused
from .files import TaskFiles
from .networks import EngineNetworks
from .observe import Observer
from .pull import Images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swarmctl.plugins import (
        ExecutorDescription,
        ExecutorSettings,
        NodeIdentity,
        TaskController,
    )
    from swarmctl.plugins.model import TaskAssignment

DEFAULT_ENGINE = "unix:///var/run/docker.sock"
CLEANUP_S = 5.0


class DockerExecutor:
    """Implements :class:`swarmctl.plugins.Executor` on a Docker engine."""

    name = "docker"

    def __init__(self, settings: ExecutorSettings) -> None:
        """Touches nothing yet.

        Raises:
            InvalidArgument: the engine is not named by a unix socket.
        """
        endpoint = settings.engine or DEFAULT_ENGINE
        if not endpoint.startswith("unix:///"):
            # An executor runs tasks on its own host, and shows them secrets by that host's files.
            raise InvalidArgument(
                f'engine "{endpoint}" must be a unix socket of this host, such as {DEFAULT_ENGINE}'
            )
        self._engine = Engine(endpoint.removeprefix("unix://"), changes=settings.limits.changes)
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
            files=TaskFiles(PurePosixPath(identity.state_dir) / "docker" / "files"),
            disk=disk,
        )
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._changes.run, name="docker changes")
                nursery.start_soon(self._observer.run, identity, name="docker events")
                nursery.start_soon(networks.run, name="docker networks")
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
        return description(info, hostname=hostname)

    def controller(self, assignment: TaskAssignment) -> TaskController:
        return DockerController(self._running_host, assignment)

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

    async def _sample(self, task_id: str, container_id: str, into: dict[str, TaskStats]) -> None:
        query = {"stream": "0", "one-shot": "1"}
        try:
            raw = await self._engine.get(f"/containers/{container_id}/stats", **query)
        except (Refused, EngineUnavailable):
            return  # left out, as promised
        sample = stats_sample(raw)
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
            raise EngineUnavailable("the docker executor has not been started")
        return self._host
