"""The core from outside: what a stranger needs to drive it, with nothing of ours but the core."""

from __future__ import annotations

import random
import subprocess
import sys

from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    ChangeKind,
    ConfChange,
    ConfState,
    EntryKind,
    HardState,
    MemberChange,
    Role,
    Snapshot,
    decode_conf_change,
)
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.storage import MemoryStorage

FOUNDING = Snapshot(1, 1, ConfState((1,)))


def test_the_core_needs_no_event_loop() -> None:
    """Importing it loads neither trio nor sockets, threads or the clock's users."""
    loaded = "import sys, swarmctl.core.raft.raft as _; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "swarmctl.core.raft.leading" in out
    assert set(out) & {"trio", "asyncio", "socket", "ssl", "sqlite3"} == set()


def test_the_synchronous_form_from_outside() -> None:
    """campaign, propose, read_index, propose_membership, ready and advance: all it takes."""
    storage = MemoryStorage(FOUNDING, HardState(1, 0, 1))
    raft = Raft(1, storage, RaftConfig(async_storage=False, applied=1), random.Random(7))
    applied: list[bytes] = []
    reads: list[bytes] = []

    def work() -> None:
        while raft.has_ready():
            ready = raft.ready()
            if ready.hard_state is not None:
                storage.set_hard_state(ready.hard_state)
            storage.append(ready.entries)
            for entry in ready.committed_entries:
                if entry.kind is EntryKind.NORMAL:
                    applied.append(entry.data)
                else:
                    raft.apply_conf_change(decode_conf_change(entry.data), entry.index)
            reads.extend(state.context for state in ready.read_states)
            raft.advance()

    raft.campaign()
    work()
    raft.propose(b"a")
    raft.read_index(b"r")
    raft.propose_membership(ConfChange((MemberChange(ChangeKind.ADD_LEARNER, 2),)))
    work()
    assert applied == [b"", b"a"]
    assert reads == [b"r"]
    status = raft.status()
    assert (status.id, status.term, status.vote, status.role, status.leader) == (
        1,
        2,
        1,
        Role.LEADER,
        1,
    )
    assert (status.commit, status.applied, status.last_index) == (4, 4, 4)
    assert status.membership == ConfState((1,), (2,))
    assert sorted(status.progress) == [1, 2]
    assert status.progress[2].learner
    assert status.progress[1].match == 4


def test_the_asynchronous_form_from_outside() -> None:
    """tick alone elects a lone member; what the workers owe is delivered through step."""
    storage = MemoryStorage(FOUNDING, HardState(1, 0, 1))
    raft = Raft(1, storage, RaftConfig(applied=1), random.Random(7))
    for _ in range(2 * raft.config.election_ticks):
        raft.tick()
        while raft.has_ready():
            for order in raft.ready().messages:
                if order.to == LOCAL_APPEND:
                    if order.term:
                        storage.set_hard_state(HardState(order.term, order.vote, order.commit))
                    storage.append(order.entries)
                for answer in order.responses:
                    raft.step(answer)
    status = raft.status()
    assert (status.role, status.term, status.commit, status.applied) == (Role.LEADER, 2, 2, 2)
    raft.transfer_leadership(9)  # nobody by that name: nothing happens
    assert raft.status().transferee == 0
