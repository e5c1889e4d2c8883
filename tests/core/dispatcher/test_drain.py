"""When a task that shall stop may be stopped: nobody sends it anything new, or for long enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.dispatcher.assignments import assignments_for, diff
from swarmctl.core.dispatcher.drain import BELIEVED_S, DRAIN_S, Drains, Released
from swarmctl.core.dispatcher.traffic import Traffic
from swarmctl.core.model.change import Kind, Ref, Update
from swarmctl.core.model.objects import TaskRow
from swarmctl.core.model.spec import EndpointSpec
from swarmctl.core.model.task import Task, TaskState, TaskStatus
from tests.core.allocator.joined import on_networks
from tests.core.dispatcher.networked import joined_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.pipeline.world import World


def row(task_id: str = "t", *, desired: TaskState = TaskState.SHUTDOWN) -> TaskRow:
    status = TaskStatus(State=TaskState.RUNNING)
    return TaskRow(api=Task(ID=task_id, NodeID="n1", Status=status, DesiredState=desired))


def known(**versions: int | None) -> Callable[[str], int | None]:
    return lambda network_id: versions.get(network_id)


def told_of(released: list[Released]) -> dict[str, dict[str, int]]:
    return {one.task_id: dict(one.unknown) for one in released}


@pytest.mark.parametrize(
    ("places", "versions", "waits"),
    [
        ({"net": 7}, {"net": 6}, True),
        ({"net": 7}, {"net": 7}, False),
        ({"net": 7}, {"net": 9}, False),
        ({"net": 7}, {}, False),  # nobody on it counts
        ({"net": 7, "ingress": 7}, {"net": 7, "ingress": 3}, True),
        ({}, {"net": 0}, False),  # it was on no network
    ],
)
def test_it_waits_for_every_network_it_was_on(
    places: dict[str, int], versions: dict[str, int | None], waits: bool
) -> None:
    """Until all their nodes know the tables in which it leaves."""
    assert Drains().holds(row(), places, known(**versions), 0.0) is waits


@pytest.mark.parametrize("desired", [TaskState.RUNNING, TaskState.COMPLETE])
def test_who_shall_go_on_is_not_held(desired: TaskState) -> None:
    """A job's task shall complete, which is no order to stop."""
    assert not Drains().holds(row(desired=desired), {"net": 7}, known(net=0), 0.0)


def test_it_waits_for_so_long_and_no_longer() -> None:
    """However often it is asked about; and once let go it is not held again."""
    drains = Drains()
    for now in (0.0, 0.5, DRAIN_S - 0.1):
        assert drains.holds(row(), {"net": 7}, known(net=1), now)
        assert drains.settle(known(net=1), now) == []
    assert drains.next_deadline(1.9) == DRAIN_S
    assert told_of(drains.settle(known(net=1), DRAIN_S)) == {"t": {"net": 7}}
    assert not drains.holds(row(), {"net": 7}, known(net=1), DRAIN_S)
    assert drains.next_deadline(DRAIN_S) == float("inf")


def test_who_is_let_go_in_time_leaves_nobody_unaware() -> None:
    """What is told of it names only the networks in which a node may not know yet."""
    drains = Drains()
    places = {"net": 7, "other": 7}
    assert drains.holds(row(), places, known(net=1, other=9), 0.0)
    assert drains.holds(row("u"), places, known(net=1, other=9), 0.0)
    assert told_of(drains.settle(known(net=7, other=9), 1.0)) == {"t": {}, "u": {}}


def test_who_is_found_by_name_goes_on_while_names_are_believed() -> None:
    """So much longer from when all nodes know, and not longer than any other in all."""
    drains = Drains()
    assert drains.holds(row(), {"net": 7}, known(net=9), 0.0, rest_s=BELIEVED_S)
    assert drains.holds(row("u"), {"net": 8}, known(net=9), 0.0, rest_s=BELIEVED_S)
    assert drains.settle(known(net=7), 1.0) == []
    assert drains.next_deadline(1.0) == 1.0 + BELIEVED_S
    assert told_of(drains.settle(known(net=7), 1.0 + BELIEVED_S)) == {"t": {}}
    assert drains.settle(known(net=8), DRAIN_S - 0.1) == []
    assert told_of(drains.settle(known(net=8), DRAIN_S)) == {"u": {}}


def test_who_ended_is_forgotten() -> None:
    """A task that ended by itself while it was held is nobody's business any more."""
    drains = Drains()
    assert drains.holds(row(), {"net": 7}, known(net=1), 0.0)
    drains.keep_only(lambda task_id: task_id != "t")
    assert drains.settle(known(net=9), 9.0) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.floats(0, DRAIN_S / 2)),
        max_size=20,
    )
)
def test_an_order_is_delayed_and_never_lost(steps: list[tuple[int, int, float]]) -> None:
    """Whatever nodes say and when, so long after the first look every task is let go, once."""
    drains = Drains()
    now = 0.0
    began: dict[str, float] = {}
    told: list[str] = []
    for number, version, passed in steps:
        now += passed
        task_id = f"t{number}"
        if not drains.holds(row(task_id), {"net": 5}, known(net=version), now):
            told += [task_id] if task_id not in told else []
        began.setdefault(task_id, now)
        drains.settle(known(net=version), now)
        for other, since in began.items():
            if now >= since + DRAIN_S:
                assert not drains.holds(row(other), {"net": 5}, known(net=0), now)
    drains.settle(known(net=0), now + DRAIN_S)
    for task_id in began:
        assert not drains.holds(row(task_id), {"net": 5}, known(net=0), now + DRAIN_S)


# --- through the assignments ---------------------------------------------------------------------


