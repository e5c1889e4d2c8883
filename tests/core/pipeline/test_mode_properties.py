"""Global services and jobs under anything that may happen: safety, convergence, quiescence.

The same kind of histories as in ``test_properties``, with a service and a job on every node and a
job of many completions, nodes that join and leave, and tasks that complete.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.change import Kind
from swarmctl.core.model.spec import Placement, RestartPolicy, TaskSpec, UpdateConfig
from swarmctl.core.model.task import TaskState
from swarmctl.core.orchestrator.jobs import RECOUNT_NS
from swarmctl.core.orchestrator.restart import STOP_TIMEOUT_NS
from swarmctl.core.orchestrator.slots import is_of_run, run_of
from tests.core.pipeline.world import World, everywhere, everywhere_once, job

if TYPE_CHECKING:
    from swarmctl.core.model.objects import ServiceRow, TaskRow
    from swarmctl.core.model.spec import ServiceSpec

NODES = ("n0", "n1", "n2")
GUEST = "n3"
LABELLED = ("n0", "n1", GUEST)
RECONCILERS = ("orchestrator", "reaper", "enforcer", "allocator", "scheduler")

nodes = st.sampled_from((*NODES, GUEST))
variants = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.just("set"), st.sampled_from("gjs"), variants),
    st.tuples(st.just("remove"), st.sampled_from("gjs")),
    st.tuples(st.just("turn"), st.sampled_from(RECONCILERS)),
    st.tuples(st.just("turns")),
    st.tuples(st.just("turns")),
    st.tuples(st.just("agents")),
    st.tuples(st.just("agents")),
    st.tuples(st.just("node"), nodes, st.sampled_from(["ready", "down", "unknown"])),
    st.tuples(st.just("spec"), nodes, st.sampled_from(["active", "drain", "pause"])),
    st.tuples(st.just("label"), nodes, st.sampled_from(["a", "b"])),
    st.tuples(st.just("guest")),
    st.tuples(st.just("cut"), nodes),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["failed", "complete"])),
    st.tuples(st.just("time"), st.sampled_from([1, 3, 70])),
    st.tuples(st.just("lead")),
)
histories = st.lists(steps, min_size=10, max_size=40).map(
    lambda history: [*(("set", name, 0) for name in "gjs"), ("turns",), ("agents",), *history]
)


def wanted(name: str, variant: int) -> ServiceSpec:
    """What a service asks for: image, numbers and constraints vary."""
    image = f"{name}:{variant % 3}"
    placement = Placement(Constraints=("node.labels.zone == a",)) if variant % 2 else None
    task = TaskSpec(Placement=placement, RestartPolicy=RestartPolicy(Delay=variant % 2 * SECOND))
    if name == "g":
        update = UpdateConfig(Parallelism=variant % 3)
        return everywhere(name, image=image, task=task, update=update)
    if name == "s":
        return everywhere_once(name, image=image, task=task)
    return job(2 + variant, 1 + variant % 3, name, image=image)


class Onlooker:
    """What has to be remembered to judge the tables: who was lost, and who was asked to stop when.

    Nobody waits for a task on a node that was taken for lost, nor longer than a minute for any.
    """

    def __init__(self) -> None:
        self._excused: set[str] = set()
        self._asked: dict[str, int] = {}

    def look(self, world: World) -> None:
        """See that nothing is wrong now."""
        self._remember(world)
        places = Counter(key for row in world.tasks() for key in exclusive(row))
        assert not [place for place, count in places.items() if count > 1]
        for service in world.view.services():
            if service.api.Spec.Mode.ReplicatedJob is not None:
                self._look_at_job(world, service)

    def _remember(self, world: World) -> None:
        for row in world.tasks():
            node = world.view.node(row.api.NodeID)
            if row.api.NodeID and (node is None or node.api.Status.State == "down"):
                self._excused.add(row.api.ID)
            if row.api.DesiredState > TaskState.COMPLETE:
                asked = self._asked.setdefault(row.api.ID, world.now)
                if world.now - asked >= STOP_TIMEOUT_NS:
                    self._excused.add(row.api.ID)

    def _look_at_job(self, world: World, service: ServiceRow) -> None:
        numbers = service.api.Spec.Mode.ReplicatedJob
        run = run_of(service)
        counted = [row for row in world.tasks(service.api.ID) if row.api.ID not in self._excused]
        running = [row for row in counted if row.api.Status.State is TaskState.RUNNING]
        if any(is_of_run(row, run) for row in running):
            assert len(running) <= numbers.MaxConcurrent
        complete = [
            row
            for row in counted
            if row.api.Status.State is TaskState.COMPLETE and is_of_run(row, run)
        ]
        assert len(complete) <= numbers.TotalCompletions


def exclusive(row: TaskRow) -> list[tuple[str, ...]]:
    """The places that only one task may hold."""
    if row.api.JobIteration is None:
        held = row.api.DesiredState <= TaskState.RUNNING
        return [(row.api.ServiceID, row.place)] if held else []
    if row.api.DesiredState > TaskState.COMPLETE:
        return []
    return [(row.api.ServiceID, row.place, str(row.api.JobIteration.Index))]


def small_cluster() -> World:
    world = World(history=2)
    for node_id in NODES:
        world.node(node_id, labels={"zone": "a" if node_id in LABELLED else "b"})
    return world


def act(world: World, step: tuple) -> None:
    """Do one step of a history; one that makes no sense now does nothing."""
    kind, *rest = step
    if kind == "set":
        name, variant = rest
        found = world.view.by_name(Kind.SERVICE, name)
        if found is None:
            world.service(f"{name}-{world.new_id()}", wanted(name, variant))  # ids never come back
        else:
            world.update(found.api.ID, wanted(name, variant))
    elif kind == "remove":
        found = world.view.by_name(Kind.SERVICE, rest[0])
        if found is not None:
            world.remove_service(found.api.ID)
    elif kind == "guest":
        if world.view.node(GUEST) is None:
            world.node(GUEST, labels={"zone": "a"})
        else:
            world.remove_node(GUEST)
    elif kind in ("node", "spec", "label") and world.view.node(rest[0]) is not None:
        field = {"node": "state", "spec": "availability", "label": "labels"}[kind]
        value = {"zone": rest[1]} if kind == "label" else rest[1]
        world.set_node(rest[0], **{field: value})
    elif kind == "cut":
        world.cut ^= {rest[0]}
    elif kind == "end":
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


def heal(world: World, onlooker: Onlooker) -> None:
    """Bring every node back, and let the jobs' tasks complete until nothing is left to do."""
    world.cut.clear()
    for row in list(world.view.nodes()):
        zone = "a" if row.api.ID in LABELLED else "b"
        world.set_node(row.api.ID, state="ready", availability="active", labels={"zone": zone})
    for _ in range(40):
        world.sleep(3 * SECOND)
        onlooker.look(world)
        for row in world.tasks():
            if row.api.JobIteration is not None and row.api.Status.State is TaskState.RUNNING:
                world.end(row, TaskState.COMPLETE)
    world.sleep(70 * SECOND)
    onlooker.look(world)


