"""Everything that a stay in a swarm leaves in the state directory: made, read and forgotten whole.

A shell of blocking functions; callers use a thread, one at a time. The identity is written last and
removed first: whoever finds none is in no swarm, whatever else lies around. It must not know trio,
or what a stay is lived with.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from . import membership as member_file
from .agent.agent import Agent
from .agent.executor import NodeIdentity
from .ca import credentials as identity
from .ca import keyfiles
from .ca.x509 import identity_of
from .errors import StorageFailed, SwarmError
from .founding import make_cluster, restore_cluster
from .manager import state as manager_state
from .manager.state import LockState, owner_of
from .raft.seal import new_key
from .reissue import reissue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .ca.credentials import Material
    from .clock import Clock
    from .founding import NewCluster
    from .manager.backup import Head
    from .membership import Membership
    from .model.cluster import SwarmSpec
    from .model.request import InitRequest
    from .store.store import Store

log = logging.getLogger(__name__)


class Stay(NamedTuple):
    """What a node finds of its stay in a swarm.

    Attributes:
        passphrase: encrypts the node's key on the disk; empty unless this is a locked manager.
        unlock_key: what opened it.
    """

    membership: Membership
    material: Material
    passphrase: bytes = b""
    unlock_key: bytes | None = None

    def credentials(self, now_ns: int) -> identity.Credentials:
        """Return what this node proves itself with.

        Raises:
            CertificateRefused: the certificate does not, or no longer.
        """
        found = identity.Credentials(self.material, now_ns)
        found.passphrase, found.unlock_key = self.passphrase, self.unlock_key
        return found


class StateDirectory:
    """This node's part of the disk.

    Args:
        accept_moved_state: use it although it comes from another machine.
    """

    def __init__(
        self, path: Path, *, accept_moved_state: bool, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self.path = path
        self._accept_moved_state = accept_moved_state
        self._clock = clock
        self._new_id = new_id

    def found(self, request: InitRequest, spec: SwarmSpec, membership: Membership) -> Stay:
        """Make a cluster with this node as its only manager.

        Raises:
            StorageFailed: the disk refused; nothing is left.
        """
        self.forget()  # what an end in the middle of leaving may have left
        new = make_cluster(
            request,
            spec,
            membership,
            cluster_id=self._new_id(),
            node_id=self._new_id(),
            now_ns=self._clock.now(),
        )
        return self._found(new, membership)

    def restore(self, head: Head, store: Store, membership: Membership) -> Stay:
        """Make the cluster of a backup, with this node as its only manager.

        Raises:
            FailedPrecondition: the backup has no CA key.
            StorageFailed: the disk refused; nothing is left.
        """
        new = restore_cluster(store, membership, node_id=self._new_id(), now_ns=self._clock.now())
        self.forget()
        return self._found(new, membership, (head, store))

    def _found(
        self, new: NewCluster, membership: Membership, backup: tuple[Head, Store] | None = None
    ) -> Stay:
        identity_key = new_key() if new.unlock_key else b""
        try:
            manager_state.found(
                self.path,
                owner=owner_of(new.cluster_id, new.node_id),
                raft_id=membership.raft_id,
                founding=new.founding,
                unlock_key=new.unlock_key,
                identity_key=identity_key,
                backup=backup,
            )
            passphrase = manager_state.passphrase_of(identity_key)
            self._write(membership, new.material, passphrase)
        except BaseException:
            self.forget()
            raise
        return Stay(membership, new.material, passphrase, new.unlock_key or None)

    def found_anew(self, before: Membership, after: Membership, who: identity.Credentials) -> None:
        """Make this node the only manager of its cluster; see ``manager.state.force_new``.

        The place is written first. With its old number the new database would be one of a cluster
        that this node was removed from; with the new number the old database is one of a cluster
        that it is no member of yet, and the same command goes on.

        Args:
            before, after: its place; the member number is another one.

        Raises:
            StorageFailed: the disk refused; what was there before still is.
        """
        member_file.store(self.path, after)
        try:
            manager_state.force_new(
                self.path,
                owner=owner_of(who.cluster_id, who.node_id),
                raft_id=before.raft_id,
                sole=manager_state.Sole(who.node_id, after.raft_id, after.advertise_addr),
                now_ns=self._clock.now(),
                unlock_key=who.unlock_key,
            )
        except BaseException:
            member_file.store(self.path, before)
            raise

    def store(self, membership: Membership, material: Material) -> None:
        """Write what a node has that joined.

        Raises:
            StorageFailed: the disk refused; nothing is left.
        """
        self.forget()
        try:
            self._write(membership, material)
        except BaseException:
            self.forget()
            raise

    def store_place(self, membership: Membership) -> None:
        """Write where this node is now; the rest of its stay remains.

        Raises:
            StorageFailed: the disk refused; what was there before still is.
        """
        member_file.store(self.path, membership)

    def store_again(self, stay: Stay) -> None:
        """Write a new certificate of the same node, and its place; the rest of its stay remains.

        Raises:
            StorageFailed: the disk refused; what was there before still is.
        """
        member_file.store(self.path, stay.membership)
        identity.store(self.path, stay.material, stay.passphrase)

    def _write(self, membership: Membership, material: Material, passphrase: bytes = b"") -> None:
        self._bind_machine()
        member_file.store(self.path, membership)
        identity.store(self.path, material, passphrase)

    def load(self, unlock_key: bytes | None = None) -> Stay:
        """Read a stay back.

        Args:
            unlock_key: for a manager that is locked.

        Raises:
            IdentityMissing: this node is in no swarm.
            ManagerLocked: it is a locked manager and needs its key.
            InvalidUnlockKey: the key does not open it; nothing changed.
            IdentityBroken, CopiedState, StorageFailed: it is, and what there is cannot be used.
        """
        lock = LockState()
        if keyfiles.is_there(self.path):
            try:
                lock = manager_state.read_lock(self.path, unlock_key)
            except StorageFailed as error:  # then it is no manager; its tasks need not know
                log.warning("%s", error)
        material = identity.load(self.path, lock.passphrase)
        self._bind_machine()
        membership = member_file.load(self.path)
        self._settle(lock)
        return Stay(membership, material, lock.passphrase if lock.locked else b"", unlock_key)

    def reissue(self, expired: Stay) -> Stay:
        """Replace a manager's expired certificate by a short one that it signs itself.

        Raises:
            CertificateRefused: its tables do not allow that. StorageFailed: nor does the disk.
        """
        known = identity_of(expired.material.pair.cert_pem)
        material = reissue(
            self.path,
            expired.material,
            owner=owner_of(known.cluster_id, known.node_id),
            raft_id=expired.membership.raft_id,
            now_ns=self._clock.now(),
            unlock_key=expired.unlock_key,
        )
        identity.store(self.path, material, expired.passphrase)
        return expired._replace(material=material)

    def _settle(self, lock: LockState) -> None:
        """Make the key files what the database says: a crash may have come between them."""
        if keyfiles.is_sealed(self.path) != lock.locked:
            after = lock.passphrase if lock.locked else b""
            keyfiles.reseal_key(self.path, before=lock.passphrase, after=after)
        if lock.locked:
            manager_state.remove_key(self.path)

    def whose(self, hostname: str) -> NodeIdentity | None:
        """Return who this node is, by its certificate alone, though the rest may be damaged.

        Returns:
            None when not even that can be read.
        """
        try:
            known = identity_of(keyfiles.load_certificate(self.path))
        except SwarmError as error:
            log.warning("tasks of the swarm that this node leaves may run on: %s", error)
            return None
        return NodeIdentity(
            cluster_id=known.cluster_id,
            node_id=known.node_id,
            hostname=hostname,
            state_dir=str(self.path),
        )

    def forget(self) -> None:
        """Remove everything that a stay leaves, what makes this node a member first.

        Raises:
            StorageFailed: the disk refused; calling again continues.
        """
        keyfiles.remove(self.path)
        member_file.remove(self.path)
        manager_state.forget(self.path)
        Agent.forget(self.path)

    def _bind_machine(self) -> None:
        keyfiles.bind_machine(
            self.path, keyfiles.this_machine(), accept_moved_state=self._accept_moved_state
        )
