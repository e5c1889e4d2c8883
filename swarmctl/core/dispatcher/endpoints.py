"""Who is where in each network, as nodes are told: kept up with the tables, sent by differences.

Pure. :class:`Endpoints` holds what the tables say and looks again only at what was touched, so that
a task's change costs the same however many tasks, services and nodes there are. Every item of a
network (itself, a peer, a service, a member) remembers at which log index it changed last; what a
node was sent is one number a network, and what it lacks are the items that changed since.

Rules:

- A node takes part in the networks in which it has an address of its own (its gateway).
- A task is a member of its service in its networks from its assignment until it ended. It is ready
  while it runs, shall go on, and its node is not down: of a node that is merely out of touch
  nobody knows that its tasks are gone. (swarm-behaviour.md 6.3: they stay.)
- A task that has its host's network is a member by its node's address, in every network.
- Names are the service's, its aliases in that network, and within a stack its short name, alone
  and with the stack's.
- A service that was removed keeps its members while they are being stopped, without names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.change import Kind, Ref
from ..model.endpointbook import EndpointBook
from ..model.endpoints import (
    EMPTY_TABLE,
    EndpointChanges,
    Member,
    NetworkChange,
    Peer,
    PublishedPort,
)
from ..model.labels import bound_to, keeps_source
from ..model.network import asked_networks, is_on_host
from ..model.task import TaskState
from .assignments import host_network
from .journal import Journal, Network, member_item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.endpoints import EndpointTable
    from ..model.objects import NetworkRow, NodeRow, ServiceRow, TaskRow
    from ..model.task import HostNetwork
    from ..store.view import View

STACK_LABEL = "com.docker.stack.namespace"
PART_MEMBERS_MAX = 4_000
"""Members in one message; a member takes some 150 bytes, and a frame has megabytes of room."""
REBUILD_STEP = 50

PortKey = tuple[str, int, str]


class Sent(NamedTuple):
    """What a node was sent.

    Attributes:
        version: of the last message.
        networks: by network id, the log index up to which the node knows it.
        published: the same of published ports; None before anything was sent.
        heads: what the node has in each network, as sent.
        addr, port: own address and data path port, as sent.
    """

    version: int = 0
    networks: dict[str, int] = {}  # noqa: RUF012 - never mutated
    published: int | None = None
    heads: dict[str, HostNetwork] = {}  # noqa: RUF012
    addr: str = ""
    port: int = 0


NOTHING_SENT = Sent()


class Endpoints:
    """What the tables say of all networks.

    Args:
        view: the live tables; what changed in them is told to :meth:`refresh`.

    Attributes:
        version: log index of the tables that were looked at last.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.version = 0
        self._networks: dict[str, Network] = {}
        self._places: dict[str, tuple[str, tuple[str, ...]]] = {}  # task: service, networks
        self._shown: dict[str, tuple[str, ...]] = {}  # service: networks
        self._ports: dict[str, dict[PortKey, PublishedPort]] = {}  # by service
        self._port_journal = Journal()

    # --- keeping up ---

    def rebuild(self) -> Iterator[None]:
        """Look at everything; yields after every few rows, for the caller to let others run.

        What is touched meanwhile has to be told to :meth:`refresh` afterwards.
        """
        view = self._view
        known = (
            (Kind.NETWORK, self._networks, view.networks()),
            (Kind.SERVICE, self._shown, view.services()),
            (Kind.TASK, self._places, view.tasks()),
        )
        refs = [
            Ref(kind, one)
            for kind, before, rows in known
            for one in dict.fromkeys((*before, *(row.api.ID for row in rows)))
        ]
        for start in range(0, len(refs), REBUILD_STEP):
            self.refresh(refs[start : start + REBUILD_STEP])
            yield

    def refresh(self, touched: Iterable[Ref]) -> set[str]:
        """Look again at what was touched; return the networks in which something changed.

        The ingress network is among them when a published port did.
        """
        self.version = self._view.index
        changed: set[str] = set()
        for ref in touched:
            if ref.kind is Kind.TASK:
                self._look_at_task(ref.id, changed)
            elif ref.kind is Kind.SERVICE:
                self._look_at_service(ref.id, changed)
            elif ref.kind is Kind.NETWORK:
                self._look_at_network(ref.id, changed)
            elif ref.kind is Kind.NODE:
                self._look_at_node(ref.id, changed)
        for network_id in changed:
            if network_id in self._networks:
                self._networks[network_id].prune()
        return changed

    def _network(self, network_id: str) -> Network:
        return self._networks.setdefault(network_id, Network(network_id))

    def _look_at_network(self, network_id: str, changed: set[str]) -> None:
        network = self._network(network_id)
        before, row = network.row, self._view.network(network_id)
        if row is None:
            del self._networks[network_id]
            changed.add(network_id)
            return
        network.row = row
        for node_id in dict.fromkeys((*network.peers, *row.private.gateways)):
            if network.set_peer(node_id, self._peer(row, node_id), self.version):
                changed.add(network_id)
        if before is None or _heads(before) != _heads(row):
            changed.add(network_id)

    def _peer(self, row: NetworkRow, node_id: str) -> Peer | None:
        node, gateways = self._view.node(node_id), row.private.gateways.get(node_id)
        if node is None or not gateways or not path_addr(node):
            return None
        return Peer(node_id=node_id, addr=path_addr(node), gateways=gateways)

    def _look_at_node(self, node_id: str, changed: set[str]) -> None:
        for network in list(self._networks.values()):
            if node_id in network.peers or node_id in network.nodes():
                self._look_at_network(network.id, changed)
        for row in self._view.tasks_on(node_id):
            if row.api.ID in self._places:
                self._look_at_task(row.api.ID, changed)

    def _look_at_service(self, service_id: str, changed: set[str]) -> None:
        row = self._view.service(service_id)
        wanted = dict(_in_networks(row)) if row is not None else {}
        for network_id in dict.fromkeys((*self._shown.get(service_id, ()), *wanted)):
            names, vips = wanted.get(network_id, ((), ()))
            if self._view.network(network_id) is None:
                continue
            if self._network(network_id).set_service(service_id, names, vips, self.version):
                changed.add(network_id)
        if wanted:
            self._shown[service_id] = tuple(wanted)
        else:
            self._shown.pop(service_id, None)
        self._look_at_ports(service_id, row, changed)

    def _look_at_ports(self, service_id: str, row: ServiceRow | None, changed: set[str]) -> None:
        before = self._ports.get(service_id, {})
        now = {port_key(port): port for port in _published(row)} if row is not None else {}
        if before == now:
            return
        for key in dict.fromkeys((*before, *now)):
            if before.get(key) != now.get(key):
                self._port_journal.note(tuple(map(str, key)), self.version)
        if now:
            self._ports[service_id] = now
        else:
            self._ports.pop(service_id, None)
        changed.update(one.id for one in self._networks.values() if _is_ingress(one))

    def _look_at_task(self, task_id: str, changed: set[str]) -> None:
        row = self._view.task(task_id)
        service_id, places = self._places.get(task_id, ("", ()))
        members: dict[str, Member] = {}
        if row is not None and _is_there(row):
            service_id = row.api.ServiceID
            members = self._members(row)
        for network_id in dict.fromkeys((*places, *members)):
            network = self._networks.get(network_id)
            if network is None and network_id not in members:
                continue
            network = self._network(network_id)
            member = members.get(network_id)
            if network.set_member(service_id, task_id, member, self.version):
                changed.add(network_id)
        if members:
            self._places[task_id] = (service_id, tuple(members))
        else:
            self._places.pop(task_id, None)

    def _members(self, row: TaskRow) -> dict[str, Member]:
        """Return what a task is in each of its networks."""
        node = self._view.node(row.api.NodeID)
        is_guest = is_on_host(row.api, node)
        ready = is_ready(row, node)
        found: dict[str, Member] = {}
        for attachment in row.api.NetworksAttachments:
            if not attachment.Addresses or self._view.network(attachment.Network.ID) is None:
                continue
            addresses = tuple(text.partition("/")[0] for text in attachment.Addresses)
            if is_guest:
                addr = node.api.Status.Addr if node is not None else ""
                addresses = (addr,) if addr else ()
            found[attachment.Network.ID] = Member(
                task_id=row.api.ID,
                node_id=row.api.NodeID,
                slot=row.api.Slot,
                addresses=addresses,
                on_host=is_guest,
                ready=ready and bool(addresses),
            )
        return found

    # --- asking ---

    def nodes_of(self, network_id: str) -> Iterable[str]:
        """Return the nodes that take part in a network."""
        network = self._networks.get(network_id)
        return network.nodes() if network is not None else ()

    def networks_of(self, node_id: str) -> Iterable[str]:
        """Return the networks that a node takes part in."""
        return [one.id for one in self._networks.values() if node_id in one.nodes()]

    def last_change(self, network_id: str) -> int:
        """Return the log index at which anything in a network changed last."""
        network = self._networks.get(network_id)
        return network.journal.last if network is not None else 0

    def places_of(self, task_id: str) -> dict[str, int]:
        """Return the networks in which a task is a member, and when that changed last."""
        service_id, networks = self._places.get(task_id, ("", ()))
        return {
            network_id: self._networks[network_id].journal.at(member_item(service_id, task_id))
            for network_id in networks
            if network_id in self._networks
        }

    def changes(self, node_id: str, sent: Sent) -> tuple[list[EndpointChanges], Sent]:
        """Return what a node lacks, in parts that each fit a frame, and what it then was sent.

        No part at all when it lacks nothing.
        """
        node, cluster = self._view.node(node_id), self._view.cluster()
        addr = path_addr(node) if node is not None else ""
        port = (cluster.api.DataPathPort if cluster is not None else 0) or 4789
        first = sent.published is None
        pieces: list[NetworkChange] = []
        heads: dict[str, HostNetwork] = {}
        takes_part = [one for one in self._networks.values() if node_id in one.nodes()]
        for network in takes_part:
            assert network.row is not None, "only a network with a row has gateways"
            head = heads[network.id] = host_network(network.row, node_id)
            pieces += self._pieces(network, node_id, head, sent)
        gone = tuple(one for one in sent.networks if one not in heads)
        published, gone_published = self._port_changes(sent)
        now = Sent(
            version=self.version,
            networks=dict.fromkeys(heads, self.version),
            published=self.version,
            heads=heads,
            addr=addr,
            port=port,
        )
        is_news = pieces or gone or published or gone_published
        if not (first or is_news or (addr, port) != (sent.addr, sent.port)):
            return [], now._replace(version=sent.version)
        last = EndpointChanges(
            version=self.version,
            complete=first,
            own_addr=addr,
            data_path_port=port,
            gone_networks=gone,
            published=published,
            gone_published=gone_published,
        )
        return list(_parts(last, pieces)), now

    def _pieces(
        self, network: Network, node_id: str, head: HostNetwork, sent: Sent
    ) -> Iterator[NetworkChange]:
        known = sent.networks.get(network.id)
        anew = known is None or known < network.journal.floor
        if anew or known is None:
            items = network.everything()
        else:
            items = network.journal.since(known)
        told = head if anew or sent.heads.get(network.id) != head else None
        if not items and told is None:
            return
        for start in range(0, max(1, len(items)), PART_MEMBERS_MAX):
            some = items[start : start + PART_MEMBERS_MAX]
            yield network.change(
                some,
                node_id,
                told if start == 0 else None,
                complete=anew and start == 0,
            )

    def _port_changes(self, sent: Sent) -> tuple[tuple[PublishedPort, ...], tuple[PortKey, ...]]:
        known = sent.published
        if known is not None and self._port_journal.last <= known:
            return (), ()
        every = {key: port for ports in self._ports.values() for key, port in ports.items()}
        if known is None:
            return tuple(every.values()), ()
        put: list[PublishedPort] = []
        gone: list[PortKey] = []
        for protocol, published, ip in self._port_journal.since(known):
            key = (protocol, int(published), ip)
            if key in every:
                put.append(every[key])
            else:
                gone.append(key)
        return tuple(put), tuple(gone)

    def table(self, node_id: str) -> EndpointTable:
        """Return what a node shall know, whole."""
        book = EndpointBook()
        tables = [book.apply(part) for part in self.changes(node_id, NOTHING_SENT)[0]]
        return tables[-1] or EMPTY_TABLE


