"""A whole Raft cluster on one seeded generator, under every fault a network and a disk can have.

One step is one random event: a message is delivered, lost or doubled (in any order), a member
ticks, its Ready is taken, its log writer or state machine does one job, it crashes with its undone
jobs lost, it restarts; links break and heal; somebody proposes, reads, compacts, changes the
membership, hands leadership over. Nothing is shared between members but messages, so a seed
reproduces its run exactly.

`Watch` looks on from outside and raises `Broken` as soon as Raft promises something twice:

    election safety      one leader a term, one vote a term and voter
    log matching         an entry is determined by index and term, and so is all before it
    leader completeness  a new leader has everything committed before its term
    state machine safety whatever is applied at an index is the same everywhere, for ever
    linearizable reads   a read index is not below what was committed when the read was asked for
"""

from __future__ import annotations

import random
import zlib
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.errors import ConfChangeRefused, ProposalDropped
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
    ReadState,
    Role,
    Snapshot,
    Transition,
    decode_conf_change,
)
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.storage import MemoryStorage

FOUNDERS = (1, 2, 3)
FOUNDING = Snapshot(1, 1, ConfState(FOUNDERS))
MAX_MEMBERS = 6


class Broken(AssertionError):
    """A promise of Raft does not hold."""


class Watch:
    """What has been seen so far, and what may therefore never be seen any more."""

    def __init__(self) -> None:
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._entries: dict[tuple[int, int], tuple[int, Entry]] = {}
        self._applied: dict[int, tuple[int, int]] = {}
        self._applied_by_term: dict[int, int] = {}
        self.committed = FOUNDING.index

    def leads(self, raft: Raft) -> None:
        first = self._leaders.setdefault(raft.term, raft.id)
        if first != raft.id:
            raise Broken(f"{first} and {raft.id} both lead term {raft.term}")

    def elected(self, raft: Raft) -> None:
        """A leader has everything that was applied anywhere in an earlier term."""
        self.leads(raft)
        for term, index in self._applied_by_term.items():
            if term < raft.term and raft.log.last_index < index:
                raise Broken(f"leader {raft.id} of term {raft.term} lacks committed {index}")

    def votes(self, message: Message) -> None:
        if message.kind is MessageKind.VOTE_RESPONSE and not message.reject:
            voted = self._votes.setdefault((message.sender, message.term), message.to)
            if voted != message.to:
                raise Broken(f"{message.sender} voted twice in term {message.term}")

    def written(self, storage: MemoryStorage, entries: tuple[Entry, ...]) -> None:
        """An entry reached a disk: everybody's entry of that place and term is the same."""
        for entry in entries:
            if entry.index <= storage.first_index():
                continue
            before = storage.term(entry.index - 1)
            known = self._entries.setdefault((entry.index, entry.term), (before, entry))
            if known != (before, entry):
                raise Broken(f"two different entries {entry.term}/{entry.index}")

    def applied(self, raft: Raft, entry: Entry, digest: int) -> None:
        known = self._applied.setdefault(entry.index, (entry.term, digest))
        if known != (entry.term, digest):
            raise Broken(f"{raft.id} applied something else at {entry.index}")
        best = self._applied_by_term.get(raft.term, 0)
        self._applied_by_term[raft.term] = max(best, entry.index)
        self.committed = max(self.committed, entry.index)

    def read(self, asked_at: int, state: ReadState) -> None:
        if state.index < asked_at:
            raise Broken(f"a read at {state.index} misses what was committed: {asked_at}")


class _Storage(MemoryStorage):
    """Sends the state machine's state of now."""

    node: Node

    def snapshot(self) -> Snapshot | None:
        return self.node.state()


@dataclass
class Node:
    """A member: its disk survives crashes, all else does not."""

    id: int
    storage: _Storage
    config: RaftConfig
    raft: Raft
    up: bool = True
    machine: Snapshot = FOUNDING
    jobs: deque[Message] = field(default_factory=deque)
    applies: deque[Message] = field(default_factory=deque)
    led_term: int = 0

    def state(self) -> Snapshot:
        return self.machine


