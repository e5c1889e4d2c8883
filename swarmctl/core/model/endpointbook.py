"""The endpoint table in the making: what a node was told, piece by piece, put together.

Pure. Tables are frozen, and a piece of one that did not change is the same object in the next, so
that whoever compares two tables need not look inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from .endpoints import EMPTY_TABLE, EndpointTable, NetworkTable, ServiceEndpoint

if TYPE_CHECKING:
    from .endpoints import (
        EndpointChanges,
        Member,
        NetworkChange,
        Peer,
        PublishedPort,
        ServiceChange,
    )
    from .task import HostNetwork


class _Service:
    def __init__(self, service_id: str) -> None:
        self._id = service_id
        self._names: tuple[str, ...] = ()
        self._vips: tuple[str, ...] = ()
        self._members: dict[str, Member] = {}
        self._made: ServiceEndpoint | None = None

    def take(self, change: ServiceChange) -> None:
        self._names, self._vips = change.names, change.vips
        self._members.update((one.task_id, one) for one in change.members)
        for task_id in change.gone:
            self._members.pop(task_id, None)
        self._made = None

    def made(self) -> ServiceEndpoint:
        if self._made is None:
            self._made = ServiceEndpoint(
                service_id=self._id,
                names=self._names,
                vips=self._vips,
                members=tuple(self._members.values()),
            )
        return self._made


class _Network:
    def __init__(self, network: HostNetwork) -> None:
        self.network = network
        self.services: dict[str, _Service] = {}
        self._peers: dict[str, Peer] = {}
        self._made: NetworkTable | None = None

    def take(self, change: NetworkChange) -> None:
        self.network = change.network or self.network
        self._peers.update((one.node_id, one) for one in change.peers)
        for node_id in change.gone_peers:
            self._peers.pop(node_id, None)
        for service in change.services:
            self.services.setdefault(service.service_id, _Service(service.service_id)).take(service)
        for service_id in change.gone_services:
            self.services.pop(service_id, None)
        self._made = None

    def made(self) -> NetworkTable:
        if self._made is None:
            self._made = NetworkTable(
                network=self.network,
                peers=tuple(self._peers.values()),
                services=tuple(one.made() for one in self.services.values()),
            )
        return self._made


class EndpointBook:
    """What a node knows by what it was told."""

    def __init__(self) -> None:
        self._heading = EMPTY_TABLE
        self._networks: dict[str, _Network] = {}
        self._ports: dict[tuple[str, int, str], PublishedPort] = {}

    def apply(self, changes: EndpointChanges) -> EndpointTable | None:
        """Take in a message; return the table, or None while there is more to come."""
        if changes.complete:
            self._networks.clear()
            self._ports.clear()
        for change in changes.networks:
            known = self._networks.get(change.id)
            if known is None or change.complete:
                if change.network is None:
                    continue  # of a network that we were never told of there is nothing to change
                known = self._networks[change.id] = _Network(change.network)
            known.take(change)
        for network_id in changes.gone_networks:
            self._networks.pop(network_id, None)
        for port in changes.published:
            self._ports[port.protocol, port.published, port.ip] = port
        for key in changes.gone_published:
            self._ports.pop(key, None)
        self._heading = EndpointTable(
            version=changes.version,
            own_addr=changes.own_addr,
            data_path_port=changes.data_path_port,
        )
        return None if changes.more else self._table()

    def _table(self) -> EndpointTable:
        return replace(
            self._heading,
            networks=tuple(one.made() for one in self._networks.values()),
            published=tuple(map(self._with_members, self._ports.values())),
        )

    def _with_members(self, port: PublishedPort) -> PublishedPort:
        """Return a port with its service's members in the ingress network."""
        for network in self._networks.values():
            if network.network.ingress and port.service_id in network.services:
                members = network.services[port.service_id].made().members
                return replace(port, members=members)
        return port
