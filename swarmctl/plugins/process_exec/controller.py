"""An executor's handle on one task: each step is a request to the keeper, or a look at its view.

No state is kept here: what was done is on record with the keeper, so every step can be cancelled
and asked again, by this object or by one in another daemon after this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.core.clock import SystemClock
from swarmctl.plugins import ExecutorError, ExitStatus, TaskObservation
from swarmctl.plugins.model import ContainerStatus, PortStatus

from . import accounts, request
from .logfiles import LogReader
from .session import KeeperLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from swarmctl.plugins import LogLine, LogOptions
    from swarmctl.plugins.model import TaskAssignment

    from .executor import ProcessExecutor
    from .link import TaskView


class ProcessTask:
    """See :class:`swarmctl.plugins.TaskController`."""

    def __init__(self, executor: ProcessExecutor, assignment: TaskAssignment) -> None:
        self._executor = executor
        self._link = executor.link
        self._assignment = assignment
        self._id = assignment.task.ID

    async def prepare(self) -> None:
        """Refuse what cannot be honoured, then make the task's directory."""
        view = await self._view()
        if view is not None:
            return
        request.check(self._assignment)
        account = await self._account()
        await self._make(account)

    async def start(self) -> None:
        """Start the process, and wait for its health check's verdict if it has one."""
        view = await self._view()
        if view is None or view.phase in ("made", "starting") or view.never_ran:
            account = await self._account()
            if view is None:
                await self._make(account)
            node_id = self._executor.identity.node_id
            spec = request.start_spec(self._assignment, account, node_id)
            await self._link.call("start", {"task_id": self._id, "spec": spec})
        monitor = self._executor.monitor(self._assignment)
        if monitor is not None:
            await monitor.wait_verdict()
            if monitor.health.healthy is False:  # it is being stopped; until then it looks alive
                await self._link.wait_task(self._id, lambda v: v is None or v.ended)

    async def wait(self) -> ExitStatus:
        """Wait for the end; an unknown task can only have been lost with its directory."""
        await self._view()
        self._executor.monitor(self._assignment)
        view = await self._link.wait_task(self._id, lambda v: v is None or v.ended)
        if view is None:
            raise ExecutorError("the task's record is gone from this node; it was removed")
        return ExitStatus(code=view.code, error=view.error, finished_at=view.ended_at)

    async def shutdown(self) -> None:
        """Stop signal, grace, kill; the keeper sees to it even when this daemon goes away."""
        view = await self._view()
        if view is not None and view.live:
            stop = request.stop(request.container_spec(self._assignment))
            fields = {"signal": stop.signal, "grace_s": stop.grace_s, "reason": ""}
            await self._link.call("stop", {"task_id": self._id, **fields})
            await self._link.wait_task(self._id, lambda v: v is None or v.ended)

    async def kill(self) -> None:
        """Kill all processes of the task and wait for their end."""
        view = await self._view()
        if view is not None and view.live:
            await self._link.call("kill", {"task_id": self._id})
            await self._link.wait_task(self._id, lambda v: v is None or v.ended)

    async def remove(self) -> None:
        """Kill what runs, then remove directory, output and record."""
        await self._executor.remove_leftover(self._id)

    async def observe(self) -> TaskObservation:
        """Tell pid, exit code and ports; a process binds its host ports itself, as published."""
        view = await self._view()
        if view is None or not view.pid:
            return TaskObservation()
        monitor = self._executor.monitor(self._assignment)
        ports = tuple(p for p in self._assignment.ports if p.PublishMode == "host")
        return TaskObservation(
            container=ContainerStatus(
                ContainerID=self._id, PID=view.pid if view.live else 0, ExitCode=view.code
            ),
            ports=PortStatus(Ports=ports),
            healthy=monitor.health.healthy if monitor is not None else None,
        )

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Give the output from the task's files; for ``follow`` the keeper says when it grew."""
        reader = LogReader(str(self._executor.root / self._id), options)
        try:
            seen, over = -1, not options.follow
            while True:
                if options.follow:
                    seen, over = await self._grown(seen, options.until)
                while (batch := await trio.to_thread.run_sync(reader.read)) is not None:
                    for line in batch:
                        yield line
                if over:
                    break
            for line in reader.finish():
                yield line
        finally:
            reader.close()

    # --- parts -----------------------------------------------------------------------------------

    async def _view(self) -> TaskView | None:
        await self._link.ready()
        return self._executor.ours().get(self._id)

    async def _account(self) -> accounts.Account:
        """Look up whom the task runs as, and whether it can be done here."""
        spec = request.container_spec(self._assignment)
        missing = request.limits(self._assignment).controllers - self._link.limits
        if missing:
            names = ", ".join(sorted(missing))
            raise ExecutorError(
                f"Resources.Limits: this host gives no cgroup for {names}; "
                "run without such limits, or on a node that has them"
            )
        if not (spec.User or spec.Groups or spec.Dir):
            return accounts.Account(home=accounts.own_home())
        return await trio.to_thread.run_sync(self._resolve, spec.User, spec.Groups, spec.Dir)

    def _resolve(self, user: str, groups: tuple[str, ...], folder: str) -> accounts.Account:
        account = accounts.resolve(user, groups)
        if folder:
            accounts.check_folder(folder)
        blocked = accounts.blocked_at(self._executor.root, account)
        if blocked is not None:
            raise ExecutorError(
                f'ContainerSpec.User "{user}" cannot reach its working directory and secrets: '
                f"{blocked} is closed to it; chmod o+x {blocked} would open it"
            )
        return account

    async def _make(self, account: accounts.Account) -> None:
        identity = self._executor.identity
        fields = {
            "task_id": self._id,
            "cluster_id": identity.cluster_id,
            "node_id": identity.node_id,
            "uid": account.uid,
            "gid": account.gid,
        }
        await self._link.call("prepare", fields)

    async def _grown(self, seen: int, until: int) -> tuple[int, bool]:
        """Wait for more output; (how much there is now, whether that is all)."""
        remaining_s = (until - SystemClock().now()) / 1e9 if until else float("inf")
        with trio.move_on_after(max(0.0, remaining_s)):
            while True:
                try:
                    fields = {"task_id": self._id, "seen": seen}
                    answer = await self._link.call("grown", fields)
                except KeeperLost:
                    seen = -1  # the next keeper counts anew
                    continue
                except ExecutorError:
                    return seen, True  # it was removed
                return answer["written"], answer["ended"]
        return seen, True
