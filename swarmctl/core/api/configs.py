"""Routes of configs. Their data is shown, as Docker shows it.

What is the same for secrets is in :mod:`.payloads`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Kind
from ..model.objects import ConfigRow, ConfigSpec
from ..model.validate_cluster import check_config_spec
from . import payloads, query

if TYPE_CHECKING:
    from ..store.view import View
    from ..wire.http1 import Response
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_configs(server: ApiServer, call: Call) -> Reply:
    """``GET /configs``; with ``all=true`` every version."""
    return await payloads.list_all(server, call, query.CONFIG_FILTERS, _chosen)


def _chosen(view: View, filters: query.Filters) -> list[ConfigRow]:
    rows = (row for row in view.rows(Kind.CONFIG) if isinstance(row, ConfigRow))
    return query.filter_configs(rows, filters)


async def create(server: ApiServer, call: Call) -> Response:
    """``POST /configs/create``"""
    spec = call.body(ConfigSpec)
    check_config_spec(spec)
    return await payloads.create(server, call, Kind.CONFIG, spec)


HANDLERS: dict[str, payloads.Handler] = {
    "list": list_configs,
    "create": create,
    **payloads.handlers(Kind.CONFIG, ConfigSpec),
}
