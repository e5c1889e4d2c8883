"""What a node has to know to carry traffic: who is where in its networks, and what is published.

The leader computes it from the tables alone (``dispatcher/endpoints.py``) and sends it over the
session as versioned desired state; the node's network driver makes the kernel agree. Nothing is
learned by gossip or from packets, so nothing goes stale: a node that hears nothing keeps what it
was told last.
"""

from __future__ import annotations

import msgspec

from .base import PrivateStruct
from .task import HostNetwork


class Peer(PrivateStruct, frozen=True, kw_only=True):
    """Another node that takes part in a network.

    Attributes:
        addr: where it is reached below the overlay, a bare address.
        gateways: its own addresses in the network, CIDR form, one per family.
    """

    node_id: str
    addr: str
    gateways: tuple[str, ...] = ()


class Member(PrivateStruct, frozen=True, kw_only=True):
    """A task that answers for its service in one network.

    Attributes:
        addresses: its own in that network, bare, one per family; its node's for a task that has
            the host's network.
        on_host: it has the host's network, so its addresses are no neighbours in the overlay.
        ready: it runs, is healthy and shall go on. One that is not ready gets no new connections,
            established ones go on.
    """

    task_id: str
    node_id: str
    slot: int = 0
    addresses: tuple[str, ...] = ()
    on_host: bool = False
    ready: bool = False


class ServiceEndpoint(PrivateStruct, frozen=True, kw_only=True):
    """A service in one network.

    Attributes:
        names: what DNS answers for it there: its name, aliases, and its short name in its stack.
        vips: bare virtual addresses, one per family; none with ``dnsrr``: names then give members.
    """

    service_id: str
    names: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()


class PublishedPort(PrivateStruct, frozen=True, kw_only=True):
    """A port that every node offers for a service (ingress mode).

    Attributes:
        protocol: tcp, udp or sctp.
        ip: only on this address, or on this interface's addresses; "" for all.
        keep_source: members see the client's own address; only members on the node that a client
            reached answer it.
        members: by their addresses in the ingress network, or their node's.
    """

    service_id: str
    service_name: str
    protocol: str = "tcp"
    published: int
    target: int
    ip: str = ""
    keep_source: bool = False
    members: tuple[Member, ...] = ()


class NetworkTable(PrivateStruct, frozen=True, kw_only=True):
    """One network as a node that takes part in it sees it."""

    network: HostNetwork
    peers: tuple[Peer, ...] = ()
    services: tuple[ServiceEndpoint, ...] = ()


class EndpointTable(PrivateStruct, frozen=True, kw_only=True):
    """Everything one node has to know, whole.

    Attributes:
        version: grows with every change; what a node says it has done.
        own_addr: where the other nodes reach this one below the overlays.
    """

    version: int = 0
    own_addr: str = ""
    networks: tuple[NetworkTable, ...] = ()
    published: tuple[PublishedPort, ...] = ()


EMPTY_TABLE = EndpointTable()


class EndpointChanges(PrivateStruct, frozen=True, kw_only=True, tag="endpoints"):
    """What turns the table that a node was sent last into the present one.

    Attributes:
        version: of the table that comes out.
        complete: what is not listed is gone. Else only what is listed changes.
        networks: new ones, and ones whose own part or peers changed, with *all* of their services
            when new and with the changed ones else.
        gone_networks: ids of networks that the node takes no part in any more.
        gone_services: (network id, service id) of services that left a network.
        published, gone_published: ports by (protocol, published port, ip).
    """

    version: int
    complete: bool = False
    own_addr: str = ""
    networks: tuple[NetworkTable, ...] = ()
    gone_networks: tuple[str, ...] = ()
    gone_services: tuple[tuple[str, str], ...] = ()
    published: tuple[PublishedPort, ...] = ()
    gone_published: tuple[tuple[str, int, str], ...] = msgspec.field(default=())
