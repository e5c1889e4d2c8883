"""Replicated services: how many tasks, in which slots, on which nodes they stay."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND, Driver
from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.spec import RestartPolicy, TaskSpec
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec


def cluster(nodes: int = 3, replicas: int = 3) -> World:
    """A service that runs on that many nodes."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    world.service("web", spec(replicas=replicas))
    world.run()
    return world


def test_a_service_becomes_running_tasks() -> None:
    """A new service gets its tasks in slots 1 to n, spread over the nodes, and they run."""
    world = cluster(nodes=3, replicas=5)
    tasks = world.running("web")
    assert [row.api.Slot for row in tasks] == [1, 2, 3, 4, 5]
    assert sorted(row.api.NodeID for row in tasks) == ["n0", "n0", "n1", "n1", "n2"]
    assert world.wishes() == []


def test_a_task_is_made_from_its_service() -> None:
    """A task carries spec, names, credentials and the cluster's log driver as they were."""
    world = World()
    row = world.view.cluster()
    assert row is not None
    defaults = replace(row.api.Spec.TaskDefaults, LogDriver=Driver(Name="journald"))
    settings = replace(row.api.Spec, TaskDefaults=defaults)
    world.write(Update(row=replace(row, api=replace(row.api, Spec=settings))))
    wanted = replace(spec(), Labels={"tier": "front"})
    service = world.service("web", wanted)
    world.write(Update(row=replace(service, private=replace(service.private, registry_auth="x"))))
    world.turn(("orchestrator",))
    (task,) = world.tasks("web")
    assert task.api.Spec == wanted.TaskTemplate
    assert task.api.Status.Message == "created"
    private = task.private
    assert (private.service_name, private.service_labels) == ("web", {"tier": "front"})
    assert private.registry_auth == "x"
    assert private.log_driver == Driver(Name="journald")
    assert private.spec_version == service.private.spec_index


@pytest.mark.parametrize(("replicas", "tasks"), [(None, 1), (0, 0), (1, 1)])
def test_replicas_default_to_one(replicas: int | None, tasks: int) -> None:
    """A service that names no number has one task; zero is a number."""
    world = World()
    world.service("web", spec(replicas=replicas))
    world.settle()
    assert len(world.tasks("web")) == tasks


def test_many_tasks_are_created_over_several_turns() -> None:
    """A service of 1,000 replicas gets all of them, no entry being larger than allowed."""
    world = World()
    world.service("web", spec(replicas=1_000))
    (decided,) = [len(world.decide("orchestrator", "web"))]
    assert decided == 400
    world.settle()
    assert sorted(row.api.Slot for row in world.tasks("web")) == list(range(1, 1_001))


def test_scaling_up_fills_the_lowest_free_slots() -> None:
    """New tasks take the lowest slot numbers that are free."""
    world = cluster(replicas=3)
    world.scale("web", 1)
    world.run()
    (left,) = world.running("web")
    world.scale("web", 4)
    world.run()
    assert [row.api.Slot for row in world.running("web")] == [1, 2, 3, 4]
    assert left.api.ID in {row.api.ID for row in world.running("web")}


def test_scaling_back_up_waits_for_what_still_stops() -> None:
    """A slot that is wanted again while its former task stops gets one that waits for that."""
    world = cluster(replicas=2)
    former = world.in_slot("web", 2)
    world.scale("web", 1)
    world.settle()
    world.scale("web", 2)
    world.settle()
    latter = world.in_slot("web", 2)
    assert latter.private.replaces == former.api.ID
    assert latter.api.DesiredState is TaskState.READY
    world.run()
    assert world.in_slot("web", 2).api.Status.State is TaskState.RUNNING


def test_scaling_down_prefers_tasks_without_a_node() -> None:
    """Unassigned tasks go first."""
    world = World()
    world.node("n0", availability="pause")
    world.service("web", spec(replicas=1))
    world.settle()
    world.set_node("n0", availability="active")
    world.run()
    world.set_node("n0", availability="pause")
    world.scale("web", 3)
    world.run()
    world.scale("web", 1)
    world.run()
    assert [row.api.Slot for row in world.runnable("web")] == [1]
    assert world.running("web")


def test_scaling_down_prefers_tasks_that_do_not_run_yet() -> None:
    """Of assigned tasks those that do not run go before those that do."""
    world = cluster(nodes=2, replicas=2)
    world.cut = {"n0", "n1"}
    world.scale("web", 4)
    world.settle()
    world.scale("web", 2)
    world.settle()
    assert [row.api.Slot for row in world.runnable("web")] == [1, 2]


def test_scaling_down_prefers_the_most_crowded_node() -> None:
    """Running tasks go from where there are most of them, so what stays is balanced."""
    world = cluster(nodes=1, replicas=4)
    world.node("n1")
    world.scale("web", 6)
    world.run()
    assert sorted(row.api.NodeID for row in world.running("web")) == ["n0"] * 4 + ["n1"] * 2
    world.scale("web", 4)
    world.run()
    assert sorted(row.api.NodeID for row in world.running("web")) == ["n0"] * 2 + ["n1"] * 2


