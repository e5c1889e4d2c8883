"""Updates and rollbacks: status, failures, orders, and what a new leader makes of all that.

Scenario 62 of swarm-behaviour.md section 12.6 has a test by each of its names.
"""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import MINUTE, SECOND, Platform
from swarmctl.core.model.change import Create, Delete, Kind, Ref
from swarmctl.core.model.objects import Secret, SecretRow, SecretSpec
from swarmctl.core.model.revision import MANUAL
from swarmctl.core.model.service import UpdateStatus
from swarmctl.core.model.spec import (
    GlobalService,
    Mount,
    Placement,
    PortConfig,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.task import TaskState
from swarmctl.core.orchestrator.waiting import overdue, told_message
from tests.core.pipeline.world import World, spec

STOP_FIRST = UpdateConfig(Parallelism=1)
START_FIRST = UpdateConfig(Parallelism=1, Order="start-first")
BACK = UpdateConfig(Parallelism=1, FailureAction="rollback")
HOST_PORT = (PortConfig(TargetPort=80, PublishedPort=80, Protocol="tcp", PublishMode="host"),)
MONITOR = 5 * SECOND


def running(replicas: int = 4, update: UpdateConfig | None = None, **more: object) -> World:
    """A service "web" of image v1 that has run for a while, on three nodes."""
    world = World()
    for number in range(3):
        world.node(f"n{number}")
    world.bad.add("bad")
    world.service("web", wanted("v1", replicas, update, **more))
    world.run()
    world.now += MINUTE
    return world


def wanted(
    image: str, replicas: int = 4, update: UpdateConfig | None = None, **more: object
) -> object:
    made = spec(replicas=replicas, image=image, update=update, ports=more.pop("ports", ()))
    return replace(made, **more)


def change(world: World, image: str, **changes: object) -> None:
    """Update the service to another image."""
    present = world.view.service("web").api.Spec
    container = replace(present.TaskTemplate.ContainerSpec, Image=image)
    template = replace(present.TaskTemplate, ContainerSpec=container)
    world.update("web", replace(present, TaskTemplate=template, **changes))


def status(world: World) -> UpdateStatus:
    found = world.view.service("web").api.UpdateStatus
    return found or UpdateStatus()


def images(world: World) -> Counter[str]:
    """Return how many tasks run of each image."""
    return Counter(row.api.Spec.ContainerSpec.Image for row in world.running("web"))


def image_of(world: World) -> str:
    return world.view.service("web").api.Spec.TaskTemplate.ContainerSpec.Image


def failed_of(world: World, image: str) -> list[str]:
    return [
        row.api.ID
        for row in world.tasks("web")
        if row.api.Spec.ContainerSpec.Image == image and row.api.Status.State is TaskState.FAILED
    ]


# --- the states, one after the other -------------------------------------------------------------


def test_an_update_is_under_way_then_completed() -> None:
    """Status tells that it began and when, and, a monitor period after the last task, its end."""
    world = running(2)
    assert world.view.service("web").api.UpdateStatus is None
    began = world.now
    change(world, "v2")
    world.run()
    assert images(world) == {"v2": 2}
    assert status(world) == UpdateStatus(
        State="updating", StartedAt=began, Message="update in progress"
    )
    world.sleep(MONITOR - 1)
    assert status(world).State == "updating"
    world.sleep(1)
    assert status(world) == UpdateStatus(
        State="completed", StartedAt=began, CompletedAt=world.now, Message="update completed"
    )
    assert world.wishes() == []


def test_a_failed_task_pauses_the_update() -> None:
    """The first failure stops an update for good; the tasks it did not reach run on."""
    world = running(4)
    began = world.now
    change(world, "bad")
    world.run()
    assert status(world) == UpdateStatus(
        State="paused",
        StartedAt=began,
        Message="update paused due to failure or early termination of task "
        f"{failed_of(world, 'bad')[0]}",
    )
    world.sleep(10 * MINUTE)
    assert images(world) == {"v1": 3}
    assert status(world).State == "paused"
    assert len({row.api.Slot for row in world.tasks("web")}) == 4


def test_a_failed_update_is_rolled_back() -> None:
    """Rollback gives the service its previous spec, and it none; all tasks run it in the end."""
    world = running(4, BACK)
    before = [row.api.ID for row in world.running("web")]
    began = world.now
    change(world, "bad")
    for _ in range(8):
        world.turn()
        world.agents()
        if status(world).State == "rollback_started":
            break
    service = world.view.service("web").api
    assert (image_of(world), service.PreviousSpec) == ("v1", None)
    assert service.UpdateStatus == UpdateStatus(
        State="rollback_started",
        StartedAt=began,
        Message="update rolled back due to failure or early termination of task "
        f"{failed_of(world, 'bad')[0]}",
    )
    world.sleep(MINUTE)
    assert status(world) == UpdateStatus(
        State="rollback_completed",
        StartedAt=began,
        CompletedAt=status(world).CompletedAt,
        Message="rollback completed",
    )
    assert images(world) == {"v1": 4}
    assert set(before[1:]) < {row.api.ID for row in world.running("web")}
    assert world.wishes() == []


def test_a_rollback_that_fails_pauses() -> None:
    """A rollback is never rolled back: its own failure pauses it, and says that it was one."""
    world = running(3, BACK)
    change(world, "bad")
    world.bad.add("v1")
    world.run()
    assert status(world).State == "rollback_paused"
    assert status(world).Message == (
        "rollback paused due to failure or early termination of task " + failed_of(world, "v1")[0]
    )
    assert images(world) == {"v1": 2}


def test_a_manual_rollback_swaps_the_specs() -> None:
    """It goes by the rollback settings, and says who asked for it."""
    rollback = UpdateConfig(Parallelism=0, Monitor=SECOND)
    world = running(3, RollbackConfig=rollback)
    change(world, "v2")
    world.sleep(MINUTE)
    began = world.now
    world.roll_back("web")
    world.settle()
    assert status(world) == UpdateStatus(State="rollback_started", StartedAt=began, Message=MANUAL)
    assert len(world.running("web")) == 0  # all at once
    world.run()
    assert images(world) == {"v1": 3}
    world.sleep(SECOND)
    assert (status(world).State, status(world).CompletedAt) == ("rollback_completed", world.now)
    previous = world.view.service("web").api.PreviousSpec
    assert previous.TaskTemplate.ContainerSpec.Image == "v2"


def test_a_rollback_with_nothing_to_replace_is_over_at_once() -> None:
    """Going back to what the tasks run already completes without a wait."""
    world = running(2)
    world.update("web", replace(world.view.service("web").api.Spec, Labels={"a": "b"}))
    world.run()
    assert world.view.service("web").api.UpdateStatus is None
    world.roll_back("web")
    world.run()
    assert status(world).State == "rollback_completed"


def test_a_secret_that_is_gone_keeps_a_rollback_from_beginning() -> None:
    """The update pauses instead, and its message names what is missing."""
    world = running(2, BACK)
    world.write(Create(row=SecretRow(api=Secret(ID="pw", Spec=SecretSpec(Name="pw")))))
    plain = world.view.service("web").api.Spec
    use = SecretReference(SecretID="pw", SecretName="pw")
    container = replace(plain.TaskTemplate.ContainerSpec, Secrets=(use,))
    template = replace(plain.TaskTemplate, ContainerSpec=container)
    world.update("web", replace(plain, TaskTemplate=template))
    world.sleep(MINUTE)
    bad = replace(plain.TaskTemplate.ContainerSpec, Image="bad")
    world.update("web", replace(plain, TaskTemplate=replace(plain.TaskTemplate, ContainerSpec=bad)))
    version = world.view.secret("pw").api.Version.Index
    world.write(Delete(ref=Ref(Kind.SECRET, "pw"), version=version))
    world.sleep(MINUTE)
    assert status(world).State == "paused"
    assert status(world).Message.endswith("; it cannot be rolled back: secret not found: pw")


# --- what counts as a failure --------------------------------------------------------------------


@pytest.mark.parametrize(("after", "state"), [(MONITOR, "paused"), (MONITOR + 1, "updating")])
def test_a_task_is_watched_for_the_monitor_period(after: int, state: str) -> None:
    """One that ends within the period after it started is a failure, a later one is none."""
    world = running(4, UpdateConfig(Parallelism=1, Delay=3 * SECOND))
    change(world, "v2")
    world.run()
    (first,) = (row for row in world.running("web") if image(row) == "v2")
    world.now += after
    world.end(first)
    world.turn()
    assert status(world).State == state


def image(row: object) -> str:
    return row.api.Spec.ContainerSpec.Image


def test_a_task_that_ends_well_too_soon_is_a_failure() -> None:
    """Early termination counts whatever the exit code."""
    world = running(2)
    change(world, "v2")
    world.run()
    world.end(world.in_slot("web", 1), TaskState.COMPLETE)
    world.run()
    assert status(world).State == "paused"


def test_a_task_of_the_old_spec_is_no_failure_of_the_new() -> None:
    """What was there before the update may crash without stopping it."""
    world = running(3, UpdateConfig(Parallelism=1, Delay=10 * SECOND))
    change(world, "v2")
    world.run()
    world.end(world.in_slot("web", 3))
    world.sleep(MINUTE)
    assert images(world) == {"v2": 3}
    assert status(world).State == "completed"


def test_as_many_failures_as_the_ratio_says_are_tolerated() -> None:
    """One failure in four slots is a ratio of 0.25; the next one is more, and pauses."""
    config = UpdateConfig(Parallelism=1, MaxFailureRatio=0.25)
    world = running(4, config)
    change(world, "v2")
    world.turn()
    world.turn()
    (new,) = (row for row in world.tasks("web") if image(row) == "v2")
    world.end(new)
    world.run()
    assert status(world).State == "updating"
    assert world.view.service("web").private.rollout.failures == 1
    world.sleep(6 * SECOND)
    assert images(world) == {"v2": 4}  # its successor ran, so the others followed
    world.end(world.in_slot("web", 2))
    world.run()
    assert status(world).State == "paused"


def test_one_failure_counts_once() -> None:
    """However long its restart delay, and whoever leads meanwhile."""
    config = UpdateConfig(Parallelism=1, MaxFailureRatio=0.25)
    policy = TaskSpec(RestartPolicy=RestartPolicy(Delay=20 * SECOND))
    world = running(4, config)
    template = replace(policy, ContainerSpec=spec(image="v2").TaskTemplate.ContainerSpec)
    world.update("web", replace(world.view.service("web").api.Spec, TaskTemplate=template))
    world.turn()
    world.turn()
    (new,) = (row for row in world.tasks("web") if image(row) == "v2")
    world.end(new)
    for _ in range(4):
        world.sleep(3 * SECOND)
        world.lead()
    assert world.view.service("web").private.rollout.failures == 1
    world.sleep(MINUTE)
    assert images(world) == {"v2": 4}
    assert status(world).State == "completed"


def test_a_crash_loop_in_one_slot_does_not_last_for_ever() -> None:
    """Every attempt counts, so an update that tolerates some failures ends all the same."""
    config = UpdateConfig(Parallelism=1, MaxFailureRatio=0.5)
    world = running(4, config)
    change(world, "bad")
    world.sleep(2 * MINUTE)
    assert status(world).State == "paused"
    assert images(world) == {"v1": 3}
    assert len(failed_of(world, "bad")) >= 3


def test_continue_goes_on_whatever_fails() -> None:
    """With that action no failure stops the update: it reaches every slot."""
    world = running(3, UpdateConfig(Parallelism=1, FailureAction="continue"))
    change(world, "bad")
    world.sleep(MINUTE)
    assert images(world) == {}
    assert {row.api.Spec.ContainerSpec.Image for row in world.runnable("web")} == {"bad"}
    assert status(world).State == "completed"


def test_a_lost_node_is_no_failure() -> None:
    """Tasks that go down with their node are replaced, and the update goes on."""
    world = running(3, UpdateConfig(Parallelism=1, Delay=2 * SECOND))
    change(world, "v2")
    world.run()
    (new,) = (row for row in world.running("web") if image(row) == "v2")
    world.set_node(new.api.NodeID, state="down")
    world.sleep(MINUTE)
    assert images(world) == {"v2": 3}
    assert status(world).State == "completed"


# --- orders --------------------------------------------------------------------------------------


def steps(world: World) -> list[int]:
    """Let the update run to rest; return how many replicas ran after each step."""
    seen = []
    for _ in range(200):
        busy = world.turn()
        seen.append(len({row.api.Slot for row in world.running("web")}))
        busy |= world.agents()
        seen.append(len({row.api.Slot for row in world.running("web")}))
        if not busy:
            return seen
    raise AssertionError("the update does not end")


@pytest.mark.parametrize("parallelism", [0, 1, 2, 3])
def test_start_first_never_has_fewer(parallelism: int) -> None:
    """With start-first all replicas run at every step, and at most parallelism more."""
    world = running(4, UpdateConfig(Parallelism=parallelism, Order="start-first"))
    change(world, "v2")
    most = 0
    for _ in range(60):
        world.turn()
        most = max(most, len(world.runnable("web")))
        assert len({row.api.Slot for row in world.running("web")}) == 4
        world.agents()
    assert images(world) == {"v2": 4}
    assert most == 4 + (parallelism or 4)


def test_start_first_waits_between_slots_too() -> None:
    """The delay counts from the moment a new task runs."""
    world = running(2, UpdateConfig(Parallelism=1, Order="start-first", Delay=10 * SECOND))
    change(world, "v2")
    world.run()
    assert images(world) == {"v1": 1, "v2": 1}
    world.sleep(10 * SECOND - 1)
    assert images(world) == {"v1": 1, "v2": 1}
    world.sleep(1)
    assert images(world) == {"v2": 2}


def test_the_old_task_stays_until_the_new_one_runs() -> None:
    """Prepared or starting is not enough: a health check may still be out."""
    world = running(1, START_FIRST)
    old = world.in_slot("web")
    change(world, "v2")
    world.settle()
    world.agents()
    world.settle()
    new = world.runnable("web")[-1]
    assert new.api.Status.State is TaskState.READY
    assert world.task(old.api.ID).api.DesiredState is TaskState.RUNNING
    world.run()
    assert world.task(old.api.ID).api.DesiredState is TaskState.SHUTDOWN
    assert images(world) == {"v2": 1}


def test_a_start_first_failure_leaves_the_old_task_alone() -> None:
    """While paused nothing is tried again; the replica runs as it did before."""
    world = running(2, START_FIRST)
    before = {row.api.ID for row in world.running("web")}
    change(world, "bad")
    world.sleep(5 * MINUTE)
    assert status(world).State == "paused"
    assert {row.api.ID for row in world.runnable("web")} == before
    assert len(failed_of(world, "bad")) == 1


def test_start_first_tries_again_after_the_restart_delay() -> None:
    """A tolerated failure is tried again, not faster than a crash loop may be."""
    config = UpdateConfig(Parallelism=1, Order="start-first", FailureAction="continue")
    world = running(1, config)
    old = world.in_slot("web")
    change(world, "bad")
    world.sleep(21 * SECOND)
    assert 3 <= len(failed_of(world, "bad")) <= 6
    assert world.task(old.api.ID).api.DesiredState is TaskState.RUNNING
    world.bad.clear()
    world.sleep(MINUTE)
    assert images(world) == {"bad": 1}
    assert world.task(old.api.ID).api.DesiredState is TaskState.SHUTDOWN
    assert status(world).State == "completed"


def test_a_failed_start_first_update_goes_back_without_a_gap() -> None:
    """Rolling back shuts the failed tasks down; the old ones never stopped."""
    world = running(3, replace(BACK, Order="start-first", Parallelism=2))
    before = {row.api.ID for row in world.running("web")}
    change(world, "bad")
    assert min(steps(world)) == 3
    world.sleep(MINUTE)
    assert {row.api.ID for row in world.running("web")} == before
    assert status(world).State == "rollback_completed"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ports": HOST_PORT}, "host-mode port 80 can be held by one task only"),
        (
            {"mount": "data-{{.Task.Slot}}"},
            "volume data-{{.Task.Slot}} mounted at /data has one writer only",
        ),
    ],
)
def test_start_first_falls_back_where_it_cannot_be(more: dict[str, object], reason: str) -> None:
    """Then tasks are replaced stop-first, one after the other, and the status says why."""
    mount = more.pop("mount", None)
    world = World()
    for number in range(3):
        world.node(f"n{number}")
    made = spec(replicas=3, image="v1", update=START_FIRST, **more)
    if mount:
        use = Mount(Type="volume", Source=mount, Target="/data")
        container = replace(made.TaskTemplate.ContainerSpec, Mounts=(use,))
        made = replace(made, TaskTemplate=replace(made.TaskTemplate, ContainerSpec=container))
    world.service("web", made)
    world.sleep(MINUTE)
    change(world, "v2")
    assert min(steps(world)) == 2
    assert images(world) == {"v2": 3}
    assert status(world).Message == f"update in progress, stop-first: {reason}"
    told = [told_message(row) for row in world.running("web")]
    assert told == [f"started, stop-first: {reason}"] * 3


