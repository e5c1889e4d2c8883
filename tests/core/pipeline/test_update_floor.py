"""The floor of an update: how many replicas it leaves ready, whatever happens beside it.

Random histories of one service: updates, rollbacks, scales, tasks that crash or never start, nodes
that answer late or go, other leaders. After every pass of the orchestrator:

- start-first: no slot that stays has lost its ready task;
- stop-first: if the pass took a ready task away, no more than ``Parallelism`` of the slots that
  stay lack one, save for those that never found a place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.rolling import settings_of, why_stop_first
from swarmctl.core.model.spec import RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from swarmctl.core.orchestrator.slots import Fates
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.objects import TaskRow

NODES = ("n0", "n1", "n2", "n3")
SERVICE = "web"

orders = st.sampled_from(["stop-first", "start-first"])
configs = st.builds(
    UpdateConfig,
    Parallelism=st.integers(1, 3),
    Order=orders,
    Delay=st.sampled_from([0, 2 * SECOND]),
    FailureAction=st.sampled_from(["pause", "rollback"]),
    MaxFailureRatio=st.sampled_from([0.0, 0.3, 1.0]),
)
steps = st.one_of(
    st.tuples(st.just("orchestrate")),
    st.tuples(st.just("orchestrate")),
    st.tuples(st.just("orchestrate")),
    st.tuples(st.just("place")),
    st.tuples(st.just("place")),
    st.tuples(st.just("agents"), st.sets(st.sampled_from(NODES))),
    st.tuples(st.just("agents"), st.just(set(NODES))),
    st.tuples(st.just("update"), st.sampled_from(["v1", "v2", "v3", "bad"])),
    st.tuples(st.just("again")),
    st.tuples(st.just("back")),
    st.tuples(st.just("scale"), st.integers(1, 6)),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("time"), st.sampled_from([1, 2, 5, 70])),
    st.tuples(st.just("down"), st.sampled_from(NODES)),
    st.tuples(st.just("up"), st.sampled_from(NODES)),
    st.tuples(st.just("lead")),
)


def ready(world: World) -> dict[int, list[TaskRow]]:
    """Return the runnable tasks of each slot that has one that is ready."""
    fates = Fates(world.view)
    found: dict[int, list[TaskRow]] = {}
    for row in world.running(SERVICE):
        if not fates.ended(row):
            found.setdefault(row.api.Slot, []).append(row)
    return found


def orchestrate(world: World) -> None:
    """Give the orchestrator one pass, and see what it took."""
    before = ready(world)
    service = world.view.service(SERVICE)
    config = settings_of(service.api)
    world.turn(("orchestrator",))
    after = ready(world)
    kept: dict[int, list[TaskRow]] = {}
    for row in world.runnable(SERVICE):
        kept.setdefault(row.api.Slot, []).append(row)
    taken = [slot for slot in before if slot in kept and slot not in after]
    if config.Order == "start-first" and not why_stop_first(service.api.Spec):
        assert not taken
    elif taken:
        missing = [
            slot
            for slot, rows in kept.items()
            if slot not in after and any(row.private.owed or row.api.NodeID for row in rows)
        ]
        assert len(missing) <= config.Parallelism


def act(world: World, step: tuple) -> None:
    kind, *rest = step
    row = world.view.service(SERVICE)
    if kind == "orchestrate":
        orchestrate(world)
    elif kind == "place":
        world.turn(("reaper", "allocator", "scheduler"))
    elif kind == "agents":
        world.cut = set(NODES) - rest[0]
        world.agents()
        world.cut = set()
    elif kind == "update":
        template = row.api.Spec.TaskTemplate
        container = replace(template.ContainerSpec, Image=rest[0])
        changed = replace(template, ContainerSpec=container)
        world.update(SERVICE, replace(row.api.Spec, TaskTemplate=changed))
    elif kind == "again":
        world.update(SERVICE, row.api.Spec)
    elif kind == "back" and row.api.PreviousSpec is not None:
        world.roll_back(SERVICE)
    elif kind == "scale":
        world.scale(SERVICE, rest[0])
    elif kind == "crash":
        live = [task for task in world.tasks() if task.api.Status.State is TaskState.RUNNING]
        if live:
            world.end(live[rest[0] % len(live)])
    elif kind == "time":
        world.now += rest[0] * SECOND
    elif kind == "down":
        world.set_node(rest[0], state="down")
    elif kind == "up":
        world.set_node(rest[0], state="ready")
    elif kind == "lead":
        world.lead()


def cluster(update: UpdateConfig, rollback: UpdateConfig) -> World:
    world = World(history=1)
    world.bad.add("bad")
    for node_id in NODES:
        world.node(node_id)
    policy = TaskSpec(RestartPolicy=RestartPolicy(Delay=SECOND))
    made = spec(replicas=4, image="v1", task=policy, update=update)
    world.service(SERVICE, replace(made, RollbackConfig=rollback))
    world.run()
    world.now += 60 * SECOND
    return world


backs = configs.map(lambda config: replace(config, FailureAction="pause"))
histories = st.lists(steps, min_size=10, max_size=60).map(
    lambda history: [("update", "v2"), ("orchestrate",), ("orchestrate",), *history]
)


@example(  # the old task of an overlap crashes, and is reaped in the moment it is told to leave
    update=UpdateConfig(Parallelism=1, Order="start-first"),
    rollback=UpdateConfig(Parallelism=1),
    history=[
        ("update", "v2"),
        ("orchestrate",),
        ("orchestrate",),
        ("place",),
        ("agents", set(NODES)),
        ("update", "v1"),
        ("crash", 0),
    ],
)
@given(configs, backs, histories)
@settings(max_examples=300)
def test_an_update_keeps_its_floor_and_comes_to_an_end(
    update: UpdateConfig, rollback: UpdateConfig, history: list[tuple]
) -> None:
    """At no pass is a replica taken that the floor needs; and once all is well, all is new."""
    world = cluster(update, rollback)
    for step in history:
        act(world, step)
    world.bad.clear()
    for node_id in NODES:
        world.set_node(node_id, state="ready")
    for _ in range(3):
        world.sleep(120 * SECOND)
        status = world.view.service(SERVICE).api.UpdateStatus
        if status is not None and status.State.endswith("paused"):
            world.update(SERVICE, world.view.service(SERVICE).api.Spec)
    service = world.view.service(SERVICE).api
    assert len(world.running(SERVICE)) == service.Spec.Mode.Replicated.Replicas
    images = {row.api.Spec.ContainerSpec.Image for row in world.running(SERVICE)}
    assert images == {service.Spec.TaskTemplate.ContainerSpec.Image}
    states = (None, "completed", "rollback_completed")
    assert (service.UpdateStatus and service.UpdateStatus.State) in states
    assert world.wishes() == []
