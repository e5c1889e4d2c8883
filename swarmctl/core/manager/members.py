"""The leader's hand on the membership: lets managers in, and brings consensus nearer to the wish.

What to do is decided in ``roles.py``; this shell collects what consensus knows, takes the steps one
after the other, and serves the two calls of managers that come and go. It must not know
certificates beyond whom they name, nor how messages travel.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ..ca.x509 import identity_of
from ..errors import (
    FailedPrecondition,
    NoLeader,
    NotFound,
    PermissionDenied,
    SwarmError,
    Unauthenticated,
    Unavailable,
)
from ..model.change import At, AtLeast, Conflict, Index, Kind, Ref, Transaction, Update
from ..model.codec import pack, unpack
from ..model.objects import ManagerStatus
from ..raft.errors import ConfChangeRefused, ProposalDropped
from ..raft.message import ChangeKind, ConfChange, MemberChange
from ..together import run_until_first
from .calls import JOIN, RESIGN, Joined, JoinManagers, ManagerPlace
from .roles import Members, Plan, Step, StepKind, decide, may_remove, quorum_text
from .state import new_raft_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ca.credentials import Dial
    from ..ca.x509 import Identity
    from ..model.change import Result
    from ..model.objects import NodeRow
    from ..raft.runner import Runner
    from ..raft.transport import Transport
    from ..store.view import View
    from ..store.watch import Watch
    from .forward import Handler
    from .propose import Proposer
    from .roster import Roster

DIAL_BACK_S = 5.0
CATCH_UP_ENTRIES = 100
LEARNER_PATIENCE_S = 600.0
LOOK_AGAIN_S = 0.25
STEP_S = 5.0
REFUSED_PAUSE_S = 0.1
DEMOTION_S = 20.0

log = logging.getLogger(__name__)


class Membership:
    """Who takes part in consensus, as the leader sees and changes it.

    Attributes:
        waiting: sentences for ``info`` about removals that have to wait.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        transport: Transport,
        roster: Roster,
        view: View,
        watch: Watch,
        proposer: Proposer,
        dial: Dial,
    ) -> None:
        self._runner = runner
        self._transport = transport
        self._roster = roster
        self._view = view
        self._watch = watch
        self._proposer = proposer
        self._dial = dial
        self._learning: dict[int, tuple[int, float]] = {}  # match, and since when
        self._joining = trio.Lock()
        self.waiting: tuple[str, ...] = ()

    def handlers(self) -> dict[str, Handler]:
        """Return the calls that the leader answers."""
        return {JOIN: self._join, RESIGN: self._resign}

    # --- what others ask ---

    def members(self) -> Members:
        """Return what consensus says now; on the leader."""
        status = self._runner.status()
        membership = self._runner.membership
        now = trio.current_time()
        caught_up, stale = {status.id}, set()
        for member, progress in status.progress.items():
            if progress.match + CATCH_UP_ENTRIES >= status.last_index:
                caught_up.add(member)
            if progress.learner:
                match, since = self._learning.get(member, (-1, now))
                if progress.match != match:
                    match, since = progress.match, now
                self._learning[member] = match, since
                if now - since > LEARNER_PATIENCE_S and member not in caught_up:
                    stale.add(member)
        voters = frozenset((*membership.voters, *membership.voters_outgoing))
        learners = frozenset(membership.learners)
        return Members(
            own=status.id,
            voters=voters,
            learners=learners,
            reachable=frozenset(
                member
                for member in voters | learners
                if member == status.id or self._transport.reachable(member)
            ),
            caught_up=frozenset(caught_up),
            stale=frozenset(stale),
        )

    def status_of(self, row: NodeRow) -> ManagerStatus | None:
        """Return how a node stands among the managers; None for one that is no member.

        Of one that has no vote yet it is not known whether it will ever count.
        """
        status, membership = self._runner.status(), self._runner.membership
        number = row.private.raft_id
        if not number or number not in {*membership.voters, *membership.learners}:
            return None
        reachability = "unknown"
        if number in membership.voters:
            reachable = number == status.id or self._transport.reachable(number)
            reachability = "reachable" if reachable else "unreachable"
        return ManagerStatus(
            Leader=status.leader == number,
            Reachability=reachability,
            Addr=row.private.manager_addr,
        )

    def require_removable(self, row: NodeRow) -> None:
        """Raise FailedPrecondition if the swarm could not decide without this manager."""
        members = self.members()
        number = row.private.raft_id
        if members.voters == {number}:
            hint = "; those that were added catch up first" if members.learners else ""
            raise FailedPrecondition(f"attempting to demote the last manager of the swarm{hint}")
        if number in members.voters and not may_remove(members, number):
            raise FailedPrecondition(
                "can't remove member from the raft: this would result in a loss of quorum: "
                f"{quorum_text(members, number)}"
            )

    async def demote(self, node_id: str) -> None:
        """Wish a manager to be a worker, and wait until it is no member any more.

        Raises:
            FailedPrecondition: it would cost the swarm its quorum.
            NoLeader: the one to go leads; it has handed over, and the next leader goes on.
            LostLeadership: whether the wish was written is not known.
            Unavailable: it takes longer than ``DEMOTION_S``.
        """
        while True:
            row = self._row(node_id)
            if row.api.Spec.Role == "worker":
                break
            self.require_removable(row)
            spec = replace(row.api.Spec, Role="worker")
            changed = replace(row, api=replace(row.api, Spec=spec))
            still_one = AtLeast(index=Index.WISH, key="manager", count=1)
            result = await self._write(
                Transaction(changes=(Update(row=changed),), requires=(still_one,))
            )
            if not isinstance(result, Conflict):
                break
        with trio.move_on_after(DEMOTION_S), self._watch.mailbox() as mailbox:
            while self._row(node_id).private.role == "manager":
                if not self._runner.leading:
                    raise NoLeader
                mailbox.take()
                with trio.move_on_after(LOOK_AGAIN_S):
                    await mailbox.wait()
            return
        why = "; ".join(self.waiting) or f"it takes longer than {DEMOTION_S:g} s"
        raise Unavailable(f"node {node_id} is not demoted yet: {why}")

    # --- calls of managers ---

    async def _join(self, caller: Identity | None, body: bytes) -> bytes:
        request = unpack(body, JoinManagers)
        row = self._manager_row(caller)
        node_id = row.api.ID
        async with self._joining:
            row = self._row(node_id)
            known = row.private.raft_id
            if not (known and known == request.raft_id and known in self.members().all):
                await self._dial_back(request.addr, node_id)
                known = new_raft_id()
            told = replace(
                row.private,
                raft_id=known,
                manager_addr=request.addr,
                format_level=request.format_level,
            )
            if row.private != told:
                await self._note_place(node_id, known, request)
            if known not in self.members().all:
                log.info("node %s joins the managers as member %d", node_id, known)
                await self._change(MemberChange(ChangeKind.ADD_LEARNER, known))
        managers = self._roster.managers(self._runner.membership).values()
        places = tuple(ManagerPlace(raft_id=each.raft_id, addr=each.addr) for each in managers)
        return pack(Joined(raft_id=known, managers=places))

    async def _resign(self, caller: Identity | None, _body: bytes) -> bytes:
        if caller is None:
            raise Unauthenticated("only a manager can resign")
        await self.demote(caller.node_id)
        return b""

    def _manager_row(self, caller: Identity | None) -> NodeRow:
        if caller is None:
            raise Unauthenticated("joining the managers needs a node certificate of this swarm")
        row = self._row(caller.node_id)
        if row.private.role != "manager" or row.api.Spec.Role != "manager":
            raise PermissionDenied(f"node {caller.node_id} is not meant to be a manager")
        return row

    def _row(self, node_id: str) -> NodeRow:
        row = self._view.node(node_id)
        if row is None:
            raise NotFound(f"node {node_id} was removed from the swarm")
        return row

    async def _dial_back(self, address: str, node_id: str) -> None:
        """Make sure that the newcomer is where it says: a member that never answers is a burden."""
        found = ""
        try:
            with trio.fail_after(DIAL_BACK_S):
                link = await self._dial(address)
        except (SwarmError, trio.TooSlowError) as error:
            why = str(error) or f"no answer within {DIAL_BACK_S:g} s"
            raise FailedPrecondition(
                f"the leader cannot reach this node as a manager at {address}: {why}; check "
                "--advertise-addr and that the port is open"
            ) from error
        if link.peer_certificate_der is not None:
            found = identity_of(link.peer_certificate_der).node_id
        await link.hang_up()
        if found != node_id:
            raise FailedPrecondition(
                f"at {address} the leader finds node {found}, not node {node_id}: check "
                "--advertise-addr"
            )

    async def _note_place(self, node_id: str, raft_id: int, told: JoinManagers) -> None:
        """Write what a manager says of itself, unless its release is too old for the cluster."""
        while True:
            cluster = self._view.cluster()
            if cluster is None:
                raise Unavailable("this manager does not know the cluster yet")
            level = cluster.private.format_level
            if told.format_level < level:
                raise FailedPrecondition(
                    f"this node's release has format level {told.format_level}, and the managers "
                    f"agree on {level} already: upgrade swarmctl on this host"
                )
            row = self._row(node_id)
            private = replace(
                row.private,
                raft_id=raft_id,
                manager_addr=told.addr,
                format_level=told.format_level,
            )
            cluster_ref = Ref(Kind.CLUSTER, cluster.api.ID)  # nobody raises the level meanwhile
            result = await self._write(
                Transaction(
                    changes=(Update(row=replace(row, private=private)),),
                    requires=(At(ref=cluster_ref, version=cluster.api.Version.Index),),
                )
            )
            if not isinstance(result, Conflict):
                return

    # --- the loop ---

    async def run(self) -> None:
        """Take the steps that are due, until cancelled (leadership lost)."""
        with self._watch.mailbox() as mailbox:
            while True:
                mailbox.take()
                changed = self._runner.membership_changed
                members = self.members()
                plan = decide(self._view, members)
                self._note_waiting(plan)
                if plan.transactions:
                    await self._note_roles(plan.transactions)
                if plan.step is not None:
                    await self._take(plan.step)
                elif not plan.transactions:
                    # Progress and reachability announce nothing, so who waits for them looks again.
                    watched = bool(plan.waiting or members.learners)
                    with trio.move_on_after(LOOK_AGAIN_S if watched else math.inf):
                        await run_until_first(mailbox.wait, changed.wait)

    def _note_waiting(self, plan: Plan) -> None:
        for text in plan.waiting:
            if text not in self.waiting:
                log.warning("%s", text)
        self.waiting = plan.waiting

    async def _note_roles(self, transactions: Sequence[Transaction]) -> None:
        try:
            await self._proposer.propose(transactions)
        except ProposalDropped as error:
            log.info("the roles of nodes are written later: %s", error)
            await trio.sleep(LOOK_AGAIN_S)

    async def _take(self, step: Step) -> None:
        log.info("%s: member %d", step.kind.value, step.member)
        try:
            with trio.move_on_after(STEP_S):
                if step.kind is StepKind.HAND_OVER:
                    await self._runner.transfer_leadership(step.member)
                elif step.kind is StepKind.GIVE_VOTE:
                    await self._change(MemberChange(ChangeKind.ADD_VOTER, step.member))
                else:
                    await self._change(MemberChange(ChangeKind.REMOVE, step.member))
        except ConfChangeRefused as error:
            log.info("%s member %d: not now: %s", step.kind.value, step.member, error)
            await trio.sleep(LOOK_AGAIN_S)

    async def _change(self, change: MemberChange) -> None:
        """Have one member's part changed, after whatever change is under way."""
        deadline = trio.current_time() + STEP_S
        while True:
            try:
                await self._runner.change_membership(ConfChange((change,)))
                return
            except (ConfChangeRefused, ProposalDropped):
                if trio.current_time() >= deadline:
                    raise
            await trio.sleep(REFUSED_PAUSE_S)

    async def _write(self, transaction: Transaction) -> Result:
        return (await self._proposer.propose([transaction]))[0]