def test_tasks_say_that_they_could_not_start_first_only_where_that_is_so() -> None:
    """Not new ones, not where stop-first is the order, and not what merely was restarted."""
    world = running(2, START_FIRST, ports=HOST_PORT)
    assert {row.private.stop_first for row in world.running("web")} == {""}
    world.end(world.in_slot("web"))
    world.sleep(MINUTE)
    assert {row.private.stop_first for row in world.running("web")} == {""}
    change(world, "v2", UpdateConfig=STOP_FIRST)
    world.sleep(MINUTE)
    assert images(world) == {"v2": 2}
    assert {row.private.stop_first for row in world.running("web")} == {""}
    change(world, "v3", UpdateConfig=START_FIRST)
    world.sleep(MINUTE)
    assert "" not in {row.private.stop_first for row in world.running("web")}


def test_lists_tell_at_once_why_a_replica_is_missing() -> None:
    """While the old task stops, its successor says for whom it waits and why it may not overlap."""
    world = running(1, START_FIRST, ports=HOST_PORT)
    old = world.in_slot("web")
    change(world, "v2")
    world.settle()
    told = overdue(world.view, world.in_slot("web"), world.now)
    assert told.startswith(
        f"waits for its predecessor {old.api.ID} on node host-{old.api.NodeID} to stop "
        "(stop-first: host-mode port 80 can be held by one task only), until "
    )


