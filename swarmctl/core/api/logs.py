"""Routes of output: what the tasks of a service, or one task, have written.

The manager opens one stream to the node of each task and puts the lines into Docker's frames, one
line a frame. A node that cannot be asked costs its own lines only; the end of the stream names it.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote_plus

import trio

from ..agent.executor import LogLine, LogOptions
from ..agent.logs import read_logs
from ..errors import SwarmError
from ..model.base import Time
from ..model.duration import format_time
from ..model.task import TaskState
from ..wire.http_server import StreamedResponse
from . import query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..manager.manager import Manager
    from ..model.objects import TaskRow
    from ..model.spec import TaskSpec
    from ..wire.http1 import Fields
    from ..wire.http_server import Reply
    from .call import Call
    from .server import ApiServer

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3
QUEUE_LINES = 64
LINES_MAX = 2**31 - 1
LAST_MOMENT_NS = 2**63 - 1
FRAMES_NAMED_SINCE = 42  # 1.42: before, frames went by the name of the raw stream

_DIGITS = re.compile(r"[0-9]{1,30}", re.ASCII)


class _Asked(NamedTuple):
    options: LogOptions
    timestamps: bool
    details: bool


class _Source(NamedTuple):
    """Whose output is read: the tasks there are now, and whether no more can come."""

    tasks: Callable[[], Sequence[TaskRow]]
    is_over: Callable[[], bool]


async def service(server: ApiServer, call: Call) -> Reply:
    """``GET /services/{id}/logs``"""
    manager = server.manager()
    view = await manager.read()
    row = query.resolve_service(view, call.params["id"])
    service_id = row.api.ID
    source = _Source(
        tasks=lambda: view.tasks_of(service_id), is_over=lambda: view.service(service_id) is None
    )
    return _stream(manager, call, source, row.api.Spec.TaskTemplate)


async def task(server: ApiServer, call: Call) -> Reply:
    """``GET /tasks/{id}/logs``"""
    manager = server.manager()
    view = await manager.read()
    row = query.resolve_task(view, call.params["id"])
    task_id = row.api.ID

    def tasks() -> Sequence[TaskRow]:
        found = view.task(task_id)
        return () if found is None else (found,)

    def is_over() -> bool:
        return all(row.api.Status.State > TaskState.RUNNING for row in tasks())

    return _stream(manager, call, _Source(tasks, is_over), row.api.Spec)


def _parse(fields: Fields) -> _Asked:
    stdout, stderr = query.flag(fields.get("stdout")), query.flag(fields.get("stderr"))
    if not stdout and not stderr:
        raise SwarmError("Bad parameters: you must choose at least one stream")
    options = LogOptions(
        stdout=stdout,
        stderr=stderr,
        follow=query.flag(fields.get("follow")),
        since=_moment(fields.get("since")),
        tail=_tail(fields.get("tail")),
    )
    return _Asked(options, query.flag(fields.get("timestamps")), query.flag(fields.get("details")))


def _tail(text: str) -> int:
    if text in ("", "all"):
        return -1
    if text.startswith("-"):
        raise SwarmError("negative tail values not supported")
    if not _DIGITS.fullmatch(text):
        raise SwarmError('tail value must be a positive integer or "all"')
    return min(int(text), LINES_MAX)


def _moment(text: str) -> int:
    """Return nanoseconds of ``seconds[.fraction]``; 0 for none, the last that fits for later."""
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    if not _DIGITS.fullmatch(seconds) or not _DIGITS.fullmatch(fraction or "0"):
        raise SwarmError(f"since value {text!r} must be seconds since the epoch")
    return min(int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9]), LAST_MOMENT_NS)


def _stream(manager: Manager, call: Call, source: _Source, spec: TaskSpec) -> StreamedResponse:
    """Return the answer; a terminal's output goes unframed, since its two streams are one."""
    asked = _parse(call.query)
    has_terminal = spec.ContainerSpec is not None and spec.ContainerSpec.TTY
    content = "application/vnd.docker.multiplexed-stream"
    if has_terminal or call.older_than(FRAMES_NAMED_SINCE):
        content = "application/vnd.docker.raw-stream"

    async def write(send: Callable[[bytes], Awaitable[None]]) -> None:
        await _Merge(manager, asked, source, send, framed=not has_terminal).run()

    return StreamedResponse(200, (("Content-Type", content),), write)


class _Merge:
    """Reads the tasks' outputs side by side and writes their lines as they come."""

    def __init__(
        self,
        manager: Manager,
        asked: _Asked,
        source: _Source,
        send: Callable[[bytes], Awaitable[None]],
        *,
        framed: bool,
    ) -> None:
        self._manager = manager
        self._asked = asked
        self._source = source
        self._send = send
        self._framed = framed
        self._problems: list[str] = []
        self._seen: set[str] = set()

    async def run(self) -> None:
        lines_in, lines_out = trio.open_memory_channel[bytes](QUEUE_LINES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_all, lines_in)
            async with lines_out:
                async for line in lines_out:
                    await self._send(line)
        if self._problems and self._framed:
            text = "warning: incomplete log stream. some logs could not be retrieved for the "
            text += f"following reasons: {', '.join(self._problems)}"
            await self._send(_frame(SYSTEM_ERROR, text.encode()))

    async def _read_all(self, lines: trio.MemorySendChannel[bytes]) -> None:
        """Read every task that has output; with follow, also those that come later."""
        with self._manager.watch.mailbox() as mailbox:
            async with lines, trio.open_nursery() as nursery:
                while True:
                    mailbox.take()
                    for row in self._source.tasks():
                        if row.api.ID not in self._seen and _has_output(row):
                            self._seen.add(row.api.ID)
                            nursery.start_soon(self._read, row, lines.clone())
                    if not self._asked.options.follow or self._source.is_over():
                        break
                    await mailbox.wait()

    async def _read(self, row: TaskRow, lines: trio.MemorySendChannel[bytes]) -> None:
        link = self._manager.dispatcher.connected(row.api.NodeID)
        async with lines:
            if link is None:
                self._problems.append(f"node {row.api.NodeID} is not available")
                return
            try:
                output = read_logs(link, row.api.ID, self._asked.options)
                async with aclosing(output) as open_output:  # type: ignore[type-var] # a generator
                    async for line in open_output:
                        await lines.send(self._line(row, line))
            except SwarmError as error:
                self._problems.append(f"task {row.api.ID}: {error}")

    def _line(self, row: TaskRow, line: LogLine) -> bytes:
        parts = []
        if self._asked.timestamps:
            parts.append(_nine_digits(line.at))
        if self._asked.details:
            details = {
                "com.docker.swarm.node.id": row.api.NodeID,
                "com.docker.swarm.service.id": row.api.ServiceID,
                "com.docker.swarm.task.id": row.api.ID,
            }
            parts.append(
                ",".join(f"{quote_plus(key)}={quote_plus(details[key])}" for key in sorted(details))
            )
        prefix = "".join(f"{part} " for part in parts).encode()
        text = prefix + line.text + b"\n"
        return _frame(line.stream, text) if self._framed else text


def _has_output(row: TaskRow) -> bool:
    status = row.api.Status
    return bool(row.api.NodeID) and (
        status.State >= TaskState.RUNNING or status.ContainerStatus is not None
    )


def _frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def _nine_digits(at_ns: int) -> str:
    """Return RFC 3339 with all nine digits, so that lines sort as text."""
    seconds = format_time(Time(at_ns // 1_000_000_000 * 1_000_000_000)).removesuffix("Z")
    return f"{seconds}.{at_ns % 1_000_000_000:09d}Z"


HANDLERS = {"service": service, "task": task}
