"""Several versions of a secret or config share a name: the rule, in every order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.change import (
    Applied,
    Change,
    Conflict,
    ConflictKind,
    Create,
    Delete,
    Entry,
    Exists,
    Kind,
    Ref,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.objects import ConfigSpec, SecretSpec, ServiceRow
from swarmctl.core.model.payload import PayloadRow, new_payload
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import ContainerSpec, SecretReference, ServiceSpec, TaskSpec
from swarmctl.core.store.dump import dump, load
from swarmctl.core.store.store import Store


def _secret(row_id: str, name: str = "pw", revision: int = 1) -> PayloadRow:
    return new_payload(row_id, SecretSpec(Name=name, Data=row_id.encode()), revision=revision)


class Log:
    """A store, and the entries that it was given."""

    def __init__(self) -> None:
        self.store = Store()

    def write(self, *changes: Change, requires: tuple[Exists | Unreferenced, ...] = ()) -> object:
        """Apply one transaction; return what came of it."""
        entry = Entry(transactions=(Transaction(changes=changes, requires=requires),))
        return self.store.apply(self.store.index + 1, entry).results[0]

    def means(self, name: str = "pw") -> str | None:
        """The id of the version that a name means."""
        row = self.store.view.by_name(Kind.SECRET, name)
        return row.api.ID if row is not None else None


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_name_means_its_newest_version(log: Log) -> None:
    """The next revision takes the name, whatever its case; the one before stays under its id."""
    assert isinstance(log.write(Create(row=_secret("b"))), Applied)
    assert isinstance(log.write(Create(row=_secret("a", "PW", 2))), Applied)
    assert log.means() == log.means("Pw") == "a"
    assert log.store.view.secret("b") is not None
    assert {row.api.ID for row in log.store.view.versions(Kind.SECRET, "pw")} == {"a", "b"}


@pytest.mark.parametrize("revision", [1, 2, 4])
def test_only_the_very_next_revision_may_share_a_name(log: Log, revision: int) -> None:
    """Another first version, the same revision once more, and a gap are conflicts over the name."""
    log.write(Create(row=_secret("v1")))
    log.write(Create(row=_secret("v2", revision=2)))
    answer = log.write(Create(row=_secret("v", revision=revision)))
    assert isinstance(answer, Conflict)
    assert (answer.kind, answer.holders) == (ConflictKind.EXISTS, ("v2",))
    assert log.means() == "v2"


def test_two_make_the_next_version_at_once(log: Log) -> None:
    """The second of two is told that somebody was faster, and nothing of it is done."""
    log.write(Create(row=_secret("v1")))
    assert isinstance(log.write(Create(row=_secret("mine", revision=2))), Applied)
    assert isinstance(log.write(Create(row=_secret("yours", revision=2))), Conflict)
    assert log.means() == "mine"


def test_an_older_version_may_be_changed_but_neither_renamed_nor_renumbered(log: Log) -> None:
    """Labels of an older version change; it can take neither a name nor the newest's place."""
    log.write(Create(row=_secret("v1")))
    log.write(Create(row=_secret("v2", revision=2)))
    log.write(Create(row=_secret("other", "key")))
    old = log.store.view.secret("v1")
    assert old is not None
    labelled = replace(old, api=replace(old.api, Spec=replace(old.api.Spec, Labels={"a": "b"})))
    assert isinstance(log.write(Update(row=labelled)), Applied)
    old = log.store.view.secret("v1")
    assert old is not None
    renamed = replace(old, api=replace(old.api, Spec=replace(old.api.Spec, Name="key")))
    assert isinstance(log.write(Update(row=renamed)), Conflict)
    renumbered = replace(old, api=replace(old.api, Revision=9))
    assert isinstance(log.write(Update(row=renumbered)), Conflict)
    assert log.means() == "v2"


def test_a_new_version_and_the_removal_of_its_name(log: Log) -> None:
    """A version that is made of one that is gone by then is not made."""
    log.write(Create(row=_secret("v1")))
    ref = Ref(Kind.SECRET, "v1")
    version = log.store.view.secret("v1").api.Version.Index  # type: ignore[union-attr] # just made
    assert isinstance(log.write(Delete(ref=ref, version=version)), Applied)
    late = log.write(Create(row=_secret("v2", revision=2)), requires=(Exists(ref=ref),))
    assert late == Conflict(kind=ConflictKind.MISSING, ref=ref)
    assert log.means() is None


@pytest.mark.parametrize("service_first", [True, False])
def test_a_service_and_the_removal_of_its_secret(log: Log, *, service_first: bool) -> None:
    """Whichever is first wins: a service never refers to a version that is gone."""
    log.write(Create(row=_secret("v1")))
    ref = Ref(Kind.SECRET, "v1")
    use = SecretReference(SecretID="v1", SecretName="pw")
    container = ContainerSpec(Image="x", Secrets=(use,))
    spec = ServiceSpec(Name="web", TaskTemplate=TaskSpec(ContainerSpec=container))
    service = ServiceRow(api=Service(ID="s", Spec=spec))
    version = log.store.view.secret("v1").api.Version.Index  # type: ignore[union-attr] # just made
    steps = [
        lambda: log.write(Create(row=service), requires=(Exists(ref=ref),)),
        lambda: log.write(Delete(ref=ref, version=version), requires=(Unreferenced(ref=ref),)),
    ]
    first, second = steps if service_first else reversed(steps)
    assert isinstance(first(), Applied)
    answer = second()
    assert isinstance(answer, Conflict)
    if service_first:
        assert (answer.kind, answer.holders) == (ConflictKind.REFERENCED, ("s",))
    else:
        assert answer.kind is ConflictKind.MISSING


WRITES = st.lists(
    st.tuples(
        st.sampled_from(["create", "delete"]),
        st.integers(0, 9),
        st.sampled_from(["a", "A", "b"]),
        st.integers(1, 4),
        st.booleans(),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(writes=WRITES)
def test_any_writes_leave_one_newest_version(
    writes: list[tuple[str, int, str, int, bool]],
) -> None:
    """Revisions of one name never meet, and a name means the highest; a snapshot says the same."""
    log = Log()
    for verb, number, name, revision, is_config in writes:
        kind = Kind.CONFIG if is_config else Kind.SECRET
        spec = ConfigSpec(Name=name, Data=b"x") if is_config else SecretSpec(Name=name, Data=b"x")
        if verb == "create":
            log.write(Create(row=new_payload(str(number), spec, revision=revision)))
        else:
            found = log.store.view.row(Ref(kind, str(number)))
            index = found.api.Version.Index if found is not None else 0  # type: ignore[union-attr]
            log.write(Delete(ref=Ref(kind, str(number)), version=index))
    again = Store()
    load(again, dump(log.store))
    for kind in (Kind.SECRET, Kind.CONFIG):
        by_name: dict[str, list[int]] = {}
        for row in log.store.view.rows(kind):
            by_name.setdefault(row.api.Spec.Name.lower(), []).append(row.api.Revision)
        for name, revisions in by_name.items():
            assert len(revisions) == len(set(revisions)), "two versions have one revision"
            newest = log.store.view.by_name(kind, name)
            assert newest is not None
            assert newest.api.Revision == max(revisions)
            assert again.view.by_name(kind, name) == newest