def test_the_next_task_is_prepared_while_the_old_one_stops() -> None:
    """Stop-first: when the old task is gone, its successor has only to start."""
    world = running(1, STOP_FIRST)
    old = world.in_slot("web")
    change(world, "v2")
    world.settle()
    new = world.in_slot("web")
    assert (new.private.replaces, new.api.DesiredState) == (old.api.ID, TaskState.READY)
    assert new.api.Status.State is TaskState.ASSIGNED


def test_slots_that_do_not_run_go_first() -> None:
    """A replica that is down anyway is replaced before one that runs."""
    world = running(4, STOP_FIRST)
    policy = RestartPolicy(Delay=10 * MINUTE)
    template = replace(world.view.service("web").api.Spec.TaskTemplate, RestartPolicy=policy)
    world.update("web", replace(world.view.service("web").api.Spec, TaskTemplate=template))
    world.sleep(MINUTE)
    world.end(world.in_slot("web", 4))
    world.run()
    assert len(world.running("web")) == 3
    change(world, "v2")
    assert min(steps(world)) == 3
    assert images(world) == {"v2": 4}


@pytest.mark.parametrize(("order", "floor"), [("stop-first", 2), ("start-first", 3)])
def test_a_service_on_every_node_rolls_node_by_node(order: str, floor: int) -> None:
    """The nodes are the slots: same orders, same floor, same status."""
    world = World()
    for number in range(3):
        world.node(f"n{number}")
    made = spec(image="v1", update=UpdateConfig(Parallelism=1, Order=order))
    world.service("web", replace(made, Mode=ServiceMode(Global=GlobalService())))
    world.sleep(MINUTE)
    change(world, "v2")
    seen = []
    for _ in range(60):
        world.turn()
        seen.append(len({row.api.NodeID for row in world.running("web")}))
        world.agents()
    assert min(seen) == floor
    assert images(world) == {"v2": 3}
    world.sleep(MONITOR)
    assert status(world).State == "completed"
    world.bad.add("v3")
    change(world, "v3", UpdateConfig=replace(BACK, Order=order))
    world.sleep(MINUTE)
    assert status(world).State == "rollback_completed"
    assert images(world) == {"v2": 3}
    assert world.wishes() == []


