"""Tending a service's slots, whatever its mode: fill, restart, promote, roll, stop, remove.

:class:`Tending` is one decision in the making. The module of a mode says which slots there are to
be; what happens in one of them is the same for all and is written here once. Level-driven: every
step compares what is wished with what the tables show.

Every slot is a transaction of its own, and each requires that the service still asks for what was
decided upon and that nobody else is runnable in the slot (``slots.slot_requirements``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.change import (
    ROWS_BYTES_MAX,
    Advance,
    At,
    Decision,
    Kind,
    Ref,
    Transaction,
    Update,
)
from ..model.codec import pack
from ..model.objects import ServiceRow
from ..model.task import TaskState
from . import overlap, relief, rollout
from .restart import (
    carried_failures,
    corrected_stamps,
    gave_up,
    is_counted,
    is_owed,
    may_restart,
    promotion_time,
    recorded,
    restart_delay,
    start_time,
    successor,
)
from .slots import (
    Fates,
    goal_of,
    new_task,
    run_of,
    slot_requirements,
    spec_unchanged,
    wishes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..model.change import Change, Requirement
    from ..model.objects import TaskRow
    from ..store.view import View
    from .slots import Slot

CREATE_MAX = 400
"""Tasks created by one decision; it asks for the next turn at once when there are more to make."""


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


class Tending:
    """One decision about one service in the making; lives for one call."""

    def __init__(self, view: View, service: ServiceRow, now: int, new_id: NewId) -> None:
        self.view = view
        self.service = service
        self.now = now
        self.fates = Fates(view)
        self._new_id = new_id
        self._transactions: list[Transaction] = []
        self._counted: list[_Counted] = []
        self._plan = rollout.NOTHING_TO_ROLL
        self._to_relieve: list[tuple[Slot, str]] = []  # with the node, where it is a move
        self._made = 0
        self._wake_at: int | None = None

    def decision(self) -> Decision:
        """Return what came together.

        What is to be written about the update itself is written alone: the rest follows from it.
        """
        if self._plan.row is not None:
            change = Update(row=self._plan.row)
            written = Transaction(changes=(change,), requires=self._plan.requires)
            return Decision(transactions=(written,))
        self._write_counted()
        return Decision(transactions=tuple(self._transactions), wake_at=self._wake_at)

    def look_again(self, at: int | None) -> None:
        """Ask to be asked again at that time, or earlier if somebody else wants that."""
        if at is not None and (self._wake_at is None or at < self._wake_at):
            self._wake_at = at

    # --- whole slots ---

    def plan(self, slots: Iterable[Slot]) -> None:
        """Decide how the update goes on in the slots that the service keeps."""
        self._plan = rollout.decide(self.service, slots, self.fates, self.view, self.now)
        self.look_again(self._plan.wake_at)

    def home(self, slot: Slot) -> TaskRow:
        """Return the task by which a slot is where it is: one that runs beside a coming one."""
        if len(slot.runnable) > 1:
            return overlap.judge(self.service, slot, self.fates, self.view).stays
        return slot.newest

    def fill(self, slot: Slot) -> bool:
        """Put a task into a vacant slot; False when this decision has made enough of them.

        Where a former task is still being stopped the new one waits for it: two tasks of one slot
        must not run at a time, they may share what is named after the slot.
        """
        if not self._has_room():
            return False
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

    def _has_room(self) -> bool:
        """Count one more task that is made; False when this decision has made enough of them."""
        if self._made == CREATE_MAX:
            self.look_again(self.now)
            return False
        self._made += 1
        return True

    def remove(self, slots: Iterable[Slot]) -> None:
        """Have every task of these slots removed, history included."""
        for slot in slots:
            self.wish(slot.tasks, TaskState.REMOVE, (spec_unchanged(self.service),))

    def wish(
        self,
        tasks: Iterable[TaskRow],
        desired: TaskState,
        requires: tuple[Requirement, ...] = (),
    ) -> None:
        """Wish more of tasks; what was wished before is never taken back."""
        self._transactions += wishes(tasks, desired, requires)

    def stop(self, slot: Slot, requires: tuple[Requirement, ...] = ()) -> None:
        """Have nobody run in a slot, for as long as what was decided upon holds."""
        requires = (spec_unchanged(self.service), *requires)
        self.wish(slot.runnable, TaskState.SHUTDOWN, requires)

    def tend(self, slots: Iterable[Slot], *, successors: bool = True) -> None:
        """See to the tasks of slots that stay, and replace what the update is to replace now.

        Args:
            successors: replace what ended, as the policy says; else it is only settled.
        """
        rolled = {slot.place for slot in self._plan.replace}
        slots = list(slots)
        for slot in slots:
            runnable = slot.runnable
            if slot.place in rolled:
                self._roll(slot)
            elif len(runnable) > 1:
                if not self._go_on_relieving(slot):
                    self._tend_overlap(slot, rolls=self._plan.rolls and successors)
            elif not runnable:
                continue  # settled: only a new spec can bring it back
            elif not self.fates.ended(runnable[0]):
                if relief.is_to_move(slot, runnable[0], self.service, self.view, self.now):
                    self._to_relieve.append((slot, runnable[0].private.move_to))
                else:
                    self._keep(slot, runnable[0])
            elif successors:
                self._after_end(slot, runnable[0])
            else:
                self.wish(runnable, TaskState.SHUTDOWN)
        self._relieve_some(slots)

    def _roll(self, slot: Slot) -> None:
        """Replace an outdated slot's task: beside it where the order is so and it is ready."""
        ready = rollout.is_ready(slot, self.fates)
        beside = self._plan.start_first and ready
        leaves = relief.leaves_start_first(self.service, slot.current, self.fates)
        if not beside and not slot.node_id and leaves:
            self._to_relieve.append((slot, ""))
        elif not self._has_room():
            return
        elif beside:
            self._start_beside(slot)
        else:
            task = slot.current
            self._replace(
                slot,
                delay_ns=0,
                owed=is_owed(task, self.fates.of(task)),
                stop_first=self._plan.stop_first if ready else self._why_it_leaves_first(task),
                as_seen=not ready,
            )

    def _tend_overlap(self, slot: Slot, *, rolls: bool) -> None:
        """Let the one that is wanted stay, or come; nobody leaves for one that does not run."""
        found = overlap.judge(self.service, slot, self.fates, self.view)
        coming = found.coming
        if run_of(self.service) is not None or found.leaving:  # jobs do not roll
            self._shut_down(found.leaving, found.stays)
        elif coming is None:
            return
        elif not self.fates.ended(coming):
            self._keep(slot, coming)
        elif not rolls:
            self._shut_down((coming,), found.stays)
        elif not gave_up(self.service, coming, self.now):
            self._start_again(slot, coming)
        elif coming.api.Status.State is TaskState.COMPLETE:
            self._shut_down((found.stays,), coming)  # it did run, and is not to run again
        else:  # the old one goes on instead; rollout.py passes over such a slot
            self._write(slot, (_shutdown(coming),), (_unchanged(found.stays),), failed=coming)

    def _shut_down(self, leaving: Iterable[TaskRow], stays: TaskRow) -> None:
        """Have tasks leave for the sake of one that is as it was seen here.

        The next pass is asked for: one that had ended may be reaped before anybody sees it leave.
        """
        self.wish(leaving, TaskState.SHUTDOWN, (_unchanged(stays),))
        self.look_again(self.now)

    def _start_beside(self, slot: Slot) -> None:
        """Start a slot's next task while the present one runs on."""
        create = new_task(
            self.service,
            self.view,
            task_id=self._new_id(),
            slot=slot.number,
            node_id=slot.node_id,
            now=self.now,
            owed=True,
            failures=carried_failures(self.service, slot.newest, self.now),
        )
        (present,) = slot.runnable
        requires = slot_requirements(self.service, slot.place, holder=present.api.ID)
        self._transactions.append(Transaction(changes=(create,), requires=requires))

    def _start_again(self, slot: Slot, failed: TaskRow) -> None:
        """Try once more to start a task beside the one that runs on, after the restart delay."""
        if self._corrects(failed) or self._delays(failed) or not self._has_room():
            return
        delay_ns = restart_delay(failed, self.fates.of(failed))
        create = new_task(
            self.service,
            self.view,
            task_id=self._new_id(),
            slot=slot.number,
            node_id=slot.node_id,
            now=self.now,
            waits=bool(delay_ns),
            owed=True,
            start_delay_ns=delay_ns,
            failures=carried_failures(self.service, failed, self.now),
        )
        requires = (spec_unchanged(self.service), _unchanged(failed))
        counted = is_counted(self.service)
        self._write(slot, (_shutdown(failed), create), requires, failed=failed, restarts=counted)

    def _go_on_relieving(self, slot: Slot) -> bool:
        """Leave a slot's two tasks as they are while one relieves the other; False when not so."""
        pair = relief.pair_of(slot)
        if pair is None:
            return False
        step, wake_at = relief.judge(pair, self.service, self.view, self.fates, self.now)
        if step is relief.Step.OVER:
            return False
        self.look_again(wake_at)
        if step is relief.Step.DROP:
            self._write(slot, (_shutdown(pair.new),), (), failed=pair.new)
        elif not self.fates.ended(pair.new):
            self._keep(slot, pair.new)
        return True

    def _relieve_some(self, slots: Iterable[Slot]) -> None:
        """Begin to relieve as many slots as have a place, those first that were tried least.

        The others are looked at again when one of those before them changes.
        """
        waiting = [
            (relief.next_attempt(self.service, slot, slot.current), slot, node_id)
            for slot, node_id in self._to_relieve
        ]
        waiting.sort(key=lambda one: (one[0].tries, one[1].number))
        for attempt, slot, node_id in waiting[: relief.places(self.service, slots)]:
            if self._has_room():
                self._relieve(slot, slot.current, attempt, node_id=node_id)

    def _relieve(
        self, slot: Slot, task: TaskRow, attempt: relief.Attempt, *, node_id: str = ""
    ) -> None:
        """Put a second task into a slot, which takes over once it runs."""
        create = new_task(
            self.service,
            self.view,
            task_id=self._new_id(),
            slot=slot.number,
            node_id=node_id,
            now=self.now,
            waits=bool(attempt.delay_ns),
            relieves=task.api.ID,
            tries=attempt.tries,
            start_delay_ns=attempt.delay_ns,
            failures=carried_failures(self.service, slot.newest, self.now),
        )
        requires = slot_requirements(self.service, slot.place, holder=task.api.ID)
        self._transactions.append(Transaction(changes=(create,), requires=requires))

    # --- one task ---

    def _keep(self, slot: Slot, task: TaskRow) -> None:
        """Promote a waiting task when its time has come."""
        if not self._corrects(task) and task.api.DesiredState < TaskState.RUNNING:
            due = promotion_time(slot, task, self.fates)
            if due <= self.now:
                self.wish((task,), goal_of(self.service))
            else:
                self.look_again(due)

    def _after_end(self, slot: Slot, task: TaskRow) -> None:
        """Replace an ended task as its policy says, or settle the slot."""
        if not may_restart(self.service, task, self.now):
            if task.api.DesiredState < TaskState.SHUTDOWN:
                self._write(slot, (_shutdown(task),), (), failed=task)
        elif not slot.node_id and relief.leaves_start_first(self.service, task, self.fates):
            self._to_relieve.append((slot, ""))
        elif not self._corrects(task) and not self._delays(task) and self._has_room():
            fate = self.fates.of(task)
            self._replace(
                slot,
                delay_ns=restart_delay(task, fate),
                owed=is_owed(task, fate),
                stop_first=self._why_it_leaves_first(task),
                restarts=is_counted(self.service),
            )

    def _why_it_leaves_first(self, task: TaskRow) -> str:
        return relief.why_it_leaves_first(self.service, task, self.fates)

    def _corrects(self, task: TaskRow) -> bool:
        """Bring stamps out of the future to now; return whether there were any."""
        correction = corrected_stamps(task, self.now)
        if correction is None:
            return False
        self._transactions.append(Transaction(changes=(correction,)))
        return True

    def _delays(self, task: TaskRow) -> bool:
        """Return whether an ended task's own delay still holds for whoever comes next.

        It failed while it was being prepared (an image that cannot be pulled); else nothing would
        slow the loop down.
        """
        waits = task.api.DesiredState is TaskState.READY and start_time(task) > self.now
        if waits:
            self.look_again(start_time(task))
        return waits

    def _replace(
        self,
        slot: Slot,
        *,
        delay_ns: int,
        owed: bool = False,
        stop_first: str = "",
        restarts: bool = False,
        as_seen: bool = False,
    ) -> None:
        """Have a slot's tasks shut down and a successor made.

        Args:
            stop_first: why a ready task is not replaced start-first as it was asked for.
            as_seen: only while they are as they are now; one that was not ready may become so.
        """
        changes = successor(
            self.view,
            self.service,
            slot,
            self.fates,
            delay_ns=delay_ns,
            owed=owed,
            stop_first=stop_first,
            now=self.now,
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
        return (*slot_requirements(self.service, slot.place, holder=holder), *unchanged)

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
        fails = failed.api.ID in self._plan.failed
        if restarts or fails:
            self._counted.append(_Counted(slot, changes, requires, restarts, fails))
        else:
            self._transactions.append(Transaction(changes=changes, requires=requires))

    def _write_counted(self) -> None:
        """Write all changes that are counted as one transaction with their counters.

        The counters live in one row, so several transactions would get in each other's way.
        """
        batch = self._counted[: self._counted_at_once()]
        if len(batch) < len(self._counted):
            self.look_again(self.now)
        if not batch:
            return
        row = self.service
        restarted = [one.slot for one in batch if one.restarts]
        if restarted:
            tasks = self.view.tasks_of(row.api.ID)
            counted = recorded(row, tasks, restarted, self.now).row
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

    def _counted_at_once(self) -> int:
        """Return how many slots' changes go into one transaction."""
        size = 0
        for count, one in enumerate(self._counted[: CREATE_MAX // 2]):
            size += sum(len(pack(change)) for change in one.changes)
            if count and size > ROWS_BYTES_MAX:
                return count
        return CREATE_MAX // 2


def _shutdown(task: TaskRow) -> Advance:
    return Advance(task_id=task.api.ID, desired=TaskState.SHUTDOWN)


def _unchanged(task: TaskRow) -> At:
    return At(ref=Ref(Kind.TASK, task.api.ID), version=task.api.Version.Index)
