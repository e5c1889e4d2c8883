"""One event stream for all containers of this node, instead of a waiting call for each.

Nothing is decided from an event: it rings a bell, and whoever waits for that container looks for
itself. So events may come twice, late, or be made up (after a break in the stream, and every half
minute, a list stands in for what may have been missed) and no exit is lost.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from swarmctl.plugins import EngineUnavailable

from .calls import Refused
from .inspection import is_ours
from .labels import owner_filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins import NodeIdentity

    from .calls import Engine, Stream
    from .inspection import Listed

logger = logging.getLogger(__name__)

RECHECK_S = 30.0
FIRST_RETRY_S = 0.1
MAX_RETRY_S = 2.0


class Bell:
    """Says "look again": rung any number of times, it wakes its waiter once."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake the waiter, now or when it comes to wait."""
        self._rung.set()

    async def wait(self) -> None:
        """Sleep until rung since the last call returned."""
        await self._rung.wait()
        self._rung = trio.Event()


class Observer:
    """Follows the engine's events and rings the bells of containers that something happened to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bells: dict[str, set[Bell]] = {}
        self._stream: Stream | None = None

    @contextmanager
    def bell(self, container_id: str) -> Iterator[Bell]:
        """Give a bell for one container. Take it first, look then, and wait last."""
        bell = Bell()
        self._bells.setdefault(container_id, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[container_id].discard(bell)
            if not self._bells[container_id]:
                del self._bells[container_id]

    async def run(self, identity: NodeIdentity) -> None:
        """Follow events until cancelled, through every absence of the engine."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recheck_forever, identity, name="recheck containers")
            await self._follow_forever(identity)

    async def containers(self, identity: NodeIdentity) -> list[Listed]:
        """List this node's containers, running or not.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        rows, _ = await self._list(identity)
        return rows

    async def _follow_forever(self, identity: NodeIdentity) -> None:
        retry_s = FIRST_RETRY_S
        said = ""
        while True:
            try:
                since = await self._look_at_all(identity)
                retry_s, said = FIRST_RETRY_S, ""
                await self._follow(identity, since)
            except (EngineUnavailable, Refused) as error:
                if said != (said := str(error)):  # once for each absence, not for each try
                    logger.warning("no events from the engine: %s", error)
            self._engine.forget_prefix()
            await trio.sleep(retry_s)
            retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _follow(self, identity: NodeIdentity, since: int) -> None:
        """Ring bells until the stream ends."""
        events = list(self._engine.dialect.events)
        filters = {"type": ["container"], "event": events, "label": owner_filter(identity)}
        query = {"filters": msgspec.json.encode(filters).decode(), "since": str(since)}
        async with self._engine.stream("/events", query) as self._stream:
            rest = b""
            try:
                async for piece in self._stream:
                    *complete, rest = (rest + piece).split(b"\n")
                    for row in complete:
                        self._ring_for(row)
            finally:
                self._stream = None

    async def _recheck_forever(self, identity: NodeIdentity) -> None:
        """Look at everything now and then; a stream that looks open may be of a dead engine."""
        while True:
            await trio.sleep(RECHECK_S)
            if self._stream is None:
                continue  # being opened again, which looks at everything too
            try:
                await self._look_at_all(identity)
            except (EngineUnavailable, Refused):
                if self._stream is not None:
                    self._stream.cut()

    async def _look_at_all(self, identity: NodeIdentity) -> int:
        """Ring for whatever may have changed unseen. Returns the engine's time, in seconds.

        Events since that time repeat some of what was looked at; none is missed.
        """
        listed, now = await self._list(identity)
        quiet = {row.container_id for row in listed if row.is_running and not row.verdict}
        for container_id in list(self._bells.keys() - quiet):
            self.ring(container_id)
        return now

    async def _list(self, identity: NodeIdentity) -> tuple[list[Listed], int]:
        filters = msgspec.json.encode({"label": owner_filter(identity)}).decode()
        try:
            answer = await self._engine.ask(
                "GET", "/containers/json", query={"all": "1", "filters": filters}
            )
        except Refused as error:
            raise EngineUnavailable(f"the engine cannot list containers: {error}") from error
        rows: list[dict[str, Any]] = msgspec.json.decode(answer.body)
        engine_time = parsedate_to_datetime(answer.headers["Date"])  # its clock, not ours
        listed = self._engine.dialect.listed
        ours = [listed(row) for row in rows if is_ours(row.get("Labels") or {}, identity)]
        return ours, int(engine_time.timestamp())

    def _ring_for(self, row: bytes) -> None:
        if row.strip():
            self.ring(msgspec.json.decode(row)["Actor"]["ID"])

    def ring(self, container_id: str) -> None:
        """Have whoever waits for a container look again."""
        for bell in self._bells.get(container_id, ()):
            bell.ring()
