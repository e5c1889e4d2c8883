"""Lines on their way to a slow taker: all of them, in order, and never too many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.batching import Batch
from swarmctl.core.errors import Unavailable

if TYPE_CHECKING:
    from trio.testing import MockClock


@given(
    sizes=st.lists(st.integers(1, 40), max_size=40),
    naps=st.lists(st.sampled_from([0, 1, 5]), max_size=20),
)
def test_nothing_is_lost_and_little_is_held(sizes: list[int], naps: list[int]) -> None:
    """Whatever the taker's pace, it gets all in order, and never more than the limit and one."""

    async def main() -> list[int]:
        batch: Batch[int] = Batch(50)
        taken: list[int] = []

        async def fill() -> None:
            for number, size in enumerate(sizes):
                await batch.put(number, size)
            batch.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            pace = iter(naps)
            while items := await batch.take():
                assert sum(sizes[item] for item in items) < 50 + 40
                taken += items
                for _ in range(next(pace, 0)):
                    await trio.lowlevel.checkpoint()
        return taken

    assert trio.run(main) == list(range(len(sizes)))


async def test_who_puts_too_much_waits(autojump_clock: MockClock) -> None:
    """Over the limit a put sleeps until something is taken; cancelled, it has put nothing."""
    batch: Batch[str] = Batch(10)
    await batch.put("a", 10)
    with trio.move_on_after(1) as scope:
        await batch.put("b", 1)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(batch.put, "c", 1)
        await trio.testing.wait_all_tasks_blocked()
        assert await batch.take() == ["a"]
    assert await batch.take() == ["c"]


async def test_an_error_comes_last() -> None:
    """What was put before the end is taken first, then the error is raised, every time."""
    batch: Batch[str] = Batch(10)
    await batch.put("a", 1)
    batch.end(Unavailable("gone"))
    assert await batch.take() == ["a"]
    for _ in range(2):
        with pytest.raises(Unavailable, match="gone"):
            await batch.take()
