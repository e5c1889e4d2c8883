"""An executor that pretends: tasks exist, run, print and end, and nothing happens anywhere.

For demonstrations, simulations and tests of scale. All time is trio's, so a test that jumps the
clock jumps through a task's whole life. What a task does is said by its environment or its labels;
``null_behaviour.py`` has the table.

Its settings' options: ``cpus`` (4) and ``memory`` in bytes (8 GiB). Tasks live in a
:class:`NullWorld`, which outlasts executors as an engine outlasts daemons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl import __version__
from swarmctl.core.clock import TrioClock
from swarmctl.core.errors import InvalidArgument
from swarmctl.plugins import (
    EngineUnavailable,
    ExecutorDescription,
    ExecutorError,
    ExitStatus,
    LogLine,
    PluginInfo,
    TaskObservation,
    TaskStats,
    hookimpl,
)
from swarmctl.plugins.model import (
    NANOSECONDS_PER_SECOND,
    ContainerSpec,
    ContainerStatus,
    EngineDescription,
    NodeDescription,
    Platform,
    PortStatus,
    Resources,
)

from .null_behaviour import DRIVER_OPTIONS, EXECUTOR_OPTIONS, Behaviour, read_behaviour

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from swarmctl.core.clock import Clock
    from swarmctl.plugins import Executor, ExecutorSettings, LogOptions, NodeIdentity
    from swarmctl.plugins.model import TaskAssignment

DEFAULT_STOP_GRACE_S = 10.0
STOPPED, KILLED = 143, 137  # 128 + SIGTERM, 128 + SIGKILL
UNHEALTHY = "unhealthy container"
CLOCK_SLACK_S = 1e-6  # a clock that jumps to a deadline may land a rounding error before it


class NullTask:
    """A task that pretends. Its end is a time, not an event: it has ended once that is past."""

    def __init__(self, owner: tuple[str, str]) -> None:
        self.owner = owner
        self.prepared = False
        self.behaviour = Behaviour()
        self.pid = 0
        self.started: float | None = None
        self.ends = float("inf")
        self.exit = ExitStatus(code=0)
        self.lines: list[LogLine] = []
        self.next_output = float("inf")
        self.times_printed = 0
        self.changed = trio.Event()

    @property
    def ended(self) -> bool:
        """Is its end past?"""
        return self.started is not None and _is_past(self.ends)

    @property
    def runs(self) -> bool:
        """Was it started, and has not ended?"""
        return self.started is not None and not self.ended

    @property
    def healthy(self) -> bool | None:
        """The verdict now, None without a health check or before the first verdict."""
        after = self.behaviour.healthy_after
        if after is None or self.started is None or not _is_past(self.started + after):
            return None
        return not self.ended

    def end_at(self, when: float, exit_status: ExitStatus) -> None:
        """Let it end at ``when``, unless it ends earlier anyway."""
        if not self.ended and when < self.ends:
            self.ends, self.exit = when, exit_status
            self.changed.set()
            self.changed = trio.Event()


class NullWorld:
    """The engine that is not there.

    Args:
        clock: wall time for what is reported.

    Attributes:
        tasks: by id.
        available: set it to False and the engine "is down": every call raises EngineUnavailable.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.tasks: dict[str, NullTask] = {}
        self.available = True
        self.clock = clock or TrioClock()
        self._last_pid = 1000

    def check_available(self) -> None:
        """Raise EngineUnavailable while the engine is down."""
        if not self.available:
            raise EngineUnavailable("the null engine is switched off")

    def next_pid(self) -> int:
        """Return a number that no other task has."""
        self._last_pid += 1
        return self._last_pid

    def wall_time(self, moment: float) -> int:
        """Return trio's ``moment`` as wall time in nanoseconds."""
        return self.clock.now() + int((moment - trio.current_time()) * NANOSECONDS_PER_SECOND)


