"""The way into the log: sharing entries without sharing fates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.clock import TrioClock
from swarmctl.core.errors import InvalidArgument, LostLeadership, NoLeader, Undecodable
from swarmctl.core.manager.propose import ENTRY_CHANGES_MAX, Proposer, TableMachine
from swarmctl.core.model.change import (
    FORMAT_LEVEL,
    Advance,
    Applied,
    Conflict,
    Create,
    Entry,
    Kind,
    Ref,
    Transaction,
)
from swarmctl.core.model.codec import decode_entry, encode_entry
from swarmctl.core.model.objects import Config, ConfigRow, ConfigSpec
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.store.store import Store
from swarmctl.core.store.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.core.model.change import Result


class Log:
    """Stands where the runner stands: entries are applied when the test says so."""

    def __init__(self) -> None:
        self.machine = TableMachine(Store(), Watch())
        self.entries: list[bytes] = []
        self.proposals: list[Fate] = []
        self.refuse: Exception | None = None

    def propose(self, data: bytes) -> Fate:
        if self.refuse is not None:
            raise self.refuse
        self.entries.append(data)
        self.proposals.append(Fate())
        return self.proposals[-1]

    def apply(self) -> None:
        for index, (data, fate) in enumerate(zip(self.entries, self.proposals, strict=True)):
            if not fate.done.is_set():
                fate.outcome = self.machine.apply(index + 1, data)
                fate.done.set()

    def sizes(self) -> list[int]:
        return [len(decode_entry(data).transactions) for data in self.entries]


class Fate:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: object = None

    async def wait(self) -> object:
        await self.done.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Callers:
    """Tasks that propose, and what each got."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.log = Log()
        self.proposer = Proposer(self.log, TrioClock())  # type: ignore[arg-type] # see Log
        self._nursery = nursery
        self.answers: dict[str, object] = {}

    def call(
        self, name: str, transactions: Sequence[Transaction], scope: trio.CancelScope | None = None
    ) -> None:
        self._nursery.start_soon(partial(self._call, name, transactions, scope))

    async def _call(
        self, name: str, transactions: Sequence[Transaction], scope: trio.CancelScope | None
    ) -> None:
        with scope or trio.CancelScope():
            try:
                self.answers[name] = await self.proposer.propose(transactions)
            except Exception as error:
                self.answers[name] = error


def config(name: str, *, size: int = 1) -> Transaction:
    spec = ConfigSpec(Name=name, Data=b"x" * size)
    return Transaction(changes=(Create(row=ConfigRow(api=Config(ID=name, Spec=spec))),))


def is_applied(answer: object) -> list[bool]:
    assert isinstance(answer, tuple), answer
    results: tuple[Result, ...] = answer
    return [isinstance(result, Applied) for result in results]


async def test_callers_of_one_moment_share_an_entry() -> None:
    """Transactions that come in one turn of the loop go in one entry; each gets its own answer."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        for name in ("a", "b", "c"):
            callers.call(name, [config(name)])
        callers.call("two", [config("d"), config("e")])
        await trio.testing.wait_all_tasks_blocked()
        assert callers.log.sizes() == [5]
        assert callers.answers == {}
        callers.log.apply()
    assert {name: is_applied(answer) for name, answer in callers.answers.items()} == {
        "a": [True],
        "b": [True],
        "c": [True],
        "two": [True, True],
    }


async def test_a_conflict_costs_only_its_own_transaction() -> None:
    """Two that share an entry are judged alone: the second of a name conflicts, nobody else."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.call("one", [config("a"), config("b"), config("a")])
        await trio.testing.wait_all_tasks_blocked()
        callers.log.apply()
    assert is_applied(callers.answers["one"]) == [True, True, False]


async def test_a_caller_that_is_cancelled_leaves_nobody_behind() -> None:
    """The first caller of an entry is cancelled before it was sent; the others' work goes on."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        cancelled = trio.CancelScope()
        cancelled.cancel()
        callers.call("gone", [config("a")], cancelled)
        callers.call("here", [config("b")])
        await trio.testing.wait_all_tasks_blocked()
        callers.log.apply()
    assert "gone" not in callers.answers
    assert is_applied(callers.answers["here"]) == [True]


async def test_a_lone_cancelled_caller_still_sends() -> None:
    """An entry that was begun is sent by the one who began it, even if it will not wait."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        cancelled = trio.CancelScope()
        cancelled.cancel()
        callers.call("gone", [config("a")], cancelled)
        await trio.testing.wait_all_tasks_blocked()
        assert callers.log.sizes() == [1]