class Simulation:
    """One run.

    Args:
        seed: everything random comes from it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.watch = Watch()
        self.counts: Counter[str] = Counter()
        self._options = self._choose_options()
        self.nodes: dict[int, Node] = {}
        for node in FOUNDERS:
            self._add(node, FOUNDING)
        self._wire: list[Message] = []
        self._cut: set[tuple[int, int]] = set()
        self._reads: dict[bytes, int] = {}
        self._proposed = 0
        actions = [
            (self._deliver, 120),
            (self._take_ready, 90),
            (self._write, 70),
            (self._apply, 50),
            (self._tick, 24),
            (self._lose, 7),
            (self._double, 3),
            (self._propose, 12),
            (self._read, 2),
            (self._compact, 3),
            (self._crash, 0.8),
            (self._restart, 1.5),
            (self._break_links, 0.5),
            (self._heal, 0.5),
            (self._change_membership, 1),
            (self._transfer, 0.4),
            (self._campaign, 0.4),
            (self._report, 0.5),
        ]
        self._actions = [action for action, _ in actions]
        weights = [weight for _, weight in actions]
        self._cumulative = [sum(weights[: place + 1]) for place in range(len(weights))]

    def _choose_options(self) -> dict[str, Any]:
        rng = self.rng
        guarded = rng.random() < 0.7
        return {
            "async_storage": rng.random() < 0.8,
            "pre_vote": guarded,
            "check_quorum": guarded,
            "heartbeat_ticks": 1,
            "election_ticks": 5,
            "max_message_size": rng.choice([1, 40, 100000]),
            "max_inflight_messages": rng.choice([1, 3, 100]),
            "max_committed_size": rng.choice([1, 60, 2**63]),
        }

    # The run

    def run(self, steps: int) -> None:
        """Let ``steps`` events happen, then stop all faults and see that everybody agrees.

        Raises:
            Broken: with the seed in its text.
        """
        try:
            for _ in range(steps):
                (action,) = self.rng.choices(self._actions, cum_weights=self._cumulative)
                action()
            self._settle()
        except Exception as error:
            raise Broken(f"seed {self.seed}: {error}") from error

    def _settle(self) -> None:
        """Without faults everybody in the cluster has to come to the same end."""
        self._cut.clear()
        for node in self.nodes.values():
            if not node.up:
                self._boot(node)
        marker = False
        for _ in range(400):
            self._drain()
            leaders = [node for node in self._up() if node.raft.role is Role.LEADER]
            members: set[int] = set()
            if leaders:
                best = max(leaders, key=lambda node: node.raft.term)
                members = set(best.raft.tracker.progress)
                if not marker:
                    marker = self._try_propose(best, b"the end")
                elif self._all_agree(members):
                    return
            for node in self._up():
                if not members or node.id in members:
                    node.raft.tick()
        raise Broken("no agreement although nothing fails any more")

    def _all_agree(self, members: set[int]) -> bool:
        states = {self.nodes[node].machine for node in members}
        (state, *others) = states
        return not others and state.index == self.watch.committed

    def _drain(self) -> None:
        moved = True
        while moved:
            moved = False
            for node in self._up():
                while node.raft.has_ready() or node.jobs or node.applies:
                    moved = True
                    if node.raft.has_ready():
                        self._ready_of(node)
                    while node.jobs:
                        self._write_of(node)
                    while node.applies:
                        self._apply_of(node)
            wire, self._wire = self._wire, []
            for message in wire:
                moved = True
                self._step(message)

    # Members

    def _add(self, node: int, snapshot: Snapshot | None) -> None:
        storage = _Storage(snapshot, HardState(1, 0, 1) if snapshot else None)
        config = RaftConfig(**self._options)
        created = Node(node, storage, config, None)  # type: ignore[arg-type]
        created.machine = snapshot or Snapshot()
        storage.node = created
        self.nodes[node] = created
        self._boot(created)

    def _boot(self, node: Node) -> None:
        """Start from what is on the disk: the newest own snapshot, and the log after it."""
        start = node.storage._snapshot
        node.machine = start
        options = {**self._options, "applied": start.index}
        node.raft = Raft(
            node.id, node.storage, RaftConfig(**options), random.Random(self.rng.random())
        )
        node.jobs.clear()
        node.applies.clear()
        node.led_term = 0
        node.up = True

    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up]

    def _pick(self) -> Node | None:
        node = self.nodes[self.rng.choice(list(self.nodes))]
        return node if node.up else None

    def _look_at(self, node: Node) -> None:
        raft = node.raft
        if raft.role is not Role.LEADER:
            return
        if node.led_term != raft.term:
            node.led_term = raft.term
            self.counts["elections"] += 1
            self.watch.elected(raft)
        reached = raft.tracker.committed()
        if raft.log.committed < reached and raft.log.term(reached) not in (None, raft.term):
            self.counts["figure 8"] += 1

    def _step(self, message: Message) -> None:
        node = self.nodes[message.to]
        arrives = node.up and (message.sender, message.to) not in self._cut
        if message.kind is MessageKind.SNAPSHOT:
            self._report_snapshot(message, arrived=arrives)
        if not arrives:
            return
        try:
            node.raft.step(message)
        except ProposalDropped:
            self.counts["proposals dropped"] += 1
        self._look_at(node)

    # Events: what a host does

    def _take_ready(self) -> None:
        node = self._pick()
        if node is not None and node.raft.has_ready():
            self._ready_of(node)

    def _ready_of(self, node: Node) -> None:
        ready = node.raft.ready()
        for state in ready.read_states:
            self.watch.read(self._reads.pop(state.context, 0), state)
            self.counts["reads"] += 1
        if not node.config.async_storage:
            order = Message(
                MessageKind.STORAGE_APPEND,
                LOCAL_APPEND,
                entries=ready.entries,
                snapshot=ready.snapshot,
            )
            self._save(node, ready.hard_state, order)
            self._apply_entries(node, ready.committed_entries)
        for message in ready.messages:
            if message.to == LOCAL_APPEND:
                node.jobs.append(message)
            elif message.to == LOCAL_APPLY:
                node.applies.append(message)
            else:
                self._send(message)
        if not node.config.async_storage:
            node.raft.advance()
            self._look_at(node)

    def _send(self, message: Message) -> None:
        self.watch.votes(message)
        if message.kind is MessageKind.SNAPSHOT:
            self.counts["snapshots sent"] += 1
        self._wire.append(message)

    def _write(self) -> None:
        node = self._pick()
        if node is not None and node.jobs:
            self._write_of(node)

    def _write_of(self, node: Node) -> None:
        order = node.jobs.popleft()
        hard = HardState(order.term, order.vote, order.commit) if order.term else None
        self._save(node, hard, order)
        for response in order.responses:
            if response.to == node.id:
                self._step(response)
            else:
                self._send(response)

    def _save(self, node: Node, hard: HardState | None, order: Message) -> None:
        if hard is not None:
            node.storage.set_hard_state(hard)
        if order.snapshot is not None:
            node.storage.install(order.snapshot)
            node.machine = order.snapshot
            self.counts["snapshots installed"] += 1
        node.storage.append(order.entries)
        self.watch.written(node.storage, order.entries)

    def _apply(self) -> None:
        node = self._pick()
        if node is not None and node.applies:
            self._apply_of(node)

    def _apply_of(self, node: Node) -> None:
        order = node.applies.popleft()
        self._apply_entries(node, order.entries)
        for response in order.responses:
            self._step(response)

    def _apply_entries(self, node: Node, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.index <= node.machine.index:
                continue  # a snapshot has overtaken the order
            if entry.index != node.machine.index + 1:
                raise Broken(f"{node.id} applies {entry.index} after {node.machine.index}")
            conf_state = node.machine.conf_state
            if entry.kind is not EntryKind.NORMAL:
                conf_state = node.raft.apply_conf_change(
                    decode_conf_change(entry.data), entry.index
                )
                self.counts["joint"] += bool(conf_state.voters_outgoing)
                self.counts["membership changes"] += 1
            digest = zlib.crc32(entry.data, int.from_bytes(node.machine.data, "big"))
            self.watch.applied(node.raft, entry, digest)
            node.machine = Snapshot(
                entry.index, entry.term, conf_state, data=digest.to_bytes(4, "big")
            )
        self._look_at(node)

    def _compact(self) -> None:
        """Keep an own snapshot, and a few entries for slow followers."""
        node = self._pick()
        if node is None or node.machine.index <= node.storage.first_index():
            return
        if node.raft.log.applied < node.machine.index:
            return  # the core has not heard yet that so much is applied
        node.storage.replace_snapshot(node.machine)
        keep = self.rng.randrange(3)
        index = node.machine.index - keep
        if index >= node.storage.first_index():
            node.storage.compact(index)
            self.counts["compactions"] += 1

    # Events: network and power

    def _deliver(self) -> None:
        if self._wire:
            place = self.rng.randrange(len(self._wire))
            if self.rng.random() < 0.7:
                place = min(place, 3)
            self._step(self._wire.pop(place))

    def _lose(self) -> None:
        if self._wire:
            lost = self._wire.pop(self.rng.randrange(len(self._wire)))
            self.counts["messages lost"] += 1
            if lost.kind is MessageKind.SNAPSHOT:
                self._report_snapshot(lost, arrived=False)

    def _report_snapshot(self, message: Message, *, arrived: bool) -> None:
        """The sender's transport knows whether a snapshot got through."""
        self.counts["snapshots lost"] += not arrived
        sender = self.nodes[message.sender]
        if sender.up:
            sender.raft.report_snapshot(message.to, ok=arrived)

    def _double(self) -> None:
        if self._wire:
            message = self.rng.choice(self._wire)
            if message.kind is not MessageKind.PROPOSE:
                self._wire.append(message)
                self.counts["messages doubled"] += 1

    def _break_links(self) -> None:
        """Cut one direction of one link, or everything of one member."""
        ids = list(self.nodes)
        one, other = self.rng.choice(ids), self.rng.choice(ids)
        if self.rng.random() < 0.5:
            self._cut.add((one, other))
        else:
            self._cut |= {(one, each) for each in ids} | {(each, one) for each in ids}
        self._cut -= {(each, each) for each in ids}
        self.counts["links broken"] += 1

    def _heal(self) -> None:
        self._cut.clear()

    def _crash(self) -> None:
        """Lose everything that is not on the disk; some undone jobs may still get there."""
        node = self._pick()
        if node is None:
            return
        for _ in range(self.rng.randrange(len(node.jobs) + 1)):
            order = node.jobs.popleft()
            hard = HardState(order.term, order.vote, order.commit) if order.term else None
            self._save(node, hard, order)
        self.counts["writes lost"] += len(node.jobs)
        node.up = False
        self.counts["crashes"] += 1

    def _restart(self) -> None:
        down = [node for node in self.nodes.values() if not node.up]
        if down:
            self._boot(self.rng.choice(down))

    def _tick(self) -> None:
        node = self._pick()
        if node is not None:
            node.raft.tick()
            self._look_at(node)

    # Events: what people do

    def _propose(self) -> None:
        node = self._pick()
        if node is not None and node.raft.leader == node.id:
            self._proposed += 1
            self._try_propose(node, b"%d" % self._proposed)

    def _try_propose(self, node: Node, data: bytes) -> bool:
        try:
            node.raft.propose(data)
        except ProposalDropped:
            return False
        return True

    def _read(self) -> None:
        node = self._pick()
        if node is not None:
            context = b"read %d" % len(self._reads) + b" %d" % self.counts["asked"]
            self.counts["asked"] += 1
            self._reads[context] = self.watch.committed
            node.raft.read_index(context)

    def _campaign(self) -> None:
        node = self._pick()
        if node is not None:
            node.raft.campaign()

    def _transfer(self) -> None:
        node = self._pick()
        if node is not None and node.raft.role is Role.LEADER:
            node.raft.transfer_leadership(self.rng.choice(list(node.raft.tracker.progress)))
            self.counts["transfers"] += node.raft.transferee != 0

    def _report(self) -> None:
        node = self._pick()
        if node is not None:
            node.raft.report_unreachable(self.rng.choice(list(self.nodes)))

    def _change_membership(self) -> None:
        node = self._pick()
        if node is None or node.raft.role is not Role.LEADER:
            return
        change = self._some_change(node.raft.status().membership)
        try:
            node.raft.check_membership(change)
            node.raft.propose_membership(change)
        except (ConfChangeRefused, ProposalDropped):
            return
        for step in change.changes:
            if step.kind is ChangeKind.ADD_LEARNER and step.node not in self.nodes:
                self._add(step.node, None)

    def _some_change(self, membership: ConfState) -> ConfChange:
        rng = self.rng
        if membership.voters_outgoing:
            return ConfChange()
        steps: list[MemberChange] = []
        for _ in range(rng.choice([1, 1, 2])):
            roll = rng.random()
            if roll < 0.4 and len(self.nodes) < MAX_MEMBERS:
                steps.append(MemberChange(ChangeKind.ADD_LEARNER, len(self.nodes) + 1))
            elif roll < 0.75 and membership.learners:
                steps.append(MemberChange(ChangeKind.ADD_VOTER, rng.choice(membership.learners)))
            elif roll < 0.85:
                kind = rng.choice([ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER])
                steps.append(MemberChange(kind, rng.choice(membership.voters)))
            elif len(membership.voters) > 2:
                steps.append(MemberChange(ChangeKind.REMOVE, rng.choice(membership.voters)))
        return ConfChange(tuple(steps), rng.choice(list(Transition)))
