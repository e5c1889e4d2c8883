"""The database's keys: rotated under load, wrapped anew, cut short anywhere: one of them opens."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.raft import keys as keys_module
from swarmctl.core.raft import space
from swarmctl.core.raft.database import peek_lock
from swarmctl.core.raft.disk import WrongKey
from swarmctl.core.raft.keys import KeyChange, Lock, unwrap_all
from swarmctl.core.raft.message import ConfState, Snapshot

from .test_raft_disk import KEY, append, entries, opened, read_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarmctl.core.raft.disk import Disk
    from swarmctl.core.raft.message import Message

NEW = b"n" * 32


async def run_until(disk: Disk, work: Callable[[trio.Event], None]) -> None:
    """Run a disk's writer until the work says that it is done."""
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        work(done)
        await done.wait()
        while disk.keys.ring.rotating:  # noqa: ASYNC110 - a thread goes on with it
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()


def kids(path: Path) -> set[int]:
    """The keys that records in the file were sealed with, and the keys that are there."""
    with sqlite3.connect(path / "raft.db") as connection:
        found = {
            kid
            for table in ("log", "snapshot", "chunk", "keys")
            for (kid,) in connection.execute(f"SELECT DISTINCT kid FROM {table}")
        }
    connection.close()
    return found - {0}


def contents(path: Path, key: bytes = KEY) -> tuple[object, ...]:
    """Everything that a restart reads."""
    disk = opened(path, key=key)
    try:
        log = disk.log
        return (
            log.entries(log.first_index(), log.last_index() + 1, 2**62),
            log.initial_state(),
            log.snapshot(),
            tuple(disk.read_chunks()),
        )
    finally:
        disk.close()


async def filled(path: Path) -> tuple[object, ...]:
    """Make a database with a snapshot, a tail before it and a log after it; return its contents."""
    disk = opened(path)

    def fill(done: trio.Event) -> None:
        disk.append(append(entries(2, 60), term=2, commit=50), lambda _message: None)
        snapshot = Snapshot(index=40, term=2, conf_state=ConfState(voters=(7,)))
        disk.save_snapshot(snapshot, [b"a" * 3000, b"b" * 3000], 20, done.set)

    await run_until(disk, fill)
    return contents(path)


async def test_a_rotation_seals_everything_anew(tmp_path: Path) -> None:
    """After it nothing is left of the old key, neither records nor itself, and all can be read."""
    before = await filled(tmp_path)
    old = [record for _, record in sealed_records(tmp_path)]
    disk = opened(tmp_path)
    await run_until(disk, lambda done: disk.rotate(done.set))
    assert kids(tmp_path) == {2}
    assert contents(tmp_path) == before
    for _, content in read_files(tmp_path):
        assert not any(record in content for record in old)


def sealed_records(path: Path) -> list[tuple[int, bytes]]:
    with sqlite3.connect(path / "raft.db") as connection:
        found = connection.execute("SELECT idx, record FROM log").fetchall()
        found += connection.execute("SELECT number, record FROM chunk").fetchall()
        found += connection.execute("SELECT kid, wrapped FROM keys").fetchall()
    connection.close()
    return found


async def test_writing_goes_on_during_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New records use the new key at once, old ones follow step by step, and both are read."""
    monkeypatch.setattr(keys_module, "RESEAL_BYTES", 1)  # a record a step
    await filled(tmp_path)
    disk = opened(tmp_path)
    mixed: list[set[int]] = []

    reseal_some = disk.keys.reseal_some

    def look_and_reseal() -> bool:  # in the writer's thread: nobody else may read meanwhile
        mixed.append({kid for (kid,) in disk._connection.execute("SELECT kid FROM log")})
        return reseal_some()

    monkeypatch.setattr(disk.keys, "reseal_some", look_and_reseal)

    def work(done: trio.Event) -> None:
        disk.rotate(lambda: None)
        for index in range(61, 81):
            disk.append(append(entries(index, index), term=2, commit=60), lambda _message: None)
        disk.append(append(entries(81, 81), term=2, commit=60), lambda _message: done.set())

    await run_until(disk, work)
    assert {1, 2} in mixed
    assert kids(tmp_path) == {2}
    last = contents(tmp_path)[0]
    assert isinstance(last, tuple)
    assert last[-1] == entries(81, 81)[0]


async def test_a_rotation_without_room_waits_and_keeps_nobody_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the reserve the writer sleeps between two looks; the rotation goes on with the room."""
    await filled(tmp_path)
    monkeypatch.setattr(space, "RESERVE_BYTES", 2**70)
    monkeypatch.setattr(space, "SMALL_DISK_PART", 1)
    disk = opened(tmp_path)
    assert disk.complaint
    looks = 0
    rest = disk._rest

    def count_and_rest() -> None:
        nonlocal looks
        looks += 1
        rest()

    monkeypatch.setattr(disk, "_rest", count_and_rest)
    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        begun = trio.Event()
        disk.rotate(begun.set)
        await begun.wait()
        for index in range(61, 161):
            await write(disk, index)
        assert disk.keys.ring.rotating
        assert looks < 50
        monkeypatch.setattr(space, "RESERVE_BYTES", 1)
        monkeypatch.setattr("swarmctl.core.raft.disk.IDLE_S", 0.001)
        while disk.keys.ring.rotating:
            await write(disk, disk.log.last_index() + 1)
        nursery.cancel_scope.cancel()
    assert kids(tmp_path) == {2}


