"""The host's own namespace: tunnels, forwarding entries, the mesh's rules, and what they need.

Everything is done from what the table says and what the kernel has now; nothing that is remembered
here changes what is done, only whether it has to be looked at.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple

import trio

from swarmctl.plugins import bridge_name, is_at_work
from swarmctl.plugins.model import EMPTY_TABLE

from .closed import closed_rules
from .conntrack import Follower, Lead, Leads
from .findings import rule_findings, topology_findings
from .leavings import clear_way, others
from .links import Seen, carry_out
from .mesh import (
    ANY,
    bound_addresses,
    has_family,
    host_rules,
    ingress_of,
    is_a_tasks_own,
    offers,
    port_key,
)
from .names import family_of, owner_alias
from .namespaces import Namespace
from .nft import RulesRefused
from .passage import (
    Setting,
    ensure_passage,
    ensure_settings,
    forwarding_problems,
    passage_findings,
    settings_for,
)
from .reserve import Place, Reservations
from .rules import FAMILIES
from .ruleslot import RuleSlot
from .topology import (
    BRIDGE,
    Site,
    Topology,
    difference,
    topology_problems,
    wanted_topology,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swarmctl.plugins import Finding
    from swarmctl.plugins.model import EndpointTable

    from .nft import Nft
    from .rules import Ruleset


log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a pass went.

    Attributes:
        problems: what cannot be done here, in words.
        failures: what did not work and is tried again.
        drift: what was found changed, and mended.
    """

    problems: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()


