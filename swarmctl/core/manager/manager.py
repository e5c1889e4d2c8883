"""A manager: consensus, what other nodes ask of it, and the leader's work while it leads.

    run
    ├ raft runner          the only owner of the Raft object
    ├ raft transport       a link to each other manager
    ├ roster               tells the transport who and where they are
    ├ door                 cuts removed nodes
    ├ lock                 this manager's keys, as the cluster's row wants them
    ├ events               who leads; all others come with the entries of the log
    └ leader terms         one nursery for each term of leadership

It ends by failing: a manager whose disk failed, or that met an entry it does not know, must not go
on. It must not know HTTP, executors, ports, or how this node came to be a manager.
"""

from __future__ import annotations

import logging
import math
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..autoscaler.source import no_source
from ..ca.server import CAServer
from ..dispatcher.server import Dispatcher
from ..errors import MemberRemoved, NoLeader, NotManager, SwarmError
from ..model.change import Kind
from ..model.session import SESSION_METHOD
from ..raft.errors import LogLost
from ..raft.message import NOBODY
from ..raft.runner import Runner
from ..raft.transport import SNAPSHOT, Transport
from ..store.dump import dump
from ..store.watch import Watch
from ..together import leaves, run_until_first
from .autoscaling import Autoscaler
from .backup import Head
from .calls import OUTPUT
from .door import Door
from .eventlog import EventLog
from .forward import LEADER_WAIT_S, Forwarder, Leader
from .handover import HandOver
from .leader import Alarms, run_leader
from .levels import format_level
from .lock import LockKeeper
from .members import Membership
from .output import Outputs
from .propose import Proposer, TableMachine
from .reachability import note_reachability
from .reconcile import Loop, Reconciler
from .roster import Roster

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from ..autoscaler.source import SourceOf
    from ..ca.credentials import Credentials
    from ..clock import Clock
    from ..model.change import Applied, Result, Transaction
    from ..raft.raft import Status
    from ..store.view import View
    from ..wire.link import Link, StreamMethod
    from .state import OpenState

HAND_OVER_S = 1.0
LOSS_TOLD_S = 5.0
"""Within so long a manager has noticed that most of the others are gone: a few elections."""
READ_AGAIN_S = 0.5

log = logging.getLogger(__name__)


class ManagerEnded(SwarmError):
    """A manager stopped being one; the text says why.

    Attributes:
        causes: what its parts met.
    """

    def __init__(self, causes: Sequence[SwarmError]) -> None:
        super().__init__("; ".join(str(cause) for cause in causes))
        self.causes = tuple(causes)

    @property
    def may_return(self) -> bool:
        """True when it may come back under a new number, with what the others have.

        It was removed from consensus, or its log lacks what it has acknowledged.
        """
        return all(isinstance(cause, (MemberRemoved, LogLost)) for cause in self.causes)


