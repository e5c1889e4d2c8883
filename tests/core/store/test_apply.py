"""Applying entries: rules of every change and requirement, request ids, stamps."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.model.change import (
    Advance,
    Applied,
    At,
    AtLeast,
    Change,
    Conflict,
    Create,
    Delete,
    Entry,
    Exists,
    Free,
    Index,
    Kind,
    Ref,
    Requirement,
    SpecAt,
    Transaction,
    Unreferenced,
    Update,
)
from swarmctl.core.model.cluster import ClusterInfo
from swarmctl.core.model.objects import (
    ClusterRow,
    Network,
    NetworkPrivate,
    NetworkRow,
    NetworkSpec,
    Node,
    NodePrivate,
    NodeRow,
    Secret,
    SecretRow,
    SecretSpec,
    ServiceRow,
    TaskRow,
)
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import (
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentConfig,
    PortConfig,
    SecretReference,
    ServiceSpec,
    TaskSpec,
)
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus
from swarmctl.core.store.dump import dump, load
from swarmctl.core.store.store import REMEMBERED_REQUESTS, Store


def write(
    store: Store, *changes: Change, requires: tuple[Requirement, ...] = (), now: int = 7
) -> str:
    """Apply one transaction as the next entry; return "applied" or the kind of conflict."""
    transaction = Transaction(changes=changes, requires=requires, now=now)
    (result,) = store.apply(store.index + 1, Entry(transactions=(transaction,))).results
    return "applied" if isinstance(result, Applied) else result.kind.value


def service(service_id: str = "s", name: str = "web", **kwargs: object) -> ServiceRow:
    return ServiceRow(api=Service(ID=service_id, Spec=ServiceSpec(Name=name, **kwargs)))


def task(
    task_id: str = "t",
    *,
    state: TaskState = TaskState.NEW,
    desired: TaskState = TaskState.RUNNING,
    slot: int = 1,
    node_id: str = "",
) -> TaskRow:
    api = Task(
        ID=task_id,
        ServiceID="s",
        Slot=slot,
        NodeID=node_id,
        Status=TaskStatus(State=state),
        DesiredState=desired,
    )
    return TaskRow(api=api)


def stored(store: Store, kind: Kind, row_id: str) -> object:
    row = store.view.row(Ref(kind, row_id))
    assert row is not None
    return row


# --- create, update, delete ----------------------------------------------------------------------


def test_a_row_is_stamped_when_it_is_applied() -> None:
    """Version is the log index; times come from the transaction; CreatedAt stays."""
    store = Store()
    write(store, Create(row=service()), now=100)
    first = store.view.service("s")
    assert first is not None
    assert (first.api.Version.Index, first.api.CreatedAt, first.api.UpdatedAt) == (1, 100, 100)
    write(store, Update(row=first), now=200)
    second = store.view.service("s")
    assert second is not None
    assert (second.api.Version.Index, second.api.CreatedAt, second.api.UpdatedAt) == (2, 100, 200)


def test_spec_index_moves_with_the_spec_alone() -> None:
    """Bookkeeping leaves ``spec_index``; a new spec moves it."""
    store = Store()
    write(store, Create(row=service()))
    row = store.view.service("s")
    assert row is not None
    write(store, Update(row=replace(row, private=replace(row.private, registry_auth="x"))))
    row = store.view.service("s")
    assert row is not None
    assert row.private.spec_index == 1
    write(store, Update(row=replace(row, api=replace(row.api, Spec=ServiceSpec(Name="new")))))
    row = store.view.service("s")
    assert row is not None
    assert row.private.spec_index == 3


def test_ids_are_created_once() -> None:
    """A second row with an id is a conflict, and so is a row without one."""
    store = Store()
    write(store, Create(row=service()))
    assert write(store, Create(row=service(name="other"))) == "exists"
    assert write(store, Create(row=service("", name="nobody"))) == "invalid"


def test_there_is_one_cluster() -> None:
    """A second cluster row is a conflict, whatever its id."""
    store = Store()
    write(store, Create(row=ClusterRow(api=ClusterInfo(ID="c1"))))
    assert write(store, Create(row=ClusterRow(api=ClusterInfo(ID="c2")))) == "exists"


def test_names_are_unique_whatever_their_case() -> None:
    """Within a table a name is taken once; other tables do not mind."""
    store = Store()
    write(store, Create(row=service("s1", "web")))
    assert write(store, Create(row=service("s2", "WEB"))) == "exists"
    secret = SecretRow(api=Secret(ID="x", Spec=SecretSpec(Name="web")))
    assert write(store, Create(row=secret)) == "applied"
    write(store, Create(row=service("s2", "api")))
    row = store.view.service("s2")
    assert row is not None
    renamed = replace(row, api=replace(row.api, Spec=ServiceSpec(Name="Web")))
    assert write(store, Update(row=renamed)) == "exists"
    assert store.view.by_name(Kind.SERVICE, "wEb") == store.view.service("s1")


def test_an_update_needs_the_present_version() -> None:
    """A row changed meanwhile is not overwritten."""
    store = Store()
    write(store, Create(row=service()))
    old = store.view.service("s")
    assert old is not None
    assert write(store, Update(row=old)) == "applied"
    assert write(store, Update(row=old)) == "version"
    assert write(store, Update(row=service("other"))) == "missing"


def test_a_delete_needs_the_present_version() -> None:
    """A row changed meanwhile is not deleted."""
    store = Store()
    write(store, Create(row=service()))
    ref = Ref(Kind.SERVICE, "s")
    assert write(store, Delete(ref=ref, version=9)) == "version"
    assert write(store, Delete(ref=ref, version=1)) == "applied"
    assert write(store, Delete(ref=ref, version=1)) == "missing"


def test_a_network_is_versioned_in_its_private_half() -> None:
    """Networks show no version and have one all the same."""
    store = Store()
    row = NetworkRow(
        api=Network(Name="net", Id="n"), private=NetworkPrivate(spec=NetworkSpec(Name="net"))
    )
    write(store, Create(row=row), now=50)
    kept = store.view.network("n")
    assert kept is not None
    assert (kept.private.version, kept.private.spec_index, kept.api.Created) == (1, 1, 50)
    assert write(store, Update(row=kept)) == "applied"
    assert write(store, Update(row=kept)) == "version"


def test_a_transaction_is_whole_or_nothing_and_spoils_nobody() -> None:
    """One transaction's conflict undoes all of it and leaves its neighbours alone."""
    store = Store()
    bad = Transaction(changes=(Create(row=service("a", "a")), Create(row=service("a", "b"))))
    good = Transaction(changes=(Create(row=service("c", "c")),))
    sees = Transaction(
        changes=(Create(row=service("d", "d")),),
        requires=(Exists(ref=Ref(Kind.SERVICE, "c")),),
    )
    outcome = store.apply(1, Entry(transactions=(bad, good, sees)))
    assert [isinstance(one, Applied) for one in outcome.results] == [False, True, True]
    assert {row.api.ID for row in store.view.services()} == {"c", "d"}
    assert [change.ref.id for change in outcome.changes] == ["c", "d"]