# --- updates that meet others --------------------------------------------------------------------


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_second_update_takes_over_in_the_middle(order: str) -> None:
    """It begins with the slots that the first one left unready, and reaches all."""
    world = running(4, UpdateConfig(Parallelism=1, Order=order))
    change(world, "v2")
    for _ in range(3):
        world.turn()
    change(world, "v3")
    assert min(steps(world)) >= (4 if order == "start-first" else 3)
    assert images(world) == {"v3": 4}
    world.sleep(MINUTE)
    assert status(world).State == "completed"


def test_a_scale_in_the_middle_goes_on_at_the_same_pace() -> None:
    """Scaling is another spec, and the update that it interrupts goes on with what is left."""
    world = running(4, UpdateConfig(Parallelism=1, Delay=10 * SECOND))
    change(world, "v2")
    world.run()
    world.scale("web", 5)
    world.run()
    assert images(world) == {"v1": 3, "v2": 2}
    world.sleep(10 * SECOND - 1)
    assert images(world) == {"v1": 3, "v2": 2}
    world.sleep(MINUTE)
    assert images(world) == {"v2": 5}
    assert status(world).State == "completed"


def test_a_rollback_in_the_middle_of_an_update() -> None:
    """Only what was replaced is replaced back."""
    world = running(4, UpdateConfig(Parallelism=1, Delay=10 * SECOND))
    change(world, "v2")
    world.run()
    kept = {row.api.ID for row in world.running("web") if image(row) == "v1"}
    world.roll_back("web")
    world.sleep(MINUTE)
    assert images(world) == {"v1": 4}
    assert kept < {row.api.ID for row in world.running("web")}
    assert status(world).State == "rollback_completed"


