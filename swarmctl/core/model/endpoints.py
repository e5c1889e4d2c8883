"""What a node has to know to carry traffic: who is where in its networks, and what is published.

The leader computes it from the tables alone (``dispatcher/endpoints.py``) and sends it over the
session as versioned desired state; the node's network driver makes the kernel agree. Nothing is
learned by gossip or from packets, so nothing goes stale: a node that hears nothing keeps what it
was told last.
"""

from __future__ import annotations

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
        version: log index of the tables that it is computed from, so it grows with every change
            and means the same whoever leads; what a node says it has done. It may fall once the
            swarm was founded anew out of a backup: a driver goes by what it was told last.
        own_addr: where the other nodes reach this one below the overlays.
        data_path_port: the UDP port that the overlays' packets go to, on every node.
        networks: those in which this node has an address. The ingress network is among them on
            every node that carries traffic, whether tasks of it run here or not.
    """

    version: int = 0
    own_addr: str = ""
    data_path_port: int = 4789
    networks: tuple[NetworkTable, ...] = ()
    published: tuple[PublishedPort, ...] = ()


EMPTY_TABLE = EndpointTable()


# --- on the wire ---------------------------------------------------------------------------------
# Only the leader and the agent see these; a driver is given whole tables.


class ServiceChange(PrivateStruct, frozen=True, kw_only=True):
    """What is new of a service in one network.

    Attributes:
        names, vips: as they are now.
        members: new ones, and ones that changed.
        gone: task ids of members that left.
    """

    service_id: str
    names: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    gone: tuple[str, ...] = ()


class NetworkChange(PrivateStruct, frozen=True, kw_only=True):
    """What is new of one network.

    Attributes:
        network: what the node has in it, where that changed.
        complete: whatever was known of the network goes first.
        gone_peers: node ids.
        gone_services: service ids.
    """

    id: str
    network: HostNetwork | None = None
    complete: bool = False
    peers: tuple[Peer, ...] = ()
    gone_peers: tuple[str, ...] = ()
    services: tuple[ServiceChange, ...] = ()
    gone_services: tuple[str, ...] = ()


class EndpointChanges(PrivateStruct, frozen=True, kw_only=True, tag="endpoints"):
    """What turns the table that a node was sent last into the present one.

    Attributes:
        version: of the table that comes out.
        more: the next message goes on with this one; the table is whole with the last.
        complete: whatever was known goes first.
        networks: in order; a large one may come in several pieces.
        gone_networks: ids of networks that the node takes no part in any more.
        published: without members, which are those of the service in the ingress network.
        gone_published: by (protocol, published port, ip).
    """

    version: int
    more: bool = False
    complete: bool = False
    own_addr: str = ""
    data_path_port: int = 4789
    networks: tuple[NetworkChange, ...] = ()
    gone_networks: tuple[str, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    gone_published: tuple[tuple[str, int, str], ...] = ()
