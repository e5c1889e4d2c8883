"""A network in memory, under the real TLS and the real links: dialled, cut and silenced at will."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from swarmctl.core.wire import connect
from swarmctl.core.wire.connect import Unreachable, open_link

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    import pytest

    from swarmctl.core.wire.link import Link, LinkSettings

Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
DIALLER = "swarmctl.core.ca.credentials.dial"


class MemoryListener(trio.abc.Listener[Any]):
    """What a manager listens on. ``socket`` is what its owner closes."""

    def __init__(self) -> None:
        self.arriving, self._accepting = trio.open_memory_channel[Stream](100)
        self.socket = self

    async def accept(self) -> Stream:
        return await self._accepting.receive()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._accepting.close()


class MemoryNetwork:
    """Every host reaches every listener, unless it was told otherwise.

    Attributes:
        dialled: how often somebody dialled.
        reachable: False refuses new connections.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._listeners: dict[str, MemoryListener] = {}
        self._pairs: list[tuple[Stream, Stream]] = []
        self._addresses: dict[int, str] = {}
        self.dialled = 0
        self.reachable = True
        monkeypatch.setattr(DIALLER, self.dialler("10.0.0.1"))
        monkeypatch.setattr(connect, "peer_address", self._address_of)

    def listen(self, address: str) -> MemoryListener:
        """Return a listener at ``host:port``."""
        self._listeners[address] = listener = MemoryListener()
        return listener

    def dialler(self, source: str) -> Callable[..., Awaitable[Link]]:
        """Return a ``dial`` of a host at ``source``."""

        async def dial(
            host: str,
            port: int,
            context: ssl.SSLContext,
            *,
            server_hostname: str,
            settings: LinkSettings | None = None,
        ) -> Link:
            self.dialled += 1
            await trio.lowlevel.checkpoint()
            listener = self._listeners.get(f"{host}:{port}")
            if listener is None or not self.reachable:
                raise Unreachable(f"cannot reach {host}:{port}: nobody listens")
            ours, theirs = trio.testing.memory_stream_pair()
            self._pairs.append((ours, theirs))
            self._addresses[id(ours)] = f"{host}:{port}"
            self._addresses[id(theirs)] = f"{source}:{40000 + self.dialled}"
            try:
                listener.arriving.send_nowait(theirs)
            except trio.BrokenResourceError:
                raise Unreachable(f"cannot reach {host}:{port}: it closed") from None
            return await open_link(
                ours, context, dialling=True, server_hostname=server_hostname, settings=settings
            )

        return dial

    def cut(self) -> None:
        """Break all connections; both ends notice."""
        for pair in self._pairs:
            for stream in pair:
                stream.send_stream.send_all_hook = _break
                stream.receive_stream.put_eof()
        self._pairs.clear()

    def silence(self) -> None:
        """Lose whatever is sent on all present connections; nobody notices."""
        for pair in self._pairs:
            for stream in pair:
                stream.send_stream.send_all_hook = None
                stream.send_stream.close_hook = None  # which would deliver all of it at last

    def _address_of(self, stream: trio.abc.Stream) -> str:
        return self._addresses.get(id(stream), "nowhere:0")


async def _break() -> None:
    await trio.lowlevel.checkpoint()
    raise trio.BrokenResourceError("the connection was cut")
