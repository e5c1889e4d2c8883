"""Mailboxes and listeners: who is woken, and what they learn."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from swarmctl.core.model.change import Kind, Ref
from swarmctl.core.store.store import RowChange
from swarmctl.core.store.watch import TOUCHED_MAX, Watch


def change(row_id: str = "a") -> RowChange:
    return RowChange(Ref(Kind.TASK, row_id), None, None)


async def test_a_new_mailbox_asks_for_everything(autojump_clock: object) -> None:
    """The first look is at all there is, and it does not have to be waited for."""
    with Watch().mailbox() as mailbox:
        with trio.fail_after(1):
            await mailbox.wait()
        assert mailbox.take() is None
        assert mailbox.take() == set()


async def test_many_changes_are_one_wake_up() -> None:
    """A reader that was away learns of every row once."""
    watch = Watch()
    with watch.mailbox() as mailbox:
        mailbox.take()
        for index, row_id in enumerate(["a", "b", "a"], start=1):
            watch.publish(index, (change(row_id),))
        await mailbox.wait()
        assert mailbox.take() == {Ref(Kind.TASK, "a"), Ref(Kind.TASK, "b")}


async def test_a_waiter_sleeps_until_something_changes(autojump_clock: object) -> None:
    """An entry that changes nothing wakes nobody, one that does wakes everybody."""
    watch = Watch()
    woken: list[str] = []

    async def listen(name: str, *, task_status: trio.TaskStatus[None]) -> None:
        with watch.mailbox() as mailbox:
            mailbox.take()
            task_status.started()
            await mailbox.wait()
            woken.append(name)

    async with trio.open_nursery() as nursery:
        await nursery.start(listen, "one")
        await nursery.start(listen, "two")
        watch.publish(1, ())
        await wait_all_tasks_blocked()
        assert woken == []
        watch.publish(2, (change(),))
    assert sorted(woken) == ["one", "two"]


async def test_too_many_rows_mean_everything() -> None:
    """A mailbox lists so many rows and then says: look at all of them."""
    watch = Watch()
    with watch.mailbox() as mailbox:
        mailbox.take()
        watch.publish(1, tuple(change(f"{at}") for at in range(TOUCHED_MAX)))
        watch.publish(2, (change("one more"),))
        assert mailbox.take() is None


async def test_a_snapshot_means_everything() -> None:
    """When the tables were replaced, every reader starts over."""
    watch = Watch()
    heard: list[tuple[int, tuple[RowChange, ...]]] = []
    with watch.mailbox() as mailbox, watch.told(lambda *what: heard.append(what)):
        mailbox.take()
        watch.publish_everything(5, (change(),))
        assert mailbox.take() is None
    assert heard == [(5, (change(),))]


async def test_a_closed_mailbox_hears_nothing() -> None:
    """Outside its with block a mailbox costs nobody anything."""
    watch = Watch()
    with watch.mailbox() as mailbox:
        mailbox.take()
    watch.publish(1, (change(),))
    assert mailbox.take() == set()


async def test_a_listener_is_handed_every_change_in_order() -> None:
    """It is called at once, before anybody wakes, and not for what changed nothing."""
    watch = Watch()
    heard: list[tuple[int, str, bool]] = []
    with watch.mailbox() as mailbox:
        mailbox.take()

        def listen(index: int, changes: tuple[RowChange, ...]) -> None:
            heard.append((index, changes[0].ref.id, bool(mailbox.take())))

        with watch.told(listen):
            for index in range(1, 4):
                watch.publish(index, (change(f"{index}"),))
            watch.publish(4, ())
        watch.publish(5, (change("5"),))
    assert heard == [(1, "1", False), (2, "2", True), (3, "3", True)]
