"""The scheduler scenarios of swarm-behaviour.md section 12.7 that no other file here proves.

66 to 72, under the names of SwarmKit's tests where they have one. The rest: HA, faulty nodes and
preassigned tasks in ``test_scheduling``, host ports, max replicas, plugins and platforms in
``test_filters``.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from swarmctl.core.model.change import Update
from swarmctl.core.model.spec import (
    Placement,
    PlacementPreference,
    ResourceRequirements,
    Resources,
    SpreadOver,
    TaskSpec,
)
from swarmctl.core.model.task import TaskFailure, TaskState
from tests.core.pipeline.world import World, spec

CPU = 10**9
GIB = 1 << 30


def reserving(cpus: float = 0, memory: int = 0, *labels: str) -> TaskSpec:
    """A task that reserves so much and is spread over node labels."""
    preferences = tuple(
        PlacementPreference(Spread=SpreadOver(SpreadDescriptor=f"node.labels.{label}"))
        for label in labels
    )
    return TaskSpec(
        Resources=ResourceRequirements(
            Reservations=Resources(NanoCPUs=int(cpus * CPU), MemoryBytes=memory)
        ),
        Placement=Placement(Preferences=preferences) if preferences else None,
    )


def where(world: World, service_id: str) -> Counter[str]:
    """How many live tasks of a service each node has."""
    return Counter(
        row.api.NodeID
        for row in world.tasks(service_id)
        if row.api.NodeID and row.api.Status.State <= TaskState.RUNNING
    )


def test_66_resources_limit_an_even_spread() -> None:
    """TestSchedulerResourceConstraintHA: a small node takes what fits, others the rest."""
    world = World()
    world.node("n0", memory=2 * GIB)
    world.node("n1", memory=16 * GIB)
    world.node("n2", memory=16 * GIB)
    world.service("web", spec(replicas=8, task=reserving(0, 2 * GIB)))
    world.settle()
    assert where(world, "web") == {"n0": 1, "n1": 4, "n2": 3}


def test_67_two_levels_of_preferences_with_resource_limits() -> None:
    """TestMultiplePreferences: zones level first, racks within them, as far as memory goes."""
    world = World()
    for zone, rack, node, memory in (
        ("a", "1", "n0", 1),
        ("a", "1", "n1", 16),
        ("a", "2", "n2", 16),
        ("b", "1", "n3", 2),
    ):
        world.node(node, labels={"zone": zone, "rack": rack}, memory=memory * GIB)
    world.service("web", spec(replicas=12, task=reserving(0, GIB, "zone", "rack")))
    world.settle()
    assert where(world, "web") == {"n0": 1, "n1": 4, "n2": 5, "n3": 2}


def test_67_scaling_up_ends_when_a_branch_is_full() -> None:
    """TestMultiplePreferencesScaleUp: a full branch leaves its share to the others."""
    world = World()
    world.node("n0", labels={"zone": "a"}, memory=GIB)
    world.node("n1", labels={"zone": "b"}, memory=16 * GIB)
    world.service("web", spec(replicas=2, task=reserving(0, GIB, "zone")))
    world.run()
    assert where(world, "web") == {"n0": 1, "n1": 1}
    world.scale("web", 6)
    world.run()
    assert where(world, "web") == {"n0": 1, "n1": 5}
    world.scale("web", 30)
    world.settle()
    assert where(world, "web") == {"n0": 1, "n1": 16}


def test_68_failures_of_another_spec_version_do_not_count() -> None:
    """TestSchedulerFaultyNodeSpecVersion: a new spec starts with a clean record everywhere."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", spec())
    while world.turn(("orchestrator", "allocator")):
        pass
    (task,) = world.tasks("web")
    failures = (TaskFailure(node_id="n0", at=world.now),) * 9
    world.write(Update(row=replace(task, private=replace(task.private, failures=failures))))
    world.run()
    assert where(world, "web") == {"n1": 1}
    world.update("web", spec(image="nginx:2"))
    world.run()
    assert where(world, "web") == {"n0": 1}


def test_69_what_a_dead_task_held_is_free() -> None:
    """TestSchedulerResourceConstraintDeadTask: the next task gets the memory of one that failed."""
    world = World()
    world.node("n0", memory=GIB)
    world.service("big", spec("big", task=reserving(0, GIB)))
    world.run()
    world.service("web", spec(task=reserving(0, GIB)))
    world.run()
    assert where(world, "web") == {}
    world.remove_service("big")
    world.run()
    assert where(world, "web") == {"n0": 1}


def test_69_tasks_that_were_dead_before_this_leader_hold_nothing() -> None:
    """TestSchedulerPreexistingDeadTask: a fresh leader counts live tasks only."""
    world = World()
    world.node("n0", memory=GIB)
    world.service("old", spec("old", task=reserving(0, GIB)))
    world.run()
    world.end(world.in_slot("old"))
    world.lead()
    world.turn(("orchestrator", "allocator", "scheduler"))
    world.run()
    world.scale("old", 0)
    world.run()
    world.service("web", spec(task=reserving(0, GIB)))
    world.lead()
    world.run()
    assert where(world, "web") == {"n0": 1}


def test_71_a_task_that_fits_nowhere_does_not_hold_up_its_update() -> None:
    """TestUnscheduleableTask: a pending task of an old spec makes way for one that fits."""
    world = World()
    world.node("n0", cpus=1)
    world.service("web", spec(task=reserving(4)))
    world.run()
    (pending,) = world.tasks("web")
    assert pending.api.Status.Err == "no suitable node (insufficient resources on 1 node)"
    world.update("web", spec(task=reserving(0.5)))
    world.run()
    assert [row.private.spec_version for row in world.running("web")] == [
        world.view.service("web").private.spec_index  # type: ignore[union-attr]
    ]
    assert world.view.task(pending.api.ID) is None or (
        world.task(pending.api.ID).api.DesiredState > TaskState.RUNNING
    )


def test_71_a_deleted_service_leaves_nothing_to_place() -> None:
    """TestUnassignedMap: the scheduler has no key left once the tasks it waited with are gone."""
    world = World()
    world.service("web", spec(replicas=3))
    world.settle()
    world.remove_service("web")
    world.run()
    assert world.tasks("web") == []
    (scheduler,) = (one for one in world.reconcilers if one.name == "scheduler")
    assert list(scheduler.keys(world.view, None)) == []
