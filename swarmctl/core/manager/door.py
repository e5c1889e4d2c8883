"""Who may come in by the node port, and what they may ask.

Every link from another node passes here: identified by its certificate, allowed by the node's
present role and membership in the tables, on every call. Without a certificate exactly two calls
are open. A node that is removed loses its live links within moments.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..ca.calls import ANONYMOUS
from ..ca.x509 import Identity, Role, identity_of
from ..errors import (
    MemberRemoved,
    NoLeader,
    PermissionDenied,
    Unauthenticated,
    WrongCluster,
    WrongRole,
)
from ..model.change import Kind
from ..raft.transport import RAFT, SHOWN, SNAPSHOT, decode_message
from ..wire.link import Methods
from .calls import FORWARD, JOIN, OUTPUT, RESIGN, ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from ..store.view import View
    from ..store.watch import Watch
    from ..wire.link import CallMethod, Link, MessageMethod, StreamMethod

CONSENSUS = frozenset({RAFT, SHOWN, SNAPSHOT})
"""What members of consensus say to each other. The tables do not decide about it: a manager that
has just joined has none, and one that was away may not know a new member that leads by now."""

MANAGERS_ONLY = frozenset({FORWARD, JOIN, OUTPUT, RESIGN, ROOM, "api"})

log = logging.getLogger(__name__)


class Door:
    """Identifies peers and serves them what this manager offers.

    Args:
        calls, streams, messages: by method name; they refuse by themselves what only a leader can
            do.
        removed: which member numbers are gone for good.
    """

    def __init__(
        self,
        view: View,
        watch: Watch,
        *,
        calls: Mapping[str, CallMethod],
        streams: Mapping[str, StreamMethod],
        messages: Mapping[str, MessageMethod],
        removed: Callable[[], Collection[int]],
    ) -> None:
        self._view = view
        self._watch = watch
        self._removed = removed
        guarded = {
            method: self._from_member(take) if method == RAFT else take
            for method, take in messages.items()
        }
        self._methods = Methods(
            calls=calls, streams=streams, messages=guarded, authorize=self._authorize
        )
        self._links: dict[str, dict[Link, None]] = {}

    async def welcome(self, link: Link) -> None:
        """Serve one link until it ends. For ``serve_links``.

        Raises:
            Unauthenticated, PermissionDenied: the peer is not let in; it is told why.
        """
        peer = self._identify(link)
        with self._registered(link, peer):
            await link.run(self._methods)

    @contextmanager
    def _registered(self, link: Link, peer: Identity | None) -> Iterator[None]:
        """Keep the link where it can be found for cutting it."""
        if peer is None:
            yield
            return
        links = self._links.setdefault(peer.node_id, {})
        links[link] = None
        try:
            yield
        finally:
            del links[link]
            if not links:
                self._links.pop(peer.node_id, None)

    def close_all(self, node_id: str, reason: str) -> None:
        """Close every link from one node."""
        for link in list(self._links.get(node_id, ())):
            link.close(PermissionDenied(reason))

    async def run(self) -> None:
        """Cut the links of nodes that are removed, until cancelled."""
        with self._watch.mailbox() as mailbox:
            while True:
                touched = mailbox.take()
                gone = (
                    list(self._links)
                    if touched is None
                    else [ref.id for ref in touched if ref.kind is Kind.NODE]
                )
                for node_id in gone:
                    if node_id in self._links and self._view.node(node_id) is None:
                        self.close_all(node_id, f"node {node_id} was removed from the swarm")
                await mailbox.wait()

    def _from_member(self, take: MessageMethod) -> MessageMethod:
        """Let nobody speak whose number was removed; such a peer is told, and its link closed."""

        def take_from_member(link: Link, body: bytes) -> None:
            sender = decode_message(body).sender
            if sender in self._removed():
                link.close(
                    MemberRemoved(f"member {sender} was removed from the managers of this swarm")
                )
                return
            take(link, body)

        return take_from_member

    def _identify(self, link: Link) -> Identity | None:
        """Return whom the peer's certificate proves; None for a peer without one."""
        certificate = link.peer_certificate_der
        if certificate is None:
            return None
        peer = identity_of(certificate)  # TLS has verified it up to our roots
        cluster = self._view.cluster()
        if cluster is not None and peer.cluster_id != cluster.api.ID:
            raise WrongCluster(
                f"the certificate of node {peer.node_id} is for cluster {peer.cluster_id}, "
                f"this is cluster {cluster.api.ID}"
            )
        return peer

    def _authorize(self, link: Link, method: str) -> None:
        """Decide one call.

        Raises:
            Unauthenticated: it needs a certificate and there is none.
            PermissionDenied: the node is not, or no longer, part of the swarm in that role.
        """
        if link.peer_certificate_der is None:
            if method not in ANONYMOUS:
                raise Unauthenticated(f"{method} needs a node certificate of this swarm")
            return
        peer = identity_of(link.peer_certificate_der)
        cluster = self._view.cluster()
        if method in CONSENSUS | MANAGERS_ONLY and peer.role is not Role.MANAGER:
            raise WrongRole(
                f"node {peer.node_id} shows a worker's certificate; {method} needs a manager's"
            )
        if method in CONSENSUS and (
            cluster is None or peer.node_id not in cluster.private.removed_nodes
        ):
            return
        if cluster is None:
            raise NoLeader
        row = self._view.node(peer.node_id)
        if row is None:
            removed = peer.node_id in cluster.private.removed_nodes
            raise PermissionDenied(
                f"node {peer.node_id} was removed from the swarm"
                if removed
                else f"node {peer.node_id} is not known in this swarm"
            )
        if method in MANAGERS_ONLY and row.private.role != Role.MANAGER.value:
            raise PermissionDenied(f"node {peer.node_id} is not a manager any more")
