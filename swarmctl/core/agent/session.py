"""One connection to the leader's dispatcher at a time, made again whenever it ends.

Dials the managers it knows, the one that was just lost last. Whoever does not lead names the
leader, or keeps the agent waiting while one is elected, so a new leader is found within half a
second and one handshake each. Then the session registers, and carries assignments in and statuses
out.

Ending the session is its last word: a farewell, and the dispatcher ends the stream once it is in
the log. So a session outlives the cancellation of the daemon by up to a second.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..errors import LeaderElsewhere, RemoteProtocolError, SwarmError, Unavailable
from ..model.codec import pack
from ..model.endpoints import EndpointChanges
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
from ..together import run_until_first
from ..wire.link import LinkSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..ca.credentials import Credentials
    from ..wire.link import Link, Methods
    from ..wire.stream import LinkStream
    from .networking import Networking
    from .reporter import Reporter
    from .sampler import Sampler
    from .worker import Worker

BACK_OFF_FIRST_S = 0.1
BACK_OFF_MAX_S = 2.0
WELCOME_S = 10.0
DESCRIBE_EVERY_S = 5.0
RESTART_NS = 60_000_000_000
FAREWELL_S = 1.0
REDIRECTIONS_MAX = 3
PATIENCE = LinkSettings(connect_s=1.0, handshake_s=4.0, idle_s=1.0, pong_s=1.0)
"""An agent has other managers to try, and its tasks wait for a session."""

log = logging.getLogger(__name__)


class Session:
    """Keeps this node in session.

    Args:
        managers: addresses to dial, the best first, as known at that moment.
        describe: makes the registration; asked at each connection and every five seconds.
        on_news: told what a manager says beyond tasks.
        sampler: measures the tasks.
        methods: what managers may ask of this node over the same link.
        networking: told who is where; says what its kernel knows.

    Attributes:
        manager: address of the manager in session, or empty.
        error: why there is no session, or empty.
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
        sampler: Sampler,
        methods: Methods,
        networking: Networking,
    ) -> None:
        self._networking = networking
        self._credentials = credentials
        self._worker = worker
        self._reporter = reporter
        self._managers = managers
        self._describe = describe
        self._on_news = on_news
        self._sampler = sampler
        self._methods = methods
        self._stream: LinkStream | None = None
        self._stream_ended = trio.Event()
        self._heartbeat_s = 2.0
        self._retimed = trio.Event()
        self._lost = ""
        self._over = False
        self.manager = ""
        self.error = ""

    async def run(self) -> None:
        """Stay in session until cancelled, then say that this daemon restarts."""
        stay = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stay, stay, name="connection")
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(FAREWELL_S, shield=True):
                    await self.say_farewell(RESTART_NS)
                stay.cancel()

    async def say_farewell(self, back_within_ns: int) -> None:
        """End the session for good; returns once the dispatcher has noted it, or nobody listens.

        Args:
            back_within_ns: how long silence is expected, since the daemon only restarts; 0: the
                node goes.
        """
        self._over = True
        if self._stream is None:
            return
        try:
            await self._stream.send(pack(Farewell(back_within_ns=back_within_ns)))
            await self._stream_ended.wait()
        except SwarmError as error:
            log.debug("no farewell: %s", error)

    async def _stay(self, scope: trio.CancelScope) -> None:
        with scope:
            back_off_s = BACK_OFF_FIRST_S
            while True:
                for address in self._order():
                    began = trio.current_time()
                    await self._follow(address)
                    if self._over:
                        return
                    if trio.current_time() - began > BACK_OFF_MAX_S:
                        back_off_s = BACK_OFF_FIRST_S
                await trio.sleep(random.uniform(0, back_off_s))  # noqa: S311 - jitter
                back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)

    async def _follow(self, address: str) -> None:
        """Be in session with the manager at an address, or with the leader that it names."""
        for _ in range(REDIRECTIONS_MAX):
            if self._over:
                return
            try:
                await self._connect(address)
            except LeaderElsewhere as elsewhere:
                address = str(elsewhere)
                continue
            except SwarmError as error:
                self.error = str(error)
                log.info("no session with %s: %s", address, error)
            return

    def _order(self) -> list[str]:
        """Return the managers to try; the one that was just lost comes last.

        With its host it may have gone in silence, and dialling it would wait for nothing.
        """
        addresses = list(self._managers())
        if self._lost in addresses:
            addresses.remove(self._lost)
            addresses.append(self._lost)
        return addresses

    async def _connect(self, address: str) -> None:
        """Be in session with one manager until the link ends.

        Raises:
            SwarmError: why it ended.
        """
        self._lost = address
        link = await self._credentials.dial(address, PATIENCE)
        try:
            await run_until_first(
                partial(link.run, self._methods), partial(self._serve, link, address)
            )
        finally:
            self._stream = None
            self._stream_ended.set()
            self.manager = ""

    async def _serve(self, link: Link, address: str) -> None:
        """Register over a link, and live the session until it ends, which raises why."""
        changed = self._credentials.changed
        register = await self._describe()
        async with link.open_stream(SESSION_METHOD) as stream:
            welcome = await self._register(stream, register)
            self._stream, self._stream_ended = stream, trio.Event()
            self.manager, self.error = address, ""
            log.info("in session with %s", address)
            await self._take_news(welcome.news)
            await run_until_first(
                partial(self._listen, stream),
                partial(self._beat, stream),
                partial(self._describe_changes, stream, register, changed),
                partial(self._reporter.run, partial(_send, stream)),
                partial(self._networking.tell, partial(_send, stream)),
                partial(self._sampler.feed, partial(_send, stream)),
            )

    async def _register(self, stream: LinkStream, register: Register) -> Welcome:
        with trio.move_on_after(WELCOME_S):
            await _send(stream, register)
            answer = decode_from_dispatcher(await _receive(stream))
            if not isinstance(answer, Welcome):
                raise RemoteProtocolError(f"expected Welcome, got {type(answer).__name__}")
            return answer
        raise Unavailable(f"the manager did not register this node within {WELCOME_S:g} s")

    async def _listen(self, stream: LinkStream) -> None:
        expected = 1
        parts: list[Assignments] = []
        while True:
            message = decode_from_dispatcher(await _receive(stream))
            if isinstance(message, Assignments):
                if message.number != expected:
                    raise RemoteProtocolError(
                        f"expected assignments {expected}, got {message.number}: some were lost"
                    )
                expected += 1
                parts.append(message)
                if not message.more:
                    self._worker.apply(_joined(parts))
                    parts = []
            elif isinstance(message, EndpointChanges):
                self._networking.apply(message)
            elif isinstance(message, ReportTaken):
                self._reporter.taken(message.number)
            elif isinstance(message, News):
                await self._take_news(message.news)

    async def _take_news(self, news: NodeNews) -> None:
        self._heartbeat_s = news.heartbeat_ns / 1e9
        self._retimed.set()
        await self._on_news(news)

    async def _beat(self, stream: LinkStream) -> None:
        while True:
            self._retimed = trio.Event()
            with trio.move_on_after(self._heartbeat_s):
                await self._retimed.wait()  # a shorter period counts from now, not from the next
            await _send(stream, Heartbeat())

    async def _describe_changes(
        self, stream: LinkStream, told: Register, changed: trio.Event
    ) -> None:
        while True:
            with trio.move_on_after(DESCRIBE_EVERY_S if told.can_run else BACK_OFF_MAX_S):
                await changed.wait()  # which CA our certificate is from is told at once
            changed = self._credentials.changed
            now = await self._describe()
            if now != told:
                told = now
                message = Describe(
                    description=now.description,
                    can_run=now.can_run,
                    warning=now.warning,
                    carriage=now.carriage,
                )
                await _send(stream, message)


def _joined(parts: Sequence[Assignments]) -> Assignments:
    """Return the message that was sent in parts."""
    if len(parts) == 1:
        return parts[0]
    return Assignments(
        number=parts[-1].number,
        complete=parts[0].complete,
        put=tuple(task for part in parts for task in part.put),
        removed=tuple(task_id for part in parts for task_id in part.removed),
        secrets=tuple(secret for part in parts for secret in part.secrets),
        networks=tuple(network for part in parts for network in part.networks),
        configs=tuple(config for part in parts for config in part.configs),
        dropped=tuple(item_id for part in parts for item_id in part.dropped),
    )


async def _receive(stream: LinkStream) -> bytes:
    try:
        return await stream.receive()
    except trio.EndOfChannel:
        raise Unavailable("the manager ended the session") from None


async def _send(stream: LinkStream, message: FromAgent) -> None:
    await stream.send(pack(message))
