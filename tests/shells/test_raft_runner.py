"""The runner: one member on a disk in memory, and a real one where a restart counts."""

from __future__ import annotations

import random
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.errors import LostLeadership, NoLeader, StorageFailed, Undecodable
from swarmctl.core.raft.config import RaftConfig
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.raft.message import ConfState, Entry, Message, MessageKind, Role, Snapshot
from swarmctl.core.raft.raft import Raft
from swarmctl.core.raft.runner import TICK_S, Runner
from swarmctl.core.store.dump import BadDump, Loading, dump
from swarmctl.core.store.store import Store

from .memory_disk import MemoryDisk

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

FOUNDED = Snapshot(index=1, term=1, conf_state=ConfState(voters=(7,)))


class Ledger:
    """A state machine that keeps what it is given."""

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.lines = list(lines)
        self.index = 0

    def apply(self, index: int, data: bytes) -> object:
        if data == b"?":
            raise Undecodable(f"entry {index} means nothing here")
        self.lines.append(data)
        self.index = index
        return data.upper()

    def skip(self, index: int) -> None:
        self.index = index

    def dump(self) -> Iterable[bytes]:
        return list(self.lines)


class Member:
    """A runner with all that it drives."""

    def __init__(
        self, *, voters: tuple[int, ...] = (7,), disk: MemoryDisk | None = None, **limits: int
    ) -> None:
        founded = Snapshot(index=1, term=1, conf_state=ConfState(voters=voters))
        self.disk = disk or MemoryDisk(founded)
        self.machine = Ledger(self.disk.chunks)
        snapshot = self.disk.log.snapshot()
        assert snapshot is not None
        config = RaftConfig(
            applied=snapshot.index,
            max_uncommitted_size=limits.pop("max_uncommitted_size", 2**62),
        )
        self.raft = Raft(7, self.disk.log, config, random.Random(3))
        self.sent: list[Message] = []
        self.runner = Runner(
            self.raft,
            self.disk,  # type: ignore[arg-type] # a stand-in
            self.machine,
            self.sent.append,
            **limits,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runner]:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.runner.run)
            yield self.runner
            nursery.cancel_scope.cancel()

    async def lead(self) -> None:
        while not self.runner.leading:
            await self.runner.leadership_changed.wait()


async def test_one_voter_leads_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """A lone member waits for no election: it leads and commits before the first tick is due."""
    member = Member()
    async with member.running() as runner:
        await member.lead()
        assert await runner.propose(b"a").wait() == b"A"
    assert trio.current_time() < TICK_S


async def test_each_proposal_gets_its_own_result(autojump_clock: trio.testing.MockClock) -> None:
    """Proposals of one moment are resolved each with what the state machine said to it."""
    member = Member()
    async with member.running() as runner:
        await member.lead()
        proposals = [runner.propose(b"%d" % number) for number in range(100)]
        assert [await each.wait() for each in proposals] == [b"%d" % n for n in range(100)]
    assert member.machine.lines == [b"%d" % n for n in range(100)]


async def test_nothing_is_done_before_it_is_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A proposal resolves after the disk has written it, and not sooner."""
    member = Member()
    async with member.running() as runner:
        await member.lead()
        member.disk.delay_s = 3.0
        began = trio.current_time()
        await runner.propose(b"a").wait()
        assert trio.current_time() - began >= 3.0


async def test_lost_leadership_is_told_before_anything_else_is_applied(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A proposer learns that leadership went before the new leader's entry is in the tables."""
    member = Member(voters=(7, 8, 9))
    told_first: list[bool] = []
    apply = member.machine.apply

    def note_and_apply(index: int, data: bytes) -> object:
        told_first.append(proposal._done.is_set())
        return apply(index, data)

    member.machine.apply = note_and_apply  # type: ignore[method-assign]
    async with member.running() as runner:
        await elect(member)
        proposal = runner.propose(b"mine")
        status = runner.status()
        mine = Entry(term=status.term, index=status.last_index, data=b"mine")
        new_term = status.term + 1
        runner.receive(  # the next leader has another entry in the place of ours, and commits it
            Message(
                MessageKind.APPEND,
                7,
                8,
                term=new_term,
                log_term=member.raft.log.term(mine.index - 1),
                index=mine.index - 1,
                commit=mine.index,
                entries=(Entry(term=new_term, index=mine.index, data=b"theirs"),),
            )
        )
        await trio.testing.wait_all_tasks_blocked()
        assert member.machine.lines == [b"theirs"]
        assert told_first == [True]
        with pytest.raises(LostLeadership):
            await proposal.wait()
        assert not runner.leading
        with pytest.raises(NoLeader):
            runner.propose(b"more")


