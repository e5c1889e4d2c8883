"""From an assignment to the body of ``POST /containers/create``: every field Docker has.

Pure: the same assignment always gives the same body. What Docker's own swarm executor does with a
field is done here too (moby daemon/cluster/executor/container); where it drops something without
a word, this refuses instead. A field that is newer than the engine's API is refused as well, since
engines ignore keys they do not know.

It must not know where files lie or which containers exist: paths of secrets come in as values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.model import bound_to

from .endpoints import endpoints, joined, nameservers, predefined
from .labels import CLUSTER_LABEL, NODE_LABEL, TASK_LABEL
from .level import ApiLevel, need
from .mounts import mount_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.model import (
        ContainerSpec,
        HealthConfig,
        PortConfig,
        Privileges,
        TaskAssignment,
    )

Body = dict[str, object]

SEVERAL_NETWORKS = ApiLevel(1, 44)
CPU_PERIOD_US = 100_000
NANOSECONDS = 1_000_000_000
DEFAULT_STOP_GRACE_NS = 10 * NANOSECONDS


class FileBind(NamedTuple):
    """A file on the host that shows inside the container, read-only; both paths absolute."""

    source: str
    target: str


def create_body(
    assignment: TaskAssignment,
    identity: NodeIdentity,
    *,
    level: ApiLevel,
    files: Sequence[FileBind] = (),
) -> Body:
    """Return what to create for a task.

    Args:
        level: API version spoken with the engine.
        files: secrets and configs, already on this host.

    Raises:
        ExecutorError: the spec asks for what this engine, or this executor, does not have.
    """
    spec = container_spec(assignment)
    config: Body = {
        "Image": spec.Image,
        "Labels": labels(assignment, identity),
        "Env": [*spec.Env, *resource_env(assignment)],
        **_invocation(spec),
    }
    for key, value in (
        ("Hostname", spec.Hostname),
        ("User", spec.User),
        ("WorkingDir", spec.Dir),
        ("StopSignal", spec.StopSignal),
        ("Tty", spec.TTY),
        ("OpenStdin", spec.OpenStdin),
        ("ExposedPorts", {_port_key(port): {} for port in host_ports(assignment)}),
    ):
        if value:
            config[key] = value
    if spec.StopGracePeriod is not None:
        # So that an engine that shuts down, or `docker stop`, keeps the task's grace as well.
        config["StopTimeout"] = -(-spec.StopGracePeriod // NANOSECONDS)
    if spec.Healthcheck is not None:
        config["Healthcheck"] = _health(spec.Healthcheck, level)
    config["HostConfig"] = _host_config(assignment, spec, level, files)
    places = endpoints(assignment, level)
    if places:
        # An older engine takes one network at create; the others are connected before the start.
        first = next(iter(places))
        at_create = places if level >= SEVERAL_NETWORKS else {first: places[first]}
        config["NetworkingConfig"] = {"EndpointsConfig": at_create}
    return config


def container_spec(assignment: TaskAssignment) -> ContainerSpec:
    """Return what runs.

    Raises:
        ExecutorError: the task is none that a container engine runs.
    """
    spec = assignment.task.Spec.ContainerSpec
    if spec is None:
        raise ExecutorError("the docker executor runs container tasks only; this one has no image")
    return spec


def stop_grace_ns(spec: ContainerSpec) -> int:
    """How long a task has between its stop signal and the kill, in nanoseconds."""
    return DEFAULT_STOP_GRACE_NS if spec.StopGracePeriod is None else spec.StopGracePeriod


def labels(assignment: TaskAssignment, identity: NodeIdentity) -> dict[str, str]:
    """Return a container's labels: the spec's, then those that nobody may set by hand."""
    task = assignment.task
    return {
        **assignment.task.Spec.ContainerSpec.Labels,  # type: ignore[union-attr] # container_spec()
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


def _invocation(spec: ContainerSpec) -> Body:
    """``Command`` replaces the image's entrypoint and its arguments; ``Args`` alone only those."""
    if spec.Command:
        return {"Entrypoint": list(spec.Command), "Cmd": list(spec.Args)}
    return {"Cmd": list(spec.Args)} if spec.Args else {}


def _health(check: HealthConfig, level: ApiLevel) -> Body:
    need(level, "1.44", "Healthcheck.StartInterval", wanted=bool(check.StartInterval))
    body: Body = {"Test": list(check.Test)}
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        if value := getattr(check, key):
            body[key] = value
    return body


