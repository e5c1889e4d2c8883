"""Rebalancing: tasks move to a node that joined or came back, and to no other, and then rest."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.base import MINUTE, SECOND
from swarmctl.core.model.labels import REBALANCE
from swarmctl.core.model.spec import Placement, PlacementPreference, SpreadOver, TaskSpec
from swarmctl.core.model.task import TaskState
from tests.core.pipeline.world import World, spec
from tests.core.scheduler.test_swarm_scenarios import reserving

if TYPE_CHECKING:
    from swarmctl.core.model.spec import ServiceSpec


def on_join(wanted: ServiceSpec) -> ServiceSpec:
    """The same service, to be rebalanced."""
    return replace(wanted, Labels={REBALANCE: "on-join"})


def where(world: World, service_id: str = "web") -> dict[str, int]:
    """How many tasks of a service run on each node."""
    return dict(Counter(row.api.NodeID for row in world.running(service_id)))


class Floor:
    """Watches that a service never has fewer running tasks than it asks for."""

    def __init__(self, world: World, replicas: int) -> None:
        self._world = world
        self._replicas = replicas
        self.most = 0

    def sleep(self, ns: int) -> None:
        """Let time pass, one turn of everybody at a time, and look after each."""
        world, end = self._world, self._world.now + ns
        while True:
            busy = world.turn()
            self._look()
            busy |= world.agents()
            self._look()
            if busy:
                continue
            wake = world.next_wake()
            if wake is None or wake > end:
                break
            world.now = max(world.now, wake)
        world.now = end

    def _look(self) -> None:
        running = len(self._world.running("web"))
        assert running >= self._replicas
        self.most = max(self.most, running)


def test_tasks_move_to_a_node_that_joins() -> None:
    """One after the other, start-first, until the service is even; then nothing moves any more."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", on_join(spec(replicas=6)))
    world.run()
    world.sleep(MINUTE)
    assert where(world) == {"n0": 3, "n1": 3}
    world.node("n2")
    floor = Floor(world, 6)
    floor.sleep(2 * MINUTE)
    assert where(world) == {"n0": 2, "n1": 2, "n2": 2}
    assert floor.most == 7, "never more than one at a time"
    assert world.wishes() == []
    before = {row.api.ID for row in world.running("web")}
    floor.sleep(60 * MINUTE)
    assert {row.api.ID for row in world.running("web")} == before


def test_a_task_that_was_stopped_and_deleted_at_once_holds_up_no_move() -> None:
    """A task that is being stopped holds up moves; it may end and be deleted between two looks,
    and then nothing says any more whose it was."""
    world = World()
    world.node("n1")
    world.node("n2")
    world.service("web", on_join(spec(replicas=3)))
    world.run()
    assert where(world) == {"n1": 2, "n2": 1}
    world.node("n3")
    world.scale("web", 2)
    world.set_node("n2", state="down")
    world.turn()  # the task there goes, but nobody can stop it
    world.now += SECOND
    world.set_node("n2", state="ready")
    world.sleep(5 * MINUTE)
    assert world.wishes() == []
    assert sorted(where(world).values()) == [1, 1]


def test_nothing_moves_unasked() -> None:
    """Without the label a new node stays empty, as in Swarm."""
    world = World()
    world.node("n0")
    world.service("web", spec(replicas=4))
    world.run()
    world.node("n1")
    world.sleep(10 * MINUTE)
    assert where(world) == {"n0": 4}


def test_a_node_that_returns_gets_its_share_again() -> None:
    """What moved away while a node was down comes back when it has been there for a while."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", on_join(spec(replicas=4)))
    world.run()
    world.set_node("n1", state="down")
    world.sleep(MINUTE)
    assert where(world) == {"n0": 4}
    world.set_node("n1", state="ready")
    world.sleep(9 * SECOND)
    assert where(world) == {"n0": 4}, "it may go again at once"
    world.sleep(MINUTE)
    assert where(world) == {"n0": 2, "n1": 2}


def test_a_node_that_is_active_again_counts_as_returned() -> None:
    """A drain that ends is a return."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", on_join(spec(replicas=4)))
    world.run()
    world.set_node("n1", availability="drain")
    world.sleep(MINUTE)
    world.set_node("n1", availability="active")
    world.sleep(2 * MINUTE)
    assert where(world) == {"n0": 2, "n1": 2}


def test_what_became_uneven_otherwise_stays() -> None:
    """On join means on join: a service that its own scaling left uneven is left alone."""
    world = World()
    world.node("n0", cpus=8)
    world.node("n1", cpus=2)
    there = replace(reserving(2), Placement=Placement(Constraints=("node.id==n1",)))
    world.service("fill", spec("fill", replicas=1, task=there))
    world.run()
    world.service("web", on_join(spec(replicas=4, task=reserving(1))))
    world.run()
    world.remove_service("fill")
    world.sleep(10 * MINUTE)
    assert where(world) == {"n0": 4}


def test_a_full_node_gets_nothing_until_there_is_room() -> None:
    """Filters decide before anything moves; it is looked at again every minute."""
    world = World()
    world.node("n0", cpus=8)
    world.service("web", on_join(spec(replicas=4, task=reserving(1))))
    world.run()
    world.node("n1", cpus=1)
    world.service("big", spec("big", task=reserving(1)))
    world.run()
    assert where(world, "big") == {"n1": 1}
    world.sleep(5 * MINUTE)
    assert where(world) == {"n0": 4}
    world.remove_service("big")
    world.sleep(3 * MINUTE)
    assert where(world) == {"n0": 3, "n1": 1}