async def write(disk: Disk, index: int) -> None:
    """Have one entry written."""
    written = trio.Event()
    message = append(entries(index, index), term=2, commit=50)
    disk.append(message, lambda _message: written.set())
    await written.wait()


async def test_a_rotation_that_finds_the_disk_full_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may fill up between two looks: a step that it refuses is done again, like a write."""
    monkeypatch.setattr("swarmctl.core.raft.disk.IDLE_S", 0.001)
    before = await filled(tmp_path)
    disk = opened(tmp_path)
    reseal_some, refused = disk.keys.reseal_some, 3

    def refuse_or_reseal() -> bool:
        nonlocal refused
        if refused:
            refused -= 1
            raise sqlite3.OperationalError("database or disk is full")
        return reseal_some()

    monkeypatch.setattr(disk.keys, "reseal_some", refuse_or_reseal)
    await run_until(disk, lambda done: disk.rotate(done.set))
    assert (refused, kids(tmp_path)) == (0, {2})
    assert contents(tmp_path) == before


class Killed(Exception):
    """Stands for the power going."""


class Dying:
    """A connection that dies before its n-th statement; what was committed stays.

    SQLite's own promise, that a transaction is whole or not there, is not put to the test here:
    what is, is the order of ours.
    """

    def __init__(self, connection: sqlite3.Connection, after: int) -> None:
        self._connection = connection
        self._left = after
        self.statements = 0

    def execute(self, *arguments: object) -> sqlite3.Cursor:
        self._count()
        return self._connection.execute(*arguments)  # type: ignore[arg-type]

    def executemany(self, *arguments: object) -> sqlite3.Cursor:
        self._count()
        return self._connection.executemany(*arguments)  # type: ignore[arg-type]

    def _count(self) -> None:
        self.statements += 1
        if self.statements > self._left:
            raise Killed

    def die(self) -> None:
        if self._connection.in_transaction:
            self._connection.rollback()
        self._connection.close()

    @property
    def in_transaction(self) -> bool:
        return False  # the dead roll nothing back

    def close(self) -> None:
        self._connection.close()


def whole_rotation(disk: Disk) -> None:
    disk.keys.rotate()
    go_on(disk)


def go_on(disk: Disk) -> None:
    while disk.keys.reseal_some():
        pass
    disk._checkpoint("TRUNCATE")
    disk.keys.finish()
    disk._checkpoint("TRUNCATE")


def killed_at_each_step(
    path: Path, work: Callable[[Disk], None], check: Callable[[Path], None]
) -> int:
    """Do ``work`` on copies of a database, killed before statement 0, 1, 2, ... of it.

    Returns:
        How many statements there were.
    """
    image = dict(read_files(path))
    for after in range(10_000):
        for file in path.iterdir():
            file.unlink()
        for file, content in image.items():
            file.write_bytes(content)
        disk = opened(path)
        dying = Dying(disk._connection, after)
        disk._connection = disk.keys._connection = dying  # type: ignore[assignment]
        try:
            work(disk)
        except Killed:
            pass
        else:
            disk.close()
            check(path)
            return dying.statements
        dying.die()
        check(path)
    raise AssertionError("never finished")


async def test_a_rotation_killed_anywhere_loses_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any statement of it, the next start reads everything and finishes it."""
    monkeypatch.setattr(keys_module, "RESEAL_BYTES", 400)  # several steps
    before = await filled(tmp_path)

    def check(path: Path) -> None:
        assert contents(path) == before
        disk = opened(path)
        if disk.keys.ring.rotating:
            go_on(disk)
        disk.close()
        assert len(kids(path)) == 1
        assert contents(path) == before

    assert killed_at_each_step(tmp_path, whole_rotation, check) > 40


