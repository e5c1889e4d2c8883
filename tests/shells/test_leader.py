"""What runs while this manager leads: components that fail, and those that do not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from swarmctl.core.errors import LostLeadership, NoLeader
from swarmctl.core.manager.leader import Alarms, run_leader
from swarmctl.core.manager.manager import HAND_OVER_S, Manager, ManagerEnded

from .lone_manager import LoneManager, until
from .memory_network import MemoryNetwork

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from swarmctl.core.model.objects import NodeRow


class Component:
    """Runs; the n-th run ends with the n-th error after so long, the last one goes on."""

    def __init__(self, *errors: Exception, after_s: float = 1.0) -> None:
        self._errors = list(errors)
        self._after_s = after_s
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        if not self._errors:
            await trio.sleep_forever()
        await trio.sleep(self._after_s)
        raise self._errors.pop(0)


async def lead(seconds: float, **components: Component) -> Alarms:
    alarms = Alarms()
    with trio.move_on_after(seconds):
        await run_leader({name: each.run for name, each in components.items()}, alarms)
    return alarms


async def test_a_component_that_fails_is_started_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Two failures are two new starts and no alarm."""
    component = Component(KeyError("a"), KeyError("b"))
    alarms = await lead(100, component=component)
    assert (component.runs, alarms.texts) == (3, {})


async def test_three_failures_within_a_minute_switch_it_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The third failure leaves the component off with an alarm; the others run on."""
    bad, good = Component(*[KeyError("bug")] * 5), Component()
    alarms = await lead(1000, bad=bad, good=good)
    assert bad.runs == 3
    assert good.runs == 1
    assert list(alarms.texts) == ["bad"]
    assert "bad failed 3 times within a minute" in alarms.texts["bad"]


async def test_failures_far_apart_are_forgiven(autojump_clock: trio.testing.MockClock) -> None:
    """A component that fails every forty seconds is started again for ever."""
    component = Component(*[KeyError("bug")] * 8, after_s=40.0)
    alarms = await lead(1000, component=component)
    assert (component.runs, alarms.texts) == (9, {})


@pytest.mark.parametrize(
    "error",
    [
        NoLeader(),
        LostLeadership("lost"),
        BaseExceptionGroup("a nursery", [NoLeader(), LostLeadership("lost")]),
    ],
)
async def test_lost_leadership_is_no_failure(
    autojump_clock: trio.testing.MockClock, error: Exception
) -> None:
    """A component that finds leadership gone waits for its end; nothing is counted or started."""
    component = Component(error)
    alarms = await lead(100, component=component)
    assert (component.runs, alarms.texts) == (1, {})


async def test_a_bug_beside_lost_leadership_is_a_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A group that holds anything else counts."""
    group = BaseExceptionGroup("a nursery", [NoLeader(), KeyError("bug")])
    component = Component(group, group, group)
    assert list((await lead(100, component=component)).texts) == ["component"]


@pytest.mark.parametrize("error", [LostLeadership("lost"), KeyError("bug")])
async def test_what_a_component_meets_as_its_term_ends_ends_nothing_else(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost leadership fails what a component's tasks wait for, and cancels the term in that very
    moment: the manager goes on. So it does after a bug, which is logged."""
    lost = trio.Event()

    async def work() -> None:
        await lost.wait()
        raise error

    async def component() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(trio.sleep_forever)

    async def end_term(term: trio.CancelScope) -> None:
        await lost.wait()
        term.cancel()

    async with trio.open_nursery() as term:
        term.start_soon(end_term, term.cancel_scope)
        term.start_soon(run_leader, {"component": component}, Alarms())
        await trio.testing.wait_all_tasks_blocked()
        lost.set()
    assert ("component failed as it was cancelled" in caplog.text) == isinstance(error, KeyError)


async def test_a_new_term_begins_without_alarms(autojump_clock: trio.testing.MockClock) -> None:
    """Alarms belong to a term of leadership."""
    alarms = Alarms()
    alarms.texts["old"] = "of the last term"
    with trio.move_on_after(1):
        await run_leader({"component": Component().run}, alarms)
    assert alarms.texts == {}


@pytest.mark.still
async def test_what_goes_on_while_leading_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is allowed only to the leader is cancelled when leadership ends, and refused to
    a manager that does not lead; one that is done in time notices nothing."""
    cluster = LoneManager(MemoryNetwork(monkeypatch))
    ends: list[str] = []

    async def go_on() -> None:
        try:
            with cluster.manager.while_leading():
                ends.append("began")
                await trio.sleep_forever()
        except NoLeader:
            ends.append("cancelled")

    async with trio.open_nursery() as nursery, cluster.running():
        with cluster.manager.while_leading():
            await trio.lowlevel.checkpoint()
        nursery.start_soon(go_on)
        await cluster.elapse(5)
        assert ends == ["began"]
    assert ends == ["began", "cancelled"]
    with pytest.raises(NoLeader), cluster.manager.while_leading():
        raise AssertionError("it does not lead")


@pytest.mark.still
async def test_roles_wait_for_a_disk_that_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promotion that was written last before the disk was full goes on when there is room; the
    component that minds it is not given up meanwhile."""
    cluster = LoneManager(MemoryNetwork(monkeypatch))

    def promoted(row: NodeRow) -> NodeRow:
        return replace(row, api=replace(row.api, Spec=replace(row.api.Spec, Role="manager")))

    async with cluster.running(), trio.open_nursery() as nursery:
        await cluster.admit("node")
        cluster.disk.delay_s = 0.2
        nursery.start_soon(cluster.change_node, "node", promoted)
        await trio.testing.wait_all_tasks_blocked()  # it is accepted, and not yet on the disk
        cluster.disk.complaint = "the disk is nearly full"
        await cluster.elapse(5)
        assert cluster.node("node").private.role == "worker"
        assert cluster.manager.alarms.texts == {}
        cluster.disk.complaint = ""
        await cluster.until(lambda: cluster.node("node").private.role == "manager")


@pytest.mark.still
async def test_a_manager_that_is_removed_while_it_is_stopped_just_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped at any step of its removal: that it was stopped counts, and nothing crashes."""
    network = MemoryNetwork(monkeypatch)
    for steps in range(16):
        cluster = LoneManager(network)
        over = trio.Event()

        async def live(manager: Manager = cluster.manager, over: trio.Event = over) -> None:
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(manager.run)
            except BaseExceptionGroup as group:
                if group.split(ManagerEnded)[1] is not None:
                    raise  # else it was removed before it was stopped
            finally:
                over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            await until(lambda manager=cluster.manager: manager.leading)
            cluster.manager._removed.set()
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await until(over.is_set, 2 * HAND_OVER_S)


@pytest.mark.still
async def test_a_manager_ends_at_once_however_early_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A daemon that is stopped while its manager starts does not hang: cancelled at any step, the
    manager is over within the time it has to hand over."""
    network = MemoryNetwork(monkeypatch)
    for steps in [*range(40)] * 10:  # trio takes turns at random
        cluster = LoneManager(network)
        over = trio.Event()

        async def live(manager: Manager = cluster.manager, over: trio.Event = over) -> None:
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(manager.run)
            finally:
                over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await until(over.is_set, 2 * HAND_OVER_S)