async def elect(member: Member) -> None:
    """Have a member of three win an election, and its first entry committed."""
    while member.runner.status().role is not Role.LEADER:
        await trio.sleep(TICK_S)
        for message in member.sent:
            answer = {
                MessageKind.PRE_VOTE: MessageKind.PRE_VOTE_RESPONSE,
                MessageKind.VOTE: MessageKind.VOTE_RESPONSE,
            }.get(message.kind)
            if answer is not None:
                member.runner.receive(Message(answer, 7, message.to, term=message.term))
        member.sent.clear()
    await trio.testing.wait_all_tasks_blocked()
    status = member.runner.status()
    member.runner.receive(
        Message(MessageKind.APPEND_RESPONSE, 7, 8, term=status.term, index=status.last_index)
    )
    await member.lead()


async def test_a_runner_that_ended_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever waits when the runner ends learns so, and nobody after it waits for ever."""
    member = Member()
    async with trio.open_nursery() as nursery:

        async def propose() -> None:
            with pytest.raises(LostLeadership):
                await member.runner.propose(b"a").wait()

        async def read() -> None:
            with pytest.raises(NoLeader):
                await member.runner.wait_readable()

        async with member.running():
            await member.lead()
            member.disk.delay_s = 1e6
            nursery.start_soon(propose)
            await trio.testing.wait_all_tasks_blocked()
        assert not member.runner.leading
        nursery.start_soon(read)
        with pytest.raises(NoLeader):
            member.runner.propose(b"b")


async def test_a_snapshot_takes_the_place_of_many_entries(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After so many entries a snapshot is saved, the log is cut, and a restart reads both."""
    member = Member(snapshot_interval=10, keep_entries=3)
    async with member.running() as runner:
        await member.lead()
        for number in range(25):
            await runner.propose(b"%d" % number).wait()
            await trio.testing.wait_all_tasks_blocked()
    assert member.disk.saved == [11, 21]
    assert member.disk.log.first_index() == 21 - 3 + 1
    again = Member(disk=member.disk)
    assert len(again.machine.lines) == 19
    async with again.running():
        await again.lead()
    assert again.machine.lines == [b"%d" % n for n in range(25)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_restart_at_any_moment_loses_nothing_acknowledged(
    autojump_clock: trio.testing.MockClock, seed: int
) -> None:
    """However often a runner is cut short, what it acknowledged is there, in order, once."""
    rng = random.Random(seed)
    disk = MemoryDisk(FOUNDED)
    acknowledged: list[bytes] = []
    number = 0
    for _ in range(15):
        member = Member(disk=disk, snapshot_interval=7, keep_entries=2)
        member.disk._jobs, member.disk._next = trio.open_memory_channel(1000)
        with trio.move_on_after(rng.uniform(0.01, 0.2)):
            async with member.running() as runner:
                await member.lead()
                while True:
                    disk.delay_s = rng.choice([0.0, 0.02])
                    number += 1
                    data = b"%d" % number
                    await runner.propose(data).wait()
                    acknowledged.append(data)
                    await trio.sleep(0.001)
    disk.delay_s = 0.0
    last = Member(disk=disk)
    last.disk._jobs, last.disk._next = trio.open_memory_channel(1000)
    async with last.running():
        await last.lead()
    found = last.machine.lines
    assert len(set(found)) == len(found)
    assert [each for each in found if each in set(acknowledged)] == acknowledged
    assert len(acknowledged) > 20


async def test_an_unknown_entry_ends_the_runner(autojump_clock: trio.testing.MockClock) -> None:
    """An entry that the state machine does not know ends this member instead of being skipped."""
    member = Member()
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_and_propose(member, b"?")
    assert caught.group_contains(Undecodable, match="means nothing here")
    assert member.machine.index == 2


async def test_a_broken_disk_ends_the_runner(autojump_clock: trio.testing.MockClock) -> None:
    """A write that failed is not tried again, and nothing is acknowledged."""
    member = Member()
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_and_propose(member, b"a", break_disk=True)
    assert caught.group_contains(StorageFailed)
    assert member.machine.lines == []


async def run_and_propose(member: Member, data: bytes, *, break_disk: bool = False) -> None:
    async with member.running() as runner:
        await member.lead()
        member.disk.broken = break_disk
        with pytest.raises(LostLeadership):
            await runner.propose(data).wait()


async def test_reads_wait_for_the_terms_first_commit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A leader whose own entry is not committed yet does not know what others acknowledged."""
    member = Member()
    member.disk.delay_s = 5.0
    async with member.running() as runner:
        while runner.status().role is not Role.LEADER:  # noqa: ASYNC110 - roles have no event
            await trio.sleep(TICK_S)
        assert not runner.leading
        began = trio.current_time()
        await runner.wait_readable()
        assert runner.leading
        assert trio.current_time() - began > 4.0


async def test_a_read_sees_what_was_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    """What was acknowledged before a read is in the tables when the read goes on."""
    member = Member()
    async with member.running() as runner:
        await member.lead()
        await runner.propose(b"a").wait()
        await runner.wait_readable()
        assert member.machine.lines == [b"a"]


async def test_an_answer_to_an_earlier_run_is_none_to_this_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A leader may answer what a member asked before it was started again; that answer is older
    than what the member's clients have been told since."""
    disk = MemoryDisk(Snapshot(index=1, term=1, conf_state=ConfState(voters=(7, 8, 9))))
    asked: list[bytes] = []
    for run in range(2):
        member = Member(disk=disk)
        async with member.running() as runner, trio.open_nursery() as nursery:
            runner.receive(Message(MessageKind.HEARTBEAT, 7, 8, term=2))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(runner.wait_readable)
            await trio.testing.wait_all_tasks_blocked()
            (ask,) = (each for each in member.sent if each.kind is MessageKind.READ_INDEX)
            asked.append(ask.entries[0].data)
            for context in asked[: run + 1]:
                assert runner._reads
                runner.receive(
                    Message(
                        MessageKind.READ_INDEX_RESPONSE,
                        7,
                        8,
                        term=2,
                        index=1,
                        entries=(Entry(data=context),),
                    )
                )
                await trio.testing.wait_all_tasks_blocked()
            assert not runner._reads


async def test_what_is_for_another_member_is_not_taken_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A leader still speaks to the member that was at this address before. That one had a longer
    log; what is said to it about that would be a lost log here."""
    member = Member(voters=(7, 8, 9))
    async with member.running() as runner:
        for to, commit in ((5, 500), (7, 1)):
            runner.receive(Message(MessageKind.HEARTBEAT, to, 8, term=2, commit=commit))
            await trio.testing.wait_all_tasks_blocked()
        assert [each.kind for each in member.sent] == [MessageKind.HEARTBEAT_RESPONSE]


async def test_a_snapshot_without_its_data_is_not_taken_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It has to come by a transfer, or the tables would not be what the log says."""
    member = Member(voters=(7, 8, 9))
    bare = Snapshot(index=40, term=2, conf_state=ConfState(voters=(7, 8, 9)))
    async with member.running() as runner:
        runner.receive(Message(MessageKind.SNAPSHOT, 7, 8, term=2, snapshot=bare))
        await trio.testing.wait_all_tasks_blocked()
        assert (runner.commit, runner.status().term) == (1, 1)


async def test_half_a_snapshot_is_refused_before_consensus_hears_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The log is not given up for tables that are not whole; the next transfer begins anew."""
    member = Member(voters=(7, 8, 9))
    member.machine.receive = lambda: Loading(Store())  # type: ignore[attr-defined]
    half = next(iter(dump(Store())))
    promised = Snapshot(index=40, term=2, conf_state=ConfState(voters=(7, 8, 9)))
    asked: list[int] = []

    async def ask(place: int) -> trio.MemoryReceiveChannel[bytes]:
        asked.append(place)
        await trio.lowlevel.checkpoint()
        sending, receiving = trio.open_memory_channel[bytes](1)
        sending.send_nowait(half)
        sending.close()
        return receiving

    async with member.running() as runner:
        for _ in range(2):
            with pytest.raises(BadDump, match="it ends after 1 chunks"):
                await runner.take_snapshot(
                    Message(MessageKind.SNAPSHOT, 7, 8, term=2, snapshot=promised), b"stamp", ask
                )
        assert (asked, member.disk.staged) == ([0, 0], [half])
        assert runner.commit == 1


async def test_too_much_in_flight_is_refused_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Past the limit a proposal is dropped and nothing else; later there is room again."""
    member = Member(max_uncommitted_size=1000)
    async with member.running() as runner:
        await member.lead()
        member.disk.delay_s = 1.0
        first = runner.propose(b"x" * 900)
        with pytest.raises(ProposalDropped):
            runner.propose(b"y" * 900)
        await first.wait()
        assert await runner.propose(b"z").wait() == b"Z"


async def test_a_stall_is_one_tick(mock_clock: trio.testing.MockClock) -> None:
    """After the loop stood still, time goes on one tick at a turn: no election out of a pause."""
    member = Member(voters=(7, 8, 9))
    ticks: list[float] = []
    tick = member.raft.tick
    member.raft.tick = lambda: (ticks.append(trio.current_time()), tick())[1]  # type: ignore[method-assign]
    async with member.running():
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(10.0)
        await trio.testing.wait_all_tasks_blocked()
        assert len(ticks) == 1
        mock_clock.jump(TICK_S)
        await trio.testing.wait_all_tasks_blocked()
        assert len(ticks) == 2
