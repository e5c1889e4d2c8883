"""Who leads, and passing on to it what only the leader can do.

Every manager answers every node: what it cannot do itself it passes on, once, with the certificate
of the node that asked. The leader judges that node as if it had asked directly.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ..ca.x509 import identity_of
from ..errors import NoLeader, Unimplemented
from ..model.codec import pack, unpack
from ..raft.message import NOBODY
from ..together import run_until_first
from .calls import FORWARD, Forwarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..ca.x509 import Identity
    from ..raft.runner import Runner
    from ..raft.transport import Transport
    from ..wire.link import CallMethod, Link

    Handler = Callable[["Identity | None", bytes], Awaitable[bytes]]

LEADER_WAIT_S = 10.0


class Leader:
    """The leader, wherever it is.

    Args:
        addresses: of the members, by number.
    """

    def __init__(
        self, runner: Runner, transport: Transport, addresses: Callable[[], Mapping[int, str]]
    ) -> None:
        self._runner = runner
        self._transport = transport
        self._addresses = addresses

    def is_elsewhere(self) -> bool:
        """True when another manager leads, as far as this one knows."""
        return not self._runner.leading and self._runner.leader not in (NOBODY, self._own())

    def address(self) -> str:
        """Return where another manager leads, if this one is in touch with it; else empty."""
        leader = self._runner.leader
        if not self.is_elsewhere() or self._transport.link_to(leader) is None:
            return ""
        return self._addresses().get(leader, "")

    async def link(self) -> Link:
        """Return the link to the manager that leads, waiting for an election to end.

        Raises:
            NoLeader: nobody leads, or this manager does, or the leader cannot be reached.
        """
        with trio.move_on_after(LEADER_WAIT_S):
            while not self._runner.leading:
                link = self._transport.link_to(self._runner.leader)
                if link is not None:
                    return link
                await self.wait_change()
        raise NoLeader

    async def wait_change(self) -> None:
        """Sleep until another leads, or a link to a manager came or went."""
        await run_until_first(
            self._runner.leadership_changed.wait, self._transport.links_changed.wait
        )

    def _own(self) -> int:
        return self._runner.status().id


class Forwarder:
    """Calls for the leader, from whichever manager they reach.

    Args:
        handlers: what the leader answers, by method.
    """

    def __init__(self, leader: Leader, runner: Runner, handlers: Mapping[str, Handler]) -> None:
        self._leader = leader
        self._runner = runner
        self._handlers = handlers

    def calls(self) -> dict[str, CallMethod]:
        """Return what the door serves."""
        served: dict[str, CallMethod] = {
            method: partial(self._serve, method) for method in self._handlers
        }
        return {**served, FORWARD: self._take}

    async def ask(self, method: str, body: bytes, certificate: bytes) -> bytes:
        """Have the leader answer a call, be it this manager or another; an election is waited for.

        Args:
            certificate: of the node that calls, in PEM or DER; empty for none.

        Raises:
            SwarmError: what the leader raised; NoLeader when there is none for too long.
        """
        link = await self._elsewhere()
        if link is None:
            return await self._answer(method, body, certificate)
        request = Forwarded(method=method, body=body, certificate=certificate)
        return await link.call(FORWARD, pack(request))

    async def _elsewhere(self) -> Link | None:
        """Return the link to the leader once there is one; None where it is this manager."""
        try:
            if not self._runner.leading:
                return await self._leader.link()
        except NoLeader:
            if not self._runner.leading:
                raise
        return None

    async def _serve(self, method: str, link: Link, body: bytes) -> bytes:
        return await self.ask(method, body, link.peer_certificate_der or b"")

    async def _take(self, _link: Link, body: bytes) -> bytes:
        request = unpack(body, Forwarded)
        if await self._elsewhere() is not None:
            raise NoLeader  # one hop is enough: whoever passed it on looks for the leader again
        return await self._answer(request.method, request.body, request.certificate)

    async def _answer(self, method: str, body: bytes, certificate: bytes) -> bytes:
        handler = self._handlers.get(method)
        if handler is None:
            raise Unimplemented(f"this manager offers no call {method}")
        return await handler(identity_of(certificate) if certificate else None, body)
