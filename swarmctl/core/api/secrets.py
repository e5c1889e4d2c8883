"""Routes of secrets: list and inspect. Their data is never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Kind
from ..model.objects import SecretRow
from . import query
from .call import json_reply, list_reply
from .present import present_secret

if TYPE_CHECKING:
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_secrets(server: ApiServer, call: Call) -> Reply:
    """``GET /secrets``"""
    view = await server.manager().read()
    filters = query.parse_filters(call.query.get("filters"), query.SECRET_FILTERS)
    rows = (row for row in view.rows(Kind.SECRET) if isinstance(row, SecretRow))
    return list_reply([row.api for row in query.filter_secrets(rows, filters)], present_secret)


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /secrets/{id}``"""
    view = await server.manager().read()
    return json_reply(present_secret(query.resolve_secret(view, call.params["id"]).api))


HANDLERS = {"list": list_secrets, "inspect": inspect}
