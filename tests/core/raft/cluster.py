"""Members of a Raft cluster for tests: real cores on real memory storage, messages by hand.

`Host` does what a member's Ready says, at once. `Cluster` carries messages between hosts until
nothing moves, except over links that have been cut. Everything is deterministic.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

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
    ReadState,
    Role,
    Snapshot,
    Transition,
    decode_conf_change,
)
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAIN: dict[str, Any] = {"pre_vote": False, "check_quorum": False, "heartbeat_ticks": 1}
"""The Raft of the paper: neither PreVote nor CheckQuorum."""


def entries(*terms: int, start: int = 1) -> tuple[Entry, ...]:
    """Entries of these terms, at dense indexes from ``start`` on."""
    return tuple(Entry(term=term, index=index) for index, term in enumerate(terms, start))


def change(*steps: str, transition: Transition = Transition.AUTO) -> ConfChange:
    """``v4`` adds voter 4, ``l4`` learner 4, ``r4`` removes 4."""
    kinds = {"v": ChangeKind.ADD_VOTER, "l": ChangeKind.ADD_LEARNER, "r": ChangeKind.REMOVE}
    return ConfChange(
        tuple(MemberChange(kinds[step[0]], int(step[1:])) for step in steps), transition
    )


class _Storage(MemoryStorage):
    """Sends the state machine's state of now, whatever was compacted when."""

    raft: Raft

    def snapshot(self) -> Snapshot | None:
        index = self.raft.log.applied
        return Snapshot(index, self.term(index), self.raft.status().membership)


class Host:
    """One member, its storage and its state machine."""

    def __init__(
        self,
        node: int = 1,
        voters: Iterable[int] = (1, 2, 3),
        *,
        learners: Iterable[int] = (),
        log: Iterable[int] = (),
        term: int = 0,
        vote: int = 0,
        commit: int = 0,
        snapshot: Snapshot | None = None,
        **options: Any,
    ) -> None:
        """A member as storage has left it: ``log`` gives the terms of its entries."""
        if snapshot is None:
            snapshot = Snapshot(conf_state=ConfState(tuple(voters), tuple(learners)))
        terms = tuple(log)
        if terms and not term:
            term = terms[-1]
        self.storage = _Storage(
            snapshot,
            HardState(term, vote, commit),
            entries(*terms, start=snapshot.index + 1),
        )
        self.config = RaftConfig(**options)
        self.applied: list[Entry] = []
        self.reads: list[ReadState] = []
        self._boot(node)

    def _boot(self, node: int) -> None:
        start = MemoryStorage.snapshot(self.storage)
        applied = max(self.config.applied, start.index if start else 0)
        config = msgspec.structs.replace(self.config, applied=applied)
        self.raft = Raft(node, self.storage, config, random.Random(node))
        self.storage.raft = self.raft

    def restart(self) -> None:
        """Crash, and come back with what storage has."""
        self._boot(self.raft.id)
        self.applied = []

    def run(self) -> list[Message]:
        """Do what Ready says until it says nothing; what is for other members is returned."""
        out: list[Message] = []
        while self.raft.has_ready():
            ready = self.raft.ready()
            self.reads.extend(ready.read_states)
            if self.config.async_storage:
                self._carry_out(ready.messages, out)
            else:
                self._save(ready.hard_state, ready.entries, ready.snapshot)
                out.extend(ready.messages)
                self._apply(ready.committed_entries)
                self.raft.advance()
        return out

    def _carry_out(self, messages: tuple[Message, ...], out: list[Message]) -> None:
        for message in messages:
            if message.to == LOCAL_APPEND:
                hard = HardState(message.term, message.vote, message.commit)
                self._save(hard if message.term else None, message.entries, message.snapshot)
            elif message.to == LOCAL_APPLY:
                self._apply(message.entries)
            else:
                out.append(message)
            for response in message.responses:
                if response.to == self.raft.id:
                    self.raft.step(response)
                else:
                    out.append(response)

    def _save(
        self, hard: HardState | None, new: tuple[Entry, ...], snapshot: Snapshot | None
    ) -> None:
        if hard is not None:
            self.storage.set_hard_state(hard)
        if snapshot is not None:
            self.storage.install(snapshot)
        self.storage.append(new)

    def _apply(self, committed: tuple[Entry, ...]) -> None:
        for entry in committed:
            self.applied.append(entry)
            if entry.kind is not EntryKind.NORMAL:
                self.raft.apply_conf_change(decode_conf_change(entry.data))

    def receive(self, message: Message) -> list[Message]:
        """Step one message and return what the member sends then."""
        self.raft.step(message)
        return self.run()

    def tick(self, times: int = 1) -> list[Message]:
        out: list[Message] = []
        for _ in range(times):
            self.raft.tick()
            out.extend(self.run())
        return out

    def compact(self, *, keep: int = 0) -> None:
        """Keep a snapshot of the state machine, and of the entries only the last ``keep``."""
        snapshot = self.storage.snapshot()
        if snapshot is not None:
            self.storage.replace_snapshot(snapshot)
            self.storage.compact(snapshot.index - keep)

    def data(self) -> list[bytes]:
        """What the state machine has been given, without empty entries and membership."""
        return [each.data for each in self.applied if each.data and not each.kind]

    def log(self) -> list[tuple[int, int]]:
        """(term, index) of every entry in storage."""
        first, last = self.storage.first_index(), self.storage.last_index()
        return [(entry.term, entry.index) for entry in self.storage.entries(first, last + 1, 2**63)]


