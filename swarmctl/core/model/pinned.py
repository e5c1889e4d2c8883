"""What a service's labels pin down: addresses of its tasks, its own, and those of its ports.

Pure. A network is named in a label by its name or its id. Addresses of both families may stand in
one list; those of one family count by themselves, so the second IPv6 address is that of slot 2.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from .labels import PUBLISH, SERVICE_IP, TASK_IPS
from .network import asked_networks, subnets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .objects import Network, NetworkRow
    from .spec import PortConfig, ServiceSpec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def task_addresses(
    labels: Mapping[str, str], network: Network, slot: int
) -> tuple[tuple[bool, str], ...]:
    """Return the addresses that a slot's task has to have on a network, each with "is it IPv6"."""
    found: list[tuple[bool, str]] = []
    for is_ipv6, addresses in _families(_of_network(labels, TASK_IPS, network)):
        if 1 <= slot <= len(addresses):
            found.append((is_ipv6, str(addresses[slot - 1])))
    return tuple(found)


def service_addresses(labels: Mapping[str, str], network: Network) -> tuple[tuple[bool, str], ...]:
    """Return the addresses that a service itself has to have on a network."""
    pinned = _families(_of_network(labels, SERVICE_IP, network))
    return tuple((is_ipv6, str(one)) for is_ipv6, addresses in pinned for one in addresses[:1])


def all_addresses(labels: Mapping[str, str], network: Network) -> Iterator[str]:
    """Yield every address that a service pins on a network."""
    for prefix in (TASK_IPS, SERVICE_IP):
        for text in _split(_of_network(labels, prefix, network)):
            yield str(ipaddress.ip_address(text))


def pins_tasks(spec: ServiceSpec) -> str:
    """Return the first label that pins addresses of tasks, "" for none."""
    return next((name for name in spec.Labels if name.startswith(TASK_IPS)), "")


def network_labels(network: Network) -> tuple[str, ...]:
    """Return the labels by which services can pin addresses on a network."""
    return tuple(
        prefix + name for prefix in (TASK_IPS, SERVICE_IP) for name in (network.Name, network.ID)
    )


# --- checks --------------------------------------------------------------------------------------


def check_pinned(spec: ServiceSpec) -> None:
    """Check the labels that pin something, as far as a normalized spec can tell by itself.

    Raises:
        InvalidArgument: what they say cannot be, or is about a port that is not published.
    """
    for name, text in spec.Labels.items():
        if name.startswith((TASK_IPS, SERVICE_IP)):
            _check_addresses(name, text)
        if name.startswith(TASK_IPS) and spec.Mode.Replicated is None:
            raise InvalidArgument(
                f"label {name!r}: addresses are given by slot, which only the tasks of a "
                "replicated service have"
            )
        if name.startswith(SERVICE_IP):
            _check_service_address(spec, name, text)
        if name.startswith(PUBLISH):
            _check_port(spec, name, text)


def check_pinned_networks(spec: ServiceSpec, networks: Iterable[NetworkRow]) -> None:
    """Check that pinned addresses can be had on the networks that the service joins.

    Args:
        spec: its networks named by id.

    Raises:
        InvalidArgument: a network that the service does not join, or an address outside of it.
    """
    joined = {one.Target for one in asked_networks(spec)}
    by_label = {
        label: row for row in networks if row.api.ID in joined for label in network_labels(row.api)
    }
    for name, text in spec.Labels.items():
        if not name.startswith((TASK_IPS, SERVICE_IP)):
            continue
        row = by_label.get(name)
        if row is None:
            raise InvalidArgument(f"label {name!r}: the service does not join that network")
        subnets = [ipaddress.ip_network(one) for one in subnets_of(row)]
        for address in map(ipaddress.ip_address, _split(text)):
            if subnets and not any(address in subnet for subnet in subnets):
                raise InvalidArgument(
                    f"label {name!r}: {address} is not in the network's subnet "
                    f"({', '.join(map(str, subnets))})"
                )


def pinned_warnings(spec: ServiceSpec) -> Iterator[str]:
    """Yield a sentence for each replica whose address is not pinned although others' are."""
    mode = spec.Mode.Replicated
    count = mode.Replicas if mode is not None and mode.Replicas is not None else 1
    for name, text in spec.Labels.items():
        if name.startswith(TASK_IPS):
            few = min(len(addresses) for _, addresses in _families(text))
            if few < count:
                yield f"label {name!r} has {few} addresses for {count} replicas: the rest get any"


def _check_addresses(name: str, text: str) -> None:
    seen: set[Address] = set()
    for part in _split(text):
        try:
            address = ipaddress.ip_address(part)
        except ValueError:
            raise InvalidArgument(f"label {name!r}: {part!r} is no IP address") from None
        if address in seen:
            raise InvalidArgument(f"label {name!r}: {part} stands there twice")
        seen.add(address)


def _check_service_address(spec: ServiceSpec, name: str, text: str) -> None:
    if spec.EndpointSpec is not None and spec.EndpointSpec.Mode == "dnsrr":
        raise InvalidArgument(f"label {name!r}: a service in mode dnsrr has no address of its own")
    if any(len(addresses) > 1 for _, addresses in _families(text)):
        raise InvalidArgument(f"label {name!r}: a service has one address of each family")


def _check_port(spec: ServiceSpec, name: str, text: str) -> None:
    port_text, _, what = name.removeprefix(PUBLISH).rpartition(".")
    number, _, protocol = port_text.partition("/")
    ports = spec.EndpointSpec.Ports if spec.EndpointSpec is not None else ()
    meant = [port for port in ports if _is_meant(port, int(number), protocol)]
    if not meant:
        raise InvalidArgument(f"label {name!r}: the service publishes no port {port_text}")
    in_host_mode = any(port.PublishMode == "host" for port in meant)
    if in_host_mode and what == "source":
        raise InvalidArgument(
            f"label {name!r}: a port in host mode always sees its clients' addresses"
        )
    if in_host_mode and not _is_address(text):
        raise InvalidArgument(
            f"label {name!r}: a port in host mode is bound to an IP address, which {text!r} is not"
        )


def _is_meant(port: PortConfig, number: int, protocol: str) -> bool:
    return port.PublishedPort == number and protocol in ("", port.Protocol or "tcp")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# --- lists of addresses --------------------------------------------------------------------------


def _of_network(labels: Mapping[str, str], prefix: str, network: Network) -> str:
    return labels.get(prefix + network.Name) or labels.get(prefix + network.ID, "")


def _families(text: str) -> list[tuple[bool, list[Address]]]:
    """Return the addresses of each family that a list has any of."""
    addresses = [ipaddress.ip_address(part) for part in _split(text)]
    families = ((False, 4), (True, 6))
    return [
        (is_ipv6, mine)
        for is_ipv6, version in families
        if (mine := [one for one in addresses if one.version == version])
    ]


def _split(text: str) -> list[str]:
    return text.split(",") if text else []
