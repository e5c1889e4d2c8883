"""``service stop`` and ``start``, and the flags that stand for labels of ours."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.objects import node, service, task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Asked, Stub

ID = service()["ID"]


@pytest.fixture
def swarm(stub: Stub) -> Stub:
    """A daemon with one service."""
    stub.answers["GET /services/web"] = service()
    stub.answers[f"GET /services/{ID}"] = service()
    stub.answers[f"POST /services/{ID}/stop"] = None
    stub.answers[f"POST /services/{ID}/start"] = None
    return stub


def test_stop_waits_until_nothing_runs(swarm: Stub, run: Callable[..., Ran]) -> None:
    """It returns once every task has ended."""
    looks = count()

    def tasks(_asked: Asked) -> list[dict[str, Any]]:
        state = "running" if next(looks) < 2 else "shutdown"
        return [task(1, 1, state), task(2, 2, "shutdown")]

    swarm.answers["GET /tasks"] = tasks
    ran = run("service", "stop", "web")
    assert (ran.code, ran.out, ran.err) == (0, "web\n", "")
    assert next(looks) == 3
    assert f"POST /services/{ID}/stop" in swarm.lines()


def test_detached_it_only_tells(swarm: Stub, run: Callable[..., Ran]) -> None:
    """Nothing is asked afterwards."""
    assert run("service", "stop", "-d", "web").out == "web\n"
    assert run("service", "start", "-d", "web").out == "web\n"
    assert "GET /tasks" not in swarm.lines()


def test_start_waits_until_it_runs(swarm: Stub, run: Callable[..., Ran]) -> None:
    """As create does."""
    swarm.answers["GET /tasks"] = [task(1, 1), task(2, 2)]
    swarm.answers["GET /nodes"] = [node()]
    found = service(UpdateConfig={"Monitor": 1})
    swarm.answers[f"GET /services/{ID}"] = found
    ran = run("service", "start", "--quiet", "web")
    assert (ran.code, ran.out) == (0, "web\n")


def test_one_that_cannot_does_not_keep_the_others(swarm: Stub, run: Callable[..., Ran]) -> None:
    """Errors come last, and the exit code is 1."""
    swarm.answers["GET /tasks"] = []
    ran = run("service", "stop", "gone", "web")
    assert (ran.code, ran.out) == (1, "web\n")
    assert "gone not found" in ran.err


def test_a_stopped_service_is_listed_as_such(swarm: Stub, run: Callable[..., Ran]) -> None:
    """With the number that it starts with."""
    found = service(Mode={"Replicated": {"Replicas": 0}})
    found["Stopped"] = {"Since": found["CreatedAt"], "Replicas": 3}
    found["ServiceStatus"] = {"RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 0}
    swarm.answers["GET /services"] = [found]
    ran = run("service", "ls", "--format", "{{.Replicas}}")
    assert ran.out == "0/0 (stopped; 3 when started)\n"
    swarm.answers["GET /services/web"] = found
    assert " Starts with:\t3 replicas" in run("service", "inspect", "--pretty", "web").out


# --- flags that stand for labels -----------------------------------------------------------------


def test_a_new_service_gets_the_labels_that_flags_stand_for(
    swarm: Stub, run: Callable[..., Ran]
) -> None:
    """Flag and label say the same; several dependencies make one label."""
    swarm.answers["POST /services/create"] = (201, {"ID": ID})
    flags = ["--strategy", "spread", "--rebalance", "on-join", "--label", "a=b"]
    waits = ["--depends-on", "db:healthy", "--depends-on", "cache:running"]
    ran = run("service", "create", "-d", "--no-resolve-image", *flags, *waits, "nginx")
    assert ran.code == 0, ran.err
    assert swarm.posted()["Labels"] == {
        "a": "b",
        "swarmctl.strategy": "spread",
        "swarmctl.rebalance": "on-join",
        "swarmctl.depends-on": "db:healthy,cache:running",
    }


@pytest.mark.parametrize(
    ("flags", "labels"),
    [
        (("--strategy", "spread"), {"swarmctl.strategy": "spread"}),
        (("--strategy", ""), {"swarmctl.strategy": None}),
        (("--rebalance", "never"), {"swarmctl.rebalance": "never"}),
        (
            ("--depends-on-add", "db:running", "--depends-on-add", "mq:healthy"),
            {"swarmctl.depends-on": "db:running,cache:running,mq:healthy"},
        ),
        (("--depends-on-rm", "db"), {"swarmctl.depends-on": "cache:running"}),
        (
            ("--depends-on-rm", "db", "--depends-on-rm", "cache:running"),
            {"swarmctl.depends-on": None},
        ),
    ],
)
def test_an_update_changes_just_the_label_it_names(
    swarm: Stub, run: Callable[..., Ran], flags: tuple[str, ...], labels: dict[str, str | None]
) -> None:
    """An empty value takes a label away."""
    present = {
        "a": "b",
        "swarmctl.strategy": "binpack",
        "swarmctl.depends-on": "db:healthy,cache:running",
    }
    swarm.answers["GET /services/web"] = service(Labels=present)
    swarm.answers[f"POST /services/{ID}/update"] = {}
    ran = run("service", "update", "-d", *flags, "web")
    assert ran.code == 0, ran.err
    expected = {**present, **labels}
    assert swarm.posted()["Labels"] == {key: text for key, text in expected.items() if text}


def test_what_is_not_waited_for_cannot_be_removed(swarm: Stub, run: Callable[..., Ran]) -> None:
    """The error names it."""
    ran = run("service", "update", "-d", "--depends-on-rm", "db", "web")
    assert (ran.code, ran.err) == (1, "the service does not wait for 'db'\n")
