"""Scenarios of Swarm's own tests that no other file here proves; all are in docs/scenarios.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.core.api.nodes import _removal
from swarmctl.core.model.base import MINUTE
from swarmctl.core.model.change import Applied, Create, Update
from swarmctl.core.model.spec import RestartPolicy, TaskSpec
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, everywhere, spec

if TYPE_CHECKING:
    from swarmctl.core.model.objects import NodeRow


def test_53_what_a_removed_node_had_is_given_up_with_it() -> None:
    """Its tasks are ORPHANED in the moment that it goes, replaced elsewhere, and then forgotten."""
    world = World()
    world.node("m0", availability="pause")
    world.node("n0")
    manager = row_of(world, "m0")
    wish = replace(manager.api.Spec, Role="manager")
    world.write(Update(row=replace(manager, api=replace(manager.api, Spec=wish))))
    world.service("web", spec(replicas=2))
    world.service("each", everywhere("each"))
    world.run()
    there = [task.api.ID for task in world.tasks()]
    assert {task.api.NodeID for task in world.tasks()} == {"n0"}
    (result,) = world.apply(_removal(world.view, row_of(world, "n0"), world.now))
    assert isinstance(result, Applied)
    assert {world.task(each).api.Status.State for each in there} == {TaskState.ORPHANED}
    world.node("n1")
    world.sleep(MINUTE)
    assert [task.api.NodeID for task in world.running("web")] == ["n1", "n1"]
    assert [task.place for task in world.tasks("each")] == ["n1"]
    assert world.wishes() == []


def row_of(world: World, node_id: str) -> NodeRow:
    row = world.view.node(node_id)
    assert row is not None
    return row


def test_60_what_failed_while_nobody_led_is_mended_by_the_next_leader() -> None:
    """A fresh leader replaces what failed or was refused before it came, and stops one too many."""
    world = World()
    world.node("n0")
    task = TaskSpec(RestartPolicy=RestartPolicy(Delay=0))
    world.service("web", spec(replicas=3, task=task))
    world.run()
    failed, refused, twice = world.running("web")
    world.end(failed, TaskState.FAILED)
    world.end(refused, TaskState.REJECTED)
    extra = replace(twice, api=replace(twice.api, ID="extra"))
    world.write(Create(row=extra))
    world.lead()
    world.sleep(MINUTE)
    assert [row.api.Slot for row in world.running("web")] == [1, 2, 3]
    assert [row.api.Slot for row in world.runnable("web")] == [1, 2, 3]
    assert not {failed.api.ID, refused.api.ID} & {row.api.ID for row in world.running("web")}


def test_61_attempts_on_a_node_outlast_the_leader() -> None:
    """A new leader knows how often a node's task of a global service was started already."""
    world = World()
    world.node("n0")
    limited = TaskSpec(RestartPolicy=RestartPolicy(Delay=0, MaxAttempts=2))
    world.service("each", everywhere("each", task=limited))
    world.run()
    starts = 0
    while world.running("each"):
        starts += 1
        world.end(world.in_slot("each", 0))
        world.lead()
        world.sleep(MINUTE)
    assert starts == 3
    world.update("each", everywhere("each", image="other", task=limited))
    world.run()
    assert len(world.running("each")) == 1, "a new spec has a budget of its own"


def test_63_a_new_leader_deletes_what_its_predecessor_left() -> None:
    """Too long a history, tasks to be removed that have stopped, and those of deleted services."""
    world = World(history=2)
    world.node("n0")
    task = TaskSpec(RestartPolicy=RestartPolicy(Delay=0))
    for name in ("web", "gone"):
        world.service(name, spec(name, replicas=2, task=task))
    world.run()
    others = ("orchestrator", "allocator", "scheduler")  # a leader whose reaper never ran
    for _ in range(4):
        world.end(world.in_slot("web"))
        for _ in range(6):
            world.turn(others)
            world.agents()
    world.scale("web", 1)
    world.remove_service("gone")
    for _ in range(4):
        world.turn(others)
        world.agents()
    assert len(world.tasks()) > 6
    world.lead()
    world.run()
    assert world.tasks("gone") == []
    assert [row.api.Slot for row in world.tasks("web")] == [1, 1]
