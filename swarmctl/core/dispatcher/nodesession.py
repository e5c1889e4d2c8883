"""One registered agent, as the dispatcher sees it: its stream, and what it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import RemoteProtocolError
from ..model.codec import pack
from ..model.session import Register, decode_from_agent
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
        warning: what the agent says does not work there, in a sentence; else empty.
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
        self.warning = ""
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


async def receive_register(stream: LinkStream) -> Register:
    """Return an agent's first word.

    Raises:
        RemoteProtocolError: it is another, or there is none.
    """
    try:
        first = decode_from_agent(await stream.receive())
    except trio.EndOfChannel:
        raise RemoteProtocolError("the session ended before it began") from None
    if not isinstance(first, Register):
        raise RemoteProtocolError(f"a session begins with Register, not {type(first).__name__}")
    return first