async def test_restarts_without_end_finish_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again after a few statements, each start comes a step further."""
    monkeypatch.setattr(keys_module, "RESEAL_BYTES", 400)
    before = await filled(tmp_path)
    disk = opened(tmp_path)
    disk.keys.rotate()
    disk.close()
    lives = 0
    while True:
        disk = opened(tmp_path)
        if not disk.keys.ring.rotating:
            disk.close()
            break
        dying = Dying(disk._connection, 16)  # enough for one step
        disk._connection = disk.keys._connection = dying  # type: ignore[assignment]
        try:
            go_on(disk)
        except Killed:
            dying.die()
        else:
            disk.close()
        lives += 1
        assert lives < 200
    assert lives > 3
    assert kids(tmp_path) == {2}
    assert contents(tmp_path) == before


@pytest.mark.parametrize("rotate", [True, False])
async def test_a_change_of_key_killed_anywhere_leaves_one_key_that_opens(
    tmp_path: Path, rotate: bool
) -> None:
    """Killed before any statement of it, the old or the new key opens, and never both."""
    before = await filled(tmp_path)
    change = KeyChange(NEW, Lock(locked=True, version=9), identity_key=b"i" * 32, rotate=rotate)
    seen = set()

    def check(path: Path) -> None:
        locked = peek_lock(path / "raft.db", None)[0].locked
        right, wrong = (NEW, KEY) if locked else (KEY, NEW)
        assert contents(path, right) == before
        with pytest.raises(WrongKey):
            opened(path, key=wrong)
        seen.add(locked)

    killed_at_each_step(tmp_path, lambda disk: disk.keys.change(change), check)
    assert seen == {True, False}


async def test_a_change_of_key_without_rotation_leaves_the_records(tmp_path: Path) -> None:
    """Another unlock key wraps the data key anew; no record is touched."""
    await filled(tmp_path)
    before = [record for kid, record in sealed_records(tmp_path) if len(record) > 100]
    disk = opened(tmp_path)
    change = KeyChange(NEW, Lock(locked=True, version=9))
    await run_until(disk, lambda done: disk.change_key(change, done.set))
    after = [record for kid, record in sealed_records(tmp_path) if len(record) > 100]
    assert after == before
    assert kids(tmp_path) == {1}


async def test_no_key_lies_open(tmp_path: Path) -> None:
    """Neither data keys nor the key encryption key can be found in the files."""
    await filled(tmp_path)
    disk = opened(tmp_path)
    change = KeyChange(NEW, Lock(locked=True, version=9), identity_key=b"identity" * 4, rotate=True)
    secret = set(unwrap_all(disk._connection, KEY).values())
    await run_until(disk, lambda done: disk.change_key(change, done.set))
    disk = opened(tmp_path, key=NEW)
    secret |= {*unwrap_all(disk._connection, NEW).values(), KEY, NEW}
    disk.close()
    assert len(secret) == 5
    for path, content in read_files(tmp_path):
        assert not any(key in content for key in secret), path


async def test_a_data_key_is_replaced_before_it_was_used_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses are counted over restarts, rather too many than too few, and end in a rotation."""
    monkeypatch.setattr(keys_module, "USES_STEP", 10)
    monkeypatch.setattr(keys_module, "USES_MAX", 50)
    for start in range(4):
        disk = opened(tmp_path)
        first = disk.log.last_index() + 1
        message = append(entries(first, first), term=2, commit=1)

        def work(done: trio.Event, disk: Disk = disk, message: Message = message) -> None:
            disk.append(message, lambda _message: done.set())

        await run_until(disk, work)
        assert kids(tmp_path) == {1}, start
    disk = opened(tmp_path)
    first = disk.log.last_index() + 1
    message = append(entries(first, first), term=2, commit=1)
    await run_until(disk, lambda done: disk.append(message, lambda _message: done.set()))
    assert kids(tmp_path) == {2}
