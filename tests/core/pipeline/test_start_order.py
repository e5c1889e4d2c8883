"""Start order in the pipeline: new tasks wait at NEW and say for what; nothing that runs stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from swarmctl.core.allocator.decide import TASKS_MAX
from swarmctl.core.model.base import MINUTE
from swarmctl.core.model.change import (
    Applied,
    Conflict,
    Create,
    Kind,
    Ref,
    SpecAt,
    Transaction,
    Update,
)
from swarmctl.core.model.labels import DEPENDS_ON
from swarmctl.core.model.objects import ServiceRow
from swarmctl.core.model.service import Service, ServiceStop
from swarmctl.core.model.spec import PortConfig
from swarmctl.core.model.startorder import check_start_order
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.spec import ServiceSpec


def after(wanted: ServiceSpec, text: str) -> ServiceSpec:
    return replace(wanted, Labels={DEPENDS_ON: text})


def ingress(number: int) -> tuple[PortConfig, ...]:
    return (PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=number, PublishMode="ingress"),)


@pytest.mark.parametrize("ports", [(), ingress(8080)])
def test_new_tasks_wait_and_say_for_what(ports: tuple[PortConfig, ...]) -> None:
    """With ports of its own or without, a service starts the moment the other one serves."""
    world = World()
    world.service("db", spec("db"))
    world.service("web", after(spec(replicas=2, ports=ports), "db:healthy"))
    world.settle()
    for task in world.tasks("web"):
        assert task.api.Status.State is TaskState.NEW
        assert task.api.Status.Err == "waits for db to be healthy"
    world.node("n0")
    world.run()
    assert len(world.running("web")) == 2
    assert all(task.api.Status.Err == "" for task in world.tasks("web"))
    assert world.wishes() == []


@pytest.mark.parametrize("ports", [(), ingress(8080)])
def test_a_large_service_is_told_and_moved_over_several_turns(
    ports: tuple[PortConfig, ...],
) -> None:
    """More tasks than one decision handles: all of them know, and all of them go on."""
    count = TASKS_MAX + 50
    world = World()
    world.service("db", spec("db"))
    world.service("web", after(spec(replicas=count, ports=ports), "db:running"))
    world.settle()
    told = {task.api.Status.Err for task in world.tasks("web")}
    assert told == {"waits for db to be running"}
    world.node("n0")
    world.run()
    assert len(world.running("web")) == count


def test_a_chain_starts_in_order() -> None:
    """Each service runs only once the one before it does."""
    world = World()
    world.service("a", spec("a"))
    world.service("b", after(spec("b"), "a:running"))
    world.service("c", after(spec("c"), "b:running"))
    world.node("n0")
    order: list[str] = []
    for _ in range(40):
        world.turn()
        world.agents()
        for name in "abc":
            if world.running(name) and name not in order:
                order.append(name)
    assert order == ["a", "b", "c"]


def test_what_runs_is_not_stopped_by_what_it_waited_for() -> None:
    """A service that it waited for fails and is removed; what runs, runs, and is replaced."""
    world = World()
    world.node("n0")
    world.service("db", spec("db"))
    world.service("web", after(spec(replicas=2), "db:running"))
    world.run()
    before = {task.api.ID for task in world.running("web")}
    world.end(world.in_slot("db"))
    world.turn()
    assert {task.api.ID for task in world.running("web")} == before
    world.remove_service("db")
    world.run()
    assert {task.api.ID for task in world.running("web")} == before
    world.end(world.in_slot("web", 1))
    world.sleep(MINUTE)
    assert len(world.running("web")) == 2, "what is gone is not waited for"


def test_waiting_tasks_start_when_what_they_wait_for_is_removed() -> None:
    """Nobody waits for ever for a service that cannot come."""
    world = World()
    world.service("db", spec("db"))
    world.service("web", after(spec(), "db:running"))
    world.settle()
    world.node("n0", availability="pause")
    world.remove_service("db")
    world.settle()
    assert {task.api.Status.State for task in world.tasks("web")} == {TaskState.PENDING}


def test_a_stopped_service_is_told_as_such() -> None:
    """Who waits for a service that the user stopped can read that."""
    world = World()
    world.node("n0")
    world.service("db", spec("db"))
    row = world.view.service("db")
    assert row is not None
    world.write(Update(row=replace(row, api=replace(row.api, Stopped=ServiceStop()))))
    world.service("web", after(spec(), "db:running"))
    world.run()
    (task,) = world.tasks("web")
    assert task.api.Status.Err == "waits for db to be running, which is stopped"


def test_the_gate_is_asked_again_by_a_new_leader() -> None:
    """What was met while nobody led opens the gate all the same."""
    world = World()
    world.node("n0")
    world.service("db", spec("db"))
    world.service("web", after(spec(), "db:running"))
    world.turn(("orchestrator", "allocator"))
    for _ in range(6):
        world.turn(("orchestrator", "allocator", "scheduler"))
        world.agents()
        world.lead()
    world.run()
    assert len(world.running("web")) == 1


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_writes_cannot_close_a_cycle_between_them(first: str) -> None:
    """Each is fine by itself; whichever is applied second finds that the other has changed."""
    world = World()
    world.service("a", spec("a"))
    world.service("b", spec("b"))
    writes = {name: _waiting_for(world, name, other) for name, other in (("a", "b"), ("b", "a"))}
    second = "b" if first == "a" else "a"
    results = world.apply(writes[first], writes[second])
    assert isinstance(results[0], Applied)
    assert isinstance(results[1], Conflict)


def _waiting_for(world: World, name: str, other: str) -> Transaction:
    """The transaction of an update, as the API makes it."""
    row = world.view.service(name)
    assert row is not None
    wanted = after(spec(name), f"{other}:running")
    requires = tuple(
        SpecAt(ref=Ref(Kind.SERVICE, one.api.ID), index=one.private.spec_index)
        for one in check_start_order(wanted, world.view)
    )
    change = Update(row=replace(row, api=replace(row.api, Spec=wanted)))
    return Transaction(changes=(change,), requires=requires)


def test_a_service_that_names_none_costs_nothing() -> None:
    """Without the label anywhere, a task that changes wakes no other service."""
    world = World()
    world.node("n0")
    for name in ("a", "b", "c"):
        world.service(name, spec(name))
    world.run()
    (allocator,) = (one for one in world.reconcilers if one.name == "allocator")
    touched = {Ref(Kind.TASK, task.api.ID) for task in world.tasks()}
    assert list(allocator.keys(world.view, touched)) == []
    world.write(Create(row=ServiceRow(api=Service(ID="d", Spec=after(spec("d"), "a:running")))))
    assert list(allocator.keys(world.view, touched)) == ["d"]
