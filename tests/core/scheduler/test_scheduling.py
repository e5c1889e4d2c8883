"""Placing: groups, ranks, spread, bounds, the cache against a rebuild, and bad answers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.change import Create, Entry, Kind, Transaction, Update
from swarmctl.core.model.objects import NodeRow, TaskRow
from swarmctl.core.model.spec import (
    DiscreteResourceSpec,
    GenericResource,
    NamedResourceSpec,
    Placement,
    PlacementPreference,
    ReplicatedService,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    SpreadOver,
    TaskSpec,
)
from swarmctl.core.model.task import Task, TaskFailure, TaskPrivate, TaskState, TaskStatus
from swarmctl.core.scheduler.decide import JUDGED_MAX, TASKS_MAX, Candidate, Scheduling
from swarmctl.core.scheduler.filters import NO_LIMIT, Check, Needed
from swarmctl.core.scheduler.resources import Ledger, NodeLoad, Place
from swarmctl.core.store.indexes import ref_of
from swarmctl.plugins.spread import SpreadScheduler
from tests.core.pipeline.world import World, make_node, spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swarmctl.core.store.view import View


def where(world: World, service_id: str) -> Counter[str]:
    """Return how many tasks of a service each node has."""
    return Counter(row.api.NodeID for row in world.tasks(service_id) if row.api.NodeID)


# --- ranking -------------------------------------------------------------------------------------


def test_a_service_spreads_even_where_others_made_nodes_uneven() -> None:
    """Fewest tasks of the service come first, fewest tasks in total second."""
    world = World()
    world.node("n0")
    world.service("noise", spec("noise", replicas=10))
    world.settle()
    world.node("n1")
    world.node("n2")
    world.service("web", spec(replicas=4))
    world.settle()
    assert where(world, "web") == {"n0": 1, "n1": 2, "n2": 1}


def test_tasks_being_stopped_do_not_count() -> None:
    """A node is not crowded by tasks that are about to go."""
    world = World()
    world.node("n0")
    world.service("old", spec("old", replicas=5))
    world.run()
    world.node("n1")
    world.service("other", spec("other", replicas=1))
    world.run()
    assert where(world, "other") == {"n1": 1}
    world.cut.add("n0")
    world.remove_service("old")
    world.settle()
    world.service("web", spec())
    world.settle()
    assert where(world, "web") == {"n0": 1}


def faulty(world: World, node_id: str, count: int, *, at: int | None = None) -> None:
    """Have the pending tasks of "web" carry so many failures on a node."""
    when = world.now if at is None else at
    for row in world.tasks("web"):
        failures = (TaskFailure(node_id=node_id, at=when),) * count
        world.write(Update(row=replace(row, private=replace(row.private, failures=failures))))


@pytest.mark.parametrize(
    ("count", "age", "chosen"), [(5, 0, "n1"), (4, 0, "n0"), (5, 5 * MINUTE, "n0")]
)
def test_a_node_where_a_spec_keeps_failing_is_the_last_choice(
    count: int, age: int, chosen: str
) -> None:
    """Five failures within five minutes make another node better, however crowded."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    while world.turn(("orchestrator", "allocator")):
        pass
    faulty(world, "n0", count, at=world.now - age)
    world.node("n1")
    world.write(
        Create(
            row=TaskRow(
                api=Task(
                    ID="load",
                    NodeID="n1",
                    Status=TaskStatus(State=TaskState.RUNNING),
                    DesiredState=TaskState.RUNNING,
                )
            )
        )
    )
    world.settle()
    assert where(world, "web") == {chosen: 1}


def test_a_faulty_node_is_better_than_none() -> None:
    """The last choice is a choice."""
    world = World()
    world.node("n0")
    world.service("web", spec())
    while world.turn(("orchestrator", "allocator")):
        pass
    faulty(world, "n0", 9)
    world.settle()
    assert where(world, "web") == {"n0": 1}


def test_a_crash_loop_leaves_its_node() -> None:
    """A task that keeps failing on one node is tried on another after five failures."""
    world = World(history=2)
    world.node("n0")
    world.service("web", spec(task=TaskSpec(RestartPolicy=RestartPolicy(Delay=0))))
    world.run()
    world.node("n1")
    world.service("noise", spec("noise", replicas=5))
    world.run()
    assert where(world, "noise")["n1"] > where(world, "noise")["n0"]
    nodes = []
    for _ in range(6):
        world.now += SECOND
        task = world.in_slot("web")
        nodes.append(task.api.NodeID)
        world.end(task)
        world.run()
    assert nodes == ["n0"] * 5 + ["n1"]


