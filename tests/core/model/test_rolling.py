"""How a service rolls: which settings hold, and where start-first cannot be."""

from __future__ import annotations

import pytest

from swarmctl.core.model.base import SECOND
from swarmctl.core.model.rolling import settings_of, why_stop_first
from swarmctl.core.model.service import Service, UpdateStatus
from swarmctl.core.model.spec import (
    ContainerSpec,
    EndpointSpec,
    GlobalService,
    Mount,
    PortConfig,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

FORWARD = UpdateConfig(Parallelism=3, FailureAction="rollback")
BACKWARD = UpdateConfig(Parallelism=7, FailureAction="rollback")


@pytest.mark.parametrize(
    ("state", "parallelism", "action"),
    [
        ("", 3, "rollback"),
        ("updating", 3, "rollback"),
        ("rollback_completed", 3, "rollback"),
        ("rollback_started", 7, "pause"),
        ("rollback_paused", 7, "pause"),
    ],
)
def test_a_rollback_goes_by_its_own_settings(state: str, parallelism: int, action: str) -> None:
    """Only while the service is rolled back; and a rollback is never rolled back."""
    service = Service(
        Spec=ServiceSpec(UpdateConfig=FORWARD, RollbackConfig=BACKWARD),
        UpdateStatus=UpdateStatus(State=state) if state else None,
    )
    config = settings_of(service)
    assert (config.Parallelism, config.FailureAction) == (parallelism, action)


@pytest.mark.parametrize(
    ("config", "monitor"),
    [
        (None, 5 * SECOND),
        (UpdateConfig(Parallelism=1), 5 * SECOND),
        (UpdateConfig(Monitor=SECOND), SECOND),
        (UpdateConfig(Delay=5 * SECOND), 6 * SECOND),
        (UpdateConfig(Delay=2 * SECOND, Monitor=SECOND), 3 * SECOND),
    ],
)
def test_a_task_is_watched_longer_than_the_next_one_waits(
    config: UpdateConfig | None, monitor: int
) -> None:
    """Five seconds where nothing is said; a second more than a delay that is as long."""
    assert settings_of(Service(Spec=ServiceSpec(UpdateConfig=config))).Monitor == monitor


def service(
    *, replicas: int | None = 2, mount: Mount | None = None, port: PortConfig | None = None
) -> ServiceSpec:
    mode = ServiceMode(Global=GlobalService())
    if replicas is not None:
        mode = ServiceMode(Replicated=ReplicatedService(Replicas=replicas))
    container = ContainerSpec(Image="i", Mounts=(mount,) if mount else ())
    return ServiceSpec(
        Mode=mode,
        TaskTemplate=TaskSpec(ContainerSpec=container),
        EndpointSpec=EndpointSpec(Ports=(port,)) if port else None,
    )


def volume(source: str, **more: object) -> Mount:
    return Mount(**{"Type": "volume", "Source": source, "Target": "/d", **more})


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (service(), ""),
        (service(port=PortConfig(TargetPort=80, PublishMode="ingress")), ""),
        (
            service(port=PortConfig(TargetPort=80, PublishedPort=8080, PublishMode="host")),
            "host-mode port 8080 can be held by one task only",
        ),
        (
            service(port=PortConfig(TargetPort=80, PublishMode="host")),
            "host-mode port 80 can be held by one task only",
        ),
        (service(mount=volume("data")), ""),
        (service(replicas=1, mount=volume("data", ReadOnly=True)), ""),
        (service(replicas=1, mount=volume("")), ""),
        (service(replicas=1, mount=volume("/srv", Type="bind")), ""),
        (
            service(replicas=1, mount=volume("data")),
            "volume data mounted at /d has one writer only",
        ),
        (
            service(replicas=None, mount=volume("data")),
            "volume data mounted at /d has one writer only",
        ),
        (
            service(mount=volume("data-{{.Task.Slot}}")),
            "volume data-{{.Task.Slot}} mounted at /d has one writer only",
        ),
    ],
)
def test_where_two_tasks_of_a_replica_cannot_be(spec: ServiceSpec, reason: str) -> None:
    """A host port, and a volume that no other replica writes to."""
    assert why_stop_first(spec) == reason