def result(world: World) -> dict[str, list[tuple[str, str]]]:
    """What runs, or of the present run was completed, by place."""
    found: dict[str, list[tuple[str, str]]] = {}
    for service in world.view.services():
        run = run_of(service)
        ends = [
            (row.place, row.api.Spec.ContainerSpec.Image)
            for row in world.tasks(service.api.ID)
            if (
                row.api.Status.State is TaskState.COMPLETE and is_of_run(row, run)
                if run is not None
                else row.api.Status.State is TaskState.RUNNING
            )
        ]
        found[service.api.Spec.Name] = sorted(set(ends))
    return found


def expected(world: World) -> dict[str, list[tuple[str, str]]]:
    """What the services ask for on the nodes that there are, all of them well."""
    found: dict[str, list[tuple[str, str]]] = {}
    here = [row.api.ID for row in world.view.nodes()]
    for service in world.view.services():
        spec = service.api.Spec
        placement = spec.TaskTemplate.Placement
        suit = [node for node in here if node in LABELLED] if placement is not None else here
        numbers = spec.Mode.ReplicatedJob
        if numbers is not None:
            suit = [str(slot) for slot in range(numbers.TotalCompletions)]
        image = spec.TaskTemplate.ContainerSpec.Image
        found[service.api.Spec.Name] = sorted((place, image) for place in suit)
    return found


def wanted_of(had: list[tuple[str, str]], asked: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [one for one in had if one in asked]


@given(histories)
@settings(max_examples=250)
def test_nothing_bad_happens_and_all_is_well_in_the_end(history: list[tuple]) -> None:
    """Safety holds after every step; once nodes are back, all that was asked for is there."""
    world, onlooker = small_cluster(), Onlooker()
    for step in history:
        act(world, step)
        onlooker.look(world)
    heal(world, onlooker)
    ended, asked = result(world), expected(world)
    for name, places in asked.items():
        assert wanted_of(ended[name], places) == places
        # What a node completed that is gone since, or does not suit any more, stays for the run.
        assert name == "s" or ended[name] == places
    assert {row.private.service_name for row in world.tasks()} <= set(ended)


@given(histories)
@settings(max_examples=100)
def test_every_reconciler_comes_to_rest(history: list[tuple]) -> None:
    """When passes end, a fresh reconciler of any kind wants nothing: decide, apply, nothing.

    A job counts again a moment later what was deleted before it was seen to stop.
    """
    world = small_cluster()
    for step in history:
        act(world, step)
    world.sleep(2 * RECOUNT_NS)
    assert world.wishes() == []
    world.lead()
    assert world.settle() == 0


@given(histories, st.integers(0, 25))
@settings(max_examples=100)
def test_a_change_of_leaders_changes_nothing(history: list[tuple], at: int) -> None:
    """A history with one more change of leaders, anywhere in it, ends in the same state."""
    ends = []
    for extra in (False, True):
        world, onlooker = small_cluster(), Onlooker()
        for place, step in enumerate(history):
            if extra and place == at:
                world.lead()
            act(world, step)
        heal(world, onlooker)
        asked = expected(world)
        ends.append({name: wanted_of(had, asked[name]) for name, had in result(world).items()})
    assert ends[0] == ends[1]
