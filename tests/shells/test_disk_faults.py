"""Damage to the Raft database: all that was acknowledged is there, or the start is refused."""

from __future__ import annotations

import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.errors import StorageFailed
from swarmctl.core.raft import space
from swarmctl.core.raft.database import Damaged
from swarmctl.core.raft.message import ConfState, Snapshot
from swarmctl.core.raft.rollback import Known, judge

from .test_raft_disk import append, entries, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from swarmctl.core.raft.disk import Disk
    from swarmctl.core.raft.message import Message

SNAPSHOT = Snapshot(index=20, term=2, conf_state=ConfState(voters=(7,)))
LAST = 60


@pytest.fixture
async def images(tmp_path: Path) -> tuple[Path, Path]:
    """Two databases: one at rest, one as a machine left it whose power went under load."""
    disk = opened(made(tmp_path / "run"))
    disk.begin()
    busy = tmp_path / "busy"
    done = trio.Event()

    def copy_when_last(message: Message) -> None:
        if message.entries[-1].index == LAST:
            shutil.copytree(tmp_path / "run", busy)  # acknowledged, and not at rest yet
            done.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        saved = trio.Event()
        disk.append(append(entries(2, 30, data=b"d" * 300), term=2, commit=20), lambda _m: None)
        disk.save_snapshot(SNAPSHOT, [b"a" * 5000, b"b" * 5000], 5, saved.set)
        await saved.wait()
        for index in range(31, LAST + 1):
            done = trio.Event()
            message = append(entries(index, index, data=b"e" * 900), term=2, commit=index - 1)
            written = trio.Event()

            def note(message: Message, written: trio.Event = written) -> None:
                copy_when_last(message)
                written.set()

            disk.append(message, note)
            await written.wait()  # a transaction each
        nursery.cancel_scope.cancel()
    assert (busy / "raft.db-wal").stat().st_size > 50_000
    return tmp_path / "run", busy


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def contents(path: Path) -> tuple[object, ...]:
    """Read a database back, as a start does.

    Raises:
        StorageFailed: it is refused.
    """
    disk = opened(path)
    try:
        chunks = tuple(disk.read_chunks())
        log = disk.log
        return (
            log.entries(21, log.last_index() + 1, 2**62),
            log.initial_state(),
            log.snapshot(),
            chunks,
        )
    finally:
        disk.close()


class Outcomes:
    """What became of many damaged copies."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._copy = image.parent / f"copy of {image.name}"
        self.said: set[str] = set()
        self.before = self.of(lambda _path: None)
        assert self.before is not None
        self.fine = self.refused = 0

    def of(self, damage: Callable[[Path], None]) -> tuple[object, ...] | None:
        """Read a damaged copy; None when it was refused, in our words."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._image, self._copy)
        damage(self._copy)
        try:
            return contents(self._copy)
        except StorageFailed as error:
            self.said.add(str(error).partition(":")[0])
            return None

    def check(self, damage: Callable[[Path], None], what: str) -> None:
        """Everything or nothing."""
        found = self.of(damage)
        if found is None:
            self.refused += 1
        else:
            assert found == self.before, what
            self.fine += 1


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes((byte ^ 1 << bit,)))


def places(size: int, count: int) -> Iterator[tuple[int, int]]:
    rng = random.Random(size)
    for _ in range(count):
        yield rng.randrange(size), rng.randrange(8)


async def test_a_bit_flipped_in_a_database_at_rest(images: tuple[Path, Path]) -> None:
    """Wherever it is: all that was acknowledged is read, or the start is refused."""
    found = Outcomes(images[0])
    size = (images[0] / "raft.db").stat().st_size
    for place, bit in [*((place, 0) for place in range(100)), *places(size, 500)]:
        found.check(lambda path: flip(path / "raft.db", place, bit), f"bit {bit} of {place}")  # noqa: B023
    assert found.refused > 100
    assert {text.rpartition(" ")[2] for text in found.said} <= {"damaged", "opened", "locked"}
    assert all(str(found._copy / "raft.db") in text for text in found.said if "locked" not in text)
    assert found.fine > 50  # bytes that nothing rests on


async def test_a_database_that_lost_its_end(images: tuple[Path, Path]) -> None:
    """Cut to any length, nothing included, it is refused or whole."""
    found = Outcomes(images[0])
    size = (images[0] / "raft.db").stat().st_size
    for length in [0, 1, 100, 4096, *range(8192, size, 4096), size - 1]:

        def cut(path: Path, length: int = length) -> None:
            with (path / "raft.db").open("r+b") as file:
                file.truncate(length)

        found.check(cut, f"cut to {length}")
    assert found.refused > 5


async def test_a_bit_flipped_under_load(images: tuple[Path, Path]) -> None:
    """In the write-ahead file too: all is read, or refused. Only the very last transaction can not
    be told from one that a crash cut short; then just that one is missing, and peers notice."""
    found = Outcomes(images[1])
    wal = images[1] / "raft.db-wal"
    size = wal.stat().st_size
    frames = (size - 32) // 4120
    last_begins = 32 + last_transaction(wal, frames) * 4120
    lost = 0
    for place, bit in [*((place, 1) for place in range(32)), *places(size, 400)]:

        def damage(path: Path, place: int = place, bit: int = bit) -> None:
            flip(path / "raft.db-wal", place, bit)

        after = found.of(damage)
        if place < last_begins:
            assert after in (None, found.before), f"bit {bit} of {place}"
        elif after not in (None, found.before):
            lost += 1
            missing = opened_copy(found)
            assert missing.log.last_index() == LAST - 1
            known = Known(
                starts=missing.shown().starts - 1, match=LAST, match_term=2, kept=LAST - 1
            )
            said = judge(missing.shown(), known)
            missing.close()
            assert said is not None
            assert f"ends at log entry {LAST - 1}, yet it acknowledged {LAST}" in said
    assert lost > 0
    assert found.of(lambda path: flip(path / "raft.db-wal", 5000, 1)) is None


