"""A manager whose certificate expired while it was off signs itself a short one, from its tables.

Every manager holds the CA's key in its database, so this gives it nothing that it could not do; it
saves a swarm that was off as a whole, where nobody would be left to ask. The certificate is for an
hour: enough to be renewed in the ordinary way, which tells the tables of the new key.

A shell of blocking functions. It must not know trio, or how a node lives in its swarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ca.chain import verify_chain
from .ca.credentials import Material
from .ca.keyfiles import KeyPair
from .ca.signing import NodeRequest, sign_here
from .ca.x509 import HOUR_NS, Role, identity_of, new_key_and_csr
from .errors import CertificateExpired
from .manager.state import open_state
from .model.codec import decode_entry
from .raft.message import EntryKind
from .raft.storage import NO_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from .store.view import View


def reissue(
    state_dir: Path,
    expired: Material,
    *,
    owner: str,
    raft_id: int,
    now_ns: int,
    unlock_key: bytes | None = None,
) -> Material:
    """Return a certificate for an hour, for the manager whose state this is.

    Args:
        expired: what it has.
        owner, raft_id: of its database.
        unlock_key: opens that, if it is locked.

    Raises:
        CertificateExpired: its tables do not allow that; the text says why.
        StorageFailed: its database cannot be read.
        CertificateRefused: the roots on the disk are not those of the tables.
    """
    who = identity_of(expired.pair.cert_pem)
    view = _tables(state_dir, owner, raft_id, unlock_key)
    cluster, row = view.cluster(), view.node(who.node_id)
    if cluster is None or row is None or Role(row.private.role) is not Role.MANAGER:
        raise CertificateExpired("by its own tables this node is no manager of the swarm")
    key_pem, csr_pem = new_key_and_csr()
    request = NodeRequest(csr_pem, who.node_id, Role.MANAGER)
    chain = sign_here(cluster, request, now_ns, expiry_ns=HOUR_NS)
    if chain is None:
        raise CertificateExpired("the swarm's CA key is with an external CA")
    verify_chain(chain, expired.root_pem, now_ns=now_ns, cluster_id=who.cluster_id)
    return Material(expired.root_pem, KeyPair(chain, key_pem))


def _tables(state_dir: Path, owner: str, raft_id: int, unlock_key: bytes | None) -> View:
    """Read the tables as this manager's log makes them; what it did not see committed counts too.

    They are looked at and thrown away; consensus starts from the disk, as ever.
    """
    opened = open_state(state_dir, owner=owner, raft_id=raft_id, unlock_key=unlock_key)
    try:
        store, log = opened.store, opened.disk.log
        for entry in log.entries(store.index + 1, log.last_index() + 1, NO_LIMIT):
            if entry.kind is EntryKind.NORMAL and entry.data:
                store.apply(entry.index, decode_entry(entry.data))
            else:
                store.skip(entry.index)
    finally:
        opened.disk.close()
    return store.view
