"""A cluster on a network that can be bad, in rounds: course exercises and fuzzers play on it.

Every round each member ticks once and what is due is delivered. `Rough` checks all the while that
no term has two leaders and that nobody applies at an index what another has not applied there.
Everything random comes from one seed.
"""

from __future__ import annotations

import random
from typing import Any

from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.message import Entry, Message, MessageKind, Role
from tests.core.raft.cluster import Cluster, Host

PATIENCE = 400
"""Rounds after which a cluster that could agree should have agreed: twenty election timeouts."""


class Rough:
    """``reliable``: nothing is lost. ``reordering``: answers may be overtaken by many others."""

    def __init__(
        self,
        size: int,
        *,
        seed: int = 1,
        reliable: bool = True,
        reordering: bool = False,
        **options: Any,
    ) -> None:
        self.hosts: dict[int, Host] = Cluster.founded(size, **options).hosts
        self.rng = random.Random(seed)
        self.reliable = reliable
        self.reordering = reordering
        self.carried = 0
        self.history: dict[int, Entry] = {}
        self.slow: set[MessageKind] = set()
        self._options = options
        self._down: set[int] = set()
        self._away: set[int] = set()
        self._wire: list[tuple[int, int, Message]] = []
        self._round = 0
        self._sent = 0
        self._leaders: dict[int, int] = {}
        self._checked: dict[int, int] = dict.fromkeys(self.hosts, 0)
        for node, host in self.hosts.items():
            # Members are no copies of each other: their timeouts differ.
            host.raft.randomized_election_timeout = 10 + (node * 3) % 10

    # Faults

    def disconnect(self, *nodes: int) -> None:
        self._away |= set(nodes)

    def connect(self, *nodes: int) -> None:
        self._away -= set(nodes)

    def crash(self, *nodes: int) -> None:
        self._down |= set(nodes)

    def restart(self, *nodes: int) -> None:
        """Come back with what storage has."""
        for node in nodes:
            host = self.hosts[node]
            host.restart()
            host.raft.randomized_election_timeout = 10 + self.rng.randrange(10)
            self._checked[node] = 0
            self._down.discard(node)

    def add(self, node: int) -> None:
        """A newcomer that knows nothing; the membership change is somebody else's business."""
        self.hosts[node] = Host(node, (), **self._options)
        self._checked[node] = 0

    def up(self) -> list[int]:
        return [node for node in self.hosts if node not in self._down | self._away]

    # Time

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self._round += 1
            for node in list(self.hosts):
                if node not in self._down:
                    self._post(self.hosts[node].tick())
            self._deliver()

    def until(self, condition: Any, *, patience: int = PATIENCE) -> bool:
        """Let rounds pass until ``condition()``; False if it does not come true in time."""
        for _ in range(patience):
            if condition():
                return True
            self.rounds(1)
        return bool(condition())

    def _post(self, messages: list[Message]) -> None:
        rng = self.rng
        for message in messages:
            delay = 0
            if message.kind in self.slow:
                delay = 4 + rng.randrange(8)
            if not self.reliable:
                if rng.random() < 0.1:
                    self._report(message, ok=False)
                    continue
                delay = rng.randrange(3)
            if self.reordering and rng.random() < 0.5:
                delay = 2 + rng.randrange(20)
            self._sent += 1
            self._wire.append((self._round + delay, self._sent, message))

    def _deliver(self) -> None:
        while due := sorted(each for each in self._wire if each[0] <= self._round):
            self._wire = [each for each in self._wire if each[0] > self._round]
            for _, _, message in due:
                self._hand_over(message)

    def _hand_over(self, message: Message) -> None:
        gone = self._down | self._away
        arrives = not {message.to, message.sender} & gone and message.to in self.hosts
        self._report(message, ok=arrives)
        if not arrives:
            return
        self.carried += 1
        host = self.hosts[message.to]
        try:
            self._post(host.receive(message))
        except ProposalDropped:
            self._post(host.run())
        self._look_at(message.to)

    def _report(self, message: Message, *, ok: bool) -> None:
        """The sender's transport owes it to say what became of a snapshot."""
        if message.kind is MessageKind.SNAPSHOT and message.sender not in self._down:
            self.hosts[message.sender].raft.report_snapshot(message.to, ok=ok)

    def _look_at(self, node: int) -> None:
        host = self.hosts[node]
        raft = host.raft
        if raft.role is Role.LEADER:
            first = self._leaders.setdefault(raft.term, node)
            assert first == node, f"{first} and {node} lead term {raft.term}"
        for entry in host.applied[self._checked[node] :]:
            known = self.history.setdefault(entry.index, entry)
            assert known == entry, f"{node} applies {entry} where {known} was applied"
        self._checked[node] = len(host.applied)

    # What people do

    def leader(self) -> int | None:
        """Who leads the latest term among those that can be reached."""
        leaders = [node for node in self.up() if self.hosts[node].raft.role is Role.LEADER]
        return max(leaders, key=lambda node: self.hosts[node].raft.term, default=None)

    def wait_leader(self) -> int:
        assert self.until(lambda: self.leader() is not None), "nobody was elected"
        leader = self.leader()
        assert leader is not None
        return leader

    def propose(self, node: int, data: bytes) -> bool:
        host = self.hosts[node]
        try:
            host.raft.propose(data)
        except ProposalDropped:
            return False
        self._post(host.run())
        self._deliver()
        self._look_at(node)
        return True

    def agreed(self, data: bytes) -> int:
        """How many members have applied ``data``, or more than that, from a snapshot."""
        index = next((at for at, entry in self.history.items() if entry.data == data), 0)
        if not index:
            return 0
        return sum(1 for host in self.hosts.values() if host.raft.log.applied >= index)

    def one(self, data: bytes, expected: int) -> None:
        """Get ``data`` committed, whoever leads, and applied by ``expected`` members at least.

        It is proposed again if its leader is lost, so it may be there twice.
        """
        for _ in range(20):
            leader = self.wait_leader()
            if self.propose(leader, data) and self.until(
                lambda: self.agreed(data) >= expected, patience=60
            ):
                return
        raise AssertionError(f"{data!r} did not get to {expected} members")

    def data(self, node: int) -> list[bytes]:
        return self.hosts[node].data()
