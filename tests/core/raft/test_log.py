"""The log: a stable part, an unstable tail, and what may move when."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarmctl.core.raft.errors import Compacted, EntryUnavailable, SafetyViolation
from swarmctl.core.raft.log import RaftLog
from swarmctl.core.raft.message import Entry, EntryKind, Snapshot
from swarmctl.core.raft.storage import NO_LIMIT, MemoryStorage, limit_size
from tests.core.raft.cluster import entries


def log_with(*terms: int, stable: int = 0, commit: int = 0) -> RaftLog:
    """A log with entries of these terms, the first ``stable`` of them in storage."""
    log = RaftLog(MemoryStorage(entries=entries(*terms[:stable])))
    if terms[stable:]:
        log.append(entries(*terms[stable:], start=stable + 1))
    log.commit_to(commit)
    return log


def content(log: RaftLog) -> list[int]:
    return [entry.term for entry in log.entries(log.first_index(), NO_LIMIT)]


@pytest.mark.parametrize("stable", range(4))
@pytest.mark.parametrize(
    ("prev", "new_terms", "result", "after"),
    [
        ((3, 3), (), 3, [1, 2, 3]),
        ((3, 3), (4, 4), 5, [1, 2, 3, 4, 4]),
        ((1, 1), (2, 3), 3, [1, 2, 3]),  # all known
        ((1, 1), (2,), 2, [1, 2, 3]),  # shorter than ours, agrees: nothing is cut
        ((0, 0), (1, 4), 2, [1, 4]),  # contradicts at 2: cut from there
        ((2, 2), (4, 4), 4, [1, 2, 4, 4]),
        ((2, 1), (4,), None, [1, 2, 3]),  # other term at prev
        ((4, 4), (4,), None, [1, 2, 3]),  # prev is past our end
    ],
)
def test_what_a_follower_appends(
    stable: int,
    prev: tuple[int, int],
    new_terms: tuple[int, ...],
    result: int | None,
    after: list[int],
) -> None:
    """Known entries are skipped, the first contradiction cuts, an unknown prev refuses.

    Wherever the border between storage and tail is.
    """
    log = log_with(1, 2, 3, stable=stable)
    index, term = prev
    assert log.try_append(index, term, entries(*new_terms, start=index + 1), 0) == result
    assert content(log) == after


def test_commit_is_learnt_only_as_far_as_the_append_vouches() -> None:
    """min(leader's commit, last new entry): what lies behind may be another leader's."""
    log = log_with(1, 1, 1, 1, 1)
    log.try_append(1, 1, entries(1, start=2), 5)
    assert log.committed == 2


def test_committed_entries_are_never_replaced() -> None:
    """A leader that contradicts what is committed reveals damage; nothing is changed."""
    log = log_with(1, 1, 1, commit=2)
    with pytest.raises(SafetyViolation):
        log.try_append(1, 1, entries(2, start=2), 0)
    with pytest.raises(SafetyViolation):
        log.append(entries(2, start=2))
    assert content(log) == [1, 1, 1]


def test_a_commit_past_the_end_is_damage() -> None:
    """Being told of a commit that our log cannot have means that the log was lost."""
    with pytest.raises(SafetyViolation):
        log_with(1).commit_to(2)


def test_no_hole_is_ever_left() -> None:
    """Appending after a gap is refused by log and storage alike."""
    with pytest.raises(SafetyViolation):
        log_with(1).append(entries(1, start=3))
    with pytest.raises(SafetyViolation):
        MemoryStorage(entries=entries(1)).append(entries(1, start=3))


def test_overwriting_what_is_being_written_writes_it_again() -> None:
    """Entries replaced while on their way to the disk are handed out once more."""
    log = log_with(1, 1, 1)
    log.accept_writing()
    assert not log.has_entries_to_write
    log.append(entries(2, start=2))
    assert [entry.term for entry in log.entries_to_write()] == [2]
    log.stable_to(3, 1)  # the old write is done, and means nothing now
    log.stable_to(2, 1)
    assert content(log) == [1, 2]
    assert log.has_unstable_entries
    log.accept_writing()
    log.stable_to(2, 2)
    assert not log.has_unstable_entries


def test_only_stable_entries_are_applied_in_the_asynchronous_form() -> None:
    """What a quorum has committed may still be missing on our own disk."""
    log = log_with(1, 1, 1, 1, stable=2, commit=4)
    assert [each.index for each in log.entries_to_apply(allow_unstable=False)] == [1, 2]
    assert [each.index for each in log.entries_to_apply(allow_unstable=True)] == [1, 2, 3, 4]


def test_applying_waits_while_too_much_is_under_way() -> None:
    """The limit holds for what is handed out and not yet applied, but one always passes."""
    log = RaftLog(
        MemoryStorage(entries=tuple(Entry(1, index, data=b"x" * 100) for index in range(1, 6))),
        max_applying_size=250,
    )
    log.commit_to(5)
    first = log.entries_to_apply(allow_unstable=False)
    assert [each.index for each in first] == [1, 2]
    log.accept_applying(first, allow_unstable=False)
    assert not log.has_entries_to_apply(allow_unstable=False)
    log.applied_to(2, 216)
    assert [each.index for each in log.entries_to_apply(allow_unstable=False)] == [3, 4]


@pytest.mark.parametrize(
    ("index", "applied"), [(3, 0), (0, 1)], ids=["not committed", "applied before"]
)
def test_applying_follows_commitment(index: int, applied: int) -> None:
    """Nothing uncommitted is applied, and applying never goes back."""
    log = log_with(1, 1, 1, commit=2)
    log.applied_to(applied, 0)
    with pytest.raises(SafetyViolation):
        log.applied_to(index, 0)


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [
        (6, 5, (6, 5)),
        (6, 4, (3, 3)),
        (6, 2, (1, 1)),
        (6, 0, (0, 0)),
        (9, 1, (9, 0)),  # past our end: unknown
    ],
)
def test_where_two_logs_can_agree(index: int, term: int, found: tuple[int, int]) -> None:
    """The hint is our last entry that a log with that term can share."""
    assert log_with(1, 3, 3, 5, 5, 5, stable=3).find_conflict_by_term(index, term) == found


@pytest.mark.parametrize(
    ("candidate", "fine"),
    [((2, 3), True), ((3, 1), True), ((2, 4), True), ((2, 2), False), ((1, 9), False)],
)
def test_which_log_is_up_to_date(candidate: tuple[int, int], fine: bool) -> None:
    """The later last term wins; with equal ones, the longer log."""
    term, index = candidate
    assert log_with(1, 2, 2).is_up_to_date(index, term) is fine


def test_a_snapshot_replaces_everything() -> None:
    """After a restore the log begins and ends at the snapshot, until storage has taken it."""
    log = log_with(1, 1, 1, stable=2)
    log.restore(Snapshot(9, 4))
    assert (log.first_index(), log.last_index, log.committed) == (10, 9, 9)
    assert (log.term(9), log.term(8), log.term(10)) == (4, None, None)
    with pytest.raises(Compacted):
        log.slice(2, 4, NO_LIMIT)
    assert not log.has_entries_to_apply(allow_unstable=True)
    log.stable_snapshot(8)
    assert log.pending_snapshot is not None
    log.stable_snapshot(9)
    assert log.pending_snapshot is None


def test_installing_a_snapshot_drops_the_unstable_tail() -> None:
    """What was still to be written belongs to the log that is gone: nothing of it is written."""
    log = log_with(1, 1, 1, 1, stable=2)
    log.restore(Snapshot(9, 4))
    assert not log.has_unstable_entries
    assert not log.has_entries_to_write
    assert log.entries_to_write() == ()
    log.append(entries(4, start=10))
    assert log.entries_to_write() == entries(4, start=10)


def test_membership_changes_are_found_page_by_page() -> None:
    """A committed membership change that is not applied is seen, however far behind."""
    some = tuple(Entry(1, index, data=b"x" * 50) for index in range(1, 8))
    marked = (*some, Entry(1, 8, EntryKind.CONF_CHANGE))
    log = RaftLog(MemoryStorage(entries=marked), max_applying_size=100)
    log.commit_to(7)
    assert not log.has_unapplied_conf_change()
    log.commit_to(8)
    assert log.has_unapplied_conf_change()
    log.applied_to(8, 0)
    assert not log.has_unapplied_conf_change()


def test_reading_across_the_border_keeps_to_the_limit() -> None:
    """Storage and tail together give at most the limit, and at least one entry."""
    stable = tuple(Entry(1, index, data=b"x" * 92) for index in (1, 2))
    log = RaftLog(MemoryStorage(entries=stable))
    log.append(tuple(Entry(1, index, data=b"x" * 92) for index in (3, 4)))
    for limit, count in [(1, 1), (100, 1), (199, 1), (200, 2), (299, 2), (300, 3), (400, 4)]:
        assert [each.index for each in log.slice(1, 5, limit)] == list(range(1, count + 1))


def test_limit_size_passes_one_and_cuts_the_rest() -> None:
    """One entry passes whatever it weighs."""
    big = [Entry(data=b"x" * 1000), Entry(data=b"y")]
    assert limit_size(big, 10) == (big[0],)
    assert limit_size([], 10) == ()
    assert limit_size(big, NO_LIMIT) == tuple(big)


def test_compaction_keeps_the_term_before_the_log() -> None:
    """The last compacted entry still answers what term it was of; older ones are gone."""
    storage = MemoryStorage(entries=entries(1, 2, 3, 4))
    storage.compact(2)
    assert (storage.first_index(), storage.last_index()) == (3, 4)
    assert storage.term(2) == 2
    with pytest.raises(Compacted):
        storage.term(1)
    with pytest.raises(Compacted):
        storage.compact(2)
    with pytest.raises(Compacted):
        storage.entries(2, 4, NO_LIMIT)
    with pytest.raises(EntryUnavailable):
        storage.term(5)
    with pytest.raises(EntryUnavailable):
        storage.entries(3, 6, NO_LIMIT)


def test_a_late_write_of_compacted_entries_is_no_news() -> None:
    """Entries that overlap the compacted part are taken from where the log begins."""
    storage = MemoryStorage(entries=entries(1, 1, 1))
    storage.compact(2)
    storage.append(entries(1, 1))
    assert storage.last_index() == 3
    storage.append(entries(1, 1, 1, 2))
    assert [each.index for each in storage.entries(3, 5, NO_LIMIT)] == [3, 4]


def test_storage_never_goes_back_to_an_older_snapshot() -> None:
    """A snapshot older than the present one is refused."""
    storage = MemoryStorage(Snapshot(5, 2))
    with pytest.raises(SafetyViolation):
        storage.install(Snapshot(4, 2))
    with pytest.raises(SafetyViolation):
        storage.replace_snapshot(Snapshot(4, 2))
    storage.install(Snapshot(9, 3))
    assert (storage.first_index(), storage.last_index(), storage.term(9)) == (10, 9, 3)


class LogAgainstList(RuleBasedStateMachine):
    """The log behaves as one plain list of terms, whatever is stable, being written or replaced.

    Writes are done in order, some time after they were handed out, as a disk does them.
    """

    @initialize()
    def begin(self) -> None:
        self.storage = MemoryStorage()
        self.log = RaftLog(self.storage)
        self.model: list[int] = []
        self.term = 1
        self.writes: list[tuple[tuple[Entry, ...], int, int, int]] = []

    @rule(count=st.integers(1, 4))
    def append(self, count: int) -> None:
        terms = [self.term] * count
        self.log.append(entries(*terms, start=len(self.model) + 1))
        self.model += terms

    @rule(data=st.data(), count=st.integers(1, 3))
    def overwrite(self, data: st.DataObject, count: int) -> None:
        self.term += 1
        start = data.draw(st.integers(self.log.committed + 1, len(self.model) + 1))
        self.log.append(entries(*[self.term] * count, start=start))
        self.model[start - 1 :] = [self.term] * count

    @rule()
    def hand_out(self) -> None:
        new = self.log.entries_to_write()
        self.writes.append((new, self.term, self.log.last_index, self.log.last_term))
        self.log.accept_writing()

    @precondition(lambda self: self.writes)
    @rule()
    def write_done(self) -> None:
        new, term, last_index, last_term = self.writes.pop(0)
        self.storage.append(new)
        if term == self.term and last_index:
            self.log.stable_to(last_index, last_term)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        self.log.commit_to(data.draw(st.integers(0, len(self.model))))

    @invariant()
    def is_the_list(self) -> None:
        log = self.log
        assert [each.term for each in log.entries(1, NO_LIMIT)] == self.model
        assert log.last_index == len(self.model)
        assert log.last_term == (self.model[-1] if self.model else 0)
        assert [log.term(index) for index in range(1, len(self.model) + 1)] == self.model
        if not self.writes and not log.has_entries_to_write and not log.has_unstable_entries:
            assert self.storage.last_index() == len(self.model)


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
