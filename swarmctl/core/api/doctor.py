"""The route of ``network doctor``: ours. Every node in session is asked to look at its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..agent.doctor import DoctorRequest, ask_doctor
from ..errors import SwarmError
from ..model.doctor import NetworkExamination, NetworkFinding, NetworkPath, NodeNetworks
from . import query
from .call import json_reply

if TYPE_CHECKING:
    from ..agent.network import NodeReport
    from ..dispatcher.server import Dispatcher
    from ..model.objects import NodeRow
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

ANSWER_S = 15.0
AT_ONCE = 32
UNKNOWN = "unknown"


async def networks(server: ApiServer, call: Call) -> Reply:
    """``GET /swarm/doctor/networks``; ``all=1`` for what is well, too, ``probe=0`` for no paths."""
    manager = server.manager()
    view = await manager.read()
    request = DoctorRequest(
        brief=not query.flag(call.query.get("all")),
        probe=query.flag(call.query.get("probe") or "1"),
    )
    found: dict[str, NodeNetworks] = {}
    room = trio.CapacityLimiter(AT_ONCE)

    async def look(row: NodeRow) -> None:
        async with room:
            found[row.api.ID] = await _look(manager.dispatcher, row, request)

    async with trio.open_nursery() as nursery:
        for row in list(view.nodes()):
            nursery.start_soon(look, row)
    nodes = sorted(found.values(), key=lambda one: (one.Name, one.ID))
    return json_reply(NetworkExamination(Nodes=tuple(nodes)))


async def _look(dispatcher: Dispatcher, row: NodeRow, request: DoctorRequest) -> NodeNetworks:
    """Return what one node says, or why it says nothing."""
    node = NodeNetworks(
        ID=row.api.ID,
        Name=row.api.Description.Hostname or row.api.ID,
    )
    link, versions = dispatcher.connected(row.api.ID), dispatcher.versions_of(row.api.ID)
    if link is None:
        return replace(node, Err=f"it is {row.api.Status.State or UNKNOWN}")
    if versions is None:
        return replace(node, Err="it has no network driver that works")
    try:
        with trio.fail_after(ANSWER_S):
            answer = await ask_doctor(link, request)
    except trio.TooSlowError:
        return replace(node, Err=f"it did not answer within {ANSWER_S:g} s")
    except SwarmError as error:
        return replace(node, Err=str(error))
    sent, known = versions
    return _shown(replace(node, Driver=answer.driver, Sent=sent, Known=known), answer.report)


def _shown(node: NodeNetworks, report: NodeReport) -> NodeNetworks:
    return replace(
        node,
        Compared=report.compared,
        Findings=tuple(
            NetworkFinding(
                Network=one.network,
                Kind=one.kind,
                Subject=one.subject,
                Table=one.table,
                Kernel=one.kernel,
            )
            for one in report.findings
        ),
        Paths=tuple(
            NetworkPath(
                Network=one.network,
                Source=one.source,
                Target=one.target,
                TookNs=one.took_ns,
                Err=one.error,
            )
            for one in report.probes
        ),
        Problems=report.problems,
        Repaired=report.repaired,
    )


HANDLERS = {"networks": networks}
