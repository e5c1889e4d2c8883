"""Who follows a new version, and which versions nobody needs (core/api/versions.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.api.versions import (
    KEPT_VERSIONS,
    followers,
    newest,
    newest_id,
    surplus,
    unneeded,
    users,
    versions,
    with_due_moved,
)
from swarmctl.core.model.change import Kind
from swarmctl.core.model.objects import SecretSpec
from swarmctl.core.model.payload import new_payload, payload_ids
from swarmctl.core.model.task import TaskState
from tests.core.api.rows import config, service, tables, task

if TYPE_CHECKING:
    from swarmctl.core.model.objects import ServiceRow
    from swarmctl.core.model.payload import PayloadRow
    from swarmctl.core.store.view import Tables


def _version(revision: int, name: str = "pw") -> PayloadRow:
    spec = SecretSpec(Name=name, Data=b"x")
    return new_payload(f"{name}{revision}", spec, revision=revision)


def _uses(name: str, *secret_ids: str, due: tuple[str, ...] = (), **spec: object) -> ServiceRow:
    uses = [
        {"SecretID": one, "SecretName": "pw", "File": {"Name": f"f{at}"}}
        for at, one in enumerate(secret_ids)
    ]
    row = service(f"{name}-id", name, **{"TaskTemplate.ContainerSpec.Secrets": uses, **spec})
    return replace(row, private=replace(row.private, due=due))


def _following(view: Tables, *, replaced: bool = True) -> dict[str, set[str]]:
    latest = newest(view, Kind.SECRET, "pw")
    assert latest is not None
    found = followers(view, latest, replaced=replaced)
    return {one.row.api.Spec.Name: set(one.leaves) for one in found}


VERSIONS = [_version(1), _version(2), _version(3)]


def test_who_uses_the_newest_or_is_due_follows() -> None:
    """Of those on older versions only the due ones follow; a due one on the newest has nothing to
    leave but it."""
    view = tables(
        *VERSIONS,
        _version(1, "key"),
        _uses("newest", "pw3", "key1"),
        _uses("pinned", "pw2"),
        _uses("due", "pw1", due=("pw1",)),
        _uses("both", "pw3", "pw1", due=("pw1",)),
        _uses("half", "pw3", "pw2"),
        _uses("moved", "pw3", due=("pw1",)),
        _uses("none"),
    )
    assert _following(view) == {
        "newest": {"pw3"},
        "due": {"pw1"},
        "both": {"pw3", "pw1"},
        "half": {"pw3"},
        "moved": {"pw3"},
    }
    assert _following(view, replaced=False) == {"due": {"pw1"}, "both": {"pw1"}}
    assert users(view, versions(view, Kind.SECRET, "pw")) == {
        *("newest", "pinned", "due", "both", "half", "moved")
    }
    assert users(view, [VERSIONS[1]]) == {"pinned", "half"}
    assert [newest_id(view, row) for row in VERSIONS] == ["pw3", "pw3", ""]


def test_jobs_are_left_to_their_next_run() -> None:
    """A job waits: to move it at once would run it again. Its next update moves it in any case."""
    job = _uses("job", "pw2", Mode={"ReplicatedJob": {"MaxConcurrent": 1}})
    view = tables(VERSIONS[0], VERSIONS[1], job)
    latest = newest(view, Kind.SECRET, "pw")
    assert latest is not None
    (one,) = followers(view, latest, replaced=True)
    assert one.waits
    assert one.due_then == ("pw2",)
    due = replace(job, private=replace(job.private, due=("pw2",)))
    view = tables(*VERSIONS, due)
    spec, still_due = with_due_moved(view, due, due.api.Spec)
    assert payload_ids(spec.TaskTemplate, Kind.SECRET) == ("pw3",)
    assert still_due == ()


def test_what_is_due_moves_only_with_the_tasks() -> None:
    """A scale, labels and spelled-out defaults keep a due service as it is; a change of its tasks
    takes it to the newest, and what it names of its own accord stays."""
    row = _uses("web", "pw1", "pw2", due=("pw1", "gone"))
    view = tables(*VERSIONS, row)
    same = row.api.Spec
    for quiet in (
        same,
        replace(same, Labels={"a": "b"}),
        replace(same, Mode=_uses("x", Mode={"Replicated": {"Replicas": 9}}).api.Spec.Mode),
    ):
        assert with_due_moved(view, row, quiet) == (quiet, ("pw1", "gone"))
    loud = replace(same, TaskTemplate=replace(same.TaskTemplate, ForceUpdate=1))
    spec, due = with_due_moved(view, row, loud)
    assert payload_ids(spec.TaskTemplate, Kind.SECRET) == ("pw3", "pw2")
    assert due == ()
    settled = replace(row, private=replace(row.private, due=()))
    assert with_due_moved(view, settled, loud) == (loud, ())


def test_what_is_needed_is_not_pruned() -> None:
    """Needed are the newest, what a spec or the one before it uses, and what a live task uses."""
    rows = [_version(number) for number in range(1, 7)]
    before = _uses("web", "pw2")
    web = _uses("web", "pw1")
    web = replace(web, api=replace(web.api, PreviousSpec=before.api.Spec))
    live = task("t1", _uses("web", "pw3"), state=TaskState.RUNNING)
    ended = task("t2", _uses("web", "pw4"), state=TaskState.SHUTDOWN)
    view = tables(*rows, web, live, ended, config("c", "pw"))
    assert [row.api.ID for row in unneeded(view, Kind.SECRET)] == ["pw4", "pw5"]
    assert unneeded(view, Kind.CONFIG) == []
    assert surplus(view, rows[-1]) == []


def test_surplus_is_what_exceeds_the_versions_kept() -> None:
    """With the one to come there are never more unused versions of a name than are kept."""
    rows = [_version(number) for number in range(1, KEPT_VERSIONS + 3)]
    view = tables(*rows, _uses("web", "pw2"), _version(1, "key"))
    gone = [row.api.ID for row in surplus(view, rows[-1])]
    assert gone == ["pw3", "pw1"]  # 12 there are, one comes, 10 stay, and pw2 is in use


IDS = st.lists(st.sampled_from(["pw1", "pw2", "pw3"]), max_size=3)


@settings(deadline=None)
@given(uses=IDS, due=IDS)
def test_nobody_is_left_between_two_versions(uses: list[str], due: list[str]) -> None:
    """Moving twice moves nothing more, and a service that was marked instead is found later."""
    row = _uses("web", *uses, due=tuple(dict.fromkeys(due)))
    view = tables(*VERSIONS, row)
    latest = newest(view, Kind.SECRET, "pw")
    assert latest is not None
    for one in followers(view, latest, replaced=True):
        successor = _version(4)
        moved = replace(
            row,
            api=replace(row.api, Spec=one.spec_with("pw4")),
            private=replace(row.private, due=one.due_after),
        )
        later = tables(*VERSIONS, successor, moved)
        assert followers(later, successor, replaced=False) == []
        kept = [one for one in uses if one not in ("pw3", *due)]
        now = payload_ids(moved.api.Spec.TaskTemplate, Kind.SECRET)
        assert sorted(now) == sorted([*kept, *["pw4"] * (len(uses) - len(kept))])
        marked = replace(row, private=replace(row.private, due=one.due_then))
        later = tables(*VERSIONS, successor, marked)
        (again,) = followers(later, successor, replaced=False)
        assert (again.leaves, again.is_due) == (one.leaves, True)
