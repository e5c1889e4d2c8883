"""What runs while this manager leads, and nothing longer: the reconcilers, the dispatcher.

One nursery is one term of leadership. A component that fails is started again; one that fails three
times within a minute stays off for the term, with an alarm for ``info``, so that one bug does not
rotate leadership for ever.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import trio

from ..errors import LostLeadership, NoLeader

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

FAILURES_MAX = 3
FAILURES_WITHIN_S = 60.0

log = logging.getLogger(__name__)


class Alarms:
    """Sentences for the administrator about what is off, by component."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}


async def run_leader(
    components: Mapping[str, Callable[[], Awaitable[None]]], alarms: Alarms
) -> None:
    """Run all components until cancelled (leadership lost).

    Args:
        components: by name; each runs until cancelled.
        alarms: gets a sentence for each component that is given up.
    """
    alarms.texts.clear()
    async with trio.open_nursery() as nursery:
        for name, run in components.items():
            nursery.start_soon(_supervise, name, run, alarms, name=name)


async def _supervise(name: str, run: Callable[[], Awaitable[None]], alarms: Alarms) -> None:
    failures: list[float] = []
    while True:
        try:
            await run()
            return
        except Exception as error:
            if _is_lost_leadership(error):
                log.info("%s: leadership is lost", name)
                await trio.sleep_forever()  # the scope around us is about to be cancelled
            log.exception("%s failed", name)
        except BaseExceptionGroup as group:
            raise _as_cancelled(name, group) from None
        now = trio.current_time()
        failures = [at for at in failures if now - at < FAILURES_WITHIN_S] + [now]
        if len(failures) >= FAILURES_MAX:
            alarms.texts[name] = (
                f"{name} failed {FAILURES_MAX} times within a minute and is off until another "
                "manager leads or this daemon restarts; the log says why"
            )
            log.error("%s", alarms.texts[name])
            return


def _as_cancelled(
    name: str, group: BaseExceptionGroup[BaseException]
) -> BaseExceptionGroup[BaseException]:
    """Return the cancellation alone of a component that met something else as well.

    Lost leadership reaches a component with tasks of its own twice in one moment: what they wait
    for fails, and the scope around all of it is cancelled. That is the end of the term, and not of
    this manager; nor is a bug that shows itself in that moment.
    """
    cancelled, failure = group.split(trio.Cancelled)
    if cancelled is None or not (failure is None or isinstance(failure, Exception)):
        return group
    if failure is not None and not _is_lost_leadership(failure):
        log.error("%s failed as it was cancelled", name, exc_info=failure)
    return cancelled


def _is_lost_leadership(error: Exception) -> bool:
    """True for the errors of a manager that stopped leading, also out of a component's nursery."""
    lost = (NoLeader, LostLeadership)
    if isinstance(error, BaseExceptionGroup):
        return error.split(lost)[1] is None
    return isinstance(error, lost)