class Manager:
    """This node as a manager.

    Args:
        state: opened by ``state.open_state``; owned from now on.
        credentials: prove this node to the other managers.
        reconcilers: what the leader runs, in the order of the pipeline.
        new_id: makes fresh ids.
        told: where the other members are, by number, until the tables say so.
        streams: what this node offers to other managers besides, by method name.
        renew: asks for another certificate of this node.
        metric_source: gives what reads metrics, by name.
        events: gets what happens in the swarm; None for a list of its own.

    Attributes:
        membership: who takes part in consensus.
        leader: the manager that leads, wherever it is.
        outputs: what tasks have written, wherever they are.
        autoscaler: scales services by conditions, while this manager leads.
    """

    def __init__(
        self,
        state: OpenState,
        credentials: Credentials,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        new_id: Callable[[], str],
        *,
        told: Mapping[int, str] | None = None,
        streams: Mapping[str, StreamMethod] | None = None,
        renew: Callable[[], None] = lambda: None,
        metric_source: SourceOf = no_source,
        events: EventLog | None = None,
    ) -> None:
        self._reconcilers, self._clock, self._new_id = reconcilers, clock, new_id
        self._store, self._disk = state.store, state.disk
        self._led, self._managing = set[trio.CancelScope](), set[trio.CancelScope]()
        self.watch, self.events = Watch(), events or EventLog(clock)
        self._removed, self.alarms = trio.Event(), Alarms()
        self._transport = Transport(credentials.dial, state.disk, self._removed.set)
        tables = TableMachine(state.store, self.watch)
        self._runner = Runner(state.raft, state.disk, tables, self._transport.send)
        self._transport.serve(self._runner)
        self._roster = Roster(self.view, state.raft.id, told or {})
        self._proposer = Proposer(self._runner, clock, lambda: format_level(self.view))
        self.leader = Leader(self._runner, self._transport, self._addresses)
        self.membership = Membership(
            runner=self._runner,
            transport=self._transport,
            roster=self._roster,
            view=self.view,
            watch=self.watch,
            proposer=self._proposer,
            dial=credentials.dial,
        )
        self._hand_over = HandOver(self._runner, self._transport, lambda: self.disk_complaint)
        self._lock = LockKeeper(state, credentials, self.watch, renew)
        self.ca = CAServer(self.view, self._proposer, clock, new_id, credentials)
        self._forwarder = Forwarder(
            self.leader, self._runner, {**self.ca.handlers(), **self.membership.handlers()}
        )
        self.dispatcher = Dispatcher(
            view=self.view,
            watch=self.watch,
            proposer=self._proposer,
            leader=self.leader,
            clock=clock,
            new_id=new_id,
        )
        self.outputs = Outputs(self._runner, self.leader, self.dispatcher)
        measured = self.dispatcher, metric_source
        self.autoscaler = Autoscaler(self.view, self._proposer, clock, *measured)
        self._door = Door(
            self.view,
            self.watch,
            calls={**self._forwarder.calls(), **self.ca.calls(), **self._hand_over.calls()},
            streams={**self._streams(), **(streams or {})},
            messages=self._transport.messages(),
            removed=lambda: self._runner.removed,
        )

    @property
    def view(self) -> View:
        """The tables, live."""
        return self._store.view

    @property
    def leading(self) -> bool:
        """True while this manager leads and its tables are as new as anybody's."""
        return self._runner.leading

    @property
    def leadership_changed(self) -> trio.Event:
        """Set, and replaced, when this manager begins or ceases to lead, or sees another lead."""
        return self._runner.leadership_changed

    @property
    def prepared(self) -> bool:
        """True once this manager has the cluster's tables."""
        return self.view.cluster() is not None

    @property
    def alone(self) -> bool:
        """True for the only member of consensus."""
        membership = self._runner.membership
        return len({*membership.voters, *membership.voters_outgoing, *membership.learners}) == 1

    @property
    def disk_complaint(self) -> str:
        """Why this manager's disk takes no changes now, in a sentence; empty while it does."""
        return self._disk.complaint

    def back_up(self) -> tuple[Head, Iterator[bytes]]:
        """Return what a backup of the tables as they are now holds; see ``backup.py``."""
        cluster = self.view.cluster()
        assert cluster is not None, "only a prepared manager is asked"
        membership = self._runner.membership
        head = Head(
            cluster_id=cluster.api.ID,
            index=self._store.index,
            term=self._runner.status().term,
            made_at=self._clock.now(),
            members=tuple(
                sorted(
                    {
                        *self._runner.removed,
                        *membership.voters,
                        *membership.voters_outgoing,
                        *membership.learners,
                    }
                )
            ),
        )
        return head, dump(self._store)

    def raft_status(self) -> Status:
        """Return where consensus stands here."""
        return self._runner.status()

    async def wait_prepared(self) -> None:
        """Sleep until this manager has the cluster's tables."""
        with self.watch.mailbox() as mailbox:
            while not self.prepared:
                mailbox.take()
                await mailbox.wait()

    async def wait_leading(self) -> None:
        """Sleep until this manager leads.

        Raises:
            NoLeader: another one does, or nobody within ``LEADER_WAIT_S``.
        """
        with trio.move_on_after(LEADER_WAIT_S):
            while not self._runner.leading and not self.leader.is_elsewhere():
                await self._runner.leadership_changed.wait()
        if not self._runner.leading:
            raise NoLeader

    async def wait_without_leader(self) -> bool:
        """Sleep until nobody leads as far as this manager knows; False if somebody goes on to.

        After ``LOSS_TOLD_S`` a lost majority would have been noticed.
        """
        with trio.move_on_after(LOSS_TOLD_S):
            while self._runner.leader != NOBODY:
                await self._runner.leadership_changed.wait()
            return True
        return False

    async def leader_link(self) -> Link:
        """Return the link to the manager that leads; see ``Leader.link``."""
        return await self.leader.link()

    async def read(self) -> View:
        """Return the tables once reading them is linearizable. On the leader.

        Raises:
            NoLeader: this manager does not lead.
        """
        await self.wait_leading()
        with trio.move_on_after(LEADER_WAIT_S):
            await self._runner.wait_readable()
            return self.view
        raise NoLeader

    async def read_here(self) -> View:
        """Return this manager's own tables once they hold all that was acknowledged before.

        On any manager, for what is answered where it is asked.

        Raises:
            NoLeader: nobody leads for too long.
        """
        with trio.move_on_after(LEADER_WAIT_S):
            while True:
                changed = self._runner.leadership_changed
                with trio.move_on_after(READ_AGAIN_S):  # the leader may have been lost with it
                    try:
                        await self._runner.wait_readable()
                        return self.view
                    except NoLeader:
                        await changed.wait()
        raise NoLeader

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        """Have transactions applied; see ``Proposer.propose``. On the leader."""
        await self.wait_leading()
        return await self._proposer.propose(transactions)

    def answer_of(self, request_id: str) -> Applied | None:
        """Return what a recent request of a client led to, as far as our tables know."""
        return self._store.answer_of(request_id)

    @contextmanager
    def while_leading(self) -> Iterator[None]:
        """Let a block go on for as long as this manager leads; it is cancelled when that ends.

        Raises:
            NoLeader: it does not lead, or no longer.
        """
        if not self.leading:
            raise NoLeader
        with trio.CancelScope() as scope:
            self._led.add(scope)
            try:
                yield
            finally:
                self._led.discard(scope)
        if scope.cancelled_caught:
            raise NoLeader

    @contextmanager
    def while_managing(self) -> Iterator[None]:
        """Let a block go on for as long as this manager is one; it is cancelled when that ends.

        Raises:
            NotManager: it ended.
        """
        with trio.CancelScope() as scope:
            self._managing.add(scope)
            try:
                yield
            finally:
                self._managing.discard(scope)
        if scope.cancelled_caught:
            raise NotManager("this node is no manager any more")

    async def ask_leader(self, method: str, body: bytes, certificate: bytes) -> bytes:
        """Have the leader answer a call of this node; see ``Forwarder.ask``."""
        return await self._forwarder.ask(method, body, certificate)

    async def welcome(self, link: Link) -> None:
        """Serve one link of another node until it ends; see ``Door.welcome``."""
        await self._door.welcome(link)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a manager until cancelled; one that leads hands over then.

        Raises:
            ManagerEnded: it must stop being one: it was removed, its disk failed, or it met an
                entry that it does not know.
        """
        stay = trio.CancelScope()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._live, stay)
                # Not before: cancelled while it starts, it just ends. And who was told so already
                # may not be shielded afterwards.
                stay.shield = trio.current_effective_deadline() > -math.inf
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(HAND_OVER_S, shield=True):
                        await self._hand_over.give_up()
                    stay.cancel()
        except BaseExceptionGroup as group:
            failures, others = group.split(SwarmError)
            if others is not None and others.split(trio.Cancelled)[1] is None:
                # It is stopped at the moment at which it would have ended: then it was stopped.
                raise others from None
            if failures is None or others is not None:
                raise
            raise ManagerEnded(leaves(failures)) from group

    async def _live(self, stay: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            last = self._runner.status().last_index
            with stay, self.events.told_by(self.watch, replayed_to=last):
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._runner.run)
                    nursery.start_soon(
                        self.events.follow_leaders, self._runner, self.view, name="events"
                    )
                    nursery.start_soon(self._transport.run, name="raft transport")
                    nursery.start_soon(self._keep_roster, name="roster")
                    nursery.start_soon(self._door.run, name="door")
                    nursery.start_soon(self._follow_settings, name="raft settings")
                    nursery.start_soon(self._lead_terms, name="leader terms")
                    nursery.start_soon(self._end_when_removed, name="removal")
                    nursery.start_soon(self._lock.run, name="lock")
                    task_status.started()
        finally:
            for scope in (*self._led, *self._managing):
                scope.cancel()

    def _streams(self) -> dict[str, StreamMethod]:
        return {
            SESSION_METHOD: self.dispatcher.serve_session,
            SNAPSHOT: self._transport.serve_snapshot,
            OUTPUT: self.outputs.serve,
        }

    # --- who the managers are ---

    def _addresses(self) -> Mapping[int, str]:
        return self._roster.peers(self._runner.membership)

    async def _keep_roster(self) -> None:
        """Tell the transport where the other members are, whenever that changes."""
        with self.watch.mailbox() as mailbox:
            while True:
                changed = self._runner.membership_changed
                touched = mailbox.take()
                if touched is None or any(ref.kind is Kind.NODE for ref in touched):
                    self._transport.set_peers(self._addresses())
                await run_until_first(mailbox.wait, changed.wait)
                if changed.is_set():
                    self._transport.set_peers(self._addresses())

    async def _end_when_removed(self) -> None:
        own = self._runner.status().id
        while own not in self._runner.removed:
            changed = self._runner.membership_changed
            await run_until_first(changed.wait, self._removed.wait)
            if self._removed.is_set():
                break
        raise MemberRemoved(f"this manager's member number {own} was removed from the swarm")

    # --- settings ---

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

    # --- leading ---

    async def _lead_terms(self) -> None:
        while True:
            while not self._runner.leading:
                await self._runner.leadership_changed.wait()
            term = self._runner.led_term
            log.info("this manager leads, in term %d", term)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_after, term, nursery.cancel_scope)
                nursery.start_soon(run_leader, self._components(), self.alarms, name="leader")
            log.info("this manager no longer leads")

    async def _end_after(self, term: int, scope: trio.CancelScope) -> None:
        while self._runner.led_term == term:
            await self._runner.leadership_changed.wait()
        self._end_led()
        scope.cancel()

    def _end_led(self) -> None:
        """Cancel what may go on only while this manager leads."""
        for led in self._led:
            led.cancel()

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
            components.update(reconciler.beside)
        components["dispatcher"] = self.dispatcher.run
        components["autoscaler"] = self.autoscaler.run
        components["roles"] = self.membership.run
        components["reachability"] = partial(
            note_reachability, self.membership, self.view, self._proposer
        )
        components["hand-over"] = self._hand_over.run
        return components
