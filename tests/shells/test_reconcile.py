"""The loop that runs every reconciler, on a real store, its log applied at once."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.errors import InvalidArgument, LostLeadership
from swarmctl.core.manager.leader import Alarms, run_leader
from swarmctl.core.manager.passes import BUSY_PASSES_MAX, Unrest
from swarmctl.core.manager.reconcile import Loop, Reconciler
from swarmctl.core.model.change import Create, Decision, Entry, Kind, Transaction, Update
from swarmctl.core.model.objects import Config, ConfigRow, ConfigSpec
from swarmctl.core.raft.errors import ProposalDropped
from swarmctl.core.store.store import Store
from swarmctl.core.store.watch import Watch

from .lone_manager import WallClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from swarmctl.core.ids import NewId
    from swarmctl.core.model.change import Change, Ref, Result
    from swarmctl.core.store.view import View


class Scene:
    """A store, its watch, and a proposer that applies what it is given."""

    def __init__(self) -> None:
        self.store = Store()
        self.watch = Watch()
        self.clock = WallClock()
        self.passes: list[list[str]] = []
        self.trouble: list[Exception] = []
        self.before_apply: Callable[[], None] = lambda: None

    async def propose(self, transactions: Sequence[Transaction]) -> tuple[Result, ...]:
        await trio.lowlevel.checkpoint()
        if any(len(each.changes) > 3 for each in transactions):
            raise InvalidArgument("the change is too large")
        if self.trouble:
            raise self.trouble.pop()
        self.before_apply()
        self.passes.append([name_of(change) for each in transactions for change in each.changes])
        return self.apply(*transactions)

    def apply(self, *transactions: Transaction) -> tuple[Result, ...]:
        outcome = self.store.apply(self.store.index + 1, Entry(transactions=tuple(transactions)))
        self.watch.publish(self.store.index, outcome.changes)
        return outcome.results

    def create(self, *names: str) -> None:
        self.apply(*(Transaction(changes=(Create(row=config(name)),)) for name in names))

    def data(self) -> dict[str, bytes]:
        return {
            row.api.ID: row.api.Spec.Data
            for row in self.store.view.rows(Kind.CONFIG)
            if isinstance(row, ConfigRow)
        }

    def loop(self, decide: Callable[[View, str, int, NewId], Decision]) -> Loop:
        return Loop(
            Reconciler(name="test", keys=keys, decide=decide),
            view=self.store.view,
            watch=self.watch,
            proposer=self,  # type: ignore[arg-type] # all that a loop asks of one
            clock=self.clock,
            new_id=lambda: "id",
        )


def config(name: str, data: bytes = b"") -> ConfigRow:
    return ConfigRow(api=Config(ID=name, Spec=ConfigSpec(Name=name, Data=data)))


def name_of(change: Change) -> str:
    assert isinstance(change, (Create, Update))
    return change.row.api.ID


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:
    if touched is None:
        return [row.api.ID for row in view.rows(Kind.CONFIG)]
    return sorted(ref.id for ref in touched if ref.kind is Kind.CONFIG)


def set_data(view: View, key: str, data: bytes) -> Transaction:
    row = view.config(key)
    assert row is not None
    api = Config(ID=key, Version=row.api.Version, Spec=ConfigSpec(Name=key, Data=data))
    return Transaction(changes=(Update(row=ConfigRow(api=api, private=row.private)),))


def finish(view: View, key: str, now: int, new_id: NewId) -> Decision:
    """Want every config's data to be "done"."""
    row = view.config(key)
    if row is None or row.api.Spec.Data == b"done":
        return Decision()
    return Decision(transactions=(set_data(view, key, b"done"),))


async def test_a_fresh_leader_asks_every_key(autojump_clock: trio.testing.MockClock) -> None:
    """The first pass asks all keys there are, and proposes what they want as one."""
    scene = Scene()
    scene.create("a", "b", "c")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(finish).run)
        await trio.testing.wait_all_tasks_blocked()
        assert scene.passes == [["a", "b", "c"]]
        assert set(scene.data().values()) == {b"done"}
        nursery.cancel_scope.cancel()


