"""What a task waits for, why a slot has none, and how tasks failed: told as it is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from swarmctl.core.model.base import MINUTE, SECOND, Time
from swarmctl.core.model.change import Advance
from swarmctl.core.model.labels import DEPENDS_ON
from swarmctl.core.model.spec import HealthConfig, PortConfig, RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import ContainerStatus, TaskState, TaskStatus
from swarmctl.core.orchestrator.slots import slots_of
from swarmctl.core.orchestrator.waiting import (
    ended_for_good,
    failures_in_slot,
    last_failures,
    overdue,
    sentence,
    waits_of,
    why_it_stays,
)
from tests.core.pipeline.world import World, everywhere, everywhere_once, job, spec

if TYPE_CHECKING:
    from swarmctl.core.model.explain import Wait
    from swarmctl.core.model.objects import TaskRow


def waits(world: World, task: TaskRow) -> list[tuple[str, str]]:
    return [(one.For, one.Text) for one in waits_of(world.view, task, world.now)]


def moved(world: World, task: TaskRow, state: TaskState) -> TaskRow:
    """Have the task's agent report a state."""
    world.write(Advance(task_id=task.api.ID, status=TaskStatus(State=state)))
    return world.task(task.api.ID)


def test_a_new_task_waits_for_services_ports_and_addresses() -> None:
    """What the allocator said, or what start order says."""
    world = World()
    port = PortConfig(Protocol="tcp", TargetPort=80, PublishedPort=80, PublishMode="ingress")
    world.service("db", spec("db", replicas=0))
    world.service("web", replace(spec(), Labels={DEPENDS_ON: "db:healthy"}))
    world.turn(("orchestrator",))
    (task,) = world.tasks("web")
    assert waits(world, task) == [("service", "waits for db to be healthy")]
    world.service("plain", spec("plain", ports=(port,)))
    world.turn(("orchestrator",))
    (task,) = world.tasks("plain")
    assert waits(world, task) == [("allocation", "waits for its ports and addresses")]


def test_a_pending_task_waits_for_a_node() -> None:
    """In the scheduler's words."""
    world = World()
    world.service("web", spec())
    world.settle()
    (task,) = world.tasks("web")
    assert waits(world, task) == [("node", "no suitable node")]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (TaskState.ASSIGNED, ("agent", "waits for node host-n0 to take it")),
        (TaskState.PREPARING, ("image", "waits for node host-n0 to prepare image nginx")),
        (TaskState.READY, ("start", "waits for node host-n0 to start it")),
        (TaskState.STARTING, ("start", "waits for node host-n0 to start it")),
    ],
)
def test_an_assigned_task_waits_for_its_node(state: TaskState, expected: tuple[str, str]) -> None:
    """Step by step, by the node's name."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.settle()
    (task,) = world.tasks("web")
    if state > TaskState.ASSIGNED:
        task = moved(world, task, state)
    assert waits(world, task) == [expected]


def test_a_node_that_does_not_answer_is_said_to() -> None:
    """The task is not slow, its node is away."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.settle()
    world.set_node("n0", state="unknown")
    (task,) = world.tasks("web")
    assert waits(world, task) == [("agent", "waits for node host-n0, which is unknown")]


def test_a_starting_task_with_a_health_check_waits_for_that() -> None:
    """Until the first verdict it does not run."""
    world = World()
    world.node("n0")
    wanted = spec()
    container = replace(
        wanted.TaskTemplate.ContainerSpec,  # type: ignore[type-var]
        Healthcheck=HealthConfig(Test=("CMD", "true")),
    )
    world.service(
        "web", replace(wanted, TaskTemplate=replace(wanted.TaskTemplate, ContainerSpec=container))
    )
    world.settle()
    task = moved(world, world.tasks("web")[0], TaskState.STARTING)
    assert waits(world, task) == [("health", "waits for its health check to pass")]


def test_a_running_or_ended_task_waits_for_nothing() -> None:
    """There is nothing to tell."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.run()
    (task,) = world.running("web")
    assert waits(world, task) == []
    world.end(task)
    assert waits(world, world.task(task.api.ID)) == []


def test_a_restart_delay_is_told_with_its_end() -> None:
    """And the list of tasks tells it, too, in words that hold still."""
    world = World()
    world.node("n0")
    policy = TaskSpec(RestartPolicy=RestartPolicy(Condition="any", Delay=MINUTE))
    world.service("web", spec(task=policy))
    world.run()
    world.end(world.in_slot("web"))
    world.run()
    task = world.in_slot("web")
    (wait,) = waits_of(world.view, task, world.now)
    assert (wait.For, wait.Until) == ("delay", Time(task.api.CreatedAt + MINUTE))
    told = overdue(world.view, task, world.now)
    assert told == "waits out its restart delay, until 22:14:20 UTC at the latest"
    assert overdue(world.view, task, world.now + SECOND) == told
    world.sleep(MINUTE)
    assert waits(world, world.in_slot("web")) == []


def test_a_predecessor_that_does_not_stop_is_named() -> None:
    """Lists tell it once it takes long."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    world.run()
    (old,) = world.running("web")
    world.cut.add("n0")
    world.update("web", spec(image="nginx:2"))
    world.settle()
    task = world.in_slot("web")
    found: list[Wait] = [
        one for one in waits_of(world.view, task, world.now) if one.For == "predecessor"
    ]
    text = f"waits for its predecessor {old.api.ID} on node host-n0 to stop"
    assert [one.Text for one in found] == [text]
    assert found[0].Until == Time(task.api.CreatedAt + MINUTE)
    assert overdue(world.view, task, world.now) == ""
    assert overdue(world.view, task, world.now + 20 * SECOND).startswith(text)


