"""Who gets which address: virtual IPs of services, addresses of tasks, gateways of nodes.

What is free stands in the tables, under one index for all three; which of the free ones comes next
is the allocator plugin's choice (:mod:`.policy`). Rules, from swarm-behaviour.md sections 8.1, 8.2:

- A task has an address of each family on each of its networks, ingress first when its service
  publishes a port through it. It holds them while it is live.
- A service has a virtual IP on each of those networks, unless it answers by ``dnsrr``; it keeps
  them over updates for as long as it stays on the network.
- A node has an address on each network that a live task of its joins: the gateway of the bridge
  that its containers are on. Every node that carries traffic has one on the ingress network, since
  it offers every published port, and keeps it until it is removed. The first node has the one that
  the network calls its gateway, others have one of the rest, of which some are kept for them: a
  task on a node without one cannot start.
- On an attachable network every node with an engine that carries traffic has one, and room for
  containers that its users start (:mod:`.places`).
- An address that a service's label pins down (``model/pinned.py``) is its user's and nobody
  else's; the user waits until it is free.
- The networks that every engine has of its own get nothing of the kind.

Laws: an address is written with the requirement that nobody else has it. The place to go on from
is written apart, in the network's row: should that be refused, the next search begins earlier, and
that is all.
"""

from __future__ import annotations

import ipaddress
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..errors import AnswerAwaited
from ..model.change import Exists, Free, Index, Kind, Ref, Transaction, Update
from ..model.network import (
    INGRESS_USERS,
    asked_networks,
    attached_copy,
    is_predefined,
    problem_of,
    with_problem,
)
from ..model.pinned import all_addresses, network_labels, service_addresses, task_addresses
from ..model.service import EndpointVirtualIP
from ..model.task import NetworkAttachment, TaskState
from .networks import is_allocated
from .places import NODES_MAX, Rooms, room_size, without_place
from .policy import AddressSpace, AddressUser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..model.change import Requirement
    from ..model.objects import NetworkRow, ServiceRow, TaskRow
    from ..model.service import Endpoint
    from ..model.spec import NetworkAttachmentConfig
    from ..store.view import View
    from .policy import Allocator


GATEWAY = "gateway"
NO_PINS: Mapping[bool, str] = MappingProxyType({})


class Refused(NamedTuple):
    """Why there is no address, in words; none while the allocator has not answered yet."""

    why: str


AWAITED = Refused("")


class Given(NamedTuple):
    """Addresses in CIDR form, one of each family, and what must hold when they are written.

    Attributes:
        counted: the families in which it counts against what is left for tasks and services.
    """

    addresses: tuple[str, ...]
    requires: tuple[Requirement, ...]
    held: tuple[tuple[AddressSpace, int], ...] = ()
    counted: tuple[bool, ...] = ()


class Attached(NamedTuple):
    """A task's places on its networks, and what must hold when they are written."""

    attachments: tuple[NetworkAttachment, ...]
    requires: tuple[Requirement, ...]


NOWHERE = Attached((), ())


