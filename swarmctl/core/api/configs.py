"""Routes of configs: list and inspect. Their data is shown, as Docker's is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Kind
from ..model.objects import ConfigRow
from . import query
from .call import json_reply, list_reply

if TYPE_CHECKING:
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_configs(server: ApiServer, call: Call) -> Reply:
    """``GET /configs``"""
    view = await server.manager().read()
    filters = query.parse_filters(call.query.get("filters"), query.CONFIG_FILTERS)
    rows = (row for row in view.rows(Kind.CONFIG) if isinstance(row, ConfigRow))
    return list_reply(query.filter_configs(rows, filters), lambda row: row.api)


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /configs/{id}``"""
    view = await server.manager().read()
    return json_reply(query.resolve_config(view, call.params["id"]).api)


HANDLERS = {"list": list_configs, "inspect": inspect}
