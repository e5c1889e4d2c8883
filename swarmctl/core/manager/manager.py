"""A manager: consensus, the node port, and the leader's work while it leads.

    run
    ├ raft runner          the only owner of the Raft object
    ├ node port            CA, dispatcher sessions; one task for each link
    ├ door                 cuts removed nodes
    └ leader terms         one nursery for each term of leadership

It ends by failing: a manager whose disk failed, or that met an entry it does not know, must not go
on. It must not know HTTP, executors, or how this node came to be a manager.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..ca.server import CAServer
from ..dispatcher.server import Dispatcher
from ..errors import NoLeader
from ..model.change import Kind
from ..model.session import SESSION_METHOD
from ..raft.runner import Runner
from ..store.watch import Watch
from ..wire.connect import serve_links
from .door import Door
from .leader import Alarms, run_leader
from .propose import Proposer, TableMachine
from .reconcile import Loop, Reconciler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..ca.credentials import Credentials
    from ..clock import Clock
    from ..model.change import Result, Transaction
    from ..raft.message import Message
    from ..raft.raft import Status
    from ..store.view import View
    from .state import OpenState

LEADER_WAIT_S = 10.0

log = logging.getLogger(__name__)


class Manager:
    """This node as a manager.

    Args:
        state: opened by ``state.open_state``; owned from now on.
        reconcilers: what the leader runs, in the order of the pipeline.
        new_id: makes fresh ids.
    """

    def __init__(
        self,
        state: OpenState,
        credentials: Credentials,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._credentials = credentials
        self._reconcilers = reconcilers
        self._clock = clock
        self._new_id = new_id
        self._store = state.store
        self.watch = Watch()
        self.watch.index = state.store.index
        self.alarms = Alarms()
        machine = TableMachine(state.store, self.watch)
        self._runner = Runner(state.raft, state.disk, machine, _drop)
        self._proposer = Proposer(self._runner, clock)
        self._ca = CAServer(self.view, self._proposer, clock, new_id)
        self.dispatcher = Dispatcher(
            view=self.view, watch=self.watch, proposer=self._proposer, clock=clock, new_id=new_id
        )
        self._door = Door(
            self.view,
            self.watch,
            calls=self._ca.calls(),
            streams={SESSION_METHOD: self.dispatcher.serve_session},
        )

    @property
    def view(self) -> View:
        """The tables, live."""
        return self._store.view

    @property
    def leading(self) -> bool:
        """True while this manager leads and its tables are as new as anybody's."""
        return self._runner.leading

    def raft_status(self) -> Status:
        """Return where consensus stands here."""
        return self._runner.status()

    async def wait_leading(self) -> None:
        """Sleep until this manager leads.

        Raises:
            NoLeader: not within ``LEADER_WAIT_S``.
        """
        with trio.move_on_after(LEADER_WAIT_S):
            while not self._runner.leading:
                await self._runner.leadership_changed.wait()
            return
        raise NoLeader

    async def read(self) -> View:
        """Return the tables once reading them is linearizable.

        Raises:
            NoLeader: nobody leads.
        """
        await self.wait_leading()
        with trio.move_on_after(LEADER_WAIT_S):
            await self._runner.wait_readable()
            return self.view
        raise NoLeader

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        """Have transactions applied; see ``Proposer.propose``."""
        await self.wait_leading()
        return await self._proposer.propose(transactions)

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be a manager until cancelled.

        Raises:
            StorageFailed, Undecodable, SafetyViolation: this manager must stop being one.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._runner.run)
            nursery.start_soon(self._door.run, name="door")
            nursery.start_soon(self._follow_settings, name="raft settings")
            await nursery.start(
                serve_links, listeners, self._credentials.server_context, self._door.welcome
            )
            nursery.start_soon(self._lead_terms, name="leader terms")
            task_status.started()

    async def _follow_settings(self) -> None:
        """Let the cluster's Raft settings count on this manager."""
        with self.watch.mailbox() as mailbox:
            while True:
                touched = mailbox.take()
                if touched is None or any(ref.kind is Kind.CLUSTER for ref in touched):
                    cluster = self.view.cluster()
                    raft = cluster.api.Spec.Raft if cluster is not None else None
                    if raft is not None and raft.SnapshotInterval:
                        self._runner.snapshot_interval = raft.SnapshotInterval
                        self._runner.keep_entries = raft.LogEntriesForSlowFollowers
                await mailbox.wait()

    async def _lead_terms(self) -> None:
        while True:
            while not self._runner.leading:
                await self._runner.leadership_changed.wait()
            lost = self._runner.leadership_changed
            log.info("this manager leads, in term %d", self._runner.status().term)
            async with trio.open_nursery() as term:
                term.start_soon(self._end_with, lost, term.cancel_scope)
                term.start_soon(run_leader, self._components(), self.alarms, name="leader")
            log.info("this manager no longer leads")

    async def _end_with(self, lost: trio.Event, scope: trio.CancelScope) -> None:
        await lost.wait()
        scope.cancel()

    def _components(self) -> dict[str, Callable[[], Awaitable[None]]]:
        components: dict[str, Callable[[], Awaitable[None]]] = {}
        for reconciler in self._reconcilers:
            components[reconciler.name] = Loop(
                reconciler,
                view=self.view,
                watch=self.watch,
                proposer=self._proposer,
                clock=self._clock,
                new_id=self._new_id,
            ).run
        components["dispatcher"] = self.dispatcher.run
        return components


def _drop(message: Message) -> None:
    """Send nothing: a lone manager has nobody to tell."""
    log.debug("no way to send %s to member %d", message.kind.name, message.to)
