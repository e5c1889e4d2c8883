"""What clients of simulated clusters are told, under every fault of the simulator, is linearizable.

The register is the last thing proposed. A write is answered where it was proposed, once it is
applied there, with the value that it replaced; a read when the member that was asked has applied as
much as Raft said it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.core.raft.message import EntryKind, Role
from tests.linearizability.register import Action, Read, Register, Swap
from tests.linearizability.wgl import Operation, Outcome, check
from tests.sim.raft_sim import Node, Simulation, Watch

if TYPE_CHECKING:
    import pytest

    from swarmctl.core.raft.message import Entry, ReadState
    from swarmctl.core.raft.raft import Raft

SEEDS = 15
STEPS = 6000
# Reads that wait; those of members that crash wait for ever.
WAITING_MAX = 200


class _Write(NamedTuple):
    call: int
    raft: Raft
    value: str


class _Read(NamedTuple):
    """Asked of a member; ``raft`` is gone when the member has crashed since."""

    call: int
    node: Node
    raft: Raft
    readable_at: int


class Clients(Watch):
    """Watches the members and answers the clients. Its clock counts calls and answers."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0
        self._answered: list[Operation[Action]] = []
        self._writes: dict[tuple[int, int], _Write] = {}
        self._asked: dict[bytes, _Read] = {}
        self._waiting: list[_Read] = []
        self._values = {self.committed: ""}  # what the register holds once so much is applied

    def tick(self) -> int:
        """Return the next moment."""
        self._now += 1
        return self._now

    def asks_to_write(self, raft: Raft, value: str) -> None:
        """A leader has appended a value."""
        place = (raft.term, raft.log.last_index)
        self._writes[place] = _Write(self.tick(), raft, value)

    def asks_to_read(self, context: bytes, node: Node) -> None:
        """A member is about to be asked."""
        self._asked[context] = _Read(self.tick(), node, node.raft, 0)

    def read(self, asked_at: int, state: ReadState) -> None:
        super().read(asked_at, state)
        asked = self._asked.pop(state.context, None)
        if asked is not None:
            self._waiting.append(asked._replace(readable_at=state.index))
            self._answer_reads(asked.node.raft, asked.node.machine.index)

    def applied(self, raft: Raft, entry: Entry, digest: int) -> None:
        super().applied(raft, entry, digest)
        carries = entry.kind is EntryKind.NORMAL and entry.data
        value = entry.data.decode() if carries else self._values[entry.index - 1]
        self._values.setdefault(entry.index, value)
        write = self._writes.get((entry.term, entry.index))
        if write is not None and write.raft is raft:
            del self._writes[entry.term, entry.index]
            self._answer(write.call, self._swap(entry.index, done=True))
        self._answer_reads(raft, entry.index)

    def _answer_reads(self, raft: Raft, index: int) -> None:
        waiting = []
        for one in self._waiting:
            if one.raft is raft and one.readable_at <= index:
                self._answer(one.call, Read(self._values[index]))
            else:
                waiting.append(one)
        self._waiting = waiting[-WAITING_MAX:]

    def _answer(self, call: int, action: Action) -> None:
        self._answered.append(Operation(0, call, self.tick(), action))

    def history(self) -> list[Operation[Action]]:
        """Return all but those writes without an answer that had no effect anywhere."""
        lost = [
            Operation(0, one.call, None, self._swap(index, done=None))
            for (_, index), one in self._writes.items()
            if self._values.get(index) == one.value
        ]
        return self._answered + lost

    def _swap(self, index: int, *, done: bool | None) -> Swap:
        return Swap(self._values[index - 1], self._values[index], done)


class Recorded(Simulation):
    """A simulation with clients."""

    watch: Clients

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.watch = Clients()

    def _try_propose(self, node: Node, data: bytes) -> bool:
        leads = node.raft.role is Role.LEADER
        proposed = super()._try_propose(node, data)
        if proposed and leads:
            self.watch.asks_to_write(node.raft, data.decode())
        return proposed

    def _propose(self) -> None:
        super()._propose()
        self._read()

    def _read(self) -> None:
        node = self._pick()
        if node is not None:
            self.counts["asked"] += 1
            context = b"%d" % self.counts["asked"]
            self._reads[context] = self.watch.committed
            self.watch.asks_to_read(context, node)
            node.raft.read_index(context)


def test_simulated_clients_are_told_the_truth() -> None:
    """Under loss, crashes, cuts and membership changes, all that is answered fits one order."""
    writes = reads = unknown = 0
    for seed in range(SEEDS):
        simulation = Recorded(seed)
        simulation.run(STEPS)
        history = simulation.watch.history()
        verdict = check(history, Register())
        assert verdict.outcome is Outcome.LINEARIZABLE, f"seed {seed}: {verdict}"
        reads += sum(isinstance(one.action, Read) for one in history)
        unknown += sum(one.end is None for one in history)
        writes += sum(isinstance(one.action, Swap) for one in history)
    assert reads > 20 * SEEDS
    assert writes > 20 * SEEDS
    assert unknown > SEEDS / 5


def test_reads_of_a_follower_that_asks_nobody_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a member to answer reads from what it has applied, the checker would say so."""

    def read_here(self: Recorded) -> None:
        node = self._pick()
        if node is not None:
            value = self.watch._values.get(node.machine.index)
            if value is not None:
                self.watch._answer(self.watch.tick(), Read(value))

    monkeypatch.setattr(Recorded, "_read", read_here)
    simulation = Recorded(0)
    simulation.run(STEPS)
    assert check(simulation.watch.history(), Register()).outcome is Outcome.VIOLATED
