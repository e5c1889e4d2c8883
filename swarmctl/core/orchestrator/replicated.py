"""Replicated services: so many slots, each with one task that should run.

Level-driven: every decision compares what the service asks for with the slots as the tables show
them, whatever happened in between. The order of work in one decision:

1. slots beyond the wanted number go (:func:`_fewer`), missing ones are filled (:func:`_more`);
2. in each slot that stays: a superfluous task is shut down, an ended one replaced or settled, a
   waiting one promoted when its time has come;
3. what is left outdated goes to :mod:`.rollout`, which says what may be replaced now.

Every slot is a transaction of its own, and each requires that the service still asks for what was
decided upon and that nobody else is runnable in the slot (``slots.slot_requirements``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Advance, At, Decision, Kind, Ref, Transaction
from ..model.task import TaskState
from . import relief, rollout
from .restart import (
    corrected_stamps,
    is_counted,
    may_restart,
    promotion_time,
    recorded,
    restart_delay,
    start_time,
    successor,
)
from .slots import Fates, Slot, creation_order, new_task, slot_requirements, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Change, Requirement
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View

CREATE_MAX = 400
"""Tasks created by one decision; it asks for the next turn at once when there are more to make."""


def decide(view: View, service: ServiceRow, now: int, new_id: NewId) -> Decision:
    """Return what one replicated service needs."""
    return _Pass(view, service, now, new_id).run()


class _Pass:
    """One decision in the making; lives for one call."""

    def __init__(self, view: View, service: ServiceRow, now: int, new_id: NewId) -> None:
        self._view = view
        self._service = service
        self._now = now
        self._new_id = new_id
        self._fates = Fates(view)
        self._transactions: list[Transaction] = []
        self._restarts: list[tuple[Slot, tuple[Change, ...]]] = []
        self._wake_at: int | None = None

    def run(self) -> Decision:
        taken: list[Slot] = []
        vacant: list[Slot] = []
        for slot in slots_of(self._view, self._service.api.ID):
            (vacant if self._is_vacant(slot) else taken).append(slot)
        wanted = _replicas(self._service)
        kept, surplus = taken, list[Slot]()
        if len(taken) > wanted:
            kept, surplus = self._split(taken, wanted)
        self._fewer(surplus)
        free = {slot.number: slot for slot in vacant}
        filled = self._more(wanted - len(kept), {slot.number for slot in kept}, free)
        self._fewer(slot for slot in vacant if slot.number not in filled)
        self._tend(kept)
        self._write_restarts()
        return Decision(transactions=tuple(self._transactions), wake_at=self._wake_at)

    # --- how many ---

    def _is_vacant(self, slot: Slot) -> bool:
        if slot.runnable:
            return False
        newest = slot.newest
        removed = newest.api.DesiredState is TaskState.REMOVE
        return removed or may_restart(self._service, newest, self._now)

    def _split(self, slots: list[Slot], wanted: int) -> tuple[list[Slot], list[Slot]]:
        """Return the slots to keep and those to give up when there are more than wanted.

        Given up first: slots without a node, then those that do not run, then those on the node
        that has the most; the higher number where all that is equal.
        """
        ranked: list[tuple[bool, bool, int, int, Slot]] = []
        on_node: dict[str, int] = {}
        for slot in sorted(slots, key=lambda slot: (not self._runs(slot), slot.number)):
            node_id = slot.newest.api.NodeID
            copy = on_node[node_id] = on_node.get(node_id, 0) + 1
            ranked.append((not node_id, not self._runs(slot), copy, slot.number, slot))
        ranked.sort(key=lambda rank: rank[:4])
        in_order = [rank[4] for rank in ranked]
        kept = sorted(in_order[:wanted], key=lambda slot: slot.number)
        return kept, in_order[wanted:]

    def _runs(self, slot: Slot) -> bool:
        return any(
            task.api.Status.State is TaskState.RUNNING and not self._fates.ended(task)
            for task in slot.runnable
        )

    def _fewer(self, slots: Iterable[Slot]) -> None:
        """Have every task of these slots removed, history included."""
        for slot in slots:
            changes = tuple(
                Advance(task_id=task.api.ID, desired=TaskState.REMOVE)
                for task in slot.tasks
                if task.api.DesiredState < TaskState.REMOVE
            )
            if changes:
                requires = slot_requirements(self._service, slot.number)[:1]
                self._transactions.append(Transaction(changes=changes, requires=requires))

    def _more(self, count: int, taken: set[int], vacant: dict[int, Slot]) -> set[int]:
        """Put tasks into the lowest free slots; return the numbers used.

        A slot whose former task is still being stopped gets one that waits for it: two tasks of
        one slot must not run at a time, they may share what is named after the slot.
        """
        used: set[int] = set()
        number = 0
        while len(used) < count:
            number += 1
            if number in taken:
                continue
            if len(used) == CREATE_MAX:
                self._look_again(self._now)
                break
            used.add(number)
            if number in vacant:
                self._replace(vacant[number], delay_ns=0)
                continue
            create = new_task(
                self._service, self._view, task_id=self._new_id(), slot=number, now=self._now
            )
            requires = slot_requirements(self._service, number)
            self._transactions.append(Transaction(changes=(create,), requires=requires))
        return used

    # --- slot by slot ---

    def _tend(self, slots: list[Slot]) -> None:
        steady: list[Slot] = []
        for slot in slots:
            runnable = slot.runnable
            if len(runnable) > 1:
                if not self._go_on_relieving(slot):
                    self._thin_out(runnable)
            elif not runnable:
                steady.append(slot)  # settled: only a new spec can bring it back
            elif self._fates.ended(runnable[0]):
                self._after_end(slot, runnable[0])
            elif relief.is_to_move(slot, runnable[0], self._service, self._view, self._now):
                self._relieve(slot, runnable[0], node_id=runnable[0].private.move_to)
            else:
                self._keep(slot, runnable[0])
                steady.append(slot)
        plan = rollout.decide(self._service, steady, self._view, self._now)
        self._look_again(plan.wake_at)
        for slot in plan.replace:
            self._replace(slot, delay_ns=0)

    def _thin_out(self, runnable: list[TaskRow]) -> None:
        """Leave one runnable task: one that runs, and the newest of those."""
        best = max(
            runnable,
            key=lambda task: (
                not self._fates.ended(task),
                task.api.Status.State is TaskState.RUNNING,
                creation_order(task),
            ),
        )
        changes = tuple(
            Advance(task_id=task.api.ID, desired=TaskState.SHUTDOWN)
            for task in runnable
            if task is not best
        )
        self._transactions.append(Transaction(changes=changes))

    def _go_on_relieving(self, slot: Slot) -> bool:
        """Leave a slot's two tasks as they are while one relieves the other; False when not so."""
        pair = relief.pair_of(slot)
        if pair is None:
            return False
        step, wake_at = relief.judge(pair, self._service, self._view, self._fates, self._now)
        if step is relief.Step.OVER:
            return False
        self._look_again(wake_at)
        if step is relief.Step.DROP:
            change = Advance(task_id=pair.new.api.ID, desired=TaskState.SHUTDOWN)
            self._transactions.append(Transaction(changes=(change,)))
        elif not self._fates.ended(pair.new):
            self._keep(slot, pair.new)
        return True

    def _relieve(self, slot: Slot, task: TaskRow, *, node_id: str = "") -> None:
        """Put a second task into a slot, which takes over once it runs."""
        delay_ns = relief.delay_of_next(slot, task)
        create = new_task(
            self._service,
            self._view,
            task_id=self._new_id(),
            slot=slot.number,
            now=self._now,
            desired=TaskState.READY if delay_ns else TaskState.RUNNING,
            relieves=task.api.ID,
            node_id=node_id,
            start_delay_ns=delay_ns,
        )
        requires = slot_requirements(self._service, slot.number, holder=task.api.ID)
        self._transactions.append(Transaction(changes=(create,), requires=requires))

    def _keep(self, slot: Slot, task: TaskRow) -> None:
        """Promote a waiting task when its time has come."""
        correction = corrected_stamps(task, self._now)
        if correction is not None:
            self._transactions.append(Transaction(changes=(correction,)))
        elif task.api.DesiredState < TaskState.RUNNING:
            due = promotion_time(slot, task, self._fates)
            if due <= self._now:
                start = Advance(task_id=task.api.ID, desired=TaskState.RUNNING)
                self._transactions.append(Transaction(changes=(start,)))
            else:
                self._look_again(due)

    def _after_end(self, slot: Slot, task: TaskRow) -> None:
        """Replace an ended task as its policy says, or settle the slot."""
        if not may_restart(self._service, task, self._now):
            change = Advance(task_id=task.api.ID, desired=TaskState.SHUTDOWN)
            self._transactions.append(Transaction(changes=(change,)))
            return
        if relief.leaves_start_first(self._service, task, self._fates):
            self._relieve(slot, task)
            return
        correction = corrected_stamps(task, self._now)
        if correction is not None:
            self._transactions.append(Transaction(changes=(correction,)))
            return
        if task.api.DesiredState is TaskState.READY and start_time(task) > self._now:
            # It failed while it was being prepared (an image that cannot be pulled): its delay
            # still holds for whoever comes next, else nothing would slow the loop down.
            self._look_again(start_time(task))
            return
        self._replace(slot, delay_ns=restart_delay(task, self._fates.of(task)), counted=True)

    def _replace(self, slot: Slot, *, delay_ns: int, counted: bool = False) -> None:
        changes = successor(
            self._view,
            self._service,
            slot,
            self._fates,
            delay_ns=delay_ns,
            now=self._now,
            new_id=self._new_id,
        )
        if counted and is_counted(self._service):
            self._restarts.append((slot, changes))
        else:
            self._transactions.append(Transaction(changes=changes, requires=self._replacing(slot)))

    def _replacing(self, slot: Slot) -> tuple[Requirement, ...]:
        """Return what must hold when a slot's task is replaced.

        One without a node is not waited for; should it have got one meanwhile, it may have started.
        """
        runnable = slot.runnable
        holder = runnable[0].api.ID if runnable else ""
        unassigned = tuple(
            At(ref=Ref(Kind.TASK, task.api.ID), version=task.api.Version.Index)
            for task in runnable
            if task.api.Status.State < TaskState.ASSIGNED
        )
        return (*slot_requirements(self._service, slot.number, holder=holder), *unassigned)

    def _write_restarts(self) -> None:
        """Write all counted restarts as one transaction with their counters.

        The counters live in one row, so several transactions would get in each other's way.
        """
        batch = self._restarts[: CREATE_MAX // 2]
        if len(batch) < len(self._restarts):
            self._look_again(self._now)
        if batch:
            record = recorded(self._service, [slot for slot, _ in batch], self._now)
            changes = [change for _, group in batch for change in group]
            requires = [need for slot, _ in batch for need in self._replacing(slot)]
            self._transactions.append(
                Transaction(changes=(record, *changes), requires=tuple(dict.fromkeys(requires)))
            )

    def _look_again(self, at: int | None) -> None:
        if at is not None and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at


def _replicas(service: ServiceRow) -> int:
    mode = service.api.Spec.Mode.Replicated
    return 1 if mode is None or mode.Replicas is None else mode.Replicas