class NullExecutor:
    """See :class:`swarmctl.plugins.Executor`.

    Args:
        world: where its tasks live; one of its own by default.
        cpus, memory_bytes, hostname: what it claims to be.
    """

    name = "null"

    def __init__(
        self,
        world: NullWorld | None = None,
        *,
        cpus: float = 4.0,
        memory_bytes: int = 8 * 1024**3,
        hostname: str = "",
    ) -> None:
        self.world = world or NullWorld()
        self._cpus = cpus
        self._memory_bytes = memory_bytes
        self._hostname = hostname
        self._owner = ("", "")

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do nothing, which is all there is to do."""
        self._owner = (identity.cluster_id, identity.node_id)
        self._hostname = self._hostname or identity.hostname
        task_status.started()
        await trio.sleep_forever()

    async def describe(self) -> ExecutorDescription:
        """Describe the host it claims to be."""
        await trio.lowlevel.checkpoint()
        self.world.check_available()
        node = NodeDescription(
            Hostname=self._hostname or "null",
            Platform=Platform(Architecture="x86_64", OS="linux"),
            Resources=Resources(
                NanoCPUs=int(self._cpus * NANOSECONDS_PER_SECOND), MemoryBytes=self._memory_bytes
            ),
            Engine=EngineDescription(
                EngineVersion=__version__, Labels={"swarmctl.executor": self.name}
            ),
        )
        return ExecutorDescription(node=node)

    def controller(self, assignment: TaskAssignment) -> NullController:
        """Return a handle on a task."""
        return NullController(self, assignment)

    async def known_tasks(self) -> Mapping[str, bool]:
        """Return our tasks and whether they run."""
        await trio.lowlevel.checkpoint()
        self.world.check_available()
        return {id_: task.runs for id_, task in self.world.tasks.items() if self._is_ours(task)}

    async def remove_leftover(self, task_id: str) -> None:
        """Forget a task of ours."""
        await trio.lowlevel.checkpoint()
        self.world.check_available()
        task = self.find(task_id)
        if task is not None:
            del self.world.tasks[task_id]
            task.end_at(trio.current_time(), ExitStatus(code=KILLED))

    async def stats(self, task_ids: Sequence[str]) -> Mapping[str, TaskStats]:
        """Report what the tasks were told to use."""
        await trio.lowlevel.checkpoint()
        self.world.check_available()
        found = {}
        for task_id in task_ids:
            task = self.find(task_id)
            if task is not None and task.runs and task.started is not None:
                busy_s = (trio.current_time() - task.started) * task.behaviour.cpu
                found[task_id] = TaskStats(
                    at=self.world.clock.now(),
                    cpu_ns=int(busy_s * NANOSECONDS_PER_SECOND),
                    memory_bytes=task.behaviour.memory,
                    pids=1,
                )
        return found

    def find(self, task_id: str) -> NullTask | None:
        """Return a task of ours, None when there is none."""
        task = self.world.tasks.get(task_id)
        return task if task is not None and self._is_ours(task) else None

    def make(self, task_id: str) -> NullTask:
        """Return a task of ours, made when there is none."""
        return self.find(task_id) or self.world.tasks.setdefault(task_id, NullTask(self._owner))

    def _is_ours(self, task: NullTask) -> bool:
        return task.owner == self._owner


class NullController:
    """See :class:`swarmctl.plugins.TaskController`."""

    def __init__(self, executor: NullExecutor, assignment: TaskAssignment) -> None:
        self._executor = executor
        self._world = executor.world
        self._assignment = assignment
        self._id = assignment.task.ID
        self._spec = assignment.task.Spec.ContainerSpec or ContainerSpec()

    async def prepare(self) -> None:
        """Take as long as told, or fail as told."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is not None and task.prepared:
            return
        behaviour = read_behaviour(self._spec)
        await trio.sleep(behaviour.prepare_after)
        if behaviour.prepare_error:
            raise ExecutorError(behaviour.prepare_error)
        task = self._executor.make(self._id)
        task.behaviour, task.prepared = behaviour, True

    async def start(self) -> None:
        """Begin to run; with a health check, return at the verdict."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is None or not task.prepared:
            await self.prepare()
            task = self._executor.make(self._id)
        if task.started is None:
            await trio.sleep(task.behaviour.start_after)
            if task.behaviour.start_error:
                raise ExecutorError(task.behaviour.start_error)
            self._run(task)
        if task.started is not None and task.behaviour.healthy_after is not None:
            while task.healthy is None and not task.ended:
                with trio.move_on_at(min(task.started + task.behaviour.healthy_after, task.ends)):
                    await task.changed.wait()

    async def wait(self) -> ExitStatus:
        """Sleep until the end."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is None:
            raise ExecutorError("the task was removed from this node")
        await _wait_ended(task)
        return msgspec.structs.replace(task.exit, finished_at=self._world.wall_time(task.ends))

    async def shutdown(self) -> None:
        """Stop as fast as the task obeys, or kill it when its grace is over."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is None or task.started is None or task.ended:
            return
        period = self._spec.StopGracePeriod
        grace_s = DEFAULT_STOP_GRACE_S if period is None else period / NANOSECONDS_PER_SECOND
        now, obeys_s = trio.current_time(), task.behaviour.stop_after
        code = STOPPED if obeys_s <= grace_s else KILLED
        task.end_at(now + min(obeys_s, grace_s), ExitStatus(code=code))
        await _wait_ended(task)

    async def kill(self) -> None:
        """End it now."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is not None and task.runs:
            task.end_at(trio.current_time(), ExitStatus(code=KILLED))

    async def remove(self) -> None:
        """Forget it."""
        await self._executor.remove_leftover(self._id)

    async def observe(self) -> TaskObservation:
        """Tell what would be seen."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is None or task.started is None:
            return TaskObservation()
        pid, code = (0, task.exit.code) if task.ended else (task.pid, 0)
        ports = tuple(port for port in self._assignment.ports if port.PublishMode == "host")
        return TaskObservation(
            container=ContainerStatus(ContainerID=self._id, PID=pid, ExitCode=code),
            ports=PortStatus(Ports=ports),
            healthy=task.healthy,
        )

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Give the lines it was told to print."""
        await self._enter()
        task = self._executor.find(self._id)
        if task is None:
            return
        while options.follow and task.started is None:
            if self._executor.find(self._id) is not task:
                return  # removed before it ever ran
            await task.changed.wait()
        given = 0
        while True:
            self._print_due(task)
            fresh, given = task.lines[given:], len(task.lines)
            for line in _selected(fresh, options):
                yield line
            if not options.follow or (task.ended and given == len(task.lines)):
                return
            options = msgspec.structs.replace(options, tail=-1)
            with trio.move_on_at(min(task.ends, task.next_output)):
                await task.changed.wait()

    async def _enter(self) -> None:
        await trio.lowlevel.checkpoint()
        self._world.check_available()

    def _run(self, task: NullTask) -> None:
        behaviour, now = task.behaviour, trio.current_time()
        task.started, task.pid = now, self._world.next_pid()
        task.next_output = now
        self._print_due(task)
        if behaviour.exit_after is not None:
            status = ExitStatus(code=behaviour.exit_code, error=behaviour.exit_error)
            task.end_at(now + behaviour.exit_after, status)
        if behaviour.unhealthy_after is not None:
            status = ExitStatus(code=KILLED, error=UNHEALTHY)
            task.end_at(now + behaviour.unhealthy_after, status)
        task.changed.set()
        task.changed = trio.Event()

    def _print_due(self, task: NullTask) -> None:
        """Print what should have been printed by now; each time but the first with its number."""
        behaviour = task.behaviour
        while task.next_output < task.ends and _is_past(task.next_output):
            at = self._world.wall_time(task.next_output)
            number = f" {task.times_printed}" if task.times_printed else ""
            for stream, text in ((1, behaviour.output), (2, behaviour.error_output)):
                for line in text.split("\n") if text else ():
                    at += 1  # no two lines have the same time
                    said = f"{line}{number}".encode()
                    task.lines.append(LogLine(at=at, stream=stream, text=said))
            task.times_printed += 1
            task.next_output += behaviour.output_every or float("inf")


