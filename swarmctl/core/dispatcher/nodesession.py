"""One registered agent, as the dispatcher sees it: its stream, and what it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..model.codec import pack
from .assignments import EMPTY, NodeSet

if TYPE_CHECKING:
    from ..errors import SwarmError
    from ..model.session import FromDispatcher, NodeNews
    from ..wire.link import Link
    from ..wire.stream import LinkStream
    from .traffic import Carrier


class NodeSession:
    """One registered agent.

    Attributes:
        sent: what the agent holds by what it was sent.
        number: of the last assignments message.
        carrier: where it carries traffic.
        look: set when there may be something to send; with ``stale`` assignments too.
        over: the agent has said farewell, or was given up; the session is no sign of life any more.
    """

    def __init__(self, link: Link, stream: LinkStream, node_id: str, instance: str) -> None:
        self.link = link
        self.stream = stream
        self.node_id = node_id
        self.instance = instance
        self.sent: NodeSet = EMPTY
        self.number = 0
        self.carrier: Carrier | None = None
        self.news: NodeNews | None = None
        self.stale = True
        self.look = trio.Event()
        self.over = False
        self.scope = trio.CancelScope()
        self.end: SwarmError | None = None

    @property
    def period_s(self) -> float:
        """How often this agent was told to send something."""
        return self.news.heartbeat_ns / 1e9 if self.news is not None else 0.0

    def touch(self) -> None:
        """Have the sender look again at all there is."""
        self.stale = True
        self.look.set()

    def cut(self, reason: SwarmError) -> None:
        """End the session; the agent is told why."""
        self.end = self.end or reason
        self.scope.cancel()

    async def send(self, message: FromDispatcher) -> None:
        await self.stream.send(pack(message))
