"""Where metrics of the user's own come from: the Protocol that metric source plugins implement.

A source is made by the ``swarmctl_metric_source`` hook, once for each scheme, and asked by the
leader alone, every ten seconds for each address that a rule looks at. Laws, checked by
``swarmctl.plugins.testing.check_metric_source``:

- A source that cannot give a value says why (:class:`MetricUnavailable`); it never makes one up.
- It may be cancelled at any checkpoint: whoever asks sets the deadline.
- Credentials appear in no text that it raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Optional, Protocol

from ..errors import SwarmError


class MetricUnavailable(SwarmError):
    """There is no value now; the text says why."""

    status: ClassVar[int] = 503


class MetricSource(Protocol):
    """Reads values of one kind of address."""

    async def read(self, url: str, credentials: str) -> tuple[float, ...]:
        """Return the value at an address, or several: one for each replica or each series.

        Args:
            url: as the label has it, without the scheme's first part and without ``,secret=``.
            credentials: what the secret holds, "" for none.

        Raises:
            MetricUnavailable: there is none.
        """
        ...


SourceOf = Callable[[str], Optional[MetricSource]]  # noqa: UP045 - read at run time
"""Gives the source for a scheme's name, None for a name that nobody knows."""


def no_source(_name: str) -> MetricSource | None:
    """Know no source at all."""
    return None
