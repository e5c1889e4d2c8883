"""One connection to the keeper: requests out, answers and events in.

A request may be cancelled at any time: frames leave through a queue of whole frames, so none is
cut in half, and an answer that nobody waits for any more is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from swarmctl.plugins import EngineUnavailable, ExecutorError

from .keeper.frames import FrameError, FrameReader, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]

MAX_QUEUED_FRAMES = 64
READ_BYTES = 256 * 1024


class KeeperLost(EngineUnavailable):
    """The connection broke before the keeper answered; asking again reaches it or a new one."""


class _Answer:
    """What a request waits for."""

    def __init__(self, on_answer: Callable[[Message], None] | None) -> None:
        self.arrived = trio.Event()
        self.message: Message | None = None
        self.on_answer = on_answer


class Session:
    """One connection; serves requests while :meth:`run` runs.

    Args:
        on_event: called with each message that answers nothing, in order with answers.
    """

    def __init__(self, stream: trio.SocketStream, on_event: Callable[[Message], None]) -> None:
        self._stream = stream
        self._on_event = on_event
        self._last = 0
        self._waiting: dict[int, _Answer] = {}
        self._closed = False
        self._outbox, self._frames = trio.open_memory_channel[bytes](MAX_QUEUED_FRAMES)

    async def run(self) -> None:
        """Carry messages until the connection ends; every request still waiting is then lost."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_all)
                await self._receive_all()
                nursery.cancel_scope.cancel()
        finally:
            self._closed = True
            for answer in self._waiting.values():
                answer.arrived.set()
            await trio.aclose_forcefully(self._stream)

    async def request(
        self,
        op: str,
        fields: Message | None = None,
        on_answer: Callable[[Message], None] | None = None,
    ) -> Message:
        """Ask and return the answer.

        Args:
            on_answer: called with a good answer before any later event is looked at.

        Raises:
            KeeperLost: the connection ended first.
            EngineUnavailable: the keeper cannot do it now.
            ExecutorError: it cannot be done.
        """
        self._last += 1
        number = self._last
        try:
            frame = encode({**(fields or {}), "id": number, "op": op})
        except FrameError as error:
            raise ExecutorError(f"the task's secrets and configs are too large: {error}") from error
        self._waiting[number] = answer = _Answer(on_answer)
        try:
            if self._closed:
                raise KeeperLost("the keeper ended")
            await self._send(frame)
            await answer.arrived.wait()
        finally:
            del self._waiting[number]
        if answer.message is None:
            raise KeeperLost("the keeper ended")
        return _unwrap(answer.message)

    async def _send(self, frame: bytes) -> None:
        try:
            await self._outbox.send(frame)
        except trio.BrokenResourceError as error:
            raise KeeperLost("the keeper ended") from error

    async def _send_all(self) -> None:
        try:
            async with self._frames:
                async for frame in self._frames:
                    await self._stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the receiving side sees the end too, and ends the session

    async def _receive_all(self) -> None:
        reader = FrameReader()
        try:
            while data := await self._stream.receive_some(READ_BYTES):
                for message in reader.feed(data):
                    self._take(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError, FrameError):
            return

    def _take(self, message: Message) -> None:
        if "id" not in message:
            self._on_event(message)
            return
        answer = self._waiting.get(message["id"])
        if answer is not None:
            answer.message = message
            if answer.on_answer is not None and "ok" in message:
                answer.on_answer(message["ok"])
            answer.arrived.set()


def _unwrap(message: Message) -> Message:
    error = message.get("error")
    if error is None:
        ok: Message = message["ok"]
        return ok
    if error["kind"] == "refused":
        raise ExecutorError(error["text"], exit_code=error["code"])
    raise EngineUnavailable(error["text"])