def _is_past(moment: float) -> bool:
    return trio.current_time() >= moment - CLOCK_SLACK_S


async def _wait_ended(task: NullTask) -> None:
    await trio.lowlevel.checkpoint()
    while not task.ended:
        with trio.move_on_at(task.ends):
            await task.changed.wait()


def _selected(lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
    wanted = {1: options.stdout, 2: options.stderr}
    found = [
        line
        for line in lines
        if wanted[line.stream]
        and line.at >= options.since
        and (not options.until or line.at <= options.until)
    ]
    return found if options.tail < 0 else found[len(found) - min(options.tail, len(found)) :]


# --- the hook ------------------------------------------------------------------------------------

_worlds: dict[str, NullWorld] = {}
"""By state directory: an executor that is made again in this process finds its tasks."""


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    """Name this plugin."""
    return PluginInfo(name="null", version=__version__)


@hookimpl
def swarmctl_executor(name: str, settings: ExecutorSettings) -> Executor | None:
    """Make the executor that pretends."""
    if name != "null":
        return None
    unknown = set(settings.options) - EXECUTOR_OPTIONS - DRIVER_OPTIONS
    if unknown:
        raise InvalidArgument(f"the null executor has no option {', '.join(sorted(unknown))}")
    try:
        cpus = float(settings.options.get("cpus", "4"))
        memory_bytes = int(settings.options.get("memory", str(8 * 1024**3)))
    except ValueError as error:
        raise InvalidArgument(
            f"the null executor's options cpus and memory are numbers: {error}"
        ) from error
    world = _worlds.setdefault(settings.state_dir, NullWorld())
    return NullExecutor(world, cpus=cpus, memory_bytes=memory_bytes)
