"""Start order: what a label asks for, what may be asked, and cycles spelled out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model.base import Version
from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.labels import DEPENDS_ON, SERVICES, check_labels
from swarmctl.core.model.objects import ServiceRow, TaskRow
from swarmctl.core.model.service import JobStatus, Service
from swarmctl.core.model.spec import (
    GlobalJob,
    GlobalService,
    HealthConfig,
    ReplicatedJob,
    RestartPolicy,
    ServiceMode,
    TaskSpec,
)
from swarmctl.core.model.startorder import Dependency, check_start_order, dependencies, unmet
from swarmctl.core.model.task import Task, TaskPrivate, TaskState, TaskStatus
from tests.core.pipeline.world import World, spec

if TYPE_CHECKING:
    from swarmctl.core.model.spec import ServiceSpec


def after(name: str, text: str) -> ServiceSpec:
    """A service that waits as the label's value says."""
    return replace(spec(name), Labels={DEPENDS_ON: text} if text else {})


def test_a_label_is_read_as_it_is_written() -> None:
    """Names and conditions, in order."""
    wanted = dependencies({DEPENDS_ON: "db:healthy,migrate:completed"})
    assert wanted == (Dependency("db", "healthy"), Dependency("migrate", "completed"))
    assert dependencies({}) == ()


@pytest.mark.parametrize("value", ["db", "db:", "db:up", "db:healthy,", ":running", "db healthy"])
def test_a_value_that_cannot_be_read_is_refused(value: str) -> None:
    """The grammar is checked with all other labels."""
    with pytest.raises(InvalidArgument, match="invalid value"):
        check_labels({DEPENDS_ON: value}, on=SERVICES)


# --- what may be asked ---------------------------------------------------------------------------


def test_an_unknown_service_is_refused_by_name() -> None:
    """It would be waited for until somebody makes it."""
    with pytest.raises(InvalidArgument, match="there is no service 'db' to wait for"):
        check_start_order(after("web", "db:running"), World().view)


def test_what_was_named_already_may_have_gone() -> None:
    """An update of something else is not refused for it."""
    before = after("web", "db:running")
    assert check_start_order(before, World().view, before=before) == ()
    with pytest.raises(InvalidArgument, match="'cache'"):
        check_start_order(after("web", "db:running,cache:running"), World().view, before=before)


@pytest.mark.parametrize(
    ("edges", "new", "path"),
    [
        ({}, ("web", "web:running"), "web -> web"),
        ({"db": "", "web": "db:running"}, ("db", "web:running"), "db -> web -> db"),
        (
            {"a": "", "b": "a:running", "c": "b:running"},
            ("a", "c:healthy"),
            "a -> c -> b -> a",
        ),
        ({"DB": "", "web": "db:running"}, ("DB", "WEB:running"), "DB -> web -> DB"),
    ],
)
def test_a_cycle_is_spelled_out(edges: dict[str, str], new: tuple[str, str], path: str) -> None:
    """The error shows the way round, whatever the case of names."""
    world = World()
    for name, text in edges.items():
        world.service(name, after(name, text))
    with pytest.raises(InvalidArgument, match=f"wait for each other: {path}$"):
        check_start_order(after(*new), world.view)


def test_a_diamond_is_no_cycle() -> None:
    """Two ways to the same service are fine, and everything on them is what the write rests on."""
    world = World()
    for name, text in (("a", ""), ("b", "a:running"), ("c", "a:running")):
        world.service(name, after(name, text))
    rests_on = check_start_order(after("d", "b:running,c:running"), world.view)
    assert sorted(row.api.Spec.Name for row in rests_on) == ["a", "b", "c"]


@given(edges=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=15))
def test_what_is_accepted_is_never_a_cycle(edges: list[tuple[int, int]]) -> None:
    """Whatever is written one after the other, the graph of what was accepted can be sorted."""
    world = World()
    for number in range(6):
        world.service(f"s{number}", spec(f"s{number}"))
    accepted: dict[int, set[int]] = {number: set() for number in range(6)}
    for source, target in edges:
        wanted = accepted[source] | {target}
        text = ",".join(f"s{number}:running" for number in sorted(wanted))
        try:
            check_start_order(after(f"s{source}", text), world.view)
        except InvalidArgument:
            assert _reaches(accepted, target, source)
            continue
        accepted[source] = wanted
        world.update(f"s{source}", after(f"s{source}", text))
    assert not any(_reaches(accepted, other, one) for one in accepted for other in accepted[one])


def _reaches(graph: dict[int, set[int]], start: int, goal: int) -> bool:
    seen: set[int] = set()
    todo = [start]
    while todo:
        one = todo.pop()
        if one == goal:
            return True
        if one not in seen:
            seen.add(one)
            todo += graph[one]
    return False


