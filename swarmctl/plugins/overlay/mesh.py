"""The rules of the host: published ports lead to members wherever they are.

Whoever reaches a published port on an address of this host, from elsewhere, from this host or from
a container on it, is sent to a ready member in turn, and comes to it from this host's address in
the ingress network, so that replies come back the same way. With ``keep_source`` only members on
this host answer, and see the client's own address. A port without members refuses at once.

Members that have their host's network are reached at that host's address in the ingress network,
where no mesh applies: a second host would else pass the client on again. Nor does it over the
loopback of a host whose task listens on the very port that it publishes: that is how such a task's
health is checked, before it may be sent anybody and by nobody else's answers.

TCP connections that have ended are forgotten soon. A client may use its port again while the last
connection, to a member that ends, is remembered; and Docker's engine forgets those of a container
that ends in two steps, look and delete, between which the port may have a new connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swarmctl.plugins import bridge_name

from .balance import ONLY_NEW, in_turn
from .names import bare, chain_of, family_of
from .rules import BRIEF, FAMILIES, Chain, Rule, Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from swarmctl.plugins.model import EndpointTable, Member, NetworkTable, PublishedPort

# After the engine's own published ports: what is taken is not fought over.
NAT_PREROUTING = "type nat hook prerouting priority -95"
NAT_OUTPUT = "type nat hook output priority -95"
NAT_POSTROUTING = "type nat hook postrouting priority 95"
FILTER_INPUT = "type filter hook input priority -5"
FILTER_OUTPUT = "type filter hook output priority -5"
RAW_PREROUTING = "type filter hook prerouting priority -310"

ANY = {"ip": "0.0.0.0", "ip6": "::"}


class Offer(NamedTuple):
    """A published port on this host, in one family.

    Attributes:
        addresses: of this host, where it is bound to some; else empty.
        targets: addresses that new connections may go to.
        known: addresses that connections may have.
    """

    port: PublishedPort
    family: str
    addresses: tuple[str, ...]
    targets: tuple[str, ...]
    known: frozenset[str]

    @property
    def key(self) -> str:
        """The port as it is told in problems."""
        return port_key(self.port)


def port_key(port: PublishedPort) -> str:
    """Return ``8080/tcp``, or ``10.0.0.1:8080/tcp``."""
    where = f"{port.ip}:" if port.ip else ""
    return f"{where}{port.published}/{port.protocol}"


def ingress_of(table: EndpointTable) -> NetworkTable | None:
    """Return the ingress network, if this node is in it."""
    return next((part for part in table.networks if part.network.ingress), None)


def host_rules(
    table: EndpointTable,
    *,
    node_id: str,
    interfaces: Mapping[str, Sequence[str]],
    not_ours: frozenset[str] = frozenset(),
    forgets_soon: bool = True,
) -> Ruleset:
    """Return what the host's own namespace shall have.

    Args:
        interfaces: bare addresses of this host, by interface.
        not_ours: keys of published ports that other processes of this host have.
        forgets_soon: the kernel can have connections that ended forgotten soon.
    """
    ruleset: Ruleset = {}
    everything = list(offers(table, node_id, interfaces, not_ours))
    for family in FAMILIES:
        of_family = [one for one in everything if one.family == family]
        if chains := _chains(family, of_family, table, node_id, forgets_soon=forgets_soon):
            ruleset[family] = chains
    return ruleset


def offers(
    table: EndpointTable,
    node_id: str,
    interfaces: Mapping[str, Sequence[str]],
    not_ours: frozenset[str] = frozenset(),
) -> Iterator[Offer]:
    """Yield what is offered on this host; arguments as in :func:`host_rules`."""
    for port in table.published:
        if port_key(port) not in not_ours:
            for family in FAMILIES:
                if one := _offer(port, table, node_id, family, interfaces):
                    yield one


def _offer(
    port: PublishedPort,
    table: EndpointTable,
    node_id: str,
    family: str,
    interfaces: Mapping[str, Sequence[str]],
) -> Offer | None:
    """Return what a port is on this host in one family; None when it is not offered in it."""
    addresses: tuple[str, ...] = ()
    if port.ip and port.ip not in ANY.values():
        bound = bound_addresses(port, interfaces)
        addresses = tuple(sorted(one for one in bound if family_of(one) == family))
    if port.ip and port.ip != ANY[family] and not addresses:
        return None
    ingress = ingress_of(table)
    known = {
        address: member.ready
        for member in port.members
        if member.node_id == node_id or not port.keep_source
        for address in _addresses(member, ingress, node_id)
        if family_of(address) == family
    }
    targets = sorted(address for address, is_ready in known.items() if is_ready)
    if not targets and not has_family(ingress, family):
        return None  # a network without IPv6 leaves the host's IPv6 ports alone
    return Offer(port, family, addresses, tuple(targets), frozenset(known))


def is_a_tasks_own(port: PublishedPort, node_id: str) -> bool:
    """Return whether a task with its host's network listens on the port that it publishes here."""
    return port.published == port.target and any(
        member.on_host and member.node_id == node_id for member in port.members
    )


def _is_address(text: str) -> bool:
    return ":" in text or text.replace(".", "").isdecimal()


