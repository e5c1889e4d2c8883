"""Replicated services: so many slots, each with one task that should run.

Level-driven: every decision compares what the service asks for with the slots as the tables show
them, whatever happened in between. The order of work in one decision:

1. :mod:`.rollout` says which outdated slots may be replaced now. Where it has something to write
   about the update itself (it begins, it failed, it is over), that is all of this decision;
2. slots beyond the wanted number go (:func:`_fewer`), missing ones are filled (:func:`_more`);
3. in each slot that stays: a superfluous task is shut down (:mod:`.overlap`), an ended one replaced
   or settled, a waiting one promoted when its time has come;
4. what may be replaced is.

Every slot is a transaction of its own, and each requires that the service still asks for what was
decided upon and that nobody else is runnable in the slot (``slots.slot_requirements``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.change import Advance, At, Decision, Kind, Ref, Transaction, Update
from ..model.objects import ServiceRow
from ..model.task import TaskState
from . import overlap, rollout
from .restart import (
    carried_failures,
    corrected_stamps,
    is_counted,
    is_owed,
    may_restart,
    promotion_time,
    recorded,
    restart_delay,
    start_time,
    successor,
)
from .slots import Fates, Slot, new_task, slot_requirements, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Change, Requirement
    from ..model.objects import TaskRow
    from ..store.view import View
    from .rollout import Rollout

CREATE_MAX = 400
"""Tasks created by one decision; it asks for the next turn at once when there are more to make."""


def decide(view: View, service: ServiceRow, now: int, new_id: NewId) -> Decision:
    """Return what one replicated service needs."""
    return _Pass(view, service, now, new_id).run()


class _Counted(NamedTuple):
    """Changes of one slot that go with a counter in the service's row.

    Attributes:
        restarts, fails: which counters.
    """

    slot: Slot
    changes: tuple[Change, ...]
    requires: tuple[Requirement, ...]
    restarts: bool
    fails: bool


class _Pass:
    """One decision in the making; lives for one call."""

    def __init__(self, view: View, service: ServiceRow, now: int, new_id: NewId) -> None:
        self._view = view
        self._service = service
        self._now = now
        self._new_id = new_id
        self._fates = Fates(view)
        self._transactions: list[Transaction] = []
        self._counted: list[_Counted] = []
        self._failed: frozenset[str] = frozenset()
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
        plan = rollout.decide(self._service, kept, self._fates, self._view, self._now)
        if plan.row is not None:
            written = Transaction(changes=(Update(row=plan.row),), requires=plan.requires)
            return Decision(transactions=(written,))
        self._fewer(surplus)
        free = {slot.number: slot for slot in vacant}
        filled = self._more(wanted - len(kept), {slot.number for slot in kept}, free)
        self._fewer(slot for slot in vacant if slot.number not in filled)
        self._tend(kept, plan)
        self._write_counted()
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
        ready = {slot.number: rollout.is_ready(slot, self._fates) for slot in slots}
        for slot in sorted(slots, key=lambda slot: (not ready[slot.number], slot.number)):
            node_id = self._home(slot).api.NodeID
            copy = on_node[node_id] = on_node.get(node_id, 0) + 1
            ranked.append((not node_id, not ready[slot.number], copy, slot.number, slot))
        ranked.sort(key=lambda rank: rank[:4])
        in_order = [rank[4] for rank in ranked]
        kept = sorted(in_order[:wanted], key=lambda slot: slot.number)
        return kept, in_order[wanted:]

    def _home(self, slot: Slot) -> TaskRow:
        """Return the task by which a slot is where it is: one that runs beside a coming one."""
        if len(slot.runnable) > 1:
            return overlap.judge(self._service, slot, self._fates, self._view).stays
        return slot.newest

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

    def _tend(self, slots: list[Slot], plan: Rollout) -> None:
        self._failed = plan.failed
        self._look_again(plan.wake_at)
        rolled = {slot.number for slot in plan.replace}
        for slot in slots:
            if slot.number in rolled:
                continue
            runnable = slot.runnable
            if len(runnable) > 1:
                self._tend_overlap(slot, rolls=plan.rolls)
            elif not runnable:
                continue  # settled: only a new spec can bring it back
            elif self._fates.ended(runnable[0]):
                self._after_end(slot, runnable[0])
            else:
                self._keep(slot, runnable[0])
        for slot in plan.replace:
            ready = rollout.is_ready(slot, self._fates)
            if plan.start_first and ready:
                self._start_beside(slot)
            else:
                owed = is_owed(slot.current, self._fates.of(slot.current))
                self._replace(slot, delay_ns=0, owed=owed, as_seen=not ready)

    def _tend_overlap(self, slot: Slot, *, rolls: bool) -> None:
        """Let the one that is wanted stay, or come; nobody leaves for one that does not run."""
        found = overlap.judge(self._service, slot, self._fates, self._view)
        coming = found.coming
        if found.leaving:
            self._shut_down(found.leaving, found.stays)
        elif coming is None:
            return
        elif not self._fates.ended(coming):
            self._keep(slot, coming)
        elif not rolls:
            self._shut_down((coming,), found.stays)
        elif coming.api.Status.State is TaskState.COMPLETE and not may_restart(
            self._service, coming, self._now
        ):
            self._shut_down((found.stays,), coming)  # it did run, and is not to run again
        else:
            self._start_again(slot, coming)

    def _shut_down(self, leaving: tuple[TaskRow, ...], stays: TaskRow) -> None:
        """Have tasks leave for the sake of one that is as it was seen here.

        The next pass is asked for: one that had ended may be reaped before anybody sees it leave.
        """
        self._look_again(self._now)
        changes = tuple(
            Advance(task_id=task.api.ID, desired=TaskState.SHUTDOWN) for task in leaving
        )
        self._transactions.append(Transaction(changes=changes, requires=(_unchanged(stays),)))

    def _start_beside(self, slot: Slot) -> None:
        """Start a slot's next task while the present one runs on."""
        create = new_task(
            self._service,
            self._view,
            task_id=self._new_id(),
            slot=slot.number,
            now=self._now,
            owed=True,
            failures=carried_failures(self._service, slot.newest, self._now),
        )
        (present,) = slot.runnable
        requires = slot_requirements(self._service, slot.number, holder=present.api.ID)
        self._transactions.append(Transaction(changes=(create,), requires=requires))

    def _start_again(self, slot: Slot, failed: TaskRow) -> None:
        """Try once more to start a task beside the one that runs on, after the restart delay."""
        if self._corrects(failed) or self._delays(failed):
            return
        delay_ns = restart_delay(failed, self._fates.of(failed))
        create = new_task(
            self._service,
            self._view,
            task_id=self._new_id(),
            slot=slot.number,
            now=self._now,
            desired=TaskState.READY if delay_ns else TaskState.RUNNING,
            owed=True,
            start_delay_ns=delay_ns,
            failures=carried_failures(self._service, failed, self._now),
        )
        shutdown = Advance(task_id=failed.api.ID, desired=TaskState.SHUTDOWN)
        requires = (slot_requirements(self._service, slot.number)[0], _unchanged(failed))
        self._write(slot, (shutdown, create), requires, failed=failed)

    def _keep(self, slot: Slot, task: TaskRow) -> None:
        """Promote a waiting task when its time has come."""
        if self._corrects(task):
            return
        if task.api.DesiredState < TaskState.RUNNING:
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
            self._write(slot, (change,), (), failed=task)
        elif not self._corrects(task) and not self._delays(task):
            fate = self._fates.of(task)
            self._replace(
                slot,
                delay_ns=restart_delay(task, fate),
                owed=is_owed(task, fate),
                restarts=is_counted(self._service),
            )

    def _corrects(self, task: TaskRow) -> bool:
        """Bring stamps out of the future to now; return whether there were any."""
        correction = corrected_stamps(task, self._now)
        if correction is None:
            return False
        self._transactions.append(Transaction(changes=(correction,)))
        return True

    def _delays(self, task: TaskRow) -> bool:
        """Return whether an ended task's own delay still holds for whoever comes next.

        It failed while it was being prepared (an image that cannot be pulled); else nothing would
        slow the loop down.
        """
        waits = task.api.DesiredState is TaskState.READY and start_time(task) > self._now
        if waits:
            self._look_again(start_time(task))
        return waits

    def _replace(
        self,
        slot: Slot,
        *,
        delay_ns: int,
        owed: bool = False,
        restarts: bool = False,
        as_seen: bool = False,
    ) -> None:
        """Have a slot's tasks shut down and a successor made.

        Args:
            as_seen: only while they are as they are now; one that was not ready may become so.
        """
        changes = successor(
            self._view,
            self._service,
            slot,
            self._fates,
            delay_ns=delay_ns,
            owed=owed,
            now=self._now,
            new_id=self._new_id,
        )
        requires = self._replacing(slot, as_seen=as_seen)
        self._write(slot, changes, requires, failed=slot.current, restarts=restarts)

    def _replacing(self, slot: Slot, *, as_seen: bool) -> tuple[Requirement, ...]:
        """Return what must hold when a slot's task is replaced.

        One without a node is not waited for; should it have got one meanwhile, it may have started.
        """
        runnable = slot.runnable
        holder = runnable[0].api.ID if runnable else ""
        unchanged = tuple(
            _unchanged(task)
            for task in runnable
            if as_seen or task.api.Status.State < TaskState.ASSIGNED
        )
        return (*slot_requirements(self._service, slot.number, holder=holder), *unchanged)

    # --- what is written ---

    def _write(
        self,
        slot: Slot,
        changes: tuple[Change, ...],
        requires: tuple[Requirement, ...],
        *,
        failed: TaskRow,
        restarts: bool = False,
    ) -> None:
        """Have a slot's changes written, with the counters they go with.

        Args:
            failed: the task that they deal with; whether it counts as a failure is known.
        """
        fails = failed.api.ID in self._failed
        if restarts or fails:
            self._counted.append(_Counted(slot, changes, requires, restarts, fails))
        else:
            self._transactions.append(Transaction(changes=changes, requires=requires))

    def _write_counted(self) -> None:
        """Write all changes that are counted as one transaction with their counters.

        The counters live in one row, so several transactions would get in each other's way.
        """
        batch = self._counted[: CREATE_MAX // 2]
        if len(batch) < len(self._counted):
            self._look_again(self._now)
        if not batch:
            return
        row = self._service
        restarted = [one.slot for one in batch if one.restarts]
        if restarted:
            counted = recorded(row, restarted, self._now).row
            assert isinstance(counted, ServiceRow)
            row = counted
        failures = sum(one.fails for one in batch)
        record = row.private.rollout
        if failures and record is not None:
            record = replace(record, failures=record.failures + failures)
            row = replace(row, private=replace(row.private, rollout=record))
        changes = [change for one in batch for change in one.changes]
        requires = [need for one in batch for need in one.requires]
        self._transactions.append(
            Transaction(
                changes=(Update(row=row), *changes), requires=tuple(dict.fromkeys(requires))
            )
        )

    def _look_again(self, at: int | None) -> None:
        if at is not None and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at


def _replicas(service: ServiceRow) -> int:
    mode = service.api.Spec.Mode.Replicated
    return 1 if mode is None or mode.Replicas is None else mode.Replicas


def _unchanged(task: TaskRow) -> At:
    return At(ref=Ref(Kind.TASK, task.api.ID), version=task.api.Version.Index)