def test_a_move_that_fails_is_given_up() -> None:
    """The task stays where it is, and the node gets no more of them until it comes anew."""
    world = World()
    world.node("n0")
    world.service("web", on_join(spec(replicas=3)))
    world.run()
    world.node("n1")
    world.cut.add("n1")  # its tasks are ours to end
    world.sleep(11 * SECOND)
    (moving,) = (row for row in world.tasks("web") if row.private.relieves)
    assert (moving.api.NodeID, moving.api.Status.State) == ("n1", TaskState.ASSIGNED)
    world.end(moving, TaskState.REJECTED)
    world.sleep(30 * MINUTE)
    assert where(world) == {"n0": 3}
    assert sum(1 for row in world.tasks("web") if row.private.relieves) == 1
    assert world.wishes() == []
    world.cut.clear()
    world.set_node("n1", state="down")
    world.set_node("n1", state="ready")
    world.sleep(2 * MINUTE)
    assert where(world) == {"n0": 2, "n1": 1}


def test_a_move_that_hangs_is_given_up() -> None:
    """A task that does not come to run within five minutes is taken back."""
    world = World()
    world.node("n0")
    world.service("web", on_join(spec(replicas=3)))
    world.run()
    world.node("n1")
    world.cut.add("n1")
    world.sleep(7 * MINUTE)
    assert where(world) == {"n0": 3}
    assert len(world.runnable("web")) == 3


def test_an_update_has_precedence() -> None:
    """A service that is updated while a task moves comes out updated and whole."""
    world = World()
    world.node("n0")
    world.service("web", on_join(spec(replicas=4)))
    world.run()
    world.node("n1")
    world.cut.add("n1")
    world.sleep(11 * SECOND)
    world.cut.clear()
    world.update("web", on_join(spec(replicas=4, image="nginx:2")))
    world.sleep(10 * MINUTE)
    images = {row.api.Spec.ContainerSpec.Image for row in world.running("web")}  # type: ignore[union-attr]
    assert images == {"nginx:2"}
    assert len(world.running("web")) == len(world.runnable("web")) == 4


def test_a_change_of_leaders_in_the_middle_changes_nothing() -> None:
    """Where a move stands is in the tables."""
    world = World()
    world.node("n0")
    world.service("web", on_join(spec(replicas=4)))
    world.run()
    world.node("n1")
    floor = Floor(world, 4)
    for _ in range(40):
        floor.sleep(2 * SECOND)
        world.lead()
    assert where(world) == {"n0": 2, "n1": 2}


def test_zones_are_levelled_before_nodes() -> None:
    """A new node of the emptier zone gets tasks, one of the fuller zone does not."""
    world = World()
    world.node("a0", labels={"zone": "a"})
    world.node("b0", labels={"zone": "b"})
    placement = Placement(
        Preferences=(PlacementPreference(Spread=SpreadOver(SpreadDescriptor="node.labels.zone")),)
    )
    world.service("web", on_join(spec(replicas=4, task=TaskSpec(Placement=placement))))
    world.run()
    world.node("c0", labels={"zone": "c"})
    world.sleep(2 * MINUTE)
    assert sorted(where(world).values()) == [1, 1, 2]


def unevenness(world: World, zones: dict[str, str]) -> tuple[int, int]:
    """Sums of squares over zones and over nodes: less is more even."""
    nodes = Counter(row.api.NodeID for row in world.running("web"))
    by_zone = Counter(zones[node] for node in nodes.elements())
    return sum(n * n for n in by_zone.values()), sum(n * n for n in nodes.values())


@given(
    zones=st.lists(st.sampled_from("abc"), min_size=2, max_size=6),
    first=st.integers(1, 3),
    replicas=st.integers(1, 8),
    by_zone=st.booleans(),
)
def test_it_ends_and_never_makes_the_spread_worse(
    zones: list[str], first: int, replicas: int, *, by_zone: bool
) -> None:
    """Whatever joins, each move makes the service more even, and there are few of them."""
    world = World()
    names = {f"n{at}": zone for at, zone in enumerate(zones)}
    placement = Placement(
        Preferences=(PlacementPreference(Spread=SpreadOver(SpreadDescriptor="node.labels.zone")),)
    )
    task = TaskSpec(Placement=placement) if by_zone else TaskSpec()
    for node in list(names)[:first]:
        world.node(node, labels={"zone": names[node]})
    world.service("web", on_join(spec(replicas=replicas, task=task)))
    world.run()
    for node in list(names)[first:]:
        world.node(node, labels={"zone": names[node]})
    before = unevenness(world, names)
    floor = Floor(world, replicas)
    for _ in range(replicas + 2):
        floor.sleep(20 * SECOND)
        now = unevenness(world, names)
        if len(world.runnable("web")) == replicas:
            assert (now if by_zone else now[1:]) <= (before if by_zone else before[1:])
            before = now
    floor.sleep(10 * MINUTE)
    assert world.wishes() == []
    moved = [row for row in world.tasks("web") if row.private.relieves]
    assert len(moved) <= replicas
    if not by_zone:
        counts = [where(world).get(node, 0) for node in names]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_service_too_small_to_be_uneven_is_left_alone(replicas: int) -> None:
    """One task is even wherever it is."""
    world = World()
    world.node("n0")
    world.service("web", on_join(spec(replicas=replicas)))
    world.run()
    world.node("n1")
    world.sleep(5 * MINUTE)
    assert sum(where(world).values()) == replicas
    assert world.wishes() == []
