"""A node's live links, which end when the roots that it trusts vouch for their peers no more.

TLS judges a certificate once, when a link is made. When a rotation ends, every node has a
certificate of the new root, but links go on that were made with one of the old: by nodes, which
only have to connect again, and perhaps by somebody who has the old root's key. So when the trusted
roots change, each link's peer is judged anew, dialled and accepted ones alike.

Laws:

- A peer that only the old root vouches for is told, and its link ends. It may connect again.
- Nothing else is judged here: who may still take part is the tables' business, and a certificate
  that expired meanwhile opens no further link by itself.
- A few at a time: ten thousand nodes do not come back in one instant.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Final

import trio

from ..errors import CertificateRefused, Unauthenticated, UnknownAuthority
from .chain import verify_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..clock import Clock
    from ..wire.link import Link

AT_ONCE: Final = 50
PAUSE_S: Final = 0.1

log = logging.getLogger(__name__)


class LiveLinks:
    """The links of one node, for as long as anybody runs them."""

    def __init__(self) -> None:
        # Weak, for a link's end is known to whoever runs it; closing one that has ended is nothing.
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()

    def add(self, link: Link) -> Link:
        """Judge this link too from now on; return it."""
        self._links.add(link)
        return link

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._links))

    async def run(self, roots: Callable[[], tuple[bytes, trio.Event]], clock: Clock) -> None:
        """Judge all links whenever the roots are others, until cancelled.

        Args:
            roots: returns the trusted roots, and what is set when they may be others.
        """
        known, _ = roots()
        while True:
            root_pem, changed = roots()
            if root_pem != known:
                known = root_pem
                await self._judge(root_pem, clock)
                continue  # they may have changed meanwhile
            await changed.wait()

    async def _judge(self, root_pem: bytes, clock: Clock) -> None:
        cut = 0
        for link in self:
            await trio.lowlevel.checkpoint()
            if is_vouched_for(link, root_pem, clock.now()):
                continue
            link.close(
                Unauthenticated(
                    "the swarm's root CA was changed: connect again, with a certificate of the "
                    "new one"
                )
            )
            cut += 1
            if cut % AT_ONCE == 0:
                await trio.sleep(PAUSE_S)
        if cut:
            log.info("%d links ended that were made with a certificate of the old root CA", cut)


def is_vouched_for(link: Link, root_pem: bytes, now_ns: int) -> bool:
    """Return whether a link's peer, if it showed a certificate, has one that these roots signed."""
    if link.peer_certificate_der is None:
        return True
    try:
        verify_chain(link.peer_certificate_der, root_pem, now_ns=now_ns)
    except UnknownAuthority:
        return False
    except CertificateRefused:
        return True  # it is of these roots, and something else of it is the matter
    return True
