"""How stored objects look to a client (core/api/present.py)."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest
from msgspec import inspect
from msgspec.structs import replace

from swarmctl.core.api.present import (
    present_cluster,
    present_listed_service,
    present_node,
    present_secret,
    present_service,
    present_swarm,
    present_task,
    service_status,
)
from swarmctl.core.model.base import ApiStruct, Version
from swarmctl.core.model.cluster import CAConfig, ClusterInfo, JoinTokens, SwarmSpec
from swarmctl.core.model.codec import encode_json
from swarmctl.core.model.objects import ManagerStatus, Node, Row, Secret, SecretSpec
from swarmctl.core.model.service import JobStatus, Service, ServiceStatus
from swarmctl.core.model.task import Task, TaskState
from tests.core.model.builders import filled

from .rows import service, task

MARKER = "hunter2hunter2"
MARKER_NUMBER = 918273645546372819


def _plain(value: object) -> dict[str, object]:
    return json.loads(encode_json(value))


# --- nothing private gets out --------------------------------------------------------------------


def _leaks(value: object) -> list[str]:
    shown = encode_json(value)
    marks = {
        "text": MARKER.encode(),
        "base64": encode_json({"x": MARKER.encode()})[6:20],
        "number": str(MARKER_NUMBER).encode(),
    }
    return [name for name, mark in marks.items() if mark in shown]


PRESENTERS = {
    "cluster": lambda api: [present_cluster(api), present_swarm(api, JoinTokens())],
    "node": lambda api: [present_node(api, None), present_node(api, ManagerStatus(Leader=True))],
    "service": lambda api: [
        present_service(api),
        present_service(api, with_defaults=True),
        present_listed_service(api, service_status(api, [])),
    ],
    "task": lambda api: [present_task(api)],
    "secret": lambda api: [present_secret(api)],
    "config": lambda api: [api],
    "network": lambda api: [api],
}


@pytest.mark.parametrize("row_type", get_args(Row), ids=lambda t: t.__name__)
def test_no_private_field_is_ever_shown(row_type: type) -> None:
    """Whatever a row's private half holds, nothing that a client sees contains any of it."""
    fields = {field.name: field for field in inspect.type_info(row_type).fields}
    private = filled(fields["private"].type.cls, text=MARKER, number=MARKER_NUMBER)
    row = row_type(api=fields["api"].type.cls(), private=private)
    assert _leaks(row.private), "the marker itself can be seen"
    presented = PRESENTERS[row_type.__struct_config__.tag](row.api)
    assert [leak for one in presented for leak in _leaks(one)] == []


def test_every_private_field_is_marked() -> None:
    """The markers reach every private field of every row, so a new one is covered too."""
    for row_type in get_args(Row):
        (info,) = (f.type for f in inspect.type_info(row_type).fields if f.name == "private")
        private = filled(info.cls, text=MARKER, number=MARKER_NUMBER)
        for field in msgspec.structs.fields(private):
            value = getattr(private, field.name)
            assert value is True or _leaks({"x": value}), f"{row_type.__name__}.{field.name}"


def test_no_api_struct_holds_a_private_one() -> None:
    """No struct of the API has a field of a private type."""
    seen: set[type] = set()

    def visit(info: inspect.Type) -> None:
        if isinstance(info, inspect.StructType):
            if info.cls in seen:
                return
            seen.add(info.cls)
            assert issubclass(info.cls, ApiStruct), info.cls
            for field in info.fields:
                visit(field.type)
        for inner in ("types", "item_type", "key_type", "value_type"):
            found = getattr(info, inner, ())
            for one in found if isinstance(found, tuple) else (found,):
                visit(one)

    for row_type in get_args(Row):
        (api,) = (f.type for f in inspect.type_info(row_type).fields if f.name == "api")
        visit(api)
    assert len(seen) > 50


def test_signing_keys_are_never_shown() -> None:
    """A user's own CA key in the stored settings is shown neither by /swarm nor by /info."""
    ca = CAConfig(SigningCACert=MARKER, SigningCAKey=MARKER, NodeCertExpiry=7, ForceRotate=1)
    cluster = ClusterInfo(ID="c", Spec=SwarmSpec(Name="default", CAConfig=ca))
    for shown in (present_cluster(cluster), present_swarm(cluster, JoinTokens())):
        assert _leaks(shown) == []
        assert shown.Spec.CAConfig == CAConfig(NodeCertExpiry=7, ForceRotate=1)


def test_secret_data_is_never_shown() -> None:
    """A secret that was stored with its data by mistake is still shown without."""
    stored = Secret(ID="s", Spec=SecretSpec(Name="pw", Data=MARKER.encode()))
    shown = present_secret(stored)
    assert _leaks(shown) == []
    assert shown == Secret(ID="s", Spec=SecretSpec(Name="pw"))


# --- what is put in ------------------------------------------------------------------------------


