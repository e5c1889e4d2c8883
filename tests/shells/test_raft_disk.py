"""The encrypted database: what was acknowledged is there again, and nothing in it can be read."""

from __future__ import annotations

import sqlite3
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.errors import StorageFailed
from swarmctl.core.raft.database import Damaged, WrongKey
from swarmctl.core.raft.disk import open_disk
from swarmctl.core.raft.message import (
    LOCAL_APPEND,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageKind,
    Snapshot,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from swarmctl.core.raft.disk import Disk

KEY = b"k" * 32
FOUNDED = Snapshot(index=1, term=1, conf_state=ConfState(voters=(7,)))


def opened(path: Path, *, owner: str = "cluster/node", key: bytes = KEY) -> Disk:
    disk = open_disk(path / "raft.db", owner=owner, key_encryption_key=key)
    if disk.is_new():
        disk.bootstrap(FOUNDED, [b"first chunk", b"second chunk"])
    try:
        disk.load()
    except BaseException:
        disk.close()
        raise
    return disk


def append(entries: Iterable[Entry], *, term: int, commit: int) -> Message:
    return Message(
        MessageKind.STORAGE_APPEND,
        LOCAL_APPEND,
        7,
        term=term,
        vote=7,
        commit=commit,
        entries=tuple(entries),
    )


def entries(first: int, last: int, *, term: int = 2, data: bytes = b"data") -> list[Entry]:
    return [
        Entry(term=term, index=index, data=data + str(index).encode())
        for index in range(first, last + 1)
    ]


async def write(path: Path, *messages: Message) -> list[int]:
    """Write messages through one run of the writer; return the order of acknowledgement."""
    acknowledged: list[int] = []
    disk = opened(path)
    done = trio.Event()

    def note(message: Message) -> None:
        acknowledged.append(message.entries[-1].index if message.entries else 0)
        if len(acknowledged) == len(messages):
            done.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        for message in messages:
            disk.append(message, note)
        await done.wait()
        nursery.cancel_scope.cancel()
    return acknowledged


async def test_a_restart_finds_all_that_was_acknowledged(tmp_path: Path) -> None:
    """Log, hard state, membership and snapshot come back as they were acknowledged, in order."""
    acknowledged = await write(
        tmp_path,
        append(entries(2, 4), term=2, commit=2),
        append(entries(5, 5), term=2, commit=4),
    )
    disk = opened(tmp_path)
    assert acknowledged == [4, 5]
    assert disk.log.last_index() == 5
    assert disk.log.entries(2, 6, 2**62) == tuple(entries(2, 5))
    assert disk.log.initial_state() == (HardState(2, 7, 4), FOUNDED.conf_state)
    assert list(disk.read_chunks()) == [b"first chunk", b"second chunk"]
    disk.close()


async def test_a_conflicting_suffix_is_replaced(tmp_path: Path) -> None:
    """Entries of a newer term replace what they overlap and all that followed, on disk too."""
    await write(
        tmp_path,
        append(entries(2, 6), term=2, commit=2),
        append(entries(4, 4, term=3), term=3, commit=2),
    )
    disk = opened(tmp_path)
    assert [(entry.index, entry.term) for entry in disk.log.entries(2, 5, 2**62)] == [
        (2, 2),
        (3, 2),
        (4, 3),
    ]
    assert disk.log.last_index() == 4
    disk.close()


async def test_a_commit_index_alone_costs_no_transaction(tmp_path: Path) -> None:
    """A commit-only hard state is acknowledged without a write and kept with the next record."""
    await write(tmp_path, append(entries(2, 2), term=2, commit=1))
    await write(tmp_path, append([], term=2, commit=2))
    first = opened(tmp_path)
    assert first.log.initial_state()[0] == HardState(2, 7, 1)
    first.close()
    await write(
        tmp_path,
        append([], term=2, commit=2),
        append(entries(3, 3), term=2, commit=2),
    )
    second = opened(tmp_path)
    assert second.log.initial_state()[0] == HardState(2, 7, 2)
    second.close()


async def test_a_snapshot_replaces_the_one_before_and_cuts_the_log(tmp_path: Path) -> None:
    """After a snapshot the log keeps the entries asked for, and a restart reads both."""
    disk = opened(tmp_path)
    saved = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        disk.append(append(entries(2, 100), term=2, commit=100), lambda _message: None)
        snapshot = Snapshot(index=90, term=2, conf_state=ConfState(voters=(7,), learners=(8,)))
        disk.save_snapshot(snapshot, [b"new state"], 10, saved.set)
        await saved.wait()
        assert disk.log.first_index() == 81
        nursery.cancel_scope.cancel()
    again = opened(tmp_path)
    assert again.log.snapshot() == snapshot
    assert again.log.last_index() == 100
    assert again.log.term(85) == 2
    assert list(again.read_chunks()) == [b"new state"]
    again.close()


async def test_nothing_in_the_files_can_be_read(tmp_path: Path) -> None:
    """No plain text of an entry or a snapshot is in the database or its write-ahead file."""
    await write(tmp_path, append(entries(2, 50, data=b"TOP-SECRET-"), term=2, commit=2))
    for path, content in read_files(tmp_path):
        assert b"TOP-SECRET" not in content, path
        assert b"first chunk" not in content, path
    assert (tmp_path / "raft.db").stat().st_mode & 0o077 == 0


def read_files(directory: Path) -> list[tuple[Path, bytes]]:
    return [(path, path.read_bytes()) for path in directory.iterdir()]


async def test_another_key_or_another_nodes_database_is_refused(tmp_path: Path) -> None:
    """A wrong key encryption key and a database of another node each get their own words."""
    await write(tmp_path, append(entries(2, 2), term=2, commit=1))
    with pytest.raises(WrongKey, match="this key does not open it"):
        opened(tmp_path, key=b"x" * 32)
    with pytest.raises(Damaged, match="does not open"):
        opened(tmp_path, owner="cluster/other")


async def test_a_moved_record_does_not_open(tmp_path: Path) -> None:
    """Two records that changed places are found out, since each is bound to its own."""
    await write(tmp_path, append(entries(2, 3), term=2, commit=1))
    with sqlite3.connect(tmp_path / "raft.db") as connection:
        records = dict(connection.execute("SELECT idx, record FROM log"))
        connection.execute("UPDATE log SET record = ? WHERE idx = 2", (records[3],))
        connection.execute("UPDATE log SET record = ? WHERE idx = 3", (records[2],))
    connection.close()
    with pytest.raises(Damaged, match="record 2 of log does not open"):
        opened(tmp_path)


async def test_a_hole_in_the_log_is_refused(tmp_path: Path) -> None:
    """A missing entry is named, instead of starting from half a log."""
    await write(tmp_path, append(entries(2, 9), term=2, commit=5))
    with sqlite3.connect(tmp_path / "raft.db") as connection:
        connection.execute("DELETE FROM log WHERE idx = 4")
    connection.close()
    with pytest.raises(StorageFailed, match="lacks log entry 4"):
        opened(tmp_path)


async def test_a_committed_entry_that_is_gone_is_refused(tmp_path: Path) -> None:
    """A log that ends before what was committed is damage, and the manager must not start."""
    await write(tmp_path, append(entries(2, 9), term=2, commit=9))
    with sqlite3.connect(tmp_path / "raft.db") as connection:
        connection.execute("DELETE FROM log WHERE idx > 6")
    connection.close()
    with pytest.raises(StorageFailed, match="ends at 6, yet 9 was written last"):
        opened(tmp_path)


async def test_a_second_daemon_is_kept_out(tmp_path: Path) -> None:
    """The database belongs to one process at a time."""
    disk = opened(tmp_path)
    with pytest.raises(StorageFailed, match="another daemon uses this state directory"):
        opened(tmp_path)
    disk.close()


async def test_a_refused_write_ends_the_writer_and_acknowledges_nothing(tmp_path: Path) -> None:
    """An I/O error is no acknowledgement and no retry: run raises StorageFailed."""
    disk = opened(tmp_path)
    acknowledged: list[Message] = []

    async def write_to_a_broken_disk() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(disk.run)
            disk._connection.execute("DROP TABLE log")
            disk.append(append(entries(2, 2), term=2, commit=1), acknowledged.append)

    with pytest.raises(BaseExceptionGroup) as caught:
        await write_to_a_broken_disk()
    assert isinstance(caught.value.exceptions[0], StorageFailed)
    assert acknowledged == []
