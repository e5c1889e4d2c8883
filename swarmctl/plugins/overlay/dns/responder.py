"""The responder's process: detach, take the place of who was there, listen, answer.

    python3 -I -c <program> <directory> <build> <settings>

One line on stdout says how it went: ``ready``, ``held`` (one of this build is there) or
``error: ...``. It ends when it is told to, when another has taken its sockets, or when its
directory is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from . import control
from .control import PlaceOnWire, Sockets, Status
from .handover import Held, take_lock
from .resolvconf import is_loopback
from .serve import Desk, HostServers
from .sockets import Pair, Place, boot_id, is_there, open_pair, places_of
from .state import ResponderState, decode
from .upstream import Upstreams
from .zone import Zone

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from trio.socket import SocketType

LINGER_S = 6.0  # longer than any question takes that is passed on
HANDOVER_S = 5.0
HOME_S = 5.0
"""How often we look whether our directory is still there."""
MAX_LOG_BYTES = 1024 * 1024
OOM_SCORE_ADJ = -900  # it is small, and without it no task finds another

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a test may want otherwise: ports, the host's file, how often we look after things."""

    gateway_port: int = 53
    upstream_port: int = 53
    resolv_conf: str = "/etc/resolv.conf"
    tend_s: float = 30.0
    retry_s: float = 2.0