def draining(replicas: int = 1) -> World:
    """A service with the order start-first on n0, which is drained, and no other node."""
    world = World()
    world.node("n0")
    update = UpdateConfig(Parallelism=1, Order="start-first")
    world.service("web", spec(replicas=replicas, update=update))
    world.run()
    world.set_node("n0", availability="drain")
    return world


def stays(world: World, slot: int = 1) -> list[str]:
    """Return what is told of the tasks of a slot that run: all of it, and what lists tell."""
    (task,) = (row for row in world.running("web") if row.api.Slot == slot)
    return [tell(world.view, task, world.now) for tell in (why_it_stays, overdue)]


def test_a_task_that_stays_on_a_drained_node_says_for_what() -> None:
    """A place, or its turn; lists tell it once something is wrong."""
    world = draining(2)
    world.settle()
    (relief,) = (row for row in world.runnable("web") if row.private.relieves)
    told = (
        f"stays on drained node host-n0 until its replacement {relief.api.ID} runs: "
        "no suitable node (1 node not available for new tasks)"
    )
    assert stays(world) == [told, told]
    turn = (
        "stays on drained node host-n0 until it is its turn to be replaced "
        "(the update parallelism is 1)"
    )
    assert stays(world, 2) == [turn, ""]
    world.node("n1")
    world.settle()
    told = f"stays on drained node host-n0 until its replacement {relief.api.ID} runs: "
    assert stays(world) == [f"{told}waits for node host-n1 to take it", ""]
    world.set_node("n0", availability="active")
    assert stays(world) == ["", ""]


def test_a_task_that_stays_because_its_replacements_fail_tells_how() -> None:
    """How many did, how the last one did, and when the next is tried."""
    world = draining()
    world.bad.add("nginx")
    world.node("n1")
    world.sleep(14 * SECOND)
    relief = world.runnable("web")[-1]
    told, listed = stays(world)
    assert listed == told
    assert told == (
        f"stays on drained node host-n0 until its replacement {relief.api.ID} runs: "
        "waits out its restart delay, until 22:13:35 UTC at the latest; 2 before it failed, the "
        "last: task: non-zero exit (1)"
    )


def test_a_sentence_of_several() -> None:
    """All that it waits for, in order."""
    world = World()
    world.node("n0")
    policy = TaskSpec(RestartPolicy=RestartPolicy(Condition="any", Delay=MINUTE))
    world.service("web", spec(task=policy))
    world.run()
    world.end(world.in_slot("web"))
    world.set_node("n0", availability="pause")
    world.settle()
    found = sentence(waits_of(world.view, world.in_slot("web"), world.now))
    assert found == (
        "no suitable node (1 node not available for new tasks); "
        "waits out its restart delay, until 22:14:20 UTC at the latest"
    )


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        (RestartPolicy(Condition="none"), TaskState.FAILED, "its restart condition is none"),
        (
            RestartPolicy(Condition="on-failure"),
            TaskState.COMPLETE,
            "its restart condition is on-failure",
        ),
        (
            RestartPolicy(Condition="any", Delay=0, MaxAttempts=1),
            TaskState.FAILED,
            "its 1 restart is used up",
        ),
    ],
)
def test_why_a_slot_stays_empty(policy: RestartPolicy, state: TaskState, expected: str) -> None:
    """A slot that ended for good says so; one that goes on says nothing."""
    world = World()
    world.node("n0")
    world.service("web", spec(task=TaskSpec(RestartPolicy=policy)))
    world.run()
    service = world.view.service("web")
    assert service is not None
    while world.running("web"):
        (slot,) = slots_of(world.view, service)
        assert ended_for_good(world.view, service, slot, world.now) == ""
        world.end(world.in_slot("web"), state)
        world.run()
        service = world.view.service("web")
        assert service is not None
    (slot,) = slots_of(world.view, service)
    told = ended_for_good(world.view, service, slot, world.now)
    assert told == f"web.1 ended ({state.value}) and is not started again: {expected}"


