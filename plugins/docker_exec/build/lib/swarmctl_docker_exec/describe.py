"""The engine's own description and statistics in our words. Pure."""

from __future__ import annotations

from typing import Any

from swarmctl.plugins import ExecutorDescription, TaskStats
from swarmctl.plugins.model import (
    NANOSECONDS_PER_SECOND,
    DiscreteResourceSpec,
    EngineDescription,
    GenericResource,
    NamedResourceSpec,
    NodeDescription,
    Platform,
    PluginDescription,
    Resources,
    parse_time,
)

KIND_LABEL = "swarmctl.executor"


def description(info: dict[str, Any], *, hostname: str) -> ExecutorDescription:
    """Read ``GET /info``. ``hostname`` is the node's, "" to take the engine's."""
    labels = dict(label.partition("=")[::2] for label in info.get("Labels") or ())
    return ExecutorDescription(
        node=NodeDescription(
            Hostname=hostname or info.get("Name", ""),
            Platform=Platform(
                Architecture=info.get("Architecture", ""), OS=info.get("OSType", "linux")
            ),
            Resources=Resources(
                NanoCPUs=info.get("NCPU", 0) * NANOSECONDS_PER_SECOND,
                MemoryBytes=info.get("MemTotal", 0),
                GenericResources=tuple(map(_resource, info.get("GenericResources") or ())),
            ),
            Engine=EngineDescription(
                EngineVersion=info.get("ServerVersion", ""),
                Labels={**labels, KIND_LABEL: "docker"},
                Plugins=_plugins(info.get("Plugins") or {}),
            ),
        ),
        warnings=tuple(info.get("Warnings") or ()),
    )


def stats_sample(raw: dict[str, Any]) -> TaskStats | None:
    """Read ``GET /containers/{id}/stats``; None for a container that has just ended."""
    at = parse_time(raw.get("read") or "0001-01-01T00:00:00Z")
    if not at:
        return None
    memory = raw.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # What `docker stats` shows: page cache that can be given back at once does not count.
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    networks = (raw.get("networks") or {}).values()
    return TaskStats(
        at=at,
        cpu_ns=((raw.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0),
        memory_bytes=max(0, memory.get("usage", 0) - cache),
        pids=(raw.get("pids_stats") or {}).get("current", 0),
        net_rx_bytes=sum(network.get("rx_bytes", 0) for network in networks),
        net_tx_bytes=sum(network.get("tx_bytes", 0) for network in networks),
    )


def _resource(raw: dict[str, Any]) -> GenericResource:
    if named := raw.get("NamedResourceSpec"):
        return GenericResource(
            NamedResourceSpec=NamedResourceSpec(Kind=named["Kind"], Value=named["Value"])
        )
    counted = raw["DiscreteResourceSpec"]
    return GenericResource(
        DiscreteResourceSpec=DiscreteResourceSpec(Kind=counted["Kind"], Value=counted["Value"])
    )


def _plugins(raw: dict[str, Any]) -> tuple[PluginDescription, ...]:
    """Sorted by type and name, as Docker's nodes show them."""
    found = {
        (kind, name)
        for kind in ("Authorization", "Log", "Network", "Volume")
        for name in raw.get(kind) or ()
    }
    return tuple(PluginDescription(Type=kind, Name=name) for kind, name in sorted(found))
