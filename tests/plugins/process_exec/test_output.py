"""Output: every line, in order, through rotation, and as it comes."""

from __future__ import annotations

import errno
import os
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from swarmctl.plugins import LogOptions
from swarmctl.plugins.model import Driver
from swarmctl.plugins.process_exec.keeper.output import OutputFiles, segments
from swarmctl.plugins.process_exec.logfiles import LogReader
from tests.plugins.process_exec.hosts import WAIT_S, enough_lines, output, started, texts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from swarmctl.plugins import LogLine
    from swarmctl.plugins.process_exec.executor import ProcessExecutor
    from tests.plugins.process_exec.hosts import Host

MEGABYTE = 1024 * 1024


def read(folder: Path, **options: int | bool) -> list[LogLine]:
    """Read everything that is there now."""
    reader = LogReader(str(folder), msgspec.convert(options, LogOptions))
    try:
        return [*_batches(reader), *reader.finish()]
    finally:
        reader.close()


def _batches(reader: LogReader) -> Iterable[LogLine]:
    while (lines := reader.read()) is not None:
        yield from lines


def files(folder: Path, max_bytes: int = MEGABYTE, max_files: int = 3) -> OutputFiles:
    return OutputFiles(str(folder), max_bytes=max_bytes, max_files=max_files)


def test_lines_whole_however_they_come(tmp_path: Path) -> None:
    """Lines that arrive in pieces, of both streams at once, come out whole and in order of their
    ends, with the time of their last piece, which no other line has; bytes stay as they are."""
    writer = files(tmp_path)
    writer.write(1, b"one\ntw", 10)
    writer.write(2, b"err", 11)
    writer.write(1, b"o\n\n\xff 1 F x\r\nthr", 12)
    writer.write(2, b"or\n", 13)
    writer.close()
    found = [(line.at, line.stream, line.text) for line in read(tmp_path)]
    assert found == [
        (10, 1, b"one"),
        (13, 1, b"two"),
        (14, 1, b""),
        (15, 1, b"\xff 1 F x\r"),
        (17, 2, b"error"),
        (16, 1, b"thr"),
    ]


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    """Output is kept in so many files of such a size, the oldest lines go first."""
    writer = files(tmp_path, max_bytes=1000, max_files=3)
    for number in range(1000):
        writer.write(1, b"%d\n" % number, number + 1)
    numbers = [int(line.text) for line in read(tmp_path)]
    assert numbers == list(range(numbers[0], 1000))
    assert 100 < len(numbers) < 400
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 1000


def test_reader_goes_on_through_rotation(tmp_path: Path) -> None:
    """A reader that keeps up with rotation misses nothing and gets nothing twice; one that was
    overtaken goes on with the oldest there is."""
    writer = files(tmp_path, max_bytes=500, max_files=2)
    keen, slow = (LogReader(str(tmp_path), LogOptions()) for _ in range(2))
    seen = []
    for number in range(300):
        writer.write(1, b"%d\n" % number, number + 1)
        if number == 3:
            assert len(list(_batches(slow))) == 4
        if number % 5 == 0:
            seen += [int(line.text) for line in _batches(keen)]
    seen += [int(line.text) for line in _batches(keen)]
    assert seen == list(range(300))
    rest = [int(line.text) for line in _batches(slow)]
    assert rest[-1] == 299
    assert rest == sorted(set(rest))
    keen.close()
    slow.close()


@pytest.mark.parametrize("tail", [0, 1, 7, 50, 299, 300, 1000])
def test_tail(tmp_path: Path, tail: int) -> None:
    """A tail gives the last lines of the streams asked for, wherever files begin."""
    writer = files(tmp_path, max_bytes=1000, max_files=100)
    for number in range(300):
        writer.write(1 + number % 2, b"%d\n" % number, number + 1)
    assert len(segments(str(tmp_path))) > 3
    numbers = list(range(300))
    assert [int(line.text) for line in read(tmp_path, tail=tail)] == (
        numbers[-tail:] if tail else []
    )
    odd = [number for number in numbers if number % 2]
    found = [int(line.text) for line in read(tmp_path, tail=tail, stdout=False)]
    assert found == (odd[-tail:] if tail else [])


def test_since_and_until(tmp_path: Path) -> None:
    """since and until are inclusive bounds in nanoseconds, and narrow what a tail counts."""
    writer = files(tmp_path)
    for number in range(1, 21):
        writer.write(1, b"%d\n" % number, number)
    assert [line.at for line in read(tmp_path, since=5, until=9)] == [5, 6, 7, 8, 9]
    assert [line.at for line in read(tmp_path, until=9, tail=2)] == [8, 9]


