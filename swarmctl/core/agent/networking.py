"""This node's part in the swarm's networks: a driver, what it was told, and what it says.

Puts the endpoint table together from what the dispatcher sends, remembers it for the next daemon,
and gives it to the network driver with the tasks' sandboxes. Laws:

- The driver's trouble costs traffic and nothing else: it is started again, its words are shown.
- A table is known to managers as known when the driver's kernel agreed with it, never before.
- It goes on with the table it has while no manager is in reach. After a restart the kernel is left
  as it is until a manager tells, or none did for a while: what is remembered may be a moment older.
  The tasks that are adopted are found first, so that none of them is without its place meanwhile.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..errors import SwarmError, Unavailable
from ..model.endpointbook import EndpointBook
from ..model.endpoints import EMPTY_TABLE
from ..model.session import EndpointsKnown
from ..together import leaves, run_until_first
from .executor import EngineUnavailable, ExecutorError, NetworkHost
from .network import NetworkState, Sandbox
from .visitors import Visitors

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..model.endpoints import EndpointChanges, EndpointTable
    from ..model.task import Task
    from .disk import TaskTable
    from .executor import Executor, NodeIdentity, TaskController
    from .network import NetworkDriver, NodeReport

START_S = 5.0
"""How long the agent waits for its driver before it says that it has none."""
AGAIN_S = 10.0
KNOWN_EVERY_S = 0.02
KEEP_EVERY_S = 0.2
REMEMBERED_S = 10.0
"""How long a new daemon leaves the kernel as it is while it waits for a manager."""
SANDBOX_S = 3.0
"""How long a task that runs is not reported as running because its network is not ready."""
ADOPTED_S = 5.0
"""How long the tasks of the daemon before may take to be found."""
FIND_FIRST_S = 0.02
FIND_MAX_S = 0.5
REMOVE_S = 20.0
PROBLEMS_SHOWN = 3

log = logging.getLogger(__name__)


class Networking:
    """Keeps a driver at work.

    Args:
        driver: None where nothing shall carry traffic.
        keeper: remembers the table on the disk.
        executor: the node's. One with an attribute ``host_network`` gives tasks no sandboxes.
    """

    def __init__(self, driver: NetworkDriver | None, keeper: TaskTable, executor: Executor) -> None:
        self._driver = driver
        self._keeper = keeper
        self._host_network = bool(getattr(executor, "host_network", False))
        self._visitors: Visitors | None = None
        if isinstance(executor, NetworkHost):
            self._visitors = Visitors(executor, self._tell_driver)
        self._book = EndpointBook()
        self._table: EndpointTable = keeper.endpoints
        self._sandboxes: dict[str, Sandbox] = {}
        self._failure = ""
        self._works = False
        self._carrying = trio.CancelScope()
        self._is_current = False
        self._awaited: set[str] = set()
        self._waits = True  # for who is there since before
        self._changed = trio.Event()
        self._new = trio.Event()
        self.settled = trio.Event()

    async def run(self, identity: NodeIdentity) -> None:
        """Carry traffic until cancelled, which takes nothing down."""
        if self._driver is None:
            self.settled.set()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, name="network table")
            nursery.start_soon(self._go_by_memory, name="remembered networks")
            nursery.start_soon(self._stop_waiting, name="adopted sandboxes")
            if self._visitors is not None:
                self._visitors.want(self._table)
                nursery.start_soon(self._visitors.run, name="attachable networks")
            while True:
                await self._carry(self._driver, identity)
                self.settled.set()
                await trio.sleep(AGAIN_S)

    async def wait_settled(self) -> None:
        """Sleep until it is known whether the driver works here, or for too long."""
        with trio.move_on_after(START_S):
            await self.settled.wait()

    async def _carry(self, driver: NetworkDriver, identity: NodeIdentity) -> None:
        """Run the driver until it fails."""
        try:
            async with trio.open_nursery() as nursery:
                self._carrying = nursery.cancel_scope
                await nursery.start(driver.run, identity)
                self._works, self._failure = True, ""
                self._tell_driver()
                self._change()
                self.settled.set()
        except Exception as error:  # of a plugin: the tasks go on
            failure: BaseException = error
            if isinstance(error, BaseExceptionGroup):
                known = error.split(SwarmError)
                if known[0] is not None and known[1] is None:
                    failure = leaves(known[0])[0]
            if isinstance(failure, SwarmError):
                self._failure = f"the network driver {driver.name} does not work here: {failure}"
                log.warning("%s", self._failure)
            else:
                self._note_bug(driver, failure)
        finally:
            self._works = False
            self._change()

    def _note_bug(self, driver: NetworkDriver, bug: BaseException) -> None:
        self._failure = f"the network driver {driver.name} failed: {bug!r}"
        log.error("the network driver %s has a bug", driver.name, exc_info=bug)

    def _end_driver(self, driver: NetworkDriver, bug: Exception) -> None:
        """One of the driver's methods raised: it is ended, and started again after a while."""
        self._note_bug(driver, bug)
        self._works = False
        self._carrying.cancel()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- what is known of it ---

    @property
    def driver_name(self) -> str:
        """Name of the driver that works, or empty."""
        return self._driver.name if self._driver is not None and self._works else ""

    @property
    def answers_names(self) -> bool:
        """Is there a driver at work that answers names at this node's gateways?"""
        return self._works and bool(getattr(self._driver, "answers_names", False))

    @property
    def host_network(self) -> bool:
        return self._host_network

    @property
    def warning(self) -> str:
        """A sentence on what does not work, or empty."""
        if self._failure or self._driver is None or not self._works:
            return self._failure
        try:
            problems = self._driver.state().problems
        except Exception as error:  # of a plugin, here and below
            self._end_driver(self._driver, error)
            return self._failure
        if self._visitors is not None:
            problems = (*self._visitors.problems, *problems)
        more = len(problems) - PROBLEMS_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        return "; ".join(problems[:PROBLEMS_SHOWN]) + rest

    async def doctor(self, *, brief: bool, probe: bool) -> NodeReport:
        """Return what the driver finds on this node.

        Raises:
            Unavailable: there is no driver at work.
        """
        if self._driver is None or not self._works:
            raise Unavailable(self._failure or "the node has no network driver")
        try:
            return await self._driver.doctor(brief=brief, probe=probe)
        except SwarmError:
            raise
        except Exception as error:
            log.exception("the network driver %s has a bug", self._driver.name)
            raise Unavailable(
                f"the network driver {self._driver.name} failed: {error!r}"
            ) from error

    # --- what it is told ---

    def apply(self, changes: EndpointChanges) -> None:
        """Take in what the dispatcher sent."""
        table = self._book.apply(changes)
        if table is not None:
            self._table = table
            self._is_current = True
            self._new.set()
            if self._visitors is not None:
                self._visitors.want(table)
            self._tell_driver()
            self._change()

    async def _go_by_memory(self) -> None:
        """Take the remembered table for the present one when no manager tells."""
        await trio.sleep(REMEMBERED_S)
        self._is_current = True
        self._tell_driver()
        self._change()

    async def _stop_waiting(self) -> None:
        """Go on without the adopted tasks that were not found."""
        await trio.sleep(ADOPTED_S)
        self._awaited.clear()
        self._waits = False
        self._tell_driver()

    def _tell_driver(self) -> None:
        if self._driver is None or not (self._works and self._is_current) or self._awaited:
            return
        visitors: Iterable[Sandbox] = ()
        if self._visitors is not None:
            if self._waits and not self._visitors.are_known:
                return
            visitors = self._visitors.sandboxes
        try:
            self._driver.want(self._table, (*self._sandboxes.values(), *visitors))
        except Exception as error:
            self._end_driver(self._driver, error)

    async def _keep(self) -> None:
        """Remember the table for the next daemon, not oftener than need be."""
        while True:
            await self._new.wait()
            self._new = trio.Event()
            try:
                await trio.sleep(KEEP_EVERY_S)
            finally:
                self._keeper.put_endpoints(self._table)

    async def tell(self, send: Callable[[EndpointsKnown], Awaitable[None]]) -> None:
        """Say over one session which table the kernel agrees with, until cancelled."""
        told = 0
        while True:
            wanted = self._table.version
            works = self._works and self._is_current
            if self._driver is None or not works or wanted == told:
                await self._changed.wait()
                continue
            reached: list[NetworkState] = []

            async def wait(driver: NetworkDriver = self._driver, version: int = wanted) -> None:
                try:
                    reached.append(await driver.wait_version(version))  # noqa: B023 - awaited here
                except Exception as error:
                    self._end_driver(driver, error)

            await run_until_first(wait, self._wait_stopped)
            if reached:
                told = min(reached[0].version, self._table.version)
                await send(EndpointsKnown(version=told))
                await trio.sleep(KNOWN_EVERY_S)

    async def _wait_stopped(self) -> None:
        while self._works:
            await self._changed.wait()

    async def remove_all(self) -> None:
        """Remove every trace of this node's networks; it leaves the swarm."""
        self._table = EMPTY_TABLE
        self._is_current = True
        self._sandboxes.clear()
        self._awaited.clear()
        self._book = EndpointBook()
        self._waits = False
        if self._visitors is not None:
            await self._visitors.forget()
        if self._driver is None or not self._works:
            return
        self._tell_driver()
        try:
            with trio.fail_after(REMOVE_S):
                await self._driver.remove_all()
        except Exception as error:
            log.warning("networks of the swarm that this node leaves may stay: %s", error)

    # --- tasks ---

    def place_of(self, task: Task) -> Place | None:
        """Return a task's place on the networks; None when it has none of its own here."""
        networks = tuple(one.Network.ID for one in task.NetworksAttachments if one.Addresses)
        of_host = self._host_network or len(networks) < len(task.NetworksAttachments)
        if self._driver is None or not networks or of_host:
            return None
        container = task.Spec.ContainerSpec
        dns = container.DNSConfig if container is not None else None
        sandbox = Sandbox(
            id=task.ID,
            pid=0,
            networks=networks,
            addresses=tuple(
                text.partition("/")[0] for one in task.NetworksAttachments for text in one.Addresses
            ),
            nameservers=dns.Nameservers if dns is not None else (),
        )
        return Place(self, sandbox)

    def expect(self, task_id: str) -> None:
        """Note that a task that ran before this daemon began is about to enter, or to leave."""
        self._awaited.add(task_id)

    def enter(self, sandbox: Sandbox) -> None:
        """Note that a task's sandbox is there."""
        self._awaited.discard(sandbox.id)
        if self._sandboxes.get(sandbox.id) != sandbox:
            self._sandboxes[sandbox.id] = sandbox
            self._tell_driver()

    def leave(self, task_id: str) -> None:
        """Note that a task has ended."""
        was_awaited = task_id in self._awaited
        self._awaited.discard(task_id)
        if self._sandboxes.pop(task_id, None) is not None or was_awaited:
            self._tell_driver()

    async def wait_sandbox(self, task_id: str) -> None:
        """Sleep until a task can reach what it may reach, or for too long."""
        if self._driver is None or not self._works or task_id not in self._sandboxes:
            return
        with trio.move_on_after(SANDBOX_S) as scope:
            wait = partial(self._wait_sandbox, self._driver, task_id)
            await run_until_first(wait, self._wait_stopped)
        if scope.cancelled_caught:
            log.warning("task %s runs, but its network is not ready after %g s", task_id, SANDBOX_S)

    async def _wait_sandbox(self, driver: NetworkDriver, task_id: str) -> None:
        try:
            await driver.wait_sandbox(task_id)
        except Exception as error:
            self._end_driver(driver, error)


