"""How much of a network is in use and by whom, and which networks a prune means. Pure."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import BadRequest
from ..model.change import Kind, Ref
from ..model.duration import parse_duration, parse_time
from ..model.network import (
    INGRESS_USERS,
    is_predefined,
    problem_of,
    room_addresses,
    subnets_of,
)
from ..model.objects import IPAMStatus, NetworkService, NetworkStatus, NetworkTask, SubnetUse
from ..model.service import Endpoint
from ..model.task import TaskState
from .query import labelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.network import Subnet
    from ..model.objects import IPAMConfig, NetworkRow
    from ..store.view import View
    from .query import Filters

PRUNE_FILTERS = frozenset({"label", "label!", "until"})
_NANOSECONDS = 1_000_000_000
_MAX_COUNT = 2**64 - 1


def status_of(view: View, row: NetworkRow) -> NetworkStatus | None:
    """Return the use of a network's subnets; None for what has no addresses of the swarm's."""
    if is_predefined(row.api):
        return None
    subnets: dict[Subnet, set[str]] = {}
    configs = {config.Subnet: config for config in row.api.IPAM.Config or ()}
    for text in subnets_of(row):
        config = configs[text]
        subnets[ipaddress.ip_network(text)] = {
            address for address in (config.Gateway, *config.AuxiliaryAddresses.values()) if address
        }
    families = {
        version: [(net, used) for net, used in subnets.items() if net.version == version]
        for version in (4, 6)
    }
    for address in _given(view, row):
        bare = address.partition("/")[0]
        candidates = families[6 if ":" in bare else 4]
        if len(candidates) > 1:  # parsing each of thousands takes long
            candidates = [one for one in candidates if ipaddress.ip_address(bare) in one[0]]
        for _, used in candidates:
            used.add(bare)
    shown = {str(net): _use(net, used, configs[str(net)]) for net, used in subnets.items()}
    return NetworkStatus(IPAM=IPAMStatus(Subnets=shown), Err=problem_of(row))


def services_of(view: View, row: NetworkRow) -> dict[str, NetworkService]:
    """Return the services whose tasks run in a network, by name, as Docker shows them."""
    network_id = row.api.ID
    tasks: dict[tuple[str, str], list[NetworkTask]] = {}
    for task in sorted(view.tasks_attached(network_id), key=lambda one: one.name):
        node = view.node(task.api.NodeID)
        for attachment in task.api.NetworksAttachments:
            is_here = network_id == attachment.Network.ID and attachment.Addresses
            if is_here and node is not None and task.api.Status.State is TaskState.RUNNING:
                shown = NetworkTask(
                    Name=task.name,
                    EndpointIP=attachment.Addresses[0].partition("/")[0],
                    Info={"Host IP": node.api.Status.Addr},
                )
                key = (task.private.service_name, task.api.ServiceID)
                tasks.setdefault(key, []).append(shown)
    found: dict[str, NetworkService] = {}
    for (name, service_id), members in sorted(tasks.items()):
        service = view.service(service_id)
        endpoint = service.api.Endpoint if service is not None else Endpoint()
        vips = (one.Addr for one in endpoint.VirtualIPs if one.NetworkID == network_id)
        ports = endpoint.Ports if row.api.Ingress else ()
        found[name] = NetworkService(
            VIP=next(vips, "").partition("/")[0],
            Ports=tuple(f"Target: {one.TargetPort}, Publish: {one.PublishedPort}" for one in ports),
            Tasks=tuple(members),
        )
    return found


def _given(view: View, row: NetworkRow) -> Iterator[str]:
    """Yield every address that was given out of a network, in CIDR form."""
    network_id = row.api.ID
    for task in view.tasks_attached(network_id):
        for attachment in task.api.NetworksAttachments:
            if network_id == attachment.Network.ID:
                yield from attachment.Addresses
    targets = [Ref(Kind.NETWORK, network_id), *([INGRESS_USERS] if row.api.Ingress else [])]
    for service_id in {one for target in targets for one in view.referrers(target)}:
        service = view.service(service_id)
        for vip in service.api.Endpoint.VirtualIPs if service is not None else ():
            if vip.NetworkID == network_id:
                yield vip.Addr
    for addresses in row.private.gateways.values():
        yield from addresses
    yield from room_addresses(row)


def _use(subnet: Subnet, used: set[str], config: IPAMConfig) -> SubnetUse:
    """Return the counts; addresses beyond a range can be used, but are not given."""
    room = ipaddress.ip_network(config.IPRange, strict=False) if config.IPRange else subnet
    total = room.num_addresses
    if room.version == 4 and room.prefixlen <= 30:
        total -= (room[0] == subnet[0]) + (room[-1] == subnet[-1])
    elif room.version == 6 and room[0] == subnet[0]:
        total -= 1  # that of every router
    inside = len(used) if room == subnet else sum(ipaddress.ip_address(a) in room for a in used)
    left = max(0, total - inside)
    return SubnetUse(IPsInUse=len(used), DynamicIPsAvailable=min(left, _MAX_COUNT))


# --- prune ---------------------------------------------------------------------------------------


def to_prune(rows: Iterable[NetworkRow], filters: Filters, now_ns: int) -> list[NetworkRow]:
    """Return the networks that a prune means, whoever uses them.

    Raises:
        BadRequest: ``until`` is neither a time nor a duration.
    """
    until = _until(filters.get("until", ()), now_ns)
    return [
        row
        for row in rows
        if not (row.api.Ingress or is_predefined(row.api))
        and labelled(filters.get("label", ()), row.api.Labels)
        and not any(labelled((text,), row.api.Labels) for text in filters.get("label!", ()))
        and (until is None or row.api.Created <= until)
    ]


def _until(texts: tuple[str, ...], now_ns: int) -> int | None:
    if not texts:
        return None
    if len(texts) > 1:
        raise BadRequest("more than one until filter specified")
    text = texts[0]
    with suppress(ValueError, OverflowError):
        return int(float(text) * _NANOSECONDS)
    with suppress(ValueError):
        return now_ns - parse_duration(text)
    with suppress(ValueError):
        return parse_time(text)
    raise BadRequest(f"until {text!r} is neither a time (RFC 3339, or seconds) nor a duration")
