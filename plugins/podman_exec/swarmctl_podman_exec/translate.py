"""From an assignment to the body of ``POST /libpod/containers/create``, libpod's SpecGenerator.

Pure: the same assignment always gives the same body. A spec means here what it means on Docker,
down to the capabilities of a container that asks for none; what Podman cannot do is refused by
name. What depends on the image or the host is added later (``dialect.complete``).

The health check is given without an interval, so that Podman sets up no timer of systemd's: the
executor triggers it (``health.py``), with the rhythm that stands in a label.
"""

from __future__ import annotations

import signal
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
    log_driver,
    nameservers,
    predefined,
    resource_env,
    stop_timeout_s,
)

from .mounts import mount_bodies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmctl.plugins import NodeIdentity
    from swarmctl.plugins.engine import FileBind
    from swarmctl.plugins.model import ContainerSpec, Driver, Privileges, TaskAssignment

    from .version import PodmanVersion

OF_DOCKER = ("AUDIT_WRITE", "MKNOD", "NET_RAW")
"""Capabilities that a container has on Docker by default and not on Podman."""
LOG_DRIVERS = {"json-file": "k8s-file"}
UNLIMITED = (1 << 64) - 1
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def create_body(
    assignment: TaskAssignment,
    identity: NodeIdentity,
    *,
    version: PodmanVersion,
    files: Sequence[FileBind] = (),
    profile: str = "",
) -> Body:
    """Return what to create for a task, as far as its spec tells.

    Args:
        files: secrets and configs, already on this host.
        profile: where a seccomp profile of the spec's lies on this host.

    Raises:
        ExecutorError: the spec asks for what Podman, or this version of it, does not have.
    """
    spec = container_spec(assignment)
    _refuse(spec)
    env = [*spec.Env, *resource_env(assignment)]
    body: Body = {
        "name": assignment.name,
        "image": spec.Image,
        "labels": container_labels(assignment, identity),
        "restart_policy": "no",  # restarting is the orchestrator's business
        "systemd": "false",  # a program called init is a program like any other
        "log_configuration": _log_configuration(log_driver(assignment)),
        "env": dict(text.split("=", 1) for text in env if "=" in text),
        **_capabilities(spec),
        **mount_bodies(spec.Mounts, files, version),
        **_network(assignment),
        **(_security(spec.Privileges, profile) if spec.Privileges else {}),
    }
    for key, value in (
        ("entrypoint", list(spec.Command)),
        ("command", list(spec.Args)),
        ("unsetenv", [text for text in env if "=" not in text]),
        ("hostname", spec.Hostname),
        ("user", spec.User),
        ("groups", list(spec.Groups)),
        ("work_dir", spec.Dir),
        ("terminal", spec.TTY),
        ("stdin", spec.OpenStdin),
        ("init", spec.Init),
        ("read_only_filesystem", spec.ReadOnly),
        ("sysctl", spec.Sysctls),
        ("oom_score_adj", spec.OomScoreAdj),
        ("stop_signal", signal_number(spec.StopSignal) if spec.StopSignal else 0),
        ("resource_limits", _resources(assignment)),
        ("r_limits", [_ulimit(one.Name, one.Soft, one.Hard) for one in spec.Ulimits]),
    ):
        if value:
            body[key] = value
    if (grace_s := stop_timeout_s(spec)) is not None:
        body["stop_timeout"] = grace_s
    return body


def profile_of(assignment: TaskAssignment) -> bytes:
    """Return the seccomp profile that a task brings along, b"" for none."""
    privileges = container_spec(assignment).Privileges
    seccomp = privileges.Seccomp if privileges is not None else None
    return seccomp.Profile if seccomp is not None and seccomp.Mode == "custom" else b""


def signal_number(name: str) -> int:
    """Return the number of a signal called ``SIGINT``, ``int``, ``RTMIN+3`` or ``2``.

    Raises:
        ExecutorError: there is no such signal.
    """
    if name.isdecimal():
        return int(name)
    base, sign, offset = name.upper().removeprefix("SIG").partition("+")
    if not sign:
        base, sign, offset = base.partition("-")
    try:
        number = signal.Signals[f"SIG{base}"].value
        return number + int(f"{sign}{offset}" if sign else 0)
    except (KeyError, ValueError):
        raise ExecutorError(f'StopSignal "{name}" is no signal') from None


def _refuse(spec: ContainerSpec) -> None:
    """Refuse what no Podman can do."""
    if spec.Isolation not in ("", "default"):
        raise ExecutorError(f"Isolation {spec.Isolation} is Windows only")
    if spec.Privileges is not None and spec.Privileges.CredentialSpec is not None:
        raise ExecutorError("CredentialSpec is Windows only")


