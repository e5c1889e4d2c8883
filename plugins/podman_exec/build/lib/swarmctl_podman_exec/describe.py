"""The engine's own description and statistics in our words, and what this host cannot give. Pure.

What a Podman cannot do that others can is a label, ``swarmctl.lacks.<ability>``, whose value is the
reason: the scheduler keeps tasks that need it away and tells that reason.
"""

from __future__ import annotations

from typing import Any

from swarmctl.plugins import ExecutorDescription, TaskStats
from swarmctl.plugins.model import (
    LACKS,
    NANOSECONDS_PER_SECOND,
    EngineDescription,
    NodeDescription,
    Platform,
    PluginDescription,
    Resources,
)

KIND_LABEL = "swarmctl.executor"
LIMITS = {"cpu-limit": "cpu", "memory-limit": "memory", "pids-limit": "pids"}
"""Ability -> the cgroup controller that it takes."""

Json = dict[str, Any]


def description(info: Json, *, hostname: str) -> ExecutorDescription:
    """Read ``GET /libpod/info``. ``hostname`` is the node's, "" to take the engine's."""
    host, missing = info["host"], lacks(info)
    return ExecutorDescription(
        node=NodeDescription(
            Hostname=hostname or host.get("hostname", ""),
            Platform=Platform(Architecture=host.get("arch", ""), OS=host.get("os", "linux")),
            Resources=Resources(
                NanoCPUs=host.get("cpus", 0) * NANOSECONDS_PER_SECOND,
                MemoryBytes=host.get("memTotal", 0),
            ),
            Engine=EngineDescription(
                EngineVersion=info.get("version", {}).get("Version", ""),
                Labels={
                    KIND_LABEL: "podman",
                    **{f"{LACKS}{ability}": reason for ability, reason in missing.items()},
                },
                Plugins=_plugins(info.get("plugins") or {}),
            ),
        ),
        warnings=tuple(_warnings(host, missing)),
    )


def lacks(info: Json) -> dict[str, str]:
    """Return what this host's Podman cannot give, and why."""
    host = info["host"]
    is_rootless = bool((host.get("security") or {}).get("rootless"))
    missing: dict[str, str] = {}
    controllers = host.get("cgroupControllers")
    if is_rootless and host.get("cgroupVersion") == "v1":
        reason = "Podman without root has no control groups of version 1"
        missing = dict.fromkeys([*LIMITS, "stats"], reason)
    elif controllers is not None:
        for ability, controller in LIMITS.items():
            if controller not in controllers:
                missing[ability] = f"Podman here has no control group controller {controller}"
    if is_rootless:
        missing["networks"] = "the bridges of Podman without root are not in the host's network"
    elif host.get("networkBackend", "netavark") != "netavark":
        missing["networks"] = f"Podman here uses {host['networkBackend']}, not netavark"
    return missing


def stats_sample(raw: Json) -> TaskStats | None:
    """Read ``GET /libpod/containers/stats`` of one container; None when it has just ended."""
    rows = raw.get("Stats") or ()
    if not rows or not rows[0].get("SystemNano"):
        return None
    row = rows[0]
    # Since version 5 the network's numbers are told for each interface.
    interfaces = (row.get("Network") or {}).values()
    return TaskStats(
        at=row["SystemNano"],
        cpu_ns=row.get("CPUNano", 0),
        memory_bytes=row.get("MemUsage", 0),
        pids=row.get("PIDs", 0),
        net_rx_bytes=row.get("NetInput", 0) or sum(one.get("RxBytes", 0) for one in interfaces),
        net_tx_bytes=row.get("NetOutput", 0) or sum(one.get("TxBytes", 0) for one in interfaces),
    )


def _plugins(raw: Json) -> tuple[PluginDescription, ...]:
    """Sorted by type and name. ``json-file`` is a name that Podman takes for its own file."""
    found = {
        (kind, name)
        for kind in ("Authorization", "Log", "Network", "Volume")
        for name in raw.get(kind.lower()) or ()
    }
    if ("Log", "k8s-file") in found:
        found.add(("Log", "json-file"))
    return tuple(PluginDescription(Type=kind, Name=name) for kind, name in sorted(found))


def _warnings(host: Json, missing: dict[str, str]) -> list[str]:
    said: dict[str, list[str]] = {}
    for ability, reason in missing.items():
        said.setdefault(reason, []).append(ability)
    warnings = [
        f"No {', '.join(abilities)}: {reason}. Tasks that need it run elsewhere."
        for reason, abilities in said.items()
    ]
    if host.get("eventLogger") == "none":
        warnings.append(
            "Podman logs no events here, so ends of tasks are noticed half a minute late"
        )
    return warnings
