"""Jobs: runs, slots, completions, restarts, and what nodes do to them.

Scenario 65 of swarmkit's tests (swarm-behaviour.md section 12.6), its quirks 19 to 21, and the
rules that are ours: ``MaxConcurrent`` holds across runs, and a slot is done once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.change import Applied, ConflictKind
from swarmctl.core.model.spec import (
    Placement,
    ReplicatedJob,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    TaskSpec,
)
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, everywhere_once, job, spec

if TYPE_CHECKING:
    from swarmctl.core.model.objects import TaskRow

COMPLETE, FAILED = TaskState.COMPLETE, TaskState.FAILED


def cluster(total: int = 3, most: int | None = None, nodes: int = 2, **policy: object) -> World:
    """A replicated job whose first tasks run."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    world.service("batch", job(total, most, task=task_spec(**policy)))
    world.run()
    return world


def task_spec(**policy: object) -> TaskSpec:
    return TaskSpec(RestartPolicy=RestartPolicy(**{"Delay": 0, **policy}))  # type: ignore[arg-type]


def run_of(world: World, service_id: str = "batch") -> int:
    row = world.view.service(service_id)
    assert row is not None
    assert row.api.JobStatus is not None
    return row.api.JobStatus.JobIteration.Index


def present(world: World, service_id: str = "batch") -> list[TaskRow]:
    """The tasks of the present run."""
    now = run_of(world, service_id)
    return [row for row in world.tasks(service_id) if row.api.JobIteration.Index == now]  # type: ignore[union-attr]


def working(world: World, service_id: str = "batch") -> list[TaskRow]:
    """The tasks of any run that run, wanted or not."""
    return [row for row in world.tasks(service_id) if row.api.Status.State is TaskState.RUNNING]


def done(world: World, service_id: str = "batch") -> list[int]:
    """The slots that the present run has completed."""
    found = present(world, service_id)
    return sorted(row.api.Slot for row in found if row.api.Status.State is COMPLETE)


# --- slots and numbers ---------------------------------------------------------------------------


def test_a_job_starts_as_many_as_may_work_at_once() -> None:
    """Slots count from 0, tasks are to complete, and no more run than asked for."""
    world = cluster(total=5, most=2)
    assert [(row.api.Slot, row.api.DesiredState) for row in working(world)] == [
        (0, COMPLETE),
        (1, COMPLETE),
    ]
    assert world.wishes() == []


def test_a_job_of_twenty_five_at_a_time() -> None:
    """Each completion starts the next slot, until all are complete and nothing runs."""
    world = cluster(total=20, most=5)
    while working(world):
        assert len(working(world)) <= 5
        world.end(working(world)[0], COMPLETE)
        world.run()
    assert done(world) == list(range(20))
    assert len(world.tasks("batch")) == 20
    assert world.wishes() == []


def test_completions_stay_while_the_run_does() -> None:
    """The history limit does not forget progress, or it would be made again."""
    world = World(history=0)
    world.node("n0")
    world.service("batch", job(4, 1))
    for _ in range(4):
        world.run()
        world.end(working(world)[0], COMPLETE)
        world.lead()
    world.run()
    assert done(world) == [0, 1, 2, 3]
    assert world.wishes() == []


@pytest.mark.parametrize(("total", "most", "tasks"), [(0, 3, 0), (3, 0, 0), (2, 9, 2)])
def test_numbers_at_the_edge(total: int, most: int, tasks: int) -> None:
    """Nothing to do, nobody to do it, and more hands than work."""
    world = cluster(total=total, most=most)
    assert len(world.tasks("batch")) == tasks
    assert world.wishes() == []


def test_numbers_that_nobody_gave() -> None:
    """A job without numbers is one completion; without a total, as many as may work at once."""
    world = World()
    world.node("n0")
    one, three = ReplicatedJob(), ReplicatedJob(MaxConcurrent=3)
    world.service("a", spec("a", mode=ServiceMode(ReplicatedJob=one)))
    world.service("b", spec("b", mode=ServiceMode(ReplicatedJob=three)))
    world.run()
    assert (len(world.tasks("a")), len(world.tasks("b"))) == (1, 3)