class AddressBook:
    """What every network has given away: the tables, and what this decision has handed out."""

    def __init__(self, view: View, allocator: Allocator) -> None:
        self._view = view
        self._allocator = allocator
        self._known: dict[str, _Network | Refused] = {}
        self._ingress_id: str | None = None

    # --- services ---

    def endpoint(
        self, service: ServiceRow, endpoint: Endpoint
    ) -> tuple[Endpoint, tuple[Requirement, ...]] | Refused:
        """Return an endpoint with the virtual IPs that a service's present spec asks for.

        Asked again for an allocated service, it gives the same endpoint.

        Args:
            endpoint: with its ports as they are allocated.
        """
        if not endpoint.VirtualIPs and not joins_networks(service, endpoint):
            return endpoint, ()  # most services, and this is asked of each
        networks = self._networks_of(service, endpoint)
        if isinstance(networks, Refused):
            return networks
        if endpoint.Spec.Mode == "dnsrr":
            networks = ()
        kept = {(vip.NetworkID, ":" in vip.Addr): vip for vip in endpoint.VirtualIPs}
        vips: list[EndpointVirtualIP] = []
        requires: list[Requirement] = []
        taken: list[tuple[_Network, Given]] = []
        user = AddressUser("service", service.api.ID, service.api.Spec.Name)
        for network in networks:
            pins = dict(service_addresses(service.api.Spec.Labels, network.row.api))
            present = [
                vip
                for is_ipv6 in network.families()
                if (vip := kept.get((network.id, is_ipv6))) is not None
                and pins.get(is_ipv6) in (None, vip.Addr.partition("/")[0])
            ]
            if len(present) == len(network.families()):
                vips += present
                continue
            given = network.give(user, pins)
            if isinstance(given, Refused):
                _take_back(taken)
                return given
            taken.append((network, given))
            requires += given.requires
            vips += (EndpointVirtualIP(NetworkID=network.id, Addr=text) for text in given.addresses)
        if tuple(vips) == endpoint.VirtualIPs:
            return endpoint, ()
        return replace(endpoint, VirtualIPs=tuple(vips)), tuple(requires)

    # --- tasks ---

    def attach(
        self, task: TaskRow, service: ServiceRow | None, endpoint: Endpoint | None
    ) -> Attached | Refused:
        """Return a new task's places on its networks.

        Args:
            endpoint: its service's, as allocated; None without a service.
        """
        asked = task.api.Spec.Networks
        if not asked and service is not None:
            asked = service.api.Spec.Networks
        networks = self._networks(asked, ingress=_has_ingress(endpoint))
        if isinstance(networks, Refused):
            return networks
        if not networks:
            return NOWHERE
        attachments: list[NetworkAttachment] = []
        requires: list[Requirement] = []
        name = service.api.Spec.Name if service is not None else ""
        user = AddressUser("task", task.api.ID, name, task.api.Slot)
        taken: list[tuple[_Network, Given]] = []
        labels = service.api.Spec.Labels if service is not None else {}
        for network in networks:
            pins = task_addresses(labels, network.row.api, task.api.Slot)
            given = network.give(user, dict(pins))
            if isinstance(given, Refused):
                _take_back(taken)
                return given
            taken.append((network, given))
            requires += given.requires
            attachments.append(NetworkAttachment(Network=network.copy, Addresses=given.addresses))
        return Attached(tuple(attachments), tuple(requires))

    # --- nodes ---

    def add_gateways(self) -> None:
        """Give nodes an address on the networks of their new tasks, and on the ingress network."""
        for row in self._view.networks():
            if problem_of(row) and is_allocated(row):
                self._network(row.api.ID)  # it may be solved
            if is_allocated(row):
                self._add_places(row)
        for task in self._view.tasks_at(TaskState.ASSIGNED):
            for attachment in task.api.NetworksAttachments:
                network = self._network(attachment.Network.ID)
                if isinstance(network, _Network):
                    network.add_gateway(task.api.NodeID)

    def _add_places(self, row: NetworkRow) -> None:
        """Give nodes what they have in a network also without tasks, some of them at a time."""
        without = without_place(self._view, row)
        without.sort(key=row.private.gateways.__contains__)  # rooms come later
        for node_id in without[:NODES_MAX]:
            network = self._network(row.api.ID)
            if isinstance(network, _Network):
                network.add_gateway(node_id)
                if row.api.Attachable:
                    network.add_room(node_id)

    def written(self) -> Iterator[Transaction]:
        """Yield what keeps the networks' rows up with what was handed out."""
        for network in self._known.values():
            if isinstance(network, _Network):
                yield from network.written()

    # --- networks ---

    def _networks_of(self, service: ServiceRow, endpoint: Endpoint) -> Sequence[_Network] | Refused:
        asked = asked_networks(service.api.Spec)
        networks = self._networks(asked, ingress=_has_ingress(endpoint))
        if isinstance(networks, Refused):
            return networks
        return [network for network in networks if not network.is_predefined]

    def _networks(
        self, asked: Sequence[NetworkAttachmentConfig], *, ingress: bool
    ) -> Sequence[_Network] | Refused:
        if not asked and not ingress:
            return ()
        ids = dict.fromkeys(one.Target for one in asked)
        if ingress:
            own = self._ingress()
            ids = dict.fromkeys((own, *ids)) if own else ids
        found: list[_Network] = []
        for network_id in ids:
            network = self._network(network_id)
            if isinstance(network, Refused):
                return network
            found.append(network)
        return found

    def _network(self, network_id: str) -> _Network | Refused:
        known = self._known.get(network_id)
        if known is None:
            known = self._known[network_id] = self._look_up(network_id)
        return known

    def _look_up(self, network_id: str) -> _Network | Refused:
        row = self._view.network(network_id)
        if row is None:
            return Refused(f"network {network_id} not found")
        if not is_allocated(row):
            why = problem_of(row) or "it has no subnet yet"
            return Refused(f"network {row.api.Name} is not ready: {why}")
        return _Network(self._view, row, self._allocator)

    def _ingress(self) -> str:
        if self._ingress_id is None:
            ids = (row.api.ID for row in self._view.networks() if row.api.Ingress)
            self._ingress_id = next(ids, "")
        return self._ingress_id


