"""The CA as a manager offers it: hands out the root, lets newcomers in, renews members.

Runs while this manager leads; the signing key is in the replicated tables and nowhere else. The
token alone decides a newcomer's role, and the store's present role that of a renewal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import InvalidArgument, NoLeader, NotFound, Unauthenticated
from ..model.change import Conflict, Create, Transaction, Update
from ..model.codec import pack, unpack
from ..model.objects import Node, NodeDescription, NodePrivate, NodeRow, NodeSpec, NodeStatus
from .calls import ISSUE, RENEW, ROOT_CA, CertificateAnswer, IssueRequest, RenewRequest, RootAnswer
from .issue import admit, node_expiry_ns
from .x509 import Role, Signer, identity_of, sign_node_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..clock import Clock
    from ..manager.propose import Proposer
    from ..model.objects import ClusterRow
    from ..store.view import View
    from ..wire.link import Link
    from .x509 import Identity

AVAILABILITIES = ("active", "pause", "drain")


class CAServer:
    """Answers the CA's calls from the tables."""

    def __init__(
        self, view: View, proposer: Proposer, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._view = view
        self._proposer = proposer
        self._clock = clock
        self._new_id = new_id

    def calls(self) -> dict[str, Callable[[Link, bytes], Awaitable[bytes]]]:
        """Return what any manager answers by itself, by method name."""
        return {ROOT_CA: self._root_ca}

    def handlers(self) -> dict[str, Callable[[Identity | None, bytes], Awaitable[bytes]]]:
        """Return what the leader answers, by method name; they are told who calls."""
        return {ISSUE: self._issue, RENEW: self._renew}

    async def _root_ca(self, _link: Link, _body: bytes) -> bytes:
        return pack(RootAnswer(root_pem=self._cluster().private.ca_cert.encode()))

    async def _issue(self, _caller: Identity | None, body: bytes) -> bytes:
        request = unpack(body, IssueRequest)
        cluster = self._cluster()
        role = admit(
            request.token,
            worker=cluster.private.worker_token,
            manager=cluster.private.manager_token,
            retired=cluster.private.retired_tokens,
        )
        availability = request.availability or "active"
        if availability not in AVAILABILITIES:
            raise InvalidArgument(f'invalid Availability: "{availability}"')
        node_id = self._new_id()
        chain = self._sign(cluster, request.csr_pem, node_id, role)
        await self._admit(node_id, role, availability, chain)
        return self._answer(cluster, chain)

    async def _admit(self, node_id: str, role: Role, availability: str, chain: bytes) -> None:
        row = new_node_row(
            node_id, role, availability=availability, public_key=identity_of(chain).key_fingerprint
        )
        transaction = Transaction(changes=(Create(row=row),))
        result = (await self._proposer.propose([transaction]))[0]
        if isinstance(result, Conflict):
            raise InvalidArgument("the new node's id is taken; join again")

    async def _renew(self, caller: Identity | None, body: bytes) -> bytes:
        request = unpack(body, RenewRequest)
        if caller is None:
            raise Unauthenticated("renewing needs the certificate that is to be renewed")
        holder = caller
        cluster = self._cluster()
        row = self._view.node(holder.node_id)
        if row is None:
            raise NotFound(f"node {holder.node_id} is not part of this swarm any more")
        chain = self._sign(cluster, request.csr_pem, holder.node_id, Role(row.private.role))
        await self._note_key(holder.node_id, identity_of(chain).key_fingerprint)
        return self._answer(cluster, chain)

    async def _note_key(self, node_id: str, fingerprint: str) -> None:
        """Record the newest certificate's key; bookkeeping may race, so it is tried again."""
        while True:
            row = self._view.node(node_id)
            if row is None:
                raise NotFound(f"node {node_id} is not part of this swarm any more")
            changed = replace(row, private=replace(row.private, public_key=fingerprint))
            result = await self._proposer.propose([Transaction(changes=(Update(row=changed),))])
            if not isinstance(result[0], Conflict):
                return

    def _sign(self, cluster: ClusterRow, csr_pem: bytes, node_id: str, role: Role) -> bytes:
        private = cluster.private
        signer = Signer.from_pem(private.ca_cert.encode(), private.ca_key.encode())
        return sign_node_certificate(
            signer,
            csr_pem,
            node_id=node_id,
            role=role,
            cluster_id=cluster.api.ID,
            expiry_ns=node_expiry_ns(cluster.api.Spec.CAConfig.NodeCertExpiry),
            now_ns=self._clock.now(),
        )

    def _answer(self, cluster: ClusterRow, chain: bytes) -> bytes:
        return pack(CertificateAnswer(cert_pem=chain, root_pem=cluster.private.ca_cert.encode()))

    def _cluster(self) -> ClusterRow:
        cluster = self._view.cluster()
        if cluster is None:
            raise NoLeader
        return cluster


def new_node_row(
    node_id: str,
    role: Role,
    *,
    availability: str,
    public_key: str,
    raft_id: int = 0,
    manager_addr: str = "",
) -> NodeRow:
    """Return the row of a node that has a certificate and was not heard of yet."""
    return NodeRow(
        api=Node(
            ID=node_id,
            Spec=NodeSpec(Role=role.value, Availability=availability),
            Description=NodeDescription(),
            Status=NodeStatus(State="unknown", Message="waiting for the node to report"),
        ),
        private=NodePrivate(
            role=role.value, public_key=public_key, raft_id=raft_id, manager_addr=manager_addr
        ),
    )
