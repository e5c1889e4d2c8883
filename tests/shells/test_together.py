"""Tasks that share one fate."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import trio
import trio.testing

from swarmctl.core.errors import NotFound, SwarmError, Unavailable
from swarmctl.core.together import run_until_first

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def end_after(seconds: float, error: Exception | None = None) -> None:
    await trio.sleep(seconds)
    if error is not None:
        raise error


async def test_the_first_to_end_ends_the_others(autojump_clock: trio.testing.MockClock) -> None:
    """When one part returns, the others are cancelled and the whole returns."""
    await run_until_first(partial(end_after, 1), trio.sleep_forever)
    assert trio.current_time() == pytest.approx(1)


async def test_the_first_error_is_the_error(autojump_clock: trio.testing.MockClock) -> None:
    """The first part's error is raised as it is, in no group; what follows from it is not."""

    async def follow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Unavailable("because the other went")

    with pytest.raises(NotFound, match="the cause"):
        await run_until_first(follow, partial(end_after, 1, NotFound("the cause")))


async def test_a_return_before_an_error_is_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """A part that returned first decides, though another fails while it is cancelled."""

    async def follow() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise SwarmError("too late") from None

    await run_until_first(follow, partial(end_after, 1))


async def test_a_bug_is_not_hidden() -> None:
    """What is no error of ours comes out as from any nursery."""
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_until_first(partial(end_after, 0, KeyError("bug")), trio.sleep_forever)
    assert isinstance(caught.value.exceptions[0], KeyError)


async def test_cancelling_cancels_all_parts(autojump_clock: trio.testing.MockClock) -> None:
    """A cancelled caller leaves nothing running."""
    with trio.move_on_after(2) as scope:
        await run_until_first(trio.sleep_forever, trio.sleep_forever)
    assert scope.cancelled_caught