def test_going_back_to_an_older_revision() -> None:
    """Any of the kept specs can be had again, with its number of replicas."""
    world = running(2)
    for name in ("v2", "v3", "v4"):
        change(world, name)
        world.sleep(MINUTE)
    world.roll_back("web", 2)
    world.sleep(MINUTE)
    assert images(world) == {"v2": 2}
    assert world.view.service("web").private.revision == 5
    assert status(world).State == "rollback_completed"


# --- another leader in the middle ----------------------------------------------------------------


def stopping(world: World) -> None:
    world.cut.add(world.in_slot("web", 1).api.NodeID)
    change(world, "v2")
    world.settle()
    world.cut.clear()


def overlapping(world: World) -> None:
    change(world, "v2", UpdateConfig=START_FIRST)
    world.settle()
    world.agents()
    world.settle()
    assert len(world.runnable("web")) == 5


def watched(world: World) -> None:
    change(world, "v2", UpdateConfig=UpdateConfig(Parallelism=0))
    world.run()
    world.now += 2 * SECOND


def paused(world: World) -> None:
    change(world, "bad")
    world.run()
    assert status(world).State == "paused"


def going_back(world: World) -> None:
    change(world, "bad", UpdateConfig=BACK)
    for _ in range(20):
        world.turn()
        if status(world).State == "rollback_started":
            return
        world.agents()
    raise AssertionError


