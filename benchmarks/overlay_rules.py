"""How long the overlay driver takes to program a node, and how many rules that is.

One host in a network namespace of its own, with a hundred services of ten tasks each, all published
and all on one network, and up to a hundred tasks here. Needs root and nft; run from the repository:

    python -m benchmarks.overlay_rules [sandboxes]
"""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack

import msgspec

from swarmctl.plugins.model import (
    EndpointTable,
    HostNetwork,
    Member,
    NetworkTable,
    Peer,
    PublishedPort,
    ServiceEndpoint,
)
from tests.plugins.overlay.wire import Host, Netns

SERVICES, TASKS = 100, 10
NET, INGRESS = "netaaaaaaaaaaaaaaaaaaaaa", "ingressaaaaaaaaaaaaaaaaaa"


def member(service: int, number: int, second: int, *, ready: bool = True) -> Member:
    """A task on another host."""
    return Member(
        task_id=f"t{service}x{number}",
        node_id=f"node{2 + number % 3}",
        addresses=(f"10.{second}.{service}.{number + 10}",),
        ready=ready,
    )


def table(*, unready: int = 0) -> EndpointTable:
    """A node's table; of the first service, so many members are not ready."""

    def members(service: int, second: int) -> tuple[Member, ...]:
        return tuple(
            member(service, number, second, ready=service > 0 or number >= unready)
            for number in range(TASKS)
        )

    def part(network_id: str, second: int, vni: int, *, vips: bool) -> NetworkTable:
        return NetworkTable(
            network=HostNetwork(
                id=network_id,
                name=network_id,
                vni=vni,
                gateways=(f"10.{second}.255.1/16",),
                ingress=network_id == INGRESS,
            ),
            peers=tuple(
                Peer(
                    node_id=f"node{number}",
                    addr=f"10.77.0.{number}",
                    gateways=(f"10.{second}.255.{number}/16",),
                )
                for number in (2, 3, 4)
            ),
            services=tuple(
                ServiceEndpoint(
                    service_id=f"s{service}",
                    names=(f"svc{service}",),
                    vips=(f"10.{second}.254.{service + 1}",) if vips else (),
                    members=members(service, second),
                )
                for service in range(SERVICES)
            ),
        )

    return EndpointTable(
        own_addr="10.77.0.1",
        networks=(part(NET, 1, 4097, vips=True), part(INGRESS, 2, 4096, vips=False)),
        published=tuple(
            PublishedPort(
                service_id=f"s{service}",
                service_name=f"svc{service}",
                published=30_000 + service,
                target=80,
                members=members(service, 2),
            )
            for service in range(SERVICES)
        ),
    )


def main() -> None:
    """Print what each step took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with ExitStack() as stack:
        wire = Netns(stack, "w")
        wire.ip("link", "add", "lab0", "type", "bridge")
        host = Host(stack, wire, 1)
        host.bridge(NET, "10.1.255.1/16")
        host.bridge(INGRESS, "10.2.255.1/16")
        containers = [host.container(f"c{number}") for number in range(count)]
        for container in containers:
            container.networks = [NET]
        driver = host.start_driver()
        driver.want(EndpointTable())
        print(f"{SERVICES} services, {SERVICES * TASKS} endpoints, {count} tasks on the host")
        show("host alone, from nothing", driver.want(table()))
        show("and the tasks, from nothing", driver.want(table(), *containers))
        show("nothing new", driver.want(table(), *containers))
        took = [driver.want(table(unready=1 + n % 2), *containers)["took_s"] for n in range(10)]
        print(f"one member out of its turn        {statistics.median(took) * 1e3:8.1f} ms")
        driver.kill()
        driver = host.start_driver()
        show("after a restart, adopted", driver.want(table(unready=2), *containers))
        listed = host.run("nft", "list", "ruleset").count("comment")
        inside = containers[0].run("nft", "list", "ruleset").count("comment") if containers else 0
        print(f"rules: {listed} on the host, {inside} in each task's namespace")
        entries = host.run("bridge", "fdb", "show").count("02:42")
        print(f"forwarding entries: {entries}")


def show(what: str, state: dict) -> None:
    """Print one step; a step that failed says so."""
    assert not state["problems"], state["problems"]
    assert msgspec.to_builtins(state)
    print(f"{what:33} {state['took_s'] * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
