"""What a field means when nobody set it.

Three kinds of filling, each with its moment (docker-api.md sections 3.2, 3.7, 3.10 and 9.4):
:func:`normalize_service_spec` fills what is stored, :func:`insert_defaults` what one reader asked
to see, :func:`merge_init_spec` what a new cluster starts with. All are pure and idempotent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from .base import HOUR, SECOND
from .cluster import (
    CAConfig,
    DispatcherConfig,
    EncryptionConfig,
    OrchestrationConfig,
    RaftConfig,
    SwarmSpec,
)
from .spec import (
    ContainerSpec,
    DNSConfig,
    EndpointSpec,
    Placement,
    ReplicatedJob,
    ReplicatedService,
    ResourceRequirements,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

if TYPE_CHECKING:
    from .service import Service

STOP_GRACE_PERIOD = 10 * SECOND
RESTART_DELAY = 5 * SECOND

DEFAULT_UPDATE = UpdateConfig(
    Parallelism=1, FailureAction="pause", Monitor=5 * SECOND, Order="stop-first"
)
"""How a service without an UpdateConfig or RollbackConfig is updated or rolled back."""

DEFAULT_RESTART = RestartPolicy(Condition="any", Delay=RESTART_DELAY, MaxAttempts=0)
"""How tasks of a service without a RestartPolicy are restarted: always, no window."""

DEFAULT_SWARM_SPEC = SwarmSpec(
    Name="default",
    Orchestration=OrchestrationConfig(TaskHistoryRetentionLimit=5),
    Raft=RaftConfig(
        SnapshotInterval=10_000,
        KeepOldSnapshots=0,
        LogEntriesForSlowFollowers=500,
        ElectionTick=10,
        HeartbeatTick=1,
    ),
    Dispatcher=DispatcherConfig(HeartbeatPeriod=2 * SECOND),  # Docker's 5 s heal too slowly
    CAConfig=CAConfig(NodeCertExpiry=90 * 24 * HOUR),
    EncryptionConfig=EncryptionConfig(AutoLockManagers=False),
)


# --- what is stored ------------------------------------------------------------------------------


def normalize_service_spec(spec: ServiceSpec) -> ServiceSpec:
    """Return the spec as it is stored and read back, from one that passed the checks.

    Fills mode and replicas, runtime, isolation, endpoint mode, each port's protocol and publish
    mode, the order and failure action of the update settings and the restart policy's condition;
    groups that were not given stay absent.
    """
    return replace(
        spec,
        TaskTemplate=_normalize_task(spec.TaskTemplate),
        Mode=normalize_mode(spec.Mode),
        UpdateConfig=_normalize_update(spec.UpdateConfig),
        RollbackConfig=_normalize_update(spec.RollbackConfig),
        EndpointSpec=_normalize_endpoint(spec.EndpointSpec),
    )


def normalize_mode(mode: ServiceMode) -> ServiceMode:
    """Return the mode with its numbers filled in; no mode at all is one replica."""
    if mode.Global is not None or mode.GlobalJob is not None:
        return mode
    job = mode.ReplicatedJob
    if job is not None:
        concurrent = 1 if job.MaxConcurrent is None else job.MaxConcurrent
        total = concurrent if job.TotalCompletions is None else job.TotalCompletions
        return ServiceMode(
            ReplicatedJob=ReplicatedJob(MaxConcurrent=concurrent, TotalCompletions=total)
        )
    replicas = mode.Replicated.Replicas if mode.Replicated else None
    return ServiceMode(Replicated=ReplicatedService(Replicas=1 if replicas is None else replicas))


def _normalize_task(task: TaskSpec) -> TaskSpec:
    container, restart = task.ContainerSpec, task.RestartPolicy
    if container is not None:
        container = replace(container, Isolation=container.Isolation or "default")
    if restart is not None:
        restart = replace(
            restart, Condition=restart.Condition or "any", MaxAttempts=restart.MaxAttempts or 0
        )
    return replace(
        task, ContainerSpec=container, RestartPolicy=restart, Runtime=task.Runtime or "container"
    )


def _normalize_update(update: UpdateConfig | None) -> UpdateConfig | None:
    if update is None:
        return None
    return replace(
        update,
        FailureAction=update.FailureAction or "pause",
        Order=update.Order or "stop-first",
    )


def _normalize_endpoint(endpoint: EndpointSpec | None) -> EndpointSpec | None:
    if endpoint is None:
        return None
    ports = tuple(
        replace(port, Protocol=port.Protocol or "tcp", PublishMode=port.PublishMode or "ingress")
        for port in endpoint.Ports
    )
    return replace(endpoint, Mode=endpoint.Mode or "vip", Ports=ports)


# --- what a reader asked to see ------------------------------------------------------------------


def insert_defaults(service: Service) -> Service:
    """Return the service with every absent default spelled out (``insertDefaults=true``)."""
    previous = service.PreviousSpec
    return replace(
        service,
        Spec=_spell_out(service.Spec),
        PreviousSpec=None if previous is None else _spell_out(previous),
    )


def spell_out_task(task: TaskSpec) -> TaskSpec:
    """Return what tasks run with every absent default spelled out; asks for exactly the same."""
    container = task.ContainerSpec
    return replace(
        task,
        ContainerSpec=None if container is None else _spell_out_container(container),
        Resources=task.Resources or ResourceRequirements(),
        RestartPolicy=_spell_out_restart(task.RestartPolicy),
        Placement=task.Placement or Placement(),
    )


def _spell_out(spec: ServiceSpec) -> ServiceSpec:
    task = spell_out_task(spec.TaskTemplate)
    if spec.Mode.ReplicatedJob is not None or spec.Mode.GlobalJob is not None:
        return replace(spec, TaskTemplate=task)  # jobs have no updates, and none may be posted back
    return replace(
        spec,
        TaskTemplate=task,
        UpdateConfig=spec.UpdateConfig or DEFAULT_UPDATE,
        RollbackConfig=spec.RollbackConfig or DEFAULT_UPDATE,
    )


def _spell_out_container(container: ContainerSpec) -> ContainerSpec:
    grace = container.StopGracePeriod
    return replace(
        container,
        StopGracePeriod=STOP_GRACE_PERIOD if grace is None else grace,
        DNSConfig=container.DNSConfig or DNSConfig(),
    )


def _spell_out_restart(restart: RestartPolicy | None) -> RestartPolicy:
    if restart is None:
        return DEFAULT_RESTART
    return replace(restart, Delay=RESTART_DELAY if restart.Delay is None else restart.Delay)


# --- what a cluster starts with ------------------------------------------------------------------


def merge_init_spec(asked: SwarmSpec, *, autolock: bool = False) -> SwarmSpec:
    """Return the settings of a new cluster: what ``POST /swarm/init`` set, over the defaults.

    A zero means "use the default", but for the two pointers, where a zero is a wish.

    Args:
        autolock: the request's own ``AutoLockManagers``, beside the one in the spec.
    """
    base = DEFAULT_SWARM_SPEC
    history = asked.Orchestration.TaskHistoryRetentionLimit
    kept = asked.Raft.KeepOldSnapshots
    return replace(
        asked,
        Name=asked.Name or base.Name,
        Orchestration=base.Orchestration if history is None else asked.Orchestration,
        Raft=RaftConfig(
            SnapshotInterval=asked.Raft.SnapshotInterval or base.Raft.SnapshotInterval,
            KeepOldSnapshots=base.Raft.KeepOldSnapshots if kept is None else kept,
            LogEntriesForSlowFollowers=(
                asked.Raft.LogEntriesForSlowFollowers or base.Raft.LogEntriesForSlowFollowers
            ),
            ElectionTick=asked.Raft.ElectionTick or base.Raft.ElectionTick,
            HeartbeatTick=asked.Raft.HeartbeatTick or base.Raft.HeartbeatTick,
        ),
        Dispatcher=asked.Dispatcher if asked.Dispatcher.HeartbeatPeriod else base.Dispatcher,
        CAConfig=replace(
            asked.CAConfig,
            NodeCertExpiry=asked.CAConfig.NodeCertExpiry or base.CAConfig.NodeCertExpiry,
        ),
        EncryptionConfig=EncryptionConfig(
            AutoLockManagers=asked.EncryptionConfig.AutoLockManagers or autolock
        ),
    )