def test_the_swarm_has_its_tokens_and_the_info_has_not() -> None:
    """GET /swarm is the cluster with join tokens; GET /info has no such key."""
    cluster = ClusterInfo(ID="c", DataPathPort=4790, Spec=SwarmSpec(Name="default"))
    shown = _plain(present_swarm(cluster, JoinTokens(Worker="w", Manager="m")))
    assert shown.pop("JoinTokens") == {"Worker": "w", "Manager": "m"}
    assert shown == _plain(present_cluster(cluster)) == _plain(cluster)


def test_a_manager_has_a_standing_and_a_worker_has_none() -> None:
    """ManagerStatus comes from consensus, whatever is stored."""
    status = ManagerStatus(Leader=True, Reachability="reachable", Addr="10.0.0.1:2377")
    assert present_node(Node(ID="n"), status).ManagerStatus == status
    assert present_node(Node(ID="n", ManagerStatus=status), None).ManagerStatus is None


def test_a_tasks_runtime_goes_without_saying() -> None:
    """Docker prints no Runtime for a container's task; the rest of the spec stays."""
    row = task("t", service("s", "web"))
    shown = present_task(row.api)
    assert shown == replace(row.api, Spec=replace(row.api.Spec, Runtime=""))
    assert present_task(shown) is shown


def test_a_service_is_shown_as_it_is_stored_unless_asked() -> None:
    """Status and defaults appear only on request."""
    stored = service("s", "web").api
    assert present_service(stored) is stored
    status = ServiceStatus(RunningTasks=1, DesiredTasks=2)
    assert present_listed_service(stored, status).ServiceStatus == status
    assert present_listed_service(stored, None) is stored
    assert present_service(stored, with_defaults=True).Spec.UpdateConfig is not None


def test_a_service_says_what_it_asks_for_and_does_not_get() -> None:
    """A field that Docker's clients skip says of each thing that is not done that it is not."""
    ports = [{"TargetPort": 80, "PublishedPort": 8080}]
    stored = service("s", "web", EndpointSpec={"Ports": ports}).api
    (warning,) = _plain(present_service(stored, quiet=("h1",)))["Warnings"]
    assert "port 8080 is reserved but not routed" in warning
    assert "Warnings" not in _plain(present_service(stored))
    assert "Warnings" not in _plain(present_service(service("t", "quiet").api))


# --- counting ------------------------------------------------------------------------------------


def _tasks(of, *pairs: tuple[TaskState, TaskState], **more: object) -> list[Task]:
    return [
        task(f"t{i}", of, state=state, desired=desired, **more).api
        for i, (state, desired) in enumerate(pairs)
    ]


RUNNING, COMPLETE, SHUTDOWN = TaskState.RUNNING, TaskState.COMPLETE, TaskState.SHUTDOWN


def test_counts_of_a_replicated_service() -> None:
    """Desired is what the spec asks for; running are tasks that run and shall."""
    of = service("s", "web", Mode={"Replicated": {"Replicas": 5}})
    tasks = _tasks(
        of,
        (RUNNING, RUNNING),
        (RUNNING, SHUTDOWN),
        (TaskState.STARTING, RUNNING),
        (TaskState.FAILED, SHUTDOWN),
        (COMPLETE, SHUTDOWN),
    )
    assert service_status(of.api, tasks) == ServiceStatus(
        RunningTasks=1, DesiredTasks=5, CompletedTasks=1
    )


def test_counts_of_a_global_service() -> None:
    """Desired is the number of tasks that shall run."""
    of = service("s", "web", Mode={"Global": {}})
    tasks = _tasks(of, (RUNNING, RUNNING), (TaskState.NEW, RUNNING), (RUNNING, SHUTDOWN))
    assert service_status(of.api, tasks) == ServiceStatus(RunningTasks=1, DesiredTasks=2)


def test_counts_of_a_job_are_of_its_present_run() -> None:
    """Tasks of earlier iterations do not count; desired is how many may run at once."""
    of = service("s", "job", Mode={"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 9}})
    api = replace(of.api, JobStatus=JobStatus(JobIteration=Version(Index=1)))
    tasks = [
        *_tasks(of, (RUNNING, COMPLETE), (COMPLETE, COMPLETE), JobIteration=Version(Index=1)),
        *_tasks(of, (RUNNING, COMPLETE), (COMPLETE, COMPLETE), JobIteration=Version(Index=0)),
    ]
    assert service_status(api, tasks) == ServiceStatus(
        RunningTasks=1, DesiredTasks=2, CompletedTasks=1
    )
    everywhere = replace(api, Spec=service("s", "job", Mode={"GlobalJob": {}}).api.Spec)
    assert service_status(everywhere, tasks) == ServiceStatus(
        RunningTasks=1, DesiredTasks=1, CompletedTasks=1
    )


def test_an_empty_service_counts_nothing() -> None:
    """A service without a mode, as no API call makes one, counts to zero and does not fail."""
    assert service_status(Service(), []) == ServiceStatus()
