"""Filters: which nodes can run a task, and why the others cannot, in words.

A filter looks at the task once and gives back a check for nodes, or None when it has nothing to
say about such a task. A check answers with *room*: how many tasks of this kind the node takes, as
far as this filter is concerned. 0 refuses; most filters know only 0 and :data:`NO_LIMIT`. So one
round over the nodes is enough for a whole group of tasks.

Filters run in the order of :data:`BUILT_IN`, those of plugins after them, and the first that
refuses is the one that is blamed. The sentences are Docker's where Docker has one
(docker-api.md section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..errors import InvalidConstraint
from ..model.constraint import node_matches, parse_constraints
from ..model.objects import NodeRow, TaskRow
from .resources import NodeLoad, demand_of, generic_free

if TYPE_CHECKING:
    from ..model.objects import PluginDescription
    from ..model.spec import ContainerSpec

NO_LIMIT = 1 << 31

EXECUTOR_LABEL = "swarmctl.executor"
HOST_IMAGES = ("host", "host:latest")
PROCESS_EXECUTOR = "process"
PROCESS_EXECUTORS = (PROCESS_EXECUTOR, "null")

Check = Callable[[NodeRow, NodeLoad], int]


class Filter(Protocol):
    """One reason why a node may not run a task. Pure: it answers from its arguments alone."""

    def check(self, task: TaskRow) -> Check | None:
        """Return the check for tasks like ``task``; None when every node will do."""
        ...

    def explain(self, nodes: int) -> str:
        """Return what to tell a user about ``nodes`` nodes that this filter refused."""
        ...


class ReadyFilter:
    """The node answers, takes tasks, and its executor's engine works."""

    def check(self, task: TaskRow) -> Check:
        return _is_ready

    def explain(self, nodes: int) -> str:
        return f"{_nodes(nodes)} not available for new tasks"


def _is_ready(node: NodeRow, _load: NodeLoad) -> int:
    ready = (
        node.api.Status.State == "ready"
        and node.api.Spec.Availability == "active"
        and node.private.can_run
    )
    return NO_LIMIT if ready else 0