async def test_what_is_too_large_is_refused_and_harms_nobody() -> None:
    """One oversized transaction refuses its whole call before anything of it is sent."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.call("large", [config("a"), config("b", size=2_000_000)])
        many = tuple(Advance(task_id="t") for _ in range(ENTRY_CHANGES_MAX + 1))
        callers.call("many", [Transaction(changes=many)])
        callers.call("small", [config("c")])
        await trio.testing.wait_all_tasks_blocked()
        callers.log.apply()
    assert isinstance(callers.answers["large"], InvalidArgument)
    assert "too large" in str(callers.answers["large"])
    assert "1001 objects" in str(callers.answers["many"])
    assert is_applied(callers.answers["small"]) == [True]
    assert [row.api.ID for row in callers.log.machine._store.view.rows(Kind.CONFIG)] == ["c"]


async def test_a_large_pass_is_several_entries_sent_together() -> None:
    """What does not fit in one entry goes in several, all in the log before the first commits."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.call("one", [config(f"c{n}", size=400_000) for n in range(10)])
        await trio.testing.wait_all_tasks_blocked()
        assert callers.log.sizes() == [3, 3, 3, 1]
        callers.log.apply()
    assert is_applied(callers.answers["one"]) == [True] * 10


@pytest.mark.parametrize("refusal", [ProposalDropped("too much is in flight"), NoLeader()])
async def test_a_refused_entry_is_told_to_all_who_share_it(refusal: Exception) -> None:
    """Everybody whose transactions were in the entry hears why it was not taken."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.log.refuse = refusal
        callers.call("a", [config("a")])
        callers.call("b", [config("b")])
        await trio.testing.wait_all_tasks_blocked()
    assert [type(each) for each in callers.answers.values()] == [type(refusal)] * 2
    assert {str(each) for each in callers.answers.values()} == {str(refusal)}


async def test_lost_leadership_is_told_to_all_who_share_an_entry() -> None:
    """An entry whose fate is unknown is unknown to everybody in it."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.call("a", [config("a")])
        callers.call("b", [config("b")])
        await trio.testing.wait_all_tasks_blocked()
        callers.log.proposals[0].outcome = LostLeadership("lost")
        callers.log.proposals[0].done.set()
    assert [type(each) for each in callers.answers.values()] == [LostLeadership] * 2


async def test_nothing_to_propose_is_no_entry() -> None:
    """Proposing no transactions returns no results and writes nothing."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.call("none", [])
        await trio.testing.wait_all_tasks_blocked()
    assert (callers.answers["none"], callers.log.entries) == ((), [])


async def test_an_entry_is_stamped_with_the_leaders_time() -> None:
    """Transactions without a time of their own get the proposing manager's."""
    async with trio.open_nursery() as nursery:
        callers = Callers(nursery)
        callers.call("a", [config("a")])
        await trio.testing.wait_all_tasks_blocked()
        (transaction,) = decode_entry(callers.log.entries[0]).transactions
        assert transaction.now > 1_700_000_000 * 10**9
        callers.log.apply()


def test_an_entry_of_a_newer_format_is_not_applied() -> None:
    """A manager meets an entry it does not understand: it stops being one, whatever is in it."""
    machine = TableMachine(Store(), Watch())
    newer = encode_entry(Entry(transactions=(config("a"),), level=FORMAT_LEVEL + 1))
    with pytest.raises(Undecodable, match="upgrade swarmctl"):
        machine.apply(1, newer)
    with pytest.raises(Undecodable):
        machine.apply(1, b"\xc1")
    assert machine._store.view.row(Ref(Kind.CONFIG, "a")) is None


def test_what_is_applied_is_announced() -> None:
    """Whoever watches learns which rows an applied entry has touched."""
    watch = Watch()
    machine = TableMachine(Store(), watch)
    with watch.mailbox() as mailbox:
        mailbox.take()
        outcome = machine.apply(5, encode_entry(Entry(transactions=(config("a"), config("a")))))
        assert mailbox.take() == {Ref(Kind.CONFIG, "a")}
    assert [type(each) for each in outcome.results] == [Applied, Conflict]