def stuck_back(world: World) -> None:
    world.bad.add("v1")
    change(world, "bad", UpdateConfig=BACK)
    world.sleep(MINUTE)
    assert status(world).State == "rollback_paused"


@pytest.mark.parametrize(
    ("until", "state", "images_then"),
    [
        (stopping, "completed", {"v2": 4}),
        (overlapping, "completed", {"v2": 4}),
        (watched, "completed", {"v2": 4}),
        (paused, "paused", {"v1": 3}),
        (going_back, "rollback_completed", {"v1": 4}),
        (stuck_back, "rollback_paused", {"v1": 3}),
    ],
)
@pytest.mark.parametrize("apart", [0, -60 * MINUTE, 60 * MINUTE])
def test_a_new_leader_goes_on_where_the_old_one_stopped(
    until: object, state: str, images_then: dict[str, int], apart: int
) -> None:
    """In each state, also with a clock an hour behind or ahead, it ends as it would have."""
    world = running(4)
    until(world)
    before = status(world).State
    world.now += apart
    world.lead()
    world.settle()
    assert status(world).State in (before, state)  # to a clock that is ahead the watch is over
    world.sleep(2 * MINUTE)
    assert status(world).State == state
    assert images(world) == images_then
    assert world.wishes() == []


# --- scenario 62 ---------------------------------------------------------------------------------


def test_an_identical_spec_is_no_work() -> None:
    """An update to the same spec makes no task and no status."""
    world = running(2)
    before = [row.api.ID for row in world.tasks("web")]
    world.update("web", world.view.service("web").api.Spec)
    world.sleep(MINUTE)
    assert [row.api.ID for row in world.tasks("web")] == before
    assert world.view.service("web").api.UpdateStatus is None


