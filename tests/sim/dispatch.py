"""The leader's side of the agents' sessions, in events.

Mirrors the shells ``dispatcher/server.py`` and ``presence.py``; what is decided is the product's:
``assignments_for`` and ``diff``, ``liveness``, and ``NodeRows`` for nodes' rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from swarmctl.core.dispatcher import assignments, liveness
from swarmctl.core.dispatcher.noderows import NodeRows
from swarmctl.core.dispatcher.server import manager_peers
from swarmctl.core.errors import LostLeadership, NoLeader, NotFound
from swarmctl.core.model.change import Advance, Kind, Transaction
from swarmctl.core.model.session import (
    Assignments,
    Farewell,
    News,
    NodeNews,
    Register,
    Report,
    ReportTaken,
    Welcome,
)
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.store.watch import Mailbox
from tests.sim.queue import MS, S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from swarmctl.core.model.change import Ref, Result
    from swarmctl.core.model.objects import NodeRow
    from tests.sim.member import Manager
    from tests.sim.network import Stream
    from tests.sim.queue import Scope

SETTLE_S = 0.1
GRACE_MAX_S = 60.0


class Refused(NamedTuple):
    """The manager ends the session, says why, and who leads as far as it knows."""

    why: str
    leader: str = ""


class SimRows(NodeRows):
    """The product's hand on nodes' rows, waiting on the queue."""

    def __init__(self, manager: Manager, scope: Scope) -> None:
        super().__init__(manager.store.view, manager.proposer, manager.host)
        self._scope = scope

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        while True:
            try:
                return await self._proposer.propose(transactions)
            except ProposalDropped:
                await self._scope.sleep(200 * MS)


class Session:
    """One registered agent."""

    def __init__(self, stream: Stream, node_id: str, scope: Scope) -> None:
        self.stream = stream
        self.node_id = node_id
        self.scope = scope
        self.sent = assignments.EMPTY
        self.number = 0
        self.news: NodeNews | None = None
        self.inbox: list[Report | Farewell] = []
        self.obeying = False
        self.looking = False
        self.live = False
        self.leaving = False
        self.writing = False

    @property
    def period_s(self) -> float:
        return self.news.heartbeat_ns / 1e9 if self.news is not None else 0.0


class Dispatcher:
    """Serves sessions for one term of leadership."""

    def __init__(self, manager: Manager, scope: Scope) -> None:
        self._manager = manager
        self._scope = scope
        self._view = manager.store.view
        self._rows = SimRows(manager, scope)
        self._mailbox = Mailbox()
        manager.watch._mailboxes[self._mailbox] = None
        self._sessions: dict[str, Session] = {}
        self._sent_to: dict[str, str] = {}
        self._spreading = False
        self._presence = Presence(manager, scope, self._rows, self._sessions, self._hang_up)

    def close(self) -> None:
        """Leadership is over: tell every agent."""
        self._manager.watch._mailboxes.pop(self._mailbox, None)
        for session in list(self._sessions.values()):
            self._cut(session)

    # --- one session ---

    def open(self, stream: Stream, node_id: str, register: Register) -> None:
        """An agent has registered."""
        previous = self._sessions.get(node_id)
        if previous is not None:
            self._cut(previous)
        session = self._sessions[node_id] = Session(stream, node_id, self._scope)
        stream.on_message = lambda message: self._hear(session, message)
        stream.on_end = lambda: self._forget(session)
        self._scope.start(self._register(session, register))

    async def _register(self, session: Session, register: Register) -> None:
        def ready(row: NodeRow) -> NodeRow:
            status = replace(row.api.Status, State="ready", Message=register.warning)
            api = replace(row.api, Description=register.description, Status=status)
            private = replace(row.private, can_run=register.can_run, grace_until=0)
            return replace(row, api=api, private=private)

        self._presence.hear(session.node_id, session.period_s)
        try:
            await self._rows.change(session.node_id, ready)
            session.news = self._news(session.node_id)
        except (NoLeader, LostLeadership, NotFound) as error:
            session.stream.send(Refused(str(error)))
            self._cut(session)
            return
        if self._sessions.get(session.node_id) is not session:
            return
        session.stream.send(
            Welcome(
                cluster_id="cluster",
                node_id=session.node_id,
                session_id=self._manager.cluster.new_id(),
                news=session.news,
            )
        )
        session.live = True
        self._touch(session)

    def _hear(self, session: Session, message: object) -> None:
        if self._sessions.get(session.node_id) is not session:
            return
        if isinstance(message, Farewell):
            session.leaving = True
        else:
            self._presence.hear(session.node_id, session.period_s)
        if isinstance(message, (Report, Farewell)):
            session.inbox.append(message)
            if not session.obeying:
                session.obeying = True
                self._scope.start(self._obey(session))

    async def _obey(self, session: Session) -> None:
        """Do what the agent said, in order."""
        while session.inbox:
            message = session.inbox.pop(0)
            try:
                if isinstance(message, Report):
                    await self._take_report(session, message)
                else:
                    await self._presence.bid_farewell(session.node_id, message.back_within_ns / 1e9)
                    self._cut(session)
            except (NoLeader, LostLeadership):
                return
        session.obeying = False

    async def _take_report(self, session: Session, report: Report) -> None:
        changes = tuple(
            Advance(task_id=task.task_id, status=task.status, node_id=session.node_id)
            for task in report.tasks
        )
        await self._rows.propose([Transaction(changes=changes)])
        session.stream.send(ReportTaken(number=report.number))

    def _touch(self, session: Session) -> None:
        if not session.looking and session.live:
            session.looking = True
            self._scope.after(self._manager.cluster.rng.random() * MS, self._feed, session)

    def _feed(self, session: Session) -> None:
        """Send what the node shall hold, as far as it was not sent."""
        session.looking = False
        if self._sessions.get(session.node_id) is not session:
            return
        try:
            news = self._news(session.node_id)
        except NotFound as error:
            session.stream.send(Refused(str(error)))
            self._cut(session)
            return
        if news != session.news:
            session.news = news
            session.stream.send(News(news=news))
        self._keep_ready(session)
        wanted = assignments.assignments_for(self._view, session.node_id)
        message = assignments.diff(wanted, session.sent, session.number + 1)
        if message is not None:
            self._note_sent(session, wanted)
            for part in self._parts(message):
                session.number = part.number
                session.stream.send(part)

    def _keep_ready(self, session: Session) -> None:
        """Write again that a node is ready when a late word about it says otherwise."""
        row = self._view.node(session.node_id)
        if row is None or row.api.Status.State == "ready" or session.leaving or session.writing:
            return

        async def write() -> None:
            session.writing = True
            self._manager.cluster.counts["late words corrected"] += 1
            try:
                await self._rows.set_state(session.node_id, "ready", "")
            except (NoLeader, LostLeadership):
                return
            session.writing = False
            self._touch(session)

        self._scope.start(write())

    def _parts(self, message: Assignments) -> list[Assignments]:
        limit = self._manager.cluster.options.part_bytes
        return assignments.parts_of(message, limit) if limit else [message]

    def _note_sent(self, session: Session, wanted: assignments.NodeSet) -> None:
        self._forget_sent(session)
        session.sent = wanted
        for task_id in wanted.tasks:
            self._sent_to[task_id] = session.node_id

    def _forget_sent(self, session: Session) -> None:
        for task_id in session.sent.tasks:
            self._sent_to.pop(task_id, None)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.node_id) is session:
            self._forget_sent(session)
            del self._sessions[session.node_id]

    def _cut(self, session: Session) -> None:
        self._forget(session)
        session.stream.close()

    def _hang_up(self, node_id: str) -> None:
        session = self._sessions.get(node_id)
        if session is not None:
            self._cut(session)

    def _news(self, node_id: str) -> NodeNews:
        row = self._view.node(node_id)
        if row is None:
            raise NotFound(f"node {node_id} was removed from the swarm")
        return NodeNews(
            heartbeat_ns=int(self._presence.period_s * 1e9),
            managers=manager_peers(self._view),
            role=row.private.role,
        )

    # --- changes ---

    def look(self) -> None:
        """Wake the sessions that a commit concerns, soon."""
        if not self._spreading and self._mailbox._event.is_set():
            self._spreading = True
            self._scope.after(0, self._spread)

    def _spread(self) -> None:
        self._spreading = False
        for node_id in self._concerned(self._mailbox.take()):
            session = self._sessions.get(node_id)
            if session is not None:
                self._touch(session)
        self._presence.look()

    def _concerned(self, touched: set[Ref] | None) -> Iterable[str]:
        if touched is None or any(ref.kind is Kind.CLUSTER for ref in touched):
            return list(self._sessions)
        concerned: dict[str, None] = {}
        for ref in sorted(touched, key=lambda ref: (ref.kind.value, ref.id)):
            if ref.kind is Kind.TASK:
                task = self._view.task(ref.id)
                node_id = task.api.NodeID if task is not None else self._sent_to.get(ref.id, "")
                concerned[node_id] = None
            elif ref.kind is Kind.NODE:
                node = self._view.node(ref.id)
                if node is None:
                    self._presence.forget(ref.id)
                elif node.private.manager_addr:
                    return list(self._sessions)
                concerned[ref.id] = None
        return concerned


class Presence:
    """Who is silent for too long."""

    def __init__(
        self,
        manager: Manager,
        scope: Scope,
        rows: NodeRows,
        sessions: dict[str, Session],
        hang_up: Callable[[str], None],
    ) -> None:
        self._manager = manager
        self._scope = scope
        self._rows = rows
        self._served = sessions
        self._hang_up = hang_up
        self._settling = False
        self._view = manager.store.view
        self._silent_since = 0.0
        self._warned = False
        self._round = 0
        nodes = [row for row in self._view.nodes() if row.api.Status.State != "down"]
        self._known = len(nodes)
        now, now_ns, period = self._now_s(), manager.host.now(), self.period_s
        self._heard = {
            row.api.ID: liveness.heard_at_takeover(
                now, period, min((row.private.grace_until - now_ns) / 1e9, GRACE_MAX_S)
            )
            for row in nodes
        }
        self.look()

    def _now_s(self) -> float:
        return self._manager.cluster.queue.now / 1e9 + 1000.0

    @property
    def period_s(self) -> float:
        cluster = self._view.cluster()
        configured = cluster.api.Spec.Dispatcher.HeartbeatPeriod if cluster is not None else 0
        return liveness.period_s(configured, max(len(self._served), self._known))

    def hear(self, node_id: str, told_period_s: float) -> None:
        before = self._heard.get(node_id)
        self._heard[node_id] = liveness.Heard(self._now_s(), told_period_s)
        if before is None or before.period != told_period_s or self._warned:
            self.look()

    def forget(self, node_id: str) -> None:
        self._heard.pop(node_id, None)

    async def bid_farewell(self, node_id: str, back_within_s: float) -> None:
        if back_within_s <= 0:
            self.forget(node_id)
            await self._rows.set_state(node_id, "down", "the node's daemon was stopped")
            return
        grace_s = min(back_within_s, GRACE_MAX_S)
        now = self._now_s()
        self._heard[node_id] = liveness.Heard(now, grace_until=now + grace_s)
        await self._rows.set_state(
            node_id,
            "disconnected",
            "the node's daemon is restarting",
            grace_until=self._manager.host.now() + int(grace_s * 1e9),
        )

    def look(self) -> None:
        """Judge now, and again when the verdict says so."""
        if self._settling:
            return
        self._round += 1
        verdict = self._judge()
        self._warn(verdict)
        if verdict.down:
            self._settling = True
            self._scope.after(SETTLE_S * S, self._declare)
        elif verdict.look_again is not None:
            wait_s = max(0.001, verdict.look_again - self._now_s())
            self._scope.after(wait_s * S, self._again, self._round)

    def _again(self, number: int) -> None:
        if number == self._round:
            self.look()

    def _declare(self) -> None:
        for node_id in self._judge().down:
            self._scope.start(self._declare_down(node_id))
        self._settling = False
        self.look()

    def _judge(self) -> liveness.Verdict:
        return liveness.judge(self._heard, self._now_s(), self.period_s, self._silent_since)

    async def _declare_down(self, node_id: str) -> None:
        self._manager.cluster.counts["nodes declared down"] += 1
        self._manager.cluster.note("node %s is declared down", node_id)
        self.forget(node_id)
        self._hang_up(node_id)
        try:
            await self._rows.set_state(node_id, "down", "heartbeat failure")
        except (NoLeader, LostLeadership):
            return

    def _warn(self, verdict: liveness.Verdict) -> None:
        if verdict.warning and not self._warned:
            self._silent_since = self._now_s()
            self._manager.cluster.counts["mass silence"] += 1
        elif not verdict.warning:
            self._silent_since = 0.0
        self._warned = bool(verdict.warning)