def bound_addresses(port: PublishedPort, interfaces: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return the addresses that a port is bound to: one, or those of an interface."""
    return interfaces.get(port.ip, (port.ip,) if _is_address(port.ip) else ())


def has_family(ingress: NetworkTable | None, family: str) -> bool:
    """Return whether ports are published in a family at all."""
    if ingress is None:
        return family == "ip"
    return any(family_of(bare(cidr)) == family for cidr in ingress.network.gateways)


def _addresses(member: Member, ingress: NetworkTable | None, node_id: str) -> Sequence[str]:
    """Return where a member is reached from this host."""
    if not member.on_host or ingress is None:
        return member.addresses
    if member.node_id == node_id:
        gateways: Sequence[str] = ingress.network.gateways
    else:
        peers = {peer.node_id: peer.gateways for peer in ingress.peers}
        gateways = peers.get(member.node_id, ())
    return [bare(cidr) for cidr in gateways] or member.addresses


def _chains(
    family: str,
    offers: Sequence[Offer],
    table: EndpointTable,
    node_id: str,
    *,
    forgets_soon: bool,
) -> dict[str, Chain]:
    if not offers:
        return {}
    ingress = ingress_of(table)
    own = [
        bare(cidr)
        for cidr in (ingress.network.gateways if ingress else ())
        if family_of(bare(cidr)) == family
    ]
    if family == "ip6":
        own.append("::1")  # no kernel lets an answer from elsewhere come back to it
    chains: dict[str, Chain] = {}
    entry = [Rule(f"{family} daddr {address} return") for address in own]
    entry += _over_loopback(
        family, [one.port for one in offers if is_a_tasks_own(one.port, node_id)]
    )
    entry.append(Rule("fib daddr type local jump mesh"))
    chains["prerouting"] = Chain(tuple(entry), NAT_PREROUTING)
    chains["output"] = Chain(tuple(entry), NAT_OUTPUT)
    served = [one for one in offers if one.targets]
    for one in served:
        rule = _dnat(one, node_id, forgets_soon=forgets_soon)
        chains[_chain_name(one)] = Chain((Rule(rule, one.port.service_name),))
    chains["mesh"] = Chain(tuple(_dispatch(family, served)))
    chains["postrouting"] = Chain(tuple(_masquerade(served)), NAT_POSTROUTING)
    # What this host sends itself is remembered by the kernel before it comes in again.
    not_led = (ONLY_NEW, Rule("ct status & dnat == dnat return"), *entry[:-1], Rule("jump refuse"))
    chains["input"] = Chain(not_led, FILTER_INPUT)
    chains["sent"] = Chain(not_led, FILTER_OUTPUT)
    chains["refuse"] = Chain(tuple(_not_led(family, offers)))
    if ingress is not None and family == "ip":
        # Loopback addresses are routed to that bridge so that this host's own clients are served;
        # nobody on it may reach the host's loopback by that.
        guard = Rule(f'iifname "{bridge_name(ingress.network.id)}" ip daddr 127.0.0.0/8 drop')
        chains["guard"] = Chain((guard,), RAW_PREROUTING)
    return {name: chain for name, chain in chains.items() if chain.rules or name == "mesh"}


def _over_loopback(family: str, ports: Sequence[PublishedPort]) -> Iterator[Rule]:
    """Yield what leaves ports alone over loopback; over that of IPv6 all are."""
    if ports and family == "ip":
        places = ", ".join(sorted(f"{port.protocol} . {port.published}" for port in ports))
        yield Rule(f"ip daddr 127.0.0.0/8 meta l4proto . th dport {{ {places} }} return")


def _chain_name(one: Offer) -> str:
    return chain_of(
        "port", one.port.protocol, one.port.published, *([one.port.ip] * bool(one.port.ip))
    )


def _dnat(one: Offer, node_id: str, *, forgets_soon: bool) -> str:
    seed = f"{node_id}{one.key}"
    protocol, target = one.port.protocol, one.port.target
    brief = f" {BRIEF}" if forgets_soon and protocol == "tcp" else ""
    return f"meta l4proto {protocol}{brief} dnat to {in_turn(one.targets, seed=seed)} : {target}"


def _dispatch(family: str, offers: Sequence[Offer]) -> Iterator[Rule]:
    """Yield one look-up for ports that are bound to addresses, and one for all others."""
    bound = sorted(
        f"{address} . {one.port.protocol} . {one.port.published} : goto {_chain_name(one)}"
        for one in offers
        for address in one.addresses
    )
    if bound:
        yield Rule(f"{family} daddr . meta l4proto . th dport vmap {{ {', '.join(bound)} }}")
    free = sorted(
        f"{one.port.protocol} . {one.port.published} : goto {_chain_name(one)}"
        for one in offers
        if not one.addresses
    )
    if free:
        yield Rule(f"meta l4proto . th dport vmap {{ {', '.join(free)} }}")


def _masquerade(offers: Sequence[Offer]) -> Iterator[Rule]:
    """Yield what has members answer this host, where the client's address is not to be kept."""
    ports: dict[str, set[int]] = {}
    for one in offers:
        if not one.port.keep_source:
            ports.setdefault(one.port.protocol, set()).add(one.port.published)
    for protocol, numbers in sorted(ports.items()):
        yield Rule(
            f'oifname != "lo" ct status dnat meta l4proto {protocol} ct original proto-dst'
            f" {{ {', '.join(map(str, sorted(numbers)))} }} masquerade"
        )


def _not_led(family: str, offers: Sequence[Offer]) -> Iterator[Rule]:
    """Yield what becomes of packets to published ports that no rule led to a member.

    Where there are members, that is because rules are being replaced; see ``balance.py``.
    """
    for one in sorted(offers, key=lambda one: one.key):
        where = ""
        if one.addresses:
            where = f"{family} daddr {{ {', '.join(one.addresses)} }} "
        protocol = one.port.protocol
        match = f"{where}fib daddr type local {protocol} dport {one.port.published}"
        how = "reject with tcp reset" if protocol == "tcp" else "reject"
        yield Rule(f"{match} {'drop' if one.targets else how}", one.port.service_name)