class Cluster:
    """Hosts and the network between them."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts = {host.raft.id: host for host in hosts}
        self._cut: set[tuple[int, int]] = set()
        self._lost_kinds: set[MessageKind] = set()
        self.carried: list[Message] = []

    @classmethod
    def of(cls, size: int, learners: Iterable[int] = (), **options: Any) -> Cluster:
        """Voters 1 to ``size``, and ``learners`` besides, founded with a log of nothing."""
        voters = tuple(range(1, size + 1))
        extra = tuple(learners)
        return cls(*(Host(node, voters, learners=extra, **options) for node in (*voters, *extra)))

    @classmethod
    def founded(cls, size: int, **options: Any) -> Cluster:
        """Voters 1 to ``size`` whose log begins after a snapshot, as a real cluster's does.

        The snapshot is where a newcomer, whose log is empty, learns the founding members from.
        """
        voters = tuple(range(1, size + 1))
        snapshot = Snapshot(1, 1, ConfState(voters))
        return cls(*(Host(node, snapshot=snapshot, term=1, **options) for node in voters))

    def __getitem__(self, node: int) -> Host:
        return self.hosts[node]

    def raft(self, node: int) -> Raft:
        return self.hosts[node].raft

    def cut(self, *nodes: int) -> None:
        """Nothing gets from or to ``nodes``, not even among them."""
        for node in nodes:
            for other in self.hosts:
                self._cut |= {(node, other), (other, node)}

    def cut_link(self, sender: int, to: int) -> None:
        self._cut.add((sender, to))

    def lose(self, *kinds: MessageKind) -> None:
        self._lost_kinds |= set(kinds)

    def heal(self) -> None:
        self._cut.clear()
        self._lost_kinds.clear()

    def settle(self) -> None:
        """Carry messages until nothing moves."""
        queue: deque[Message] = deque()
        for host in self.hosts.values():
            queue.extend(host.run())
        while queue:
            message = queue.popleft()
            lost = (message.sender, message.to) in self._cut or message.kind in self._lost_kinds
            if lost or message.to not in self.hosts:
                continue
            self.carried.append(message)
            host = self.hosts[message.to]
            try:
                queue.extend(host.receive(message))
            except ProposalDropped:
                queue.extend(host.run())

    def elect(self, node: int) -> None:
        """Let ``node`` campaign and become leader."""
        self.raft(node).campaign()
        self.settle()
        assert self.raft(node).role is Role.LEADER

    def propose(self, node: int, *data: bytes) -> None:
        for each in data:
            self.raft(node).propose(each)
            self.settle()

    def change(self, node: int, conf_change: ConfChange) -> None:
        """Propose a membership change and let it take its course."""
        self.raft(node).propose_membership(conf_change)
        self.settle()

    def tick(self, *nodes: int, times: int = 1) -> None:
        for _ in range(times):
            for node in nodes or self.hosts:
                self.raft(node).tick()
                self.settle()

    def roles(self) -> dict[int, Role]:
        return {node: host.raft.role for node, host in self.hosts.items()}
