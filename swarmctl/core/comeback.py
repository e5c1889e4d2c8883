"""Coming back to a swarm with a certificate that has expired, at the daemon's start or later.

A manager helps itself from its own tables (``reissue.py``). Anybody else is given a new certificate
by a manager, for a join token of its role (decision 0008), and goes on under its own id. Until then
nothing of the node's stay is touched. It must not know tasks, or how a stay is lived.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import trio

from .ca import credentials as identity
from .ca.x509 import identity_of
from .errors import BadRequest, CertificateExpired, SwarmError
from .wire.address import parse_remote

if TYPE_CHECKING:
    from .clock import Clock
    from .member import Member
    from .model.request import JoinRequest
    from .statedir import StateDirectory, Stay

log = logging.getLogger(__name__)


class Comeback:
    """What this node can do about an expired certificate."""

    def __init__(self, state_dir: StateDirectory, clock: Clock) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._stopped: Stay | None = None

    def forget(self) -> None:
        """The stay is over: there is nothing to come back to."""
        self._stopped = None

    async def certified(self, stay: Stay) -> identity.Credentials:
        """Return the identity of a stay that was read from the disk.

        Raises:
            CertificateExpired: the text says what can be done. CertificateRefused: another reason.
        """
        self._stopped = None
        try:
            return stay.credentials(self._clock.now())
        except CertificateExpired as error:
            why = str(error)
        if stay.membership.raft_id:
            try:
                fresh = await trio.to_thread.run_sync(self._state_dir.reissue, stay)
                log.warning("%s; this manager has signed itself one for an hour", why)
                return fresh.credentials(self._clock.now())
            except SwarmError as error:
                why = f"{why}. This manager cannot sign itself another: {error}"
        self._stopped = stay
        raise CertificateExpired(_text(stay.material, why))

    def is_needed(self, member: Member | None) -> bool:
        """True if a join of this node means to come back with another certificate."""
        if member is None:
            return self._stopped is not None
        return not member.failure and member.credentials.has_expired(self._clock.now())

    def text_of(self, member: Member) -> str:
        """Return what is to be said of a stay whose certificate has expired; else empty."""
        if not self.is_needed(member):
            return ""
        why = member.agent.error if member.agent is not None else ""
        return _text(member.credentials.material, why)

    async def renew(self, request: JoinRequest, member: Member | None) -> None:
        """Get a new certificate by token, and put it where the old one was.

        Raises:
            SwarmError: no manager gave one; nothing changed.
        """
        if not request.RemoteAddrs:
            raise BadRequest("at least 1 RemoteAddr is required to join")
        managers = tuple(parse_remote(address) for address in request.RemoteAddrs)
        stopped = self._stopped
        if member is not None:
            expired = member.credentials.material
        else:
            assert stopped is not None
            expired = stopped.material
        now_ns = self._clock.now()
        material = await identity.come_back(managers, request.JoinToken, expired, now_ns)
        if member is not None:
            await identity.take(member.credentials, self._state_dir.path, material, now_ns)
            return
        assert stopped is not None
        again = tuple(dict.fromkeys((*managers, *stopped.membership.managers)))
        membership = msgspec.structs.replace(stopped.membership, managers=again)
        stay = stopped._replace(membership=membership, material=material)
        await trio.to_thread.run_sync(self._state_dir.store_again, stay)


def _text(material: identity.Material, why: str) -> str:
    """Say what can be done; the first words are Docker's."""
    role = identity_of(material.pair.cert_pem).role.value
    text = (
        "Swarm certificates have expired. To come back as the same node: `swarmctl join --token "
        f"TOKEN HOST:PORT` with the {role} token and the address of a manager; to give this node "
        "up, leave the swarm by force and join again."
    )
    return f"{text} ({why})" if why else text
