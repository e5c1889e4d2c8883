"""The tables change here and nowhere else: by applying committed entries.

Laws (DESIGN section 6):

- **Deterministic**: the same entries give the same tables and the same answers on every manager.
  No clock, no fresh ids, no settings; times and ids come inside the entry. The order in which an
  index gives its ids is not the same everywhere: a snapshot does not keep it.
- **Total**: any entry that decodes gives Applied or Conflict for each of its transactions, never an
  exception.
- **Judged alone, in order**: a transaction sees its predecessors in the entry, takes effect whole
  or not at all, and spoils none of its neighbours.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..model.base import Time, Version
from ..model.change import (
    Advance,
    Applied,
    At,
    AtLeast,
    Change,
    Conflict,
    ConflictKind,
    Create,
    Delete,
    Entry,
    Exists,
    Free,
    Kind,
    Ref,
    Requirement,
    Result,
    SpecAt,
    Transaction,
    Unreferenced,
    Update,
)
from ..model.objects import ClusterRow, ConfigRow, NetworkRow, Row, SecretRow, TaskRow
from ..model.task import TaskState
from .indexes import KIND_OF, name_of, ref_of, revision_of, version_of
from .view import Overlay, Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model.spec import TaskSpec

REMEMBERED_REQUESTS = 10_000


class RowChange(NamedTuple):
    """One row before and after; None where it was or is not there.

    Attributes:
        at: when, by the one who proposed it, in nanoseconds; 0: not known.
    """

    ref: Ref
    before: Row | None
    after: Row | None
    at: int = 0


class Outcome(NamedTuple):
    """What applying one entry did: a result for each transaction, and the rows that changed."""

    results: tuple[Result, ...]
    changes: tuple[RowChange, ...]


class Store:
    """The replicated state machine: tables, and what recent requests led to.

    A request is remembered once it has taken effect. A conflict changed nothing and is no answer to
    a client: whoever asks again is judged by the tables as they are then.
    """

    def __init__(self) -> None:
        self.view = Tables()
        self._answers: OrderedDict[str, Applied] = OrderedDict()
        self._specs: dict[tuple[str, int], tuple[TaskSpec, int]] = {}  # and how many tasks have it

    @property
    def index(self) -> int:
        """Log index of the last entry applied."""
        return self.view.index

    def apply(self, index: int, entry: Entry) -> Outcome:
        """Apply one committed entry.

        Args:
            index: the entry's place in the log; becomes the version of every row it writes.
        """
        results: list[Result] = []
        changes: list[RowChange] = []
        for transaction in entry.transactions:
            answer: Result | None = self.answer_of(transaction.request_id)
            if answer is None:
                answer = self._judge(index, transaction, changes)
                if transaction.request_id and isinstance(answer, Applied):
                    self._remember(transaction.request_id, answer)
            results.append(answer)
        self.view.index = index
        return Outcome(tuple(results), tuple(changes))

    def skip(self, index: int) -> None:
        """Note an entry that changes no table (empty, or a change of membership)."""
        self.view.index = index

    def answer_of(self, request_id: str) -> Applied | None:
        """Return what a recent request led to, or None while it has not taken effect."""
        return self._answers.get(request_id)

    def _remember(self, request_id: str, answer: Applied) -> None:
        self._answers[request_id] = answer
        if len(self._answers) > REMEMBERED_REQUESTS:
            self._answers.popitem(last=False)

    def _judge(self, index: int, transaction: Transaction, changes: list[RowChange]) -> Result:
        scratch = self.view.overlay()
        for requirement in transaction.requires:
            if not isinstance(requirement, AtLeast):
                conflict = _check(scratch, requirement)
                if conflict is not None:
                    return conflict
        for change in transaction.changes:
            conflict = lay(scratch, change, index, transaction.now)
            if conflict is not None:
                return conflict
        for requirement in transaction.requires:
            if isinstance(requirement, AtLeast):
                conflict = _check(scratch, requirement)
                if conflict is not None:
                    return conflict
        self._write(scratch.written(), transaction.now, changes)
        return Applied(index=index, note=transaction.note)

    def _write(
        self, written: Iterable[tuple[Ref, Row | None]], now: int, changes: list[RowChange]
    ) -> None:
        for ref, row in written:
            if row is None:
                before = self.view.drop(ref)
                if before is not None:
                    changes.append(RowChange(ref, before, None, now))
            else:
                if isinstance(row, TaskRow):
                    row = self._share_spec(row)
                before = self.view.put(row)
                changes.append(RowChange(ref, before, row, now))
            if isinstance(before, TaskRow):
                self._let_go_of_spec(before)

    def _share_spec(self, row: TaskRow) -> TaskRow:
        """Let the tasks of one service version share one spec object in memory."""
        key = (row.api.ServiceID, row.private.spec_version)
        shared, count = self._specs.get(key, (row.api.Spec, 0))
        self._specs[key] = shared, count + 1
        if shared is row.api.Spec or shared != row.api.Spec:
            return row
        return replace(row, api=replace(row.api, Spec=shared))

    def _let_go_of_spec(self, row: TaskRow) -> None:
        """Forget a spec with the last task that has it: its service may be gone for long."""
        key = (row.api.ServiceID, row.private.spec_version)
        shared, count = self._specs.pop(key)
        if count > 1:
            self._specs[key] = shared, count - 1

    # --- snapshots (dump.py makes bytes of them) ---

    def contents(self) -> tuple[list[Row], list[tuple[str, Applied]]]:
        """Return all rows and remembered answers; frozen, so they stay as they are."""
        rows = [row for kind in Kind for row in self.view.rows(kind)]
        return rows, list(self._answers.items())

    def replace_contents(
        self, index: int, rows: Iterable[Row], answers: Iterable[tuple[str, Applied]]
    ) -> tuple[RowChange, ...]:
        """Take over a snapshot's contents; everything before is forgotten.

        Returns:
            what is not as it was. Where there was nothing, nothing has changed.
        """
        tables = Tables()
        self._specs.clear()
        for row in rows:
            tables.put(self._share_spec(row) if isinstance(row, TaskRow) else row)
        tables.index = index
        changes = () if self.view.cluster() is None else tuple(_differences(self.view, tables))
        # Readers hold the view object itself, so its contents are replaced, not the object.
        self.view.__dict__.update(tables.__dict__)
        self._answers = OrderedDict(answers)
        return changes


def _differences(before: Tables, after: Tables) -> Iterator[RowChange]:
    for kind in Kind:
        for row in before.rows(kind):
            if after.row(ref_of(row)) is None:
                yield RowChange(ref_of(row), row, None)
        for row in after.rows(kind):
            old = before.row(ref_of(row))
            if old is None or version_of(old) != version_of(row):
                at = row.private.updated_at if isinstance(row, NetworkRow) else row.api.UpdatedAt
                yield RowChange(ref_of(row), old, row, at)


# --- requirements --------------------------------------------------------------------------------


def _check(view: Overlay, requirement: Requirement) -> Conflict | None:
    if isinstance(requirement, (Exists, At, SpecAt)):
        row = view.row(requirement.ref)
        if row is None:
            return Conflict(kind=ConflictKind.MISSING, ref=requirement.ref)
        if isinstance(requirement, At) and version_of(row) != requirement.version:
            return Conflict(kind=ConflictKind.VERSION, ref=requirement.ref)
        if isinstance(requirement, SpecAt) and row.private.spec_index != requirement.index:
            return Conflict(kind=ConflictKind.VERSION, ref=requirement.ref)
        return None
    if isinstance(requirement, Unreferenced):
        holders = tuple(sorted(view.referrers(requirement.ref)))
        if holders:
            return Conflict(kind=ConflictKind.REFERENCED, ref=requirement.ref, holders=holders)
        return None
    if isinstance(requirement, Free):
        held = tuple(sorted(view.holders(requirement.index, requirement.key)))
        others = tuple(holder for holder in held if holder != requirement.holder)
        if others:
            text = f"{requirement.index.value} {requirement.key} is taken"
            return Conflict(kind=ConflictKind.HELD, holders=others, text=text)
        return None
    held = tuple(sorted(view.holders(requirement.index, requirement.key)))
    if len(held) < requirement.count:
        text = f"{requirement.index.value} {requirement.key} needs {requirement.count} holders"
        return Conflict(kind=ConflictKind.COUNT, holders=held, text=text)
    return None


# --- changes -------------------------------------------------------------------------------------


def lay(view: Overlay, change: Change, index: int, now: int) -> Conflict | None:
    """Lay one change over a view, or say why it cannot be.

    Args:
        index: becomes the version of the row written.
        now: the proposer's wall time in nanoseconds, for the row's own times.
    """
    if isinstance(change, Advance):
        _advance(view, change, index, now)
        return None
    if isinstance(change, Delete):
        row = view.row(change.ref)
        if row is None:
            return Conflict(kind=ConflictKind.MISSING, ref=change.ref)
        if version_of(row) != change.version:
            return Conflict(kind=ConflictKind.VERSION, ref=change.ref)
        view.drop(change.ref)
        return None
    if isinstance(change, Create):
        return _create(view, change.row, index, now)
    return _update(view, change, index, now)


def _create(view: Overlay, row: Row, index: int, now: int) -> Conflict | None:
    ref = ref_of(row)
    if not ref.id:
        return Conflict(kind=ConflictKind.INVALID, ref=ref, text="a row needs an id")
    taken = view.row(ref) is not None
    if taken or (isinstance(row, ClusterRow) and view.cluster() is not None):
        return Conflict(kind=ConflictKind.EXISTS, ref=ref, holders=(ref.id,))
    conflict = _name_conflict(view, row)
    if conflict is None:
        view.put(_stamp(row, None, index, now))
    return conflict


def _update(view: Overlay, change: Update, index: int, now: int) -> Conflict | None:
    row = change.row
    ref = ref_of(row)
    before = view.row(ref)
    if before is None:
        return Conflict(kind=ConflictKind.MISSING, ref=ref)
    if version_of(before) != version_of(row):
        return Conflict(kind=ConflictKind.VERSION, ref=ref)
    if isinstance(row, TaskRow) and isinstance(before, TaskRow) and _goes_back(before, row):
        return Conflict(kind=ConflictKind.INVALID, ref=ref, text="a task's state never goes back")
    conflict = _name_conflict(view, row)
    if conflict is None:
        view.put(_stamp(row, before, index, now))
    return conflict


def _goes_back(before: TaskRow, after: TaskRow) -> bool:
    return (
        after.api.Status.State < before.api.Status.State
        or after.api.DesiredState < before.api.DesiredState
    )


def _name_conflict(view: Overlay, row: Row) -> Conflict | None:
    name = name_of(row)
    if name is None:
        return None
    holder = view.by_name(KIND_OF[type(row)], name)
    if holder is None or holder.api.ID == row.api.ID or _is_version(view, holder, row):
        return None
    ref = ref_of(holder)
    return Conflict(kind=ConflictKind.EXISTS, ref=ref, holders=(ref.id,), text=f"name {name}")


def _is_version(view: Overlay, newest: Row, row: Row) -> bool:
    """True for the next version of a name, and for one that has been a version of it all along."""
    if not isinstance(row, (SecretRow, ConfigRow)):
        return False
    before = view.row(ref_of(row))
    if before is not None:
        return name_of(before) == name_of(row) and revision_of(before) == revision_of(row)
    return revision_of(row) == revision_of(newest) + 1


def _stamp(row: Row, before: Row | None, index: int, now: int) -> Row:
    """Return the row with its version, times and ``spec_index`` as of this entry."""
    changed = before is None or _wish(row) != _wish(before)
    if isinstance(row, NetworkRow):
        network = row.private
        created = before.api.Created if isinstance(before, NetworkRow) else Time(now)
        spec_index = index if changed else network.spec_index
        private = replace(network, version=index, updated_at=now, spec_index=spec_index)
        return replace(row, api=replace(row.api, Created=created), private=private)
    created_at = Time(now)
    if before is not None and not isinstance(before, NetworkRow):
        created_at = before.api.CreatedAt
    stamps = {"Version": Version(Index=index), "CreatedAt": created_at, "UpdatedAt": Time(now)}
    api = replace(row.api, **stamps)
    if changed:
        return replace(row, api=api, private=replace(row.private, spec_index=index))
    return replace(row, api=api)


def _wish(row: Row) -> object:
    """Return the part of a row that users write."""
    if isinstance(row, NetworkRow):
        return row.private.spec
    return row.api.Spec


def _advance(view: Overlay, change: Advance, index: int, now: int) -> None:
    row = view.row(Ref(Kind.TASK, change.task_id))
    if not isinstance(row, TaskRow) or (change.node_id and row.api.NodeID != change.node_id):
        return
    status, desired, private = row.api.Status, row.api.DesiredState, row.private
    report = change.status
    if report is not None and report.State >= status.State and report != status:
        status, private = report, replace(private, applied_at=now)
        if report.State is TaskState.RUNNING and not private.started_at:
            private = replace(private, started_at=now)
    if change.desired is not None:
        desired = max(desired, change.desired)
    if status is row.api.Status and desired == row.api.DesiredState:
        return
    api = replace(
        row.api,
        Status=status,
        DesiredState=desired,
        Version=Version(Index=index),
        UpdatedAt=Time(now),
    )
    view.put(replace(row, api=api, private=private))
