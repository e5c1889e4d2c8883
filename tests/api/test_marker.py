"""Nothing private gets out of a running node: not by a route, an error, a log line or output."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, get_args

import pytest
from msgspec import inspect
from msgspec.structs import replace

from swarmctl.core.api.route import ROUTES
from swarmctl.core.ca.token import UNLOCK_KEY_BYTES
from swarmctl.core.model.change import Applied, Create, Transaction, Update
from swarmctl.core.model.codec import encode_json
from swarmctl.core.model.objects import (
    ClusterRow,
    Network,
    Node,
    NodeDescription,
    NodeRow,
    Row,
    ServiceRow,
    TaskRow,
)
from swarmctl.core.model.service import Revision, Scale, ScaleDecision
from swarmctl.core.model.task import Task
from tests.core.model.builders import filled

from .running import RunningApi, running_api, service_body

if TYPE_CHECKING:
    from pathlib import Path

MARKER = "hunter2hunter2"
NUMBER = 3_987_612_345  # fits into every field
MARKS = {
    "text": MARKER.encode(),
    "base64": encode_json({"x": MARKER.encode()})[6:20],
    "number": str(NUMBER).encode(),
}
IMAGE = "nginx:1"


def _marked(row_type: type) -> Row:
    """Return a row with something to find it by and every private field marked."""
    fields = {field.name: field.type.cls for field in inspect.type_info(row_type).fields}
    name = f"{row_type.__struct_config__.tag}-marked"
    if fields["api"] is Network:
        api = Network(Id=name, Name=name)
    elif fields["api"] is Node:
        api = Node(ID=name, Description=NodeDescription(Hostname=name))
    else:
        api = fields["api"](ID=name)
        if isinstance(api, Task):
            api = replace(api, ServiceID="service-marked", NodeID="node-marked")
        else:
            api = replace(api, Spec=replace(api.Spec, Name=name))
    return row_type(api=api, private=filled(fields["private"], text=MARKER, number=NUMBER))


async def _mark_everything(api: RunningApi) -> list[Row]:
    """Put a marked row of every kind into the tables, and mark the cluster's own."""
    cluster = api.manager.view.cluster()
    assert cluster is not None
    marked = filled(type(cluster.private), text=MARKER, number=NUMBER)
    # What the API shows on purpose, to whoever may ask for it: the join tokens, the unlock key,
    # the level of the log's format.
    marked = replace(
        marked,
        worker_token="SWMTKN-worker",
        manager_token="SWMTKN-manager",
        unlock_key=b"u" * UNLOCK_KEY_BYTES,
        format_level=1,
    )
    rows = [_marked(kind) for kind in get_args(Row) if kind is not ClusterRow]
    rows = [_with_what_is_shown(row) for row in rows]
    changes = (Update(row=replace(cluster, private=marked)), *(Create(row=row) for row in rows))
    assert isinstance(await api.propose(Transaction(changes=changes)), Applied)
    return rows


def _with_what_is_shown(row: Row) -> Row:
    """Take the marks off what some route shows on purpose, but not off what lies beside it."""
    if isinstance(row, NodeRow):  # a manager's address is for everybody
        return replace(row, private=replace(row.private, manager_addr="10.0.0.9:2377"))
    if isinstance(row, TaskRow):  # why start-first could not be is told with the status
        return replace(row, private=replace(row.private, stop_first="a port is taken"))
    if isinstance(row, ServiceRow):  # a service's history tells of its specs
        old = Revision(number=1, at=1, how="created", spec=row.api.Spec, registry_auth=MARKER)
        private = replace(
            row.private, revision=2, revised_at=2, revised_how="updated", revisions=(old,)
        )
        step = ScaleDecision(at=1, rule="floor", before=1, after=2, reason="scaled to 2 by hand")
        private = replace(private, scale=Scale(count=2, decisions=(step,)))  # and of its scaling
        return replace(row, private=private)
    return row


def _targets(rows: list[Row]) -> list[str]:
    """Return every GET of the table of routes, for every marked row."""
    found = []
    for route in ROUTES:
        if route.method != "GET":
            continue
        if route.pattern == "/events":
            found.append(f"/events?since=0&until={time.time():.9f}")
            continue
        if "{id}" not in route.pattern:
            found.append(route.pattern.replace("{name*}", IMAGE))
            continue
        kind = route.pattern.split("/")[1].removesuffix("s")
        (row,) = (row for row in rows if row.__struct_config__.tag == kind)
        path = route.pattern.replace("{id}", row.api.ID)
        logs = "?stdout=1&stderr=1&details=1&timestamps=1" if path.endswith("/logs") else ""
        found.append(path + logs)
    more = ("/services?status=true", "/services/service-marked?insertDefaults=true")
    return [*found, *more]


def _assert_clean(what: str, shown: bytes) -> None:
    leaks = [name for name, mark in MARKS.items() if mark in shown]
    assert not leaks, f"{what} shows the {leaks} marker: {shown!r}"


async def test_no_answer_and_no_log_line_holds_anything_private(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With every private field of every kind of row marked, no GET, no refused write, no output
    and no log line of a running node shows a mark."""
    caplog.set_level(logging.DEBUG)
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        rows = await _mark_everything(api)
        everything = b""
        for target in _targets(rows):
            reply = await api.request("GET", target)
            assert reply.status in (200, 404, 501), (target, reply)
            everything += reply.body
            _assert_clean(target, reply.body + repr(reply.headers).encode())
        for row in rows:
            assert row.api.ID.encode() in everything, f"{row.api.ID} was not served at all"
        for method, target, body in (
            ("POST", "/services/create", service_body("service-marked")),
            ("POST", "/services/service-marked/update?version=1", service_body("service-marked")),
            ("POST", "/services/service-marked/update?version=1&rollback=previous", {}),
            ("POST", "/nodes/node-marked/update?version=1", {"Role": "worker"}),
            ("POST", "/swarm/update?version=1", {}),
            ("POST", "/secrets/create", {"Name": "secret-marked", "Data": "eA=="}),
            ("POST", "/secrets/secret-marked/update?version=1", {"Name": "secret-marked"}),
            ("POST", "/secrets/secret-marked/versions", {}),
            ("POST", "/swarm/init", {}),
            ("POST", "/swarm/unlock", {"UnlockKey": MARKER}),
            ("POST", "/swarm/join", {"RemoteAddrs": ["127.0.0.1:1"], "JoinToken": MARKER}),
            ("POST", "/swarm/leave", None),
        ):
            status, message = await api.refusal(method, target, body)
            assert status >= 400, (method, target)
            _assert_clean(f"{method} {target}", message.encode())
    assert caplog.records, "nothing was logged at all"
    _assert_clean("the log", caplog.text.encode())


def test_the_marks_can_be_seen() -> None:
    """A private half that did get out would be noticed, whatever the type of its field."""
    for row_type in get_args(Row):
        with pytest.raises(AssertionError, match="marker"):
            _assert_clean("it", encode_json(_marked(row_type).private))
