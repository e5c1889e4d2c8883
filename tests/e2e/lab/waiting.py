"""Waiting for real processes: the one place in the tests that polls.

Unit tests wait on events under a clock that jumps. A container on a real engine has no such
event that a test could hold on to, so end-to-end tests ask again and again, up to a deadline.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def eventually(
    ask: Callable[[], T], timeout_s: float = 10.0, *, every_s: float = 0.05, what: str = ""
) -> T:
    """Ask until the answer is true, and return it.

    Args:
        ask: called at once and then every ``every_s`` seconds. An ``AssertionError`` or an
            ``OSError`` it raises (a socket that is not there yet) means "not yet"; any other
            error ends the wait.
        timeout_s: seconds after which to give up. ``ask`` is called at least once.
        what: what is waited for, in words, for the error.

    Raises:
        AssertionError: the deadline passed; it names ``what``, the last answer or last error.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        last: object
        cause: Exception | None = None
        try:
            last = answer = ask()
            if answer:
                return answer
        except (AssertionError, OSError) as error:
            last, cause = error, error
        if time.monotonic() >= deadline:
            wanted = what or getattr(ask, "__name__", "condition")
            raise AssertionError(
                f"{wanted}: not within {timeout_s:g} s; last answer: {last!r}"
            ) from cause
        time.sleep(every_s)