def test_half_a_record(tmp_path: Path) -> None:
    """Half a record that a crash left behind spoils no other line."""
    writer = files(tmp_path)
    writer.write(1, b"before\n", 1)
    writer.close()
    with (tmp_path / "output.00000001.log").open("ab") as file:
        file.write(b"123 1 ")
    writer = files(tmp_path)
    writer.write(1, b"after\n", 2)
    assert [line.text for line in read(tmp_path)] == [b"before", b"after"]


def test_endless_line(tmp_path: Path) -> None:
    """A line without end is given in pieces, so that reading it takes bounded memory."""
    writer = files(tmp_path, max_bytes=10 * MEGABYTE)
    for _ in range(40):
        writer.write(1, b"x" * 65536, 1)
    lines = read(tmp_path)
    assert sum(len(line.text) for line in lines) == 40 * 65536
    assert max(len(line.text) for line in lines) < 2 * MEGABYTE


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses output and says how much as soon as there is room again."""
    writer = files(tmp_path)
    writer.write(1, b"before\n", 1)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("swarmctl.plugins.process_exec.keeper.output.os.write", full)
    writer.write(1, b"12345\n678", 2)
    monkeypatch.setattr("swarmctl.plugins.process_exec.keeper.output.os.write", real)
    writer.write(1, b"after\n", 3)
    assert [line.text for line in read(tmp_path)] == [
        b"before",
        b"[swarmctl: 9 bytes of output were lost: No space left on device]",
        b"after",
    ]


async def test_log_options(host: Host, executor: ProcessExecutor) -> None:
    """max-size and max-file of json-file bound a task's output on disk."""
    assignment = host.assignment("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done")
    options = {"max-size": "10k", "max-file": "2"}
    assignment = msgspec.structs.replace(
        assignment, log_driver=Driver(Name="json-file", Options=options)
    )
    control = await started(executor, assignment)
    await control.wait()
    lines = await texts(control)
    assert lines[-1] == "line 3000"
    assert len(lines) < 1000
    logs = list(host.folder(assignment).glob("output.*.log"))
    assert len(logs) == 2
    assert sum(path.stat().st_size for path in logs) <= 20 * 1024


async def test_follow(host: Host, executor: ProcessExecutor) -> None:
    """Following gives lines as they are written, from a tail on, until the task ends."""
    assignment = host.assignment(
        "echo 1; echo 2; for i in 3 4 5; do while [ ! -e $i ]; do sleep 0.01; done; echo $i; done"
    )
    control = await started(executor, assignment)
    await enough_lines(control, 2)
    work = host.folder(assignment) / "work"
    seen = []
    with trio.fail_after(60):
        async with aclosing(control.logs(LogOptions(follow=True, tail=1))) as lines:  # type: ignore[type-var]
            async for line in lines:
                seen.append(line.text)
                (work / str(int(line.text) + 1)).touch()
    assert seen == [b"2", b"3", b"4", b"5"]


async def test_follow_a_task_that_never_ran(host: Host, executor: ProcessExecutor) -> None:
    """Following ends when the task is removed."""
    control = executor.controller(host.assignment("true"))
    await control.prepare()
    with trio.fail_after(WAIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(output, control, follow=True))
            await trio.testing.wait_all_tasks_blocked()
            await control.remove()


async def test_follow_until(host: Host, executor: ProcessExecutor) -> None:
    """Following with an end in time ends then, also when the task is silent."""
    control = await started(executor, host.assignment("echo a; sleep 1000"))
    (first,) = [line async for line in _some(control, 1)]
    with trio.fail_after(30):
        found = await output(control, follow=True, until=first.at + 50_000_000)
    assert [line.text for line in found] == [b"a"]
    await control.kill()


async def _some(control: object, count: int):  # type: ignore[no-untyped-def]
    async with aclosing(control.logs(LogOptions(follow=True))) as lines:  # type: ignore[attr-defined]
        async for line in lines:
            yield line
            count -= 1
            if not count:
                return


async def test_much_output_at_once(host: Host, executor: ProcessExecutor) -> None:
    """A task that writes as fast as it can loses nothing, and its end waits for the last byte."""
    control = await started(executor, host.assignment("seq 1 200000; printf end"))
    await control.wait()
    lines = await texts(control)
    assert lines == [*map(str, range(1, 200001)), "end"]
