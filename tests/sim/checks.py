"""What is looked at from outside, after every step, and what must never be seen.

Everything is incremental: an entry is examined when the first manager applies it, and every other
manager's result of the same entry is compared with the first. So all managers are compared on
every change they make, and no step looks at whole tables. (Loading a snapshot is the exception:
there all rows and all remembered answers are compared.)
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from swarmctl.core.manager.passes import Reconciler
from swarmctl.core.model.change import Advance, Applied, Delete, Kind, Ref, Update
from swarmctl.core.model.codec import decode_entry
from swarmctl.core.model.objects import TaskRow
from swarmctl.core.raft.message import MessageKind, Role
from swarmctl.core.raft.quorum import Vote, joint_vote_result
from swarmctl.core.store.indexes import ref_of, version_of
from tests.sim.invariants import Tables

if TYPE_CHECKING:
    from swarmctl.core.model.change import Change, Decision, Result, Transaction
    from swarmctl.core.model.objects import Row
    from swarmctl.core.raft.confchange import Configuration
    from swarmctl.core.raft.message import Entry, Message
    from swarmctl.core.raft.raft import Raft
    from swarmctl.core.store.store import Outcome, RowChange
    from swarmctl.core.store.view import View
    from tests.sim.cluster import Cluster
    from tests.sim.disk import Platter
    from tests.sim.host import Host
    from tests.sim.member import Manager


class Broken(AssertionError):
    """A promise does not hold."""


class _Record(NamedTuple):
    """What the log's place was found to hold and to do."""

    data: bytes
    results: tuple[Result, ...]
    changes: tuple[RowChange, ...]


