"""Evictions: who has to leave a node that changed, and who may stay."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.change import Conflict, Update
from swarmctl.core.model.spec import (
    DiscreteResourceSpec,
    GenericResource,
    NamedResourceSpec,
    Placement,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    TaskSpec,
)
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec

IN_ZONE_A = TaskSpec(Placement=Placement(Constraints=("node.labels.zone==a",)))
GB = 1 << 30


def gpus(*names: str, count: int = 0) -> tuple[GenericResource, ...]:
    named = tuple(
        GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value=name))
        for name in names
    )
    counted = GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="gpu", Value=count))
    return (*named, counted) if count else named


def evicted(world: World) -> list[str]:
    """Return the services whose tasks were rejected."""
    return sorted(
        row.api.ServiceID for row in world.tasks() if row.api.Status.State is TaskState.REJECTED
    )


def test_a_changed_label_evicts_only_violators() -> None:
    """A task whose constraint no longer holds is rejected and placed elsewhere; others stay."""
    world = World()
    world.node("n0", labels={"zone": "a"})
    world.service("picky", spec("picky", task=IN_ZONE_A))
    world.service("easy", spec("easy"))
    world.run()
    world.node("n1", labels={"zone": "a"})
    world.now += 10 * SECOND
    world.set_node("n0", labels={"zone": "b"})
    world.run()
    assert evicted(world) == ["picky"]
    (gone,) = (row for row in world.tasks() if row.api.Status.State is TaskState.REJECTED)
    assert gone.api.Status.Err == "assigned node no longer meets constraints"
    assert [row.api.NodeID for row in world.running("picky")] == ["n1"]
    assert [row.api.NodeID for row in world.running("easy")] == ["n0"]


def test_a_changed_role_evicts() -> None:
    """A node that became a worker loses the tasks bound to managers."""
    world = World()
    row = world.node("n0")
    world.write(Update(row=replace(row, private=replace(row.private, role="manager"))))
    wanted = TaskSpec(Placement=Placement(Constraints=("node.role==manager",)))
    world.service("web", spec(task=wanted))
    world.run()
    assert len(world.running("web")) == 1
    row = world.view.node("n0")
    assert row is not None
    world.write(Update(row=replace(row, private=replace(row.private, role="worker"))))
    world.run()
    assert evicted(world) == ["web"]


def test_a_loosened_constraint_protects_old_tasks() -> None:
    """What counts are the service's present constraints, also for tasks of an older spec."""
    world = World()
    world.node("n0", labels={"zone": "a"})
    world.service("web", spec(task=IN_ZONE_A))
    world.run()
    world.update("web", spec())
    world.run()
    world.set_node("n0", labels={"zone": "b"})
    world.run()
    assert evicted(world) == []


def test_a_tightened_constraint_is_the_rollouts_business() -> None:
    """An update that adds a constraint replaces tasks at its own pace, not all at once."""
    world = World()
    world.node("n0")
    world.node("n1", labels={"zone": "a"})
    world.service("web", spec(replicas=4))
    world.run()
    world.now += 10 * SECOND
    world.update("web", spec(replicas=4, task=IN_ZONE_A))
    world.lead()
    world.run()
    assert evicted(world) == []
    assert {row.api.NodeID for row in world.running("web")} == {"n1"}
    assert len(world.running("web")) == 4


def reserving(memory: int, cpus: int = 0) -> TaskSpec:
    wanted = Resources(NanoCPUs=cpus * 10**9, MemoryBytes=memory)
    return TaskSpec(
        Resources=ResourceRequirements(Reservations=wanted),
        RestartPolicy=RestartPolicy(Condition="none"),
    )


def test_a_wish_that_comes_back_is_held_to_again() -> None:
    """A task that a loosened constraint protected is evicted when a rollback tightens it again.

    Its node does not change in that moment, and no other leader comes to look at all nodes.
    """
    world = World()
    world.node("n0", labels={"zone": "a"})
    world.service("web", spec(task=IN_ZONE_A))
    world.run()
    world.update("web", spec())
    world.set_node("n0", labels={"zone": "b"})
    world.run()
    assert evicted(world) == []
    world.now += 10 * SECOND
    world.roll_back("web")
    world.run()
    assert evicted(world) == ["web"]
    assert world.wishes() == []


def test_a_constraint_that_is_loosened_meanwhile_evicts_nobody() -> None:
    """What was decided by constraints that are no more conflicts."""
    world = World()
    world.node("n0", labels={"zone": "a"})
    world.service("web", spec(task=IN_ZONE_A))
    world.run()
    world.set_node("n0", labels={"zone": "b"})
    decided = world.decide("enforcer", "n0")
    assert len(decided) == 1
    world.update("web", spec())
    assert [type(result) for result in world.apply(*decided)] == [Conflict]
    world.run()
    assert evicted(world) == []


def test_less_memory_evicts_the_youngest_that_do_not_fit() -> None:
    """A node that shrank keeps its oldest tasks as far as they fit."""
    world = World()
    world.node("n0", memory=8 * GB)
    for name in ("a", "b", "c"):
        world.service(name, spec(name, task=reserving(2 * GB)))
        world.run()
    world.service("free", spec("free"))
    world.run()
    world.set_node("n0", resources=Resources(NanoCPUs=8 * 10**9, MemoryBytes=5 * GB))
    world.run()
    assert evicted(world) == ["c"]


def test_a_generic_resource_that_vanished_evicts_all_its_users() -> None:
    """Every task whose device is gone is evicted, not only the first one."""
    world = World()
    offer = Resources(NanoCPUs=10**9, GenericResources=gpus("g1", "g2", "g3"))
    world.node("n0", resources=offer)
    wanted = Resources(GenericResources=gpus(count=1))
    task = TaskSpec(
        Resources=ResourceRequirements(Reservations=wanted),
        RestartPolicy=RestartPolicy(Condition="none"),
    )
    for name in ("a", "b", "c"):
        world.service(name, spec(name, task=task))
        world.run()
    world.set_node("n0", resources=replace(offer, GenericResources=gpus("g2")))
    world.run()
    assert evicted(world) == ["a", "c"]


def test_finished_tasks_hold_nothing() -> None:
    """Completed tasks neither count against a node's resources nor are evicted."""
    world = World()
    world.node("n0", memory=4 * GB)
    for name in ("done", "live"):
        world.service(name, spec(name, task=reserving(2 * GB)))
    world.run()
    world.end(world.in_slot("done"), TaskState.COMPLETE)
    world.run()
    world.set_node("n0", resources=Resources(NanoCPUs=10**9, MemoryBytes=2 * GB))
    world.run()
    assert evicted(world) == []


@pytest.mark.parametrize("availability", ["pause", "drain"])
def test_nodes_that_are_not_active_are_not_judged(availability: str) -> None:
    """A paused node keeps its tasks and a drained one gives them up in its own way."""
    world = World()
    world.node("n0", labels={"zone": "a"})
    world.service("web", spec(task=IN_ZONE_A))
    world.run()
    world.set_node("n0", labels={"zone": "b"}, availability=availability)
    world.run()
    assert evicted(world) == []


def test_a_node_that_tells_nothing_is_not_judged_by_resources() -> None:
    """An empty description means that nothing is known, not that nothing is there."""
    world = World()
    world.node("n0")
    world.service("web", spec(task=reserving(GB)))
    world.run()
    world.set_node("n0", resources=Resources())
    world.run()
    assert evicted(world) == []
