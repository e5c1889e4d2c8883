"""The store under anything: any entry that decodes is applied or refused, the same everywhere."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.change import (
    Advance,
    Applied,
    At,
    AtLeast,
    Conflict,
    Create,
    Delete,
    Entry,
    Exists,
    Free,
    Index,
    Kind,
    Ref,
    SpecAt,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.codec import decode_entry, pack
from swarmctl.core.model.objects import (
    ClusterRow,
    ConfigRow,
    NetworkRow,
    NodeRow,
    SecretRow,
    ServiceRow,
    TaskRow,
)
from swarmctl.core.store.dump import dump, load
from swarmctl.core.store.indexes import keys_of, ref_of
from swarmctl.core.store.store import Store, lay
from swarmctl.core.store.view import Tables, View
from tests.core.model.builders import structs

# Few ids and small versions, so that rows meet: most random rows would never touch each other.
IDS = ("", "a", "b")
SEEDS = {
    ClusterRow: structs(ClusterRow),
    NodeRow: structs(NodeRow),
    ServiceRow: structs(ServiceRow),
    TaskRow: structs(TaskRow),
    SecretRow: structs(SecretRow),
    ConfigRow: structs(ConfigRow),
    NetworkRow: structs(NetworkRow),
}
ids = st.sampled_from(IDS)
refs = st.builds(Ref, st.sampled_from(list(Kind)), ids)
versions = st.integers(0, 6)
keys = st.sampled_from(["", "a/1", "a/b", "tcp/80", "worker", "manager"])
indexes = st.sampled_from(list(Index))


def _placed(row: object, row_id: str, version: int) -> object:
    """Give a row an id and a version that others may have, too."""
    if isinstance(row, NetworkRow):
        return replace(
            row, api=replace(row.api, Id=row_id), private=replace(row.private, version=version)
        )
    api = row.api  # type: ignore[attr-defined]
    placed = replace(api, ID=row_id, Version=replace(api.Version, Index=version))
    return replace(row, api=placed)  # type: ignore[type-var]


rows = st.one_of([st.builds(_placed, seed, ids, versions) for seed in SEEDS.values()])
changes = st.one_of(
    st.builds(Create, row=rows),
    st.builds(Update, row=rows),
    st.builds(Delete, ref=refs, version=versions),
    st.builds(lambda one, task_id: replace(one, task_id=task_id), structs(Advance), ids),
)
requirements = st.one_of(
    st.builds(Exists, ref=refs),
    st.builds(At, ref=refs, version=versions),
    st.builds(SpecAt, ref=refs, index=versions),
    st.builds(Unreferenced, ref=refs),
    st.builds(Free, index=indexes, key=keys, holder=ids),
    st.builds(AtLeast, index=indexes, key=keys, count=st.integers(-1, 2)),
)
transactions = st.builds(
    Transaction,
    changes=st.lists(changes, max_size=3).map(tuple),
    requires=st.lists(requirements, max_size=2).map(tuple),
    request_id=st.sampled_from(["", "", "r1", "r2"]),
    note=st.sampled_from([b"", b"one", b"other"]),
    now=st.integers(-(2**63), 2**63 - 1),
)
entries = st.builds(Entry, transactions=st.lists(transactions, max_size=3).map(tuple))
logs = st.lists(entries, max_size=4)


def contents(view: View) -> dict[Ref, object]:
    """Return every row of a view."""
    return {ref_of(row): row for kind in Kind for row in view.rows(kind)}


def found(view: View, known: set[tuple[str, ...]]) -> dict[tuple[str, ...], set[str]]:
    """Return what a view finds under these index keys, without those that find nothing."""
    answers = {key: list(view.ids(key)) for key in known}
    for ids_found in answers.values():
        assert len(ids_found) == len(set(ids_found))
    return {key: set(ids_found) for key, ids_found in answers.items() if ids_found}


def rebuilt(view: View) -> Tables:
    """Return tables made from nothing but a view's rows."""
    fresh = Tables()
    for row in contents(view).values():
        fresh.put(row)  # type: ignore[arg-type]
    return fresh


@given(logs)
@settings(max_examples=80)
def test_any_decodable_entry_is_applied_or_refused(log: list[Entry]) -> None:
    """No entry that decodes raises; each of its transactions gets an answer; indexes stay true."""
    store = Store()
    for index, entry in enumerate(log, start=1):
        outcome = store.apply(index, decode_entry(pack(entry)))
        assert len(outcome.results) == len(entry.transactions)
        assert all(isinstance(one, (Applied, Conflict)) for one in outcome.results)
    known = {key for row in contents(store.view).values() for key in keys_of(row)}  # type: ignore[arg-type]
    assert found(store.view, known) == found(rebuilt(store.view), known)


@given(logs)
@settings(max_examples=80)
def test_the_same_bytes_make_the_same_tables(log: list[Entry]) -> None:
    """Two stores fed the same entries are equal, and so is one that came in by snapshot midway."""
    one, other, late = Store(), Store(), Store()
    for index, entry in enumerate(log, start=1):
        data = pack(entry)
        results = one.apply(index, decode_entry(data)).results
        assert other.apply(index, decode_entry(data)).results == results
        if index == len(log) // 2 + 1:
            load(late, list(dump(one)))
        elif index > len(log) // 2 + 1:
            assert late.apply(index, decode_entry(data)).results == results
    assert one.contents() == other.contents()
    if log:
        assert contents(late.view) == contents(one.view)
        assert late.index == one.index
        assert list(dump(late)) == list(dump(one))


@given(logs, st.lists(changes, max_size=6))
@settings(max_examples=80)
def test_an_overlay_is_what_a_rebuild_would_be(log: list[Entry], laid: list[object]) -> None:
    """Rows and indexes of an overlay equal those of tables made from its rows, at any depth."""
    store = Store()
    for index, entry in enumerate(log, start=1):
        store.apply(index, entry)
    before = contents(store.view)
    low = store.view.overlay()
    high = low.overlay()
    known: set[tuple[str, ...]] = set()
    for place, change in enumerate(laid):
        for row in [*contents(high).values()]:
            known.update(keys_of(row))  # type: ignore[arg-type]
        lay(low if place < len(laid) // 2 else high, change, 9, 9)  # type: ignore[arg-type]
    for row in contents(high).values():
        known.update(keys_of(row))  # type: ignore[arg-type]
    assert found(high, known) == found(rebuilt(high), known)
    assert found(low, known) == found(rebuilt(low), known)
    assert contents(store.view) == before