def table_for(view: View, node_id: str) -> EndpointTable:
    """Return what a node shall know, whole, computed from nothing but the tables."""
    fresh = Endpoints(view)
    for _ in fresh.rebuild():
        pass
    return fresh.table(node_id)


def path_addr(node: NodeRow) -> str:
    """Return where other nodes reach a node below the overlays, "" before it registered."""
    return node.private.data_path_addr or node.api.Status.Addr


def is_ready(row: TaskRow, node: NodeRow | None) -> bool:
    """Return whether a task may get new connections."""
    if row.api.Status.State is not TaskState.RUNNING or row.api.DesiredState > TaskState.COMPLETE:
        return False
    return node is not None and node.api.Status.State != "down"


def port_key(port: PublishedPort) -> PortKey:
    return port.protocol, port.published, port.ip


def _is_there(row: TaskRow) -> bool:
    """Return whether a task is a member of anything: it has a node and has not ended."""
    state = row.api.Status.State
    return bool(row.api.NodeID) and TaskState.ASSIGNED <= state <= TaskState.RUNNING


def _heads(row: NetworkRow) -> tuple[object, ...]:
    """Return what of a network differs from node to node."""
    return row.private.gateways, row.private.rooms


def _is_ingress(network: Network) -> bool:
    return network.row is not None and network.row.api.Ingress


