"""Following output as a client does, and taking it apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.core.wire.http1 import ClientCodec, Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from .running import RunningApi

Frame = tuple[int, bytes]


class Follower:
    """A client that follows output and keeps what it has read."""

    def __init__(self, api: RunningApi, path: str) -> None:
        self._api = api
        self._path = path
        self._codec = ClientCodec()
        self._unread = b""
        self.frames: list[Frame] = []
        self.over = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until the answer is over."""
        async with await trio.open_unix_socket(str(self._api.socket)) as stream:
            await stream.send_all(self._codec.request("GET", self._path, (("Host", "d"),), b""))
            while isinstance(self._codec.next_head(), Signal):
                self._codec.receive(await stream.receive_some())
            task_status.started()
            while (chunk := self._codec.next_chunk()) is not Signal.END:
                if isinstance(chunk, bytes):
                    self._unread += chunk
                    self._take()
                else:
                    self._codec.receive(await stream.receive_some())
        self.over = True

    def _take(self) -> None:
        data = self._unread
        while len(data) >= 8 and len(data) >= 8 + int.from_bytes(data[4:8], "big"):
            end = 8 + int.from_bytes(data[4:8], "big")
            self.frames += frames_of(data[:end])
            data = data[end:]
        self._unread = data

    async def wait(self, condition: Callable[[list[Frame]], object]) -> None:
        """Wait until what was read is as it should be."""
        with trio.fail_after(20):
            while not condition(self.frames):  # noqa: ASYNC110 - no one event stands for it
                await trio.sleep(0.02)


def frames_of(data: bytes) -> list[Frame]:
    """Take Docker's frames apart: the stream's number and what was written."""
    found = []
    while data:
        assert data[1:4] == b"\0\0\0"
        length = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + length]))
        data = data[8 + length :]
    return found
