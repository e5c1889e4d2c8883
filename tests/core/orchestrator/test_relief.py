"""Start-first drains: replacements run before anything leaves (swarm-behaviour.md section 6.10)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.spec import PortConfig, RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.objects import TaskRow
    from swarmctl.core.model.spec import ServiceSpec

START_FIRST = UpdateConfig(Parallelism=1, Order="start-first")


def start_first(replicas: int = 2, **kwargs: object) -> ServiceSpec:
    return spec(replicas=replicas, update=START_FIRST, **kwargs)  # type: ignore[arg-type]


def the_relief(world: World) -> TaskRow:
    (relief,) = (row for row in world.runnable("web") if row.private.relieves)
    return relief


def where(world: World) -> list[str]:
    return sorted(row.api.NodeID for row in world.running("web"))


def test_replacements_come_first_where_the_order_is_start_first() -> None:
    """At no step of a drain are there fewer running tasks than asked for."""
    world = World()
    for node in ("n0", "n1", "n2"):
        world.node(node)
    world.service("web", start_first(3))
    world.run()
    world.set_node("n1", availability="drain")
    least = most = 3
    for _ in range(20):
        world.turn()
        world.agents()
        least = min(least, len(world.running("web")))
        most = max(most, len(world.running("web")))
    world.run()
    assert (least, most) == (3, 4)
    assert "n1" not in where(world)
    assert len(world.runnable("web")) == 3


def test_the_order_stop_first_stays_as_it_was() -> None:
    """Without start-first a drained task is told to stop in the same step as it is replaced."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", spec(replicas=2))
    world.run()
    world.set_node("n1", availability="drain")
    world.turn(("orchestrator",))
    assert len(world.runnable("web")) == 2
    assert all(not row.private.relieves for row in world.tasks("web"))


def test_a_drain_says_where_start_first_cannot_be() -> None:
    """A host-mode port: the task leaves before its replacement runs, which tells why."""
    world = World()
    for node in ("n0", "n1"):
        world.node(node)
    port = PortConfig(TargetPort=80, PublishedPort=80, Protocol="tcp", PublishMode="host")
    world.service("web", start_first(1, ports=(port,)))
    world.run()
    world.set_node(where(world)[0], availability="drain")
    world.run()
    (task,) = world.running("web")
    assert task.private.stop_first == "host-mode port 80 can be held by one task only"


def test_a_drained_task_stays_until_there_is_a_place_for_it() -> None:
    """Nothing is stopped while nothing else can run; the place that comes up is taken."""
    world = World()
    world.node("n0")
    world.service("web", start_first(1))
    world.run()
    world.set_node("n0", availability="drain")
    world.sleep(60 * MINUTE)
    assert where(world) == ["n0"]
    waiting = the_relief(world)
    assert waiting.api.Status.Err == "no suitable node (1 node not available for new tasks)"
    world.node("n1")
    world.run()
    assert where(world) == ["n1"]
    assert len(world.runnable("web")) == 1


def test_a_drain_that_is_called_off_leaves_the_task_alone() -> None:
    """A node that is active again keeps what it has; the relief that found no place goes."""
    world = World()
    world.node("n0")
    world.service("web", start_first(1))
    world.run()
    (task,) = world.running("web")
    world.set_node("n0", availability="drain")
    world.run()
    world.set_node("n0", availability="active")
    world.sleep(10 * MINUTE)
    assert len(world.runnable("web")) == len(world.running("web")) == 1
    assert world.running("web")[0].api.NodeID == "n0"
    assert world.wishes() == []
    assert world.task(task.api.ID).api.NodeID == "n0"


def test_a_relief_that_fails_is_tried_again_after_the_delay() -> None:
    """The drained task runs on meanwhile, and a broken image does not make a tight loop."""
    world = World()
    world.node("n0")
    policy = RestartPolicy(Condition="any", Delay=10 * SECOND)
    world.service("web", start_first(1, task=TaskSpec(RestartPolicy=policy)))
    world.run()
    world.set_node("n0", availability="drain")
    world.node("n1")
    world.cut.add("n1")
    world.run()
    for wait in (10, 20, 40):
        relief = the_relief(world)
        assert where(world) == ["n0"]
        world.end(relief, TaskState.REJECTED)
        world.sleep(wait * SECOND - 1)
        assert the_relief(world).api.DesiredState is TaskState.READY
        world.sleep(1)
        assert the_relief(world).api.DesiredState is TaskState.RUNNING
    assert len(world.tasks("web")) <= 5
    world.cut.clear()
    world.sleep(MINUTE)
    assert where(world) == ["n1"]
    assert len(world.runnable("web")) == 1


@pytest.mark.parametrize("delay", [None, 0, 10 * MINUTE])
def test_reliefs_that_fail_again_and_again_back_off(delay: int | None) -> None:
    """Up to five minutes, or what the user said if that is more; also where he said no delay."""
    world = World(history=50)
    world.node("n0")
    policy = TaskSpec(RestartPolicy=RestartPolicy(Condition="any", Delay=delay))
    world.service("web", start_first(1, task=policy))
    world.run()
    world.bad.add("nginx")
    world.node("n1")
    world.set_node("n0", availability="drain")
    world.sleep(2 * 60 * MINUTE)
    assert where(world) == ["n0"]
    made = [row.api.CreatedAt for row in world.tasks("web") if row.private.relieves]
    gaps = [later - earlier for earlier, later in pairwise(made)]
    longest = max(delay or 0, 5 * MINUTE)
    assert gaps == sorted(gaps)
    assert gaps[-1] == longest
    world.bad.clear()
    world.sleep(longest)
    assert where(world) == ["n1"]