def test_what_is_started_again_is_never_completed() -> None:
    """Waiting for the end of an endless service would be for ever."""
    world = World()
    world.service("db", spec("db"))
    world.service("all", replace(spec("all"), Mode=ServiceMode(Global=GlobalService())))
    for name in ("db", "all"):
        with pytest.raises(InvalidArgument, match=f"service '{name}' is never completed"):
            check_start_order(after("web", f"{name}:completed"), world.view)
    once = spec("once", task=TaskSpec(RestartPolicy=RestartPolicy(Condition="on-failure")))
    world.service("once", once)
    check_start_order(after("web", "once:completed"), world.view)


def test_a_check_that_is_switched_off_never_passes() -> None:
    """healthy wants a health check."""
    world = World()
    wanted = spec("db")
    container = replace(
        wanted.TaskTemplate.ContainerSpec,  # type: ignore[type-var]
        Healthcheck=HealthConfig(Test=("NONE",)),
    )
    template = replace(wanted.TaskTemplate, ContainerSpec=container)
    world.service("db", replace(wanted, TaskTemplate=template))
    with pytest.raises(InvalidArgument, match="its health check is switched off"):
        check_start_order(after("web", "db:healthy"), world.view)
    check_start_order(after("web", "db:running"), world.view)


# --- is it so yet --------------------------------------------------------------------------------


def test_one_running_task_is_enough() -> None:
    """A service with a task that cannot run answers with the others."""
    world = World()
    world.node("n0", cpus=8)
    world.service("db", spec("db", replicas=3))
    web = after("web", "db:healthy")
    assert unmet(web, world.view) == "waits for db to be healthy"
    world.run()
    assert unmet(web, world.view) == ""
    world.end(world.in_slot("db", 1))
    world.end(world.in_slot("db", 2))
    assert unmet(web, world.view) == ""
    world.end(world.in_slot("db", 3))
    assert unmet(web, world.view) == "waits for db to be healthy"


def test_all_that_is_missing_is_named() -> None:
    """Two services that are not that far make one sentence."""
    world = World()
    world.service("db", spec("db"))
    world.service("cache", spec("cache"))
    wanted = after("web", "db:healthy,cache:running,gone:running")
    expected = "waits for db to be healthy and cache to be running"
    assert unmet(wanted, world.view) == expected


def _job(mode: ServiceMode, run: int = 0) -> ServiceRow:
    status = JobStatus(JobIteration=Version(Index=run))
    return ServiceRow(api=Service(ID="job", Spec=replace(spec("job"), Mode=mode), JobStatus=status))


def _ended(number: int, state: TaskState, run: int = 0, slot: int = 0) -> Create:
    return Create(
        row=TaskRow(
            api=Task(
                ID=f"task{number}",
                ServiceID="job",
                Slot=slot,
                NodeID=f"n{number}",
                Status=TaskStatus(State=state),
                DesiredState=TaskState.COMPLETE,
                JobIteration=Version(Index=run),
            ),
            private=TaskPrivate(service_name="job"),
        )
    )


def test_a_job_is_completed_when_all_of_its_present_run_is() -> None:
    """Completions of an earlier run do not count."""
    world = World()
    mode = ServiceMode(ReplicatedJob=ReplicatedJob(MaxConcurrent=1, TotalCompletions=2))
    world.write(Create(row=_job(mode)))
    web = after("web", "job:completed")
    world.write(_ended(1, TaskState.COMPLETE, slot=1), _ended(2, TaskState.RUNNING, slot=2))
    assert unmet(web, world.view) == "waits for job to be completed"
    world.write(_ended(3, TaskState.COMPLETE, slot=2))
    assert unmet(web, world.view) == ""
    row = world.view.service("job")
    assert row is not None
    api = replace(row.api, JobStatus=JobStatus(JobIteration=Version(Index=1)))
    world.write(Update(row=replace(row, api=api)))
    assert unmet(web, world.view) == "waits for job to be completed"


def test_a_global_job_is_completed_when_every_node_is_done() -> None:
    """One node that is still at it holds the rest up."""
    world = World()
    world.write(Create(row=_job(ServiceMode(GlobalJob=GlobalJob()))))
    web = after("web", "job:completed")
    assert unmet(web, world.view) != ""
    world.write(_ended(1, TaskState.COMPLETE), _ended(2, TaskState.PREPARING))
    assert unmet(web, world.view) != ""
    world.end("task2", TaskState.COMPLETE)
    assert unmet(web, world.view) == ""


def test_a_service_that_runs_once_is_completed_when_each_replica_is() -> None:
    """The stack file's way of a migration: restart condition on-failure."""
    world = World()
    world.node("n0")
    once = TaskSpec(RestartPolicy=RestartPolicy(Condition="on-failure"))
    world.service("once", spec("once", replicas=2, task=once))
    world.run()
    web = after("web", "once:completed")
    world.end(world.in_slot("once", 1), TaskState.COMPLETE)
    world.run()
    assert unmet(web, world.view) == "waits for once to be completed"
    world.end(world.in_slot("once", 2), TaskState.COMPLETE)
    world.run()
    assert unmet(web, world.view) == ""