def test_many_slots_take_several_turns() -> None:
    """A job of 1,000 at once is made in turns that each fit an entry."""
    world = World()
    world.service("batch", job(1_000))
    assert len(world.decide("orchestrator", "batch")) == 400
    world.settle()
    assert sorted(row.api.Slot for row in world.tasks("batch")) == list(range(1_000))


def test_two_writers_fill_a_slot_once() -> None:
    """Whoever is second in the log makes nothing, slot 0 and complete slots included."""
    world = World()
    world.node("n0")
    world.service("batch", job(1))
    mine = world.decide("orchestrator", "batch")
    yours = world.decide("orchestrator", "batch")
    first, second = world.apply(*mine, *yours)
    assert isinstance(first, Applied)
    assert second.kind is ConflictKind.HELD  # type: ignore[union-attr]
    world.run()
    world.end(working(world)[0], COMPLETE)
    (third,) = world.apply(*yours)
    assert third.kind is ConflictKind.HELD  # type: ignore[union-attr]


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["any", "on-failure"])
def test_a_failed_task_is_tried_again_in_its_slot(condition: str) -> None:
    """Both conditions restart what failed and let be what completed; it still counts as at work."""
    world = cluster(total=3, most=1, Condition=condition, Delay=2 * SECOND)
    world.end(working(world)[0], FAILED)
    world.run()
    assert working(world) == []
    assert {row.api.Slot for row in world.tasks("batch")} == {0}
    world.sleep(2 * SECOND)
    (again,) = working(world)
    assert (again.api.Slot, again.api.DesiredState) == (0, COMPLETE)
    world.end(again, COMPLETE)
    world.run()
    assert [row.api.Slot for row in working(world)] == [1]


def test_a_policy_without_restarts_ends_a_slot() -> None:
    """A slot that failed is not tried again, by nobody; the others go on."""
    world = cluster(total=3, most=1, Condition="none")
    world.end(working(world)[0], FAILED)
    world.lead()
    world.run()
    assert [row.api.Slot for row in working(world)] == [1]
    for _ in range(2):
        world.end(working(world)[0], COMPLETE)
        world.run()
    world.sleep(100 * SECOND)
    assert (working(world), done(world)) == ([], [1, 2])
    assert world.wishes() == []


def test_attempts_are_limited_per_slot_and_run() -> None:
    """A slot has its attempts; another run has them anew, even of the very same spec."""
    world = cluster(total=1, MaxAttempts=2)
    for run in range(2):
        for attempt in range(3):
            assert len(working(world)) == 1, f"attempt {attempt} of run {run}"
            world.end(working(world)[0], FAILED)
            world.sleep(SECOND)
        assert working(world) == []
        world.update("batch", job(1, task=task_spec(MaxAttempts=2)))
        world.run()


def test_failed_attempts_are_history() -> None:
    """What failed in the present run is trimmed like any history; progress stays."""
    world = World(history=2)
    world.node("n0")
    world.service("batch", job(1, task=task_spec()))
    world.run()
    for _ in range(5):
        world.end(working(world)[0], FAILED)
        world.sleep(SECOND)
    assert len(world.tasks("batch")) == 2
    world.end(working(world)[0], COMPLETE)
    world.run()
    assert done(world) == [0]


# --- runs ----------------------------------------------------------------------------------------


def test_an_update_starts_a_new_run() -> None:
    """Tasks of the run before are removed; what it completed is history, and counts no more."""
    world = cluster(total=3, most=1)
    world.end(working(world)[0], COMPLETE)
    world.run()
    world.update("batch", job(3, 1, image="batch:2"))
    world.run()
    assert run_of(world) == 1
    (task,) = working(world)
    assert (task.api.Slot, task.api.Spec.ContainerSpec.Image) == (0, "batch:2")  # type: ignore[union-attr]
    assert done(world) == []
    kept = [row for row in world.tasks("batch") if row.api.Status.State is COMPLETE]
    assert [row.api.JobIteration.Index for row in kept] == [0]  # type: ignore[union-attr]


