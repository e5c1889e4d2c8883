"""The leader's side of every agent's session: assignments out, reports in, silence noticed.

One task for each session reads what the agent says, another sends what changed. Assignments are
desired state computed from the tables (``assignments.py``), so a new session, a new leader and a
lost message all end in the same place. Heartbeats write nothing; a node's row changes only when the
node does.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..ca.x509 import identity_of
from ..errors import NoLeader, NotFound, PermissionDenied, RemoteProtocolError
from ..model.base import Time
from ..model.change import Advance, Conflict, Kind, Ref, Transaction, Update
from ..model.codec import pack
from ..model.session import (
    Describe,
    Farewell,
    ManagerPeer,
    News,
    NodeNews,
    Register,
    Report,
    ReportTaken,
    Welcome,
    decode_from_agent,
)
from ..model.task import TaskState, TaskStatus
from . import liveness
from .assignments import EMPTY, NodeSet, assignments_for, diff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..clock import Clock
    from ..manager.propose import Proposer
    from ..model.objects import NodeRow
    from ..model.session import FromDispatcher
    from ..store.view import View
    from ..store.watch import Watch
    from ..wire.link import Link
    from ..wire.stream import LinkStream

CHANGES_PER_TRANSACTION = 500
STALL_S = 0.25
ORPHAN_CHECK_S = 60.0

log = logging.getLogger(__name__)


class _Session:
    """One registered agent."""

    def __init__(self, link: Link, stream: LinkStream, node_id: str, instance: str) -> None:
        self.link = link
        self.stream = stream
        self.node_id = node_id
        self.instance = instance
        self.sent: NodeSet = EMPTY
        self.number = 0
        self.news: NodeNews | None = None
        self.look = trio.Event()
        self.scope = trio.CancelScope()

    def touch(self) -> None:
        """Have the sender look again."""
        self.look.set()


class Dispatcher:
    """Serves sessions while this manager leads; :meth:`run` is that time."""

    def __init__(
        self,
        *,
        view: View,
        watch: Watch,
        proposer: Proposer,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._view = view
        self._watch = watch
        self._proposer = proposer
        self._clock = clock
        self._new_id = new_id
        self._serving = False
        self._sessions: dict[str, _Session] = {}
        self._heard: dict[str, liveness.Heard] = {}
        self._sent_to: dict[str, str] = {}
        self._judge_again = trio.Event()
        self._silent_since = 0.0
        self.warning = ""

    def connected(self, node_id: str) -> Link | None:
        """Return the live connection to a node, or None."""
        session = self._sessions.get(node_id)
        return session.link if session is not None else None

    async def run(self) -> None:
        """Serve until cancelled (leadership lost); sessions are cut then."""
        now = trio.current_time()
        self._heard = {
            row.api.ID: liveness.heard_at_takeover(now, self.period_s)
            for row in self._view.nodes()
            if row.api.Status.State != "down"
        }
        self._serving = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._spread_changes, name="dispatcher changes")
                nursery.start_soon(self._mind_silence, name="dispatcher liveness")
                nursery.start_soon(self._orphan, name="dispatcher orphans")
        finally:
            self._serving = False
            for session in self._sessions.values():
                session.scope.cancel()

    @property
    def period_s(self) -> float:
        """How often agents are told to send something, in seconds."""
        cluster = self._view.cluster()
        configured = cluster.api.Spec.Dispatcher.HeartbeatPeriod if cluster is not None else 0
        return liveness.period_s(configured, len(self._sessions))

    # --- one session ---

    async def serve_session(self, link: Link, stream: LinkStream) -> None:
        """Serve one agent until its stream ends. For the door, which has checked the certificate.

        Raises:
            NoLeader: this manager does not lead.
            PermissionDenied: the same node is in session from another place.
        """
        if not self._serving or link.peer_certificate_der is None:
            raise NoLeader
        node_id = identity_of(link.peer_certificate_der).node_id
        first = decode_from_agent(await stream.receive())
        if not isinstance(first, Register):
            raise RemoteProtocolError(f"a session begins with Register, not {type(first).__name__}")
        self._refuse_second(node_id, first, link)
        session = _Session(link, stream, node_id, first.instance)
        with self._registered(session), session.scope:
            await self._note_registered(session, first)
            session.news = self._news(node_id)
            await self._send(
                session,
                Welcome(
                    cluster_id=self._cluster_id(),
                    node_id=node_id,
                    session_id=self._new_id(),
                    news=session.news,
                ),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed, session, name=f"assignments {node_id}")
                await self._listen(session)
                nursery.cancel_scope.cancel()
        if session.scope.cancelled_caught:
            raise NoLeader

    def _refuse_second(self, node_id: str, register: Register, link: Link) -> None:
        """Refuse a second process with the same certificate while the first is alive."""
        other = self._sessions.get(node_id)
        if other is None or other.instance == register.instance:
            return
        heard = self._heard.get(node_id)
        silent = heard is None or trio.current_time() - heard.at > 1.5 * self.period_s
        if silent or other.link.peer_address.rpartition(":")[0] == _host(link):
            return  # a restarted daemon, faster than the old connection's end
        raise PermissionDenied(
            f"node {node_id} is in session from {other.link.peer_address}; {link.peer_address} "
            "shows the same certificate: was the state directory copied? Remove the copy and join "
            "that host with a token"
        )

    @contextmanager
    def _registered(self, session: _Session) -> Iterator[None]:
        previous = self._sessions.get(session.node_id)
        if previous is not None:
            previous.scope.cancel()
        self._sessions[session.node_id] = session
        self._hear(session.node_id)
        try:
            yield
        finally:
            if self._sessions.get(session.node_id) is session:
                del self._sessions[session.node_id]
                for task_id in session.sent.tasks:
                    self._sent_to.pop(task_id, None)

    async def _note_registered(self, session: _Session, register: Register) -> None:
        def ready(row: NodeRow) -> NodeRow:
            address = register.advertise_addr or session.link.peer_address
            status = replace(
                row.api.Status,
                State="ready",
                Message=register.warning,
                Addr=address.rpartition(":")[0].strip("[]"),
            )
            return self._described(row, register.description, status, can_run=register.can_run)

        await self._change_node(session.node_id, ready)
        log.info("node %s is in session from %s", session.node_id, session.link.peer_address)

    async def _listen(self, session: _Session) -> None:
        """Take in what the agent says until it ends the stream."""
        async for chunk in session.stream:
            message = decode_from_agent(chunk)
            self._hear(session.node_id)
            if isinstance(message, Report):
                await self._take_report(session, message)
            elif isinstance(message, Describe):
                await self._take_description(session, message)
            elif isinstance(message, Farewell):
                await self._take_farewell(session, message)

    async def _take_report(self, session: _Session, report: Report) -> None:
        advances = [
            Advance(task_id=task.task_id, status=task.status, node_id=session.node_id)
            for task in report.tasks
        ]
        transactions = [
            Transaction(changes=tuple(advances[i : i + CHANGES_PER_TRANSACTION]))
            for i in range(0, len(advances), CHANGES_PER_TRANSACTION)
        ]
        await self._proposer.propose(transactions)
        await self._send(session, ReportTaken(number=report.number))

    async def _take_description(self, session: _Session, message: Describe) -> None:
        def described(row: NodeRow) -> NodeRow:
            status = replace(row.api.Status, Message=message.warning)
            return self._described(row, message.description, status, can_run=message.can_run)

        await self._change_node(session.node_id, described)

    async def _take_farewell(self, session: _Session, message: Farewell) -> None:
        node_id, back_s = session.node_id, message.back_within_ns / 1e9
        if back_s:
            self._heard[node_id] = liveness.Heard(trio.current_time(), trio.current_time() + back_s)
            await self._set_status(node_id, "disconnected", "the daemon is restarting")
        else:
            self._heard.pop(node_id, None)
            await self._set_status(node_id, "down", "the node's daemon was stopped")
        self._judge_again.set()

    async def _feed(self, session: _Session) -> None:
        """Send what the node shall hold, and every change of it."""
        while True:
            session.look = trio.Event()
            news = self._news(session.node_id)
            if news != session.news:
                session.news = news
                await self._send(session, News(news=news))
            wanted = assignments_for(self._view, session.node_id)
            message = diff(wanted, session.sent, session.number + 1)
            if message is not None:
                session.number += 1
                self._note_sent(session, wanted)
                await self._send(session, message)
            await session.look.wait()

    def _note_sent(self, session: _Session, wanted: NodeSet) -> None:
        for task_id in session.sent.tasks:
            self._sent_to.pop(task_id, None)
        session.sent = wanted
        for task_id in wanted.tasks:
            self._sent_to[task_id] = session.node_id

    async def _send(self, session: _Session, message: FromDispatcher) -> None:
        await session.stream.send(pack(message))

    def _news(self, node_id: str) -> NodeNews:
        row = self._view.node(node_id)
        if row is None:
            raise NotFound(f"node {node_id} was removed from the swarm")
        cluster = self._view.cluster()
        managers = tuple(
            ManagerPeer(node_id=manager.api.ID, addr=manager.private.manager_addr)
            for manager in self._view.nodes()
            if manager.private.manager_addr
        )
        return NodeNews(
            heartbeat_ns=int(self.period_s * 1e9),
            managers=managers,
            root_ca=cluster.private.ca_cert if cluster is not None else "",
            role=row.private.role,
        )

    def _cluster_id(self) -> str:
        cluster = self._view.cluster()
        return cluster.api.ID if cluster is not None else ""

    # --- changes ---

    async def _spread_changes(self) -> None:
        """Wake the sessions whose nodes a commit concerns."""
        with self._watch.mailbox() as mailbox:
            while True:
                touched = mailbox.take()
                for node_id in self._concerned(touched):
                    session = self._sessions.get(node_id)
                    if session is not None:
                        session.touch()
                await mailbox.wait()

    def _concerned(self, touched: set[Ref] | None) -> Iterable[str]:
        if touched is None or any(ref.kind is Kind.CLUSTER for ref in touched):
            return list(self._sessions)
        concerned: dict[str, None] = {}
        for ref in touched:
            if ref.kind is Kind.TASK:
                row = self._view.task(ref.id)
                node_id = row.api.NodeID if row is not None else self._sent_to.get(ref.id, "")
                concerned[node_id] = None
            elif ref.kind is Kind.NODE:
                row_now = self._view.node(ref.id)
                if row_now is None:
                    self._heard.pop(ref.id, None)
                elif row_now.private.manager_addr:
                    return list(self._sessions)  # every agent knows every manager
                concerned[ref.id] = None
        return concerned

    # --- liveness ---

    def _hear(self, node_id: str) -> None:
        new = node_id not in self._heard
        self._heard[node_id] = liveness.Heard(trio.current_time())
        if new:
            self._judge_again.set()

    async def _mind_silence(self) -> None:
        while True:
            self._judge_again = trio.Event()
            await trio.lowlevel.checkpoint()  # what has arrived counts before silence does
            now = trio.current_time()
            verdict = liveness.judge(self._heard, now, self.period_s, self._silent_since)
            self._warn(verdict.warning, now)
            for node_id in verdict.down:
                self._heard.pop(node_id, None)
                session = self._sessions.get(node_id)
                if session is not None:
                    session.link.close("no heartbeat for three periods")
                log.warning("node %s is down: no heartbeat for three periods", node_id)
                await self._set_status(node_id, "down", "heartbeat failure")
            await self._sleep_until(verdict.look_again)

    def _warn(self, warning: str, now: float) -> None:
        if warning and not self.warning:
            self._silent_since = now
            log.warning("%s", warning)
        elif not warning:
            self._silent_since = 0.0
        self.warning = warning

    async def _sleep_until(self, when: float | None) -> None:
        """Sleep, and take our own stalls off the others' silence."""
        if when is None:
            await self._judge_again.wait()
            return
        with trio.move_on_at(when):
            await self._judge_again.wait()
        stall_s = trio.current_time() - when
        if stall_s > STALL_S:
            log.warning("this manager stood still for %.1f s", stall_s)
            for node_id, entry in self._heard.items():
                self._heard[node_id] = entry._replace(at=entry.at + stall_s)

    async def _orphan(self) -> None:
        """Give up the tasks of nodes that are down for a day, or gone."""
        while True:
            now_ns = self._clock.now()
            for row in list(self._view.nodes()):
                since_ns = now_ns - row.private.status_since
                if row.api.Status.State == "down" and since_ns > liveness.ORPHAN_AFTER_NS:
                    await self._orphan_tasks(row.api.ID, now_ns)
            await trio.sleep(ORPHAN_CHECK_S)

    async def _orphan_tasks(self, node_id: str, now_ns: int) -> None:
        lost = [
            row
            for row in self._view.tasks_on(node_id)
            if TaskState.ASSIGNED <= row.api.Status.State <= TaskState.RUNNING
        ]
        advances = [
            Advance(
                task_id=row.api.ID,
                status=TaskStatus(
                    Timestamp=Time(now_ns),
                    State=TaskState.ORPHANED,
                    Message="the task's node is down for a day",
                ),
            )
            for row in lost[:CHANGES_PER_TRANSACTION]
        ]
        if advances:
            await self._proposer.propose([Transaction(changes=tuple(advances))])

    # --- the node's row ---

    async def _set_status(self, node_id: str, state: str, message: str) -> None:
        def changed(row: NodeRow) -> NodeRow:
            status = replace(row.api.Status, State=state, Message=message)
            return replace(row, api=replace(row.api, Status=status))

        try:
            await self._change_node(node_id, changed)
        except NotFound:
            log.debug("node %s went while its status changed", node_id)

    def _described(
        self, row: NodeRow, description: object, status: object, *, can_run: bool
    ) -> NodeRow:
        api = replace(row.api, Description=description, Status=status)
        return replace(row, api=api, private=replace(row.private, can_run=can_run))

    async def _change_node(self, node_id: str, change: Callable[[NodeRow], NodeRow]) -> None:
        """Write a node's row when ``change`` makes a difference; races are tried again.

        Raises:
            NotFound: the node was removed.
        """
        while True:
            row = self._view.node(node_id)
            if row is None:
                raise NotFound(f"node {node_id} was removed from the swarm")
            changed = change(row)
            if changed == row:
                return
            if changed.api.Status.State != row.api.Status.State:
                since = replace(changed.private, status_since=self._clock.now())
                changed = replace(changed, private=since)
            result = await self._proposer.propose([Transaction(changes=(Update(row=changed),))])
            if not isinstance(result[0], Conflict):
                return


def _host(link: Link) -> str:
    return link.peer_address.rpartition(":")[0]
