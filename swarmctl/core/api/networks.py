"""Routes of networks: list and inspect.

A node that is no manager knows of no swarm network, and says so by an empty list: unlike the other
lists, Docker serves this one everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NotFound
from ..model.change import Kind
from ..model.objects import NetworkRow
from . import query
from .call import json_reply, list_reply

if TYPE_CHECKING:
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_networks(server: ApiServer, call: Call) -> Reply:
    """``GET /networks``"""
    filters = query.parse_filters(call.query.get("filters"), query.NETWORK_FILTERS)
    manager = server.node.manager
    if manager is None:
        return json_reply(())
    view = await manager.read()
    rows = (row for row in view.rows(Kind.NETWORK) if isinstance(row, NetworkRow))
    return list_reply(query.filter_networks(rows, filters), lambda row: row.api)


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /networks/{id}``; ``scope`` may ask for those of the swarm only, which all are.

    Raises:
        NotFound: none of this name or id, or none of this scope.
    """
    manager, name = server.node.manager, call.params["id"]
    if manager is None or call.query.get("scope") not in ("", "swarm"):
        raise NotFound(f"network {name} not found")
    return json_reply(query.resolve_network(await manager.read(), name).api)


HANDLERS = {"list": list_networks, "inspect": inspect}