def test_outcomes_tell_before_and_after() -> None:
    """Watchers learn what stood there and what stands there now."""
    store = Store()
    entry = Entry(transactions=(Transaction(changes=(Create(row=service()),)),))
    (made,) = store.apply(1, entry).changes
    assert made.before is None
    assert made.after is stored(store, Kind.SERVICE, "s")
    ref = Ref(Kind.SERVICE, "s")
    entry = Entry(transactions=(Transaction(changes=(Delete(ref=ref, version=1),)),))
    (gone,) = store.apply(2, entry).changes
    assert (gone.before, gone.after) == (made.after, None)


# --- advance -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored_state", "reported", "result"),
    [
        (TaskState.RUNNING, TaskState.READY, TaskState.RUNNING),
        (TaskState.READY, TaskState.RUNNING, TaskState.RUNNING),
        (TaskState.SHUTDOWN, TaskState.COMPLETE, TaskState.SHUTDOWN),
        (TaskState.RUNNING, TaskState.FAILED, TaskState.FAILED),
    ],
)
def test_states_only_advance(
    stored_state: TaskState, reported: TaskState, result: TaskState
) -> None:
    """A lower state is ignored, a higher one taken."""
    store = Store()
    write(store, Create(row=task(state=stored_state)))
    report = TaskStatus(State=reported, Message="m")
    assert write(store, Advance(task_id="t", status=report)) == "applied"
    row = store.view.task("t")
    assert row is not None
    assert row.api.Status.State is result