def test_a_new_spec_begins_without_the_old_ones_delay() -> None:
    """Who mends what failed does not wait five minutes for it."""
    world = World()
    world.node("n0")
    world.service("web", start_first(1))
    world.run()
    world.bad.add("nginx")
    world.node("n1")
    world.set_node("n0", availability="drain")
    world.sleep(60 * MINUTE)
    world.update("web", start_first(1, image="nginx:2"))
    world.run()
    assert where(world) == ["n1"]


@pytest.mark.parametrize(("parallelism", "most"), [(1, 1), (2, 2), (0, 6)])
def test_as_many_reliefs_at_a_time_as_an_update_replaces(parallelism: int, most: int) -> None:
    """A drain does not double a service's load at once; it goes on by itself until it is over."""
    world = World()
    world.node("n0")
    update = UpdateConfig(Parallelism=parallelism, Order="start-first")
    world.service("web", spec(replicas=6, update=update))
    world.run()
    world.node("n1")
    world.set_node("n0", availability="drain")
    seen = 0
    for _ in range(60):
        world.turn()
        world.agents()
        waiting = [
            row
            for row in world.runnable("web")
            if row.private.relieves and row.api.Status.State < TaskState.RUNNING
        ]
        seen = max(seen, len(waiting))
        assert len(world.running("web")) >= 6
    world.run()
    assert seen == most
    assert where(world) == ["n1"] * 6


def test_a_relief_that_fails_gives_the_others_their_turn() -> None:
    """One replica that does not start elsewhere does not hold up all of the drain."""
    world = World()
    world.node("n0")
    world.service("web", start_first(3))
    world.run()
    world.node("n1")
    world.set_node("n0", availability="drain")
    for _ in range(200):
        busy = world.turn()
        for row in world.runnable("web"):
            if row.private.relieves and row.api.Slot == 1 and not row.api.Status.Err:
                world.end(row)
                busy = True
        if not busy and not world.agents():
            world.now += SECOND
    assert where(world) == ["n0", "n1", "n1"]


def test_another_order_lets_go_of_what_a_drain_waits_for() -> None:
    """Who would rather lose the replica than wait says stop-first, and the drain ends."""
    world = World()
    world.node("n0")
    world.service("web", start_first(2))
    world.run()
    world.set_node("n0", availability="drain")
    world.run()
    assert where(world) == ["n0", "n0"]
    world.update("web", spec(replicas=2, update=UpdateConfig(Parallelism=1)))
    world.run()
    assert where(world) == []
    world.node("n1")
    world.run()
    assert where(world) == ["n1", "n1"]


def test_an_update_during_a_drain_reaches_the_relief() -> None:
    """A relief of the old spec is not worth waiting for; the next one has the new spec."""
    world = World()
    world.node("n0")
    world.service("web", start_first(1))
    world.run()
    world.set_node("n0", availability="drain")
    world.run()
    world.update("web", start_first(1, image="nginx:2"))
    world.run()
    assert where(world) == ["n0"]
    world.node("n1")
    world.run()
    (task,) = world.running("web")
    assert task.api.Spec.ContainerSpec is not None
    assert (task.api.NodeID, task.api.Spec.ContainerSpec.Image) == ("n1", "nginx:2")


def test_reliefs_that_fail_count_for_the_update() -> None:
    """Each once, as any replacement that fails; so a broken image is found out in a drain, too."""
    update = UpdateConfig(Parallelism=1, Order="start-first", MaxFailureRatio=0.5)
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2, update=update))
    world.run()
    world.now += MINUTE
    world.node("n1")
    world.bad.add("nginx:2")
    world.set_node("n0", availability="drain")
    world.update("web", spec(replicas=2, update=update, image="nginx:2"))
    world.run()
    service = world.view.service("web")
    assert service is not None
    assert service.private.rollout is not None
    assert service.private.rollout.failures == 1
    world.sleep(MINUTE)
    service = world.view.service("web")
    assert service is not None
    assert service.api.UpdateStatus is not None
    assert service.api.UpdateStatus.State == "paused"
    assert where(world) == ["n0", "n0"]


def test_a_drained_node_that_dies_waits_for_nobody() -> None:
    """When the task to be relieved is lost, its relief is simply the slot's task."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", start_first(2))
    world.run()
    world.set_node("n1", availability="drain")
    world.turn(("orchestrator",))
    world.set_node("n1", state="down")
    world.run()
    assert where(world) == ["n0", "n0"]
    assert len(world.runnable("web")) == 2


def test_a_task_that_may_not_be_restarted_is_only_stopped() -> None:
    """Restart condition none: a drain ends it, and nothing takes its place."""
    world = World()
    world.node("n0")
    world.node("n1")
    policy = TaskSpec(RestartPolicy=RestartPolicy(Condition="none"))
    world.service("web", start_first(2, task=policy))
    world.run()
    world.set_node("n1", availability="drain")
    world.run()
    assert where(world) == ["n0"]
    assert len(world.runnable("web")) == 1
