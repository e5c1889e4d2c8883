"""Puts what a plugin made through its laws: functions whose docstring is the law they check."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from .conformance import ConformanceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

Rig = TypeVar("Rig")


async def hold(
    checks: Iterable[Callable[[Rig], Awaitable[None]]], rig: Rig, timeout_s: float
) -> None:
    """Run every check.

    Args:
        timeout_s: how long any one check may take.

    Raises:
        ConformanceError: a law is broken, or was not kept in time; it names the law.
    """
    for check in checks:
        law = (check.__doc__ or "").strip()
        try:
            with trio.fail_after(timeout_s):
                await check(rig)
        except trio.TooSlowError:
            raise ConformanceError(f"{law} Not within {timeout_s:g} s.") from None
        except ConformanceError as error:
            raise ConformanceError(f"{law} {error}") from error


async def beside(run: Callable[..., Awaitable[None]], body: Callable[[], Awaitable[None]]) -> None:
    """Run ``body`` while ``run`` goes on, as a daemon has it: from ready to sudden end.

    Raises:
        ConformanceError: as ``body`` does; everything else comes in a group.
    """
    failure: ConformanceError | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            await body()
        except ConformanceError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