def test_the_same_state_with_other_content_replaces() -> None:
    """Health, ports or an error of the same state are news; the same report again is none."""
    store = Store()
    write(store, Create(row=task(state=TaskState.RUNNING)))
    report = TaskStatus(State=TaskState.RUNNING, Message="healthy")
    write(store, Advance(task_id="t", status=report), now=50)
    row = store.view.task("t")
    assert row is not None
    assert (row.api.Status, row.api.Version.Index, row.private.applied_at) == (report, 2, 50)
    entry = Entry(transactions=(Transaction(changes=(Advance(task_id="t", status=report),)),))
    assert store.apply(3, entry).changes == ()


def test_desired_only_rises() -> None:
    """A wish is never lowered."""
    store = Store()
    write(store, Create(row=task(desired=TaskState.SHUTDOWN)))
    write(store, Advance(task_id="t", desired=TaskState.RUNNING))
    row = store.view.task("t")
    assert row is not None
    assert row.api.DesiredState is TaskState.SHUTDOWN
    write(store, Advance(task_id="t", desired=TaskState.REMOVE))
    row = store.view.task("t")
    assert row is not None
    assert row.api.DesiredState is TaskState.REMOVE


def test_an_advance_never_conflicts() -> None:
    """A missing task, or one of another node, is left alone without a word."""
    store = Store()
    report = TaskStatus(State=TaskState.RUNNING)
    assert write(store, Advance(task_id="gone", status=report)) == "applied"
    write(store, Create(row=task(node_id="n1", state=TaskState.ASSIGNED)))
    assert write(store, Advance(task_id="t", status=report, node_id="n2")) == "applied"
    row = store.view.task("t")
    assert row is not None
    assert row.api.Status.State is TaskState.ASSIGNED


@pytest.mark.parametrize(
    "back", [{"state": TaskState.PENDING}, {"desired": TaskState.READY}], ids=["state", "desired"]
)
def test_an_update_does_not_take_a_task_back(back: dict[str, TaskState]) -> None:
    """Not even a whole row moves a task's state or wish backwards."""
    store = Store()
    write(store, Create(row=task(state=TaskState.RUNNING)))
    lower = task(**{"state": TaskState.RUNNING, **back})
    api = replace(lower.api, Version=replace(lower.api.Version, Index=1))
    assert write(store, Update(row=replace(lower, api=api))) == "invalid"


def test_started_at_is_the_first_running() -> None:
    """The leader's time of the first RUNNING stays."""
    store = Store()
    write(store, Create(row=task(state=TaskState.READY)))
    for now, text in ((50, "a"), (60, "b")):
        report = TaskStatus(State=TaskState.RUNNING, Message=text)
        write(store, Advance(task_id="t", status=report), now=now)
    row = store.view.task("t")
    assert row is not None
    assert (row.private.started_at, row.private.applied_at) == (50, 60)


# --- requirements --------------------------------------------------------------------------------

S = Ref(Kind.SERVICE, "s")


