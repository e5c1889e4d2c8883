"""What the agent asks of an executor: the Protocols that executor plugins implement.

An executor runs tasks on one node by one means: a Docker engine, a Podman engine, plain processes.
There is one executor per node process, made by the ``swarmctl_executor`` hook (a synchronous
factory) and then used only from trio. Laws every executor keeps, checked by
``swarmctl.plugins.testing.check_executor``:

- Every coroutine may be cancelled at any checkpoint and called again later; ``prepare``, ``start``,
  ``shutdown`` and ``remove`` are idempotent, so a task survives a restart of this daemon.
- It touches only what carries this cluster's and this node's identity.
- Containers outlive the daemon: ending ``run`` stops nothing. A controller made for a task that
  already runs adopts it.
- An engine that is down or hangs fails no task: calls raise :class:`EngineUnavailable` and the
  agent tries again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import msgspec
import trio

from ..errors import SwarmError
from ..model.objects import NodeDescription
from ..model.task import ContainerStatus, PortStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from ..model.task import HostNetwork, TaskAssignment
    from .network import Sandbox


class ExecutorError(SwarmError):
    """A step of a task failed for good; ``str(error)`` becomes the task's ``Status.Err``.

    Raised before start it makes the task *rejected*, from start on *failed*.
    """

    def __init__(self, text: str, *, exit_code: int | None = None) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class EngineUnavailable(SwarmError):
    """The engine did not answer. The task's state is unknown, so nothing is decided about it."""

    status: ClassVar[int] = 503


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended.

    Attributes:
        code: exit code; 128 + signal number for a killed process.
        error: a sentence beyond the code ("unhealthy container", an OOM kill), else "".
        finished_at: wall time in nanoseconds as far as known, else 0.
    """

    code: int
    error: str = ""
    finished_at: int = 0


class TaskObservation(msgspec.Struct, frozen=True, kw_only=True):
    """What the executor sees of one task now; what it cannot see is None or empty.

    ``container.PID`` is 0 exactly when the task has ended: one that ends before it was healthy
    never counts as RUNNING.
    """

    container: ContainerStatus | None = None
    ports: PortStatus | None = None
    healthy: bool | None = None


class ExecutorDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What this node offers, for scheduling and for ``node inspect``.

    ``node`` is complete but for ``TLSInfo``, which the agent adds. ``warnings`` are sentences for
    the user about what this host cannot give.
    """

    node: NodeDescription
    warnings: tuple[str, ...] = ()


class TaskStats(msgspec.Struct, frozen=True, kw_only=True):
    """One sample of one task. Counters grow from the task's start.

    A task that runs has used some CPU and memory and has a process, so 0 of these is what cannot be
    told. ``psi_*_ns`` is for how long something in it has waited for CPU, memory or the disk; None
    where the kernel does not tell (cgroup v1).
    """

    at: int
    cpu_ns: int = 0
    memory_bytes: int = 0
    pids: int = 0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0
    psi_cpu_ns: int | None = None
    psi_mem_ns: int | None = None
    psi_io_ns: int | None = None


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines to give. ``since``, ``until`` in nanoseconds, 0 for open; ``tail`` -1 for all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int = -1


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of output, without its line end. ``stream`` is 1 for stdout, 2 for stderr.

    ``partial``: it had no line end, because the output ended, or the line is so long that it comes
    in pieces, of which only the last is whole.
    """

    at: int
    stream: int
    text: bytes
    partial: bool = False


class TaskController(Protocol):
    """An executor's handle on one task. Used by one runner at a time.

    Every method raises :class:`ExecutorError` when the step failed for good and
    :class:`EngineUnavailable` when the engine cannot be asked now.
    """

    async def prepare(self) -> None:
        """Make everything ready to start: pull, volumes, working directory, container.

        Returns at once when that was done before, also when the task already runs or has ended.
        """
        ...

    async def start(self) -> None:
        """Start the task and return once it runs (and, with a health check, is healthy).

        Returns at once when it runs already. A task that ended before this call returned
        normally; :meth:`wait` tells how.
        """
        ...

    async def wait(self) -> ExitStatus:
        """Sleep until the task has ended; return at once when it has ended already."""
        ...

    async def shutdown(self) -> None:
        """Stop the task: its stop signal, its grace period, then kill. Return when it has ended.

        Returns at once when it never started or has ended.
        """
        ...

    async def kill(self) -> None:
        """Stop the task at once, without grace."""
        ...

    async def remove(self) -> None:
        """Remove every trace of the task, stopping it first when it still runs."""
        ...

    async def observe(self) -> TaskObservation:
        """Tell what is seen of the task now."""
        ...

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Give the task's output, oldest first; with ``follow`` until the task ends.

        No two lines should have the same time: who breaks off goes on after the last one he has.
        Close the iterator (``aclosing``) when done with it early.
        """
        ...


class Executor(Protocol):
    """Runs tasks on this node.

    One whose tasks have their host's network, and no place of their own on the swarm's, says so by
    an attribute ``host_network`` that is True.
    """

    name: str

    async def run(
        self,
        identity: NodeIdentity,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Do background work (events, health checks) until cancelled; ``started()`` when usable.

        An engine that cannot be reached at first is no error: ``started()`` is called all the same
        and :meth:`describe` says so.
        """
        ...

    async def describe(self) -> ExecutorDescription:
        """Describe this node as this executor sees it.

        Raises:
            EngineUnavailable: the engine does not answer; the node then takes no new tasks.
        """
        ...

    def controller(self, assignment: TaskAssignment) -> TaskController:
        """Return a handle on a task; makes nothing happen yet."""
        ...

    async def known_tasks(self) -> Mapping[str, bool]:
        """Return the ids of all tasks of ours found on this node, and whether each still runs."""
        ...

    async def remove_leftover(self, task_id: str) -> None:
        """Stop and remove a task of ours that no longer has an assignment."""
        ...

    async def stats(self, task_ids: Sequence[str]) -> Mapping[str, TaskStats]:
        """Sample the given tasks; those that cannot be sampled are left out."""
        ...


class NodeIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is: what an executor marks all it makes with, and checks before touching."""

    cluster_id: str
    node_id: str
    hostname: str
    state_dir: str


@runtime_checkable
class EngineHost(Protocol):
    """What an executor may have besides: an engine that speaks Docker's API.

    Attributes:
        engine_socket: path of its unix socket on this host. What a client asks of this node's API
            and is not the swarm's (``docker exec``, say) is asked there.
    """

    engine_socket: str


@runtime_checkable
class NetworkHost(Protocol):
    """What an executor may have besides: an engine that users start containers on, too."""

    async def keep_networks(self, networks: Sequence[HostNetwork]) -> None:
        """Have these networks on this host whether or not tasks are on them, until told otherwise.

        Raises:
            ExecutorError: some cannot be made beside what this host has; the others are there.
            EngineUnavailable: the engine does not answer, or one cannot be made yet.
        """
        ...

    async def watch_visitors(self, tell: Callable[[Sequence[Sandbox]], None]) -> None:
        """Tell which containers that are no tasks are on the networks that are kept.

        At first, and whenever that may have changed, until cancelled.
        """
        ...
