"""The daemon's side: writes down what shall be answered, and sees to it that somebody answers.

The responder outlives the daemon, and the next daemon's link finds it, its files and its sockets as
they are; one of another build is followed by ours, which gets the sockets. A responder that dies is
followed at once, with the same state. Only :meth:`ResponderLink.remove` ends one for good.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import trio

from swarmctl.core.model.endpoints import EMPTY_TABLE

from .control import LOAD, MAX_PACKET_BYTES, QUIT, STATE, Status, connect, decode_packet
from .sockets import boot_id, start_of
from .spawn import ResponderUnavailable, build, spawn_responder
from .state import decode, encode, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.socket import SocketType

    from swarmctl.core.agent.network import Sandbox
    from swarmctl.core.model.endpoints import EndpointTable

    from .responder import Settings

FOLDER = "dns"
CONNECT_S = 2.0
QUIT_S = 5.0
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0
SPAWNS = 3  # in a row, when what was started cannot be reached


class ResponderLink:
    """Keeps one responder, and keeps it informed.

    Args:
        state_dir: the node's; everything of the responder lies in ``dns`` below it.
        settings: for tests.

    Attributes:
        served: ids of the sandboxes that are answered inside of their namespaces: whatever they
            send to ``sockets.INSIDE_ADDRESS`` and ``INSIDE_PORT`` there.
        counts: of questions, by what became of them, as the responder said last.
    """

    def __init__(self, state_dir: Path, *, settings: Settings | None = None) -> None:
        self.served: frozenset[str] = frozenset()
        self.counts: dict[str, int] = {}
        self._root = state_dir.absolute() / FOLDER
        self._settings = settings
        self._table = EMPTY_TABLE
        self._sandboxes: tuple[Sandbox, ...] = ()
        self._number = 0  # of the newest state that was wanted
        self._written = 0
        self._earlier = 0  # the one that the daemon before wrote
        self._told = 0  # the one that the responder listens for
        self._failure = ""
        self._problems: tuple[str, ...] = ()
        self._needed = False
        self._wanted = trio.Event()
        self._changed = trio.Event()
        self._files = trio.Lock()

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences: why names are not answered, or not everywhere."""
        return (self._failure, *self._problems) if self._failure else self._problems

    @property
    def is_current(self) -> bool:
        """Does a responder answer from what was wanted last, wherever it shall?"""
        return self._told == self._number and not self._failure

    def want(self, table: EndpointTable, sandboxes: Sequence[Sandbox]) -> None:
        """Say what shall be answered from now on, and for whom. Returns at once."""
        self._table, self._sandboxes = table, tuple(sandboxes)
        self._number += 1
        self._needed = self._needed or any(not one.network.ingress for one in table.networks)
        self._wanted.set()
        self._wanted = trio.Event()

    async def wait_current(self) -> None:
        """Sleep until :attr:`is_current`. (Nothing is served on a node without networks.)"""
        while self._needed and not self.is_current:
            await self._changed.wait()

    async def wait_news(self) -> None:
        """Sleep until the responder says something, or cannot be heard any more."""
        await self._changed.wait()

    async def wait_served(self, sandbox_id: str) -> None:
        """Sleep until a sandbox that was wanted is answered in its namespace."""
        while sandbox_id not in self.served:
            await self._changed.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a responder, from the first network on, until cancelled; which leaves it."""
        await trio.to_thread.run_sync(self._find_earlier)
        if self._needed:
            await self._hear_earlier()
        task_status.started()
        pause_s = RETRY_FIRST_S
        while True:
            while not self._needed:
                await self._wanted.wait()
            try:
                with await self._connected() as sock:
                    await self._keep_informed(sock)
                pause_s = RETRY_FIRST_S
                if self._needed:
                    self._say_failure("the DNS responder ended; another one is started")
            except (OSError, ResponderUnavailable) as error:
                self._say_failure(str(error))
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def remove(self) -> None:
        """End the responder and remove all that is its. A later ``want`` begins anew."""
        self._needed = False
        self.want(EMPTY_TABLE, ())
        with contextlib.suppress(OSError), trio.move_on_after(QUIT_S):
            await self._quit()
        async with self._files:
            await trio.to_thread.run_sync(lambda: shutil.rmtree(self._root, ignore_errors=True))
            self._written = 0
        self._failure, self._problems, self.served = "", (), frozenset()

    async def _quit(self) -> None:
        with await self._connect() as sock:
            await sock.send(QUIT)
            while await sock.recv(MAX_PACKET_BYTES):
                pass

    # --- the connection --------------------------------------------------------------------------

    async def _connected(self) -> SocketType:
        """Return a connection to a responder of this build, which is started if need be.

        Raises:
            OSError: it cannot be reached.
            ResponderUnavailable: it cannot be started.
        """
        if self._written != self._earlier:
            self._written = 0  # its file may be gone, and with it who answered from it
        await self._write()
        for _ in range(SPAWNS):
            try:
                sock = await self._connect()
            except (FileNotFoundError, ConnectionRefusedError, TimeoutError):
                pass
            else:
                if await self._greet(sock):
                    return sock
            await spawn_responder(self._root, self._settings)
        raise ResponderUnavailable(f"the DNS responder of {self._root} cannot be reached")

    async def _hear_earlier(self) -> None:
        """Ask a responder that is there whom it serves, so that nobody takes their way to it."""
        with trio.move_on_after(CONNECT_S), contextlib.suppress(OSError):
            with await self._connect() as sock:
                status = _status(await sock.recv(MAX_PACKET_BYTES))
            if status is not None:
                self.served = frozenset(status.served)

    async def _connect(self) -> SocketType:
        sock = await trio.to_thread.run_sync(connect, self._root, CONNECT_S)
        return trio.socket.from_stdlib_socket(sock)

    async def _greet(self, sock: SocketType) -> bool:
        """Return whether a responder of this build is at the other end; else close."""
        status = None
        try:
            with trio.move_on_after(CONNECT_S):
                status = _status(await sock.recv(MAX_PACKET_BYTES))
                if status is not None and status.build == build():
                    self._take(status)
                    return True
                await sock.send(LOAD)  # should ours not start, this one knows what we know
        finally:
            if status is None or status.build != build():
                sock.close()
        return False

    async def _keep_informed(self, sock: SocketType) -> None:
        """Tell the responder of every change, and hear how it is, until the connection ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_changes, sock)
            while True:
                try:
                    status = _status(await sock.recv(MAX_PACKET_BYTES))
                except OSError:
                    status = None
                if status is None:
                    break
                self._take(status)
            nursery.cancel_scope.cancel()

    async def _tell_changes(self, sock: SocketType) -> None:
        while True:
            wanted = self._wanted
            try:
                await self._write()
                await sock.send(LOAD)
            except OSError as error:
                self._say_failure(f"{self._root}: {error.strerror or error}")
                await trio.sleep(RETRY_MAX_S)
                continue
            await wanted.wait()

    def _take(self, status: Status) -> None:
        self.served = frozenset(status.served)
        self.counts = status.counts
        self._problems = status.problems
        self._told = status.number
        self._failure = ""
        self._wake()

    def _say_failure(self, text: str) -> None:
        self._failure = text
        self.served = frozenset()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- the file --------------------------------------------------------------------------------

    def _find_earlier(self) -> None:
        """Go on counting where the last daemon stopped; what it wrote is served until we know."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            state = decode((self._root / STATE).read_bytes())
            self._written = self._earlier = state.number
            self._number += state.number  # more than that if something was wanted already
            self._needed = self._needed or bool(state.networks)

    async def _write(self) -> None:
        async with self._files:
            if self._needed and self._written != self._number:
                number = self._number
                await trio.to_thread.run_sync(
                    self._write_state, number, self._table, self._sandboxes
                )
                self._written = number

    def _write_state(
        self, number: int, table: EndpointTable, sandboxes: tuple[Sandbox, ...]
    ) -> None:
        state = state_of(table, sandboxes, number=number, boot=boot_id(), start_of=start_of)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._root / f"{STATE}.{os.getpid()}.new"
        # Whole or not at all. It need not survive a power cut: then nothing runs that would ask.
        fresh.write_bytes(encode(state))
        fresh.replace(self._root / STATE)


def _status(data: bytes) -> Status | None:
    """Return what a packet says of the responder; None at the connection's end."""
    if not data:
        return None
    try:
        packet = decode_packet(data)
    except msgspec.DecodeError:
        return None  # it is of another build, and will be followed by ours
    return packet if isinstance(packet, Status) else None
