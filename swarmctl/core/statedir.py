"""Everything that a stay in a swarm leaves in the state directory: made, read and forgotten whole.

A shell of blocking functions; callers use a thread, one at a time. The identity is written last and
removed first: whoever finds none is in no swarm, whatever else lies around. It must not know trio,
or what a stay is lived with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import membership as member_file
from .agent.agent import Agent
from .agent.executor import NodeIdentity
from .ca import credentials as identity
from .ca import keyfiles
from .ca.x509 import identity_of
from .founding import make_cluster
from .manager import state as manager_state
from .member import owner_of
from .reissue import reissue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .ca.credentials import Material
    from .ca.x509 import Identity
    from .clock import Clock
    from .membership import Membership
    from .model.cluster import SwarmSpec
    from .model.request import InitRequest


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

    def found(self, request: InitRequest, spec: SwarmSpec, membership: Membership) -> Material:
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
        try:
            manager_state.found(
                self.path,
                owner=owner_of(new.cluster_id, new.node_id),
                raft_id=membership.raft_id,
                founding=new.founding,
            )
            self._write(membership, new.material)
        except BaseException:
            self.forget()
            raise
        return new.material

    def found_anew(self, before: Membership, after: Membership, who: Identity) -> None:
        """Make this node the only manager of its cluster; see ``manager.state.force_new``.

        Args:
            before, after: its place; the member number is another one.

        Raises:
            StorageFailed: the disk refused.
        """
        manager_state.force_new(
            self.path,
            owner=owner_of(who.cluster_id, who.node_id),
            raft_id=before.raft_id,
            new_raft_id=after.raft_id,
        )
        member_file.store(self.path, after)

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

    def store_again(self, membership: Membership, material: Material) -> None:
        """Write a new certificate of the same node, and its place; the rest of its stay remains.

        Raises:
            StorageFailed: the disk refused; what was there before still is.
        """
        member_file.store(self.path, membership)
        identity.store(self.path, material)

    def _write(self, membership: Membership, material: Material) -> None:
        self._bind_machine()
        member_file.store(self.path, membership)
        identity.store(self.path, material)

    def load(self) -> tuple[Membership, Material]:
        """Read a stay back.

        Raises:
            IdentityMissing: this node is in no swarm.
            IdentityBroken, CopiedState, StorageFailed: it is, and what there is cannot be used.
        """
        material = identity.load(self.path)
        self._bind_machine()
        return member_file.load(self.path), material

    def reissue(self, membership: Membership, expired: Material) -> Material:
        """Replace a manager's expired certificate by a short one that it signs itself.

        Raises:
            CertificateRefused: its tables do not allow that. StorageFailed: nor does the disk.
        """
        known = identity_of(expired.pair.cert_pem)
        material = reissue(
            self.path,
            expired,
            owner=owner_of(known.cluster_id, known.node_id),
            raft_id=membership.raft_id,
            now_ns=self._clock.now(),
        )
        identity.store(self.path, material)
        return material

    def whose(self, hostname: str) -> NodeIdentity:
        """Return who this node is, by its certificate alone, though the rest may be damaged.

        Raises:
            SwarmError: not even that can be read.
        """
        known = identity_of(identity.load(self.path).pair.cert_pem)
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