def test_nothing_more_is_wished_of_what_failed_in_an_earlier_run() -> None:
    """A failed task whose run is over reads as settled, and is not tried again."""
    world = cluster(total=1, Delay=60 * SECOND)
    world.end(working(world)[0], FAILED)
    world.update("batch", job(1, image="batch:2"))
    world.run()
    failed = world.tasks("batch")[0]
    assert failed.api.DesiredState is TaskState.SHUTDOWN
    assert [row.api.Spec.ContainerSpec.Image for row in working(world)] == ["batch:2"]  # type: ignore[union-attr]


def test_runs_of_old_are_trimmed() -> None:
    """A job that is run every minute does not fill the tables (quirk 21)."""
    world = World(history=3)
    world.node("n0")
    world.service("batch", job(2))
    for _ in range(8):
        world.run()
        for row in working(world):
            world.end(row, COMPLETE)
        world.run()
        assert done(world) == [0, 1]
        world.update("batch", job(2))
    world.run()
    assert len(world.tasks("batch")) == 6
    world.lead()
    world.settle()
    assert len(world.tasks("batch")) == 6


def test_a_new_run_waits_for_the_old_to_stop() -> None:
    """No more work at a time than allowed, counting those of the run before that still stop."""
    world = cluster(total=4, most=2)
    world.cut.update(("n0", "n1"))
    world.update("batch", job(4, 2, image="batch:2"))
    world.run()
    assert present(world) == []
    assert {row.api.DesiredState for row in working(world)} == {TaskState.REMOVE}
    world.cut.clear()
    world.agents()
    world.turn()
    assert len(working(world)) <= 2
    world.sleep(2 * SECOND)
    assert [row.api.Spec.ContainerSpec.Image for row in working(world)] == ["batch:2"] * 2  # type: ignore[union-attr]


def test_a_new_run_does_not_wait_for_ever() -> None:
    """What does not stop within a minute, or is on a lost node, holds up nobody."""
    world = cluster(total=1)
    node_id = working(world)[0].api.NodeID
    world.cut.add(node_id)
    world.update("batch", job(1, image="batch:2"))
    world.sleep(59 * SECOND)
    assert present(world) == []
    world.sleep(2 * SECOND)
    assert len(present(world)) == 1

    other = cluster(total=1)
    node_id = working(other)[0].api.NodeID
    other.cut.add(node_id)
    other.set_node(node_id, state="down")
    other.update("batch", job(1, image="batch:2"))
    other.run()
    assert [row.api.Spec.ContainerSpec.Image for row in present(other)] == ["batch:2"]  # type: ignore[union-attr]


def test_a_stop_that_nobody_saw_is_counted_all_the_same() -> None:
    """An old task that stops and is deleted between two looks does not hold the run up."""
    world = cluster(total=1)
    world.update("batch", job(1, image="batch:2"))
    world.turn(("orchestrator",))
    world.agents()
    world.turn(("reaper",))
    assert world.tasks("batch") == []
    world.sleep(SECOND)
    assert [row.api.Spec.ContainerSpec.Image for row in working(world)] == ["batch:2"]  # type: ignore[union-attr]


def test_a_run_after_a_silence_waits_all_the_same() -> None:
    """The minute counts from when the old tasks were asked to stop, not from the update."""
    world = cluster(total=1)
    world.update("batch", job(1, image="batch:2"))
    world.now += 1_000 * SECOND
    world.turn()
    assert present(world) == []
    world.sleep(2 * SECOND)
    assert len(present(world)) == 1


def test_a_stop_stamped_in_the_future_holds_up_nobody() -> None:
    """A leader whose clock is behind that of the one before it does not wait till then."""
    world = cluster(total=1)
    world.cut.update(("n0", "n1"))
    world.update("batch", job(1, image="batch:2"))
    world.run()
    assert present(world) == []
    world.now -= 1_000 * SECOND
    world.lead()
    world.run()
    assert len(present(world)) == 1


