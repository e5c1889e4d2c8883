"""Has another manager lead, when this one ends or its disk takes no changes, so nobody waits.

A leader without room refuses every change, while one of the others may well have some. So it asks
them, the most caught up first, and hands over to the first that has room. It must not know what a
disk is, nor why this manager ends.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ..errors import SwarmError
from ..raft.message import Role
from .calls import ROOM

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..raft.runner import Runner
    from ..raft.transport import Transport
    from ..wire.link import CallMethod, Link

LOOK_S = 1.0
ANSWER_S = 1.0
TRANSFER_S = 2.0
PAUSE_S = 10.0

log = logging.getLogger(__name__)


class HandOver:
    """A manager's way of letting another one lead.

    Args:
        complaint: says why this manager's disk takes no changes now; empty while it does.
    """

    def __init__(self, runner: Runner, transport: Transport, complaint: Callable[[], str]) -> None:
        self._runner = runner
        self._transport = transport
        self._complaint = complaint

    def calls(self) -> dict[str, CallMethod]:
        """Return what other managers may ask."""
        return {ROOM: self._tell}

    async def give_up(self) -> None:
        """Have the most caught up of the others lead; returns when this manager does not.

        Does nothing without another voter within reach. A transfer may fail: use a time-out.
        """
        for member in self._able():
            await self._runner.transfer_leadership(member)
            return

    async def run(self) -> None:
        """Hand over as soon as this disk has no room and another's has, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            if self._complaint() and await self._to_one_with_room():
                await trio.sleep(PAUSE_S)  # it failed, or we would have been cancelled

    async def _to_one_with_room(self) -> bool:
        for member in self._able():
            if await self._has_room(member):
                log.warning("another manager shall lead: %s", self._complaint())
                with trio.move_on_after(TRANSFER_S):
                    await self._runner.transfer_leadership(member)
                return True
        return False

    async def _has_room(self, member: int) -> bool:
        link = self._transport.link_to(member)
        if link is None:
            return False
        try:
            with trio.fail_after(ANSWER_S):
                return await link.call(ROOM, b"") == b""
        except (SwarmError, trio.TooSlowError):
            return False

    def _able(self) -> list[int]:
        """Return the voters within reach that could lead, the most caught up first."""
        status = self._runner.status()
        if status.role is not Role.LEADER:
            return []
        membership = self._runner.membership
        voters = {*membership.voters, *membership.voters_outgoing} - {status.id}
        able = filter(self._transport.reachable, voters)
        return sorted(able, key=lambda member: -status.progress[member].match)

    async def _tell(self, _link: Link, _body: bytes) -> bytes:
        return self._complaint().encode()
