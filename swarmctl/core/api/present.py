"""How stored objects look to a client: what is computed on reads is put in, secrets are left out.

Every function takes the ``.api`` half of a row, never the row, so the private half cannot get out
through here. What comes out is encoded as it is.
Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.cluster import ClusterInfo, JoinTokens, Swarm
from ..model.defaults import insert_defaults
from ..model.release import service_warnings
from ..model.service import ServiceStatus
from ..model.stopping import as_in_effect
from ..model.task import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..model.objects import (
        Config,
        ManagerStatus,
        Network,
        NetworkService,
        NetworkStatus,
        Node,
        Secret,
    )
    from ..model.service import Service
    from ..model.task import Task


def present_service(
    service: Service, *, with_defaults: bool = False, quiet: Sequence[str] = ()
) -> Service:
    """Return a service for an answer about it alone: with what it asks for and does not get.

    Args:
        with_defaults: spell out every default (``insertDefaults=true``).
        quiet: nodes that carry no traffic.
    """
    warnings = service_warnings(service.Spec, quiet)
    service = as_in_effect(service)
    if with_defaults:
        service = insert_defaults(service)
    return replace(service, Warnings=warnings) if warnings else service


def present_listed_service(service: Service, status: ServiceStatus | None) -> Service:
    """Return a service for a list.

    Args:
        status: task counts, for a list with ``status=true`` only.
    """
    service = as_in_effect(service)
    return service if status is None else replace(service, ServiceStatus=status)


def service_status(service: Service, tasks: Iterable[Task]) -> ServiceStatus:
    """Return the counts of a service's tasks; of a job, those of its present iteration."""
    mode = service.Spec.Mode
    is_job = mode.ReplicatedJob is not None or mode.GlobalJob is not None
    goal = TaskState.COMPLETE if is_job else TaskState.RUNNING
    running = wanted = completed = 0
    for task in tasks:
        if is_job and not _of_present_run(service, task):
            continue
        state = task.Status.State
        # Clients add what is complete to what is desired to know how long a global job is.
        wanted += task.DesiredState is goal and state is not TaskState.COMPLETE
        running += state is TaskState.RUNNING and task.DesiredState is goal
        completed += state is TaskState.COMPLETE
    if service.Stopped is not None:
        wanted = 0
    elif mode.Replicated is not None:
        wanted = mode.Replicated.Replicas or 0
    elif mode.ReplicatedJob is not None:
        wanted = mode.ReplicatedJob.MaxConcurrent or 0
    return ServiceStatus(RunningTasks=running, DesiredTasks=wanted, CompletedTasks=completed)


def _of_present_run(service: Service, task: Task) -> bool:
    now = service.JobStatus.JobIteration.Index if service.JobStatus is not None else 0
    return (task.JobIteration.Index if task.JobIteration is not None else 0) == now


def present_task(task: Task) -> Task:
    """Return a task for an answer: a container's runtime goes without saying, as in Docker."""
    if task.Spec.Runtime != "container":
        return task
    return replace(task, Spec=replace(task.Spec, Runtime=""))


def present_node(node: Node, manager: ManagerStatus | None) -> Node:
    """Return a node for an answer.

    Args:
        manager: its standing among the managers as consensus sees it now, None for a worker.
    """
    return node if manager is node.ManagerStatus else replace(node, ManagerStatus=manager)


def present_cluster(cluster: ClusterInfo) -> ClusterInfo:
    """Return the cluster as ``GET /info`` shows it: no tokens, and never a signing key."""
    ca = replace(cluster.Spec.CAConfig, SigningCACert="", SigningCAKey="")
    return replace(cluster, Spec=replace(cluster.Spec, CAConfig=ca))


def present_swarm(cluster: ClusterInfo, tokens: JoinTokens) -> Swarm:
    """Return the cluster as ``GET /swarm`` shows it: with its join tokens, which are secret."""
    shown = present_cluster(cluster)
    fields = {name: getattr(shown, name) for name in ClusterInfo.__struct_fields__}
    return Swarm(JoinTokens=tokens, **fields)


def present_network(
    network: Network,
    status: NetworkStatus | None,
    services: dict[str, NetworkService] | None = None,
) -> Network:
    """Return a network for an answer.

    Args:
        status: how many of its addresses are in use now; None for one that gives none.
        services: who is in it; None when nobody asked.
    """
    return replace(network, Status=status, Services=services)


def present_secret(secret: Secret, *, newest: str = "") -> Secret:
    """Return a secret for an answer: its data is never shown.

    Args:
        newest: id of the version that its name means, "" when it is this one.
    """
    if not secret.Spec.Data and secret.Newest == newest:
        return secret
    return replace(secret, Spec=replace(secret.Spec, Data=b""), Newest=newest)


def present_config(config: Config, *, newest: str = "") -> Config:
    """Return a config for an answer, data and all.

    Args:
        newest: as of :func:`present_secret`.
    """
    return config if config.Newest == newest else replace(config, Newest=newest)