async def leading(world: World) -> Traffic:
    traffic = Traffic(world.view, lambda _: None, lambda _: None)
    await traffic.rebuild()
    return traffic


def say_all(traffic: Traffic, *node_ids: str) -> None:
    """Have nodes say that they know all they can be told."""
    for node_id in node_ids:
        carrier = traffic.join(node_id)
        traffic.changes(carrier)
        traffic.note_known(carrier, carrier.sent.version)


async def test_another_leader_holds_it_anew(autojump_clock: trio.testing.MockClock) -> None:
    """What the one before had told a node is not taken back, and what it held is not lost.

    The assignment stays as it was sent until the nodes know, and then says stop.
    """
    world = joined_up(2)
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    before = assignments_for(world.view, "n0")
    world.scale("web", 0)
    world.settle()
    for _ in range(2):  # the second is the new leader
        traffic = await leading(world)
        held = assignments_for(world.view, "n0", traffic.holds)
        assert diff(held, before, 2) is None
        await trio.sleep(DRAIN_S / 2)
    say_all(traffic, "n0")
    assert diff(assignments_for(world.view, "n0", traffic.holds), before, 2) is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run)
        say_all(traffic, "n0", "n1")
        await trio.testing.wait_all_tasks_blocked()
        message = diff(assignments_for(world.view, "n0", traffic.holds), before, 2)
        assert message is not None
        assert [one.task.DesiredState for one in message.put] == [TaskState.REMOVE]
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() < 3 * DRAIN_S


async def test_who_is_not_ready_yet_is_stopped_at_once() -> None:
    """A task that was still being prepared was in no balance."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net"))
    world.settle()
    traffic = await leading(world)
    world.scale("web", 0)
    world.settle()
    (task,) = assignments_for(world.view, "n0", traffic.holds).tasks.values()
    assert task.task.DesiredState >= TaskState.SHUTDOWN


async def test_a_service_without_a_virtual_address_waits_for_names(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All nodes know at once; those who asked for its name just before may come for a second."""
    world = joined_up(1)
    by_name = replace(on_networks("web", "net"), EndpointSpec=EndpointSpec(Mode="dnsrr"))
    world.service("web", by_name)
    world.run()
    traffic = await leading(world)
    world.scale("web", 0)
    world.settle()
    traffic.catch_up([Ref(Kind.TASK, row.api.ID) for row in world.view.tasks()])
    say_all(traffic, "n0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run)
        for wait_s, is_held in ((0.0, True), (1.0, True), (1.0, False)):
            await trio.sleep(wait_s)
            (task,) = assignments_for(world.view, "n0", traffic.holds).tasks.values()
            assert (task.task.DesiredState < TaskState.SHUTDOWN) is is_held
        nursery.cancel_scope.cancel()


async def test_a_cluster_without_drivers_waits_for_nobody() -> None:
    """Where nothing carries traffic no order is held."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net"))
    world.run()
    node = world.view.node("n0")
    assert node is not None
    world.write(Update(row=replace(node, private=replace(node.private, network_driver=""))))
    traffic = await leading(world)
    world.scale("web", 0)
    world.settle()
    (task,) = assignments_for(world.view, "n0", traffic.holds).tasks.values()
    assert task.task.DesiredState >= TaskState.SHUTDOWN


async def test_nobody_knows_what_is_not_there_yet() -> None:
    """A node that knew more of a swarm before it was restored still has to say what it knows."""
    world = joined_up(1)
    world.service("web", on_networks("web", "net"))
    world.run()
    traffic = await leading(world)
    carrier = traffic.join("n0")
    traffic.note_known(carrier, 10**9)
    traffic.changes(carrier)
    world.scale("web", 0)
    world.settle()
    traffic.catch_up([Ref(Kind.TASK, row.api.ID) for row in world.view.tasks()])
    (task,) = assignments_for(world.view, "n0", traffic.holds).tasks.values()
    assert task.task.DesiredState < TaskState.SHUTDOWN


def leave(world: World, traffic: Traffic, node_id: str) -> None:
    """Write that a node is down, and have everybody told."""
    node = world.view.node(node_id)
    assert node is not None
    status = replace(node.api.Status, State="down")
    world.write(Update(row=replace(node, api=replace(node.api, Status=status))))
    traffic.catch_up([Ref(Kind.NODE, node_id)])


async def test_who_leaves_need_not_say_that_he_knows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After its farewell a node is not heard any more, so only the others are waited for."""
    world = joined_up(2)
    world.service("web", on_networks("web", "net", replicas=2))
    world.run()
    traffic = await leading(world)
    carriers = [traffic.join(node_id) for node_id in ("n0", "n1")]
    leave(world, traffic, "n0")
    for carrier in carriers:
        traffic.changes(carrier)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run)
        async with trio.open_nursery() as leaving:
            leaving.start_soon(traffic.wait_left, "n0")
            await trio.sleep(1)
            traffic.note_known(carriers[1], carriers[1].sent.version)
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() == 1


async def test_who_waits_is_not_forgotten_when_others_are_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A node that leaves goes as soon as the last one that counts knows, or counts no more."""
    world = joined_up(3)
    world.service("web", on_networks("web", "net", replicas=3))
    world.run()
    traffic = await leading(world)
    away, carrier = traffic.join("n2"), traffic.join("n1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(traffic.run)
        traffic.leave(away)
        await trio.sleep(DRAIN_S - 2)
        leave(world, traffic, "n0")
        traffic.changes(carrier)
        async with trio.open_nursery() as leaving:
            leaving.start_soon(traffic.wait_left, "n0")
            await trio.sleep(3)  # n2 is given up meanwhile
            traffic.note_known(carrier, carrier.sent.version)
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() == DRAIN_S + 1
