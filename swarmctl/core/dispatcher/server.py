"""The leader's side of every agent's session: assignments out, reports in.

Assignments are desired state computed from the tables (``assignments.py``), and so are the tables
of endpoints (``traffic.py``); so a new session, a new leader and a lost message all end in the same
place. A session has three tasks: one reads what the agent says, so that it is heard even while
consensus is slow; one does what it said; one sends what changed. Who is silent for too long is
``presence.py``'s business.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..ca.rotation import shall_renew
from ..ca.x509 import identity_of
from ..errors import LeaderElsewhere, NoLeader, NotFound, PermissionDenied, Unavailable
from ..model.change import Advance, Index, Kind, Ref, Transaction
from ..model.session import (
    Describe,
    EndpointsKnown,
    Farewell,
    ManagerPeer,
    News,
    NodeNews,
    Register,
    Report,
    ReportTaken,
    Samples,
    Welcome,
    decode_from_agent,
)
from ..model.task import TaskState
from ..store.watch import Mailbox
from ..together import run_until_first
from .assignments import assignments_for, diff, parts_of
from .noderows import NodeRows
from .nodesession import NodeSession, receive_register
from .presence import CHANGES_PER_TRANSACTION, Presence
from .traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..clock import Clock
    from ..manager.forward import Leader
    from ..manager.propose import Proposer
    from ..model.objects import NodePrivate, NodeRow
    from ..model.session import FromDispatcher
    from ..store.view import View
    from ..store.watch import Watch
    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .assignments import NodeSet

ELECTION_S = 5.0
"""How long an agent may wait at one manager for the outcome of an election."""
INBOX_MAX = 4
"""An agent waits for each report's answer, so more than a few of its words do not queue up."""

log = logging.getLogger(__name__)


