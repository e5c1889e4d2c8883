"""Plays transcripts of whole Raft clusters: each directive does something to a member, or moves
messages between members, and answers with what could be seen from outside.

The words are those of etcd's transcripts, so that what etcd answered can be compared line by line:
`Cluster` knows the directives, `render` how messages, entries and configurations are written down.
"""

from __future__ import annotations

import random
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    LOCAL_APPLY,
    ChangeKind,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    MemberChange,
    Message,
    MessageKind,
    Ready,
    Role,
    Snapshot,
    Transition,
    decode_conf_change,
)
from swarmctl.core.raft.raft import FollowerProgress, Raft
from swarmctl.core.raft.storage import NO_LIMIT, MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.datadriven.transcript import Directive

ELECTION_TICKS = 3
HEARTBEAT_TICKS = 1

DROPPED = "raft proposal dropped"

_CHANGE_LETTERS = {
    "v": ChangeKind.ADD_VOTER,
    "l": ChangeKind.ADD_LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}
_TRANSITIONS = {
    "auto": Transition.AUTO,
    "implicit": Transition.JOINT_IMPLICIT,
    "explicit": Transition.JOINT_EXPLICIT,
}
_RESPONSES = {
    MessageKind.APPEND_RESPONSE,
    MessageKind.VOTE_RESPONSE,
    MessageKind.PRE_VOTE_RESPONSE,
    MessageKind.HEARTBEAT_RESPONSE,
    MessageKind.READ_INDEX_RESPONSE,
}


class HistoryStorage(MemoryStorage):
    """Sends the state machine's state of now as snapshot, whatever was compacted when."""

    def __init__(self, history: list[Snapshot], snapshot: Snapshot | None) -> None:
        super().__init__(snapshot)
        self._history = history

    def snapshot(self) -> Snapshot | None:
        return self._history[-1]


