"""Routes of networks: list, create, inspect, remove, prune.

Only networks of the swarm are here; those of a node's engine are the engine's own. A node that is
no manager knows of no swarm network, and says so by an empty list: unlike the other lists, Docker
serves this one everywhere. The two networks that every engine has are in the tables so that
services can name them; like Docker, lists leave them out.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from ..errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ..model.change import Create, Delete, Free, Index, Kind, Ref, Transaction, Unreferenced
from ..model.crosscheck import name_taken
from ..model.network import (
    DRIVERS,
    INGRESS_KEY,
    INGRESS_USERS,
    OVERLAY,
    check_vni_option,
    is_predefined,
    make_network,
    subnets_of,
)
from ..model.objects import NetworkSpec
from ..model.release import check_network_available, network_warnings, quiet_nodes
from ..model.request import NetworkCreated, NetworksPruned
from ..model.validate_cluster import check_network_spec
from ..wire.http1 import Response
from . import query
from .call import json_reply, list_reply
from .network_use import PRUNE_FILTERS, services_of, status_of, to_prune
from .present import present_network
from .write import write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model.change import Requirement
    from ..model.objects import NetworkRow
    from ..store.view import View
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

ENGINE_DRIVERS = ("", "bridge", "host", "ipvlan", "macvlan", "none", "null")
NO_CONTENT = Response(204)


async def list_networks(server: ApiServer, call: Call) -> Reply:
    """``GET /networks``"""
    filters = query.parse_filters(call.query.get("filters"), query.NETWORK_FILTERS)
    manager = server.node.manager
    if manager is None:
        return json_reply(())
    view = await manager.read()
    rows = (row for row in view.networks() if not is_predefined(row.api))
    shown = [(row.api, status_of(view, row)) for row in query.filter_networks(rows, filters)]
    return list_reply(shown, lambda pair: present_network(*pair))


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /networks/{id}``; ``scope`` may ask for those of the swarm only, which all are.

    ``verbose`` asks for the services in it as well.

    Raises:
        NotFound: none of this name or id, or none of this scope.
    """
    manager, name = server.node.manager, call.params["id"]
    if manager is None or call.query.get("scope") not in ("", "swarm"):
        raise NotFound(f"network {name} not found")
    view = await manager.read()
    row = query.resolve_network(view, name)
    services = services_of(view, row) if query.flag(call.query.get("verbose")) else None
    return json_reply(present_network(row.api, status_of(view, row), services))


async def create(server: ApiServer, call: Call) -> Reply:
    """``POST /networks/create``: the allocator gives it its addresses afterwards."""
    asked = call.body(NetworkSpec)
    _check_whose(asked)
    manager = server.manager()
    check_network_spec(asked)
    check_network_available(asked)
    check_vni_option(asked.Options)
    network_id = server.new_id()
    row = make_network(network_id, asked)

    def plan(view: View) -> tuple[Transaction, Response]:
        if view.by_name(Kind.NETWORK, asked.Name) is not None:
            raise name_taken(Kind.NETWORK, asked.Name)
        requires: tuple[Requirement, ...] = ()
        if asked.Ingress:
            for present in view.networks():
                if present.api.Ingress:
                    raise AlreadyExists(f"ingress network ({present.api.ID}) is already present")
            requires = (Free(index=Index.INGRESS, key=INGRESS_KEY),)
        quiet = quiet_nodes(view.quiet_nodes())
        warning = "; ".join((*_overlaps(view, asked), *network_warnings(quiet)))
        created = json_reply(NetworkCreated(Id=network_id, Warning=warning), 201)
        return Transaction(changes=(Create(row=row),), requires=requires), created

    return await write(manager, call, plan)


async def remove(server: ApiServer, call: Call) -> Reply:
    """``DELETE /networks/{id}``

    Raises:
        NotFound: none of this name or id.
        FailedPrecondition: a service or task uses it, or it is one of the engine's own.
    """
    manager = server.manager()
    network_id = query.resolve_network(await manager.read(), call.params["id"]).api.ID

    def plan(view: View) -> tuple[Transaction, Response]:
        row = query.resolve_network(view, network_id)
        _check_unused(view, row)
        removal = Delete(ref=_ref(row), version=row.private.version)
        return Transaction(changes=(removal,), requires=_unused(row)), NO_CONTENT

    return await write(manager, call, plan)