class _Network:
    """One network during one decision."""

    def __init__(self, view: View, row: NetworkRow, allocator: Allocator) -> None:
        self.id = row.api.ID
        self.is_predefined = is_predefined(row.api)
        self.copy = attached_copy(row)
        self.row = row
        self._allocator = allocator
        self._exists = Exists(ref=Ref(Kind.NETWORK, self.id))
        self._gateways: dict[str, Given] = {}
        self._problem = ""
        self._view = view
        self._left: dict[bool, int] = {}
        configs = () if self.is_predefined else row.api.IPAM.Config or ()
        self._spaces: dict[bool, list[AddressSpace]] = {}
        pinned = () if self.is_predefined else set(_pinned(view, row))
        for config in configs:
            cursor = row.private.cursors.get(config.Subnet, "")
            space = AddressSpace(view, row.api, config, cursor, pinned)
            self._spaces.setdefault(space.is_ipv6, []).append(space)
        self._rooms = Rooms(row, self._spaces)

    def families(self) -> tuple[bool, ...]:
        """Return for each family of the network whether it is IPv6; IPv4 comes first."""
        return tuple(self._spaces)

    def give(self, user: AddressUser, pins: Mapping[bool, str] = NO_PINS) -> Given | Refused:
        """Hand out an address of each family.

        Args:
            pins: those that it has to be, each with "is it IPv6".
        """
        if self.is_predefined:
            return Given((), (self._exists,))
        is_gateway = user.kind == GATEWAY
        counted = [is_ipv6 for is_ipv6 in self._spaces if is_ipv6 not in pins and not is_gateway]
        full = [is_ipv6 for is_ipv6 in counted if not self._has_room(is_ipv6=is_ipv6)]
        if full:
            return self._full(*full)
        found: list[tuple[AddressSpace, int]] = []
        for is_ipv6 in self._spaces:
            one = self._choose_gateway(is_ipv6=is_ipv6) if is_gateway else None
            if is_ipv6 in pins:
                chosen = self._take(pins[is_ipv6], is_ipv6=is_ipv6, user=user)
            else:
                chosen = one or self._choose(is_ipv6=is_ipv6, user=user)
            if isinstance(chosen, Refused):
                for space, number in found:
                    space.give_back(number)
                return chosen
            found.append(chosen)
        for is_ipv6 in counted:  # the others were kept back
            self._left[is_ipv6] -= 1
        holder = self.id if is_gateway else user.id
        needs = (
            Free(index=Index.ADDRESS, key=space.key(number), holder=holder)
            for space, number in found
        )
        texts = tuple(space.text(number) for space, number in found)
        return Given(texts, (self._exists, *needs), tuple(found), tuple(counted))

    def take_back(self, given: Given) -> None:
        """Have addresses back that were given to a task or service and not used after all."""
        for space, number in given.held:
            space.give_back(number)
        for is_ipv6 in given.counted:
            self._left[is_ipv6] += 1

    def _choose_gateway(self, *, is_ipv6: bool) -> tuple[AddressSpace, int] | None:
        """Take the address that the network calls its gateway, if no node has it."""
        for space in self._spaces[is_ipv6]:
            number = space.own_gateway()
            if number is not None:
                space.take(number)
                return space, number
        return None

    def _take(
        self, text: str, *, is_ipv6: bool, user: AddressUser
    ) -> tuple[AddressSpace, int] | Refused:
        """Take the one address that a user may have."""
        address = ipaddress.ip_address(text)
        for space in self._spaces[is_ipv6]:
            if address in space.subnet:
                why = space.why_not(int(address), user.id)
                if why:
                    return Refused(f"address {text} on network {self.row.api.Name}: {why}")
                space.pin(int(address), user.id)
                return space, int(address)
        return Refused(f"network {self.row.api.Name} has no address {text}")

    def _choose(self, *, is_ipv6: bool, user: AddressUser) -> tuple[AddressSpace, int] | Refused:
        """Take an address that the allocator plugin chooses."""
        for space in self._spaces[is_ipv6]:
            try:
                number = self._allocator.address(space, user)
            except AnswerAwaited:
                return AWAITED
            if number is None:
                continue
            if not space.is_free(number):
                return Refused(
                    f"the allocator chose {space.bare(number)} on network {self.row.api.Name}, "
                    "which is not free"
                )
            space.take(number)
            return space, number
        return self._full(is_ipv6)

    def _full(self, *families: bool) -> Refused:
        """Say that no address is left, and do not look for one again."""
        subnets = (str(space.subnet) for is_ipv6 in families for space in self._spaces[is_ipv6])
        self._left.update(dict.fromkeys(families, 0))
        return Refused(
            f"network {self.row.api.Name} has no free address left in {', '.join(subnets)}"
        )

    def _has_room(self, *, is_ipv6: bool) -> bool:
        """Return whether tasks and services may have addresses of a family."""
        if is_ipv6 not in self._left:
            self._left[is_ipv6] = self._count_left(is_ipv6=is_ipv6)
        return self._left[is_ipv6] > 0

    def _count_left(self, *, is_ipv6: bool) -> int:
        """Return how many addresses there are for tasks and services, those for nodes kept back."""
        view, gateways = self._view, self.row.private.gateways
        total = sum(space.size() - space.withheld() for space in self._spaces[is_ipv6])
        waiting = sum(
            row.api.ID not in gateways
            and row.api.Spec.Availability == "active"
            and row.api.Status.State != "down"
            for row in view.nodes()
        )
        kept = min(waiting - (not gateways), total // 2)
        users = [Ref(Kind.NETWORK, self.id), *([INGRESS_USERS] if self.row.api.Ingress else [])]
        services = {one for ref in users for one in view.referrers(ref)}
        vips = sum(self._has_vip(one) for one in services)
        tasks = sum(1 for _ in view.ids(("network.task", self.id)))
        rooms = self._rooms.size(is_ipv6=is_ipv6)
        return total - max(0, kept) - tasks - vips - rooms - max(0, len(gateways) - 1)

    def _has_vip(self, service_id: str) -> bool:
        service = self._view.service(service_id)
        vips = service.api.Endpoint.VirtualIPs if service is not None else ()
        return any(vip.NetworkID == self.id for vip in vips)

    def add_gateway(self, node_id: str) -> None:
        """Give a node its address, if it has none."""
        if self.is_predefined or node_id in self._gateways or node_id in self.row.private.gateways:
            return
        given = self.give(AddressUser(GATEWAY, node_id))
        if isinstance(given, Refused):
            if given.why:
                self._problem = f"node {node_id} gets no tasks of it: {given.why}"
        else:
            self._gateways[node_id] = given

    def add_room(self, node_id: str) -> None:
        """Give a node addresses for plain containers, if it has none and is in the network."""
        private = self.row.private
        if node_id in private.rooms or node_id not in {**self._gateways, **private.gateways}:
            return
        for is_ipv6 in self._spaces:
            self._has_room(is_ipv6=is_ipv6)  # so that it is counted
        if self._rooms.give(node_id, self._left):
            for is_ipv6, spaces in self._spaces.items():
                self._left[is_ipv6] -= room_size(spaces[0])
        else:
            self._problem = f"node {node_id} takes no plain containers: no room for them is left"

    def written(self) -> Iterator[Transaction]:
        """Yield what keeps the row up with what was handed out."""
        private = self.row.private
        cursors = {
            str(space.subnet): space.bare(space.cursor)
            for spaces in self._spaces.values()
            for space in spaces
            if space.first <= space.cursor <= space.last
        }
        addresses = {node_id: given.addresses for node_id, given in self._gateways.items()}
        changed = replace(
            private,
            cursors={**private.cursors, **cursors},
            gateways={**private.gateways, **addresses} if addresses else private.gateways,
            rooms={**private.rooms, **self._rooms.given} if self._rooms.given else private.rooms,
        )
        if changed != private or self._problem != problem_of(self.row):
            row = with_problem(replace(self.row, private=changed), self._problem)
            needs = [need for given in self._gateways.values() for need in given.requires]
            needs += self._rooms.requires()
            yield Transaction(changes=(Update(row=row),), requires=tuple(needs))


def _take_back(taken: Iterable[tuple[_Network, Given]]) -> None:
    """Have back what was given before one network had nothing left; no cursor moves for it."""
    for network, given in taken:
        network.take_back(given)


def _pinned(view: View, row: NetworkRow) -> Iterator[str]:
    """Yield the addresses on a network that services ask for by name."""
    ids = {one for label in network_labels(row.api) for one in view.labelled(label)}
    for service_id in ids:
        service = view.service(service_id)
        if service is not None:
            yield from all_addresses(service.api.Spec.Labels, row.api)


def joins_networks(service: ServiceRow, endpoint: Endpoint) -> bool:
    """Return whether a service's tasks have a place on any network."""
    return bool(asked_networks(service.api.Spec)) or _has_ingress(endpoint)


def _has_ingress(endpoint: Endpoint | None) -> bool:
    if endpoint is None or not endpoint.Ports:
        return False
    return any(port.PublishMode in ("", "ingress") for port in endpoint.Ports)