def by_zone(*descriptors: str) -> Placement:
    return Placement(
        Preferences=tuple(
            PlacementPreference(Spread=SpreadOver(SpreadDescriptor=one)) for one in descriptors
        )
    )


def zoned(**zones: int) -> World:
    """Nodes by zone: ``a=1, b=3`` is one node in zone a and three in b."""
    world = World()
    for zone, count in zones.items():
        for number in range(count):
            world.node(f"{zone}{number}", labels={"zone": zone, "rack": str(number % 2)})
    return world


def test_preferences_level_their_branches() -> None:
    """With a spread preference every zone gets the same number, however many nodes it has."""
    world = zoned(a=1, b=3)
    task = TaskSpec(Placement=by_zone("node.labels.zone"))
    world.service("web", spec(replicas=6, task=task))
    world.settle()
    nodes = where(world, "web")
    assert nodes["a0"] == 3
    assert [nodes[f"b{number}"] for number in range(3)] == [1, 1, 1]


def test_two_levels_of_preferences() -> None:
    """Zones are level first, racks within each zone second, nodes within a rack last."""
    world = zoned(a=4, b=2)
    task = TaskSpec(Placement=by_zone("node.labels.zone", "node.labels.rack"))
    world.service("web", spec(replicas=8, task=task))
    world.settle()
    nodes = where(world, "web")
    assert nodes == {"a0": 1, "a1": 1, "a2": 1, "a3": 1, "b0": 2, "b1": 2}


def test_a_full_branch_does_not_stop_the_others() -> None:
    """What a zone cannot take goes to the others, on scale-up too, and the rest waits."""
    world = zoned(a=1, b=1)
    world.set_node("a0", resources=Resources(NanoCPUs=2 * 10**9))
    one_cpu = ResourceRequirements(Reservations=Resources(NanoCPUs=10**9))
    task = TaskSpec(Placement=by_zone("node.labels.zone"), Resources=one_cpu)
    world.service("web", spec(replicas=6, task=task))
    world.settle()
    assert where(world, "web") == {"a0": 2, "b0": 4}
    world.scale("web", 12)
    world.settle()
    assert where(world, "web") == {"a0": 2, "b0": 8}


def test_an_unknown_descriptor_is_skipped() -> None:
    """A preference for something that is no label changes nothing."""
    world = zoned(a=1, b=1)
    world.service("web", spec(replicas=2, task=TaskSpec(Placement=by_zone("node.colour"))))
    world.settle()
    assert where(world, "web") == {"a0": 1, "b0": 1}


def slow_spread(candidates: Sequence[Candidate], wanted: int) -> Counter[str]:
    """The obvious way: look at all nodes again for every task."""
    state = {one.node.api.ID: one for one in candidates}
    counts: Counter[str] = Counter()
    for _ in range(wanted):
        free = [one for one in state.values() if one.room]
        if not free:
            break
        best = min(
            free,
            key=lambda one: (
                one.failures if one.failures >= 5 else 0,
                one.service_tasks,
                one.tasks,
                one.node.api.ID,
            ),
        )
        counts[best.node.api.ID] += 1
        state[best.node.api.ID] = best._replace(
            room=best.room - 1, service_tasks=best.service_tasks + 1, tasks=best.tasks + 1
        )
    return counts


SMALL = st.integers(0, 6)


@given(st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), max_size=6), st.integers(1, 12))
def test_the_fast_spread_is_the_obvious_one(
    loads: list[tuple[int, int, int, int]], wanted: int
) -> None:
    """One heap gives what looking at all nodes for every task would."""
    candidates = [
        Candidate(make_node(f"n{at}"), room, service, service + more, failures)
        for at, (room, service, more, failures) in enumerate(loads)
    ]
    tasks = [TaskRow(api=Task(ID=str(number))) for number in range(wanted)]
    chosen = SpreadScheduler().place(World().view, tasks, candidates)
    assert Counter(chosen.values()) == slow_spread(candidates, wanted)


# --- generic resources, preset nodes --------------------------------------------------------------


def gpu(value: str | int) -> GenericResource:
    if isinstance(value, str):
        return GenericResource(NamedResourceSpec=NamedResourceSpec(Kind="gpu", Value=value))
    return GenericResource(DiscreteResourceSpec=DiscreteResourceSpec(Kind="gpu", Value=value))


def needing(count: int) -> TaskSpec:
    wanted = Resources(GenericResources=(gpu(count),))
    return TaskSpec(Resources=ResourceRequirements(Reservations=wanted))


