"""Restarts: whether, how long to wait, how often, and that all of it is data."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import HOUR, MINUTE, SECOND, Time
from swarmctl.core.model.change import Update
from swarmctl.core.model.spec import RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec


def running(replicas: int = 1, **policy: object) -> World:
    """A service that has run for a second, with that restart policy (none given: the default)."""
    world = World()
    world.node("n0")
    chosen = RestartPolicy(**policy) if policy else None  # type: ignore[arg-type]
    world.service("web", spec(replicas=replicas, task=TaskSpec(RestartPolicy=chosen)))
    world.run()
    world.now += SECOND
    return world


def crash(world: World, slot: int = 1, state: TaskState = TaskState.FAILED) -> None:
    world.end(world.in_slot("web", slot), state)
    world.run()


@pytest.mark.parametrize(
    ("condition", "state", "restarts"),
    [
        ("", TaskState.COMPLETE, True),
        ("any", TaskState.COMPLETE, True),
        ("any", TaskState.FAILED, True),
        ("on-failure", TaskState.COMPLETE, False),
        ("on-failure", TaskState.FAILED, True),
        ("on-failure", TaskState.REJECTED, True),
        ("none", TaskState.FAILED, False),
        ("none", TaskState.COMPLETE, False),
    ],
)
def test_the_condition_decides(condition: str, state: TaskState, restarts: bool) -> None:
    """A successor comes after every end, after bad ends, or never, as the condition says."""
    world = running(Condition=condition)
    crash(world, state=state)
    world.sleep(60 * SECOND)
    assert len(world.running("web")) == (1 if restarts else 0)
    assert len(world.tasks("web")) == (2 if restarts else 1)


def test_the_first_crash_after_a_long_run_costs_no_delay() -> None:
    """A task that had run for the default delay is replaced at once when the user set none."""
    world = running()
    world.now += 4 * SECOND
    crash(world)
    assert len(world.running("web")) == 1


def test_the_replacement_after_a_long_run_is_created_to_run() -> None:
    """Such a successor needs no promotion: it is wished RUNNING from the start."""
    world = running()
    world.now += 10 * SECOND
    world.end(world.in_slot("web"))
    world.turn(("orchestrator",))
    assert world.in_slot("web").api.DesiredState is TaskState.RUNNING


def test_a_crash_loop_waits_five_seconds_each_time() -> None:
    """Tasks that end before the default delay is over are replaced five seconds apart."""
    world = running()
    starts = []
    for _ in range(4):
        crash(world)
        began = world.now
        assert world.running("web") == []
        world.sleep(5 * SECOND - 1)
        assert world.running("web") == []
        world.sleep(1)
        assert len(world.running("web")) == 1
        starts.append(world.now - began)
    assert starts == [5 * SECOND] * 4


def test_a_delay_the_user_set_always_holds() -> None:
    """A restart delay in the spec is kept even after a long run."""
    world = running(Delay=3 * SECOND)
    world.now += HOUR
    crash(world)
    world.sleep(3 * SECOND - 1)
    assert world.running("web") == []
    world.sleep(1)
    assert len(world.running("web")) == 1


def test_a_delay_of_zero_means_at_once() -> None:
    """Delay 0 in the spec replaces even a crash loop's tasks at once."""
    world = running(Delay=0)
    for _ in range(3):
        crash(world)
        assert len(world.running("web")) == 1


def test_a_waiting_task_is_prepared_meanwhile() -> None:
    """During its delay a successor is already placed and prepared."""
    world = running()
    crash(world)
    assert world.in_slot("web").api.Status.State is TaskState.READY


def test_an_image_that_cannot_be_pulled_is_tried_once_a_delay() -> None:
    """A task that is rejected during its delay is not followed by another before that is over."""
    world = running()
    crash(world)
    first = world.in_slot("web")
    world.end(first, TaskState.REJECTED)
    world.run()
    assert world.runnable("web") == [world.task(first.api.ID)]
    world.sleep(5 * SECOND)
    assert world.in_slot("web").api.ID != first.api.ID
    assert world.task(first.api.ID).api.DesiredState is TaskState.SHUTDOWN


# --- attempts ------------------------------------------------------------------------------------


