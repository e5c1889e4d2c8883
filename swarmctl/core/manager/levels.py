"""Which format the managers agree on: the lowest of their releases, never lower again.

Every manager says the level of its release when it comes (calls.py), so it stands in its row. Once
all know a higher one than the cluster's, the leader raises that, and from the next entry on changes
and fields of that level may be written (model/change.py). A release that is too old for the cluster
is not let in as a manager; one that is newer writes what the older ones know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..model.change import FORMAT_LEVEL, NOTHING, At, Decision, Kind, Ref, Transaction, Update

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ids import NewId
    from ..store.view import View

NAME = "format level"
KEY = "cluster"


def format_level(view: View) -> int:
    """Return the level that entries may have now; a cluster that is being founded has ours."""
    cluster = view.cluster()
    return FORMAT_LEVEL if cluster is None else min(FORMAT_LEVEL, cluster.private.format_level)


def keys(view: View, touched: set[Ref] | None) -> Iterable[str]:  # noqa: ARG001 - as all are
    """Return the one key, if what was touched can make a difference (None: everything was)."""
    if touched is None or any(ref.kind in (Kind.NODE, Kind.CLUSTER) for ref in touched):
        return (KEY,)
    return ()


def decide(view: View, key: str, now: int, new_id: NewId) -> Decision:  # noqa: ARG001 - as all are
    """Return what raises the cluster's level, where all managers are that far."""
    cluster = view.cluster()
    managers = view.members()
    if cluster is None or not managers:
        return NOTHING
    level = min(row.private.format_level for row in managers)
    if level <= cluster.private.format_level:
        return NOTHING
    raised = replace(cluster, private=replace(cluster.private, format_level=level))
    requires = tuple(
        At(ref=Ref(Kind.NODE, row.api.ID), version=row.api.Version.Index) for row in managers
    )
    return Decision(transactions=(Transaction(changes=(Update(row=raised),), requires=requires),))
