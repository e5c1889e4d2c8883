"""What the driver's things are called in the kernel."""

from __future__ import annotations

import re

TABLE = "swarmctl"
"""The nftables table of ours, in each namespace and for each family."""

_OWNER = "swarmctl "


def vxlan_name(network_id: str) -> str:
    """Return the name of the device that carries a network's frames to other hosts."""
    return f"sx-{network_id[:12]}"


def owner_alias(node_id: str) -> str:
    """Return the alias of every interface that a node's driver made, by which it knows them."""
    return f"{_OWNER}{node_id}"


def owner_of(alias: str) -> str:
    """Return the id of the node whose driver gave an interface its alias; "" for any other."""
    return alias.removeprefix(_OWNER) if alias.startswith(_OWNER) else ""


def bare(cidr: str) -> str:
    """Return the address of ``10.0.1.5/24``."""
    return cidr.partition("/")[0]


def family_of(address: str) -> str:
    """Return the nftables family of a bare address."""
    return "ip6" if ":" in address else "ip"


def chain_of(kind: str, *words: object) -> str:
    """Return a name that nftables takes for a chain, different for different words."""
    return "-".join((kind, *(re.sub(r"[^\w.]", "_", str(word)) for word in words)))
