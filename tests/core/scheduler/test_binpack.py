"""The strategy ``binpack``, and who lays out a service that asks for a strategy."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.labels import STRATEGY
from swarmctl.core.scheduler.decide import Candidate
from swarmctl.plugins.binpack import BinpackScheduler
from tests.core.pipeline.world import World, make_node, spec
from tests.core.scheduler.test_swarm_scenarios import GIB, reserving, where

if TYPE_CHECKING:
    from swarmctl.core.model.spec import ServiceSpec


def packed(wanted: ServiceSpec) -> ServiceSpec:
    """The same service, to be packed."""
    return replace(wanted, Labels={STRATEGY: "binpack"})


def test_one_node_is_filled_before_the_next_is_touched() -> None:
    """Reservations make a node full; what does not fit any more begins another node."""
    world = World()
    for node in ("n0", "n1", "n2"):
        world.node(node, cpus=4)
    world.service("web", packed(spec(replicas=5, task=reserving(1))))
    world.settle()
    assert where(world, "web") == {"n0": 4, "n1": 1}


def test_the_fullest_node_comes_first() -> None:
    """Among nodes of different sizes the larger part that is taken decides, not the amount."""
    world = World()
    world.node("large", cpus=16)
    world.node("small", cpus=2)
    world.service("base", replace(spec("base", replicas=2, task=reserving(1))))
    world.settle()  # spread: one on each; small is half full
    world.service("web", packed(spec(task=reserving(0.5))))
    world.settle()
    assert where(world, "web") == {"small": 1}


def test_both_strategies_live_side_by_side() -> None:
    """Each service is laid out as it asks; one that asks for nothing is spread."""
    world = World()
    for node in ("n0", "n1", "n2"):
        world.node(node)
    world.service("even", spec("even", replicas=3))
    world.service("tight", packed(spec("tight", replicas=3)))
    world.settle()
    assert where(world, "even") == {"n0": 1, "n1": 1, "n2": 1}
    assert where(world, "tight") == {"n0": 3}


def test_a_strategy_that_is_gone_leaves_the_service_to_the_default() -> None:
    """A leader without that plugin places tasks all the same."""
    world = World()
    world.node("n0")
    world.node("n1")
    world.service("web", replace(spec(replicas=2), Labels={STRATEGY: "lost"}))
    world.settle()
    assert where(world, "web") == {"n0": 1, "n1": 1}


def test_preferences_come_before_packing() -> None:
    """Zones stay level; within a zone one node is filled first."""
    world = World()
    for zone in ("a", "b"):
        for number in (0, 1):
            world.node(f"{zone}{number}", labels={"zone": zone}, cpus=4)
    world.service("web", packed(spec(replicas=4, task=reserving(1, 0, "zone"))))
    world.settle()
    assert where(world, "web") == {"a0": 2, "b0": 2}


def test_a_node_where_it_keeps_failing_is_the_last_choice() -> None:
    """Being full does not make up for failures."""
    nodes = [
        Candidate(make_node("n0"), 9, 0, 5, 5, cpu=4 * 10**9),
        Candidate(make_node("n1"), 9, 0, 0, 0),
    ]
    assert BinpackScheduler().fill(nodes, 2) == ["n1", "n1"]


@given(
    nodes=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(0, 16)), min_size=1, max_size=6
    ),
    wanted=st.integers(1, 12),
)
def test_it_opens_no_node_while_another_has_room(
    nodes: list[tuple[int, int, int]], wanted: int
) -> None:
    """All rooms but the last one touched are used up, and nothing is left out that fits."""
    candidates = [
        Candidate(make_node(f"n{at}"), room, 0, tasks, 0, cpu=cpu * 10**8, memory=cpu * GIB // 2)
        for at, (room, tasks, cpu) in enumerate(nodes)
    ]
    chosen = BinpackScheduler().fill(candidates, wanted)
    used = Counter(chosen)
    room = {one.node.api.ID: one.room for one in candidates}
    assert len(chosen) == min(wanted, sum(room.values()))
    assert sum(used[node] < room[node] for node in used) <= 1
    assert all(used[node] <= room[node] for node in used)


@pytest.mark.parametrize("cpus", [0, 8])
def test_a_node_that_tells_nothing_of_itself_is_empty(cpus: int) -> None:
    """A node without a description does not break the order."""
    nodes = [Candidate(make_node("n0", cpus=cpus, memory=0), 1, 0, 0, 0, cpu=5, memory=5)]
    assert BinpackScheduler().fill(nodes, 1) == ["n0"]
