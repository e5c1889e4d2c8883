"""What a service's row keeps about its past: how its update went, and the specs it once had.

Part of the private half, so the API never shows these as they are (``revision.history_of`` does).
"""

from __future__ import annotations

from .base import PrivateStruct
from .spec import ServiceSpec


class RolloutRecord(PrivateStruct, frozen=True, kw_only=True):
    """How an update (or rollback) went so far, as far as tasks do not tell.

    Attributes:
        spec_version: the update it is about; that of another one counts for nothing.
        slots: how many places had to be replaced when it began; what failures are a ratio of.
        failures: tasks of it that failed and were dealt with.
        since: log index it began after; what failed before is no failure of it.
    """

    spec_version: int = 0
    slots: int = 0
    failures: int = 0
    since: int = 0


class Revision(PrivateStruct, frozen=True, kw_only=True):
    """A spec that a service once had.

    Attributes:
        number: 1 for the spec it was created with, one more with every change.
        at: when it became the spec, in nanoseconds.
        how: what made it the spec, in words.
        registry_auth: the pull credentials that went with it; secret.
    """

    number: int
    at: int
    how: str
    spec: ServiceSpec
    registry_auth: str = ""
