"""Routes of secrets. Their data is never shown.

What is the same for configs is in :mod:`.payloads`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Kind
from ..model.objects import SecretRow, SecretSpec
from ..model.release import check_secret_available
from ..model.validate_cluster import check_secret_spec
from . import payloads, query

if TYPE_CHECKING:
    from ..store.view import View
    from ..wire.http1 import Response
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def list_secrets(server: ApiServer, call: Call) -> Reply:
    """``GET /secrets``; with ``all=true`` every version."""
    return await payloads.list_all(server, call, query.SECRET_FILTERS, _chosen)


def _chosen(view: View, filters: query.Filters) -> list[SecretRow]:
    rows = (row for row in view.rows(Kind.SECRET) if isinstance(row, SecretRow))
    return query.filter_secrets(rows, filters)


async def create(server: ApiServer, call: Call) -> Response:
    """``POST /secrets/create``"""
    spec = call.body(SecretSpec)
    check_secret_spec(spec)
    check_secret_available(spec)
    return await payloads.create(server, call, Kind.SECRET, spec)


HANDLERS: dict[str, payloads.Handler] = {
    "list": list_secrets,
    "create": create,
    **payloads.handlers(Kind.SECRET, SecretSpec),
}