async def test_it_rests_until_something_changes(autojump_clock: trio.testing.MockClock) -> None:
    """With nothing to do nobody is asked, and a change asks the keys it concerns and no others."""
    scene = Scene()
    scene.create("a", "b")
    asked: list[str] = []

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        asked.append(key)
        return finish(view, key, now, new_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(decide).run)
        await trio.sleep(10)
        asked.clear()
        await trio.sleep(3600)
        assert asked == []
        scene.create("c")
        await trio.sleep(1)
        assert asked == ["c", "c"]
        nursery.cancel_scope.cancel()


async def test_a_wake_up_comes_at_its_time(autojump_clock: trio.testing.MockClock) -> None:
    """A key that wants to be asked again at a time is asked then, not before, and once."""
    scene = Scene()
    scene.create("a")
    asked: list[float] = []
    began = trio.current_time()

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        asked.append(round(trio.current_time() - began, 3))
        at = scene.clock.now() + int(90e9) if len(asked) == 1 else None
        return Decision(wake_at=at)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(decide).run)
        await trio.sleep(1000)
        nursery.cancel_scope.cancel()
    assert asked == [0, 90]


async def test_a_pass_sees_its_own_decisions(autojump_clock: trio.testing.MockClock) -> None:
    """A decision is laid over the view before the next key is decided."""
    scene = Scene()
    scene.create("a", "b", "c")

    def one_only(view: View, key: str, now: int, new_id: NewId) -> Decision:
        if any(row.api.Spec.Data == b"taken" for row in view.rows(Kind.CONFIG)):  # type: ignore[union-attr]
            return Decision()
        return Decision(transactions=(set_data(view, key, b"taken"),))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(one_only).run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert sorted(scene.data().values()) == [b"", b"", b"taken"]


async def test_a_key_that_raises_is_retried_and_harms_nobody(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in deciding one key is logged; the others go on, and the key is tried again later."""
    scene = Scene()
    scene.create("bad", "good")
    tries: list[float] = []

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        if key == "bad":
            tries.append(trio.current_time())
            if len(tries) < 5:
                raise KeyError("a bug")
        return finish(view, key, now, new_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(decide).run)
        await trio.testing.wait_all_tasks_blocked()
        assert scene.data() == {"bad": b"", "good": b"done"}
        await trio.sleep(10)
        assert scene.data() == {"bad": b"done", "good": b"done"}
        nursery.cancel_scope.cancel()
    pauses = [round(after - before, 3) for before, after in pairwise(tries[:5])]
    assert pauses == [0.05, 0.1, 0.2, 0.4]
    assert "deciding bad failed" in caplog.text


async def test_a_key_that_raises_for_ever_is_retried_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After days of failing the next try still comes within a minute."""
    scene = Scene()
    scene.create("bad")
    tries: list[float] = []

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        tries.append(trio.current_time())
        raise KeyError("a bug")

    logging.getLogger("swarmctl.core.manager.reconcile").disabled = True
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.loop(decide).run)
            await trio.sleep(60 * 1200)
            nursery.cancel_scope.cancel()
    finally:
        logging.getLogger("swarmctl.core.manager.reconcile").disabled = False
    assert len(tries) > 1200
    assert tries[-1] - tries[-2] == pytest.approx(60, abs=0.1)


async def test_a_lost_race_is_decided_again(autojump_clock: trio.testing.MockClock) -> None:
    """A conflict costs one more pass, from what the tables say then."""
    scene = Scene()
    scene.create("a", "b")
    rival = [Transaction(changes=(Update(row=config("a", b"rival")),))]

    def interfere() -> None:
        if rival:
            rival.pop()
            scene.apply(set_data(scene.store.view, "a", b"rival"))

    scene.before_apply = interfere
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(finish).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert scene.passes == [["a", "b"], ["a"]]
    assert set(scene.data().values()) == {b"done"}


