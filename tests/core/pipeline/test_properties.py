"""What holds whatever happens: safety at every step, rest and the right result at the end.

Random histories of a small cluster: services come, change and go, nodes fail and return, tasks
crash, leaders change, reconcilers and agents run in any order and any number of times in between.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.spec import (
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    TaskSpec,
    UpdateConfig,
)
from swarmctl.core.model.task import TaskState
from swarmctl.core.scheduler.resources import demand_of
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.objects import TaskRow

ORDERS = ("stop-first", "start-first")
ACTIONS = ("pause", "continue", "rollback")
NODES = ("n0", "n1", "n2")
CPUS = 3
SERVICES = ("a", "b", "c")
RECONCILERS = ("orchestrator", "reaper", "enforcer", "allocator", "scheduler")

PORT = (PortConfig(TargetPort=80, PublishedPort=80, PublishMode="host"),)
SMALL = TaskSpec(
    Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10**9)),
    RestartPolicy=RestartPolicy(Delay=0),
)


def wanted(name: str, replicas: int, image: int) -> object:
    """Return a service's spec: "a" reserves a CPU a task, "b" binds a port, "c" is plain."""
    update = UpdateConfig(
        Parallelism=image % 3,
        Order=ORDERS[image % 2],
        FailureAction=ACTIONS[(image + replicas) % 3],
        Delay=(replicas % 2) * SECOND,
    )
    if name == "a":
        return spec(name, replicas, image=f"i{image}", task=SMALL, update=update)
    ports = PORT if name == "b" else ()
    return spec(name, replicas, image=f"i{image}", ports=ports, update=update)


names = st.sampled_from(SERVICES)
nodes = st.sampled_from(NODES)
setting = st.tuples(st.just("set"), names, st.integers(0, 4), st.integers(1, 3))
turning = st.tuples(st.just("turn"), st.sampled_from(RECONCILERS))
steps = st.one_of(
    setting,
    setting,
    turning,
    turning,
    st.tuples(st.just("turns")),
    st.tuples(st.just("turns")),
    st.tuples(st.just("agents")),
    st.tuples(st.just("agents")),
    st.tuples(st.just("remove"), names),
    st.tuples(st.just("node"), nodes, st.sampled_from(["ready", "down", "unknown"])),
    st.tuples(st.just("spec"), nodes, st.sampled_from(["active", "drain", "pause"])),
    st.tuples(st.just("cut"), nodes),
    st.tuples(st.just("crash"), st.integers(0, 9), st.sampled_from(["failed", "complete"])),
    st.tuples(st.just("time"), st.sampled_from([1, 3, 5, 70])),
    st.tuples(st.just("lead")),
)
histories = st.lists(steps, min_size=10, max_size=40).map(
    lambda history: [("set", "a", 3, 1), ("set", "b", 2, 1), ("turns",), ("agents",), *history]
)


def small_cluster() -> World:
    world = World()
    for node_id in NODES:
        world.node(node_id, cpus=CPUS)
    return world


def act(world: World, step: tuple) -> None:
    """Do one step of a history; one that makes no sense now does nothing."""
    kind, *rest = step
    if kind == "set":
        name, replicas, image = rest
        if world.view.service(name) is None:
            world.service(name, wanted(name, replicas, image))
        else:
            world.update(name, wanted(name, replicas, image))
    elif kind == "remove" and world.view.service(rest[0]) is not None:
        world.remove_service(rest[0])
    elif kind == "node":
        world.set_node(rest[0], state=rest[1])
    elif kind == "spec":
        world.set_node(rest[0], availability=rest[1])
    elif kind == "cut":
        world.cut ^= {rest[0]}
    elif kind == "crash":
        live = [row for row in world.tasks() if row.api.Status.State is TaskState.RUNNING]
        if live:
            world.end(live[rest[0] % len(live)], TaskState(rest[1]))
    elif kind == "turn":
        world.turn((rest[0],))
    elif kind == "turns":
        world.turn()
    elif kind == "agents":
        world.agents()
    elif kind == "time":
        world.now += rest[0] * SECOND
    elif kind == "lead":
        world.lead()