def test_named_resources_are_claimed_by_name() -> None:
    """Tasks get names of their own, and what is left over refuses."""
    world = World()
    world.node("n0", resources=Resources(GenericResources=(gpu("u2"), gpu("u1"), gpu("u3"))))
    world.service("web", spec(replicas=2, task=needing(2)))
    world.settle()
    first, second = world.tasks("web")
    assert first.api.GenericResources == (gpu("u1"), gpu("u2"))
    assert second.api.Status.Err == "no suitable node (insufficient resources on 1 node)"


def test_counted_resources_are_claimed_by_number() -> None:
    """Tasks share a count, and get it back when they stop."""
    world = World()
    world.node("n0", resources=Resources(GenericResources=(gpu(3),)))
    world.service("web", spec(replicas=1, task=needing(2)))
    world.service("too", spec("too", replicas=1, task=needing(2)))
    world.run()
    running = [row for row in world.tasks() if row.api.Status.State is TaskState.RUNNING]
    assert [row.api.GenericResources for row in running] == [(gpu(2),)]
    world.scale(running[0].api.ServiceID, 0)
    world.run()
    assert len(world.running("web") + world.running("too")) == 1


def test_a_preset_node_is_kept_and_served_first() -> None:
    """A task made for a node goes there or nowhere, before others compete for the place."""
    world = World()
    world.node("n0", cpus=1)
    world.node("n1", cpus=1)
    one_cpu = TaskSpec(Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10**9)))
    world.service("web", spec(replicas=2, task=one_cpu))
    while world.turn(("orchestrator", "allocator")):
        pass
    preset = world.tasks("web")[1]
    world.service(
        "zz", replace(spec("zz"), Mode=ServiceMode(Replicated=ReplicatedService(Replicas=0)))
    )
    api = replace(preset.api, ID="preset", ServiceID="zz", Slot=0, NodeID="n1")
    world.write(Create(row=replace(preset, api=api)))
    world.turn(("scheduler",))
    task = world.task("preset")
    assert (task.api.Status.State, task.api.NodeID) == (TaskState.ASSIGNED, "n1")
    assert where(world, "web") == {"n0": 1}


def test_tasks_that_should_go_are_not_placed() -> None:
    """A pending task that is not wanted any more stays unplaced."""
    world = World()
    world.service("web", spec())
    world.settle()
    world.scale("web", 0)
    world.turn(("orchestrator",))
    world.node("n0")
    world.turn(("scheduler",))
    assert where(world, "web") == {}


# --- bounds --------------------------------------------------------------------------------------


def test_one_decision_moves_so_many_tasks() -> None:
    """A large service is placed over several decisions, none of them larger than allowed."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=600))
    while world.turn(("orchestrator", "allocator")):
        pass
    assert len(world.decide("scheduler", "everything")) == TASKS_MAX
    world.settle()
    assert where(world, "web") == {"n0": 600}


def test_hopeless_services_do_not_keep_others_waiting() -> None:
    """However many services fit nowhere, one that fits is placed, and then there is rest."""
    world = World()
    count = 60
    world.apply(
        *(
            Transaction(changes=(Create(row=make_node(f"n{number:03}", cpus=1)),))
            for number in range(JUDGED_MAX // 20)
        )
    )
    impossible = TaskSpec(
        Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=2 * 10**9))
    )
    for number in range(count):
        world.service(f"a{number:02}", spec(f"a{number:02}", task=impossible))
    world.service("web", spec())
    world.settle()
    assert sum(where(world, "web").values()) == 1
    assert {row.api.Status.Err for row in world.tasks() if not row.api.NodeID} == {
        f"no suitable node (insufficient resources on {JUDGED_MAX // 20} nodes)"
    }
    assert world.settle() == 0


def test_a_large_service_that_fits_nowhere_is_explained_over_several_turns() -> None:
    """All its tasks learn why, and then there is rest."""
    world = World()
    world.node("n0", state="down")
    world.service("web", spec(replicas=700))
    world.settle()
    why = "no suitable node (1 node not available for new tasks)"
    assert {row.api.Status.Err for row in world.tasks("web")} == {why}
    assert world.settle() == 0


# --- whoever answers is checked -------------------------------------------------------------------


class Careless:
    """A scheduler that gives every task to one node, whether there is room or not."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    def place(
        self, view: View, tasks: Sequence[TaskRow], nodes: Sequence[Candidate]
    ) -> Mapping[str, str]:
        return {task.api.ID: self._node_id for task in tasks} | {"stranger": self._node_id}


