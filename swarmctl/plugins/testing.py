"""Conformance checks for what plugins make: call them from the tests of your own plugin.

| check | what it takes | what it needs |
|---|---|---|
| :func:`check_executor` | a function that makes executors on one engine | trio, the engine |
| :func:`check_scheduler` | a function that makes schedulers | nothing |
| :func:`check_filter` | a function that makes a filter | nothing |
| :func:`check_allocator` | an allocator | nothing |
| :func:`check_metric_source` | a source, two addresses | trio, what stands at them |
| :func:`check_network_driver` | what makes drivers, a table | trio, a kernel of its own |

They need no test framework: a broken law raises :class:`ConformanceError` that names it and what
was seen. What "exit with 3" means for an executor is told by :class:`Programs`;
:class:`ShellPrograms` is enough for everything that can run ``sh``. docs/plugins.md has examples.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..core.agent.executor import (
    EngineUnavailable,
    Executor,
    LogLine,
    LogOptions,
    NodeIdentity,
    TaskController,
)
from ..core.clock import new_id
from ..core.model.base import SECOND
from .cancelling import cancelled_at
from .conformance import ConformanceError, check_allocator, require
from .filter_check import check_filter
from .laws import beside, hold
from .metric_check import check_metric_source
from .network_check import check_network_driver
from .programs import Programs, ShellPrograms, simple_assignment
from .scheduler_check import check_scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..core.model.spec import ContainerSpec
    from ..core.model.task import TaskAssignment

__all__ = [
    "ConformanceError",
    "Programs",
    "ShellPrograms",
    "check_allocator",
    "check_executor",
    "check_filter",
    "check_metric_source",
    "check_network_driver",
    "check_scheduler",
    "simple_assignment",
]

CHECK_TIMEOUT_S = 120.0
MAX_CANCEL_POINTS = 100


class _Rig(NamedTuple):
    """What every check is handed."""

    make_executor: Callable[[], Executor]
    make_assignment: Callable[[str, ContainerSpec, NodeIdentity], TaskAssignment]
    programs: Programs
    identity: NodeIdentity

    def assignment(self, spec: ContainerSpec) -> TaskAssignment:
        return self.make_assignment(new_id(), spec, self.identity)

    async def with_executor(
        self,
        body: Callable[[Executor], Awaitable[None]],
        identity: NodeIdentity | None = None,
    ) -> None:
        """Run ``body`` with an executor as a daemon has it, from start to sudden end."""
        executor = self.make_executor()
        await beside(partial(executor.run, identity or self.identity), partial(body, executor))


async def check_executor(
    make_executor: Callable[[], Executor],
    *,
    programs: Programs,
    identity: NodeIdentity,
    make_assignment: Callable[
        [str, ContainerSpec, NodeIdentity], TaskAssignment
    ] = simple_assignment,
    timeout_s: float = CHECK_TIMEOUT_S,
) -> None:
    """Check that an executor keeps the laws.

    Takes some seconds on a real engine, and leaves no task behind when all is well.

    Args:
        make_executor: makes a fresh executor on the same engine each time, as a daemon that was
            restarted does. Several are used one after the other and two at a time.
        programs: what to run.
        identity: of the node it plays; a second one is made by changing the node id.
        make_assignment: makes an assignment from a fresh task id, a spec and a node.
        timeout_s: how long any one check may take.

    Raises:
        ConformanceError: a law is broken.
    """
    rig = _Rig(make_executor, make_assignment, programs, identity)
    await hold(CHECKS, rig, timeout_s)


async def _run_to_end(control: TaskController) -> int:
    await control.prepare()
    await control.start()
    return (await control.wait()).code


async def _first_line(control: TaskController) -> None:
    async with aclosing(control.logs(LogOptions(follow=True))) as lines:  # type: ignore[type-var]
        async for _ in lines:
            return


async def _read_all(control: TaskController, options: LogOptions) -> list[LogLine]:
    async with aclosing(control.logs(options)) as lines:  # type: ignore[type-var]
        return [line async for line in lines]


# --- the checks: each one's docstring is the law -------------------------------------------------


async def _describes(rig: _Rig) -> None:
    """An executor describes its node, and says which executor it is."""

    async def body(executor: Executor) -> None:
        node = (await executor.describe()).node
        require(node.Hostname, "no hostname")
        require(node.Platform.OS and node.Platform.Architecture, f"platform {node.Platform}")
        require(node.Resources.NanoCPUs > 0, f"{node.Resources.NanoCPUs} NanoCPUs")
        require(node.Resources.MemoryBytes > 0, f"{node.Resources.MemoryBytes} bytes of memory")
        kind = node.Engine.Labels.get("swarmctl.executor")
        require(kind == executor.name, f"label swarmctl.executor is {kind!r}")

    await rig.with_executor(body)


async def _tells_exit_codes(rig: _Rig) -> None:
    """wait() tells the exit code, again and to every controller, also after the end."""

    async def body(executor: Executor) -> None:
        for code in (0, 3):
            assignment = rig.assignment(rig.programs.exits(code))
            control = executor.controller(assignment)
            require(await _run_to_end(control) == code, f"another code than {code}")
            again = await executor.controller(assignment).wait()
            require(again.code == code, f"then {again.code}")
            seen = await control.observe()
            require(
                seen.container is not None and seen.container.ExitCode == code,
                f"observed {seen.container}",
            )
            await control.remove()

    await rig.with_executor(body)


async def _tells_the_end_by_pid(rig: _Rig) -> None:
    """observe() tells a PID from the start to the end, and 0 exactly when the task has ended."""

    async def pid(executor: Executor, assignment: TaskAssignment) -> int | None:
        seen = await executor.controller(assignment).observe()
        return None if seen.container is None else seen.container.PID

    async def body(executor: Executor) -> None:
        ends = rig.assignment(rig.programs.exits(0))
        stopped = rig.assignment(rig.programs.sleeps())
        killed = rig.assignment(rig.programs.sleeps())
        for assignment, runs in ((ends, False), (stopped, True), (killed, True)):
            control = executor.controller(assignment)
            require(await pid(executor, assignment) is None, "a PID before there is anything")
            await control.prepare()
            require(await pid(executor, assignment) != 0, "PID 0 though it is only prepared")
            await control.start()
            if runs:
                seen = await pid(executor, assignment)
                require(bool(seen), f"PID {seen} though it runs")
                await (control.shutdown if assignment is stopped else control.kill)()
            await control.wait()
            seen = await pid(executor, assignment)
            require(seen == 0, f"PID {seen} though it has ended")
            await control.remove()

    await rig.with_executor(body)


async def _repeats_steps(rig: _Rig) -> None:
    """Every step may be taken again, also when the task is far beyond it."""

    async def body(executor: Executor) -> None:
        control = executor.controller(rig.assignment(rig.programs.sleeps()))
        for step in (control.prepare, control.prepare, control.start, control.start):
            await step()
        await control.prepare()
        before = await control.observe()
        await control.start()
        after = await control.observe()
        require(before.container == after.container, "start() of a running task started another")
        for step in (control.shutdown, control.shutdown, control.kill):
            await step()
        ended = await control.wait()
        for step in (control.prepare, control.start):
            await step()
        require(await control.wait() == ended, "start() brought an ended task back")
        for step in (control.remove, control.remove, control.shutdown, control.kill):
            await step()

    await rig.with_executor(body)


async def _stops_what_never_ran(rig: _Rig) -> None:
    """shutdown(), kill() and remove() return for a task that never started, prepared or not."""

    async def body(executor: Executor) -> None:
        for prepared in (False, True):
            control = executor.controller(rig.assignment(rig.programs.sleeps()))
            if prepared:
                await control.prepare()
            for step in (control.shutdown, control.kill, control.remove):
                await step()

    await rig.with_executor(body)


async def _stops(rig: _Rig) -> None:
    """shutdown() ends a task by its signal, or by force when the grace is over; kill() at once."""

    async def body(executor: Executor) -> None:
        willing = executor.controller(rig.assignment(rig.programs.sleeps()))
        stubborn = executor.controller(rig.assignment(rig.programs.stubborn()))
        other = executor.controller(rig.assignment(rig.programs.stubborn()))
        for control, end in (
            (willing, willing.shutdown),
            (stubborn, stubborn.shutdown),
            (other, other.kill),
        ):
            await control.prepare()
            await control.start()
            if control is not willing:
                await _first_line(control)
            await end()
            status = await control.wait()
            if control is not willing:
                require(status.code == 137, f"a killed task ended with {status.code}")
            await control.remove()

    await rig.with_executor(body)


async def _is_adopted(rig: _Rig) -> None:
    """Tasks outlive the daemon, and the next one adopts them and learns what it missed."""
    stays = rig.assignment(rig.programs.sleeps())
    ends = rig.assignment(rig.programs.exits(7))
    pids = []

    async def first(executor: Executor) -> None:
        for assignment in (stays, ends):
            control = executor.controller(assignment)
            await control.prepare()
            await control.start()
        seen = await executor.controller(stays).observe()
        pids.append(seen.container.PID if seen.container else None)

    async def second(executor: Executor) -> None:
        code = (await executor.controller(ends).wait()).code
        require(code == 7, f"the task that ended meanwhile has code {code}")
        known = await executor.known_tasks()
        require(known.get(stays.task.ID) is True, "the running task is not known to run")
        require(known.get(ends.task.ID) is False, "the ended task is not known as ended")
        control = executor.controller(stays)
        await control.prepare()
        await control.start()
        seen = await control.observe()
        pids.append(seen.container.PID if seen.container else None)
        require(pids[0] == pids[1], f"pid {pids[0]} became {pids[1]}")
        await control.shutdown()
        await control.wait()
        for assignment in (stays, ends):
            await executor.controller(assignment).remove()

    await rig.with_executor(first)
    await rig.with_executor(second)


async def _removes_leftovers(rig: _Rig) -> None:
    """remove_leftover() removes a task that runs, one that was prepared, and minds no unknown."""

    async def body(executor: Executor) -> None:
        runs = rig.assignment(rig.programs.sleeps())
        prepared = rig.assignment(rig.programs.sleeps())
        await executor.controller(runs).prepare()
        await executor.controller(runs).start()
        await executor.controller(prepared).prepare()
        for task_id in (runs.task.ID, prepared.task.ID, new_id()):
            await executor.remove_leftover(task_id)
            await executor.remove_leftover(task_id)
            require(task_id not in await executor.known_tasks(), "it is still known")

    await rig.with_executor(body)


async def _leaves_others_alone(rig: _Rig) -> None:
    """Tasks of another node on the same engine are neither seen nor touched."""
    stranger = NodeIdentity(
        cluster_id=rig.identity.cluster_id,
        node_id=new_id(),
        hostname=rig.identity.hostname,
        state_dir=rig.identity.state_dir,
    )
    assignment = rig.assignment(rig.programs.sleeps())

    async def trespass(executor: Executor) -> None:
        require(assignment.task.ID not in await executor.known_tasks(), "it is seen")
        await executor.remove_leftover(assignment.task.ID)

    async def body(executor: Executor) -> None:
        control = executor.controller(assignment)
        await control.prepare()
        await control.start()
        await rig.with_executor(trespass, stranger)
        known = await executor.known_tasks()
        require(known.get(assignment.task.ID) is True, "it was touched")
        await control.kill()
        await control.remove()

    await rig.with_executor(body)


async def _keeps_logs(rig: _Rig) -> None:
    """logs() gives what was printed, in order, by stream, by tail, and ends with the task."""

    async def body(executor: Executor) -> None:
        control = executor.controller(rig.assignment(rig.programs.prints(["a", "b", "c"], ["x"])))
        await control.prepare()
        await control.start()
        followed = await _read_all(control, LogOptions(follow=True))
        await control.wait()
        lines = await _read_all(control, LogOptions())
        for found in (followed, lines):
            texts = [line.text for line in found if line.stream == 1]
            require(texts == [b"a", b"b", b"c"], f"stdout {texts}")
            texts = [line.text for line in found if line.stream == 2]
            require(texts == [b"x"], f"stderr {texts}")
            times = {line.at for line in found}
            require(len(times) == len(found), f"several lines of one time: {found}")
        rest = await _read_all(control, LogOptions(since=min(line.at for line in lines) + 1))
        require(len(rest) == len(lines) - 1, f"after the first line: {rest}")
        only = await _read_all(control, LogOptions(stderr=False, tail=2))
        require([line.text for line in only] == [b"b", b"c"], f"stdout with tail 2: {only}")
        late = await _read_all(control, LogOptions(since=lines[-1].at + 3600 * SECOND))
        require(not late, f"since the future: {late}")
        require(not await _read_all(control, LogOptions(tail=0)), "tail 0 gives lines")
        await control.remove()

    await rig.with_executor(body)


async def _samples(rig: _Rig) -> None:
    """stats() samples tasks that run and leaves out those it does not know."""

    async def body(executor: Executor) -> None:
        assignment = rig.assignment(rig.programs.sleeps())
        control = executor.controller(assignment)
        await control.prepare()
        await control.start()
        samples = await executor.stats([assignment.task.ID, new_id()])
        require(set(samples) == {assignment.task.ID}, f"samples of {set(samples)}")
        await control.kill()
        await control.remove()

    await rig.with_executor(body)


async def _survives_cancellation(rig: _Rig) -> None:
    """Every step may be cancelled at any checkpoint and taken again."""

    async def body(executor: Executor) -> None:
        for name in ("prepare", "start", "shutdown", "remove"):
            await _sweep(executor, rig, name)

    await rig.with_executor(body)


async def _sweep(executor: Executor, rig: _Rig, name: str) -> None:
    """Take the step ``name`` on fresh tasks, cancelled at its 1st, 2nd, ... checkpoint."""
    order = ("prepare", "start", "shutdown", "remove")
    for point in range(1, MAX_CANCEL_POINTS + 1):
        assignment = rig.assignment(rig.programs.sleeps())
        control = executor.controller(assignment)
        for earlier in order[: order.index(name)]:
            await getattr(control, earlier)()
        completed = await cancelled_at(point, getattr(control, name))
        where = f"{name}() cancelled at checkpoint {point}"
        if name == "start":
            await control.start()
            known = await executor.known_tasks()
            require(known.get(assignment.task.ID) is True, f"after {where} it does not run")
        for step in order[order.index(name) :]:
            await getattr(executor.controller(assignment), step)()
        require(assignment.task.ID not in await executor.known_tasks(), f"{where} left traces")
        if completed:
            return
    raise ConformanceError(f"{name}() has more than {MAX_CANCEL_POINTS} checkpoints.")


async def _refuses_before_run(rig: _Rig) -> None:
    """An executor that was never run answers "unavailable", or answers; it never hangs."""
    executor = rig.make_executor()
    try:
        await executor.known_tasks()
    except EngineUnavailable:
        return


CHECKS: tuple[Callable[[_Rig], Awaitable[None]], ...] = (
    _describes,
    _tells_exit_codes,
    _tells_the_end_by_pid,
    _repeats_steps,
    _stops_what_never_ran,
    _stops,
    _is_adopted,
    _removes_leftovers,
    _leaves_others_alone,
    _keeps_logs,
    _samples,
    _survives_cancellation,
    _refuses_before_run,
)
