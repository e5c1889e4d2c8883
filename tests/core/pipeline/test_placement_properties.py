"""Moves, start-first drains, start order and stops, interleaved at random with all that goes wrong.

``web`` moves to nodes that come and drains start-first, ``api`` waits for ``web``; both may be
updated, scaled, stopped and started while nodes come and go, tasks fail and leaders change.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.change import Update
from swarmctl.core.model.labels import DEPENDS_ON, REBALANCE
from swarmctl.core.model.spec import RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.stopping import started, stopped
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.spec import ServiceSpec

NODES = ("n1", "n2", "n3")
START_FIRST = UpdateConfig(Parallelism=1, Order="start-first")
LABELS = {"web": {REBALANCE: "on-join"}, "api": {DEPENDS_ON: "web:running"}}

services = st.sampled_from(tuple(LABELS))
nodes = st.sampled_from(NODES)
steps = st.one_of(
    st.tuples(st.just("set"), services, st.integers(0, 4), st.integers(1, 2)),
    st.tuples(st.just("stop"), services),
    st.tuples(st.just("start"), services),
    st.tuples(st.just("node"), nodes, st.sampled_from(["ready", "down"])),
    st.tuples(st.just("spec"), nodes, st.sampled_from(["active", "drain", "pause"])),
    st.tuples(st.just("cut"), nodes),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("turns")),
    st.tuples(st.just("agents")),
    st.tuples(st.just("sleep"), st.sampled_from([1, 6, 15, 70])),
    st.tuples(st.just("lead")),
)
histories = st.lists(steps, min_size=5, max_size=30)


def wanted(name: str, replicas: int, image: int) -> ServiceSpec:
    task = TaskSpec(RestartPolicy=RestartPolicy(Condition="any", Delay=SECOND))
    made = spec(name, replicas, image=f"nginx:{image}", task=task, update=START_FIRST)
    return replace(made, Labels=LABELS[name])


def cluster() -> World:
    world = World()
    for node in NODES[:2]:
        world.node(node)
    for name in LABELS:
        world.service(name, wanted(name, 3, 1))
    world.run()
    world.node(NODES[2])
    return world


def act(world: World, step: tuple[Any, ...]) -> None:
    """Do one step of a history."""
    kind, *rest = step
    if kind == "set":
        world.update(rest[0], wanted(*rest))
    elif kind in ("stop", "start"):
        row = world.view.service(rest[0])
        assert row is not None
        is_stopped = row.api.Stopped is not None
        if is_stopped == (kind == "start"):
            api = started(row.api) if is_stopped else stopped(row.api, world.now)
            world.write(Update(row=replace(row, api=api)))
    elif kind == "node":
        world.set_node(rest[0], state=rest[1])
    elif kind == "spec":
        world.set_node(rest[0], availability=rest[1])
    elif kind == "cut":
        world.cut ^= {rest[0]}
    elif kind == "crash":
        live = [row for row in world.tasks() if row.api.Status.State is TaskState.RUNNING]
        if live:
            world.end(live[rest[0] % len(live)])
    elif kind == "turns":
        world.turn()
    elif kind == "agents":
        world.agents()
    elif kind == "sleep":
        world.sleep(rest[0] * SECOND)
    elif kind == "lead":
        world.lead()


def check_safety(world: World, *, drains: bool = True) -> None:
    """A slot has one runnable task or two, and one task of a service moves at a time.

    Args:
        drains: tasks may leave drained nodes, as many at a time as there are.
    """
    runnable = [row for row in world.tasks() if row.api.DesiredState <= TaskState.RUNNING]
    places = Counter((row.api.ServiceID, row.api.Slot) for row in runnable)
    assert not [place for place, count in places.items() if count > 2]
    moving = Counter(
        row.api.ServiceID
        for row in runnable
        if row.private.relieves and row.api.Status.State < TaskState.RUNNING
    )
    assert drains or all(count <= 1 for count in moving.values())


def heal(world: World) -> None:
    """Bring every node back, later than all that went before."""
    world.cut.clear()
    world.now += SECOND
    for node in NODES:
        world.set_node(node, state="ready", availability="active")


@given(histories)
@settings(max_examples=100)
def test_whatever_happens_all_is_well_in_the_end(history: list[tuple[Any, ...]]) -> None:
    """Safety at every step; with all nodes back each service has what it asks for, and rests."""
    world = cluster()
    drains = any(step[-1] == "drain" for step in history)
    for step in history:
        act(world, step)
        check_safety(world, drains=drains)
    heal(world)
    for name in LABELS:
        act(world, ("start", name))
    world.sleep(15 * MINUTE)
    check_safety(world, drains=drains)
    assert world.wishes() == []
    for name in LABELS:
        row = world.view.service(name)
        assert row is not None
        assert row.api.Spec.Mode.Replicated is not None
        asked = row.api.Spec.Mode.Replicated.Replicas or 0
        waits = name == "api" and not world.running("web")
        assert waits or len(world.runnable(name)) == len(world.running(name)) == asked
    if any(step[0] == "set" and step[-1] != 1 for step in history):
        return  # tasks of an update are made after the nodes came, beside those that leave
    counts = Counter(row.api.NodeID for row in world.running("web"))
    by_node = [counts[node] for node in NODES]
    assert max(by_node) - min(by_node) <= 1, "web is not even"


@given(histories, st.integers(0, 25))
@settings(max_examples=50)
def test_a_leader_that_comes_in_between_ends_it_alike(
    history: list[tuple[Any, ...]], at: int
) -> None:
    """One more change of leaders, anywhere, and the same number of tasks runs in the end."""
    ends = []
    for extra in (False, True):
        world = cluster()
        for place, step in enumerate(history):
            if extra and place == at:
                world.lead()
            act(world, step)
        heal(world)
        world.sleep(15 * MINUTE)
        ends.append({name: len(world.running(name)) for name in LABELS})
    assert ends[0] == ends[1]
