"""Making a new cluster: its CA, its first manager's certificate, its first transaction.

It asks the operating system for randomness and nothing else; where the results are kept is the
caller's business. Defaults and checks of the spec are the API's.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from .ca.chain import tls_info
from .ca.credentials import Material
from .ca.issue import fresh_tokens, node_expiry_ns
from .ca.keyfiles import KeyPair
from .ca.server import new_node_row
from .ca.token import SECRET_BYTES, UNLOCK_KEY_BYTES
from .ca.x509 import Role, Signer, create_root, identity_of, new_key_and_csr, sign_node_certificate
from .clock import new_id
from .errors import FailedPrecondition
from .model.change import Create, Transaction, Update
from .model.cluster import ClusterInfo, ClusterPrivate, TLSInfo
from .model.network import first_networks
from .model.objects import ClusterRow

if TYPE_CHECKING:
    from .membership import Membership
    from .model.cluster import SwarmSpec
    from .model.objects import NodeRow
    from .model.request import InitRequest
    from .store.store import Store

DEFAULT_POOL = ("10.0.0.0/8",)
DEFAULT_SUBNET_SIZE = 24


class NewCluster(NamedTuple):
    """A cluster that does not exist anywhere yet."""

    cluster_id: str
    node_id: str
    founding: Transaction
    material: Material
    unlock_key: bytes = b""


def make_cluster(
    request: InitRequest,
    spec: SwarmSpec,
    membership: Membership,
    *,
    cluster_id: str,
    node_id: str,
    now_ns: int,
) -> NewCluster:
    """Make a swarm of one manager.

    Args:
        spec: complete, defaults filled in.
        membership: the first manager's place.
    """
    root = create_root(now_ns)
    key_pem, csr_pem = new_key_and_csr()
    chain = sign_node_certificate(
        Signer.from_pem(root.cert_pem, root.key_pem),
        csr_pem,
        node_id=node_id,
        role=Role.MANAGER,
        cluster_id=cluster_id,
        expiry_ns=node_expiry_ns(spec.CAConfig.NodeCertExpiry),
        now_ns=now_ns,
    )
    node = new_node_row(
        node_id,
        Role.MANAGER,
        availability=request.Availability or "active",
        public_key=identity_of(chain).key_fingerprint,
        raft_id=membership.raft_id,
        manager_addr=membership.advertise_addr,
    )
    trust = tls_info(root.cert_pem, chain)
    worker_token, manager_token = fresh_tokens(
        root.cert_pem,
        worker_secret=secrets.token_bytes(SECRET_BYTES),
        manager_secret=secrets.token_bytes(SECRET_BYTES),
    )
    unlock_key = new_unlock_key() if spec.EncryptionConfig.AutoLockManagers else b""
    cluster = ClusterRow(
        api=ClusterInfo(
            ID=cluster_id,
            Spec=spec,
            TLSInfo=TLSInfo(
                TrustRoot=trust.trust_root,
                CertIssuerSubject=trust.issuer_subject,
                CertIssuerPublicKey=trust.issuer_public_key,
            ),
            DataPathPort=membership.data_path_port,
            DefaultAddrPool=request.DefaultAddrPool or DEFAULT_POOL,
            SubnetSize=request.SubnetSize or DEFAULT_SUBNET_SIZE,
        ),
        private=ClusterPrivate(
            ca_cert=root.cert_pem.decode("ascii"),
            ca_key=root.key_pem.decode("ascii"),
            worker_token=worker_token,
            manager_token=manager_token,
            unlock_key=unlock_key,
        ),
    )
    founding = _first_transaction(cluster, node, now_ns)
    material = Material(root.cert_pem, KeyPair(chain, key_pem))
    return NewCluster(cluster_id, node_id, founding, material, unlock_key)


def _first_transaction(cluster: ClusterRow, node: NodeRow, now_ns: int) -> Transaction:
    networks = first_networks(new_id(), new_id(), new_id())
    changes = (Create(row=cluster), Create(row=node), *(Create(row=row) for row in networks))
    return Transaction(changes=changes, now=now_ns)


def restore_cluster(
    store: Store, membership: Membership, *, node_id: str, now_ns: int
) -> NewCluster:
    """Give a cluster out of a backup this node as its only manager.

    The managers of then become workers of the tables: they are told so when they come back, and
    none of them has a vote.

    Raises:
        FailedPrecondition: the backup has no CA key, so nobody can be certified.
    """
    cluster = store.view.cluster()
    assert cluster is not None  # the backup was checked
    private = cluster.private
    if not private.ca_key:
        raise FailedPrecondition(
            "the backup does not hold the key of the swarm's CA, which an external CA has: this "
            "node cannot be certified from it"
        )
    root_pem = private.ca_cert.encode("ascii")
    key_pem, csr_pem = new_key_and_csr()
    chain = sign_node_certificate(
        Signer.from_pem(root_pem, private.ca_key.encode("ascii")),
        csr_pem,
        node_id=node_id,
        role=Role.MANAGER,
        cluster_id=cluster.api.ID,
        expiry_ns=node_expiry_ns(cluster.api.Spec.CAConfig.NodeCertExpiry),
        now_ns=now_ns,
    )
    node = new_node_row(
        node_id,
        Role.MANAGER,
        availability="active",
        public_key=identity_of(chain).key_fingerprint,
        raft_id=membership.raft_id,
        manager_addr=membership.advertise_addr,
    )
    former = tuple(
        Update(row=_demoted(row)) for row in store.view.nodes() if row.private.role != "worker"
    )
    founding = Transaction(changes=(*former, Create(row=node)), now=now_ns)
    material = Material(root_pem, KeyPair(chain, key_pem))
    return NewCluster(cluster.api.ID, node_id, founding, material, private.unlock_key)


def _demoted(row: NodeRow) -> NodeRow:
    return replace(
        row,
        api=replace(row.api, Spec=replace(row.api.Spec, Role=Role.WORKER.value)),
        private=replace(row.private, role=Role.WORKER.value, raft_id=0, manager_addr=""),
    )


def new_unlock_key() -> bytes:
    """Return a fresh key encryption key for a cluster whose managers start locked."""
    return secrets.token_bytes(UNLOCK_KEY_BYTES)
