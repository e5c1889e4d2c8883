"""The executor's line to its keeper: connects, starts a keeper on demand, knows every task.

The keeper tells everything it knows on connecting and every change from then on, so ``tasks`` is
as current as the connection. When the keeper dies while tasks live, the next one is started at
once: it takes over the orphans, and whoever waits goes on waiting.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable

from .bundle import bundle, spawn_keeper
from .keeper.frames import PROTOCOL
from .keeper.records import task_ids
from .session import KeeperLost, Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Message = dict[str, Any]

RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0
HELD_RETRIES = 100  # another keeper holds the lock and does not listen yet, or no longer
HELD_PAUSE_S = 0.05


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper says of one task; times in nanoseconds, ``start`` in ticks since boot."""

    task_id: str
    phase: str
    cluster_id: str
    node_id: str
    pid: int
    start: int
    started_at: int
    group: dict[str, str]
    code: int
    error: str
    never_ran: bool
    ended_at: int

    @property
    def live(self) -> bool:
        """Does anything of it run?"""
        return self.phase in ("starting", "running", "ending")

    @property
    def ended(self) -> bool:
        """Is it over, with all its processes gone and its exit code known?"""
        return self.phase == "ended"


class KeeperLink:
    """The line to the keeper of one directory.

    Args:
        root: the executor's directory below the state directory.
        idle_s: how long a keeper stays without tasks and daemons; None for its own default.

    Attributes:
        tasks: what the keeper says, by task id; of the last connection while there is none.
        limits: the cgroup controllers by which the keeper can limit tasks.
    """

    def __init__(self, root: Path, *, idle_s: float | None = None) -> None:
        self.tasks: dict[str, TaskView] = {}
        self.limits: frozenset[str] = frozenset()
        self._root = root
        self._idle_s = idle_s
        self._session: Session | None = None
        self._runs = False
        self._failure = ""
        self._wanted = trio.Event()
        self._link_changed = trio.Event()
        self._task_changed: defaultdict[str, trio.Event] = defaultdict(trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the line up, from the first time it is needed, until cancelled."""
        self._runs = True
        task_status.started()
        pause_s = RETRY_FIRST_S
        try:
            if await trio.to_thread.run_sync(task_ids, str(self._root)):
                self._wanted.set()
            while True:
                await self._wanted.wait()
                try:
                    await self._serve(await self._connect())
                except EngineUnavailable as error:
                    self._failure = str(error)
                    self._wake_all()
                    await trio.sleep(pause_s)
                    pause_s = min(pause_s * 2, RETRY_MAX_S)
                    continue
                pause_s = RETRY_FIRST_S
                if not any(task.live for task in self.tasks.values()):
                    self._wanted = trio.Event()
                self._wake_all()
        finally:
            self._runs = False
            self._wake_all()

    async def ready(self) -> Session:
        """Return the present connection, made or remade first.

        Raises:
            EngineUnavailable: there is none, and the last attempt says why.
        """
        while self._session is None:
            self._wanted.set()
            if not self._runs:
                raise EngineUnavailable("the process executor does not run")
            if self._failure:
                raise EngineUnavailable(self._failure)
            await self._link_changed.wait()
        return self._session

    async def call(self, op: str, fields: Message) -> Message:
        """Ask the keeper; see :meth:`Session.request`."""
        return await (await self.ready()).request(op, fields)

    async def wait_task(
        self, task_id: str, done: Callable[[TaskView | None], bool]
    ) -> TaskView | None:
        """Return what is known of a task as soon as ``done`` says so; None for an unknown task.

        Raises:
            EngineUnavailable: there is no keeper to ask.
        """
        while True:
            changed = self._task_changed[task_id]
            await self.ready()
            task = self.tasks.get(task_id)
            if done(task):
                return task
            await changed.wait()

    # --- the connection --------------------------------------------------------------------------

    async def _connect(self) -> trio.SocketStream:
        """Connect to the keeper, starting one when none listens."""
        for _ in range(HELD_RETRIES):
            stream = await self._try_connect()
            if stream is not None:
                return stream
            await spawn_keeper(self._root, idle_s=self._idle_s)
            stream = await self._try_connect()
            if stream is not None:
                return stream
            await trio.sleep(HELD_PAUSE_S)
        raise EngineUnavailable(f"a keeper holds {self._root}/keeper.lock and does not listen")

    async def _try_connect(self) -> trio.SocketStream | None:
        try:
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineUnavailable(f"{self._root}: {error.strerror}") from error
        try:
            # Through a descriptor, since the path of a unix socket has room for 107 bytes only.
            return await trio.open_unix_socket(f"/proc/self/fd/{folder}/keeper.sock")
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise EngineUnavailable(f"{self._root}/keeper.sock: {error.strerror}") from error
        finally:
            os.close(folder)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Greet the keeper and serve requests until the connection ends.

        Raises:
            EngineUnavailable: it speaks another protocol and cannot be replaced now.
        """
        session = Session(stream, self._on_event)
        refused: EngineUnavailable | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run)
                try:
                    await self._greet(session)
                except KeeperLost:
                    pass  # run() tries again
                except EngineUnavailable as error:
                    refused = error
                    nursery.cancel_scope.cancel()
        finally:
            self._session = None
        if refused is not None:
            raise refused

    async def _greet(self, session: Session) -> None:
        hello = await session.request("hello")
        if hello["build"] != bundle().build and not hello["live"]:
            await session.request("quit")  # of another version, and idle: ours takes its place
            return
        if hello["protocol"] != PROTOCOL:
            raise EngineUnavailable(
                f"the keeper of {self._root} speaks protocol {hello['protocol']}, this daemon "
                f"{PROTOCOL}; it still runs {hello['live']} tasks and is replaced after the last"
            )
        self.limits = frozenset(hello["limits"])
        await session.request("watch", on_answer=self._take_all)
        self._session = session
        self._failure = ""
        self._wake_all()

    def _take_all(self, answer: Message) -> None:
        views = [msgspec.convert(task, TaskView) for task in answer["tasks"]]
        self.tasks = {view.task_id: view for view in views}

    def _on_event(self, message: Message) -> None:
        if message["event"] == "task":
            view = msgspec.convert(message["task"], TaskView)
            self.tasks[view.task_id] = view
            self._wake(view.task_id)
        elif message["event"] == "removed":
            self.tasks.pop(message["task_id"], None)
            self._wake(message["task_id"])

    def _wake(self, task_id: str) -> None:
        event = self._task_changed.pop(task_id, None)
        if event is not None:
            event.set()

    def _wake_all(self) -> None:
        self._link_changed.set()
        self._link_changed = trio.Event()
        for task_id in list(self._task_changed):
            self._wake(task_id)
