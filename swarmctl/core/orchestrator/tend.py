"""Tending a service's slots, whatever its mode: fill, restart, promote, thin out, stop, remove.

:class:`Tending` is one decision in the making. The module of a mode says which slots there are to
be; what happens in one of them is the same for all and is written here once. Level-driven: every
step compares what is wished with what the tables show.

Every slot is a transaction of its own, and each requires that the service still asks for what was
decided upon and that nobody else is runnable in the slot (``slots.slot_requirements``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.change import Advance, At, Decision, Kind, Ref, Transaction
from ..model.task import TaskState
from . import rollout
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
from .slots import Fates, creation_order, goal_of, new_task, slot_requirements, spec_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Change, Requirement
    from ..model.objects import ServiceRow, TaskRow
    from ..store.view import View
    from .slots import Slot

CREATE_MAX = 400
"""Tasks created by one decision; it asks for the next turn at once when there are more to make."""

WISH_BATCH = 200


class Tending:
    """One decision about one service in the making; lives for one call."""

    def __init__(self, view: View, service: ServiceRow, now: int, new_id: NewId) -> None:
        self.view = view
        self.service = service
        self.now = now
        self.fates = Fates(view)
        self._new_id = new_id
        self._transactions: list[Transaction] = []
        self._restarts: list[tuple[Slot, tuple[Change, ...]]] = []
        self._filled = 0
        self._wake_at: int | None = None

    def decision(self) -> Decision:
        """Return what came together."""
        self._write_restarts()
        return Decision(transactions=tuple(self._transactions), wake_at=self._wake_at)

    def look_again(self, at: int | None) -> None:
        """Ask to be asked again at that time, or earlier if somebody else wants that."""
        if at is not None and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at

    # --- whole slots ---

    def fill(self, slot: Slot) -> bool:
        """Put a task into a vacant slot; False when this decision has made enough of them.

        Where a former task is still being stopped the new one waits for it: two tasks of one slot
        must not run at a time, they may share what is named after the slot.
        """
        if self._filled == CREATE_MAX:
            self.look_again(self.now)
            return False
        self._filled += 1
        if slot.tasks:
            self._replace(slot, delay_ns=0)
            return True
        create = new_task(
            self.service,
            self.view,
            task_id=self._new_id(),
            slot=slot.number,
            node_id=slot.node_id,
            now=self.now,
        )
        requires = slot_requirements(self.service, slot.place)
        self._transactions.append(Transaction(changes=(create,), requires=requires))
        return True

    def remove(self, slots: Iterable[Slot]) -> None:
        """Have every task of these slots removed, history included."""
        for slot in slots:
            self._advance(slot.tasks, TaskState.REMOVE, (spec_unchanged(self.service),))

    def wish(self, tasks: Iterable[TaskRow], desired: TaskState) -> None:
        """Wish of tasks what no spec will take back."""
        below = [task for task in tasks if task.api.DesiredState < desired]
        for start in range(0, len(below), WISH_BATCH):
            self._advance(below[start : start + WISH_BATCH], desired)

    def stop(self, slot: Slot, requires: tuple[Requirement, ...] = ()) -> None:
        """Have nobody run in a slot, for as long as what was decided upon holds."""
        requires = (spec_unchanged(self.service), *requires)
        self._advance(slot.runnable, TaskState.SHUTDOWN, requires)

    def tend(self, slots: Iterable[Slot], *, successors: bool = True) -> list[Slot]:
        """See to the tasks of slots that stay; return those slots that need nothing.

        Args:
            successors: replace what ended, as the policy says; else it is only settled.
        """
        steady: list[Slot] = []
        for slot in slots:
            runnable = slot.runnable
            if len(runnable) > 1:
                self._thin_out(runnable)
            elif not runnable:
                steady.append(slot)  # settled: only a new spec can bring it back
            elif not self.fates.ended(runnable[0]):
                self._keep(slot, runnable[0])
                steady.append(slot)
            elif successors:
                self._after_end(slot, runnable[0])
            else:
                self._advance(runnable, TaskState.SHUTDOWN)
        return steady

    def roll(self, steady: list[Slot]) -> None:
        """Replace what is outdated, as far as the update has come."""
        plan = rollout.decide(self.service, steady, self.view, self.now)
        self.look_again(plan.wake_at)
        for slot in plan.replace:
            self._replace(slot, delay_ns=0)

    # --- one task ---

    def _advance(
        self,
        tasks: Iterable[TaskRow],
        desired: TaskState,
        requires: tuple[Requirement, ...] = (),
    ) -> None:
        """Wish more of tasks; what was wished before is never taken back."""
        changes = tuple(
            Advance(task_id=task.api.ID, desired=desired)
            for task in tasks
            if task.api.DesiredState < desired
        )
        if changes:
            self._transactions.append(Transaction(changes=changes, requires=requires))

    def _thin_out(self, runnable: list[TaskRow]) -> None:
        """Leave one runnable task: one that runs, and the newest of those."""
        best = max(
            runnable,
            key=lambda task: (
                not self.fates.ended(task),
                task.api.Status.State is TaskState.RUNNING,
                creation_order(task),
            ),
        )
        self._advance((task for task in runnable if task is not best), TaskState.SHUTDOWN)

    def _keep(self, slot: Slot, task: TaskRow) -> None:
        """Promote a waiting task when its time has come."""
        correction = corrected_stamps(task, self.now)
        if correction is not None:
            self._transactions.append(Transaction(changes=(correction,)))
        elif task.api.DesiredState < TaskState.RUNNING:
            due = promotion_time(slot, task, self.fates)
            if due <= self.now:
                self._advance((task,), goal_of(self.service))
            else:
                self.look_again(due)

    def _after_end(self, slot: Slot, task: TaskRow) -> None:
        """Replace an ended task as its policy says, or settle the slot."""
        if not may_restart(self.service, task, self.now):
            self._advance((task,), TaskState.SHUTDOWN)
            return
        correction = corrected_stamps(task, self.now)
        if correction is not None:
            self._transactions.append(Transaction(changes=(correction,)))
            return
        if task.api.DesiredState is TaskState.READY and start_time(task) > self.now:
            # It failed while it was being prepared (an image that cannot be pulled): its delay
            # still holds for whoever comes next, else nothing would slow the loop down.
            self.look_again(start_time(task))
            return
        self._replace(slot, delay_ns=restart_delay(task, self.fates.of(task)), counted=True)

    def _replace(self, slot: Slot, *, delay_ns: int, counted: bool = False) -> None:
        changes = successor(
            self.view,
            self.service,
            slot,
            self.fates,
            delay_ns=delay_ns,
            now=self.now,
            new_id=self._new_id,
        )
        if counted and is_counted(self.service):
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
        return (*slot_requirements(self.service, slot.place, holder=holder), *unassigned)

    def _write_restarts(self) -> None:
        """Write all counted restarts as one transaction with their counters.

        The counters live in one row, so several transactions would get in each other's way.
        """
        batch = self._restarts[: CREATE_MAX // 2]
        if len(batch) < len(self._restarts):
            self.look_again(self.now)
        if batch:
            record = recorded(self.service, [slot for slot, _ in batch], self.now)
            changes = [change for _, group in batch for change in group]
            requires = [need for slot, _ in batch for need in self._replacing(slot)]
            self._transactions.append(
                Transaction(changes=(record, *changes), requires=tuple(dict.fromkeys(requires)))
            )