@pytest.mark.parametrize(
    ("requirement", "result"),
    [
        (Exists(ref=S), "applied"),
        (Exists(ref=Ref(Kind.SERVICE, "x")), "missing"),
        (Exists(ref=Ref(Kind.NODE, "s")), "missing"),
        (At(ref=S, version=2), "applied"),
        (At(ref=S, version=1), "version"),
        (At(ref=Ref(Kind.SERVICE, "x"), version=1), "missing"),
        (SpecAt(ref=S, index=1), "applied"),
        (SpecAt(ref=S, index=2), "version"),
        (SpecAt(ref=Ref(Kind.SERVICE, "x"), index=1), "missing"),
        (Unreferenced(ref=Ref(Kind.SECRET, "pw")), "referenced"),
        (Unreferenced(ref=Ref(Kind.SECRET, "other")), "applied"),
        (Unreferenced(ref=Ref(Kind.NETWORK, "net")), "referenced"),
        (Free(index=Index.INGRESS_PORT, key="tcp/80"), "held"),
        (Free(index=Index.INGRESS_PORT, key="tcp/80", holder="s"), "applied"),
        (Free(index=Index.INGRESS_PORT, key="udp/80"), "applied"),
        (Free(index=Index.INGRESS_PORT, key="tcp/90"), "applied"),
        (Free(index=Index.SLOT, key="s/1"), "held"),
        (Free(index=Index.SLOT, key="s/1", holder="t"), "applied"),
        (Free(index=Index.SLOT, key="s/2"), "applied"),
        (AtLeast(index=Index.ROLE, key="manager", count=1), "applied"),
        (AtLeast(index=Index.ROLE, key="manager", count=2), "count"),
    ],
)
def test_requirements(requirement: Requirement, result: str) -> None:
    """Each kind of requirement holds or fails as the tables say."""
    store = Store()
    container = ContainerSpec(Secrets=(SecretReference(SecretID="pw"),))
    template = TaskSpec(ContainerSpec=container, Networks=(NetworkAttachmentConfig(Target="net"),))
    ports = EndpointSpec(
        Ports=(
            PortConfig(TargetPort=80, PublishedPort=80),
            PortConfig(TargetPort=80, PublishedPort=90, PublishMode="host"),
        )
    )
    row = service(TaskTemplate=template, EndpointSpec=ports)
    write(store, Create(row=row))
    kept = store.view.service("s")
    assert kept is not None
    write(store, Update(row=replace(kept, private=replace(kept.private, registry_auth="x"))))
    write(store, Create(row=task()))
    write(store, Create(row=task("old", slot=2, desired=TaskState.SHUTDOWN)))
    manager = NodePrivate(role="manager")
    write(store, Create(row=NodeRow(api=Node(ID="m"), private=manager)))
    assert write(store, requires=(requirement,)) == result


def test_at_least_counts_what_is_left_afterwards() -> None:
    """A demotion that leaves too few is refused although there were enough before it."""
    store = Store()
    write(store, Create(row=NodeRow(api=Node(ID="m"), private=NodePrivate(role="manager"))))
    row = store.view.node("m")
    assert row is not None
    worker = replace(row, private=replace(row.private, role="worker"))
    need = AtLeast(index=Index.ROLE, key="manager", count=1)
    assert write(store, Update(row=worker), requires=(need,)) == "count"


def test_a_conflict_names_who_is_in_the_way() -> None:
    """Clients are told which objects hold what they asked for."""
    store = Store()
    container = ContainerSpec(Secrets=(SecretReference(SecretID="pw"),))
    write(store, Create(row=service(TaskTemplate=TaskSpec(ContainerSpec=container))))
    need = Unreferenced(ref=Ref(Kind.SECRET, "pw"))
    entry = Entry(transactions=(Transaction(changes=(), requires=(need,)),))
    (result,) = store.apply(2, entry).results
    assert isinstance(result, Conflict)
    assert result.holders == ("s",)


# --- request ids ---------------------------------------------------------------------------------


def asked(store: Store, request_id: str, *changes: Change, note: bytes = b"") -> object:
    transaction = Transaction(changes=changes, request_id=request_id, note=note)
    (result,) = store.apply(store.index + 1, Entry(transactions=(transaction,))).results
    return result


def test_a_retry_gets_the_first_answer() -> None:
    """A request that is proposed twice takes effect once, and both get the same answer, with the
    note of the one that took effect; also when what it made is gone."""
    store = Store()
    first = asked(store, "r1", Create(row=service()), note=b"made s")
    assert first == Applied(index=1, note=b"made s")
    assert asked(store, "r1", Create(row=service("other", "other")), note=b"made other") == first
    assert store.view.service("other") is None
    write(store, Delete(ref=S, version=1))
    assert asked(store, "r1", Create(row=service()), note=b"made s") == first
    assert store.view.service("s") is None


