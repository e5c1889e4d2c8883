"""``service explain`` and ``task explain``: columns for humans, JSON and templates for others."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from tests.cli.objects import ago

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub


def verdicts() -> list[dict[str, Any]]:
    """Three nodes, and three reasons."""
    refusals: tuple[list[tuple[str, str, str]], ...] = (
        [
            ("resources", "4 CPUs", "1.5 CPUs free of 2 CPUs"),
            ("platform", "linux/amd64", "linux/arm64"),
        ],
        [("constraints", "node.labels.zone==b", "node.labels.zone is 'a'")],
        [],
    )
    return [
        {
            "ID": f"node{number}",
            "Name": f"host{number}",
            "Fits": not of_node,
            "Refusals": [
                {"Filter": name, "Needs": needs, "Has": has} for name, needs, has in of_node
            ],
        }
        for number, of_node in enumerate(refusals, 1)
    ]


def failure() -> dict[str, Any]:
    return {
        "At": ago(180),
        "TaskID": "task0",
        "NodeID": "node1",
        "Node": "host1",
        "State": "failed",
        "ExitCode": 3,
        "Err": "task: non-zero exit (3)",
    }


def explained(**fields: Any) -> dict[str, Any]:
    return {
        "ID": "task1",
        "Name": "web.1",
        "ServiceID": "web1",
        "State": "pending",
        "DesiredState": "running",
        "Since": ago(12),
        "NodeID": "",
        "Node": "",
        "Text": "no suitable node (...)",
        "Waits": [{"For": "node", "Text": "no suitable node (...)"}],
        "Nodes": [],
        "Failures": [],
        **fields,
    }


def test_a_service_is_told_in_columns(stub: Stub, run: Callable[..., Ran]) -> None:
    """What runs, what waits for what, what every node says, and what failed."""
    stub.answers["GET /services/web/explain"] = {
        "ID": "web1",
        "Name": "web",
        "Running": 1,
        "Wanted": 25,
        "Text": "1 of 25 tasks run",
        "Notes": ["its update is paused: update paused due to failure"],
        "Tasks": [explained()],
        "More": 3,
        "Nodes": verdicts(),
        "Failures": [failure()],
    }
    ran = run("service", "explain", "web")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "web: 1 of 25 tasks run",
        "  its update is paused: update paused due to failure",
        "  web.1 (task1): Pending for 12 seconds",
        "    no suitable node (...)",
        "  and 3 more",
        "",
        "NODE      FILTER        NEEDS                 HAS",
        "host1     resources     4 CPUs                1.5 CPUs free of 2 CPUs",
        "          platform      linux/amd64           linux/arm64",
        "host2     constraints   node.labels.zone==b   node.labels.zone is 'a'",
        "host3                                         fits now",
        "",
        "Last failures:",
        "  3 minutes ago on host1: failed, exit code 3: task: non-zero exit (3) (task task0)",
    ]


def test_a_task_is_told_with_the_time_it_still_waits(stub: Stub, run: Callable[..., Ran]) -> None:
    """A restart delay has an end."""
    until = datetime.now(timezone.utc) + timedelta(seconds=30.5)
    wait = {
        "For": "delay",
        "Text": "waits out its restart delay",
        "Until": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    stub.answers["GET /tasks/task1/explain"] = explained(
        State="ready", DesiredState="ready", Text="waits out its restart delay", Waits=[wait]
    )
    ran = run("task", "explain", "task1")
    assert ran.out.splitlines() == [
        "web.1 (task1): waits out its restart delay",
        "  Ready for 12 seconds",
        "    waits out its restart delay, for another 30 seconds at the most",
    ]


def test_formats_are_for_programs(stub: Stub, run: Callable[..., Ran]) -> None:
    """JSON is what the daemon said; a template picks a field."""
    stub.answers["GET /tasks/task1/explain"] = explained(Nodes=verdicts())
    found = json.loads(run("task", "explain", "--format", "json", "task1").out)
    assert found["Nodes"][0]["Refusals"][0]["Needs"] == "4 CPUs"
    ran = run("task", "explain", "--format", "{{.State}} {{len .Nodes}}", "task1")
    assert ran.out == "pending 3\n"


def test_what_is_not_there_is_an_error(stub: Stub, run: Callable[..., Ran]) -> None:
    """In the daemon's words."""
    ran = run("service", "explain", "web")
    assert (ran.code, ran.out) == (1, "")
    assert "not found" in ran.err