class Place:
    """One task's place on the networks, for its runner."""

    def __init__(self, networking: Networking, sandbox: Sandbox) -> None:
        self._networking = networking
        self._sandbox = sandbox

    def expect(self) -> None:
        """Note that the task ran before this daemon began."""
        self._networking.expect(self._sandbox.id)

    def enter(self, pid: int) -> None:
        """Note a process of the task; without one it has ended."""
        if pid:
            self._networking.enter(replace(self._sandbox, pid=pid))
        else:
            self.leave()

    async def find(self, controller: TaskController) -> None:
        """Enter as soon as the task that is being started has a process.

        One with a health check may need its networks to become healthy.
        """
        pause_s = FIND_FIRST_S
        while True:
            await trio.sleep(pause_s)
            with suppress(EngineUnavailable, ExecutorError):  # whoever starts the task says that
                seen = await controller.observe()
                if seen.container is not None and seen.container.PID:
                    self.enter(seen.container.PID)
                    await trio.sleep_forever()  # who starts the task ends this
            pause_s = min(2 * pause_s, FIND_MAX_S)

    async def wait_ready(self) -> None:
        """Sleep until the task can reach what it may reach, or for too long."""
        await self._networking.wait_sandbox(self._sandbox.id)

    def leave(self) -> None:
        """Note that the task has ended."""
        self._networking.leave(self._sandbox.id)
