"""Global services: one task on every node that suits, whatever becomes of the nodes.

Scenario 61 of swarmkit's tests (swarm-behaviour.md section 12.6), and what it left out.
"""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND, Platform
from swarmctl.core.model.change import Applied, ConflictKind, Kind, Ref
from swarmctl.core.model.spec import (
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.task import TaskState
from swarmctl.core.orchestrator import decide as orchestrator
from tests.core.pipeline.world import World, everywhere, spec


def cluster(nodes: int = 3, **task: object) -> World:
    """A global service that runs on that many nodes."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    world.service("agent", everywhere(task=TaskSpec(**task)))  # type: ignore[arg-type]
    world.run()
    return world


def where(world: World, service_id: str = "agent") -> list[str]:
    """The nodes on which the service runs, sorted; a node that runs two is named twice."""
    return sorted(row.api.NodeID for row in world.running(service_id))


def states(world: World, node_id: str) -> list[tuple[str, str]]:
    """Observed and desired states of the service's tasks on a node, oldest first."""
    return [
        (row.api.Status.State.value, row.api.DesiredState.value)
        for row in world.tasks("agent")
        if row.api.NodeID == node_id
    ]


# --- nodes ---------------------------------------------------------------------------------------


def test_every_node_gets_one_task() -> None:
    """A new global service gets a task made for each node: without a slot, its node fixed."""
    world = cluster()
    assert where(world) == ["n0", "n1", "n2"]
    for row in world.tasks("agent"):
        assert (row.api.Slot, row.place, row.private.by_node) == (0, row.api.NodeID, True)
    assert world.wishes() == []


def test_a_node_that_joins_gets_its_task() -> None:
    """A node that comes later is not missed, though nothing else changes."""
    world = cluster(nodes=1)
    world.node("n9")
    world.run()
    assert where(world) == ["n0", "n9"]


def test_a_new_leader_sees_nodes_that_came_before_it() -> None:
    """A node that came while nobody led gets its task from the next leader."""
    world = cluster(nodes=1)
    world.node("n9")
    world.lead()
    world.run()
    assert where(world) == ["n0", "n9"]


def test_every_service_is_asked_about_a_node_that_returns() -> None:
    """A node with tasks of some global services gets those of the others too (quirk 28)."""
    world = cluster(nodes=2)
    world.set_node("n1", availability="drain")
    world.service("other", everywhere("other"))
    world.run()
    world.set_node("n1", availability="active")
    world.run()
    assert where(world) == ["n0", "n1"]
    assert where(world, "other") == ["n0", "n1"]


def test_node_events_reach_global_services_and_no_others() -> None:
    """What is asked about a node's change: the global services, and those with tasks there."""
    world = cluster(nodes=1)
    world.service("web", spec(replicas=0))
    world.run()
    world.node("n9")
    assert list(orchestrator.keys(world.view, {Ref(Kind.NODE, "n9")})) == ["agent"]


@pytest.mark.parametrize("change", [{"availability": "drain"}, {"state": "down"}])
def test_a_node_that_is_drained_or_down_loses_its_task(change: dict[str, str]) -> None:
    """The task is shut down and has no successor anywhere; a node that returns gets another."""
    world = cluster(nodes=2)
    world.set_node("n1", **change)  # type: ignore[arg-type]
    world.run()
    assert where(world) == ["n0"]
    assert [desired for _, desired in states(world, "n1")] == ["shutdown"]
    world.set_node("n1", state="ready", availability="active")
    world.run()
    assert where(world) == ["n0", "n1"]


def test_a_node_that_returns_waits_for_its_former_task() -> None:
    """Where the former task may still run, the new one starts once it has stopped."""
    world = cluster(nodes=1)
    world.cut.add("n0")
    world.set_node("n0", state="down")
    world.run()
    world.set_node("n0", state="ready")
    world.run()
    former, latter = world.tasks("agent")
    assert latter.private.replaces == former.api.ID
    assert latter.api.DesiredState is TaskState.READY
    world.cut.clear()
    world.run()
    assert states(world, "n0") == [("shutdown", "shutdown"), ("running", "running")]


@pytest.mark.parametrize("state", ["unknown", "disconnected"])
def test_a_node_out_of_touch_keeps_its_task(state: str) -> None:
    """Scenario 57: a node that is not known to be down keeps what it has."""
    world = cluster(nodes=1)
    world.set_node("n0", state=state)
    world.run()
    assert where(world) == ["n0"]


def test_a_paused_node_keeps_its_task_and_gets_nothing() -> None:
    """A paused node keeps what runs, is not updated, and what fails there is not replaced."""
    world = cluster(nodes=2)
    world.set_node("n1", availability="pause")
    world.service("other", everywhere("other"))
    world.run()
    assert where(world, "other") == ["n0"]
    kept = [row.api.ID for row in world.running("agent") if row.api.NodeID == "n1"]
    world.update("agent", everywhere(image="agent:2"))
    world.sleep(10 * SECOND)
    (n0, n1) = sorted(world.running("agent"), key=lambda row: row.api.NodeID)
    assert n0.api.Spec.ContainerSpec.Image == "agent:2"  # type: ignore[union-attr]
    assert kept == [n1.api.ID]
    world.end(n1)
    world.sleep(10 * SECOND)
    assert where(world) == ["n0"]
    assert states(world, "n1") == [("failed", "shutdown")]
    world.set_node("n1", availability="active")
    world.run()
    assert where(world) == ["n0", "n1"]


def test_tasks_of_a_removed_node_go() -> None:
    """When a node is gone, so are its tasks, history included."""
    world = cluster(nodes=2)
    world.end(world.tasks("agent")[1])
    world.sleep(10 * SECOND)
    assert len(states(world, "n1")) == 2
    world.cut.add("n1")
    world.remove_node("n1")
    world.run()
    assert {row.api.NodeID for row in world.tasks("agent")} == {"n0"}


# --- which nodes suit ----------------------------------------------------------------------------


def test_labels_decide_which_nodes_are_wanted() -> None:
    """A node that begins to suit gets a task, one that ceases to suit loses it."""
    world = cluster(nodes=2, Placement=Placement(Constraints=("node.labels.zone == a",)))
    assert where(world) == []
    world.set_node("n0", labels={"zone": "a"})
    world.run()
    assert where(world) == ["n0"]
    world.set_node("n0", labels={"zone": "b"})
    world.set_node("n1", labels={"zone": "a"})
    world.run()
    assert where(world) == ["n1"]


def test_a_new_constraint_removes_and_its_loss_creates() -> None:
    """An update of the constraints takes effect on all nodes at once."""
    world = cluster(nodes=3)
    world.set_node("n1", labels={"zone": "a"})
    zone_a = TaskSpec(Placement=Placement(Constraints=("node.labels.zone == a",)))
    kept = [row.api.ID for row in world.running("agent") if row.api.NodeID == "n1"]
    world.update("agent", everywhere(task=zone_a))
    world.run()
    assert where(world) == ["n1"]
    assert [row.api.ID for row in world.running("agent")] == kept  # what still suits is not rolled
    world.update("agent", everywhere())
    world.run()
    assert where(world) == ["n0", "n1", "n2"]


def test_a_node_evicted_and_back_gets_a_task_whatever_the_policy() -> None:
    """Losing its node is not the end that a policy without restarts means."""
    constraints = Placement(Constraints=("node.labels.zone != b",))
    world = cluster(1, Placement=constraints, RestartPolicy=RestartPolicy(Condition="none"))
    world.set_node("n0", labels={"zone": "b"})
    world.turn(("enforcer",))
    world.run()
    assert where(world) == []
    world.set_node("n0", labels={"zone": "a"})
    world.run()
    assert where(world) == ["n0"]


def test_platforms_and_executors_decide_too() -> None:
    """No task waits for ever on a node whose platform or executor can never run it."""
    world = World()
    world.node("arm", arch="aarch64")
    world.node("bare", executor="process")
    world.node("good")
    amd64 = Placement(Platforms=(Platform(Architecture="amd64", OS="linux"),))
    world.service("agent", everywhere(task=TaskSpec(Placement=amd64)))
    world.service("daemon", everywhere("daemon", image="host"))
    world.run()
    assert [row.api.NodeID for row in world.tasks("agent")] == ["good"]
    assert [row.api.NodeID for row in world.tasks("daemon")] == ["bare"]


# --- restarts ------------------------------------------------------------------------------------


def test_a_failed_task_is_replaced_on_its_node() -> None:
    """A task that fails has a successor on the same node after the delay."""
    world = cluster(nodes=2, RestartPolicy=RestartPolicy(Delay=3 * SECOND))
    world.end(world.running("agent")[1])
    world.run()
    assert where(world) == ["n0"]
    world.sleep(3 * SECOND)
    assert where(world) == ["n0", "n1"]


def test_attempts_are_counted_per_node() -> None:
    """A node's budget is its own, and it survives a change of leaders and a drain."""
    world = cluster(nodes=2, RestartPolicy=RestartPolicy(Delay=0, MaxAttempts=1))
    for _ in range(2):
        (mine,) = (row for row in world.running("agent") if row.api.NodeID == "n1")
        world.end(mine)
        world.lead()
        world.sleep(SECOND)
    assert where(world) == ["n0"]
    world.set_node("n1", availability="drain")
    world.run()
    world.set_node("n1", availability="active")
    world.run()
    assert where(world) == ["n0"]
    world.update("agent", everywhere(image="agent:2"))
    world.sleep(10 * SECOND)
    assert where(world) == ["n0", "n1"]


def test_a_task_that_is_done_is_not_run_again() -> None:
    """With on-failure, a task that completed settles its node until the spec changes."""
    world = cluster(nodes=1, RestartPolicy=RestartPolicy(Condition="on-failure"))
    world.end(world.running("agent")[0], TaskState.COMPLETE)
    world.sleep(10 * SECOND)
    assert states(world, "n0") == [("complete", "shutdown")]
    world.set_node("n0", labels={"any": "thing"})
    world.lead()
    world.run()
    assert len(world.tasks("agent")) == 1


def test_history_is_trimmed_per_node() -> None:
    """A node keeps as many of a service's tasks as the cluster says."""
    world = World(history=2)
    world.node("n0")
    world.service("agent", everywhere(task=TaskSpec(RestartPolicy=RestartPolicy(Delay=0))))
    world.run()
    for _ in range(4):
        world.end(world.running("agent")[0])
        world.sleep(SECOND)
    assert len(world.tasks("agent")) == 2


# --- updates -------------------------------------------------------------------------------------


def test_an_update_rolls_over_the_nodes() -> None:
    """Nodes are updated so many at a time, each stop-first."""
    world = cluster(nodes=4)
    world.update("agent", everywhere(image="agent:2", update=UpdateConfig(Parallelism=1)))
    floor = 4
    for _ in range(60):
        world.turn()
        world.agents()
        floor = min(floor, len(world.running("agent")))
        assert max(Counter(row.api.NodeID for row in world.runnable("agent")).values()) == 1
    assert floor == 3
    world.sleep(30 * SECOND)
    images = {row.api.Spec.ContainerSpec.Image for row in world.running("agent")}  # type: ignore[union-attr]
    assert (images, where(world)) == ({"agent:2"}, ["n0", "n1", "n2", "n3"])


def test_a_node_that_comes_during_an_update_gets_the_new_spec() -> None:
    """New tasks are of the present spec, and the update goes on."""
    world = cluster(nodes=3)
    world.update("agent", everywhere(image="agent:2"))
    world.turn()
    world.node("n9")
    world.sleep(30 * SECOND)
    images = {row.api.Spec.ContainerSpec.Image for row in world.running("agent")}  # type: ignore[union-attr]
    assert (images, len(where(world))) == ({"agent:2"}, 4)


def test_a_removed_service_leaves_nothing() -> None:
    """All tasks go with their service."""
    world = cluster(nodes=3)
    world.remove_service("agent")
    world.run()
    assert world.tasks() == []


def test_many_nodes_take_several_turns() -> None:
    """A service on 500 nodes is made in turns that each fit an entry."""
    world = World()
    for number in range(500):
        world.node(f"n{number:03}")
    world.service("agent", everywhere())
    assert len(world.decide("orchestrator", "agent")) == 400
    world.run()
    assert len(where(world)) == 500


# --- two writers, and the scheduler --------------------------------------------------------------


def test_two_writers_make_one_task_for_a_node() -> None:
    """Whoever is second in the log makes nothing: the node's place is taken."""
    world = World()
    world.node("n0")
    world.service("agent", everywhere())
    mine = world.decide("orchestrator", "agent")
    yours = world.decide("orchestrator", "agent")
    first, second = world.apply(*mine, *yours)
    assert isinstance(first, Applied)
    assert second.kind is ConflictKind.HELD  # type: ignore[union-attr]
    world.run()
    assert where(world) == ["n0"]


def test_a_task_for_its_node_says_why_it_waits() -> None:
    """The scheduler only confirms the node, and tells what keeps it from doing so."""
    world = World()
    world.node("n0", cpus=1)
    world.node("n1", cpus=8)
    two = ResourceRequirements(Reservations=Resources(NanoCPUs=2 * 10**9))
    world.service("agent", everywhere(task=TaskSpec(Resources=two)))
    world.run()
    assert where(world) == ["n1"]
    (waiting,) = (row for row in world.tasks("agent") if row.api.NodeID == "n0")
    assert waiting.api.Status.State is TaskState.PENDING
    assert waiting.api.Status.Err == "no suitable node (insufficient resources on 1 node)"
    world.set_node("n0", resources=Resources(NanoCPUs=4 * 10**9, MemoryBytes=1 << 30))
    world.run()
    assert where(world) == ["n0", "n1"]


def test_tasks_for_their_nodes_are_placed_first() -> None:
    """Scenario 70: what can go to one node only does not lose it to what can go anywhere."""
    world = World()
    world.node("n0", cpus=1)
    one = TaskSpec(Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10**9)))
    world.service("a-first", spec("a-first", task=one))
    world.service("z-global", everywhere("z-global", task=one))
    world.run()
    assert where(world, "z-global") == ["n0"]
    assert where(world, "a-first") == []


def test_a_host_port_passes_from_task_to_task() -> None:
    """An update waits for the port that its predecessor still holds, and goes on."""
    ports = (PortConfig(TargetPort=80, PublishedPort=8080, Protocol="tcp", PublishMode="host"),)
    world = World()
    world.node("n0")
    world.service("agent", everywhere(ports=ports))
    world.run()
    world.update("agent", everywhere(ports=ports, image="agent:2"))
    world.sleep(10 * SECOND)
    (task,) = world.running("agent")
    assert task.api.Spec.ContainerSpec.Image == "agent:2"  # type: ignore[union-attr]


def test_a_duplicate_on_a_node_is_shut_down() -> None:
    """Should two tasks stand in one place, as no entry allows, the running one stays."""
    world = cluster(nodes=1)
    (kept,) = world.running("agent")
    other = replace(kept, api=replace(kept.api, ID="zz"))
    world.store.view.put(  # type: ignore[attr-defined]
        replace(other, api=replace(other.api, Status=replace(kept.api.Status, State=TaskState.NEW)))
    )
    world.lead()
    world.run()
    assert [row.api.ID for row in world.running("agent")] == [kept.api.ID]
