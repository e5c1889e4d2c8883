"""The outputs of several tasks as one stream, as they come.

    reader of a task   place -> outputs.read -> lines -+
    reader of a task   ...                             +-> batch -> one chunk of the answer
    the look           new tasks, lost nodes ----------+

Laws:
- A client that reads slowly makes its own tasks' readers wait, and by them the nodes' reading;
  nobody else's. What is held for it is a batch, and for each task the windows of its streams.
- A reader whose link breaks goes on from its place: over a node that comes back, a leader that
  changes, a daemon that is restarted, no line is lost and none comes twice.
- What cannot be read costs its own lines only, and is named: to a follower at once, as a line on
  stderr with an origin as any other (a frame of the system's own would end a stock client); else
  in one frame of the system's own at the end, as Docker does.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio
from msgspec.structs import replace

from ..agent.executor import LogLine, LogOptions
from ..agent.place import Place
from ..batching import Batch
from ..errors import NoLeader, NotFound, SwarmError, Unavailable
from ..model.task import TaskState
from ..together import run_until_first
from .frames import STDERR, Form, system_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..clock import Clock
    from ..manager.manager import Manager
    from ..model.objects import TaskRow
    from ..wire.http_server import SendChunk

BATCH_BYTES = 256 * 1024
LINE_COST_BYTES = 64
READERS_MAX = 32
"""How many tasks are read at a time by who does not follow; who follows reads all of them."""
PATIENCE_S = 3.0
"""How long a node that should be there, or a leader, is waited for by who does not follow."""
NAMED_AFTER_S = 8.0
"""How long reading a task fails before a follower is told; a node that is down is named at once."""
QUIET_S = 20.0
"""An attempt that lasted longer was none that failed: there was nothing to read until it broke."""
AGAIN_FIRST_S = 0.05
AGAIN_MAX_S = 1.0

INCOMPLETE = (
    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "
)


class Source(NamedTuple):
    """Whose output is read: the tasks there are now, and whether no more can come."""

    tasks: Callable[[], Sequence[TaskRow]]
    is_over: Callable[[], bool]


class _Reader:
    """One task's reader, while it runs.

    Attributes:
        row: of the task, as it was when reading began.
    """

    def __init__(self, row: TaskRow, options: LogOptions) -> None:
        self.row = row
        self.place = Place(options)
        self.scope = trio.CancelScope()
        self._pause_s = AGAIN_FIRST_S
        self._failing_since: float | None = None

    @property
    def task_id(self) -> str:
        return self.row.api.ID

    @property
    def node_id(self) -> str:
        return self.row.api.NodeID

    def read_something(self) -> None:
        """Note that there were lines."""
        self._pause_s, self._failing_since = AGAIN_FIRST_S, None

    def failed(self, began: float) -> float:
        """Note the end of an attempt that began then; return for how long all have failed."""
        now = trio.current_time()
        if self._failing_since is None or now - began > QUIET_S:
            self._failing_since = now
        return now - self._failing_since

    async def pause(self) -> None:
        """Sleep before asking again, longer each time in a row."""
        await trio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, AGAIN_MAX_S)


class Merge:
    """Reads the outputs of a source's tasks side by side and sends them on.

    Args:
        form: makes bytes of a line and its origin.
    """

    def __init__(
        self, manager: Manager, clock: Clock, options: LogOptions, source: Source, form: Form
    ) -> None:
        self._manager = manager
        self._clock = clock
        self._options = options
        self._source = source
        self._form = form
        self._batch: Batch[bytes] = Batch(BATCH_BYTES)
        self._readers: dict[str, _Reader] = {}
        self._seen: set[str] = set()
        self._named: set[str] = set()
        self._problems: dict[str, None] = {}
        self._looked = trio.Event()
        self._reader_ended = trio.Event()
        self._turns = trio.CapacityLimiter(READERS_MAX)

    async def run(self, send: SendChunk) -> None:
        """Send lines until all is read; who follows gets more until the source is over."""
        with self._manager.while_managing():
            await run_until_first(self._read_all, partial(self._deliver, send))

    async def _deliver(self, send: SendChunk) -> None:
        while pieces := await self._batch.take():
            await send(b"".join(pieces))
        if self._problems:
            text = INCOMPLETE + ", ".join(self._problems)
            await send(system_frame(text) if self._form.framed else f"{text}\r\n".encode())

    async def _read_all(self) -> None:
        with self._manager.watch.mailbox() as mailbox:
            async with trio.open_nursery() as nursery:
                self._begin(nursery, self._options)
                # What comes later was not there to be cut to its last lines.
                later = replace(self._options, tail=-1)
                while self._options.follow:
                    mailbox.take()
                    self._reader_ended = trio.Event()
                    self._begin(nursery, later)
                    if self._source.is_over():
                        self._give_up_lost()
                        if not self._readers:
                            break
                    await self._name_lost()
                    self._looked.set()
                    self._looked = trio.Event()
                    await run_until_first(mailbox.wait, self._reader_ended.wait)
        self._batch.end()
        await trio.sleep_forever()  # the one who delivers ends it

    def _begin(self, nursery: trio.Nursery, options: LogOptions) -> None:
        """Start a reader for each task that has none yet. Adds them to ``nursery``."""
        for row in self._source.tasks():
            if row.api.ID not in self._seen and _has_output(row):
                self._seen.add(row.api.ID)
                is_new = row.api.Status.State < TaskState.RUNNING
                reader = _Reader(row, replace(options, tail=-1) if is_new else options)
                self._readers[row.api.ID] = reader
                nursery.start_soon(self._live, reader, name=f"output of {row.api.ID}")

    # --- one task ---

    async def _live(self, reader: _Reader) -> None:
        try:
            with reader.scope:
                if self._options.follow:
                    await self._follow(reader)
                else:
                    async with self._turns:
                        await self._read_once(reader)
        finally:
            del self._readers[reader.task_id]
            self._reader_ended.set()

    async def _read_once(self, reader: _Reader) -> None:
        """Read what there is now; what is out of reach for long is a problem."""
        if self._is_lost(reader.node_id):
            self._problems[f"{self._node_name(reader.node_id)} is not available"] = None
            return
        while True:
            began = trio.current_time()
            try:
                await self._read(reader)
                return
            except (Unavailable, NoLeader) as error:
                if reader.failed(began) > PATIENCE_S:
                    name = self._node_name(reader.node_id)
                    self._problems[f"{name} is not available: {error}"] = None
                    return
            except SwarmError as error:
                self._problems[f"task {reader.task_id}: {error}"] = None
                return
            await reader.pause()

    async def _follow(self, reader: _Reader) -> None:
        """Read on until the task has ended and all it wrote was read."""
        while await self._wait_reachable(reader):
            row = self._manager.view.task(reader.task_id)
            was_stopped = row is None or is_stopped(row)
            began = trio.current_time()
            try:
                await self._read(reader)
                if was_stopped:
                    return  # else it has ended just now, or not begun: the tables will say
            except NotFound:
                if was_stopped:
                    return
            except (Unavailable, NoLeader) as error:
                if reader.failed(began) > NAMED_AFTER_S:
                    await self._name(reader.task_id, reader.row, f"no output of this task: {error}")
            except SwarmError as error:
                await self._name(reader.task_id, reader.row, f"no output of this task: {error}")
                return
            await reader.pause()

    async def _wait_reachable(self, reader: _Reader) -> bool:
        """Sleep while a task's node is known to be down; False when it is gone for good."""
        while self._is_lost(reader.node_id):
            if self._manager.view.node(reader.node_id) is None:
                return False
            await self._looked.wait()
        return True

    async def _read(self, reader: _Reader) -> None:
        """Read on from the reader's place to the end, which a follower meets when the task ends."""
        outputs = self._manager.outputs.read(reader.node_id, reader.task_id, reader.place.options())
        async with aclosing(outputs) as chunks:
            async for chunk in chunks:
                reader.place.began(chunk.began)
                lines = list(reader.place.fresh(chunk.lines))
                if lines:
                    reader.read_something()
                    self._named.discard(reader.task_id)
                for line in lines:
                    await self._put(reader.row, line)

    async def _put(self, row: TaskRow, line: LogLine) -> None:
        text = line.text if line.partial else line.text + b"\n"
        piece = self._form.piece(row, at=line.at, stream=line.stream, text=text)
        await self._batch.put(piece, len(piece) + LINE_COST_BYTES)

    # --- nodes that are lost ---

    def _is_lost(self, node_id: str) -> bool:
        """Whether a node is known to be out of reach; silence is noticed by the tables in time."""
        row = self._manager.view.node(node_id)
        return row is None or row.api.Status.State == "down"

    def _give_up_lost(self) -> None:
        """End the readers that wait for nodes which nothing more is wanted of."""
        for reader in self._readers.values():
            if self._is_lost(reader.node_id):
                reader.scope.cancel()

    async def _name_lost(self) -> None:
        """Name each lost node once; one that came back may be named again."""
        for reader in list(self._readers.values()):
            if not self._is_lost(reader.node_id):
                self._named.discard(reader.node_id)
                continue
            until = "until it is back" if self._manager.view.node(reader.node_id) else "for good"
            text = f"{self._node_name(reader.node_id)} cannot be reached"
            text += f": the output of its tasks is missing {until}"
            await self._name(reader.node_id, reader.row, text)

    async def _name(self, key: str, row: TaskRow, text: str) -> None:
        """Tell a follower once what is missing, on stderr and as if the task had said it."""
        if key not in self._named:
            self._named.add(key)
            line = LogLine(at=self._clock.now(), stream=STDERR, text=f"[swarmctl: {text}]".encode())
            await self._put(row, line)

    def _node_name(self, node_id: str) -> str:
        row = self._manager.view.node(node_id)
        hostname = row.api.Description.Hostname if row is not None else ""
        return f"node {hostname} ({node_id})" if hostname else f"node {node_id}"


def is_stopped(row: TaskRow) -> bool:
    """Whether a task writes nothing more."""
    return row.api.Status.State > TaskState.RUNNING


def _has_output(row: TaskRow) -> bool:
    """Whether a task may have written anything: it was started, on whichever node."""
    status = row.api.Status
    started = status.State >= TaskState.STARTING and status.State is not TaskState.REJECTED
    return bool(row.api.NodeID) and (started or status.ContainerStatus is not None)