@dataclass
class Member:
    """A core with its storage, its state machine and, in the asynchronous form, its workers."""

    raft: Raft
    storage: HistoryStorage
    history: list[Snapshot]
    append_orders: list[Message] = field(default_factory=list)
    apply_orders: list[Message] = field(default_factory=list)

    @classmethod
    def create(cls, node: int, directive: Directive) -> Member:
        start = Snapshot(
            index=int(directive.one("index", "0")),
            term=1 if "index" in directive.named else 0,
            conf_state=ConfState(
                voters=tuple(int(voter) for voter in directive.named.get("voters", [])),
                learners=tuple(int(each) for each in directive.named.get("learners", [])),
            ),
            data=directive.one("content").encode(),
        )
        history = [start]
        storage = HistoryStorage(history, start if start.index else None)
        config = RaftConfig(
            election_ticks=ELECTION_TICKS,
            heartbeat_ticks=HEARTBEAT_TICKS,
            async_storage=directive.flag("async-storage-writes"),
            pre_vote=directive.flag("prevote"),
            check_quorum=directive.flag("checkquorum"),
            lease_reads=directive.one("read-only") == "lease-based",
            step_down_on_removal=directive.flag("step-down-on-removal"),
            validate_conf_changes=not directive.flag("disable-conf-change-validation"),
            max_message_size=NO_LIMIT,
            max_inflight_messages=int(directive.one("inflight", str(2**31))),
            max_committed_size=int(directive.one("max-committed-size-per-ready", str(NO_LIMIT))),
            applied=start.index,
        )
        return cls(Raft(node, storage, config, random.Random(node)), storage, history)

    def save(
        self, hard: HardState | None, entries: tuple[Entry, ...], snapshot: Snapshot | None
    ) -> None:
        if hard is not None:
            self.storage.set_hard_state(hard)
        if snapshot is not None:
            self.storage.install(snapshot)
            self.history.append(snapshot)
        else:
            self.storage.append(entries)

    def apply(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            state = self.history[-1]
            conf_state, data = state.conf_state, state.data
            if entry.kind is EntryKind.NORMAL:
                data += entry.data
            else:
                conf_state = self.raft.apply_conf_change(decode_conf_change(entry.data))
            self.history.append(Snapshot(entry.index, entry.term, conf_state, (), data))


class Cluster:
    """The members, and the messages between them that nobody has delivered yet."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._wire: list[Message] = []
        self._lines: list[str] = []
        self._quiet = False

    def handle(self, directive: Directive) -> str:
        """Carry out a directive and give what it answers."""
        self._lines = []
        try:
            getattr(self, "_do_" + directive.command.replace("-", "_"))(directive)
        except ProposalDropped:
            self._lines.append(DROPPED)
        return "\n".join(self._lines) or "ok"

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._lines.extend(text.split("\n"))

    def _member(self, node: int) -> Member:
        return self._members[node - 1]

    def _raft(self, node: int) -> Raft:
        return self._member(node).raft

    def _section(self, title: str, action: Callable[[int], None], node: int) -> None:
        """Say ``title``, and indented below it what ``action`` says about ``node``."""
        self._say(title)
        outer, self._lines = self._lines, []
        try:
            action(node)
        finally:
            inner, self._lines = self._lines, outer
            self._lines.extend(textwrap.indent("\n".join(inner), "  ").split("\n") if inner else [])

    # Directives: making a cluster, looking at it

    def _do_log_level(self, directive: Directive) -> None:
        self._quiet = directive.positional[0].lower() == "none"

    def _do_add_nodes(self, directive: Directive) -> None:
        for _ in range(directive.numbers()[0]):
            self._members.append(Member.create(len(self._members) + 1, directive))

    def _do_raft_log(self, directive: Directive) -> None:
        storage = self._member(directive.numbers()[0]).storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            self._say(f"log is empty: first index={first}, last index={last}")
            return
        for entry in storage.entries(first, last + 1, NO_LIMIT):
            self._say(render_entry(entry))

    def _do_raft_state(self, directive: Directive) -> None:
        for member in self._members:
            status = member.raft.status()
            membership = status.membership
            voting = status.id in (*membership.voters, *membership.voters_outgoing)
            self._say(
                f"{status.id}: {_ROLES[status.role]} {'(Voter)' if voting else '(Non-Voter)'} "
                f"Term:{status.term} Lead:{status.leader}"
            )

    def _do_status(self, directive: Directive) -> None:
        progress = self._raft(directive.numbers()[0]).status().progress
        for node in sorted(progress):
            self._say(f"{node}: {render_progress(progress[node])}")

    # Directives: one member

    def _do_campaign(self, directive: Directive) -> None:
        self._raft(directive.numbers()[0]).campaign()

    def _do_propose(self, directive: Directive) -> None:
        node, data = directive.positional
        self._raft(int(node)).propose(data.encode())

    def _do_propose_conf_change(self, directive: Directive) -> None:
        change = ConfChange(
            changes=tuple(
                MemberChange(_CHANGE_LETTERS[word[0]], int(word[1:]))
                for word in directive.input.split()
            ),
            transition=_TRANSITIONS[directive.one("transition", "auto")],
            v1=directive.flag("v1"),
        )
        self._raft(directive.numbers()[0]).propose_membership(change)

    def _do_tick_election(self, directive: Directive) -> None:
        for _ in range(ELECTION_TICKS):
            self._raft(directive.numbers()[0]).tick()

    def _do_tick_heartbeat(self, directive: Directive) -> None:
        for _ in range(HEARTBEAT_TICKS):
            self._raft(directive.numbers()[0]).tick()

    def _do_set_randomized_election_timeout(self, directive: Directive) -> None:
        raft = self._raft(directive.numbers()[0])
        raft.randomized_election_timeout = int(directive.one("timeout"))

    def _do_transfer_leadership(self, directive: Directive) -> None:
        self._raft(int(directive.one("from"))).transfer_leadership(int(directive.one("to")))

    def _do_forget_leader(self, directive: Directive) -> None:
        self._raft(directive.numbers()[0]).forget_leader()

    def _do_report_unreachable(self, directive: Directive) -> None:
        node, lost = directive.numbers()
        self._raft(node).report_unreachable(lost)

    def _do_compact(self, directive: Directive) -> None:
        node, index = directive.numbers()
        self._member(node).storage.compact(index)
        self._do_raft_log(directive)

    def _do_send_snapshot(self, directive: Directive) -> None:
        node, to = directive.numbers()
        member = self._member(node)
        message = Message(
            MessageKind.SNAPSHOT, to, node, member.raft.term, snapshot=member.storage.snapshot()
        )
        self._wire.append(message)
        self._say(render_message(message))

    # Directives: letting things happen

    def _do_deliver_msgs(self, directive: Directive) -> None:
        kind = directive.one("type") or None
        receivers = [(node, False) for node in directive.numbers()]
        receivers += [(int(node), True) for node in directive.named.get("drop", [])]
        if not sum(self._deliver(node, kind, drop=drop) for node, drop in receivers):
            self._say("no messages")

    def _do_process_ready(self, directive: Directive) -> None:
        self._for_each(directive, "> {} handling Ready", self._process_ready)

    def _do_process_append_thread(self, directive: Directive) -> None:
        self._for_each(directive, "> {} processing append thread", self._process_append)

    def _do_process_apply_thread(self, directive: Directive) -> None:
        self._for_each(directive, "> {} processing apply thread", self._process_apply)

    def _for_each(self, directive: Directive, title: str, action: Callable[[int], None]) -> None:
        nodes = directive.numbers()
        for node in nodes:
            if len(nodes) == 1:
                action(node)
            else:
                self._section(title.format(node), action, node)

    def _do_stabilize(self, directive: Directive) -> None:
        """Until nothing moves: all Readies, then all deliveries, then all workers, in turn."""
        nodes = directive.numbers() or [member.raft.id for member in self._members]
        was_quiet = self._quiet
        if "log-level" in directive.named:
            self._quiet = directive.one("log-level").lower() == "none"
        try:
            while self._stabilize_round(nodes):
                pass
        finally:
            self._quiet = was_quiet

    def _stabilize_round(self, nodes: list[int]) -> bool:
        moved = False
        for node in nodes:
            if self._raft(node).has_ready():
                moved = True
                self._section(f"> {node} handling Ready", self._process_ready, node)
        for node in nodes:
            if any(message.to == node for message in self._wire):
                moved = True
                self._section(f"> {node} receiving messages", self._deliver_all, node)
        for node in nodes:
            if self._member(node).append_orders:
                moved = True
                self._section(f"> {node} processing append thread", self._append_all, node)
        for node in nodes:
            if self._member(node).apply_orders:
                moved = True
                self._section(f"> {node} processing apply thread", self._apply_all, node)
        return moved

    # What a host does

    def _process_ready(self, node: int) -> None:
        member = self._member(node)
        asynchronous = member.raft.config.async_storage
        ready = member.raft.ready()
        self._say(render_ready(ready))
        if not asynchronous:
            member.save(ready.hard_state, ready.entries, ready.snapshot)
            member.apply(ready.committed_entries)
        for message in ready.messages:
            if message.to == LOCAL_APPEND:
                member.append_orders.append(message)
            elif message.to == LOCAL_APPLY:
                member.apply_orders.append(message)
            else:
                self._wire.append(message)
        if not asynchronous:
            member.raft.advance()

    def _append_all(self, node: int) -> None:
        while self._member(node).append_orders:
            self._process_append(node)

    def _apply_all(self, node: int) -> None:
        while self._member(node).apply_orders:
            self._process_apply(node)

    def _process_append(self, node: int) -> None:
        member = self._member(node)
        if not member.append_orders:
            self._say("no append work to perform")
            return
        order = member.append_orders.pop(0)
        hard = HardState(order.term, order.vote, order.commit) if order.term else None
        self._report_order(order)
        member.save(hard, order.entries, order.snapshot)

    def _process_apply(self, node: int) -> None:
        member = self._member(node)
        if not member.apply_orders:
            self._say("no apply work to perform")
            return
        order = member.apply_orders.pop(0)
        self._report_order(order)
        member.apply(order.entries)

    def _report_order(self, order: Message) -> None:
        self._say("Processing:")
        self._say(render_message(order, with_responses=False))
        self._say("Responses:")
        for response in order.responses:
            self._say(render_message(response))
        self._wire.extend(order.responses)

    # The network

    def _deliver_all(self, node: int) -> None:
        self._deliver(node, None, drop=False)

    def _deliver(self, node: int, kind: str | None, *, drop: bool) -> int:
        """Deliver (or lose) what waits for ``node``; what is local is never lost."""
        taken = [message for message in self._wire if self._is_due(message, node, kind, drop=drop)]
        self._wire = [
            message for message in self._wire if not self._is_due(message, node, kind, drop=drop)
        ]
        for message in taken:
            self._say(("dropped: " if drop else "") + render_message(message))
            if not drop:
                self._step(self._raft(node), message)
        return len(taken)

    @staticmethod
    def _is_due(message: Message, node: int, kind: str | None, *, drop: bool) -> bool:
        local = message.sender == message.to or message.sender < 0
        return (
            message.to == node
            and not (drop and local)
            and (kind is None or _KINDS[message.kind] == kind)
        )

    def _step(self, raft: Raft, message: Message) -> None:
        membership = raft.status().membership
        members = (*membership.voters, *membership.voters_outgoing, *membership.learners)
        if message.kind in _RESPONSES and message.sender not in members:
            self._say("raft: cannot step as peer not found")
        try:
            raft.step(message)
        except ProposalDropped:
            self._say(DROPPED)


# Writing down

_ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
_KINDS = {
    MessageKind.APPEND: "MsgApp",
    MessageKind.APPEND_RESPONSE: "MsgAppResp",
    MessageKind.HEARTBEAT: "MsgHeartbeat",
    MessageKind.HEARTBEAT_RESPONSE: "MsgHeartbeatResp",
    MessageKind.VOTE: "MsgVote",
    MessageKind.VOTE_RESPONSE: "MsgVoteResp",
    MessageKind.PRE_VOTE: "MsgPreVote",
    MessageKind.PRE_VOTE_RESPONSE: "MsgPreVoteResp",
    MessageKind.SNAPSHOT: "MsgSnap",
    MessageKind.PROPOSE: "MsgProp",
    MessageKind.READ_INDEX: "MsgReadIndex",
    MessageKind.READ_INDEX_RESPONSE: "MsgReadIndexResp",
    MessageKind.TRANSFER_LEADER: "MsgTransferLeader",
    MessageKind.TIMEOUT_NOW: "MsgTimeoutNow",
    MessageKind.STORAGE_APPEND: "MsgStorageAppend",
    MessageKind.STORAGE_APPEND_RESPONSE: "MsgStorageAppendResp",
    MessageKind.STORAGE_APPLY: "MsgStorageApply",
    MessageKind.STORAGE_APPLY_RESPONSE: "MsgStorageApplyResp",
}
_ENTRY_KINDS = {
    EntryKind.NORMAL: "EntryNormal",
    EntryKind.CONF_CHANGE_V1: "EntryConfChange",
    EntryKind.CONF_CHANGE: "EntryConfChangeV2",
}
_LETTERS = {kind: letter for letter, kind in _CHANGE_LETTERS.items()}


def render_node(node: int) -> str:
    names = {0: "None", LOCAL_APPEND: "AppendThread", LOCAL_APPLY: "ApplyThread"}
    return names.get(node) or f"{node:x}"


def render_entry(entry: Entry) -> str:
    if entry.kind is EntryKind.NORMAL:
        text = '"' + entry.data.decode().replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        change = decode_conf_change(entry.data)
        text = " ".join(f"{_LETTERS[step.kind]}{step.node}" for step in change.changes)
    return f"{entry.term}/{entry.index} {_ENTRY_KINDS[entry.kind]} {text}".rstrip()


def render_conf_state(conf_state: ConfState) -> str:
    def nodes(ids: tuple[int, ...]) -> str:
        return "[" + " ".join(map(str, ids)) + "]"

    return (
        f"Voters:{nodes(conf_state.voters)} "
        f"VotersOutgoing:{nodes(conf_state.voters_outgoing)} "
        f"Learners:{nodes(conf_state.learners)} "
        f"LearnersNext:{nodes(conf_state.learners_next)} "
        f"AutoLeave:{str(conf_state.auto_leave).lower()}"
    )


def render_snapshot(snapshot: Snapshot) -> str:
    conf_state = render_conf_state(snapshot.conf_state)
    return f"Index:{snapshot.index} Term:{snapshot.term} ConfState:{conf_state}"


def render_message(message: Message, *, with_responses: bool = True) -> str:
    head = (
        f"{render_node(message.sender)}->{render_node(message.to)} {_KINDS[message.kind]} "
        f"Term:{message.term} Log:{message.log_term}/{message.index}"
    )
    if message.reject:
        head += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        head += f" Commit:{message.commit}"
    if message.vote:
        head += f" Vote:{message.vote}"
    if len(message.entries) == 1:
        head += f" Entries:[{render_entry(message.entries[0])}]"
    elif message.entries:
        head += _block("Entries", [render_entry(entry) for entry in message.entries])
    if message.snapshot is not None:
        head += f"\n  Snapshot: {render_snapshot(message.snapshot)}"
    if with_responses and message.responses:
        head += _block("Responses", [render_message(each) for each in message.responses])
    return head


def _block(name: str, items: list[str]) -> str:
    return f" {name}:[\n" + textwrap.indent("\n".join(items), "  ") + "\n]"


def render_ready(ready: Ready) -> str:
    lines: list[str] = []
    if ready.soft_state is not None:
        lines.append(f"Lead:{ready.soft_state.leader} State:{_ROLES[ready.soft_state.role]}")
    if ready.hard_state is not None:
        hard = ready.hard_state
        vote = f" Vote:{hard.vote}" if hard.vote else ""
        lines.append(f"HardState Term:{hard.term}{vote} Commit:{hard.commit}")
    if ready.entries:
        lines += ["Entries:", *map(render_entry, ready.entries)]
    if ready.snapshot is not None:
        lines.append(f"Snapshot {render_snapshot(ready.snapshot)}")
    if ready.committed_entries:
        lines += ["CommittedEntries:", *map(render_entry, ready.committed_entries)]
    if ready.messages:
        lines += ["Messages:", *map(render_message, ready.messages)]
    if not lines:
        return "<empty Ready>"
    return "\n".join([f"Ready MustSync={str(ready.must_sync).lower()}:", *lines])


def render_progress(progress: FollowerProgress) -> str:
    text = f"State{progress.state.name.capitalize()} match={progress.match} next={progress.next}"
    if progress.learner:
        text += " learner"
    if progress.paused:
        text += " paused"
    if progress.pending_snapshot:
        text += f" pendingSnap={progress.pending_snapshot}"
    if not progress.recently_active:
        text += " inactive"
    if progress.inflight:
        text += f" inflight={progress.inflight}" + ("[full]" if progress.inflight_full else "")
    return text