async def prune(server: ApiServer, call: Call) -> Reply:
    """``POST /networks/prune``: remove every network that nobody uses, ingress excepted."""
    filters = query.parse_filters(call.query.get("filters"), PRUNE_FILTERS)
    manager = server.node.manager
    if manager is None:
        return json_reply(NetworksPruned())
    now = server.clock.now()

    def plan(view: View) -> tuple[Transaction, Response]:
        meant = to_prune(view.networks(), filters, now)
        rows = [row for row in meant if _user_of(view, row) is None]
        transaction = Transaction(
            changes=tuple(Delete(ref=_ref(row), version=row.private.version) for row in rows),
            requires=tuple(need for row in rows for need in _unused(row)),
        )
        names = tuple(row.api.Name for row in rows) or None
        return transaction, json_reply(NetworksPruned(NetworksDeleted=names))

    return await write(manager, call, plan)


# --- checks --------------------------------------------------------------------------------------


def _check_whose(asked: NetworkSpec) -> None:
    """Check that it is a network of the swarm that is asked for.

    Raises:
        InvalidArgument: it is one of the engine's, or of nobody that is here.
    """
    if asked.Driver in DRIVERS and asked.Scope in ("", "swarm"):
        return
    if asked.Driver in DRIVERS:
        raise InvalidArgument(
            f"networks of driver {asked.Driver} have the scope swarm, not {asked.Scope}"
        )
    if asked.Driver in ENGINE_DRIVERS:
        raise InvalidArgument(
            f"networks of driver {asked.Driver or 'bridge'} are an engine's own: create them on "
            f"that engine; a network of the swarm has the driver {OVERLAY}"
        )
    raise InvalidArgument(
        f"there is no network driver {asked.Driver!r}; there are: {', '.join(DRIVERS)}"
    )


def _overlaps(view: View, asked: NetworkSpec) -> Iterable[str]:
    """Yield a warning for each asked subnet that another network has."""
    for config in (asked.IPAM.Config or ()) if asked.IPAM is not None else ():
        wanted = ipaddress.ip_network(config.Subnet, strict=False)
        for row in view.networks():
            for text in subnets_of(row):
                taken = ipaddress.ip_network(text)
                if taken.version == wanted.version and taken.overlaps(wanted):
                    yield (
                        f"subnet {config.Subnet} overlaps with {text} of network {row.api.Name}, "
                        "so the network gets no addresses before that one is gone"
                    )


def _check_unused(view: View, row: NetworkRow) -> None:
    """Check that a network may go.

    Raises:
        FailedPrecondition: in Docker's words.
    """
    network = row.api
    if is_predefined(network):
        raise FailedPrecondition(
            f"network {network.Name} ({network.ID}) is a swarm predefined network and cannot be "
            "removed"
        )
    user = _user_of(view, row)
    if user is None:
        return
    if user.kind is Kind.SERVICE and network.Ingress:
        raise FailedPrecondition(
            f"ingress network cannot be removed because service {user.id} depends on it"
        )
    raise FailedPrecondition(f"network {network.ID} is in use by {user.kind.value} {user.id}")


def _user_of(view: View, row: NetworkRow) -> Ref | None:
    """Return a service or task that needs a network.

    Tasks that are to end do not count: ``stack rm`` removes networks right after the services.
    """
    targets = (_ref(row), INGRESS_USERS) if row.api.Ingress else (_ref(row),)
    for target in targets:
        for service_id in sorted(view.referrers(target)):
            return Ref(Kind.SERVICE, service_id)
    for task_id in sorted(view.holders(Index.ATTACHED, row.api.ID)):
        return Ref(Kind.TASK, task_id)
    return None


def _unused(row: NetworkRow) -> tuple[Requirement, ...]:
    """Return what must hold still when a network goes."""
    free = Free(index=Index.ATTACHED, key=row.api.ID)
    if row.api.Ingress:
        return Unreferenced(ref=_ref(row)), Unreferenced(ref=INGRESS_USERS), free
    return Unreferenced(ref=_ref(row)), free


def _ref(row: NetworkRow) -> Ref:
    return Ref(Kind.NETWORK, row.api.ID)


HANDLERS = {
    "list": list_networks,
    "create": create,
    "inspect": inspect,
    "remove": remove,
    "prune": prune,
}