class HostSide:
    """This node's side of its networks.

    Args:
        node_id: whose things are ours.

    Attributes:
        namespace: the host's own.
    """

    def __init__(self, node_id: str, nft: Nft) -> None:
        self.node_id = node_id
        self.namespace = Namespace()
        self._kernel = self.namespace.route_socket()
        self._slot = RuleSlot(self.namespace, nft)
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._reservations = Reservations()
        self._agreed: Topology | None = None
        self._seen: Seen | None = None
        self._not_ours: frozenset[str] = frozenset()
        self._follower = Follower()
        self._forgets_soon = True  # until the kernel refuses it
        self._passed: str | None = None  # the bridge to which packets were let pass last
        self._not_passed: list[str] = []  # why some were not

    def close(self) -> None:
        """Let go of sockets; what is in the kernel stays."""
        self._reservations.close()
        self._kernel.close()
        self.namespace.close()

    async def reconcile(self, table: EndpointTable, *, look: bool, audit: bool) -> Outcome:
        """Make the kernel agree with a table.

        Args:
            look: links changed, so they are looked at also when nothing new is wanted.
            audit: so is everything.
        """
        problems: list[str] = []
        failures: list[str] = []
        drift: list[str] = []
        seen = self._seen
        if seen is None or look or audit or self._wanted(table, seen) != self._agreed:
            seen, failed, found_wrong = await trio.to_thread.run_sync(
                self._links_pass, table, limiter=self._one_at_a_time
            )
            failures += failed
            drift += found_wrong
        assert seen is not None, "it was read above"
        problems += topology_problems(table, self._site(seen.topology), seen.topology)
        refused = self._reservations.hold(_places(table, self.node_id, seen.interfaces))
        problems += (
            f"port {key} cannot be published on this node: {why}" for key, why in refused.items()
        )
        self._not_ours = frozenset(refused)
        if audit or not self._slot.is_as(self._rules(table, seen)):
            drift += [f"rules {name}" for name in await self._ensure_rules(table, seen)]
        await trio.to_thread.run_sync(
            self._forget_connections, table, seen.interfaces, limiter=self._one_at_a_time
        )
        drift += await self._passage(table, audit=audit)
        problems += self._not_passed
        if table.published and has_family(ingress_of(table), "ip6"):
            problems += forwarding_problems()
        return Outcome(tuple(problems), tuple(failures), tuple(drift))

    def _rules(self, table: EndpointTable, seen: Seen) -> Ruleset:
        ruleset = host_rules(
            table,
            node_id=self.node_id,
            interfaces=seen.interfaces,
            not_ours=self._not_ours,
            forgets_soon=self._forgets_soon,
        )
        for family, chains in closed_rules(table).items():
            ruleset.setdefault(family, {}).update(chains)
        return ruleset

    async def _ensure_rules(self, table: EndpointTable, seen: Seen) -> list[str]:
        """Have the rules in place; return what was found changed by others.

        Raises:
            RulesRefused: what nft says.
            OSError: what the kernel says.
        """
        try:
            return await self._slot.ensure(self._rules(table, seen))
        except RulesRefused:
            if not self._forgets_soon:
                raise
            self._forgets_soon = False  # not every kernel can; all else is as well without
        return await self._slot.ensure(self._rules(table, seen))

    # --- links ---

    def _links_pass(self, table: EndpointTable) -> tuple[Seen, list[str], list[str]]:
        """Read, compare, change. Blocks, for as long as the kernel takes."""
        seen = Seen(self._kernel)
        if table.networks and not table.own_addr:
            return seen, ["where other nodes reach this one is not known yet"], []
        cleared, found = clear_way(table, seen.topology, self._site(seen.topology))
        for step in cleared:
            log.warning("%s is taken away, which another node left here", step)
        site = self._site(found)
        wanted = wanted_topology(table, site)
        steps = [*cleared, *difference(wanted, found, site)]
        ensure_settings(self._settings(table, wanted))
        failed = carry_out(self._kernel, steps, seen) if steps else []
        failures = sorted({f"{step}: {os.strerror(code)}" for step, code in failed})
        drift = (
            sorted({str(step) for step in steps[len(cleared) :]}) if wanted == self._agreed else []
        )
        self._agreed = None if failures else wanted
        if steps:
            seen = Seen(self._kernel)
            ensure_settings(self._settings(table, wanted))
            if self._wanted(table, seen) != wanted:
                self._agreed = None  # a bridge that was made here is ours from now on
        self._seen = seen
        return seen, failures, drift

    def _wanted(self, table: EndpointTable, seen: Seen) -> Topology:
        return wanted_topology(table, self._site(seen.topology))

    def _site(self, found: Topology) -> Site:
        links = found.links
        alias = owner_alias(self.node_id)
        bridges = [link for link in links.values() if link.kind == BRIDGE]
        return Site(
            self.node_id,
            bridges=frozenset(link.name for link in bridges),
            own_bridges=frozenset(link.name for link in bridges if link.alias == alias),
            at_work=frozenset(filter(is_at_work, others(found, self.node_id))),
        )

    def _settings(self, table: EndpointTable, wanted: Topology) -> Iterator[Setting]:
        ingress = ingress_of(table)
        bridges = [link.name for link in wanted.links.values() if link.kind == BRIDGE]
        return settings_for(
            bridges,
            bridge_name(ingress.network.id) if ingress else "",
            publishes=bool(table.published),
        )

    # --- what the rules need ---

    async def _passage(self, table: EndpointTable, *, audit: bool) -> list[str]:
        """Let the mesh's packets pass; return what was found changed since they could."""
        bridge = _mesh_bridge(table)
        is_new = self._passed != bridge
        if not (is_new or audit):
            return []
        mended, self._not_passed = await ensure_passage(bridge, self.node_id)
        self._passed = bridge
        return [] if is_new else mended

    def _forget_connections(self, table: EndpointTable, interfaces: dict[str, list[str]]) -> None:
        """Have clients of the mesh whose connections lead to nobody begin anew."""
        everywhere = {one for several in interfaces.values() for one in several}
        leads = []
        for one in offers(table, self.node_id, interfaces, self._not_ours):
            targets = frozenset(
                address
                for address in one.addresses or everywhere
                if family_of(address) == one.family
            )
            leads.append(Lead(targets, one.known, one.port.protocol, one.port.published))
        self._follower.follow(self.namespace.netfilter, Leads(leads))

    async def findings(self, table: EndpointTable) -> list[Finding]:
        """Compare the kernel with a table, mending nothing.

        Raises:
            OSError: what the kernel says.
        """
        seen = await trio.to_thread.run_sync(Seen, self._kernel, limiter=self._one_at_a_time)
        found = list(topology_findings(table, self._wanted(table, seen), seen.topology))
        ingress = ingress_of(table)
        name = ingress.network.name if ingress else ""
        found += rule_findings(name, self._rules(table, seen), self._slot.listed(), "")
        return found + await passage_findings(name, _mesh_bridge(table), self.node_id)

    async def remove_all(self) -> tuple[str, ...]:
        """Take away what carries our mark; return what did not work.

        Raises:
            RulesRefused: what nft says.
            OSError: what the kernel says.
        """
        self._agreed = None
        return (await self.reconcile(EMPTY_TABLE, look=True, audit=True)).failures


def _mesh_bridge(table: EndpointTable) -> str:
    """Return the bridge to which the mesh leads packets; "" while no port is published."""
    ingress = ingress_of(table)
    return bridge_name(ingress.network.id) if ingress and table.published else ""


def _places(
    table: EndpointTable, node_id: str, interfaces: dict[str, list[str]]
) -> dict[str, list[Place]]:
    """Return where each published port is to be held on this host."""
    ingress = ingress_of(table)
    everywhere = [ANY[family] for family in FAMILIES if has_family(ingress, family)]
    places: dict[str, list[Place]] = {}
    for port in table.published:
        if not is_a_tasks_own(port, node_id):
            addresses: Sequence[str] = everywhere
            if port.ip in ANY.values():
                addresses = [port.ip]
            elif port.ip:
                addresses = bound_addresses(port, interfaces)
            places[port_key(port)] = [
                Place(port.protocol, address, port.published)
                for address in addresses
                if not address.startswith("fe80:")  # needs its interface as well
            ]
    return places
