"""Progress is decided by the docker CLI's rules, and waiting ends when it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.cli.service.progress import Line, progress_of
from tests.cli.objects import node, service, task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

NODES = frozenset({"node1", "node2"})


def look(
    tasks: list[dict[str, Any]], mode: dict[str, Any] | None = None, *, back: bool = False
) -> tuple[list[Line], bool]:
    found = service(Mode=mode or {"Replicated": {"Replicas": 2}})
    if mode and any("Job" in key for key in mode):
        found["JobStatus"] = {"JobIteration": {"Index": 1}}
    lines, converged = progress_of(found).look(found, tasks, NODES, back=back)
    return list(lines), converged


def test_a_service_converged_when_every_slot_runs() -> None:
    """Running tasks that are wanted count, one a slot."""
    assert look([task(1, 1), task(2, 2)]) == (
        [
            Line("overall progress", "2 out of 2 tasks"),
            Line("1/2", "running", 9),
            Line("2/2", "running", 9),
        ],
        True,
    )
    assert look([task(1, 1), task(2, 1)])[1] is False


def test_the_task_that_is_wanted_most_stands_for_its_slot() -> None:
    """A successor that prepares hides the predecessor that is to stop, running or not."""
    lines, converged = look(
        [task(1, 1), task(2, 2, DesiredState="shutdown"), task(3, 2, "preparing")]
    )
    assert lines[2] == Line("2/2", "preparing", 6)
    assert not converged


def test_tasks_on_nodes_that_are_down_do_not_count() -> None:
    """A task whose node is silent may run or not; it is not progress."""
    assert look([task(1, 1), task(2, 2, NodeID="gone")])[1] is False


def test_an_error_stands_instead_of_the_state() -> None:
    """What keeps a task from running is said in one line of at most 75 letters."""
    lines, _ = look([task(1, 1, "pending", error="no suitable node\n" + "x" * 80, NodeID="")])
    assert lines[1].text.startswith("no suitable node x")
    assert (len(lines[1].text), lines[1].step) == (75, 0)


def test_many_tasks_have_no_bars() -> None:
    """Above twenty tasks only the sum is shown."""
    lines, _ = look([], {"Replicated": {"Replicas": 21}})
    assert lines == [Line("overall progress", "0 out of 21 tasks")]


def test_a_rollback_says_so() -> None:
    """While an update is rolled back, the sum says what is counted."""
    assert look([], back=True)[0][0].text == "rolling back update: 0 out of 2 tasks"


def test_a_global_service_waits_for_its_first_task() -> None:
    """Nobody here knows how many nodes fit; it converged when all nodes with a task run it."""
    mode: dict[str, Any] = {"Global": {}}
    assert look([], mode) == ([Line("overall progress", "waiting for new tasks")], False)
    tasks = [task(1, 0), task(2, 0, NodeID="node2")]
    assert look(tasks, mode)[1] is True
    assert look([tasks[0], {**tasks[1], "NodeID": "gone"}], mode)[1] is False


def test_a_job_is_done_when_enough_tasks_are_complete() -> None:
    """Only tasks of the present run count."""
    mode = {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 2}}
    now = {"JobIteration": {"Index": 1}}
    done, running = task(1, 0, "complete", **now), task(2, 1, **now)
    old = task(3, 0, "complete", JobIteration={"Index": 0})
    assert look([done, running, old], mode) == (
        [
            Line("job progress", "1 out of 2 complete"),
            Line("active tasks", "1 out of 1 tasks"),
            Line("1/2", "complete", 9),
            Line("2/2", "running", 9),
        ],
        False,
    )
    assert look([done, {**running, "Status": {"State": "complete"}}], mode)[1] is True


def test_a_slot_of_a_job_is_complete_once() -> None:
    """A task that was taken for lost and completed after all stands for its slot."""
    mode = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
    now = {"JobIteration": {"Index": 1}, "DesiredState": "shutdown"}
    both = [task(1, 0, "complete", **now), task(2, 0, "complete", **now)]
    assert look(both, mode)[1] is True


def test_a_long_job_has_no_bars() -> None:
    """Above twenty completions only the sums are shown."""
    mode = {"ReplicatedJob": {"MaxConcurrent": 5, "TotalCompletions": 21}}
    assert [line.key for line in look([], mode)[0]] == ["job progress", "active tasks"]


def test_a_global_job_is_done_when_every_node_with_a_task_is() -> None:
    """It waits for its first task; then each node has a bar, and its error where there is one."""
    mode: dict[str, Any] = {"GlobalJob": {}}
    assert look([], mode) == ([Line("overall progress", "waiting for new tasks")], False)
    now = {"JobIteration": {"Index": 1}, "DesiredState": "complete"}
    done = task(1, 0, "complete", **now)
    failed = task(2, 0, "failed", error="task: non-zero exit (1)", NodeID="node2", **now)
    assert look([done, failed], mode) == (
        [
            Line("job progress", "1 out of 2 complete"),
            Line("node1", "complete", 9),
            Line("node2", "task: non-zero exit (1)"),
        ],
        False,
    )
    assert look([done], mode)[1] is True


def scaled(stub: Stub, run: Callable[..., Ran], status: dict[str, Any] | None) -> Ran:
    """Scale a service whose tasks do not run yet; ``status`` is its UpdateStatus."""
    found = service()
    if status is not None:
        found["UpdateStatus"] = status
    stub.answers["GET /services/web"] = found
    stub.answers[f"GET /services/{found['ID']}"] = found
    stub.answers[f"POST /services/{found['ID']}/update"] = {"Warnings": None}
    stub.answers["GET /tasks"] = [task(1, 1, "preparing")]
    stub.answers["GET /nodes"] = [node()]
    return run("service", "update", "--replicas", "2", "web")


def test_a_finished_update_ends_the_waiting(stub: Stub, run: Callable[..., Ran]) -> None:
    """UpdateStatus completed before convergence is over at once, with exit code 0."""
    assert scaled(stub, run, {"State": "completed", "Message": "update completed"}).code == 0


@pytest.mark.parametrize(
    ("state", "words"),
    [("paused", "service update paused"), ("rollback_paused", "service rollback paused")],
)
def test_a_paused_update_is_an_error(
    stub: Stub, run: Callable[..., Ran], state: str, words: str
) -> None:
    """An update that stopped on its way gives its reason and exit code 1."""
    ran = scaled(stub, run, {"State": state, "Message": "task x failed"})
    assert (ran.code, ran.err) == (1, f"{words}: task x failed\n")


def rolled(stub: Stub, run: Callable[..., Ran], *command: str) -> Ran:
    """Run a command on a service whose tasks run and whose rollback is just complete."""
    found = service()
    found["UpdateStatus"] = {"State": "rollback_completed", "Message": "rollback completed"}
    found["Spec"]["UpdateConfig"] = {"Parallelism": 1, "Monitor": 1}
    stub.answers["GET /services/web"] = found
    stub.answers[f"GET /services/{found['ID']}"] = found
    stub.answers[f"POST /services/{found['ID']}/update"] = {"Warnings": None}
    stub.answers["GET /tasks"] = [task(1, 1, "running"), task(2, 2, "running")]
    stub.answers["GET /nodes"] = [node()]
    return run("service", *command, "web")


def test_an_update_that_was_rolled_back_is_an_error(stub: Stub, run: Callable[..., Ran]) -> None:
    """What was asked for did not happen, so the exit code is 1 (docker's is 0)."""
    ran = rolled(stub, run, "update", "--replicas", "2")
    assert (ran.code, ran.err) == (1, "service update rolled back: rollback completed\n")


@pytest.mark.parametrize("command", [("rollback",), ("update", "--rollback")])
def test_a_rollback_that_was_asked_for_is_none(
    stub: Stub, run: Callable[..., Ran], command: tuple[str, ...]
) -> None:
    """Its completion is a success."""
    assert rolled(stub, run, *command).code == 0


def test_a_service_that_is_removed_meanwhile_is_an_error(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """Waiting for what is gone ends with the daemon's own words."""
    found = service()
    stub.answers["GET /services/web"] = found
    stub.answers[f"POST /services/{found['ID']}/update"] = {"Warnings": None}
    ran = run("service", "update", "--replicas", "2", "web")
    assert ran.code == 1
    assert ran.err == f"Error response from daemon: service {found['ID']} not found\n"


def test_an_interrupt_leaves_the_operation_to_the_daemon(stub: Stub) -> None:
    """Ctrl-C ends the waiting with exit code 0 and says how to look again."""
    found = service()
    stub.answers["GET /services/web"] = found
    stub.answers[f"GET /services/{found['ID']}"] = found
    stub.answers[f"POST /services/{found['ID']}/update"] = {"Warnings": None}
    stub.answers["GET /nodes"] = [node()]
    stub.answers["GET /tasks"] = []
    with subprocess.Popen(
        [sys.executable, "-m", "swarmctl", "service", "update", "--replicas", "2", "web"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        lines += process.stdout.readlines()
        assert process.wait(10) == 0
    assert lines[-2:] == [
        "Operation continuing in background.\n",
        f"Use `swarmctl service ps {found['ID']}` to check progress.\n",
    ]


def test_a_terminal_gets_bars(stub: Stub) -> None:
    """On a terminal every task has its line, drawn in place, and the last word stays."""
    import pty

    found = service(UpdateConfig={"Monitor": 1})
    stub.answers["GET /services/web"] = found
    stub.answers[f"GET /services/{found['ID']}"] = found
    stub.answers[f"POST /services/{found['ID']}/update"] = {"Warnings": None}
    stub.answers["GET /nodes"] = [node()]
    stub.answers["GET /tasks"] = [task(1, 1), task(2, 2)]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "swarmctl", "service", "update", "--replicas", "2", "web"],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other side of the terminal is closed
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        assert process.wait(20) == 0
    text = shown.decode()
    assert "1/2: " in text
    assert "━" in text
    assert f"Service {found['ID']} converged" in text
