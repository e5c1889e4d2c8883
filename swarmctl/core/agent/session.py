"""One connection to the leader's dispatcher at a time, made again whenever it ends.

Dials the managers it knows, the last good one first, registers, and then carries assignments in and
statuses out. Back-off starts small and stays under two seconds, so that a new leader is found
within half a second and a returning one not long after.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import trio

from ..ca.credentials import MANAGER_NAME, split_address
from ..errors import RemoteProtocolError, SwarmError
from ..model.codec import pack
from ..model.session import (
    SESSION_METHOD,
    Assignments,
    Describe,
    Farewell,
    FromAgent,
    Heartbeat,
    News,
    NodeNews,
    Register,
    ReportTaken,
    Welcome,
    decode_from_dispatcher,
)
from ..wire.connect import dial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..ca.credentials import Credentials
    from ..wire.link import Link, Methods
    from ..wire.stream import LinkStream
    from .reporter import Reporter
    from .worker import Worker

BACK_OFF_FIRST_S = 0.1
BACK_OFF_MAX_S = 2.0
DESCRIBE_EVERY_S = 20.0

log = logging.getLogger(__name__)


class Session:
    """Keeps this node in session.

    Args:
        managers: addresses to dial, the best first, as known at that moment.
        describe: makes the registration; asked at each connection and every twenty seconds.
        on_news: told what a manager says beyond tasks.
        methods: what managers may ask of this node over the same link.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        worker: Worker,
        reporter: Reporter,
        managers: Callable[[], Sequence[str]],
        describe: Callable[[], Awaitable[Register]],
        on_news: Callable[[NodeNews], Awaitable[None]],
        methods: Methods,
    ) -> None:
        self._credentials = credentials
        self._worker = worker
        self._reporter = reporter
        self._managers = managers
        self._describe = describe
        self._on_news = on_news
        self._methods = methods
        self._stream: LinkStream | None = None
        self._heartbeat_s = 2.0
        self._last_good = ""
        self.manager = ""
        self.error = ""

    async def run(self) -> None:
        """Stay in session until cancelled."""
        back_off_s = BACK_OFF_FIRST_S
        while True:
            for address in self._order():
                began = trio.current_time()
                try:
                    await self._connect(address)
                except SwarmError as error:
                    self.error = str(error)
                    log.info("no session with %s: %s", address, error)
                if trio.current_time() - began > BACK_OFF_MAX_S:
                    back_off_s = BACK_OFF_FIRST_S
            await trio.sleep(random.uniform(0, back_off_s))  # noqa: S311 - jitter
            back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)

    async def say_farewell(self, back_within_ns: int) -> None:
        """Tell the dispatcher that this daemon ends; no error when nobody listens."""
        if self._stream is None:
            return
        try:
            await self._stream.send(pack(Farewell(back_within_ns=back_within_ns)))
        except SwarmError as error:
            log.debug("no farewell: %s", error)

    def _order(self) -> list[str]:
        addresses = list(self._managers())
        if self._last_good in addresses:
            addresses.remove(self._last_good)
            addresses.insert(0, self._last_good)
        return addresses

    async def _connect(self, address: str) -> None:
        """Be in session with one manager until the link ends.

        Raises:
            SwarmError: why it ended.
        """
        host, port = split_address(address)
        link = await dial(
            host, port, self._credentials.client_context(), server_hostname=MANAGER_NAME
        )
        failure: SwarmError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_link, link)
            try:
                await self._serve(link, address)
            except SwarmError as error:
                failure = error
            finally:
                self._stream = None
                self.manager = ""
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _run_link(self, link: Link) -> None:
        try:
            await link.run(self._methods)
        except SwarmError as error:
            log.debug("link to %s ended: %s", link.peer_address, error)

    async def _serve(self, link: Link, address: str) -> None:
        register = await self._describe()
        async with link.open_stream(SESSION_METHOD) as stream:
            await stream.send(pack(register))
            welcome = decode_from_dispatcher(await _receive(stream))
            if not isinstance(welcome, Welcome):
                raise RemoteProtocolError(f"expected Welcome, got {type(welcome).__name__}")
            self._stream, self._last_good = stream, address
            self.manager, self.error = address, ""
            log.info("in session with %s", address)
            await self._take_news(welcome.news)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, stream)
                nursery.start_soon(self._describe_changes, stream, register)
                nursery.start_soon(self._reporter.run, lambda report: _send_or_wait(stream, report))
                try:
                    await self._listen(stream)
                finally:
                    nursery.cancel_scope.cancel()

    async def _listen(self, stream: LinkStream) -> None:
        expected = 1
        while True:
            message = decode_from_dispatcher(await _receive(stream))
            if isinstance(message, Assignments):
                if message.number != expected:
                    raise RemoteProtocolError(
                        f"assignments {expected} to {message.number - 1} were lost"
                    )
                expected += 1
                self._worker.apply(message)
            elif isinstance(message, ReportTaken):
                self._reporter.taken(message.number)
            elif isinstance(message, News):
                await self._take_news(message.news)

    async def _take_news(self, news: NodeNews) -> None:
        self._heartbeat_s = news.heartbeat_ns / 1e9
        await self._on_news(news)

    async def _beat(self, stream: LinkStream) -> None:
        while True:
            await trio.sleep(self._heartbeat_s)
            await _send_or_wait(stream, Heartbeat())

    async def _describe_changes(self, stream: LinkStream, told: Register) -> None:
        while True:
            await trio.sleep(DESCRIBE_EVERY_S if told.can_run else BACK_OFF_MAX_S)
            now = await self._describe()
            if now != told:
                told = now
                message = Describe(
                    description=now.description, can_run=now.can_run, warning=now.warning
                )
                await _send_or_wait(stream, message)


async def _receive(stream: LinkStream) -> bytes:
    try:
        return await stream.receive()
    except trio.EndOfChannel:
        raise RemoteProtocolError("the manager ended the session") from None


async def _send_or_wait(stream: LinkStream, message: FromAgent) -> None:
    """Send; when the link is gone, wait for the listener to find out why."""
    try:
        await stream.send(pack(message))
    except SwarmError:
        await trio.sleep_forever()
