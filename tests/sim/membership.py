"""The leader's hand on the membership, in events.

Mirrors the shell ``manager/members.py``; which step is next is the product's ``manager/roles.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.core.errors import LostLeadership, PermissionDenied, SwarmError
from swarmctl.core.manager.members import CATCH_UP_ENTRIES, LOOK_AGAIN_S, REFUSED_PAUSE_S, STEP_S
from swarmctl.core.manager.roles import Members, Step, StepKind, decide
from swarmctl.core.model.change import Conflict, Transaction, Update
from swarmctl.core.raft.errors import ConfChangeRefused, ProposalDropped
from swarmctl.core.raft.message import ChangeKind, ConfChange, MemberChange
from tests.sim.queue import MS, S

if TYPE_CHECKING:
    from tests.sim.member import Manager
    from tests.sim.queue import Scope

HEARD_NS = 1.5 * S
POLL_NS = 10 * MS


class Membership:
    """Brings consensus nearer to the wish, for one term of leadership."""

    def __init__(self, manager: Manager, scope: Scope) -> None:
        self._manager = manager
        self._scope = scope
        self._began = manager.cluster.queue.now
        scope.start(self._run())

    def members(self) -> Members:
        """Return what consensus says now."""
        manager = self._manager
        status, membership = manager.runner.status(), manager.membership
        caught_up = {status.id}
        for member, progress in status.progress.items():
            if progress.match + CATCH_UP_ENTRIES >= status.last_index:
                caught_up.add(member)
        voters = frozenset((*membership.voters, *membership.voters_outgoing))
        learners = frozenset(membership.learners)
        since = manager.cluster.queue.now - HEARD_NS
        return Members(
            own=status.id,
            voters=voters,
            learners=learners,
            reachable=frozenset(
                member
                for member in voters | learners
                if member == status.id or manager.heard.get(member, 0) > since
            ),
            caught_up=frozenset(caught_up),
        )

    async def join(self, node_id: str, raft_id: int) -> int:
        """Give a node that is to be a manager its number, and have it learn."""
        manager = self._manager
        row = manager.view.node(node_id)
        if row is None or row.private.role != "manager" or row.api.Spec.Role != "manager":
            raise PermissionDenied(f"node {node_id} is not meant to be a manager")
        known = row.private.raft_id
        if not (known and known == raft_id and known in self.members().all):
            known = manager.cluster.new_raft_id()
            manager.cluster.members[known] = manager.cluster.hosts[node_id]
        while (row.private.raft_id, row.private.manager_addr) != (known, node_id):
            private = replace(row.private, raft_id=known, manager_addr=node_id)
            change = Update(row=replace(row, private=private))
            (result,) = await manager.proposer.propose([Transaction(changes=(change,))])
            row = manager.view.node(node_id) or row
            if not isinstance(result, Conflict):
                break
        if known not in self.members().all:
            await self._change(MemberChange(ChangeKind.ADD_LEARNER, known))
            manager.cluster.counts["learners added"] += 1
        return known

    async def _run(self) -> None:
        manager = self._manager
        while True:
            plan = decide(manager.view, self.members())
            manager.cluster.counts["removals that waited"] += len(plan.waiting)
            try:
                if plan.transactions:
                    await manager.proposer.propose(plan.transactions)
                if plan.step is not None:
                    await self._take(plan.step)
            except SwarmError:
                pass  # leadership is over, or too much is in flight
            await self._scope.sleep(LOOK_AGAIN_S * S)

    async def _take(self, step: Step) -> None:
        manager = self._manager
        manager.cluster.note("%s: %s member %d", manager.host.name, step.kind.value, step.member)
        manager.cluster.counts[f"steps: {step.kind.value}"] += 1
        if step.kind is StepKind.HAND_OVER:
            manager.runner.transfer(step.member)
            manager.kick()
            manager.cluster.counts["transfers"] += 1
        elif step.kind is StepKind.GIVE_VOTE:
            await self._change(MemberChange(ChangeKind.ADD_VOTER, step.member))
        else:
            await self._change(MemberChange(ChangeKind.REMOVE, step.member))

    async def _change(self, change: MemberChange) -> None:
        queue = self._manager.cluster.queue
        deadline = queue.now + STEP_S * S
        while True:
            try:
                proposal = self._manager.runner.reconfigure(ConfChange((change,)))
                self._manager.kick()
                while not proposal._done.is_set():
                    await self._scope.sleep(POLL_NS)
                if proposal._lost:
                    raise LostLeadership("the change may still take effect")
                if isinstance(proposal._result, ConfChangeRefused):
                    raise proposal._result
                return
            except (ConfChangeRefused, ProposalDropped):
                if queue.now >= deadline:
                    raise
            await self._scope.sleep(REFUSED_PAUSE_S * S)