@pytest.mark.parametrize(("node_id", "placed"), [("small", 2), ("down", 0), ("nowhere", 0)])
def test_an_answer_counts_as_far_as_the_filters_agree(node_id: str, placed: int) -> None:
    """A scheduler cannot overfill a node, use one that was refused, or invent one."""
    world = World()
    world.node("small", cpus=2)
    world.node("down", state="down")
    one_cpu = TaskSpec(Resources=ResourceRequirements(Reservations=Resources(NanoCPUs=10**9)))
    world.service("web", spec(replicas=5, task=one_cpu))
    while world.turn(("orchestrator", "allocator")):
        pass
    scheduling = Scheduling(Careless(node_id))
    scheduling.keys(world.view, None)
    decision = scheduling.decide(world.view.overlay(), "everything", world.now, world.new_id)
    world.apply(*decision.transactions)
    assert sum(where(world, "web").values()) == placed


class OddHosts:
    """A plugin's filter: only nodes whose id ends in an odd digit."""

    static = True
    name = "odd"

    def check(self, task: TaskRow) -> Check:
        return _odd

    def explain(self, nodes: int) -> str:
        return f"even host on {nodes} nodes"

    def why(self, task: TaskRow, place: Place, others: Sequence[TaskRow]) -> Needed:
        return Needed("an odd host", f"host {place.node.api.ID}")


def _odd(node: NodeRow, load: NodeLoad) -> int:
    return NO_LIMIT if int(node.api.ID[-1]) % 2 else 0


def test_filters_of_plugins_count() -> None:
    """A plugin's filter refuses after ours and explains itself."""
    world = World()
    world.node("n0")
    world.node("n2")
    world.service("web", spec())
    while world.turn(("orchestrator", "allocator")):
        pass
    scheduling = Scheduling(SpreadScheduler(), [OddHosts()])
    scheduling.keys(world.view, None)
    decision = scheduling.decide(world.view.overlay(), "everything", world.now, world.new_id)
    world.apply(*decision.transactions)
    assert world.tasks("web")[0].api.Status.Err == "no suitable node (even host on 2 nodes)"


# --- the cache against a rebuild ------------------------------------------------------------------


def contents(ledger: Ledger) -> object:
    """Return everything a ledger says, without what is empty."""
    return (
        {node_id: place.load for node_id, place in ledger.places().items()},
        {key: set(ids) for key, ids in ledger.pending.items()},
        ledger.failures,
        ledger.nodes,
    )


@st.composite
def task_rows(draw: st.DrawFn) -> TaskRow:
    state = draw(st.sampled_from(list(TaskState)))
    claims = draw(st.lists(st.sampled_from([gpu("u1"), gpu("u2"), gpu(2)]), max_size=2))
    reserved = Resources(NanoCPUs=draw(SMALL), MemoryBytes=draw(SMALL))
    api = Task(
        ID=draw(st.sampled_from("abcdef")),
        ServiceID=draw(st.sampled_from(["", "s", "t"])),
        Slot=1,
        NodeID=draw(st.sampled_from(["", "n0", "n1"])),
        Status=TaskStatus(State=state),
        DesiredState=draw(st.sampled_from(list(TaskState))),
        Spec=TaskSpec(Resources=ResourceRequirements(Reservations=reserved)),
        GenericResources=tuple(claims),
    )
    failures = draw(st.lists(st.builds(TaskFailure, node_id=st.just("n0"), at=SMALL), max_size=2))
    private = TaskPrivate(spec_version=draw(st.integers(0, 1)), failures=tuple(failures))
    return TaskRow(api=api, private=private)


@given(st.lists(st.one_of(task_rows(), st.sampled_from(["n0", "n1"])), max_size=15))
def test_the_ledger_is_what_a_rebuild_would_be(steps: list[TaskRow | str]) -> None:
    """Exchanging changed rows one by one gives what reading all rows gives, at every step."""
    world = World()
    ledger = Ledger()
    ledger.refresh(world.view, None)
    tables = world.store.view
    for step in steps:
        if isinstance(step, str):
            known = tables.node(step)
            row: NodeRow | TaskRow = known or make_node(step)
        else:
            row = step
        ref = ref_of(row)
        if tables.row(ref) is None or (ref.kind is Kind.TASK and tables.row(ref) != row):
            tables.put(row)
        else:
            tables.drop(ref)
        ledger.refresh(tables, {ref})
        fresh = Ledger()
        fresh.rebuild(tables)
        assert contents(ledger) == contents(fresh)


def test_a_ledger_that_is_behind_is_built_anew() -> None:
    """A decision on a view that is newer than the cache reads everything again."""
    world = World()
    scheduling = Scheduling(SpreadScheduler())
    scheduling.keys(world.view, None)
    world.node("n0")
    world.service("web", spec())
    while world.turn(("orchestrator", "allocator")):
        pass
    decision = scheduling.decide(world.view.overlay(), "everything", world.now, world.new_id)
    assert len(decision.transactions) == 1
    assert world.store.apply(
        world.store.index + 1, Entry(transactions=decision.transactions)
    ).results