def test_a_smaller_total_is_a_run_of_its_own() -> None:
    """Scaling a job is an update like any other."""
    world = cluster(total=5, most=5)
    world.update("batch", job(2))
    world.sleep(2 * SECOND)
    assert [row.api.Slot for row in working(world)] == [0, 1]


def test_a_removed_job_leaves_nothing() -> None:
    """All tasks go with their job, completed ones too."""
    world = cluster(total=3, most=2)
    world.end(working(world)[0], COMPLETE)
    world.run()
    world.remove_service("batch")
    world.run()
    assert world.tasks() == []


# --- nodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"availability": "drain"}, {"state": "down"}])
def test_work_moves_off_a_node_that_goes(change: dict[str, str]) -> None:
    """A slot whose node is drained or lost is worked on elsewhere, at once (quirk 20)."""
    world = cluster(total=1)
    gone = working(world)[0].api.NodeID
    if "state" in change:
        world.cut.add(gone)
    world.set_node(gone, **change)  # type: ignore[arg-type]
    world.sleep(6 * SECOND)
    (task,) = (row for row in working(world) if row.api.DesiredState is COMPLETE)
    assert task.api.NodeID != gone
    assert task.api.Slot == 0


def test_a_slot_is_done_once() -> None:
    """A task that completed on a lost node after all makes its successor superfluous."""
    world = cluster(total=1)
    (first,) = working(world)
    world.cut.add(first.api.NodeID)
    world.set_node(first.api.NodeID, state="down")
    world.run()
    world.set_node(first.api.NodeID, state="ready")
    world.end(first, COMPLETE)
    world.sleep(5 * SECOND)
    assert working(world) == []
    assert done(world) == [0]
    assert world.wishes() == []


def test_what_is_complete_holds_nothing() -> None:
    """Scenario 64: a complete task reserves nothing and is not evicted."""
    world = World()
    world.node("n0", cpus=1)
    one = TaskSpec(Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10**9)))
    world.service("batch", job(2, 1, task=one))
    world.run()
    world.end(working(world)[0], COMPLETE)
    world.run()
    assert len(working(world)) == 1
    world.end(working(world)[0], COMPLETE)
    world.set_node("n0", resources=Resources(NanoCPUs=1))
    world.run()
    assert done(world) == [0, 1]


# --- once on every node --------------------------------------------------------------------------


def sweep(nodes: int = 2, **task: object) -> World:
    """A global job whose tasks run."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}")
    world.service("sweep", everywhere_once(task=TaskSpec(**task)))  # type: ignore[arg-type]
    world.run()
    return world


def where(world: World) -> list[str]:
    return sorted(row.api.NodeID for row in working(world, "sweep"))


def swept(world: World) -> list[str]:
    found = present(world, "sweep")
    return sorted(row.api.NodeID for row in found if row.api.Status.State is COMPLETE)


def finish(world: World) -> None:
    for row in working(world, "sweep"):
        world.end(row, COMPLETE)
    world.run()


def test_a_global_job_runs_once_on_every_node() -> None:
    """Each node completes it once; one that joins later does too, though nothing else happens."""
    world = sweep()
    assert where(world) == ["n0", "n1"]
    finish(world)
    assert (where(world), swept(world)) == ([], ["n0", "n1"])
    world.node("n9")
    world.run()
    assert where(world) == ["n9"]
    finish(world)
    world.set_node("n0", availability="drain")
    world.set_node("n0", availability="active")
    world.lead()
    world.run()
    assert (where(world), swept(world)) == ([], ["n0", "n1", "n9"])
    assert world.wishes() == []


def test_a_global_job_runs_again_when_updated() -> None:
    """A new run takes every node again, and waits there for what still stops."""
    world = sweep()
    finish(world)
    world.update("sweep", everywhere_once(image="sweep:2"))
    world.run()
    assert where(world) == ["n0", "n1"]
    world.cut.add("n0")
    world.update("sweep", everywhere_once(image="sweep:3"))
    world.run()
    (waiting,) = (row for row in present(world, "sweep") if row.api.NodeID == "n0")
    assert waiting.api.DesiredState is TaskState.READY
    world.cut.clear()
    world.sleep(2 * SECOND)
    assert {row.api.Spec.ContainerSpec.Image for row in working(world, "sweep")} == {"sweep:3"}  # type: ignore[union-attr]


def test_a_node_that_was_away_does_it_when_it_is_back() -> None:
    """A drained node's task is shut down, not replaced, and run when the node takes tasks again."""
    world = sweep()
    world.set_node("n1", availability="drain")
    world.run()
    assert where(world) == ["n0"]
    assert len(present(world, "sweep")) == 2
    world.set_node("n1", availability="active")
    world.run()
    assert where(world) == ["n0", "n1"]


