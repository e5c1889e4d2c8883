"""A manager's disk: the Raft database's promises without SQLite.

It offers what :class:`swarmctl.core.raft.disk.Disk` offers to the runner and keeps its laws: work
is done in order, appends that wait together are one write, what is reported is durable, a commit
index alone is not written. A crash keeps what was written, loses the rest, and may fall between a
write and its report.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.core.raft.disk import _hard_state_of, _must_sync
from swarmctl.core.raft.message import HardState, Snapshot
from swarmctl.core.raft.storage import MemoryStorage
from tests.sim.queue import MS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from swarmctl.core.raft.message import Message
    from tests.sim.queue import Scope

GROUP_MAX = 256


class _Append(NamedTuple):
    message: Message
    done: Callable[[Message], None]


class _Save(NamedTuple):
    snapshot: Snapshot
    chunks: tuple[bytes, ...]
    keep: int
    done: Callable[[], None]


class _Stage(NamedTuple):
    place: int
    chunk: bytes
    done: Callable[[], None]


class Platter:
    """What survives a crash."""

    def __init__(self) -> None:
        self.log = MemoryStorage()
        self.chunks: tuple[bytes, ...] = ()
        self.hard_state = HardState()

    def bootstrap(self, snapshot: Snapshot, chunks: tuple[bytes, ...]) -> None:
        """Write the first membership and state."""
        self.hard_state = HardState(term=snapshot.term, commit=snapshot.index)
        self.log = MemoryStorage(snapshot, self.hard_state)
        self.chunks = chunks

    def load(self) -> MemoryStorage:
        """Return the window that a restarted manager reads from."""
        log, snapshot = self.log, self.log._snapshot
        oldest = Snapshot(index=log._start, term=log._start_term, conf_state=snapshot.conf_state)
        loaded = MemoryStorage(oldest, self.hard_state, tuple(log._entries))
        loaded.replace_snapshot(snapshot)
        return loaded


class SimDisk:
    """The open database of one run of a manager."""

    def __init__(self, platter: Platter, scope: Scope, rng: random.Random) -> None:
        self.platter = platter
        self.log = platter.load()
        self.slowness_ns = 1.0 * MS
        self.complaint = ""  # why no change should be accepted now
        self.on_report: Callable[[], None] = lambda: None
        self.on_write: Callable[[Message], None] = lambda _: None
        self._scope = scope
        self._rng = rng
        self._jobs: deque[_Append | _Save | _Stage] = deque()
        self._group: list[_Append | _Save | _Stage] = []
        self._hard_state = platter.hard_state
        self._staged: list[bytes] = []

    def append(self, message: Message, done: Callable[[Message], None]) -> None:
        self._put(_Append(message, done))

    def save_snapshot(
        self, snapshot: Snapshot, chunks: Iterable[bytes], keep: int, done: Callable[[], None]
    ) -> None:
        self._put(_Save(snapshot, tuple(chunks), keep, done))

    def stage(self, place: int, chunk: bytes, done: Callable[[], None]) -> None:
        self._put(_Stage(place, chunk, done))

    def chunks_of(self, index: int) -> tuple[bytes, ...] | None:
        """Return the newest snapshot's chunks, or None when another has replaced it."""
        platter = self.platter
        return platter.chunks if platter.log._snapshot.index == index else None

    def crash(self) -> int:
        """Lose what is not written; return how many writes that is."""
        if self._group and self._rng.random() < 0.4:
            self._write(self._group)  # it was on its way and got there
            self._group = []
        lost = [*self._group, *self._jobs]
        return sum(isinstance(job, _Append) for job in lost)

    def _put(self, job: _Append | _Save | _Stage) -> None:
        self._jobs.append(job)
        if not self._group:
            self._begin()

    def _begin(self) -> None:
        """Begin the next write: one job, or all appends that wait in front."""
        jobs = self._jobs
        group = [jobs.popleft()]
        if isinstance(group[0], _Append):
            while jobs and isinstance(jobs[0], _Append) and len(group) < GROUP_MAX:
                group.append(jobs.popleft())
        self._group = group
        self._scope.after((0.1 + self._rng.random()) * self.slowness_ns, self._end)

    def _end(self) -> None:
        group, self._group = self._group, []
        self._write(group)
        if self._jobs:
            self._begin()
        self._report(group)

    def _write(self, group: list[_Append | _Save | _Stage]) -> None:
        appends = [job for job in group if isinstance(job, _Append)]
        if appends:
            self._write_appends(appends)
        for job in group:
            if isinstance(job, _Save):
                self._write_snapshot(job)
            elif isinstance(job, _Stage):
                if job.place == 0:
                    self._staged = []
                self._staged.append(job.chunk)

    def _write_appends(self, group: list[_Append]) -> None:
        platter = self.platter
        if not any(_must_sync(job.message, self._hard_state) for job in group):
            self._hard_state = _hard_state_of(group[-1].message) or self._hard_state
            return
        for job in group:
            message = job.message
            if message.snapshot is not None:
                platter.log.install(message.snapshot)
                platter.chunks, self._staged = tuple(self._staged), []
            platter.log.append(message.entries)
            self.on_write(message)
            self._hard_state = _hard_state_of(message) or self._hard_state
        platter.hard_state = self._hard_state

    def _write_snapshot(self, job: _Save) -> None:
        platter = self.platter
        _keep(platter.log, job)
        platter.chunks = job.chunks
        platter.hard_state = self._hard_state

    def _report(self, group: list[_Append | _Save | _Stage]) -> None:
        """What was written is known: the window changes, and whoever waits is told."""
        for job in group:
            if isinstance(job, _Append):
                message = job.message
                if message.snapshot is not None:
                    self.log.install(message.snapshot)
                self.log.append(message.entries)
                hard_state = _hard_state_of(message)
                if hard_state is not None:
                    self.log.set_hard_state(hard_state)
                job.done(message)
            elif isinstance(job, _Save):
                _keep(self.log, job)
                job.done()
            else:
                job.done()
        self.on_report()


def _keep(log: MemoryStorage, job: _Save) -> None:
    log.replace_snapshot(job.snapshot)
    cut = job.snapshot.index - job.keep
    if cut >= log.first_index():
        log.compact(cut)
