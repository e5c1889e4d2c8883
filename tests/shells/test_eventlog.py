"""The last events of a daemon: who reads them, from where, and what a slow reader costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from swarmctl.core.clock import TrioClock
from swarmctl.core.errors import NotManager
from swarmctl.core.manager.eventlog import KEPT, PIECE, EventLog, EventsLost, Reader
from swarmctl.core.model.change import Kind, Ref
from swarmctl.core.model.objects import Secret, SecretRow, SecretSpec, TaskRow
from swarmctl.core.model.task import Task
from swarmctl.core.store.store import RowChange
from swarmctl.core.store.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_700_000_000_000_000_000


@pytest.fixture
def events() -> EventLog:
    return EventLog(TrioClock(NOW))


@pytest.fixture
def watch(events: EventLog) -> Iterator[Watch]:
    watch = Watch()
    with events.told_by(watch, replayed_to=0):
        yield watch


def secret(number: int) -> RowChange:
    row = SecretRow(api=Secret(ID=f"s{number}", Spec=SecretSpec(Name=f"s{number}")))
    return RowChange(Ref(Kind.SECRET, row.api.ID), None, row, number)


def task(number: int) -> RowChange:
    row = TaskRow(api=Task(ID=f"t{number}"))
    return RowChange(Ref(Kind.TASK, row.api.ID), None, row, number)


def drain(reader: Reader) -> list[str]:
    """Take all there is."""
    found: list[str] = []
    while events := reader.take():
        found += [event.id for event in events]
    return found


async def test_a_reader_sees_what_comes_after_it(events: EventLog, watch: Watch) -> None:
    """Everything in order, each once; with the past on request."""
    watch.publish(1, (secret(1),))
    new = events.open_reader(past=False, tasks=False)
    watch.publish(2, (secret(2), secret(3)))
    assert drain(new) == ["s2", "s3"]
    assert drain(events.open_reader(past=True, tasks=False)) == ["s1", "s2", "s3"]
    assert drain(new) == []


async def test_a_reader_sleeps_until_there_is_more(
    events: EventLog, watch: Watch, autojump_clock: object
) -> None:
    """Whoever waits wakes for an event, and for nothing else; who is behind does not wait."""
    reader = events.open_reader(past=False, tasks=False)
    woken: list[str] = []

    async def read() -> None:
        await reader.wait()
        woken.extend(drain(reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        watch.publish(1, (task(1),))
        await wait_all_tasks_blocked()
        assert woken == []
        watch.publish(2, (secret(2),))
    assert woken == ["s2"]
    watch.publish(3, (secret(3),))
    await reader.wait()


async def test_tasks_are_noted_while_somebody_asks(events: EventLog, watch: Watch) -> None:
    """Nobody pays for events of tasks that nobody wants, and they have no past."""
    reader = events.open_reader(past=False, tasks=True)
    watch.publish(1, (task(1),))
    reader.close()
    reader.close()
    watch.publish(2, (task(2),))
    again = events.open_reader(past=True, tasks=True)
    watch.publish(3, (task(3),))
    assert drain(again) == ["t1", "t3"]


async def test_a_slow_reader_costs_nothing_and_is_told(events: EventLog, watch: Watch) -> None:
    """What is kept is bounded, whoever reads; who is overtaken hears that, and nobody else."""
    slow = events.open_reader(past=False, tasks=False)
    quick = events.open_reader(past=False, tasks=False)
    behind = events.open_reader(past=False, tasks=False)
    for number in range(KEPT):
        watch.publish(number + 1, (secret(number),))
    assert len(drain(behind)) == KEPT  # so far behind is not too slow
    seen = len(drain(quick))
    for number in range(2 * KEPT):
        watch.publish(KEPT + number + 1, (secret(number),))
        seen += len(drain(quick))
    assert seen == 3 * KEPT
    with pytest.raises(EventsLost, match="reads too slowly"):
        slow.take()
    late = events.open_reader(past=True, tasks=False)
    assert len(late.take()) == PIECE
    assert KEPT - PIECE <= len(drain(late)) < 2 * KEPT


async def test_what_a_restart_repeats_is_no_news(events: EventLog) -> None:
    """Entries that are applied anew when a manager starts are the past; what follows is not."""
    watch = Watch()
    with events.told_by(watch, replayed_to=2):
        reader = events.open_reader(past=False, tasks=False)
        for index in range(1, 5):
            watch.publish(index, (secret(index),))
        assert drain(reader) == ["s3", "s4"]
        assert drain(events.open_reader(past=True, tasks=False)) == ["s1", "s2", "s3", "s4"]


async def test_a_reader_outlives_no_managership_that_it_was_told_of(events: EventLog) -> None:
    """When this node is no manager any more its readers end; who came before it was one does not
    end, and is told once it is."""
    early = events.open_reader(past=False, tasks=False)
    assert drain(early) == []
    watch = Watch()
    with events.told_by(watch, replayed_to=0):
        assert drain(early) == []
        late = events.open_reader(past=False, tasks=False)
        watch.publish(1, (secret(1),))
        assert drain(early) == drain(late) == ["s1"]
        watch.publish(2, (secret(2),))
    for reader in (early, late):
        assert [event.id for event in reader.take()] == ["s2"]  # what there was comes first
        with pytest.raises(NotManager):
            reader.take()
    watch.publish(3, (secret(3),))
    assert drain(events.open_reader(past=True, tasks=False)) == ["s1", "s2"]


async def test_what_has_no_time_gets_this_daemons(events: EventLog) -> None:
    """A snapshot does not say when a row went; who notices stamps it."""
    watch, clock = Watch(), TrioClock(NOW)
    before = clock.now()
    with events.told_by(watch, replayed_to=0):
        gone = secret(1)
        watch.publish_everything(7, (RowChange(gone.ref, gone.after, None),))
        (event,) = events.open_reader(past=True, tasks=False).take()
    assert event.action == "remove"
    assert before <= event.at <= clock.now()
