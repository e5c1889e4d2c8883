"""A node's networks as the leader tells them, made by hand: what the tests of names start from."""

from __future__ import annotations

from swarmctl.core.model.endpoints import Member, NetworkTable, ServiceEndpoint
from swarmctl.core.model.task import HostNetwork
from swarmctl.plugins.overlay.dns.state import Client, ResponderState


def network(name: str, number: int, *services: ServiceEndpoint, **more: bool) -> NetworkTable:
    """Return network ``10.0.<number>.0/24`` and ``fd00:<number>::/64``, with this node's .250."""
    return NetworkTable(
        network=HostNetwork(
            id=f"net-{name}",
            name=name,
            subnets=(f"10.0.{number}.0/24", f"fd00:{number}::/64"),
            gateways=(f"10.0.{number}.250/24", f"fd00:{number}::250/64"),
            **more,
        ),
        services=services,
    )


def service(
    *names: str, vips: tuple[str, ...] = (), members: tuple[Member, ...] = ()
) -> ServiceEndpoint:
    """Return a service under its names."""
    return ServiceEndpoint(
        service_id=f"service-{names[0] if names else ''}", names=names, vips=vips, members=members
    )


def member(slot: int, *addresses: str, ready: bool = True, on_host: bool = False) -> Member:
    """Return the task ``t<slot>`` on node ``n1``; slot 0 is a task of a global service."""
    return Member(
        task_id=f"t{slot}",
        node_id="n1",
        slot=slot,
        addresses=addresses,
        ready=ready,
        on_host=on_host,
    )


BACK = network(
    "back",
    1,
    service(
        *("web", "www", "shop.web"),
        vips=("10.0.1.2", "fd00:1::2"),
        members=(member(1, "10.0.1.11", "fd00:1::11"), member(2, "10.0.1.12", ready=False)),
    ),
    service("db", members=(member(3, "10.0.1.13"), member(4, "10.0.1.14", ready=False))),
    service("old", vips=("10.0.1.3",)),
    service("idle", members=(member(5, "10.0.1.15", ready=False),)),
    service("probe", members=(member(0, "192.0.2.7", on_host=True),)),
)
FRONT = network(
    "front",
    2,
    service("web", vips=("10.0.2.2",), members=(member(1, "10.0.2.11"),)),
    service("edge", "www", vips=("10.0.2.3",)),
)
INNER = network("inner", 3, service("vault", vips=("10.0.3.2",)), internal=True)
STATE = ResponderState(
    number=1,
    networks=(BACK, FRONT, INNER),
    clients=(
        Client(id="t1", addresses=("10.0.1.11", "10.0.2.11"), networks=("net-back", "net-front")),
        Client(id="t9", addresses=("10.0.1.19",), networks=("net-back",), nameservers=("9.9.9.9",)),
        Client(id="t8", addresses=("10.0.3.18",), networks=("net-inner",)),
        Client(
            id="guest",
            addresses=("10.0.1.241", "10.0.3.241"),
            networks=("net-back", "net-inner"),
            names=("guest", "Printer", "db"),
        ),
        Client(
            id="another",
            addresses=("10.0.1.242",),
            networks=("net-back",),
            names=("another", "printer"),
        ),
        Client(id="t7", addresses=("10.0.3.17", "10.0.1.17"), networks=("net-inner", "net-back")),
    ),
)
