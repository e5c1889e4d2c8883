"""Snapshots: round trips, chunks, and snapshots that are not whole."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.change import AtLeast, Create, Entry, Index, Transaction, Update
from swarmctl.core.model.codec import pack, unpack
from swarmctl.core.model.objects import Config, ConfigRow, ConfigSpec, ServiceRow
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import ServiceSpec
from swarmctl.core.model.task import TaskState
from swarmctl.core.store.dump import CHUNK_BYTES, ROWS_PER_CHUNK, BadDump, DumpChunk, dump, load
from swarmctl.core.store.store import Store
from tests.core.pipeline.world import World, spec


def busy_store() -> Store:
    """A store with rows of several kinds, indexes and remembered answers."""
    world = World()
    for number in range(3):
        world.node(f"n{number}")
    world.service("web", spec(replicas=5))
    world.run()
    world.apply(Transaction(changes=(), request_id="r1"))
    return world.store


def test_a_round_trip_keeps_everything() -> None:
    """A restored store has the same rows, index, answers, and finds rows under the same keys."""
    store, copy = busy_store(), Store()
    view = copy.view
    load(copy, dump(store))
    assert copy.contents() == store.contents()
    assert copy.index == store.index
    assert copy.view is view
    assert len(view.tasks_at(TaskState.RUNNING)) == len(view.tasks_of("web")) == 5
    assert list(dump(copy)) == list(dump(store))


def test_a_restored_store_judges_like_one_that_saw_it_all() -> None:
    """The same entry gets the same answer, to the last id, whether rows came by log or snapshot."""
    world = World()
    for node_id in ("n0", "n1"):
        world.node(node_id)
    for role in ("manager", "worker"):  # n0's wish was another one in between
        row = world.view.node("n0")
        assert row is not None
        wished = replace(row.api, Spec=replace(row.api.Spec, Role=role))
        world.write(Update(row=replace(row, api=wished)))
    copy = Store()
    load(copy, dump(world.store))
    needed = AtLeast(index=Index.WISH, key="worker", count=3)
    entry = Entry(transactions=(Transaction(changes=(), requires=(needed,)),))
    index = world.store.index + 1
    assert world.store.apply(index, entry) == copy.apply(index, entry)


def test_loading_forgets_what_was_there() -> None:
    """Nothing of a store's former contents survives a snapshot."""
    store, copy = Store(), busy_store()
    load(copy, dump(store))
    assert copy.contents() == ([], [])
    assert copy.view.tasks_of("web") == []
    assert copy.answer_of("r1") is None


def test_a_dump_is_of_its_moment() -> None:
    """What is applied while a dump is being read is not in it."""
    store, copy = busy_store(), Store()
    before = store.contents()
    chunks = dump(store)
    next_row = ServiceRow(api=Service(ID="late", Spec=ServiceSpec(Name="late")))
    entry = Entry(transactions=(Transaction(changes=(Create(row=next_row),)),))
    store.apply(store.index + 1, entry)
    load(copy, chunks)
    assert copy.contents() == before


def test_large_tables_come_in_chunks() -> None:
    """No chunk holds more rows than a caller wants to encode in one stretch; the last says so."""
    world = World()
    world.service("web", spec(replicas=ROWS_PER_CHUNK * 2))
    world.settle()
    chunks = [unpack(data, DumpChunk) for data in dump(world.store)]
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert max(len(chunk.rows) for chunk in chunks) == ROWS_PER_CHUNK
    assert sum(len(chunk.rows) for chunk in chunks) == 2 + ROWS_PER_CHUNK * 2


def test_large_rows_make_small_chunks() -> None:
    """Rows that are large make chunks of fewer rows, so that none outgrows a frame."""
    store = Store()
    rows = [
        ConfigRow(api=Config(ID=f"c{n}", Spec=ConfigSpec(Name=f"c{n}", Data=b"x" * 100_000)))
        for n in range(50)
    ]
    store.apply(1, Entry(transactions=tuple(Transaction(changes=(Create(row=r),)) for r in rows)))
    chunks = list(dump(store))
    assert max(len(data) for data in chunks) <= CHUNK_BYTES
    copy = Store()
    load(copy, chunks)
    assert copy.contents() == store.contents()


def test_a_restored_store_shares_specs() -> None:
    """Tasks of one service version share their spec after a restart, too."""
    copy = Store()
    load(copy, dump(busy_store()))
    assert len({id(row.api.Spec) for row in copy.view.tasks()}) == 1


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda _chunks: [], "incomplete"),
        (lambda chunks: chunks[:-1], "incomplete"),
        (lambda chunks: [chunks[0], *chunks[2:]], "missing"),
        (lambda chunks: chunks[1:], "missing"),
        (lambda chunks: [*chunks, chunks[-1]], "missing"),
        (lambda chunks: [chunks[0], b"\xc1", *chunks[2:]], "cannot be read"),
        (lambda chunks: [chunks[0][:-1], *chunks[1:]], "cannot be read"),
        (lambda _chunks: [pack(DumpChunk(number=0, level=99))], "upgrade swarmctl"),
    ],
)
def test_a_snapshot_that_is_not_whole_changes_nothing(damage: object, text: str) -> None:
    """Missing, repeated, damaged or newer chunks are refused in words; the store is as before."""
    store = busy_store()
    chunks = list(dump(store))
    target = busy_store()
    before = target.contents()
    with pytest.raises(BadDump, match=text):
        load(target, damage(chunks))  # type: ignore[operator]
    assert target.contents() == before
    assert target.view.service("web") is not None