class Checks:
    """Everything seen so far, and what may therefore never be seen any more.

    Attributes:
        tables: the rows as the log has made them, up to its newest entry applied anywhere.
        known_index: the newest state that a client was told of.
    """

    def __init__(self, cluster: Cluster, founding_index: int) -> None:
        self.tables = Tables()
        self.known_index = founding_index
        self.frontier = founding_index
        self._cluster = cluster
        self._founding_index = founding_index
        self._log: dict[int, _Record] = {}
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._entries: dict[tuple[int, int], tuple[int, Entry]] = {}
        self._durable: dict[tuple[int, int], set[int]] = {}
        self._installed: dict[int, int] = {}
        self._memberships: deque[Configuration] = deque(maxlen=3)
        self._applied_by_term: dict[int, int] = {}
        self._answers: dict[str, tuple[int, Result]] = {}
        self._conflicts: dict[str, list[Result]] = {}
        self._bases: dict[str, set[tuple[Ref, int]]] = {}
        self._failure: Exception | None = None

    # --- consensus ---

    def look(self, manager: Manager) -> None:
        """A manager has taken a turn."""
        raft = manager.raft
        if self._failure is not None:
            raise self._failure
        if raft.role is not Role.LEADER:
            return
        if manager.led_term != raft.term:
            manager.led_term = raft.term
            self._elected(raft)
        log = raft.log
        if log.committed < log.last_index:
            reached = raft.tracker.committed()
            if log.committed < reached and log.term(reached) not in (None, raft.term):
                self._cluster.counts["figure 8"] += 1
        if raft.transferee:
            self._cluster.counts["transfer in flight"] += 1

    def _elected(self, raft: Raft) -> None:
        self._cluster.counts["elections"] += 1
        first = self._leaders.setdefault(raft.term, raft.id)
        if first != raft.id:
            raise Broken(f"members {first} and {raft.id} both lead term {raft.term}")
        for term, index in self._applied_by_term.items():
            if term < raft.term and raft.log.last_index < index:
                raise Broken(f"leader {raft.id} of term {raft.term} lacks committed {index}")

    def sends(self, manager: Manager, message: Message) -> None:
        """A message leaves a manager."""
        if message.kind is MessageKind.VOTE_RESPONSE and not message.reject:
            voted = self._votes.setdefault((message.sender, message.term), message.to)
            if voted != message.to:
                raise Broken(f"{manager.host.name} voted twice in term {message.term}")
            hard = manager.disk.platter.hard_state
            durable = hard.term > message.term or (hard.term, hard.vote) == (message.term, voted)
            if not durable:
                raise Broken(f"{manager.host.name} told a vote that is not on its disk")

    def written(self, raft_id: int, platter: Platter, message: Message) -> None:
        """Entries reached a disk: everybody's entry of that place and term is the same."""
        log = platter.log
        if message.snapshot is not None:
            self._installed[raft_id] = message.snapshot.index
        for entry in message.entries:
            if entry.index < log.first_index():
                continue
            place = (entry.index, entry.term)
            before = log.term(entry.index - 1)
            known = self._entries.setdefault(place, (before, entry))
            if known != (before, entry):
                raise Broken(f"two different entries {entry.term}/{entry.index}")
            self._durable.setdefault(place, set()).add(raft_id)

    # --- the state machine ---

    def applied(self, manager: Manager, index: int, data: bytes, outcome: Outcome) -> None:
        """A manager has applied an entry with transactions."""
        record = self._log.get(index)
        if record is None:
            record = _Record(data, outcome.results, outcome.changes)
            self._first(manager, index, record)
            self._note_answers(index, record)
            self.tables.now = self._cluster.queue.now
            self.tables.take(index, outcome.changes)
        elif record.data != data:
            raise Broken(f"{manager.host.name} applies another entry at {index} than others did")
        elif record.results != outcome.results or record.changes != outcome.changes:
            raise Broken(f"{manager.host.name} comes to another state at {index} than others did")
        self._note_applied(manager.raft, index)

    def skipped(self, manager: Manager, index: int) -> None:
        """A manager has applied an entry without transactions."""
        record = self._log.get(index)
        if record is None:
            self._cluster.counts["joint memberships"] += manager.raft.tracker.configuration.joint
            self._first(manager, index, _Record(b"", (), ()))
        elif record.data:
            raise Broken(f"{manager.host.name} skips entry {index}, others applied it")
        self._note_applied(manager.raft, index)

    def _first(self, manager: Manager, index: int, record: _Record) -> None:
        if index != self.frontier + 1:
            raise Broken(f"{manager.host.name} applies {index} before {self.frontier + 1}")
        self._log[index] = record
        self.frontier = index
        self._check_quorum(manager, index)

    def _check_quorum(self, manager: Manager, index: int) -> None:
        """What is applied anywhere is on the disks of a quorum.

        Its leader may have counted by the membership before, or after, the first applier's.
        """
        configuration = manager.raft.tracker.configuration
        if not self._memberships or self._memberships[-1] != configuration:
            self._memberships.append(configuration)
        term = manager.raft.log.term(index)
        have = dict.fromkeys(self._durable.get((index, term or 0), ()), True)
        have.update((each, True) for each, at in self._installed.items() if at >= index)
        for membership in self._memberships:
            won = joint_vote_result(membership.voters, membership.outgoing, have)
            if won is Vote.WON:
                return
        raise Broken(f"{manager.host.name} applies {index}, which no quorum has on its disks")

    def _note_applied(self, raft: Raft, index: int) -> None:
        if index > self._applied_by_term.get(raft.term, 0):
            self._applied_by_term[raft.term] = index

    def _note_answers(self, index: int, record: _Record) -> None:
        """What is in conflict changes nothing, and a request takes effect once."""
        entry = decode_entry(record.data)
        changed = {change.ref for change in record.changes}
        for transaction, result in zip(entry.transactions, record.results, strict=True):
            if isinstance(result, Applied):
                changed -= {_ref_of(change) for change in transaction.changes}
            request_id = transaction.request_id
            if not request_id:
                continue
            first = self._answers.get(request_id)
            if first is not None:
                self._cluster.counts["retries in the log"] += 1
                if first[1] != result:
                    raise Broken(f"request {request_id} is answered {result}, at first {first[1]}")
            elif isinstance(result, Applied):
                self._answers[request_id] = index, result
            else:
                self._conflicts.setdefault(request_id, []).append(result)
        if changed:
            raise Broken(f"entry {index} changes {changed} though that was in conflict")

    def loaded(self, manager: Manager) -> None:
        """A manager has put a snapshot in place of its tables."""
        index = manager.store.index
        if index < self._founding_index:
            return
        expected = self.rows_at(index)
        rows, answers = manager.store.contents()
        found = {ref_of(row): row for row in rows}
        if found != expected:
            wrong = [ref for ref in {*found, *expected} if found.get(ref) != expected.get(ref)]
            raise Broken(f"{manager.host.name} loads another state of {index}: {wrong[:3]}")
        told = [(key, result) for key, (at, result) in self._answers.items() if at <= index]
        if answers != told:
            raise Broken(f"{manager.host.name} loads other answers of {index}")

    def rows_at(self, index: int) -> dict[Ref, Row]:
        """Return the tables as they were at a log index."""
        rows = dict(self.tables.rows)
        for at in range(self.frontier, index, -1):
            for change in reversed(self._log[at].changes):
                if change.before is None:
                    rows.pop(change.ref, None)
                else:
                    rows[change.ref] = change.before
        return rows

    # --- clients ---

    def acknowledged(self, request_id: str, result: Result) -> None:
        """A client was given an answer to its write."""
        if not isinstance(result, Applied):
            if result not in self._conflicts.get(request_id, ()):
                raise Broken(f"request {request_id} was answered {result}, which is not in the log")
            return
        first = self._answers.get(request_id)
        if first is None:
            raise Broken(f"request {request_id} was answered {result}, and is not in the log")
        if first[1] != result or result.index != first[0]:
            raise Broken(f"request {request_id} was answered {result}, at first {first}")
        self._see_base(request_id, result.index)
        self.known_index = max(self.known_index, result.index)

    def built(self, request_id: str, transaction: Transaction) -> None:
        """A manager has made a request a change of a row as it saw it."""
        for change in transaction.changes:
            if isinstance(change, Update):
                base = ref_of(change.row), version_of(change.row)
                self._bases.setdefault(request_id, set()).add(base)

    def _see_base(self, request_id: str, index: int) -> None:
        """An update took effect: on the very row that it was made of, no later one."""
        bases = self._bases.get(request_id)
        if bases is None:
            return
        for change in self._log[index].changes:
            if change.before is not None and (change.ref, version_of(change.before)) in bases:
                return
        raise Broken(f"request {request_id} overwrites a newer row than it was made of")

    def fingerprint(self) -> int:
        """Return a number that any difference in the log changes."""
        digest = 0
        for index in sorted(self._log):
            digest = zlib.crc32(self._log[index].data, digest)
        return digest

    def read(self, asked_at: int, view: View) -> int:
        """A client is given the tables to read; return their index."""
        if view.index < asked_at:
            raise Broken(f"a read at {view.index} misses what was known before: {asked_at}")
        self.known_index = max(self.known_index, view.index)
        return view.index

    # --- deciders and agents ---

    def watched(self, reconciler: Reconciler) -> Reconciler:
        """Return a reconciler whose errors are findings, though the product survives them."""

        def decide(view: View, key: str, now: int, new_id: object) -> Decision:
            try:
                return reconciler.decide(view, key, now, new_id)  # type: ignore[arg-type]
            except Exception as error:
                self._failure = Broken(f"{reconciler.name} fails on {key}: {error!r}")
                raise

        return Reconciler(name=reconciler.name, keys=reconciler.keys, decide=decide)

    def container_started(self, host: Host, task_id: str) -> None:
        """An executor has started a container."""
        counts, rows = self._cluster.counts, self.tables.rows
        counts["containers started"] += 1
        task = rows.get(Ref(Kind.TASK, task_id))
        if not isinstance(task, TaskRow):
            return
        if task.private.by_node and not host.founded:
            counts[
                "global jobs on newcomers" if task.api.JobIteration else "global on newcomers"
            ] += 1
        for other_host in self._cluster.hosts.values():
            for other_id in other_host.containers:
                other = rows.get(Ref(Kind.TASK, other_id))
                if other_id == task_id or not isinstance(other, TaskRow):
                    continue
                if (other.api.ServiceID, other.place) == (task.api.ServiceID, task.place):
                    counts["overlapping containers"] += 1
                    self.tables.now = self._cluster.queue.now
                    self.tables.see_overlap(task, other)

    def refused_assignment(self, host: Host, task_id: str, why: str) -> None:
        """An agent was given a task without what it needs."""
        task = self.tables.rows.get(Ref(Kind.TASK, task_id))
        container = task.api.Spec.ContainerSpec if isinstance(task, TaskRow) else None
        uses = container.Secrets if container is not None else ()
        if any(Ref(Kind.SECRET, use.SecretID) in self.tables.rows for use in uses):
            raise Broken(f"{host.name} was given task {task_id} and not its data: {why}")
        self._cluster.counts["secrets removed under tasks"] += 1


def _ref_of(change: Change) -> Ref:
    if isinstance(change, Advance):
        return Ref(Kind.TASK, change.task_id)
    return change.ref if isinstance(change, Delete) else ref_of(change.row)