def test_a_conflict_is_no_answer_to_a_request() -> None:
    """A request that met a conflict has changed nothing: it may be judged again, and take effect
    once. The same in the other order: what took effect never meets a conflict later."""
    store = Store()
    write(store, Create(row=service()))
    assert isinstance(asked(store, "r1", Create(row=service())), Conflict)
    assert store.answer_of("r1") is None
    write(store, Delete(ref=S, version=1))
    made = asked(store, "r1", Create(row=service()))
    assert made == Applied(index=4)
    assert asked(store, "r1", Create(row=service())) == made == store.answer_of("r1")


def test_one_entry_may_carry_a_request_and_its_retry() -> None:
    """Twice in one entry is once, and both results are the first one's."""
    store = Store()
    first = Transaction(changes=(Create(row=service()),), request_id="r1", note=b"one")
    again = Transaction(changes=(Create(row=service("o", "o")),), request_id="r1", note=b"two")
    results = store.apply(1, Entry(transactions=(first, again))).results
    assert results == (Applied(index=1, note=b"one"),) * 2
    assert store.view.service("o") is None


def test_answers_survive_a_snapshot() -> None:
    """A retry that reaches a manager restored from a snapshot gets the first answer too."""
    store, copy = Store(), Store()
    first = asked(store, "r1", Create(row=service()), note=b'{"ID":"s"}')
    load(copy, dump(store))
    assert copy.answer_of("r1") == first
    assert asked(copy, "r1", Create(row=service("other", "other"))) == first


def test_so_many_answers_are_remembered() -> None:
    """The last 10,000 answers are kept, older ones forgotten."""
    store = Store()
    count = REMEMBERED_REQUESTS + 5
    requests = tuple(Transaction(changes=(), request_id=f"r{at}") for at in range(count))
    store.apply(1, Entry(transactions=requests))
    assert [store.answer_of(f"r{at}") is None for at in (0, 4, 5, count - 1)] == [
        True,
        True,
        False,
        False,
    ]


# --- sharing -------------------------------------------------------------------------------------


def test_tasks_of_one_version_share_their_spec() -> None:
    """Ten thousand tasks of a service hold one spec object in memory, not ten thousand."""
    store = Store()
    for number in range(3):
        row = task(f"t{number}", slot=number + 1)
        wanted = TaskSpec(ContainerSpec=ContainerSpec(Image="nginx"))
        private = TaskPrivate(spec_version=1)
        write(store, Create(row=replace(row, api=replace(row.api, Spec=wanted), private=private)))
    assert len({id(row.api.Spec) for row in store.view.tasks()}) == 1


def test_a_spec_is_forgotten_with_the_last_task_that_has_it() -> None:
    """Neither a removed service, whose tasks go on telling of themselves, nor a version that was
    replaced leaves anything behind."""
    store = Store()
    write(store, Create(row=service()))
    for number in (1, 2):
        row = replace(task(f"t{number}", slot=number), private=TaskPrivate(spec_version=number))
        spec = TaskSpec(ContainerSpec=ContainerSpec(Image=f"nginx:{number}"))
        write(store, Create(row=replace(row, api=replace(row.api, Spec=spec))))
    del row, spec
    assert len(store._specs) == 2
    delete_task(store, "t1")
    assert len(store._specs) == 1
    gone = store.view.service("s")
    assert gone is not None
    write(store, Delete(ref=Ref(Kind.SERVICE, "s"), version=gone.api.Version.Index))
    write(store, Advance(task_id="t2", status=TaskStatus(State=TaskState.COMPLETE)))
    delete_task(store, "t2")
    assert len(store._specs) == 0


def delete_task(store: Store, task_id: str) -> None:
    row = store.view.task(task_id)
    assert row is not None
    version = row.api.Version.Index
    assert write(store, Delete(ref=Ref(Kind.TASK, task_id), version=version)) == "applied"
