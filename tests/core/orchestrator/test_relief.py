"""Start-first drains: replacements run before anything leaves (swarm-behaviour.md section 6.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.spec import PortConfig, RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.spec import ServiceSpec

START_FIRST = UpdateConfig(Parallelism=1, Order="start-first")


def start_first(replicas: int = 2, **kwargs: object) -> ServiceSpec:
    return spec(replicas=replicas, update=START_FIRST, **kwargs)  # type: ignore[arg-type]


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
    (waiting,) = (row for row in world.runnable("web") if row.private.relieves)
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
    for _ in range(3):
        (relief,) = (row for row in world.runnable("web") if row.private.relieves)
        assert where(world) == ["n0"]
        world.end(relief, TaskState.REJECTED)
        world.sleep(11 * SECOND)
    assert len(world.tasks("web")) <= 5
    world.cut.clear()
    world.sleep(MINUTE)
    assert where(world) == ["n1"]
    assert len(world.runnable("web")) == 1


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