async def test_a_key_that_never_rests_is_slowed_down(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What always wants something ends at a pass a second, is logged, and starves nobody."""
    scene = Scene()
    scene.create("busy")
    count = 0

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        nonlocal count
        if key != "busy":
            return finish(view, key, now, new_id)
        count += 1
        return Decision(transactions=(set_data(view, key, b"%d" % count),))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(decide).run)
        await trio.sleep(0.01)
        assert count == BUSY_PASSES_MAX
        await trio.sleep(300)
        before = count
        await trio.sleep(100)
        assert 95 <= count - before <= 101
        scene.create("other")
        await trio.testing.wait_all_tasks_blocked()
        assert scene.data()["other"] == b"done"
        nursery.cancel_scope.cancel()
    assert "busy does not come to rest" in caplog.text


async def test_a_key_in_a_long_storm_is_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    """A key that wanted something for a day is still served: delays that double stay numbers."""
    scene = Scene()
    scene.create("busy")
    loop = scene.loop(finish)
    loop.passes.unrest["busy"] = Unrest(busy=100_000)
    loop.passes.wake["busy"] = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert scene.data() == {"busy": b"done"}


async def test_too_much_in_flight_only_delays(autojump_clock: trio.testing.MockClock) -> None:
    """A dropped proposal is made again a moment later; it is no failure of the component."""
    scene = Scene()
    scene.create("a", "b")
    scene.trouble = [ProposalDropped("too much is in flight") for _ in range(4)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(finish).run)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert set(scene.data().values()) == {b"done"}


async def test_a_change_too_large_costs_its_key_only(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What one key wants does not fit a log entry: it is logged, and its neighbours are served."""
    scene = Scene()
    scene.create("a", "huge", "z")

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        decision = finish(view, key, now, new_id)
        if key != "huge" or not decision.transactions:
            return decision
        return Decision(transactions=(Transaction(changes=decision.transactions[0].changes * 4),))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.loop(decide).run)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert scene.data() == {"a": b"done", "huge": b"", "z": b"done"}
    assert "what huge needs cannot be written" in caplog.text


async def test_lost_leadership_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody decides for a swarm it does not lead."""
    scene = Scene()
    scene.create("a")
    scene.trouble = [LostLeadership("lost")]
    with pytest.raises(LostLeadership):
        await scene.loop(finish).run()


async def test_long_passes_let_others_run(autojump_clock: trio.testing.MockClock) -> None:
    """Between keys the loop yields: many keys do not hold up the rest of the manager."""
    scene = Scene()
    scene.create(*(f"k{n}" for n in range(50)))
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    turns = 0

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        clock.jump(0.004)  # what a real decision may take
        return finish(view, key, now, new_id)

    async def count() -> None:
        nonlocal turns
        while not scene.passes:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        nursery.start_soon(scene.loop(decide).run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert turns >= 15


@pytest.mark.parametrize("hours", [-1, 1], ids="{:+d} h".format)
async def test_a_clock_that_is_set_holds_up_no_wake_up(
    autojump_clock: trio.testing.MockClock, hours: int
) -> None:
    """Who waits for a time of the old clock is asked again soon, and says what it waits for now."""
    scene = Scene()
    scene.create("a")
    asked: list[float] = []

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        asked.append(trio.current_time())
        return Decision(wake_at=now + 10 * 10**9)

    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        nursery.start_soon(scene.loop(decide).run)
        await trio.sleep(15)
        scene.clock.ahead_ns = hours * 3_600 * 10**9
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert [at - started for at in asked] == pytest.approx([0, 10, 20, 30], abs=0.1)


async def test_an_answer_from_outside_wakes_the_loop(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A key that waits for a plugin is decided when it has answered, and not only 2 s later."""
    scene = Scene()
    scene.create("a")
    answered: list[str] = []
    wake: list[Callable[[], None]] = []

    def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:
        return finish(view, key, now, new_id) if answered else Decision(wake_at=now + 2 * 10**9)

    loop = Loop(
        Reconciler(name="test", keys=keys, decide=decide, told_by=(wake.append,)),
        view=scene.store.view,
        watch=scene.watch,
        proposer=scene,  # type: ignore[arg-type] # all that a loop asks of one
        clock=scene.clock,
        new_id=lambda: "id",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop.run)
        await trio.sleep(0.5)
        assert scene.data() == {"a": b""}
        answered.append("yes")
        wake[0]()
        await trio.sleep(0.01)
        assert scene.data() == {"a": b"done"}
        nursery.cancel_scope.cancel()


async def test_what_is_beside_a_reconciler_runs_while_this_manager_leads() -> None:
    """A reconciler names what has to run for it; the leader supervises that like any component."""
    begun = trio.Event()

    async def beside() -> None:
        begun.set()
        await trio.sleep_forever()

    one = Reconciler(name="test", keys=keys, decide=finish, beside={"plugin x": beside})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_leader, one.beside, Alarms())
        await begun.wait()
        nursery.cancel_scope.cancel()
