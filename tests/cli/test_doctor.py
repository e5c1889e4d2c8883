"""``network doctor``: nodes in columns, what differs below, and an exit code that tells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

ROUTE = "GET /swarm/doctor/networks"


def finding(subject: str, table: str, kernel: str, **more: str) -> dict[str, Any]:
    found = {"Network": "net", "Kind": "vip", "Subject": subject, "Table": table, "Kernel": kernel}
    return {**found, **more}


def path(target: str, err: str = "") -> dict[str, Any]:
    took = 0 if err else 1_250_000
    return {"Network": "net", "Source": "t1", "Target": target, "TookNs": took, "Err": err}


def node(name: str, **more: Any) -> dict[str, Any]:
    return {
        "ID": f"id-{name}",
        "Name": name,
        "Driver": "overlay",
        "Sent": 50,
        "Known": 50,
        "Compared": 12,
        "Findings": [],
        "Paths": [],
        "Problems": [],
        "Repaired": {},
        "Err": "",
        **more,
    }


def test_what_is_wrong_is_told(stub: Stub, run: Callable[..., Ran]) -> None:
    """Each node a line, then what differs and the paths that are closed; the exit code is 1."""
    stub.answers[ROUTE] = {
        "Nodes": [
            node(
                "h1",
                Findings=[finding("10.0.1.2", "t1, t2", "t1"), finding("10.0.1.9", "t4", "t4")],
                Paths=[path("t2"), path("t3", "no answer within 1 s")],
                Problems=["port 80/tcp is taken by nginx"],
                Repaired={"vip": 2, "bridge": 1},
            ),
            node("h2", Known=40, Findings=[finding("80/tcp", "t1", "", Network="", Kind="port")]),
            node("h3", Driver="", Sent=0, Known=0, Compared=0, Err="it is down"),
        ]
    }
    ran = run("network", "doctor")
    assert ran.code == 1
    assert ran.err == ""
    assert ran.out.splitlines() == [
        "NODE      DRIVER    TABLE      COMPARED   WRONG     MENDED    PATHS",
        "h1        overlay   50         12         1         3         1/2",
        "h2        overlay   40 of 50   12         1         -         -",
        "h3        -         -          -          -         -         -",
        "h1: port 80/tcp is taken by nginx",
        "h3: it is down",
        "",
        "NODE      NETWORK   WHAT      WHICH      TABLE SAYS   KERNEL HAS",
        "h1        net       vip       10.0.1.2   t1, t2       t1",
        "h2        -         port      80/tcp     t1           -",
        "",
        "NODE      NETWORK   FROM      TO        RESULT",
        "h1        net       t1        t3        no answer within 1 s",
        "",
        "NODE      TIMES     MENDED SINCE ITS DAEMON STARTED",
        "h1        1         bridge",
        "h1        2         vip",
    ]
    assert stub.asked[-1].query == {"all": "0", "probe": "1"}


def test_all_is_well(stub: Stub, run: Callable[..., Ran]) -> None:
    """Nothing but the nodes is shown, unless all is asked for; the exit code is 0."""
    well = node("h1", Findings=[finding("10.0.1.2", "t1", "t1")], Paths=[path("t2")])
    stub.answers[ROUTE] = {"Nodes": [well]}
    ran = run("network", "doctor")
    assert ran.code == 0
    assert len(ran.out.splitlines()) == 2
    ran = run("network", "doctor", "--all", "--probe=false")
    assert ran.out.splitlines()[2:] == [
        "",
        "NODE      NETWORK   WHAT      WHICH      TABLE SAYS   KERNEL HAS",
        "h1        net       vip       10.0.1.2   t1           t1",
        "",
        "NODE      NETWORK   FROM      TO        RESULT",
        "h1        net       t1        t2        1.2 ms",
    ]
    assert stub.asked[-1].query == {"all": "1", "probe": "0"}


def test_programs_get_json(stub: Stub, run: Callable[..., Ran]) -> None:
    """The whole answer, with the same exit code; there is no other format."""
    stub.answers[ROUTE] = {"Nodes": [node("h1", Err="it is down")]}
    ran = run("network", "doctor", "--format", "json")
    assert (ran.code, json.loads(ran.out)) == (1, stub.answers[ROUTE])
    ran = run("network", "doctor", "--format", "{{.ID}}")
    assert (ran.code, ran.err) == (1, 'the only --format of this command is "json"\n')