def crash_until_it_stays_down(world: World, limit: int = 10) -> int:
    """Crash slot 1 until nothing takes its place; return how many restarts there were."""
    for count in range(limit):
        crash(world)
        world.sleep(SECOND)
        if not world.running("web"):
            return count
    raise AssertionError("never stayed down")


def test_attempts_are_limited_for_each_slot() -> None:
    """A slot is restarted so many times and no more; other slots have their own budget."""
    world = running(replicas=2, Delay=0, MaxAttempts=2)
    assert [len(world.running("web")) for _ in range(3) if crash(world) is None] == [2, 2, 1]
    crash(world, slot=2)
    assert len(world.running("web")) == 1


def test_a_settled_slot_is_not_filled_again() -> None:
    """A slot whose budget is used up stays taken: no new task sneaks in, under any leader."""
    world = running(Delay=0, MaxAttempts=1)
    crash_until_it_stays_down(world)
    world.lead()
    world.sleep(HOUR)
    assert world.runnable("web") == []


def test_a_scale_does_not_fill_a_settled_slot() -> None:
    """More replicas are more slots: one that used up its budget stays so, whoever else restarts."""
    world = running(2, Condition="any", Delay=0, MaxAttempts=1)
    crash(world)
    crash(world)
    world.scale("web", 3)
    world.run()
    crash(world, slot=2)
    world.sleep(HOUR)
    assert [row.api.Slot for row in world.running("web")] == [2, 3]
    world.lead()
    world.sleep(HOUR)
    assert [row.api.Slot for row in world.running("web")] == [2, 3]


def test_counters_of_slots_that_went_go_with_them() -> None:
    """What a service remembers of restarts is no longer than its list of slots."""
    world = running(3, Condition="any", Delay=0, MaxAttempts=2)
    for slot in (1, 2, 3):
        crash(world, slot=slot)
    world.scale("web", 1)
    world.run()
    kept = world.in_slot("web", world.runnable("web")[0].api.Slot)
    crash(world, slot=kept.api.Slot)
    service = world.view.service("web")
    assert service is not None
    assert list(service.private.restarts) == [kept.place]