def _log_configuration(driver: Driver | None) -> Body:
    """By default a file, whatever the engine's own default is: of that we know how it is read."""
    if driver is None:
        return {"driver": "k8s-file"}
    body: Body = {"driver": LOG_DRIVERS.get(driver.Name, driver.Name)}
    options = dict(driver.Options)
    if size := options.pop("max-size", ""):
        body["size"] = _bytes(size)
    if body["driver"] == "k8s-file":
        if options.pop("max-file", "1") != "1":
            raise ExecutorError(
                f"log option max-file={driver.Options['max-file']}: Podman keeps one file; leave "
                "it out, or set it to 1"
            )
        if options:
            raise ExecutorError(f"Podman has no log option {', '.join(sorted(options))}")
    if options:
        body["options"] = options
    return body


def _bytes(text: str) -> int:
    number, unit = text.rstrip("bkmgBKMG"), text.lstrip("0123456789").lower()
    unit = unit[:-1] if len(unit) == 2 and unit[1] == "b" else unit
    if not number.isdecimal() or unit not in _UNITS:
        raise ExecutorError(f'log option max-size: "{text}" is no size such as 10m')
    return int(number) * _UNITS[unit]


def _capabilities(spec: ContainerSpec) -> Body:
    dropped = {_plain(name) for name in spec.CapabilityDrop}
    added = [*spec.CapabilityAdd]
    if not dropped & {"ALL"} and not {_plain(name) for name in added} & {"ALL"}:
        given = {_plain(name) for name in added}
        added += [f"CAP_{name}" for name in OF_DOCKER if name not in dropped | given]
    body: Body = {}
    if added:
        body["cap_add"] = added
    if spec.CapabilityDrop:
        body["cap_drop"] = list(spec.CapabilityDrop)
    return body


def _plain(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _resources(assignment: TaskAssignment) -> Body:
    wanted = assignment.task.Spec.Resources
    if wanted is None:
        return {}
    memory: Body = {}
    body: Body = {}
    if wanted.Reservations is not None and wanted.Reservations.MemoryBytes:
        memory["reservation"] = wanted.Reservations.MemoryBytes
    if wanted.Limits is not None:
        if wanted.Limits.MemoryBytes:
            memory["limit"] = wanted.Limits.MemoryBytes
        if wanted.Limits.NanoCPUs:
            quota = cpu_quota_us(wanted.Limits.NanoCPUs)
            body["cpu"] = {"period": CPU_PERIOD_US, "quota": quota}
        if wanted.Limits.Pids:
            body["pids"] = {"limit": wanted.Limits.Pids}
    if memory:
        body["memory"] = memory
    return body


def _ulimit(name: str, soft: int, hard: int) -> Body:
    """Docker's -1 is libpod's largest number."""
    soft, hard = (UNLIMITED if value < 0 else value for value in (soft, hard))
    return {"type": name, "soft": soft, "hard": hard}


def _network(assignment: TaskAssignment) -> Body:
    spec = container_spec(assignment)
    body: Body = {}
    places = endpoints(assignment)
    if places:
        body["netns"] = {"nsmode": "bridge"}
        body["networks"] = {
            name: {"static_ips": list(place.addresses), "static_mac": place.mac}
            for name, place in places.items()
        }
    elif mode := predefined(assignment):
        body["netns"] = {"nsmode": mode}
    ports = [
        {
            "container_port": port.TargetPort,
            "host_port": port.PublishedPort,  # 0: the engine chooses a free one
            "protocol": port.Protocol or "tcp",
            **({"host_ip": bound} if (bound := host_address(assignment, port)) else {}),
        }
        for port in host_ports(assignment)
    ]
    dns = spec.DNSConfig
    for key, value in (
        ("portmappings", ports),
        ("hostadd", host_entries(spec)),
        ("dns_server", nameservers(assignment) or (list(dns.Nameservers) if dns else [])),
        ("dns_search", list(dns.Search) if dns else []),
        ("dns_option", list(dns.Options) if dns else []),
    ):
        if value:
            body[key] = value
    return body


def _security(privileges: Privileges, profile: str) -> Body:
    body: Body = {}
    context = privileges.SELinuxContext
    if context is not None and context.Disable:
        body["selinux_opts"] = ["disable"]
    elif context is not None:
        words = {word.lower(): getattr(context, word) for word in ("User", "Role", "Type", "Level")}
        body["selinux_opts"] = [f"{word}:{value}" for word, value in words.items() if value]
    if privileges.Seccomp is not None:
        if privileges.Seccomp.Mode == "unconfined":
            body["seccomp_profile_path"] = "unconfined"
        elif privileges.Seccomp.Mode == "custom":
            body["seccomp_profile_path"] = profile
    if privileges.AppArmor is not None and privileges.AppArmor.Mode == "disabled":
        body["apparmor_profile"] = "unconfined"
    if privileges.NoNewPrivileges:
        body["no_new_privileges"] = True
    return body