class Opened:
    """A place where we listen.

    Attributes:
        reading: cancelling it ends the reading and closes nothing.
        ended: it has ended.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.reading = trio.CancelScope()
        self.ended = trio.Event()

    async def stop_reading(self) -> None:
        """Read no more; what was read is answered."""
        self.reading.cancel()
        await self.ended.wait()


class Responder:
    """Listens wherever the state says, and answers.

    Args:
        root: the responder's directory.
        build: which program this is.
        inherited: sockets of the responder before us.
    """

    def __init__(
        self, root: Path, build: str, settings: Settings, inherited: dict[Place, Pair]
    ) -> None:
        self._root = root
        self._home = root.stat()
        self._build = build
        self._settings = settings
        self._inherited = inherited
        self._state = ResponderState()
        self._open: dict[Place, Opened] = {}
        self._failed: dict[Place, str] = {}
        self._number = 0
        self._look = trio.Event()
        self._changed = trio.Event()
        self._sockets = trio.Lock()  # one at a time opens, closes or hands on

    async def run(self, listener: SocketType, *, on_ready: Callable[[], None], lock: int) -> None:
        """Serve until told to end.

        Args:
            on_ready: called once we listen wherever the state says.
            lock: closed as soon as another may serve.
        """
        async with trio.open_nursery() as answering:
            hosts = HostServers(Path(self._settings.resolv_conf))
            upstreams = Upstreams(port=self._settings.upstream_port)
            self._desk = Desk(upstreams, hosts, answering)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals, nursery.cancel_scope)
                nursery.start_soon(self._stay_home, nursery.cancel_scope)
                await self._load()
                await self._listen(nursery)
                nursery.start_soon(self._accept, listener, nursery)
                on_ready()
                await self._tend(nursery)
            listener.close()
            os.close(lock)
            # What was read is answered; who follows us has the sockets already.
            answering.cancel_scope.deadline = trio.current_time() + LINGER_S

    # --- the state, and where it makes us listen -------------------------------------------------

    async def _tend(self, nursery: trio.Nursery) -> None:
        """Look whether everything is as it should be: when told, and now and then."""
        settings = self._settings
        while True:
            with trio.move_on_after(settings.retry_s if self._failed else settings.tend_s):
                await self._look.wait()
            self._look = trio.Event()
            await self._listen(nursery)

    async def _stay_home(self, scope: trio.CancelScope) -> None:
        """End all when our directory is gone, or is another one in the same place.

        Who wiped it would else find our sockets in the way of the next responder's.
        """
        while True:
            await trio.sleep(min(HOME_S, self._settings.tend_s))
            if not await trio.to_thread.run_sync(self._is_home):
                logger.info("%s is gone, and so are we", self._root)
                scope.cancel()

    def _is_home(self) -> bool:
        try:
            return os.path.samestat(self._root.stat(), self._home)
        except OSError:
            return False

    async def _load(self) -> None:
        """Read the state anew; one that cannot be read changes nothing."""
        try:
            content = await trio.to_thread.run_sync((self._root / control.STATE).read_bytes)
            state = decode(content)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            logger.error("%s: %s", control.STATE, error)  # noqa: TRY400 - where it was is clear
            return
        if state.boot != boot_id():
            state = msgspec.structs.replace(state, clients=())  # of pids that mean others now
        self._state = state
        self._desk.zone = Zone(state, self._desk.zone)

    async def _listen(self, nursery: trio.Nursery) -> None:
        """Listen where we should and do not, and nowhere else."""
        async with self._sockets:
            await self._listen_now(nursery)
        self._tell()

    async def _listen_now(self, nursery: trio.Nursery) -> None:
        state = self._state
        wanted = dict.fromkeys(places_of(state, self._settings.gateway_port))
        for place in list(self._inherited):
            if place not in wanted:
                self._inherited.pop(place).close()
        for place in list(self._open):
            if place not in wanted or not is_there(place):
                opened = self._open.pop(place)
                await opened.stop_reading()
                opened.pair.close()
        failed = {}
        for place in wanted:
            if place not in self._open:
                try:
                    self._open[place] = await self._opened(place)
                except (ProcessLookupError, FileNotFoundError):
                    continue  # its client has ended, and nobody has told us yet
                except OSError as error:
                    failed[place] = f"DNS is not answered at {place}: {error.strerror or error}"
                    continue
                nursery.start_soon(self._read, place, self._open[place], name=f"read {place}")
        for place, text in failed.items():
            if place not in self._failed:
                logger.warning("%s", text)
        self._failed = failed
        self._number = state.number

    async def _opened(self, place: Place) -> Opened:
        pair = self._inherited.pop(place, None)
        return Opened(await trio.to_thread.run_sync(open_pair, place) if pair is None else pair)

    async def _read(self, place: Place, opened: Opened) -> None:
        datagram = trio.socket.from_stdlib_socket(opened.pair.datagram)
        stream = trio.socket.from_stdlib_socket(opened.pair.stream)
        try:
            with opened.reading:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._desk.serve_datagrams, place, datagram)
                    nursery.start_soon(self._desk.serve_streams, place, stream)
        finally:
            opened.ended.set()

    # --- those who are connected -----------------------------------------------------------------

    async def _accept(self, listener: SocketType, nursery: trio.Nursery) -> None:
        while True:
            sock, _ = await listener.accept()
            nursery.start_soon(self._serve_connection, sock, nursery)

    async def _serve_connection(self, sock: SocketType, nursery: trio.Nursery) -> None:
        """Tell one peer how we are, and do what it asks, until it goes.

        ``nursery`` is cancelled when we shall end.
        """
        with sock:
            if control.peer(sock)[1] not in (0, os.geteuid()):
                return
            async with trio.open_nursery() as own:
                own.start_soon(self._tell_status, sock)
                last = await self._do_requests(sock)
                own.cancel_scope.cancel()
            if last == control.HANDOVER:
                await self._hand_over(sock, nursery)
            elif last == control.QUIT:
                nursery.cancel_scope.cancel()

    async def _tell_status(self, sock: SocketType) -> None:
        while True:
            changed = self._changed
            with contextlib.suppress(OSError):  # it is gone, which the other side notices
                await sock.send(msgspec.json.encode(self._status()))
            await changed.wait()

    async def _do_requests(self, sock: SocketType) -> bytes:
        """Do what a peer asks; return its last request, which is not for this connection alone."""
        while True:
            try:
                request = await sock.recv(control.MAX_REQUEST_BYTES)
            except OSError:
                return b""
            if request == control.LOAD:
                await self._load()
                self._look.set()
            else:
                return request

    async def _hand_over(self, sock: SocketType, nursery: trio.Nursery) -> None:
        """Give our sockets to the responder at the other end, and end once it has them."""
        async with self._sockets:
            for opened in self._open.values():
                await opened.stop_reading()
            with contextlib.suppress(OSError), trio.move_on_after(HANDOVER_S):
                await self._send_sockets(sock)
                if await sock.recv(control.MAX_REQUEST_BYTES) == control.TAKEN:
                    logger.info("another responder has our sockets")
                    nursery.cancel_scope.cancel()
                    return
            logger.warning("another responder wanted our sockets and did not take them")
            for place, opened in list(self._open.items()):
                self._open[place] = again = Opened(opened.pair)
                nursery.start_soon(self._read, place, again, name=f"read {place}")

    async def _send_sockets(self, sock: SocketType) -> None:
        size = control.MAX_DESCRIPTORS // 2
        items = list(self._open.items())
        for start in range(0, max(1, len(items)), size):
            batch = items[start : start + size]
            packet = Sockets(
                places=tuple(PlaceOnWire(*place) for place, _ in batch),
                last=start + size >= len(items),
            )
            sockets = [one for _, opened in batch for one in opened.pair]
            data = msgspec.json.encode(packet)
            await sock.sendmsg([data], control.with_descriptors(sockets))

    def _status(self) -> Status:
        problems = [*self._failed.values(), *self._advice()]
        return Status(
            build=self._build,
            pid=os.getpid(),
            number=self._number,
            served=tuple(place.owner for place in self._open if place.inside),
            problems=tuple(problems[: control.MAX_PROBLEMS]),
            counts=dict(self._desk.counts),
        )

    def _advice(self) -> Iterator[str]:
        for client in self._state.clients:
            for server in filter(is_loopback, client.nameservers):
                yield (
                    f"{client.id} wants the DNS server {server} asked, which is in its own "
                    "namespace and is not asked; let the program itself ask it"
                )

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _watch_signals(self, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                logger.info("ended by %s", signal.Signals(number).name)
                scope.cancel()


# --- becoming the process -------------------------------------------------------------------------


def main() -> None:
    """Run as the responder of the directory in ``sys.argv``."""
    root, build = Path(sys.argv[1]), sys.argv[2]
    settings = msgspec.json.decode(sys.argv[3], type=Settings)
    os.umask(0o077)
    os.chdir(root)
    _open_log()
    try:
        lock, inherited = take_lock(root, build)
        listener = control.listen()
        _become_steady()
    except Held:
        _say("held")
        return
    except OSError as error:
        _say(f"error: {error}")
        raise
    responder = Responder(root, build, settings, inherited)
    logger.info("responder %s, pid %d, %d sockets inherited", build, os.getpid(), len(inherited))
    trio.run(_run, responder, listener, lock)


async def _run(responder: Responder, listener: socket.socket, lock: int) -> None:
    await responder.run(
        trio.socket.from_stdlib_socket(listener), on_ready=lambda: _say("ready"), lock=lock
    )


def _become_steady() -> None:
    """Ask the kernel to kill others first, and for as many sockets as we may have."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_log() -> None:
    """Log to a file that is kept small whatever we are asked. (Whoever started us set stderr.)"""
    handler = RotatingFileHandler(control.LOG, maxBytes=MAX_LOG_BYTES, backupCount=1)
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])


def _say(line: str) -> None:
    """Say the one line to whoever started us, and let go of the pipe."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())
    os.dup2(2, 1)