def test_a_removed_service_takes_its_tasks_along() -> None:
    """Tasks of a removed service stop and vanish; a terminal one is never listed."""
    world = cluster(replicas=3)
    world.now += 10 * SECOND
    world.end(world.in_slot("web", 1))
    world.run()
    world.remove_service("web")
    world.turn()
    listed = world.tasks()
    assert {row.api.DesiredState for row in listed} == {TaskState.REMOVE}
    assert all(row.api.Status.State <= TaskState.RUNNING for row in listed)
    world.run()
    assert world.tasks() == []


def test_two_runnable_tasks_in_a_slot_become_one() -> None:
    """Should a slot ever hold two runnable tasks, the one that runs stays."""
    world = cluster(nodes=1, replicas=1)
    kept = world.in_slot("web")
    twin = replace(
        kept,
        api=replace(
            kept.api, ID="zz", NodeID="", Status=replace(kept.api.Status, State=TaskState.NEW)
        ),
    )
    world.write(Create(row=twin))
    world.run()
    assert [row.api.ID for row in world.runnable("web")] == [kept.api.ID]


def with_policy(**kwargs: object) -> TaskSpec:
    return TaskSpec(RestartPolicy=RestartPolicy(**kwargs))  # type: ignore[arg-type]


# --- nodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["unknown", "disconnected"])
def test_a_doubtful_node_keeps_its_tasks(state: str) -> None:
    """Tasks on an UNKNOWN or DISCONNECTED node stay where they are."""
    world = cluster()
    before = world.tasks()
    world.set_node("n1", state=state)
    world.run()
    assert [row.api for row in world.tasks()] == [row.api for row in before]


def test_a_lost_node_has_its_tasks_replaced_at_once() -> None:
    """Tasks of a node that is down run elsewhere, without a delay nobody asked for."""
    world = cluster()
    lost = next(row for row in world.tasks("web") if row.api.NodeID == "n1")
    world.cut.add("n1")
    world.set_node("n1", state="down")
    world.run()
    assert world.task(lost.api.ID).api.DesiredState is TaskState.SHUTDOWN
    assert len(world.running("web")) == 3
    assert "n1" not in {row.api.NodeID for row in world.running("web")}


def test_a_removed_node_has_its_tasks_replaced() -> None:
    """Tasks of a node that was removed from the cluster run elsewhere."""
    world = cluster()
    world.cut.add("n1")
    world.remove_node("n1")
    world.run()
    assert len(world.running("web")) == 3


def test_a_lost_node_that_returns_stops_its_old_tasks() -> None:
    """A task that was replaced while its node was away stops when the node is back."""
    world = cluster()
    lost = next(row for row in world.tasks("web") if row.api.NodeID == "n1")
    world.cut.add("n1")
    world.set_node("n1", state="down")
    world.run()
    world.cut.clear()
    world.set_node("n1", state="ready")
    world.run()
    assert world.task(lost.api.ID).api.Status.State is TaskState.SHUTDOWN
    assert len(world.running("web")) == 3


def test_a_delay_the_user_set_holds_for_a_lost_node() -> None:
    """With a restart delay in the spec, tasks of a lost node wait for it too."""
    world = World()
    world.node("n0")
    world.service("web", spec(task=with_policy(Delay=7 * SECOND)))
    world.run()
    world.node("n1")
    world.cut.add("n0")
    world.set_node("n0", state="down")
    world.run()
    assert world.in_slot("web").api.DesiredState is TaskState.READY
    world.sleep(7 * SECOND)
    assert [row.api.NodeID for row in world.running("web")] == ["n1"]


def test_a_drained_node_hands_over_in_order() -> None:
    """On drain the successor is prepared at once and starts when the old task has stopped."""
    world = cluster(nodes=1, replicas=1)
    world.node("n1")
    world.cut.add("n0")
    old = world.in_slot("web")
    world.set_node("n0", availability="drain")
    world.run()
    new = world.in_slot("web")
    assert (new.api.NodeID, new.api.DesiredState) == ("n1", TaskState.READY)
    assert (new.private.replaces, new.private.start_delay_ns) == (old.api.ID, 0)
    world.cut.clear()
    world.run()
    assert [row.api.NodeID for row in world.running("web")] == ["n1"]


def test_a_drain_ignores_the_users_delay() -> None:
    """Leaving a drained node costs no restart delay."""
    world = World()
    world.node("n0")
    world.service("web", spec(task=with_policy(Delay=3_600 * SECOND)))
    world.run()
    world.node("n1")
    world.set_node("n0", availability="drain")
    world.run()
    assert [row.api.NodeID for row in world.running("web")] == ["n1"]


def test_a_task_that_will_not_stop_holds_its_successor_for_a_minute() -> None:
    """A successor waits a minute for a task that does not stop, and no longer."""
    world = cluster(nodes=1, replicas=1)
    world.node("n1")
    world.cut.add("n0")
    world.set_node("n0", availability="drain")
    world.sleep(59 * SECOND)
    assert world.running("web") == []
    world.sleep(1 * SECOND)
    assert [row.api.NodeID for row in world.running("web")] == ["n1"]


def test_a_paused_node_keeps_its_tasks() -> None:
    """Pausing a node moves nothing, and it takes nothing new."""
    world = cluster(nodes=2, replicas=2)
    world.set_node("n0", availability="pause")
    world.scale("web", 4)
    world.run()
    assert sorted(row.api.NodeID for row in world.running("web")) == ["n0", "n1", "n1", "n1"]
