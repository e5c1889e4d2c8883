"""The CA as a manager offers it: hands out the root, lets newcomers in, renews members.

Runs while this manager leads; the signing key is in the replicated tables, or with an external CA
that is asked first. The token alone decides a newcomer's role, and the store's present role that of
a renewal. Who asks is an argument, since another manager may have passed the request on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import (
    CertificateRefused,
    InvalidArgument,
    NoLeader,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from ..model.change import Conflict, Create, Transaction, Update
from ..model.codec import pack, unpack
from ..model.objects import (
    Node,
    NodeDescription,
    NodePrivate,
    NodeRow,
    NodeSpec,
    NodeStatus,
)
from .calls import ISSUE, RENEW, ROOT_CA, CertificateAnswer, IssueRequest, RenewRequest, RootAnswer
from .cfssl import ExternalCAFailed, node_request
from .external import ExternalCAs
from .issue import admit, require_role
from .returning import who_returns
from .signing import NodeRequest, accept_foreign, externals_of, issuer_of, sign_here
from .x509 import Role, identity_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..clock import Clock
    from ..manager.propose import Proposer
    from ..model.objects import ClusterRow
    from ..store.view import View
    from ..wire.link import Link
    from .credentials import Credentials
    from .x509 import Identity

AVAILABILITIES = ("active", "pause", "drain")

log = logging.getLogger(__name__)


class CAServer:
    """Answers the CA's calls from the tables.

    Args:
        credentials: this manager's own, shown to external CAs.
    """

    def __init__(
        self,
        view: View,
        proposer: Proposer,
        clock: Clock,
        new_id: Callable[[], str],
        credentials: Credentials,
    ) -> None:
        self._view = view
        self._proposer = proposer
        self._clock = clock
        self._new_id = new_id
        self.external = ExternalCAs(credentials)

    def calls(self) -> dict[str, Callable[[Link, bytes], Awaitable[bytes]]]:
        """Return what any manager answers by itself, by method name."""
        return {ROOT_CA: self._root_ca}

    def handlers(self) -> dict[str, Callable[[Identity | None, bytes], Awaitable[bytes]]]:
        """Return what the leader answers, by method name; they are told who calls."""
        return {ISSUE: self._issue, RENEW: self._renew}

    async def _root_ca(self, _link: Link, _body: bytes) -> bytes:
        """Hand out the root that is trusted, to anybody."""
        return pack(RootAnswer(root_pem=self._cluster().private.ca_cert.encode()))

    async def _issue(self, _caller: Identity | None, body: bytes) -> bytes:
        """Let a newcomer in by its token, or a member back whose certificate has expired.

        Raises:
            InvalidJoinToken: no such door. PermissionDenied: who asks may not come back.
            Unavailable: nobody could sign; trying again can help.
        """
        request = unpack(body, IssueRequest)
        cluster = self._cluster()
        role = admit(
            request.token,
            worker=cluster.private.worker_token,
            manager=cluster.private.manager_token,
            retired=cluster.private.retired_tokens,
        )
        if request.old_chain_pem:
            return await self._let_back(request, role)
        availability = request.availability or "active"
        if availability not in AVAILABILITIES:
            raise InvalidArgument(f'invalid Availability: "{availability}"')
        node_id = self._new_id()
        chain = await self._sign(NodeRequest(request.csr_pem, node_id, role))
        await self._admit(node_id, role, availability, chain)
        return self._answer(chain)

    async def _renew(self, caller: Identity | None, body: bytes) -> bytes:
        """Give a member a new certificate, in the role that it has now.

        Raises:
            NotFound: the node was removed.
            Unavailable: nobody could sign; trying again can help.
        """
        request = unpack(body, RenewRequest)
        if caller is None:
            raise Unauthenticated("renewing needs the certificate that is to be renewed")
        row = self._member(caller.node_id)
        chain = await self._sign(
            NodeRequest(request.csr_pem, caller.node_id, Role(row.private.role))
        )
        await self._note_key(caller, chain)
        return self._answer(chain)

    async def _let_back(self, request: IssueRequest, role: Role) -> bytes:
        """Give a member a new certificate that can show only an expired one.

        It has to show more than a newcomer: a token of its present role, the old certificate, and
        that it holds the old key, which must be the last one that we know to be in its hands.
        """
        cluster = self._cluster()
        holder = who_returns(request, cluster.private.ca_cert.encode(), cluster.api.ID)
        row = self._view.node(holder.node_id)
        if row is None:
            raise PermissionDenied(
                f"node {holder.node_id} is not part of this swarm any more; leave the swarm "
                "there by force and join as a new node"
            )
        require_role(holder.node_id, role, Role(row.private.role))
        if holder.key_fingerprint not in (row.private.public_key, row.private.previous_key):
            raise PermissionDenied(
                f"node {holder.node_id} has had a newer certificate than the one shown: this is an "
                "old copy of its state. Leave the swarm there by force and join as a new node"
            )
        chain = await self._sign(NodeRequest(request.csr_pem, holder.node_id, role))
        await self._note_key(holder, chain)
        log.warning("node %s came back by token: its certificate had expired", holder.node_id)
        return self._answer(chain)

    async def _admit(self, node_id: str, role: Role, availability: str, chain: bytes) -> None:
        row = new_node_row(
            node_id, role, availability=availability, public_key=identity_of(chain).key_fingerprint
        )
        transaction = Transaction(changes=(Create(row=row),))
        result = (await self._proposer.propose([transaction]))[0]
        if isinstance(result, Conflict):
            raise InvalidArgument("the new node's id is taken; join again")

    async def _note_key(self, holder: Identity, chain: bytes) -> None:
        """Record the newest certificate's key, and the one that asked for it.

        The answer may be lost, and then the older key is all that the node has. Bookkeeping may
        race, so it is tried again.
        """
        fingerprint = identity_of(chain).key_fingerprint
        while True:
            row = self._member(holder.node_id)
            private = replace(
                row.private, public_key=fingerprint, previous_key=holder.key_fingerprint
            )
            changed = Transaction(changes=(Update(row=replace(row, private=private)),))
            if not isinstance((await self._proposer.propose([changed]))[0], Conflict):
                return

    # --- signing ---

    async def _sign(self, request: NodeRequest) -> bytes:
        """Sign by an external CA if one is configured, else, or if it cannot, by our own key.

        Raises:
            ExternalCAFailed: nobody signed.
        """
        cluster = self._cluster()
        failure: ExternalCAFailed | None = None
        if cluster.api.Spec.CAConfig.ExternalCAs:
            try:
                return await self._sign_outside(cluster, request)
            except ExternalCAFailed as error:
                log.warning("certificate of node %s: %s", request.node_id, error)
                failure = error
        chain = sign_here(cluster, request, self._clock.now())
        if chain is None:
            raise failure or ExternalCAFailed(
                "this swarm's CA key is with an external CA, and none is configured"
            )
        return chain

    async def _sign_outside(self, cluster: ClusterRow, request: NodeRequest) -> bytes:
        private = cluster.private
        issuer = issuer_of(private)
        among = externals_of(cluster.api.Spec.CAConfig, issuer.cert, private.ca_cert)
        if not among:
            raise ExternalCAFailed("no external CA is configured for the CA that signs now")
        answer = await self.external.sign(
            among, node_request(request, cluster.api.ID), private.ca_cert + issuer.cert
        )
        try:
            return accept_foreign(answer, cluster, request, self._clock.now())
        except CertificateRefused as error:
            raise ExternalCAFailed(
                f"what the external CA signed cannot be used: {error}"
            ) from error

    def _answer(self, chain: bytes) -> bytes:
        root_pem = self._cluster().private.ca_cert.encode()
        return pack(CertificateAnswer(cert_pem=chain, root_pem=root_pem))

    def _member(self, node_id: str) -> NodeRow:
        row = self._view.node(node_id)
        if row is None:
            raise NotFound(f"node {node_id} is not part of this swarm any more")
        return row

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
