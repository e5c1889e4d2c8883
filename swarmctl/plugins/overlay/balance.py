"""The rules of a task's namespace: virtual addresses go to members that are ready, in turn.

A new connection to a service's virtual address is sent to one of its ready members, the next in
turn; conntrack keeps it there. So a member that is to stop gets no new connections and ends its
old ones. When none is ready the caller is told at once. Every protocol is served, ping too.

While rules are replaced a packet may meet the old ones when what they look up is gone already. It
would be let go by, and its connection with it for good; so it is dropped, and the next one finds
the rules in place: TCP sends it again after a second.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from .dns.sockets import INSIDE_ADDRESS, INSIDE_PORT
from .names import bare, chain_of, family_of
from .rules import FAMILIES, Chain, Rule, Ruleset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from swarmctl.plugins.model import Member, NetworkTable, ServiceEndpoint

NAT_OUTPUT = "type nat hook output priority -110"
"""Before the rules that Docker makes for its resolver."""
FILTER_OUTPUT = "type filter hook output priority 0"
ONLY_NEW = Rule("ct state != new return")
"""What else a chain has is looked at by the first packet of a connection alone."""


def sandbox_rules(
    networks: Sequence[NetworkTable],
    *,
    seed: str,
    has_resolver: bool = False,
    resolvers: Sequence[str] = (),
) -> Ruleset:
    """Return what the namespace of a task on these networks shall have.

    Args:
        seed: clients of different seeds begin their turns at different members.
        has_resolver: our resolver listens in the namespace, and takes the engine's questions.
        resolvers: who is asked there besides, whose questions it takes too.
    """
    ruleset: Ruleset = {}
    services = [service for network in networks for service in network.services if service.vips]
    for family in FAMILIES:
        chains: dict[str, Chain] = {}
        turns: dict[str, str] = {}
        refused: list[str] = []
        for vip, service in _vips(services, family):
            targets = ready_addresses(service.members, family)
            if not targets:
                refused.append(vip)
                continue
            name = chain_of("vip", vip)
            turns[vip] = name
            rule = f"dnat to {in_turn(targets, seed=seed + vip)}"
            chains[name] = Chain((Rule(rule, _label(service)),))
        output: list[Rule] = []
        if has_resolver and family == "ip":
            output += _resolver_rules(networks, resolvers)
        if turns:
            verdicts = ", ".join(f"{vip} : goto {turns[vip]}" for vip in sorted(turns))
            output.append(Rule(f"{family} daddr vmap {{ {verdicts} }}"))
        if output:
            chains["output"] = Chain(tuple(output), NAT_OUTPUT)
        if rules := tuple(_not_led(family, refused, turns)):
            chains["refuse"] = Chain((ONLY_NEW, *rules), FILTER_OUTPUT)
        if chains:
            ruleset[family] = chains
    return ruleset


def _not_led(family: str, refused: Collection[str], served: Collection[str]) -> Iterator[Rule]:
    """Yield what becomes of packets that go to a virtual address still, and so to nobody."""
    if refused:
        match = f"{family} daddr {{ {', '.join(sorted(refused))} }}"
        yield Rule(f"{match} meta l4proto tcp reject with tcp reset")
        yield Rule(f"{match} reject")
    if served:
        yield Rule(f"{family} daddr {{ {', '.join(sorted(served))} }} drop")


def ready_addresses(members: Iterable[Member], family: str) -> list[str]:
    """Return the addresses that new connections may go to."""
    return sorted(
        {
            address
            for member in members
            if member.ready
            for address in member.addresses
            if family_of(address) == family
        }
    )


def in_turn(targets: Sequence[str], *, seed: str) -> str:
    """Return the expression that gives each of some targets in turn, from a place by the seed.

    Clients that open one connection each would else all begin with the same member.
    """
    count = len(targets)
    if count == 1:
        return targets[0]
    first = zlib.crc32(seed.encode()) % count
    turn = ", ".join(f"{place} : {targets[(first + place) % count]}" for place in range(count))
    return f"numgen inc mod {count} map {{ {turn} }}"


def _vips(
    services: Iterable[ServiceEndpoint], family: str
) -> Iterator[tuple[str, ServiceEndpoint]]:
    for service in services:
        for vip in service.vips:
            if family_of(vip) == family:
                yield vip, service


def _label(service: ServiceEndpoint) -> str:
    return service.names[0] if service.names else ""


def _resolver_rules(networks: Iterable[NetworkTable], resolvers: Iterable[str]) -> Iterator[Rule]:
    """Yield what has questions answered here: those to the engine's resolver, and to gateways.

    The responder answers at gateways too, but a host's packet filter may be in the way there.
    """
    gateways = [bare(cidr) for part in networks for cidr in part.network.gateways]
    everybody = dict.fromkeys((INSIDE_ADDRESS, *gateways, *resolvers))
    asked = ", ".join(one for one in everybody if family_of(one) == "ip")
    for protocol in ("udp", "tcp"):
        to = f"dnat to {INSIDE_ADDRESS}:{INSIDE_PORT}"
        yield Rule(f"ip daddr {{ {asked} }} {protocol} dport 53 {to}")