def check_safety(world: World) -> None:
    """No slot has two runnable tasks, no node holds more than it has, no port is bound twice.

    While tasks overlap start-first a slot has two, of different specs or one to relieve the other.
    """
    runnable: dict[tuple[str, int], list[TaskRow]] = {}
    for row in world.tasks():
        if row.api.DesiredState <= TaskState.RUNNING:
            runnable.setdefault((row.api.ServiceID, row.api.Slot), []).append(row)
    for (service, _), rows in runnable.items():
        assert len(rows) <= (1 if service == "b" else 2)
        kinds = {(row.private.spec_version, bool(row.private.relieves)) for row in rows}
        assert len(kinds) == len(rows)
    cpu: Counter[str] = Counter()
    ports: Counter[tuple[str, str]] = Counter()
    for row in world.tasks():
        if TaskState.ASSIGNED <= row.api.Status.State <= TaskState.RUNNING:
            demand = demand_of(row)
            cpu[row.api.NodeID] += demand.cpu
            ports.update((row.api.NodeID, port) for port in demand.ports)
    assert all(used <= CPUS * 10**9 for used in cpu.values())
    assert all(count == 1 for count in ports.values())


def heal(world: World) -> None:
    """Bring every node back and wait until all delays are over."""
    world.cut.clear()
    for node_id in NODES:
        world.set_node(node_id, state="ready", availability="active")
    for _ in range(3):
        world.sleep(70 * SECOND)
    for row in world.view.services():
        if row.api.UpdateStatus is not None and "paused" in row.api.UpdateStatus.State:
            world.update(row.api.ID, row.api.Spec)  # whoever paused it is to go on
    for _ in range(3):
        world.sleep(70 * SECOND)


def result(world: World) -> dict[str, list[tuple[int, str]]]:
    """Return slot and image of what runs, by service."""
    return {
        row.api.ID: [
            (task.api.Slot, task.api.Spec.ContainerSpec.Image) for task in world.running(row.api.ID)
        ]
        for row in world.view.services()
    }


def expected(world: World) -> dict[str, int]:
    """Return how many tasks each service must end with: what it asks for and nodes can hold."""
    most = {"a": CPUS * len(NODES), "b": len(NODES), "c": 99}
    return {
        row.api.ID: min(row.api.Spec.Mode.Replicated.Replicas, most[row.api.ID])
        for row in world.view.services()
    }


@given(histories)
@settings(max_examples=250)
def test_nothing_bad_happens_and_all_is_well_in_the_end(history: list[tuple]) -> None:
    """Safety holds after every step; once nodes are back every service has what it asked for."""
    world = small_cluster()
    for step in history:
        act(world, step)
        check_safety(world)
    heal(world)
    check_safety(world)
    ended = result(world)
    assert {name: len(tasks) for name, tasks in ended.items()} == expected(world)
    for row in world.view.services():
        # An update waits for the tasks it made to run, so one that finds no place holds it up.
        if len(ended[row.api.ID]) == row.api.Spec.Mode.Replicated.Replicas:
            image = row.api.Spec.TaskTemplate.ContainerSpec.Image
            assert {one for _, one in ended[row.api.ID]} <= {image}
    assert {row.api.ServiceID for row in world.tasks()} <= set(ended)


@given(histories)
@settings(max_examples=100)
def test_every_reconciler_comes_to_rest(history: list[tuple]) -> None:
    """When passes end, a fresh reconciler of any kind wants nothing: decide, apply, nothing."""
    world = small_cluster()
    for step in history:
        act(world, step)
    world.settle()
    assert world.wishes() == []
    world.lead()
    assert world.settle() == 0


@given(histories, st.integers(0, 25))
@settings(max_examples=100)
def test_a_change_of_leaders_changes_nothing(history: list[tuple], at: int) -> None:
    """A history with one more change of leaders, anywhere in it, ends in the same state."""
    ends = []
    for extra in (False, True):
        world = small_cluster()
        for place, step in enumerate(history):
            if extra and place == at:
                world.lead()
            act(world, step)
        heal(world)
        ends.append(result(world))
    assert ends[0] == ends[1]


@given(st.lists(st.tuples(st.sampled_from(SERVICES), st.integers(0, 4)), max_size=6))
@settings(max_examples=30)
def test_convergence_takes_few_rounds(sizes: list[tuple[str, int]]) -> None:
    """On a healthy cluster any set of services runs within a dozen rounds."""
    world = small_cluster()
    for name, replicas in sizes:
        if world.view.service(name) is None:
            world.service(name, wanted(name, replicas, 1))
    world.run(rounds=12)
    assert {name: len(tasks) for name, tasks in result(world).items()} == expected(world)