def _in_networks(row: ServiceRow) -> Iterator[tuple[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Yield the networks that a service is in, with its names and virtual addresses there."""
    spec, endpoint = row.api.Spec, row.api.Endpoint
    vips: dict[str, list[str]] = {}
    for vip in endpoint.VirtualIPs:
        vips.setdefault(vip.NetworkID, []).append(vip.Addr.partition("/")[0])
    own = (spec.Name, *_names_in_stack(spec.Name, spec.Labels.get(STACK_LABEL, "")))
    asked = {one.Target: one for one in asked_networks(spec)}
    for network_id in {**asked, **vips}:
        aliases = asked[network_id].Aliases if network_id in asked else ()
        names = tuple(dict.fromkeys((own[0], *aliases, *own[1:])))
        yield network_id, (names, tuple(vips.get(network_id, ())))


def _names_in_stack(name: str, stack: str) -> tuple[str, ...]:
    if not stack or not name.startswith(f"{stack}_"):
        return ()
    short = name[len(stack) + 1 :]
    return (short, f"{short}.{stack}") if short else ()


def _published(row: ServiceRow) -> Iterator[PublishedPort]:
    """Yield what a service publishes on every node, without members."""
    labels = row.api.Spec.Labels
    for port in row.api.Endpoint.Ports:
        if port.PublishMode in ("", "ingress") and port.PublishedPort:
            protocol = port.Protocol or "tcp"
            yield PublishedPort(
                service_id=row.api.ID,
                service_name=row.api.Spec.Name,
                protocol=protocol,
                published=port.PublishedPort,
                target=port.TargetPort,
                ip=bound_to(labels, port.PublishedPort, protocol),
                keep_source=keeps_source(labels, port.PublishedPort, protocol),
            )


def _parts(last: EndpointChanges, pieces: list[NetworkChange]) -> Iterator[EndpointChanges]:
    """Yield messages of a bounded size; all but the last say that there is more."""
    groups: list[list[NetworkChange]] = [[]]
    room = PART_MEMBERS_MAX
    for piece in pieces:
        weight = len(piece.peers) + sum(1 + len(one.members) for one in piece.services)
        if weight > room and groups[-1]:
            groups.append([])
            room = PART_MEMBERS_MAX
        groups[-1].append(piece)
        room -= weight
    for at, group in enumerate(groups[:-1]):
        yield EndpointChanges(
            version=last.version,
            more=True,
            complete=last.complete and at == 0,
            own_addr=last.own_addr,
            data_path_port=last.data_path_port,
            networks=tuple(group),
        )
    final = last if len(groups) == 1 else replace(last, complete=False)
    yield replace(final, networks=tuple(groups[-1]))