@pytest.mark.parametrize(
    ("policy", "tries"),
    [
        (RestartPolicy(Condition="any", Delay=SECOND, MaxAttempts=2), 3),
        (RestartPolicy(Condition="none", Delay=SECOND), 1),
    ],
)
def test_what_is_started_beside_the_old_task_has_a_budget_too(
    policy: RestartPolicy, tries: int
) -> None:
    """A start-first replacement is tried as often as its policy says; then the old one stays.

    The update goes on without the slot, and ends. When the old task ends one more is tried, for
    else there were none.
    """
    world = World()
    world.bad.add("bad")
    world.node("n0")
    update = UpdateConfig(Order="start-first", FailureAction="continue")
    task = TaskSpec(RestartPolicy=policy)
    world.service("web", spec(replicas=2, task=task, update=update))
    world.run()
    world.now += MINUTE
    world.update("web", spec(replicas=2, image="bad", task=task, update=update))
    made: dict[str, int] = {}
    for wait in (*[SECOND // 2] * 20, HOUR):
        world.sleep(wait)
        made.update((row.api.ID, row.api.Slot) for row in world.tasks("web"))
    assert sorted(made.values()) == [1] * (1 + tries) + [2] * (1 + tries)
    images = [row.api.Spec.ContainerSpec.Image for row in world.running("web")]  # type: ignore[union-attr]
    assert images == ["nginx", "nginx"]
    service = world.view.service("web")
    assert service is not None
    assert service.api.UpdateStatus is not None
    assert service.api.UpdateStatus.State == "completed"
    told = "2 former tasks go on: replacements failed as often as the restart policy allows"
    assert service.api.UpdateStatus.Message == f"update completed; {told}"
    assert world.wishes() == []
    world.end(world.in_slot("web", 1), TaskState.SHUTDOWN)
    world.sleep(HOUR)
    assert [row.api.Slot for row in world.runnable("web")] == [2]


def test_a_new_spec_gives_a_new_budget() -> None:
    """An update that changes tasks starts the counters anew."""
    world = running(Delay=0, MaxAttempts=1)
    crash_until_it_stays_down(world)
    policy = RestartPolicy(Delay=0, MaxAttempts=1)
    world.update("web", spec(image="nginx:2", task=TaskSpec(RestartPolicy=policy)))
    world.run()
    assert len(world.running("web")) == 1
    assert crash_until_it_stays_down(world) == 1


def test_history_limits_do_not_reset_the_counters() -> None:
    """The budget is the service's own data, not what is left of the history."""
    world = World(history=0)
    world.node("n0")
    policy = RestartPolicy(Delay=0, MaxAttempts=3)
    world.service("web", spec(task=TaskSpec(RestartPolicy=policy)))
    world.run()
    assert crash_until_it_stays_down(world) == 3


def test_a_window_re_opens_the_budget() -> None:
    """With a window only the restarts in the window before the end count."""
    world = running(Delay=0, MaxAttempts=2, Window=60 * SECOND)
    crash(world)
    crash(world)
    world.now += 61 * SECOND
    crash(world)
    assert len(world.running("web")) == 1
    world.now += SECOND
    crash(world)
    assert len(world.running("web")) == 1
    crash(world)
    assert world.running("web") == []


def test_a_completed_task_is_run_again_by_an_update() -> None:
    """A task that was done for good is replaced when the service changes."""
    world = running(Condition="none")
    crash(world, state=TaskState.COMPLETE)
    policy = RestartPolicy(Condition="none")
    world.update("web", spec(image="nginx:2", task=TaskSpec(RestartPolicy=policy)))
    world.run()
    assert [row.api.Spec.ContainerSpec.Image for row in world.running("web")] == ["nginx:2"]


# --- leaders -------------------------------------------------------------------------------------


def test_a_new_leader_goes_on_in_mid_delay() -> None:
    """A delay counts from when it began, whoever leads when it ends."""
    world = running()
    crash(world)
    world.sleep(3 * SECOND)
    world.lead()
    world.sleep(2 * SECOND - 1)
    assert world.running("web") == []
    world.sleep(1)
    assert len(world.running("web")) == 1


@pytest.mark.parametrize("ahead", [2 * SECOND, HOUR, 24 * 365 * HOUR])
def test_a_leader_whose_clock_is_behind_waits_one_delay(ahead: int) -> None:
    """A delay stamped in the new leader's future lasts its own length from the takeover."""
    world = running()
    crash(world)
    world.now -= ahead
    world.lead()
    world.run()
    world.sleep(5 * SECOND - 1)
    assert world.running("web") == []
    world.sleep(1)
    assert len(world.running("web")) == 1


def test_failures_are_handed_on_for_five_minutes() -> None:
    """A slot's recent failures go from task to task, so they outlast the history that is kept."""
    world = World(history=1)
    world.node("n0")
    policy = RestartPolicy(Delay=0)
    world.service("web", spec(task=TaskSpec(RestartPolicy=policy)))
    world.run()
    for count in range(1, 8):
        crash(world)
        assert [one.node_id for one in world.in_slot("web").private.failures] == ["n0"] * count
    world.now += 301 * SECOND
    crash(world)
    assert len(world.in_slot("web").private.failures) == 1


def test_a_clean_end_is_no_failure() -> None:
    """Tasks that complete blame no node."""
    world = running(Delay=0)
    crash(world, state=TaskState.COMPLETE)
    assert world.in_slot("web").private.failures == ()


def test_started_at_is_stamped_once() -> None:
    """A later report of RUNNING does not move the time at which the task started."""
    world = running()
    task = world.in_slot("web")
    started = task.private.started_at
    world.end(task, TaskState.RUNNING)
    assert world.in_slot("web").private.applied_at > started
    assert world.in_slot("web").private.started_at == started


def test_a_start_in_the_future_is_corrected_once() -> None:
    """A start stamped by a clock that was ahead is brought to now, and then left alone."""
    world = running()
    task = world.in_slot("web")
    ahead = replace(task.private, started_at=world.now + HOUR)
    world.write(Update(row=replace(task, private=ahead)))
    world.run()
    assert world.in_slot("web").private.started_at == world.now
    assert Time(world.in_slot("web").api.CreatedAt) <= world.now
    assert world.wishes() == []