@pytest.mark.parametrize(
    "placement",
    [
        Placement(Platforms=(Platform(Architecture="amd64", OS="linux"),)),
        Placement(Constraints=("node.role==worker",)),
    ],
)
def test_a_placement_only_change_rolls_nothing(placement: Placement) -> None:
    """Where the tasks' nodes still suit, there is no update to tell of."""
    world = running(2)
    template = replace(world.view.service("web").api.Spec.TaskTemplate, Placement=placement)
    before = [row.api.ID for row in world.tasks("web")]
    world.update("web", replace(world.view.service("web").api.Spec, TaskTemplate=template))
    world.run()
    assert [row.api.ID for row in world.tasks("web")] == before
    assert world.view.service("web").api.UpdateStatus is None


def test_a_no_op_update_resumes_a_paused_one() -> None:
    """The same spec over again is the user's word to go on; it pauses again where it must."""
    world = running(3, replace(STOP_FIRST, Monitor=SECOND))
    change(world, "bad")
    world.sleep(MINUTE)
    assert status(world).State == "paused"
    world.update("web", world.view.service("web").api.Spec)
    world.sleep(MINUTE)
    assert status(world).State == "paused"
    assert images(world) == {"v1": 2}
    world.bad.clear()
    world.update("web", world.view.service("web").api.Spec)
    world.sleep(MINUTE)
    assert images(world) == {"bad": 3}
    assert status(world).State == "completed"


def test_a_better_spec_takes_a_paused_update_on() -> None:
    """Another spec is an update of its own, and begins with the slot that failed."""
    world = running(3)
    change(world, "bad")
    world.sleep(MINUTE)
    change(world, "v3")
    assert min(steps(world)) == 2
    world.sleep(MINUTE)
    assert images(world) == {"v3": 3}
    assert status(world).State == "completed"


def test_a_task_that_never_stops_hits_the_timeout() -> None:
    """After a minute its successor starts without it."""
    world = running(1)
    old = world.in_slot("web")
    world.cut.add(old.api.NodeID)
    change(world, "v2")
    world.sleep(MINUTE - 1)
    assert world.in_slot("web").api.DesiredState is TaskState.READY
    world.sleep(1)
    assert world.in_slot("web").api.DesiredState is TaskState.RUNNING


def test_a_task_that_never_runs_holds_its_update_up() -> None:
    """There is no timeout for starting: an image may take its time. A new update ends the wait."""
    world = running(3)
    world.cut.update({"n0", "n1", "n2"})
    change(world, "v2")
    world.sleep(30 * MINUTE)
    assert status(world).State == "updating"
    assert len(world.running("web")) == 2
    world.cut.clear()
    change(world, "v3")
    world.sleep(MINUTE)
    assert images(world) == {"v3": 3}


@pytest.mark.parametrize("leaders", [1, 2])
def test_a_rollback_runs_again_what_the_update_had_begun_and_no_more(leaders: int) -> None:
    """Of two slots whose task was done, start-first begins one: that one runs the old spec again.

    The other keeps what it has come to, whoever leads and however long it lasts.
    """
    once = TaskSpec(RestartPolicy=RestartPolicy(Condition="on-failure", Delay=0))
    update = UpdateConfig(Parallelism=1, Order="start-first", FailureAction="rollback")
    world = World()
    world.bad.add("bad")
    world.node("n0")
    world.service("web", spec(replicas=3, task=once, update=update))
    world.run()
    for slot in (2, 3):
        world.end(world.in_slot("web", slot), TaskState.COMPLETE)
    world.sleep(MINUTE)
    assert [row.api.Slot for row in world.running("web")] == [1]
    world.update("web", spec(replicas=3, image="bad", task=once, update=update))
    for _ in range(20):
        for _ in range(leaders - 1):
            world.lead()
        world.sleep(10 * SECOND)
    service = world.view.service("web")
    assert service is not None
    assert service.api.UpdateStatus is not None
    assert service.api.UpdateStatus.State == "rollback_completed"
    running = {row.api.Slot: row.api.Spec.ContainerSpec.Image for row in world.running("web")}  # type: ignore[union-attr]
    assert running == {1: "nginx", 2: "nginx"}
    assert world.wishes() == []
