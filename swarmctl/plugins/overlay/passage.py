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
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from swarmctl.plugins import Finding

if TYPE_CHECKING:
    import subprocess
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


def forwarding_problems() -> Iterator[str]:
    """Yield why packets over IPv6 do not pass. Not set here: a host may lose its routes by that."""
    with suppress(OSError):
        if (_SYSCTL / "ipv6/conf/all/forwarding").read_text().strip() == "0":
            yield (
                "published ports answer no other host over IPv6, which this one does not pass on: "
                "set net.ipv6.conf.all.forwarding=1, and before that accept_ra=2 of interfaces "
                "that learn their routes from routers"
            )


def ensure_settings(settings: Iterable[Setting]) -> None:
    """Set what is not set. One that this kernel lacks is left out."""
    for path, value in settings:
        file = _SYSCTL / path
        with suppress(OSError):
            if file.read_text().strip() != value:
                file.write_text(value)


class Passage(NamedTuple):
    """How it went with the packet filter.

    Attributes:
        mended: the chains whose rules were written.
        problems: in words, why some could not be.
    """

    mended: list[str]
    problems: list[str]


async def ensure_passage(bridge: str, node_id: str) -> Passage:
    """Have the mesh's packets pass to and from a bridge.

    Args:
        bridge: "" takes the rules away.
    """
    mended: list[str] = []
    problems: list[str] = []
    for one in await _look(bridge, node_id):
        for words in one.left:
            await _change(one.tool, "-D", *_plain(words)[1:])
        if one.is_well:
            continue
        refusals = [
            *[await _change(one.tool, "-D", *_plain(words)[1:]) for words in one.ours],
            *[await _change(one.tool, "-I", one.chain, *rule) for rule in reversed(one.wanted)],
        ]
        if why := next(filter(None, refusals), ""):
            problems.append(f"{one.name} takes no rules, which published ports need there: {why}")
        else:
            mended.append(one.name)
    return Passage(mended, problems)


async def passage_findings(network: str, bridge: str, node_id: str) -> list[Finding]:
    """Compare the engine's packet filter with what the mesh needs, mending nothing."""
    return [
        Finding(
            network=network,
            kind="filter",
            subject=one.name,
            table=one.words(one.wanted),
            kernel=one.words([_plain(words)[2:] for words in one.ours]),
        )
        for one in await _look(bridge, node_id)
        if one.wanted or one.ours
    ]


class _Chain(NamedTuple):
    """A chain of the engine's filter, or of the host's.

    Attributes:
        ours: rules of this node's, as they are listed.
        left: those of nodes that this host was before, for bridges that are gone.
        wanted: what shall be there.
    """

    tool: str
    chain: str
    ours: list[list[str]]
    left: list[list[str]]
    wanted: list[list[str]]

    @property
    def name(self) -> str:
        return f"{self.tool} {self.chain}"

    @property
    def is_well(self) -> bool:
        return [_plain(words)[2:] for words in self.ours] == self.wanted

    @staticmethod
    def words(rules: list[list[str]]) -> str:
        """Return rules in short: what they let pass."""
        return ", ".join(f"{rule[0]} {rule[1]} {rule[5]}" for rule in rules if len(rule) > 5)


async def _look(bridge: str, node_id: str) -> list[_Chain]:
    """Return the chains in which rules of ours are, or shall be."""
    comment = f"{_COMMENT}{node_id}"
    found = []
    for tool in _TOOLS:
        for chain in (_USER_CHAIN, "FORWARD"):
            listed = await _listed(tool, chain)
            if listed is None:
                continue
            there = [line.split() for line in listed.splitlines()]
            wanted = list(_rules(bridge, comment)) if _is_needed(chain, listed) and bridge else []
            found.append(
                _Chain(
                    tool,
                    chain,
                    ours=[words for words in there if comment in words],
                    left=[words for words in there if comment not in words and _is_left(words)],
                    wanted=wanted,
                )
            )
            if chain == _USER_CHAIN and wanted:
                break
    return found


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


async def _change(tool: str, *arguments: str) -> str:
    """Have iptables do something; return why it did not, or ""."""
    done = await _run(tool, *arguments)
    if done is None:
        return f"{tool} cannot be run"
    lines = done.stderr.decode(errors="replace").split("\n")
    return "" if done.returncode == 0 else lines[0] or f"it ended with {done.returncode}"


async def _listed(tool: str, chain: str) -> str | None:
    """Return a chain's rules as commands; None when it, or the tool, is not there."""
    done = await _run(tool, "-S", chain)
    return done.stdout.decode() if done is not None and done.returncode == 0 else None


async def _run(tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes] | None:
    """Return how iptables ended; None when it is not there."""
    try:
        return await trio.run_process(
            [tool, "-w", "5", *arguments], capture_stdout=True, capture_stderr=True, check=False
        )
    except OSError:
        return None
