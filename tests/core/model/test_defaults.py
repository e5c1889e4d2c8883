"""What a field means when nobody set it (core/model/defaults.py)."""

from __future__ import annotations

import json

from hypothesis import given, settings

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.cluster import (
    CAConfig,
    DispatcherConfig,
    OrchestrationConfig,
    RaftConfig,
    SwarmSpec,
)
from swarmctl.core.model.codec import encode_json
from swarmctl.core.model.defaults import (
    DEFAULT_SWARM_SPEC,
    insert_defaults,
    merge_init_spec,
    normalize_service_spec,
)
from swarmctl.core.model.service import Service
from swarmctl.core.model.spec import ServiceSpec

from .builders import structs
from .specs import service_spec


def _plain(value: object) -> dict[str, object]:
    return json.loads(encode_json(value))


def test_a_bare_spec_is_stored_as_docker_stores_it() -> None:
    """One replica, runtime and isolation are filled; groups that were not given stay absent."""
    assert _plain(normalize_service_spec(service_spec(Mode={}))) == {
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx", "Isolation": "default"},
            "ForceUpdate": 0,
            "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 1}},
    }


def test_given_groups_are_filled_as_docker_fills_them() -> None:
    """Ports, endpoint, update settings and restart policy get their missing words."""
    spec = service_spec(
        **{
            "EndpointSpec": {"Ports": [{"TargetPort": 80}]},
            "UpdateConfig": {"Parallelism": 2},
            "RollbackConfig": {"Order": "start-first", "FailureAction": "continue"},
            "TaskTemplate.RestartPolicy": {"Delay": 0},
        }
    )
    stored = _plain(normalize_service_spec(spec))
    assert stored["EndpointSpec"] == {
        "Mode": "vip",
        "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}],
    }
    assert stored["UpdateConfig"] == {
        "Parallelism": 2,
        "FailureAction": "pause",
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    }
    assert stored["RollbackConfig"] == {
        "Parallelism": 0,
        "FailureAction": "continue",
        "MaxFailureRatio": 0,
        "Order": "start-first",
    }
    assert stored["TaskTemplate"]["RestartPolicy"] == {  # type: ignore[index]
        "Condition": "any",
        "Delay": 0,
        "MaxAttempts": 0,
    }


def test_modes_are_filled() -> None:
    """Replicated means one replica; a job is one at a time and as many as run at once."""
    for given_mode, stored in (
        ({"Replicated": {}}, {"Replicated": {"Replicas": 1}}),
        ({"Replicated": {"Replicas": 0}}, {"Replicated": {"Replicas": 0}}),
        ({"Global": {}}, {"Global": {}}),
        ({"GlobalJob": {}}, {"GlobalJob": {}}),
        ({"ReplicatedJob": {}}, {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}),
        (
            {"ReplicatedJob": {"MaxConcurrent": 3}},
            {"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}},
        ),
        (
            {"ReplicatedJob": {"TotalCompletions": 5}},
            {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 5}},
        ),
    ):
        assert _plain(normalize_service_spec(service_spec(Mode=given_mode)))["Mode"] == stored


@given(spec=structs(ServiceSpec))
@settings(max_examples=100)
def test_filling_is_idempotent(spec: ServiceSpec) -> None:
    """Filling what is filled changes nothing, so a read-modify-write is no change."""
    once = normalize_service_spec(spec)
    assert normalize_service_spec(once) == once
    shown = insert_defaults(Service(Spec=once))
    assert insert_defaults(shown) == shown


def test_insert_defaults_spells_out_what_is_absent() -> None:
    """insertDefaults=true adds each default, to the previous spec too, and keeps what is given."""
    spec = normalize_service_spec(service_spec())
    given_spec = normalize_service_spec(
        service_spec(
            **{
                "TaskTemplate.ContainerSpec.StopGracePeriod": 0,
                "TaskTemplate.RestartPolicy": {"Condition": "none", "Delay": 1},
                "UpdateConfig": {"Parallelism": 7},
            }
        )
    )
    shown = _plain(insert_defaults(Service(Spec=given_spec, PreviousSpec=spec)))
    update = {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5 * SECOND,
        "MaxFailureRatio": 0,
        "Order": "stop-first",
    }
    previous = shown["PreviousSpec"]
    assert previous["UpdateConfig"] == previous["RollbackConfig"] == update  # type: ignore[index]
    assert previous["TaskTemplate"] == {  # type: ignore[index]
        "ContainerSpec": {
            "Image": "nginx",
            "StopGracePeriod": 10 * SECOND,
            "DNSConfig": {},
            "Isolation": "default",
        },
        "Resources": {},
        "RestartPolicy": {"Condition": "any", "Delay": 5 * SECOND, "MaxAttempts": 0},
        "Placement": {},
        "ForceUpdate": 0,
        "Runtime": "container",
    }
    task = shown["Spec"]["TaskTemplate"]  # type: ignore[index]
    assert task["ContainerSpec"]["StopGracePeriod"] == 0
    assert task["RestartPolicy"] == {"Condition": "none", "Delay": 1, "MaxAttempts": 0}
    assert shown["Spec"]["UpdateConfig"]["Parallelism"] == 7  # type: ignore[index]


def test_a_cluster_starts_with_the_defaults() -> None:
    """What `docker swarm init` sends without flags gives the default settings."""
    sent = SwarmSpec(Raft=RaftConfig(ElectionTick=0, HeartbeatTick=0))
    assert merge_init_spec(sent) == DEFAULT_SWARM_SPEC
    assert DEFAULT_SWARM_SPEC.CAConfig.NodeCertExpiry == 7776000000000000


def test_what_init_sets_wins_over_the_defaults() -> None:
    """Non-zero fields, and pointers to zero, override; the rest keeps its default."""
    merged = merge_init_spec(
        SwarmSpec(
            Labels={"a": "b"},
            Orchestration=OrchestrationConfig(TaskHistoryRetentionLimit=0),
            Raft=RaftConfig(SnapshotInterval=7, KeepOldSnapshots=3),
            Dispatcher=DispatcherConfig(HeartbeatPeriod=SECOND),
            CAConfig=CAConfig(ForceRotate=1),
        ),
        autolock=True,
    )
    assert merged.Name == "default"
    assert merged.Labels == {"a": "b"}
    assert merged.Orchestration.TaskHistoryRetentionLimit == 0
    assert merged.Raft == RaftConfig(
        SnapshotInterval=7,
        KeepOldSnapshots=3,
        LogEntriesForSlowFollowers=500,
        ElectionTick=10,
        HeartbeatTick=1,
    )
    assert merged.Dispatcher.HeartbeatPeriod == SECOND
    assert merged.CAConfig == CAConfig(NodeCertExpiry=7776000000000000, ForceRotate=1)
    assert merged.EncryptionConfig.AutoLockManagers is True
