"""Lets the mesh's packets pass through this host: forwarding, and the engine's packet filter.

An nftables rule of ours cannot let through what an iptables chain drops, and an engine drops what
is forwarded to a bridge that it did not publish itself. So two rules go where Docker leaves room
for others' rules; on a host without that chain, to the front of FORWARD when its policy is to drop.
They are found by their comment, and looked for when a port is published and at each audit: an
engine that restarts writes anew.
Those of another node of ours go once the bridge that they name is gone, when they mean nothing.
"""

from __future__ import annotations

import socket
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SYSCTL = Path("/proc/sys/net")
_USER_CHAIN = "DOCKER-USER"
_TOOLS = ("iptables", "ip6tables")
_COMMENT = "swarmctl-"


class Setting(NamedTuple):
    """A kernel parameter below ``/proc/sys/net`` and what it has to be at least."""

    path: str
    value: str


def settings_for(bridges: Iterable[str], ingress: str, *, publishes: bool) -> Iterator[Setting]:
    """Yield what the kernel has to be set to.

    Args:
        bridges: of our networks.
        ingress: the bridge of the ingress network, or "".
    """
    for bridge in bridges:
        # Who knows the bridge by an older MAC address is told of the new one.
        yield Setting(f"ipv4/conf/{bridge}/arp_notify", "1")
    if publishes:
        yield Setting("ipv4/ip_forward", "1")
        if ingress:
            yield Setting(f"ipv4/conf/{ingress}/route_localnet", "1")


def ensure_settings(settings: Iterable[Setting]) -> list[str]:
    """Set what is not set; return which were not. One that this kernel lacks is left out."""
    changed = []
    for path, value in settings:
        file = _SYSCTL / path
        try:
            if file.read_text().strip() != value:
                file.write_text(value)
                changed.append(path)
        except OSError:
            continue
    return changed


async def ensure_passage(bridge: str, node_id: str) -> list[str]:
    """Have the mesh's packets pass to and from a bridge; return the chains that were mended.

    Args:
        bridge: "" takes the rules away.
    """
    comment = f"{_COMMENT}{node_id}"
    mended = []
    for tool in _TOOLS:
        for chain in (_USER_CHAIN, "FORWARD"):
            listed = await _run(tool, "-S", chain)
            if listed is None:
                continue
            there = [line.split() for line in listed.splitlines()]
            for words in there:
                if comment not in words and _is_left(words):
                    await _run(tool, "-D", *_plain(words)[1:])
            ours = [words for words in there if comment in words]
            wanted = list(_rules(bridge, comment)) if _is_needed(chain, listed) and bridge else []
            if [_plain(words) for words in ours] != [["-A", chain, *rule] for rule in wanted]:
                for words in ours:
                    await _run(tool, "-D", *_plain(words)[1:])
                for rule in reversed(wanted):
                    await _run(tool, "-I", chain, *rule)
                mended.append(f"{tool} {chain}")
            if chain == _USER_CHAIN and wanted:
                break
    return mended


def _is_needed(chain: str, listed: str) -> bool:
    return chain == _USER_CHAIN or listed.startswith("-P FORWARD DROP")


def _rules(bridge: str, comment: str) -> Iterator[list[str]]:
    remark = ["-m", "comment", "--comment", comment, "-j", "ACCEPT"]
    yield ["-o", bridge, "-m", "conntrack", "--ctstate", "DNAT", *remark]
    yield ["-i", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", *remark]


def _is_left(words: list[str]) -> bool:
    """Return whether a rule is a node's of ours, for a bridge that is not there any more."""
    if not any(word.startswith(_COMMENT) for word in _plain(words)):
        return False
    bridges = [after for word, after in pairwise(words) if word in ("-i", "-o")]
    return bool(bridges) and not any(map(_is_interface, bridges))


def _is_interface(name: str) -> bool:
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def _plain(words: list[str]) -> list[str]:
    return [word.strip('"') for word in words]


async def _run(tool: str, *arguments: str) -> str | None:
    """Return what iptables prints; None when it, or the chain, is not there."""
    try:
        done = await trio.run_process(
            [tool, "-w", "5", *arguments], capture_stdout=True, capture_stderr=True, check=False
        )
    except OSError:
        return None
    return done.stdout.decode() if done.returncode == 0 else None
