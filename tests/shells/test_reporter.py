"""The reporter: the newest status of each task, never an older after a newer, however slow."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.agent.reporter import PASSING_S, TASKS_PER_REPORT, Reporter
from swarmctl.core.model.base import Time
from swarmctl.core.model.task import TaskState, TaskStatus

if TYPE_CHECKING:
    from swarmctl.core.model.session import Report

pytestmark = pytest.mark.still

LIFE = [state for state in TaskState if TaskState.ASSIGNED <= state <= TaskState.COMPLETE]


def status(state: TaskState, at: int = 0) -> TaskStatus:
    return TaskStatus(Timestamp=Time(at), State=state)


async def pass_time() -> None:
    """Let those wait no longer that wait for what follows."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(PASSING_S)
    await trio.testing.wait_all_tasks_blocked()


class Dispatcher:
    """Takes reports when the test lets it."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.reports: list[Report] = []

    async def send(self, report: Report) -> None:
        await trio.lowlevel.checkpoint()
        self.reports.append(report)

    def take_last(self) -> None:
        self._reporter.taken(self.reports[-1].number)

    def states(self, task_id: str) -> list[TaskState]:
        return [
            told.status.State
            for report in self.reports
            for told in report.tasks
            if told.task_id == task_id
        ]


@pytest.mark.parametrize("seed", range(5))
async def test_under_contention_only_newer_follows_newer(seed: int) -> None:
    """Many tasks that live at random, a slow dispatcher: states rise, and the last one arrives."""
    rng = random.Random(seed)
    reporter = Reporter()
    dispatcher = Dispatcher(reporter)
    names = [f"t{n}" for n in range(20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run, dispatcher.send)
        steps = [(name, state) for name in names for state in LIFE]
        rng.shuffle(steps)  # also older ones after newer ones
        for number, (name, state) in enumerate(steps):
            reporter.put(name, status(state, number))
            if rng.random() < 0.5:
                await trio.lowlevel.checkpoint()
            if dispatcher.reports and rng.random() < 0.2:
                dispatcher.take_last()
        for _ in range(4):
            await trio.testing.wait_all_tasks_blocked()
            dispatcher.take_last()
        nursery.cancel_scope.cancel()
    for name in names:
        told = dispatcher.states(name)
        assert told == sorted(told)
        assert told[-1] is TaskState.COMPLETE


async def test_one_report_is_in_flight_at_a_time() -> None:
    """What changes while a report waits for its answer goes with the next, once."""
    reporter = Reporter()
    dispatcher = Dispatcher(reporter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run, dispatcher.send)
        reporter.put("t1", status(TaskState.ACCEPTED))
        await pass_time()
        for state in LIFE:
            reporter.put("t1", status(state))
        await trio.testing.wait_all_tasks_blocked()
        assert dispatcher.states("t1") == [TaskState.ACCEPTED]
        reporter.taken(99)  # of another session
        await trio.testing.wait_all_tasks_blocked()
        assert len(dispatcher.reports) == 1
        dispatcher.take_last()
        await trio.testing.wait_all_tasks_blocked()
        assert dispatcher.states("t1") == [TaskState.ACCEPTED, TaskState.COMPLETE]
        nursery.cancel_scope.cancel()


async def test_states_on_the_way_wait_for_what_follows() -> None:
    """A task that is up at once costs one report; one that takes its time is seen on its way."""
    reporter = Reporter()
    dispatcher = Dispatcher(reporter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run, dispatcher.send)
        await trio.testing.wait_all_tasks_blocked()
        for state in LIFE[: LIFE.index(TaskState.RUNNING) + 1]:
            reporter.put("quick", status(state))
            await trio.testing.wait_all_tasks_blocked()
        assert dispatcher.states("quick") == [TaskState.RUNNING]
        dispatcher.take_last()
        reporter.put("slow", status(TaskState.PREPARING))
        await pass_time()
        assert dispatcher.states("slow") == [TaskState.PREPARING]
        nursery.cancel_scope.cancel()


async def test_what_changes_together_goes_together() -> None:
    """Statuses of one moment are one report, and a flood is cut into bounded ones."""
    reporter = Reporter()
    dispatcher = Dispatcher(reporter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run, dispatcher.send)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(TASKS_PER_REPORT + 1):
            reporter.put(f"t{number}", status(TaskState.RUNNING))
        await trio.testing.wait_all_tasks_blocked()
        assert [len(report.tasks) for report in dispatcher.reports] == [TASKS_PER_REPORT]
        dispatcher.take_last()
        await trio.testing.wait_all_tasks_blocked()
        assert [len(report.tasks) for report in dispatcher.reports] == [TASKS_PER_REPORT, 1]
        nursery.cancel_scope.cancel()


async def test_a_new_session_hears_everything_again() -> None:
    """What one session may have lost the next one hears, but for tasks that are gone."""
    reporter = Reporter()
    first, second = Dispatcher(reporter), Dispatcher(reporter)
    reporter.put("t1", status(TaskState.RUNNING))
    reporter.put("t2", status(TaskState.RUNNING))
    for dispatcher in (first, second):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run, dispatcher.send)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        reporter.forget("t2")
    assert [told.task_id for told in first.reports[0].tasks] == ["t1", "t2"]
    assert [told.task_id for told in second.reports[0].tasks] == ["t1"]
