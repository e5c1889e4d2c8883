"""Events arrive line by line, as docker's CLI prints them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

SCALED = {
    "Type": "service",
    "Action": "update",
    "Actor": {
        "ID": "s1",
        "Attributes": {"replicas.old": "1", "name": "web", "replicas.new": "2"},
    },
    "scope": "swarm",
    "time": 1700000000,
    "timeNano": 1700000000000000012,
}
PLAIN = {**SCALED, "Type": "node", "Action": "create", "Actor": {"ID": "n1", "Attributes": {}}}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def test_events_are_printed_as_docker_prints_them(stub: Stub, run: Callable[..., Ran]) -> None:
    """Time with nine digits, type, action, id, and attributes in order where there are any."""
    stub.answers["GET /events"] = lines(SCALED, PLAIN)
    assert run("events").out.splitlines() == [
        (
            "2023-11-14T22:13:20.000000012Z service update s1 "
            "(name=web, replicas.new=2, replicas.old=1)"
        ),
        "2023-11-14T22:13:20.000000012Z node create n1",
    ]


def test_templates_and_json(stub: Stub, run: Callable[..., Ran]) -> None:
    """A template sees Docker's fields; json gives back each object on a line."""
    stub.answers["GET /events"] = lines(SCALED)
    form = "{{.Type}} {{.Scope}} {{.Time}} {{.Actor.Attributes.name}} [{{.Status}}{{.From}}]"
    assert run("events", "--format", form).out == "service swarm 1700000000 web []\n"
    assert json.loads(run("events", "--format", "json").out) == SCALED
    assert json.loads(run("events", "--format", "{{json .}}").out) == SCALED


def test_filters_and_times_are_asked_for(stub: Stub, run: Callable[..., Ran]) -> None:
    """Filters go as docker's do, a duration counts back from now, and a wrong time is named."""
    stub.answers["GET /events"] = b""
    run(
        *("events", "-f", "type=service", "--filter", "type=node", "--filter", "event=update"),
        *("--since", "1700000000", "--until", "2023-11-14T22:13:20Z"),
    )
    (asked,) = [asked for asked in stub.asked if asked.path == "/events"]
    assert json.loads(asked.query.pop("filters")) == {
        "type": {"service": True, "node": True},
        "event": {"update": True},
    }
    assert asked.query == {"since": "1700000000", "until": "1700000000.000000000"}
    before = time.time() - 120
    run("events", "--since", "2m")
    assert 0 <= float(stub.asked[-1].query["since"]) - before < 60
    ran = run("events", "--until", "soon")
    assert ran.code == 1
    assert "invalid value for until 'soon'" in ran.err


def test_a_stream_that_is_cut_says_why(stub: Stub, run: Callable[..., Ran]) -> None:
    """What the daemon says last is printed, and the command fails with its reason."""
    lost = {
        **PLAIN,
        "Type": "daemon",
        "Action": "lost",
        "Actor": {"ID": "n1", "Attributes": {"message": "this client reads too slowly"}},
    }
    stub.answers["GET /events"] = lines(PLAIN, lost)
    ran = run("events")
    assert ran.code == 1
    assert ran.out.count("\n") == 2
    assert "this client reads too slowly" in ran.err
