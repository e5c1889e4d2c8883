"""History: what is deleted when, and what never is."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import HOUR, SECOND
from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.cluster import OrchestrationConfig
from swarmctl.core.model.objects import TaskRow
from swarmctl.core.model.spec import RestartPolicy, TaskSpec
from swarmctl.core.model.task import Task, TaskState, TaskStatus
from tests.core.pipeline.world import World, everywhere, spec


def crashed(times: int, *, history: int | None = None, **policy: object) -> World:
    """A service whose only task has crashed so many times."""
    world = World(history=history)
    world.node("n0")
    chosen = RestartPolicy(Delay=0, **policy)  # type: ignore[arg-type]
    world.service("web", spec(task=TaskSpec(RestartPolicy=chosen)))
    world.run()
    for _ in range(times):
        world.now += SECOND
        world.end(world.in_slot("web"))
        world.run()
    return world


@pytest.mark.parametrize(("history", "kept"), [(None, 5), (5, 5), (2, 2), (1, 1), (0, 1), (-1, 9)])
def test_a_slot_keeps_so_much_history(history: int | None, kept: int) -> None:
    """A slot keeps as many tasks as the cluster says, the live one included; negative is all."""
    world = crashed(8, history=history)
    tasks = world.tasks("web")
    assert len(tasks) == kept
    assert tasks[-1].api.Status.State is TaskState.RUNNING


def test_the_oldest_go_first() -> None:
    """What is kept is the newest part of the history."""
    world = crashed(8, history=3)
    kept = [row.api.ID for row in world.tasks("web")]
    made = [f"t{number:05}" for number in range(1, 10)]
    assert kept == made[-3:]


def test_limited_attempts_are_kept_whole() -> None:
    """With a limit of attempts, all attempts stay to be seen."""
    world = crashed(7, history=2, MaxAttempts=7)
    assert len(world.tasks("web")) == 8


def test_a_slot_is_trimmed_by_the_policy_of_what_it_has() -> None:
    """A new spec changes no limit where none of its tasks is yet: nobody would be told of that."""
    world = World(history=1)
    world.node("n0")
    limited = TaskSpec(RestartPolicy=RestartPolicy(Delay=0, MaxAttempts=4))
    world.service("each", everywhere(task=limited))
    world.run()
    for _ in range(3):
        world.end(world.in_slot("each", 0))
        world.run()
    world.set_node("n0", availability="pause")
    world.update("each", everywhere(image="other"))
    world.run()
    assert len(world.tasks("each")) == 4
    assert world.wishes() == []
    world.set_node("n0", availability="active")
    world.sleep(HOUR)
    assert len(world.tasks("each")) == 1


def test_a_lower_limit_takes_effect_at_once() -> None:
    """New cluster settings trim what is there."""
    world = crashed(4)
    row = world.view.cluster()
    assert row is not None
    limit = OrchestrationConfig(TaskHistoryRetentionLimit=2)
    settings = replace(row.api.Spec, Orchestration=limit)
    world.write(Update(row=replace(row, api=replace(row.api, Spec=settings))))
    world.run()
    assert len(world.tasks("web")) == 2


def test_the_newest_task_of_a_settled_slot_stays() -> None:
    """A slot that is done is not forgotten, or it would be run again."""
    world = World(history=0)
    world.node("n0")
    world.service("web", spec(task=TaskSpec(RestartPolicy=RestartPolicy(Condition="none"))))
    world.run()
    world.end(world.in_slot("web"), TaskState.COMPLETE)
    world.run()
    (task,) = world.tasks("web")
    assert task.api.Status.State is TaskState.COMPLETE


def test_a_task_that_may_still_run_is_not_deleted() -> None:
    """A task on a node that is down stays listed until it is known to be over."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.run()
    world.cut.add("n0")
    world.set_node("n0", state="down")
    world.remove_service("web")
    world.run()
    (task,) = world.tasks()
    assert task.api.DesiredState is TaskState.REMOVE
    world.end(task, TaskState.ORPHANED)
    world.run()
    assert world.tasks() == []


def test_a_removed_node_releases_what_it_held() -> None:
    """A task that should go is deleted when its node is gone from the cluster."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.run()
    world.cut.add("n0")
    world.remove_service("web")
    world.run()
    assert len(world.tasks()) == 1
    world.remove_node("n0")
    world.run()
    assert world.tasks() == []


def test_tasks_that_were_never_placed_vanish() -> None:
    """An unassigned task that is not wanted any more is deleted at once."""
    world = World()
    world.service("web", spec(replicas=3))
    world.run()
    world.scale("web", 1)
    world.run()
    assert [row.api.Slot for row in world.tasks("web")] == [1]


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.ORPHANED, TaskState.REJECTED])
def test_a_terminal_task_without_a_service_is_deleted(state: TaskState) -> None:
    """What is over and belongs to no service is deleted, whatever was wished of it."""
    world = World()
    status = TaskStatus(State=state)
    task = Task(ID="x", NodeID="n0", Status=status, DesiredState=TaskState.RUNNING)
    world.write(Create(row=TaskRow(api=task)))
    orphan = replace(task, ID="y", ServiceID="gone", Slot=1)
    world.write(Create(row=TaskRow(api=orphan)))
    world.run()
    assert world.tasks() == []


def test_a_task_that_another_waits_for_stays() -> None:
    """A removed task is deleted when its slot's next one may start, and not before."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.run()
    former = world.in_slot("web")
    world.scale("web", 0)
    world.turn(("orchestrator",))
    world.scale("web", 1)
    world.turn(("orchestrator",))
    world.agents()
    world.turn(("reaper",))
    assert world.task(former.api.ID).api.Status.State is TaskState.SHUTDOWN
    world.run()
    (latter,) = world.tasks("web")
    assert latter.api.Status.State is TaskState.RUNNING
