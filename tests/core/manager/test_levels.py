"""The format level that managers agree on: the lowest of theirs, and never lower again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.core.manager import levels
from swarmctl.core.model import change
from swarmctl.core.model.change import Advance, Delete, Kind, Ref, Update, level_of
from swarmctl.core.model.codec import unpack
from swarmctl.core.model.objects import NodePrivate
from swarmctl.core.model.task import TaskStatus
from swarmctl.core.store.dump import DumpChunk, dump
from tests.core.pipeline.world import World

if TYPE_CHECKING:
    import pytest


def managers(world: World, **known: int) -> None:
    """Set the release levels of managers, by node."""
    for number, (name, level) in enumerate(known.items(), 1):
        row = world.view.node(name) or world.node(name)
        private = replace(row.private, raft_id=number, format_level=level)
        world.write(Update(row=replace(row, private=private)))


def cluster_level(world: World) -> int:
    cluster = world.view.cluster()
    assert cluster is not None
    return cluster.private.format_level


def test_it_goes_up_with_the_last_manager() -> None:
    """While one has the older release nothing changes; workers do not count; it comes to rest."""
    world = World()
    world.node("worker")
    managers(world, a=2, b=1, c=3)
    world.settle()
    assert cluster_level(world) == 1
    managers(world, b=2)
    world.settle()
    assert cluster_level(world) == 2
    assert world.wishes() == []
    managers(world, a=1)  # whoever comes back older is not let in; the tables never go back
    world.settle()
    assert cluster_level(world) == 2


def test_a_manager_that_comes_meanwhile_holds_it_up() -> None:
    """Raising it rests on the rows of the managers that it was decided upon."""
    world = World()
    managers(world, a=2)
    (raised,) = levels.decide(world.view, levels.KEY, 0, world.new_id).transactions
    managers(world, a=1)
    (result,) = world.apply(raised)
    assert isinstance(result, change.Conflict)
    assert cluster_level(world) == 1


def test_entries_have_the_level_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer release writes what the older ones know; before it is founded, what it knows."""
    world = World()
    monkeypatch.setattr(levels, "FORMAT_LEVEL", 2)
    assert levels.format_level(world.view) == 1
    managers(world, a=3)
    world.settle()
    assert (cluster_level(world), levels.format_level(world.view)) == (3, 2)
    first = unpack(next(iter(dump(world.store))), DumpChunk)
    assert first.level == change.FORMAT_LEVEL


def test_what_is_newer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new kind of change, and a new field that is used, need the level that they came with."""
    world = World()
    node = world.node("a")
    plain = Update(row=node)
    marked = Update(row=replace(node, private=replace(node.private, manager_addr="x:1")))
    gone = Delete(ref=Ref(Kind.NODE, "a"), version=1)
    assert level_of([plain, marked, gone]) == 1
    monkeypatch.setitem(change.NEWER_KINDS, Delete, 2)
    monkeypatch.setitem(change.NEWER_FIELDS, NodePrivate, {"manager_addr": 3})
    assert level_of([plain, Advance(task_id="t", status=TaskStatus())]) == 1
    assert level_of([plain, gone]) == 2
    assert level_of([gone, marked]) == 3
