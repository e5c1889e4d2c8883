"""From an assignment to the body of ``POST /containers/create``: every field Docker has.

Pure: the same assignment always gives the same body. What Docker's own swarm executor does with a
field is done here too (moby daemon/cluster/executor/container); where it drops something without
a word, this refuses instead. A field that is newer than the engine's API is refused as well, since
engines ignore keys they do not know.

It must not know where files lie or which containers exist: paths of secrets come in as values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins import ExecutorError
from swarmctl.plugins.engine import (
    CPU_PERIOD_US,
    Body,
    container_labels,
    container_spec,
    cpu_quota_us,
    endpoints,
    host_address,
    host_entries,
    host_ports,
    joined,
    log_driver,
    nameservers,
    predefined,
    resource_env,
    stop_timeout_s,
)

from .level import ApiLevel, need
from .mounts import mount_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.engine import Endpoint, FileBind
    from swarmctl.plugins.model import (
        ContainerSpec,
        HealthConfig,
        PortConfig,
        Privileges,
        TaskAssignment,
    )

OWN_MAC = ApiLevel(1, 44)
"""Older engines derive the MAC address of an interface as we do, newer ones choose any."""
SEVERAL_NETWORKS = ApiLevel(1, 44)


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
        "Labels": container_labels(assignment, identity),
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
    if (grace_s := stop_timeout_s(spec)) is not None:
        # So that an engine that shuts down, or `docker stop`, keeps the task's grace as well.
        config["StopTimeout"] = grace_s
    if spec.Healthcheck is not None:
        config["Healthcheck"] = _health(spec.Healthcheck, level)
    config["HostConfig"] = _host_config(assignment, spec, level, files)
    places = {
        name: {**place_config(place), **({"MacAddress": place.mac} if level >= OWN_MAC else {})}
        for name, place in endpoints(assignment).items()
    }
    if places:
        # An older engine takes one network at create; the others are connected before the start.
        first = next(iter(places))
        at_create = places if level >= SEVERAL_NETWORKS else {first: places[first]}
        config["NetworkingConfig"] = {"EndpointsConfig": at_create}
    return config


def place_config(place: Endpoint) -> Body:
    """Return a container's place on a network as an ``EndpointConfig``."""
    addresses = {
        "IPv6Address" if ":" in address else "IPv4Address": address for address in place.addresses
    }
    return {"IPAMConfig": addresses}


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
        ("ExtraHosts", host_entries(spec)),
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
    if driver := log_driver(assignment):
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
            body["CpuQuota"] = cpu_quota_us(limits.NanoCPUs)
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
        bound = host_address(assignment, port)
        where = {"HostIp": bound} if bound else {}
        held.append({**where, "HostPort": str(port.PublishedPort) if port.PublishedPort else ""})
    return dict(bindings)


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