@pytest.mark.parametrize(
    "change", [{"availability": "pause"}, {"state": "unknown"}, {"state": "disconnected"}]
)
def test_a_global_job_is_given_to_nodes_that_answer(change: dict[str, str]) -> None:
    """A node that is paused or out of touch keeps what it has and is given nothing."""
    world = sweep()
    world.set_node("n1", **change)  # type: ignore[arg-type]
    world.run()
    assert where(world) == ["n0", "n1"]
    finish(world)
    world.update("sweep", everywhere_once(image="sweep:2"))
    world.run()
    assert where(world) == ["n0"]
    world.set_node("n1", state="ready", availability="active")
    world.run()
    assert where(world) == ["n0", "n1"]


def test_a_global_job_follows_its_constraints() -> None:
    """A node that begins to suit does the job."""
    zone_a = Placement(Constraints=("node.labels.zone == a",))
    world = sweep(Placement=zone_a)
    assert world.tasks("sweep") == []
    world.set_node("n1", labels={"zone": "a"})
    world.run()
    assert where(world) == ["n1"]


def test_a_failed_sweep_is_tried_again_on_its_node() -> None:
    """The restart policy works per node; without restarts a node that failed is let be."""
    world = sweep(nodes=1, RestartPolicy=RestartPolicy(Delay=0))
    world.end(working(world, "sweep")[0], FAILED)
    world.run()
    assert where(world) == ["n0"]
    never = TaskSpec(RestartPolicy=RestartPolicy(Condition="none"))
    world.update("sweep", everywhere_once(task=never))
    world.sleep(2 * SECOND)
    world.end(working(world, "sweep")[0], FAILED)
    world.lead()
    world.run()
    assert where(world) == []
    assert world.wishes() == []


def test_what_a_removed_node_completed_stays_for_the_run() -> None:
    """Progress outlives its node; other tasks of a node that is gone go, and all with the run."""
    world = sweep(nodes=3)
    world.end(next(row for row in working(world, "sweep") if row.api.NodeID == "n1"), COMPLETE)
    world.run()
    world.cut.add("n2")
    world.remove_node("n1")
    world.remove_node("n2")
    world.run()
    assert [row.api.NodeID for row in present(world, "sweep")] == ["n0", "n1"]
    world.update("sweep", everywhere_once(image="sweep:2"))
    world.sleep(2 * SECOND)
    assert {row.api.NodeID for row in world.tasks("sweep")} == {"n0"}


def test_a_job_and_a_service_may_have_the_same_number_of_slots() -> None:
    """A job's slot 0 is a slot, also once its task has a node, and not the place on that node."""
    world = World()
    world.node("n0")
    world.service("batch", job(2))
    world.run()
    assert [row.place for row in working(world)] == ["0", "1"]
    assert [row.api.Slot for row in world.view.tasks_in("batch", "0")] == [0]
    assert world.view.tasks_in("batch", "n0") == []
    first = working(world)[0]
    assert replace(first, api=replace(first.api, NodeID="")).place == "0"