def told_of(world: World, service_id: str) -> list[str]:
    """Return what is said of the places of a service that ended for good."""
    service = world.view.service(service_id)
    assert service is not None
    told = [
        ended_for_good(world.view, service, one, world.now) for one in slots_of(world.view, service)
    ]
    return [text for text in told if text]


ONCE = TaskSpec(RestartPolicy=RestartPolicy(Condition="none"))
TWICE = TaskSpec(RestartPolicy=RestartPolicy(Condition="on-failure", Delay=0, MaxAttempts=1))


def test_a_global_service_says_on_which_nodes_it_ended_for_good() -> None:
    """Not where the node stopped it, or does not want it any more: that is no end of its own."""
    world = World()
    for node in ("n0", "n1", "n2"):
        world.node(node)
    world.service("agent", everywhere(task=ONCE))
    world.run()
    on = {row.api.NodeID: row for row in world.running("agent")}
    world.end(on["n0"])
    world.end(on["n1"])
    world.set_node("n1", availability="drain")
    world.set_node("n2", availability="drain")
    world.run()
    told = "agent on node host-n0 ended (failed) and is not started again: its restart condition is"
    assert told_of(world, "agent") == [f"{told} none"]
    world.set_node("n1", availability="active")
    world.set_node("n2", availability="active")
    world.run()
    assert [row.api.NodeID for row in world.running("agent")] == ["n2"]
    assert [text.split()[3] for text in told_of(world, "agent")] == ["host-n0", "host-n1"]


def test_a_job_says_which_of_its_slots_are_not_tried_again() -> None:
    """Those that completed are done, those that go on go on, and another run begins anew."""
    world = World()
    world.node("n0")
    world.service("batch", job(3, task=TWICE))
    world.run()
    world.end(in_slot_of_job(world, 0), TaskState.COMPLETE)
    for _ in range(2):
        assert told_of(world, "batch") == []
        world.end(in_slot_of_job(world, 1))
        world.run()
    told = "batch.1 ended (failed) and is not started again: its 1 restart is used up"
    assert told_of(world, "batch") == [told]
    world.update("batch", job(3, task=TWICE))
    assert told_of(world, "batch") == []
    world.run()
    assert told_of(world, "batch") == []


def test_the_first_slot_of_a_job_has_a_past_too() -> None:
    """Its number is 0, and what failed there is found as in any other slot."""
    world = World()
    world.node("n0")
    world.service("batch", job(1, task=TaskSpec(RestartPolicy=RestartPolicy(Delay=0))))
    world.run()
    world.end(in_slot_of_job(world, 0))
    world.run()
    (failure,) = failures_in_slot(world.view, in_slot_of_job(world, 0))
    assert failure.Node == "host-n0"


def in_slot_of_job(world: World, number: int) -> TaskRow:
    """Return the task at work in a slot of a job."""
    (task,) = (
        row
        for row in world.tasks("batch")
        if row.api.Slot == number and row.api.Status.State <= TaskState.RUNNING
    )
    return task


def test_a_global_job_says_on_which_nodes_it_is_not_tried_again() -> None:
    """A node where it failed for good; not where it completed or is still to do so."""
    world = World()
    for node in ("n0", "n1", "n2"):
        world.node(node)
    world.service("sweep", everywhere_once(task=ONCE))
    world.run()
    on = {row.api.NodeID: row for row in world.tasks("sweep")}
    world.end(on["n0"])
    world.end(on["n1"], TaskState.COMPLETE)
    world.run()
    told = "sweep on node host-n0 ended (failed) and is not started again: its restart condition is"
    assert told_of(world, "sweep") == [f"{told} none"]


def test_the_last_failures_come_first() -> None:
    """With node, exit code and error; of a slot, or of all."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=2, task=TaskSpec(RestartPolicy=RestartPolicy(Delay=0))))
    world.run()
    for slot, code in ((1, 3), (2, 4), (1, 5)):
        world.now += SECOND
        status = TaskStatus(
            State=TaskState.FAILED,
            Err=f"task: non-zero exit ({code})",
            ContainerStatus=ContainerStatus(ExitCode=code),
        )
        world.write(Advance(task_id=world.in_slot("web", slot).api.ID, status=status))
        world.run()
    found = last_failures(world.view, world.tasks("web"))
    assert [(one.ExitCode, one.Node, one.Err) for one in found] == [
        (code, "host-n0", f"task: non-zero exit ({code})") for code in (5, 4, 3)
    ]
    assert [one.At for one in found] == sorted((one.At for one in found), reverse=True)
    in_slot = failures_in_slot(world.view, world.in_slot("web", 1))
    assert [one.ExitCode for one in in_slot] == [5, 3]
