"""Routes of scaling by conditions: how it stands for a service, and rules that are only tried.

Ours, beside Docker's. Answered by the leader, which alone knows the load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from ..model.labels import SCALE_PREFIX, SERVICES, check_labels
from ..model.scalestatus import ScalingTest
from . import query
from .call import json_reply

if TYPE_CHECKING:
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer


async def inspect(server: ApiServer, call: Call) -> Reply:
    """``GET /services/{id}/scaling``"""
    manager = server.manager()
    view = await manager.read()
    row = query.resolve_service(view, call.params["id"])
    return json_reply(manager.autoscaler.report(row))


async def dry_run(server: ApiServer, call: Call) -> Reply:
    """``POST /services/{id}/scaling``: what rules would do to a service, without setting them."""
    manager = server.manager()
    asked = call.body(ScalingTest)
    view = await manager.read()
    row = query.resolve_service(view, call.params["id"])
    strange = [name for name in asked.Labels if not name.startswith(SCALE_PREFIX)]
    if strange:
        raise InvalidArgument(f"label {strange[0]!r} is none of scaling")
    merged = {**row.api.Spec.Labels, **asked.Labels}
    labels = {name: value for name, value in merged.items() if value or name not in asked.Labels}
    check_labels(labels, on=SERVICES)
    return json_reply(await manager.autoscaler.dry_run(row, labels))


HANDLERS = {"inspect": inspect, "dry_run": dry_run}