class ResourceFilter:
    """What the task reserves is free: CPU, memory, generic resources."""

    def check(self, task: TaskRow) -> Check | None:
        demand = demand_of(task)
        cpu, memory, generic = demand.cpu, demand.memory, demand.generic
        if not (cpu or memory or generic):
            return None

        def room(node: NodeRow, load: NodeLoad) -> int:
            offered = node.api.Description.Resources
            fits = NO_LIMIT
            if cpu:
                fits = min(fits, (offered.NanoCPUs - load.cpu) // cpu)
            if memory:
                fits = min(fits, (offered.MemoryBytes - load.memory) // memory)
            for kind, count in generic:
                if count:
                    fits = min(fits, generic_free(node, load, kind) // count)
            return fits

        return room

    def explain(self, nodes: int) -> str:
        return f"insufficient resources on {_nodes(nodes)}"


class PluginFilter:
    """The node's engine has the volume and log drivers that the task names.

    A node that tells nothing of its plugins passes, and one that names no log plugin at all is
    not judged by those: engines have log drivers that they do not list.
    """

    def check(self, task: TaskRow) -> Check | None:
        wanted = [("Volume", name) for name in _volume_drivers(task.api.Spec.ContainerSpec)]
        driver = task.api.Spec.LogDriver or task.private.log_driver
        log_driver = driver.Name if driver is not None and driver.Name != "none" else ""
        if not (wanted or log_driver):
            return None

        def room(node: NodeRow, _load: NodeLoad) -> int:
            plugins = node.api.Description.Engine.Plugins
            if not plugins:
                return NO_LIMIT
            has_all = all(_has(plugins, kind, name) for kind, name in wanted)
            if has_all and log_driver and any(plugin.Type == "Log" for plugin in plugins):
                has_all = _has(plugins, "Log", log_driver)
            return NO_LIMIT if has_all else 0

        return room

    def explain(self, nodes: int) -> str:
        return f"missing plugin on {_nodes(nodes)}"


def _volume_drivers(container: ContainerSpec | None) -> list[str]:
    drivers: list[str] = []
    for mount in container.Mounts if container is not None else ():
        options = mount.VolumeOptions
        if mount.Type == "volume" and options is not None and options.DriverConfig is not None:
            name = options.DriverConfig.Name
            if name and name != "local":
                drivers.append(name)
    return drivers


def _has(plugins: tuple[PluginDescription, ...], kind: str, name: str) -> bool:
    names = (name, f"{name}:latest")
    return any(plugin.Type == kind and plugin.Name in names for plugin in plugins)


class ConstraintFilter:
    """The node meets the placement constraints."""

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.Constraints:
            return None
        try:
            constraints = parse_constraints(placement.Constraints)
        except InvalidConstraint:  # no API accepts one; a node that might be wrong is no node
            return lambda _node, _load: 0
        return lambda node, _load: NO_LIMIT if node_matches(constraints, node) else 0

    def explain(self, nodes: int) -> str:
        return f"scheduling constraints not satisfied on {_nodes(nodes)}"


class PlatformFilter:
    """The node's architecture and system are among those the image has."""

    _SAME = {"x86_64": "amd64", "aarch64": "arm64"}  # noqa: RUF012 - never written

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.Platforms:
            return None
        same = self._SAME
        wanted = {
            (
                same.get(platform.Architecture.lower(), platform.Architecture.lower()),
                platform.OS.lower(),
            )
            for platform in placement.Platforms
        }

        def room(node: NodeRow, _load: NodeLoad) -> int:
            platform = node.api.Description.Platform
            arch, system = platform.Architecture.lower(), platform.OS.lower()
            arch = same.get(arch, arch)
            if not arch and not system:
                return 0
            fits = any(
                want_arch in ("", arch) and want_system in ("", system)
                for want_arch, want_system in wanted
            )
            return NO_LIMIT if fits else 0

        return room

    def explain(self, nodes: int) -> str:
        return f"unsupported platform on {_nodes(nodes)}"


class ExecutorFilter:
    """The node's executor runs that kind of image: plain processes, or containers."""

    def check(self, task: TaskRow) -> Check | None:
        container = task.api.Spec.ContainerSpec
        if container is None:
            return None
        if container.Image in HOST_IMAGES:
            return _runs_processes
        return _runs_containers

    def explain(self, nodes: int) -> str:
        return f"executor cannot run this image on {_nodes(nodes)}"


def _runs_processes(node: NodeRow, _load: NodeLoad) -> int:
    kind = node.api.Description.Engine.Labels.get(EXECUTOR_LABEL)
    return NO_LIMIT if kind in PROCESS_EXECUTORS else 0


def _runs_containers(node: NodeRow, _load: NodeLoad) -> int:
    kind = node.api.Description.Engine.Labels.get(EXECUTOR_LABEL)
    return NO_LIMIT if kind != PROCESS_EXECUTOR else 0


class HostPortFilter:
    """Nobody on the node has the ports that the task binds there."""

    def check(self, task: TaskRow) -> Check | None:
        ports = demand_of(task).ports
        if not ports:
            return None
        return lambda _node, load: 0 if any(port in load.ports for port in ports) else 1

    def explain(self, nodes: int) -> str:
        return f"host-mode port already in use on {_nodes(nodes)}"


class MaxReplicasFilter:
    """The service has not as many tasks on the node as it allows."""

    def check(self, task: TaskRow) -> Check | None:
        placement = task.api.Spec.Placement
        if placement is None or not placement.MaxReplicas:
            return None
        most, service_id = placement.MaxReplicas, task.api.ServiceID
        return lambda _node, load: max(0, most - load.services.get(service_id, 0))

    def explain(self, nodes: int) -> str:
        return "max replicas per node limit exceed"


BUILT_IN: tuple[Filter, ...] = (
    ReadyFilter(),
    ResourceFilter(),
    PluginFilter(),
    ConstraintFilter(),
    PlatformFilter(),
    ExecutorFilter(),
    HostPortFilter(),
    MaxReplicasFilter(),
)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
