"""Stopped services: every task goes, and the same number comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import MINUTE
from swarmctl.core.model.change import Conflict, Update
from swarmctl.core.model.spec import RestartPolicy, TaskSpec
from swarmctl.core.model.stopping import started, stopped
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, everywhere, spec

if TYPE_CHECKING:
    from swarmctl.core.model.service import Service


def switched(world: World, api: Service) -> None:
    row = world.view.service(api.ID)
    assert row is not None
    world.write(Update(row=replace(row, api=api)))


def stop(world: World, service_id: str = "web") -> None:
    row = world.view.service(service_id)
    assert row is not None
    switched(world, stopped(row.api, world.now))


def start(world: World, service_id: str = "web") -> None:
    row = world.view.service(service_id)
    assert row is not None
    switched(world, started(row.api))


def test_a_stopped_service_has_no_tasks_and_comes_back_whole() -> None:
    """Three run, none run, three run; the spec's index never moves, so nothing is outdated."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=3))
    world.run()
    row = world.view.service("web")
    assert row is not None
    index = row.private.spec_index
    stop(world)
    world.run()
    assert world.tasks("web") == []
    assert world.wishes() == []
    start(world)
    world.run()
    assert sorted(row.api.Slot for row in world.running("web")) == [1, 2, 3]
    row = world.view.service("web")
    assert row is not None
    assert row.private.spec_index == index


def test_tasks_that_still_stop_hold_up_their_successors() -> None:
    """A service that is started while it stops never has two tasks of one slot at work."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2))
    world.run()
    world.cut.add("n0")
    stop(world)
    world.settle()
    assert all(row.api.DesiredState is TaskState.REMOVE for row in world.tasks("web"))
    start(world)
    world.settle()
    fresh = world.runnable("web")
    assert [row.api.DesiredState for row in fresh] == [TaskState.READY] * 2
    world.cut.clear()
    world.run()
    assert len(world.running("web")) == 2


def test_a_stop_that_was_taken_back_removes_nothing() -> None:
    """What was decided for a stopped service conflicts once it is started."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2))
    world.run()
    stop(world)
    wanted = world.decide("orchestrator", "web")
    start(world)
    assert all(isinstance(result, Conflict) for result in world.apply(*wanted))
    world.run()
    assert len(world.running("web")) == 2


def test_an_update_while_stopped_counts_from_the_start_on() -> None:
    """The tasks that come back have the newest spec."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2))
    world.run()
    stop(world)
    world.run()
    world.update("web", spec(replicas=2, image="nginx:2"))
    world.run()
    assert world.tasks("web") == []
    start(world)
    world.run()
    images = {row.api.Spec.ContainerSpec.Image for row in world.running("web")}  # type: ignore[union-attr]
    assert images == {"nginx:2"}


@pytest.mark.parametrize("reaped", [True, False])
def test_a_stop_lets_a_settled_node_run_a_global_service_again(reaped: bool) -> None:
    """A task that had had its turn is gone by it, be its user faster with the start or the reaper.

    Nobody is told of what the reaper deletes, so what is about to be deleted counts as gone.
    """
    world = World()
    world.node("n0")
    once = TaskSpec(RestartPolicy=RestartPolicy(Condition="on-failure", Delay=0))
    world.service("each", everywhere("each", task=once))
    world.run()
    world.end(world.in_slot("each", 0), TaskState.COMPLETE)
    world.sleep(MINUTE)
    assert world.running("each") == []
    stop(world, "each")
    if reaped:
        world.run()
        assert world.tasks("each") == []
    else:
        world.turn(("orchestrator",))
    start(world, "each")
    world.sleep(MINUTE)
    assert [row.place for row in world.running("each")] == ["n0"]
    assert world.wishes() == []


def test_a_service_that_is_started_has_its_restarts_before_it() -> None:
    """Who stops a service whose slots gave up, and starts it, begins anew; as with a scale to 0."""
    world = World()
    world.node("n0")
    limited = TaskSpec(RestartPolicy=RestartPolicy(Delay=0, MaxAttempts=1))
    world.service("web", spec(task=limited))
    world.run()
    for _ in range(2):
        world.end(world.in_slot("web"))
        world.run()
    assert world.running("web") == [], "it has given up"
    stop(world)
    world.run()
    assert world.wishes() == []
    start(world)
    world.run()
    world.end(world.in_slot("web"))
    world.sleep(MINUTE)
    assert len(world.running("web")) == 1, "one restart is left"
    world.end(world.in_slot("web"))
    world.sleep(MINUTE)
    assert world.running("web") == []


def test_nodes_that_come_while_a_global_service_is_stopped_get_nothing() -> None:
    """A node that joins, returns or is activated changes nothing until the service is started."""
    world = World()
    world.node("n0")
    world.node("n1", availability="drain")
    world.service("each", everywhere("each"))
    world.run()
    stop(world, "each")
    world.run()
    world.node("n2")
    world.set_node("n1", availability="active")
    world.set_node("n0", state="down")
    world.set_node("n0", state="ready")
    world.lead()
    world.sleep(MINUTE)
    assert world.tasks("each") == []
    start(world, "each")
    world.run()
    assert sorted(row.place for row in world.running("each")) == ["n0", "n1", "n2"]
