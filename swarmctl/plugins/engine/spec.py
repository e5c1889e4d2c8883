"""What a task's spec means for a container of any engine. Pure.

Executors translate the rest of it into their engine's own words.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import NANOSECONDS_PER_SECOND, bound_to

from .labels import CLUSTER_LABEL, NODE_LABEL, TASK_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.model import ContainerSpec, Driver, PortConfig, TaskAssignment

CPU_PERIOD_US = 100_000
DEFAULT_STOP_GRACE_NS = 10 * NANOSECONDS_PER_SECOND


class FileBind(NamedTuple):
    """A file on the host that shows inside the container, read-only; both paths absolute."""

    source: str
    target: str


def container_spec(assignment: TaskAssignment) -> ContainerSpec:
    """Return what runs.

    Raises:
        ExecutorError: the task is none that a container engine runs.
    """
    spec = assignment.task.Spec.ContainerSpec
    if spec is None:
        raise ExecutorError("this node's executor runs container tasks only; this one has no image")
    return spec


def stop_grace_ns(spec: ContainerSpec) -> int:
    """How long a task has between its stop signal and the kill, in nanoseconds."""
    return DEFAULT_STOP_GRACE_NS if spec.StopGracePeriod is None else spec.StopGracePeriod


def stop_timeout_s(spec: ContainerSpec) -> int | None:
    """Return the grace in whole seconds, for an engine that stops a container by itself."""
    grace = spec.StopGracePeriod
    return None if grace is None else -(-grace // NANOSECONDS_PER_SECOND)


def cpu_quota_us(nano_cpus: int) -> int:
    """Return how much of each period of :data:`CPU_PERIOD_US` a limit of CPUs is."""
    return nano_cpus * CPU_PERIOD_US // NANOSECONDS_PER_SECOND


def container_labels(assignment: TaskAssignment, identity: NodeIdentity) -> dict[str, str]:
    """Return a container's labels: the spec's, then those that nobody may set by hand."""
    task = assignment.task
    return {
        **container_spec(assignment).Labels,
        "com.docker.swarm.node.id": task.NodeID,
        "com.docker.swarm.service.id": task.ServiceID,
        "com.docker.swarm.service.name": assignment.service_name,
        "com.docker.swarm.task": "",
        TASK_LABEL: task.ID,
        "com.docker.swarm.task.name": assignment.name,
        CLUSTER_LABEL: identity.cluster_id,
        NODE_LABEL: identity.node_id,
    }


def resource_env(assignment: TaskAssignment) -> Iterator[str]:
    """Tell the task which generic resources it got: ``DOCKER_RESOURCE_GPU=UUID1,UUID2``."""
    values: dict[str, list[str]] = {}
    for resource in assignment.task.GenericResources:
        if resource.NamedResourceSpec is not None:
            named = resource.NamedResourceSpec
            values.setdefault(named.Kind, []).append(named.Value)
        if resource.DiscreteResourceSpec is not None:
            counted = resource.DiscreteResourceSpec
            values.setdefault(counted.Kind, []).append(str(counted.Value))
    for kind, held in values.items():
        yield f"DOCKER_RESOURCE_{kind}".upper() + "=" + ",".join(held)


def host_ports(assignment: TaskAssignment) -> list[PortConfig]:
    """The ports that are bound on this host by the engine itself."""
    return [port for port in assignment.ports if port.PublishMode == "host"]


def host_address(assignment: TaskAssignment, port: PortConfig) -> str:
    """Return the address that a label binds a host-mode port to, "" for all of the host's.

    Raises:
        ExecutorError: the label names an interface, which no engine knows.
    """
    bound = bound_to(assignment.service_labels, port.PublishedPort, port.Protocol or "tcp")
    if bound:
        try:
            ipaddress.ip_address(bound)
        except ValueError:
            raise ExecutorError(
                f"port {port.PublishedPort} is in host mode, which can bind it to an address, not "
                f"{bound}: give the address, or publish it in ingress mode"
            ) from None
    return bound


def host_entries(spec: ContainerSpec) -> list[str]:
    """Turn ``/etc/hosts`` lines, which specs have, into the engines' ``name:address``.

    Raises:
        ExecutorError: a line is none.
    """
    entries = []
    for line in spec.Hosts:
        address, *names = line.split() or [""]
        if not names:
            raise ExecutorError(f'host entry "{line}" must be "ADDRESS NAME [ALIAS...]"')
        entries += [f"{name}:{address}" for name in names]
    return entries


def log_driver(assignment: TaskAssignment) -> Driver | None:
    """Return a task's log driver: its own, else the cluster's; None for the engine's default."""
    driver = assignment.task.Spec.LogDriver or assignment.log_driver
    return driver if driver is not None and driver.Name else None