def _host_config(
    assignment: TaskAssignment, spec: ContainerSpec, level: ApiLevel, files: Sequence[FileBind]
) -> Body:
    host: Body = {
        "NetworkMode": _network_mode(assignment),
        "RestartPolicy": {"Name": "no"},  # restarting is the orchestrator's business
        **_resources(assignment, spec),
    }
    mounts = [mount_body(mount, level) for mount in spec.Mounts]
    mounts += [
        {"Type": "bind", "Source": file.source, "Target": file.target, "ReadOnly": True}
        for file in files
    ]
    dns = spec.DNSConfig
    for key, value in (
        ("Mounts", mounts),
        ("PortBindings", _port_bindings(assignment)),
        ("GroupAdd", list(spec.Groups)),
        ("ReadonlyRootfs", spec.ReadOnly),
        ("Sysctls", spec.Sysctls),
        ("CapAdd", list(spec.CapabilityAdd)),
        ("CapDrop", list(spec.CapabilityDrop)),
        ("OomScoreAdj", spec.OomScoreAdj),
        ("ExtraHosts", [entry for line in spec.Hosts for entry in _extra_hosts(line)]),
        ("SecurityOpt", list(_security(spec.Privileges)) if spec.Privileges else []),
        ("Isolation", "" if spec.Isolation == "default" else spec.Isolation),
        ("Dns", nameservers(assignment) or (list(dns.Nameservers) if dns else [])),
        ("DnsSearch", list(dns.Search) if dns else []),
        ("DnsOptions", list(dns.Options) if dns else []),
    ):
        if value:
            host[key] = value
    if spec.Init is not None:
        host["Init"] = spec.Init
    driver = assignment.task.Spec.LogDriver or assignment.log_driver
    if driver is not None and driver.Name:
        host["LogConfig"] = {"Type": driver.Name, "Config": driver.Options}
    return host


def _network_mode(assignment: TaskAssignment) -> str:
    """The network a container is created in; without any it is the engine's default."""
    networks = joined(assignment)
    return predefined(assignment) or (networks[0].name if networks else "default")


def _resources(assignment: TaskAssignment, spec: ContainerSpec) -> Body:
    body: Body = {}
    wanted = assignment.task.Spec.Resources
    if wanted is not None and wanted.Reservations is not None and wanted.Reservations.MemoryBytes:
        body["MemoryReservation"] = wanted.Reservations.MemoryBytes
    if wanted is not None and wanted.Limits is not None:
        limits = wanted.Limits
        if limits.MemoryBytes:
            body["Memory"] = limits.MemoryBytes
        if limits.NanoCPUs:
            body["CpuPeriod"] = CPU_PERIOD_US
            body["CpuQuota"] = limits.NanoCPUs * CPU_PERIOD_US // NANOSECONDS
        if limits.Pids:
            body["PidsLimit"] = limits.Pids
    if spec.Ulimits:
        body["Ulimits"] = [
            {"Name": limit.Name, "Soft": limit.Soft, "Hard": limit.Hard} for limit in spec.Ulimits
        ]
    return body


def _port_key(port: PortConfig) -> str:
    return f"{port.TargetPort}/{port.Protocol or 'tcp'}"


def _port_bindings(assignment: TaskAssignment) -> Body:
    """An empty host port lets the engine choose a free one."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in host_ports(assignment):
        held = bindings.setdefault(_port_key(port), [])
        bound = bound_to(assignment.service_labels, port.PublishedPort, port.Protocol or "tcp")
        where = {"HostIp": bound} if bound else {}
        held.append({**where, "HostPort": str(port.PublishedPort) if port.PublishedPort else ""})
    return dict(bindings)


def _extra_hosts(line: str) -> Iterator[str]:
    """From ``/etc/hosts`` order, which specs have, to the engine's ``name:address``."""
    address, *names = line.split() or [""]
    if not names:
        raise ExecutorError(f'host entry "{line}" must be "ADDRESS NAME [ALIAS...]"')
    for name in names:
        yield f"{name}:{address}"


def _security(privileges: Privileges) -> Iterator[str]:
    """The engine's ``--security-opt`` words."""
    credential = privileges.CredentialSpec
    if credential is not None:
        if credential.Config:
            raise ExecutorError("CredentialSpec.Config is not supported; use File or Registry")
        for scheme, value in (("file", credential.File), ("registry", credential.Registry)):
            if value:
                yield f"credentialspec={scheme}://{value}"
    context = privileges.SELinuxContext
    if context is not None:
        if context.Disable:
            yield "label=disable"
        for word in ("User", "Role", "Type", "Level"):
            if value := getattr(context, word):
                yield f"label={word.lower()}:{value}"
    if privileges.Seccomp is not None:
        if privileges.Seccomp.Mode == "unconfined":
            yield "seccomp=unconfined"
        elif privileges.Seccomp.Mode == "custom":
            yield f"seccomp={privileges.Seccomp.Profile.decode()}"
    if privileges.AppArmor is not None and privileges.AppArmor.Mode == "disabled":
        yield "apparmor=unconfined"
    if privileges.NoNewPrivileges:
        yield "no-new-privileges=true"
