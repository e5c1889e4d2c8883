"""The agent's next step, and what a step's end means: the table of the task model."""

from __future__ import annotations

import pytest

from swarmctl.core.agent import step as steps
from swarmctl.core.agent.executor import ExitStatus, TaskObservation
from swarmctl.core.agent.step import Step, next_step
from swarmctl.core.model.base import Time
from swarmctl.core.model.spec import PortConfig
from swarmctl.core.model.task import ContainerStatus, PortStatus, TaskState, TaskStatus

S = TaskState
ENDED = (S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.REMOVE, S.ORPHANED)
PORTS = PortStatus(Ports=(PortConfig(TargetPort=80),))
RUNNING = TaskStatus(
    Timestamp=Time(5),
    State=S.RUNNING,
    Message="started",
    ContainerStatus=ContainerStatus(ContainerID="abc", PID=42),
    PortStatus=PORTS,
)


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (S.NEW, Step.ACCEPT),
        (S.PENDING, Step.ACCEPT),
        (S.ASSIGNED, Step.ACCEPT),
        (S.ACCEPTED, Step.PREPARE),
        (S.PREPARING, Step.PREPARE),
        (S.READY, Step.START),
        (S.STARTING, Step.START),
        (S.RUNNING, Step.WAIT),
        *[(state, Step.NOTHING) for state in ENDED],
    ],
)
def test_a_task_that_shall_run_goes_step_by_step(state: S, step: Step) -> None:
    """From assignment to its end, each state has one next step."""
    assert next_step(state, S.RUNNING) is step


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (S.ASSIGNED, Step.ACCEPT),
        (S.ACCEPTED, Step.PREPARE),
        (S.PREPARING, Step.PREPARE),
        (S.READY, Step.NOTHING),
        (S.STARTING, Step.NOTHING),
        (S.RUNNING, Step.NOTHING),
        (S.FAILED, Step.NOTHING),
    ],
)
def test_a_task_that_shall_be_ready_is_not_started(state: S, step: Step) -> None:
    """A task held back at READY is prepared, and no further."""
    assert next_step(state, S.READY) is step


@pytest.mark.parametrize("desired", [S.SHUTDOWN, S.REMOVE])
@pytest.mark.parametrize("state", list(S))
def test_a_task_that_shall_stop_is_stopped_once(state: S, desired: S) -> None:
    """Whatever it is at, it is stopped; one that has ended is left alone."""
    assert next_step(state, desired) is (Step.NOTHING if state in ENDED else Step.SHUTDOWN)


@pytest.mark.parametrize("state", [S.ACCEPTED, S.PREPARING, S.READY])
def test_a_step_that_fails_before_start_rejects(state: S) -> None:
    """A failure before STARTING makes the task REJECTED, with the executor's words."""
    found = steps.failed("no such image", None, 9, TaskStatus(State=state, Message="preparing"))
    assert (found.State, found.Err, found.Message) == (S.REJECTED, "no such image", "preparing")
    assert found.Timestamp == 9


@pytest.mark.parametrize("state", [S.STARTING, S.RUNNING])
def test_a_step_that_fails_from_start_on_fails(state: S) -> None:
    """A failure from STARTING on makes the task FAILED, with the code if there is one."""
    found = steps.failed("it died", 137, 9, TaskStatus(State=state))
    assert found.State is S.FAILED
    assert found.ContainerStatus == ContainerStatus(ExitCode=137)


@pytest.mark.parametrize(
    ("exit_status", "state", "err"),
    [
        (ExitStatus(code=0), S.COMPLETE, ""),
        (ExitStatus(code=7), S.FAILED, "task: non-zero exit (7)"),
        (
            ExitStatus(code=137, error="unhealthy container"),
            S.FAILED,
            "task: non-zero exit (137): unhealthy container",
        ),
    ],
)
def test_an_exit_is_good_or_says_why_not(exit_status: ExitStatus, state: S, err: str) -> None:
    """Code 0 completes a task; anything else fails it in Docker's words."""
    found = steps.ended(exit_status, 9, RUNNING)
    assert (found.State, found.Err) == (state, err)
    assert found.ContainerStatus == ContainerStatus(ContainerID="abc", ExitCode=exit_status.code)
    assert found.PortStatus == PortStatus()


def test_an_exit_has_the_time_it_happened() -> None:
    """An exit found late carries the time of the exit, not of the finding."""
    assert steps.ended(ExitStatus(code=0, finished_at=7), 9, RUNNING).Timestamp == 7


def test_a_stop_is_no_failure() -> None:
    """A task stopped on request is SHUTDOWN whatever its code."""
    found = steps.stopped(143, 9, RUNNING)
    assert (found.State, found.Err, found.Message) == (S.SHUTDOWN, "", "shutdown")
    assert found.ContainerStatus == ContainerStatus(ContainerID="abc", ExitCode=143)


def test_what_is_seen_is_put_in_and_what_is_not_seen_stays() -> None:
    """An observation adds container and ports; one that saw nothing takes nothing away."""
    bare = TaskStatus(State=S.RUNNING)
    seen = TaskObservation(container=RUNNING.ContainerStatus, ports=PORTS)
    assert steps.observed(bare, seen).PortStatus == PORTS
    assert steps.observed(RUNNING, TaskObservation()) == RUNNING
