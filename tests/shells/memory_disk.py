"""The Raft database's stand-in in memory: as durable as the object is kept, as fast as one turn.

Keeps the laws of ``raft/disk.py`` that a runner relies on: one writer, answers in order and never
from within ``append``, nothing answered after a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.core.errors import StorageFailed
from swarmctl.core.raft.message import HardState
from swarmctl.core.raft.rollback import Shown
from swarmctl.core.raft.storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from swarmctl.core.raft.message import Message, Snapshot


class MemoryDisk:
    """A Disk without a file.

    Attributes:
        delay_s: how long a write takes.
        broken: the next write fails.
        complaint: why no change should be accepted; as a real disk says it.
        chunks: of the newest snapshot.
        saved: every snapshot kept, by index.
        staged: chunks of the snapshot that is being received.
    """

    def __init__(self, snapshot: Snapshot, chunks: Iterable[bytes] = ()) -> None:
        self.log = MemoryStorage(snapshot, HardState(term=snapshot.term, commit=snapshot.index))
        self.chunks = list(chunks)
        self.saved: list[int] = []
        self.staged: list[bytes] = []
        self.delay_s = 0.0
        self.broken = False
        self.complaint = ""
        self._jobs, self._next = trio.open_memory_channel[
            "tuple[Message, Callable[[Message], None]] | Callable[[], None]"
        ](10_000)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        async for job in self._next:
            if self.delay_s:
                await trio.sleep(self.delay_s)
            if self.broken:
                raise StorageFailed("the disk refused")
            if isinstance(job, tuple):
                self._append(*job)
            else:
                job()

    def shown(self) -> Shown:
        hard_state, _ = self.log.initial_state()
        return Shown(1, 1, term=hard_state.term, last_index=self.log.last_index())

    def append(self, message: Message, done: Callable[[Message], None]) -> None:
        self._jobs.send_nowait((message, done))

    def save_snapshot(
        self, snapshot: Snapshot, chunks: Iterable[bytes], keep: int, done: Callable[[], None]
    ) -> None:
        def save() -> None:
            self.chunks = list(chunks)
            self.saved.append(snapshot.index)
            self.log.replace_snapshot(snapshot)
            cut = snapshot.index - keep
            if cut >= self.log.first_index():
                self.log.compact(cut)
            done()

        self._jobs.send_nowait(save)

    def stage(self, place: int, chunk: bytes, done: Callable[[], None]) -> None:
        def keep() -> None:
            self.staged[place:] = [chunk]
            done()

        self._jobs.send_nowait(keep)

    def _append(self, message: Message, done: Callable[[Message], None]) -> None:
        if message.snapshot is not None:
            self.log.install(message.snapshot)
        self.log.append(message.entries)
        if message.term or message.vote or message.commit:
            self.log.set_hard_state(HardState(message.term, message.vote, message.commit))
        done(message)