def last_transaction(wal: Path, frames: int) -> int:
    """The number of the first frame of the last transaction."""
    content = wal.read_bytes()
    salts = content[16:24]
    ends = [
        frame
        for frame in range(frames)
        if content[32 + frame * 4120 :][8:16] == salts
        and content[32 + frame * 4120 :][4:8] != bytes(4)
    ]
    return ends[-2] + 1


def opened_copy(found: Outcomes) -> Disk:
    return opened(found._copy)


async def test_a_torn_tail_loses_nothing_acknowledged(images: tuple[Path, Path]) -> None:
    """Half a transaction behind the acknowledged ones, in any shape, is what a crash leaves."""
    found = Outcomes(images[1])
    wal = (images[1] / "raft.db-wal").read_bytes()
    frame = wal[32 : 32 + 4120]
    for tail in (b"\0" * 5000, b"x" * 100, frame, frame[:2000], random.Random(1).randbytes(9000)):

        def tear(path: Path, tail: bytes = tail) -> None:
            with (path / "raft.db-wal").open("ab") as file:
                file.write(tail)

        found.check(tear, f"{len(tail)} bytes behind")
    assert found.refused == 0


async def test_a_torn_tail_of_one_start_is_no_damage_to_the_next(
    images: tuple[Path, Path],
) -> None:
    """Each start empties the write-ahead file, so leftovers of two crashes never add up."""
    _, busy = images
    for _ in range(3):
        with (busy / "raft.db-wal").open("ab") as file:
            file.write(b"torn" * 1000)
        disk = opened(busy)
        disk.begin()
        assert disk.log.last_index() == LAST
        shutil.copytree(busy, busy.parent / "next")
        disk.close()
        shutil.rmtree(busy)
        (busy.parent / "next").rename(busy)


@pytest.mark.parametrize("name", ["hard_state", "starts", "format"])
async def test_a_row_of_facts_that_is_gone_is_missed(images: tuple[Path, Path], name: str) -> None:
    """A vote forgotten with its row could be given twice."""
    with sqlite3.connect(images[0] / "raft.db") as connection:
        connection.execute("DELETE FROM meta WHERE name = ?", (name,))
    connection.close()
    with pytest.raises(Damaged, match=r"it (lacks its|does not say its)"):
        opened(images[0])


async def test_entries_acknowledged_and_not_committed_are_missed_too(
    images: tuple[Path, Path],
) -> None:
    """The log says by itself where it ends, so its last entry cannot vanish alone."""
    with sqlite3.connect(images[0] / "raft.db") as connection:
        connection.execute("DELETE FROM log WHERE idx = ?", (LAST,))
    connection.close()
    with pytest.raises(Damaged, match=f"ends at {LAST - 1}, yet {LAST} was written last"):
        opened(images[0])


async def test_every_refusal_names_the_file_and_what_to_do(images: tuple[Path, Path]) -> None:
    """Who reads it knows which file it is, and that joining anew or a backup helps; or, with a
    database of a later release, that one."""
    path = images[0] / "raft.db"

    def refusal(statement: str) -> str:
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(StorageFailed) as caught:
            opened(images[0])
        return str(caught.value)

    texts = {"it has lost its keys": refusal("DELETE FROM keys")}
    newer = refusal("UPDATE meta SET value = 2 WHERE name = 'format'")
    assert f"{path} has format 2, newer than this release's 1: upgrade swarmctl" in newer
    path.write_bytes(b"")
    texts["it is empty"] = refusal("SELECT 1")
    for what, text in texts.items():
        assert f"{path} is damaged: {what}" in text
        assert "leave the swarm by force here and join anew" in text
        assert "restore a backup" in text


# --- a full disk ---------------------------------------------------------------------------------


async def test_a_disk_that_fills_up_is_said_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the reserve there is a complaint, and it stays until some more than that is free."""
    monkeypatch.setattr(space, "RESERVE_BYTES", 2**70)
    monkeypatch.setattr(space, "SMALL_DISK_PART", 1)
    said = space.complaint(tmp_path)
    assert "Free some space, and it goes on by itself" in said
    monkeypatch.setattr(space, "RESERVE_BYTES", 1)
    assert space.complaint(tmp_path, before=said) == ""


async def test_a_write_that_finds_the_disk_full_is_done_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses it whole; nothing is acknowledged, all is once there is room, in order."""
    monkeypatch.setattr("swarmctl.core.raft.disk.IDLE_S", 0.02)
    disk = opened(tmp_path)
    (pages,) = disk._connection.execute("PRAGMA page_count").fetchone()
    disk._connection.execute(f"PRAGMA max_page_count={pages}")
    acknowledged: list[int] = []
    done = trio.Event()

    def note(message: Message) -> None:
        acknowledged.append(message.entries[-1].index)
        if acknowledged[-1] == 40:
            done.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(disk.run)
        for index in range(2, 41):
            message = append(entries(index, index, data=b"x" * 2000), term=2, commit=1)
            disk.append(message, note)
        while not disk.complaint:  # noqa: ASYNC110 - a thread says it
            await trio.sleep(0.01)
        assert acknowledged == []  # the group is one transaction
        disk._connection.execute("PRAGMA max_page_count=100000")
        await done.wait()
        nursery.cancel_scope.cancel()
    assert acknowledged == list(range(2, 41))
    again = opened(tmp_path)
    assert again.log.last_index() == 40
    again.close()