class Dispatcher:
    """Serves sessions while this manager leads; :meth:`run` is that time.

    Attributes:
        on_samples: told what a node's tasks use; it may not wait.
    """

    def __init__(
        self,
        *,
        view: View,
        watch: Watch,
        proposer: Proposer,
        leader: Leader,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._view = view
        self._watch = watch
        self._leader = leader
        self._new_id = new_id
        self._rows = NodeRows(view, proposer, clock)
        self._presence = Presence(view, self._rows, clock, self._hang_up)
        self._traffic = Traffic(view, self._nudge, self._touch)
        self._mailbox = Mailbox()
        self._serving = False
        self._began = trio.Event()
        self._sessions: dict[str, NodeSession] = {}
        self._sent_to: dict[str, str] = {}
        self.on_samples: Callable[[str, Samples], None] = lambda _node_id, _samples: None

    @property
    def warning(self) -> str:
        """A sentence for ``info`` while the tasks of silent nodes are not replaced, else empty."""
        return self._presence.warning

    def connected(self, node_id: str) -> Link | None:
        """Return the live connection to a node, or None."""
        session = self._sessions.get(node_id)
        return session.link if session is not None else None

    def versions_of(self, node_id: str) -> tuple[int, int] | None:
        """Return the version of the table that a node was sent, and of the one its kernel knows.

        None for a node that carries no traffic.
        """
        session = self._sessions.get(node_id)
        carrier = session.carrier if session is not None else None
        return (carrier.sent.version, carrier.known) if carrier is not None else None

    async def run(self) -> None:
        """Serve until cancelled (leadership lost); sessions are cut then.

        Raises:
            NoLeader, LostLeadership: in a group; leadership went before the cancellation came.
        """
        try:
            with self._watch.mailbox() as self._mailbox:
                self._serving = True
                self._began.set()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._spread_changes, name="dispatcher changes")
                    nursery.start_soon(self._traffic.run, name="dispatcher traffic")
                    nursery.start_soon(self._presence.run, name="dispatcher presence")
        finally:
            self._serving = False
            self._began = trio.Event()
            self._traffic.forget()
            for session in self._sessions.values():
                session.cut(NoLeader())

    # --- one session ---

    async def serve_session(self, link: Link, stream: LinkStream) -> None:
        """Serve one agent until its stream ends. For the door, which has checked the certificate.

        Where another manager leads, the agent is told which; during an election it waits here for
        the outcome, so that no agent has to try its luck at one manager after the other.

        Raises:
            LeaderElsewhere: another manager leads; the text is its address.
            NoLeader: nobody leads for too long, or this manager no longer does.
            PermissionDenied: the same node is in session from another place.
            NotFound: the node was removed.
            Unavailable: the node registered anew.
        """
        if link.peer_certificate_der is None:
            raise NoLeader
        node_id = identity_of(link.peer_certificate_der).node_id
        register = await receive_register(stream)
        await self._wait_serving()  # last, for who is registered when leadership ends is cut then
        self._refuse_second(node_id, register, link)
        session = NodeSession(link, stream, node_id, register.instance)
        with self._registered(session):
            with session.scope:
                await self._note_registered(session, register)
                await self._welcome(session)
                await self._live(session)
            if session.end is not None:
                raise session.end

    async def _wait_serving(self) -> None:
        """Sleep until sessions are served here.

        Raises:
            LeaderElsewhere, NoLeader: they will not be.
        """
        with trio.move_on_after(ELECTION_S):
            while not self._serving:
                address = self._leader.address()
                if address:
                    raise LeaderElsewhere(address)
                await run_until_first(self._leader.wait_change, self._began.wait)
        if not self._serving:
            raise NoLeader

    def _refuse_second(self, node_id: str, register: Register, link: Link) -> None:
        """Refuse a second process with the same certificate while the first is alive.

        On one host it is a restarted daemon, faster than the old connection's end.
        """
        other = self._sessions.get(node_id)
        if other is None or other.instance == register.instance:
            return
        silent = self._presence.silence_s(node_id) > 1.5 * self._presence.period_s
        if silent or _host(other.link) == _host(link):
            return
        text = (
            f"node {node_id} is in session from {other.link.peer_address}; {link.peer_address} "
            "shows the same certificate: was the state directory copied? Remove the copy and join "
            "that host with a token"
        )
        log.warning("%s", text)
        raise PermissionDenied(text)

    @contextmanager
    def _registered(self, session: NodeSession) -> Iterator[None]:
        node_id = session.node_id
        previous = self._sessions.get(node_id)
        if previous is not None:
            self._forget_sent(previous)
            previous.cut(Unavailable(f"node {node_id} registered anew"))
        self._sessions[node_id] = session
        self._count()
        try:
            yield
        finally:
            if session.carrier is not None:
                self._traffic.leave(session.carrier)
            if self._sessions.get(node_id) is session:
                self._forget_sent(session)
                del self._sessions[node_id]
                self._count()

    def _count(self) -> None:
        self._presence.sessions = len(self._sessions)

    async def _note_registered(self, session: NodeSession, register: Register) -> None:
        address = register.advertise_addr or session.link.peer_address
        host = address.rpartition(":")[0].strip("[]")

        def ready(row: NodeRow) -> NodeRow:
            status = replace(row.api.Status, State="ready", Message=register.warning, Addr=host)
            api = replace(row.api, Description=register.description, Status=status)
            private = _private(row, register)
            return replace(row, api=api, private=replace(private, grace_until=0))

        session.warning = register.warning
        self._presence.hear(session.node_id, session.period_s)
        await self._rows.change(session.node_id, ready)
        self._note_carriage(session, register)
        log.info("node %s is in session from %s", session.node_id, session.link.peer_address)

    async def _welcome(self, session: NodeSession) -> None:
        cluster = self._view.cluster()
        if cluster is None:
            raise NoLeader
        session.news = self._news(session.node_id)
        await session.send(
            Welcome(
                cluster_id=cluster.api.ID,
                node_id=session.node_id,
                session_id=self._new_id(),
                news=session.news,
            )
        )

    async def _live(self, session: NodeSession) -> None:
        """Run the three tasks until the agent ends the stream or says farewell."""
        put, take = trio.open_memory_channel[Report | Describe | Farewell](INBOX_MAX)
        await run_until_first(
            partial(self._listen, session, put),
            partial(self._obey, session, take),
            partial(self._feed, session),
        )

    async def _listen(
        self, session: NodeSession, put: trio.MemorySendChannel[Report | Describe | Farewell]
    ) -> None:
        """Hear what the agent says; return when it ends the stream."""
        async for chunk in session.stream:
            message = decode_from_agent(chunk)
            if isinstance(message, Farewell):
                session.over = True
                await put.send(message)
                await trio.sleep_forever()  # what comes after is no sign of staying
            self._presence.hear(session.node_id, session.period_s)
            if isinstance(message, Samples):
                self.on_samples(session.node_id, message)
            elif isinstance(message, EndpointsKnown) and session.carrier is not None:
                self._traffic.note_known(session.carrier, message.version)
            elif isinstance(message, (Report, Describe)):
                await put.send(message)

    async def _obey(
        self, session: NodeSession, take: trio.MemoryReceiveChannel[Report | Describe | Farewell]
    ) -> None:
        """Do what the agent said, in order; return after its farewell."""
        async for message in take:
            if isinstance(message, Report):
                await self._take_report(session, message)
            elif isinstance(message, Describe):
                await self._take_description(session, message)
            else:
                await self._presence.bid_farewell(session.node_id, message.back_within_ns / 1e9)
                if not message.back_within_ns:  # it stops its tasks next
                    await self._catch_up()
                    await self._traffic.wait_left(session.node_id)
                    if session.carrier is not None:
                        session.carrier.is_leaving = True
                return

    async def _take_report(self, session: NodeSession, report: Report) -> None:
        advances = [
            Advance(task_id=task.task_id, status=task.status, node_id=session.node_id)
            for task in report.tasks
        ]
        await self._rows.propose(
            [
                Transaction(changes=tuple(advances[i : i + CHANGES_PER_TRANSACTION]))
                for i in range(0, len(advances), CHANGES_PER_TRANSACTION)
            ]
        )
        await session.send(ReportTaken(number=report.number))

    async def _take_description(self, session: NodeSession, message: Describe) -> None:
        def described(row: NodeRow) -> NodeRow:
            status = replace(row.api.Status, Message=message.warning)
            api = replace(row.api, Description=message.description, Status=status)
            return replace(row, api=api, private=_private(row, message))

        session.warning = message.warning
        await self._rows.change(session.node_id, described)
        self._note_carriage(session, message)

    def _note_carriage(self, session: NodeSession, message: Register | Describe) -> None:
        """Begin or end to tell a node of traffic, as it can carry any."""
        if message.carriage.driver and session.carrier is None:
            session.carrier = self._traffic.join(session.node_id)
            session.look.set()
        elif not message.carriage.driver and session.carrier is not None:
            self._traffic.leave(session.carrier)
            session.carrier = None

    async def _feed(self, session: NodeSession) -> None:
        """Send what the node shall hold and know, and every change of it."""
        while True:
            await self._keep_ready(session)
            await self._catch_up()
            session.look = trio.Event()
            for message in self._due(session):
                await session.send(message)
            await session.look.wait()

    def _due(self, session: NodeSession) -> list[FromDispatcher]:
        """Return what has to be sent now, who is where before who shall run."""
        due: list[FromDispatcher] = []
        news = self._news(session.node_id)
        if news != session.news:
            session.news = news
            due.append(News(news=news))
        if session.carrier is not None:
            due += self._traffic.changes(session.carrier)
        if session.stale:
            session.stale = False
            wanted = assignments_for(self._view, session.node_id, self._traffic.holds)
            message = diff(wanted, session.sent, session.number + 1)
            if message is not None:
                self._note_sent(session, wanted)
                parts = parts_of(message)
                session.number = parts[-1].number
                due += parts
        return due

    async def _keep_ready(self, session: NodeSession) -> None:
        """Write again that a node is ready when a late word about it says otherwise.

        When it registered, a verdict of silence or the farewell of its former session may have been
        on its way to the log, and nothing else would ever correct that.
        """
        row = self._view.node(session.node_id)
        if row is not None and row.api.Status.State != "ready" and not session.over:
            await self._rows.set_state(session.node_id, "ready", session.warning)

    def _note_sent(self, session: NodeSession, wanted: NodeSet) -> None:
        self._forget_sent(session)
        session.sent = wanted
        for task_id in wanted.tasks:
            self._sent_to[task_id] = session.node_id

    def _forget_sent(self, session: NodeSession) -> None:
        for task_id in session.sent.tasks:
            self._sent_to.pop(task_id, None)

    def _news(self, node_id: str) -> NodeNews:
        row = self._view.node(node_id)
        if row is None:
            raise NotFound(f"node {node_id} was removed from the swarm")
        cluster = self._view.cluster()
        return NodeNews(
            heartbeat_ns=int(self._presence.period_s * 1e9),
            managers=manager_peers(self._view),
            root_ca=cluster.private.ca_cert if cluster is not None else "",
            role=row.private.role,
            renew=cluster is not None and shall_renew(row, cluster),
            renew_asked=row.private.renew_asked,
        )

    def _hang_up(self, node_id: str) -> None:
        """Close the link of a node that is silent for too long."""
        session = self._sessions.get(node_id)
        if session is not None:
            session.over = True
            session.link.close("no heartbeat for three periods")

    # --- changes ---

    async def _spread_changes(self) -> None:
        """Wake the sessions whose nodes a commit concerns."""
        while True:
            await self._mailbox.wait()
            if self._mailbox.everything:
                self._mailbox.take()
                await self._traffic.rebuild()
                for session in self._sessions.values():
                    session.touch()
            else:
                self._take_changes()

    async def _catch_up(self) -> None:
        """Have everybody know what is in the tables; at the return, nothing has changed since."""
        await trio.lowlevel.checkpoint()
        while self._mailbox.everything or not self._traffic.ready:
            await self._traffic.wait_ready()  # the one who spreads changes makes it so
        self._take_changes()

    def _take_changes(self) -> None:
        touched = self._mailbox.take() or set()
        if touched:
            self._traffic.catch_up(touched)
            for node_id in self._concerned(touched):
                self._touch(node_id)

    def _touch(self, node_id: str) -> None:
        session = self._sessions.get(node_id)
        if session is not None:
            session.touch()

    def _nudge(self, node_id: str) -> None:
        """Have a session look whether its node has to know more of traffic."""
        session = self._sessions.get(node_id)
        if session is not None:
            session.look.set()

    def _concerned(self, touched: set[Ref]) -> Iterable[str]:
        if any(ref.kind is Kind.CLUSTER for ref in touched):
            return list(self._sessions)
        concerned: dict[str, None] = {}
        for ref in touched:
            if ref.kind is Kind.TASK:
                task = self._view.task(ref.id)
                node_id = task.api.NodeID if task is not None else self._sent_to.get(ref.id, "")
                concerned[node_id] = None
            elif ref.kind is Kind.NODE:
                node = self._view.node(ref.id)
                if node is None:
                    self._presence.forget(ref.id)
                elif node.private.manager_addr:
                    return list(self._sessions)  # every agent knows every manager
                concerned[ref.id] = None
        if any(ref.kind is Kind.NETWORK for ref in touched):  # a gateway may have come
            for row in self._view.tasks_at(TaskState.ASSIGNED):
                if row.api.NetworksAttachments:
                    concerned[row.api.NodeID] = None
        return concerned


def manager_peers(view: View) -> tuple[ManagerPeer, ...]:
    """Return every manager's id and address, for agents."""
    managers = (view.node(node_id) for node_id in view.holders(Index.ROLE, "manager"))
    return tuple(
        ManagerPeer(node_id=row.api.ID, addr=row.private.manager_addr)
        for row in managers
        if row is not None and row.private.manager_addr
    )


def _private(row: NodeRow, message: Register | Describe) -> NodePrivate:
    """Return a node's private half with what the node says of itself."""
    carriage = message.carriage
    return replace(
        row.private,
        can_run=message.can_run,
        network_driver=carriage.driver,
        host_network=carriage.host_network,
        data_path_addr=carriage.data_path_addr,
    )


def _host(link: Link) -> str:
    return link.peer_address.rpartition(":")[0]
