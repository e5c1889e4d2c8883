"""Runs tasks as plain processes of this host, under a keeper that outlives the daemon.

What containers give and processes cannot have is refused, never dropped (``refuse.py``). What
this executor makes lies in ``<state dir>/process`` and in cgroups named after that directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import EngineUnavailable, TaskStats

from . import host, request
from .bundle import directory_key
from .controller import ProcessTask
from .link import KeeperLink, TaskView
from .monitor import HealthMonitor
from .usage import sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swarmctl.plugins import ExecutorDescription, ExecutorSettings, NodeIdentity
    from swarmctl.plugins.model import TaskAssignment

FOLDER = "process"


class ProcessExecutor:
    """See :class:`swarmctl.plugins.Executor`.

    Args:
        settings: of this node; ``state_dir`` is where tasks live.
        keeper_idle_s: how long a keeper stays without tasks and daemons; None for its default.

    Attributes:
        root: this executor's own directory.
        link: the line to the keeper.
    """

    name = "process"
    host_network = True

    def __init__(self, settings: ExecutorSettings, *, keeper_idle_s: float | None = None) -> None:
        self.root = Path(settings.state_dir).absolute() / FOLDER
        self.link = KeeperLink(self.root, idle_s=keeper_idle_s)
        self._identity: NodeIdentity | None = None
        self._nursery: trio.Nursery | None = None
        self._monitors: dict[str, HealthMonitor] = {}

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hold the line to the keeper and watch over tasks' health, until cancelled."""
        self._identity = identity
        await trio.to_thread.run_sync(self._make_root)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.link.run, name="keeper link")
                task_status.started()
        finally:
            self._nursery = None
            self._monitors.clear()

    async def describe(self) -> ExecutorDescription:
        """Describe this host; needs no keeper and starts none."""
        return await trio.to_thread.run_sync(self._describe)

    def controller(self, assignment: TaskAssignment) -> ProcessTask:
        """Return a handle on a task."""
        return ProcessTask(self, assignment)

    async def known_tasks(self) -> Mapping[str, bool]:
        """Return our tasks and whether anything of them still runs."""
        await self.link.ready()
        return {task_id: view.live for task_id, view in self.ours().items()}

    async def remove_leftover(self, task_id: str) -> None:
        """Kill what runs of a task of ours and remove all traces of it."""
        await self.link.ready()
        if task_id in self.ours():
            await self.link.call("remove", {"task_id": task_id})

    async def stats(self, task_ids: Sequence[str]) -> Mapping[str, TaskStats]:
        """Sample tasks that run; network counters stay 0, since the network is the host's."""
        await self.link.ready()
        ours = self.ours()
        views = [ours[task_id] for task_id in dict.fromkeys(task_ids) if task_id in ours]
        return await trio.to_thread.run_sync(sample, [view for view in views if view.live])

    # --- for controllers -------------------------------------------------------------------------

    @property
    def identity(self) -> NodeIdentity:
        """Who this node is.

        Raises:
            EngineUnavailable: ``run`` was not called.
        """
        if self._identity is None:
            raise EngineUnavailable("the process executor does not run")
        return self._identity

    def ours(self) -> dict[str, TaskView]:
        """Return what the keeper says of the tasks of this node in this cluster."""
        own = (self.identity.cluster_id, self.identity.node_id)
        tasks = self.link.tasks
        return {i: view for i, view in tasks.items() if (view.cluster_id, view.node_id) == own}

    def monitor(self, assignment: TaskAssignment) -> HealthMonitor | None:
        """Return the task's health monitor, started if need be; None without a health check.

        Adds a task to the nursery of :meth:`run`; it ends with the task's process.
        """
        spec = request.container_spec(assignment)
        check = request.health(spec)
        task_id = assignment.task.ID
        view = self.ours().get(task_id)
        if check is None or self._nursery is None or view is None:
            return None
        monitor = self._monitors.get(task_id)
        if monitor is None:
            if not view.live:
                return None
            monitor = HealthMonitor(self.link, task_id, check, request.stop(spec))
            self._monitors[task_id] = monitor
            self._nursery.start_soon(self._run_monitor, monitor, task_id, name=f"health {task_id}")
        return monitor

    async def _run_monitor(self, monitor: HealthMonitor, task_id: str) -> None:
        try:
            await monitor.run()
        finally:
            self._monitors.pop(task_id, None)

    def _describe(self) -> ExecutorDescription:
        try:
            self._make_root()
        except OSError as error:
            raise EngineUnavailable(f"{self.root}: {error.strerror}") from error
        return host.describe(directory_key(self.root))

    def _make_root(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)  # tasks of other users pass through to their own
