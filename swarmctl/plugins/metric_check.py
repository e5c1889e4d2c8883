"""Conformance check for metric sources; plugin authors get it from :mod:`.testing`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ..core.autoscaler.source import MetricUnavailable
from .conformance import require

if TYPE_CHECKING:
    from ..core.autoscaler.source import MetricSource

TIMEOUT_S = 10.0


async def check_metric_source(
    source: MetricSource, *, right: str, wrong: str, credentials: str = "hunter2"
) -> None:
    """Put a metric source through the laws of :mod:`swarmctl.core.autoscaler.source`.

    Args:
        right: an address that has a value all the time.
        wrong: one that has none: nobody listens there, or what is there is no number.
        credentials: what a secret would hold; a right address has to accept them.

    Raises:
        ConformanceError: it breaks a law.
    """
    for _ in range(2):
        with trio.move_on_after(TIMEOUT_S) as scope:
            values = await source.read(right, credentials)
            require(values, "a right address gave no value")
            require(isinstance(values, tuple), f"values are a tuple, and not {type(values)}")
            numbers = all(isinstance(value, float) and math.isfinite(value) for value in values)
            require(numbers, f"values are finite floats, and not {values}")
        require(not scope.cancelled_caught, f"a right address took more than {TIMEOUT_S:g} s")
    await _check_refusal(source, wrong, credentials)
    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        await source.read(right, credentials)
    require(cancelled.cancelled_caught, "a read that is cancelled goes on")
    require(await source.read(right, credentials), "after a cancelled read there is no value")


async def _check_refusal(source: MetricSource, wrong: str, credentials: str) -> None:
    text = ""
    with trio.move_on_after(TIMEOUT_S) as scope:
        try:
            values = await source.read(wrong, credentials)
        except MetricUnavailable as error:
            text = str(error)
        else:
            require(False, f"a wrong address gave {values}")
    require(not scope.cancelled_caught, f"a wrong address took more than {TIMEOUT_S:g} s")
    require(text, "a wrong address gave no reason")
    require(not credentials or credentials not in text, "credentials are in an error's text")
