"""Which scheduler a service asks for: the label ``swarmctl.strategy`` against what is loaded.

A service without the label says nothing and gets the configured one. The names of what is loaded
come from the caller; nothing here knows plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from .labels import ON_JOIN, REBALANCE, STRATEGY
from .pinned import pins_tasks

if TYPE_CHECKING:
    from collections.abc import Collection

    from .spec import ServiceSpec

SPREAD = "spread"


def check_strategy(
    spec: ServiceSpec, known: Collection[str], *, before: ServiceSpec | None = None
) -> None:
    """Check that somebody lays tasks out as a service asks.

    Args:
        known: names of the schedulers that are loaded here.
        before: the spec that is replaced; what it asked for already is not asked about again.

    Raises:
        InvalidArgument: nobody does, and who there is; or it goes against the service's mode or
            against rebalancing.
    """
    asked = spec.Labels.get(STRATEGY)
    mode = spec.Mode
    if spec.Labels.get(REBALANCE) == ON_JOIN:
        _check_moves(spec)
    if asked is not None and (mode.Global is not None or mode.GlobalJob is not None):
        raise InvalidArgument(
            f"label {STRATEGY!r} has no meaning for a service that runs on every node"
        )
    if asked is None:
        return
    if asked != SPREAD and spec.Labels.get(REBALANCE) == ON_JOIN:
        raise InvalidArgument(
            f"labels {REBALANCE!r} and {STRATEGY!r} contradict each other: moving tasks to a node "
            f"that joins undoes what strategy {asked!r} decided; it goes with {SPREAD!r} only"
        )
    if asked in known:
        return
    if before is not None and before.Labels.get(STRATEGY) == asked:
        return
    raise InvalidArgument(
        f"label {STRATEGY!r}: there is no strategy {asked!r}; there are: "
        f"{', '.join(sorted(known)) or 'none'}"
    )


def _check_moves(spec: ServiceSpec) -> None:
    if spec.Mode.Replicated is None:
        raise InvalidArgument(f"label {REBALANCE!r} is for replicated services")
    pin = pins_tasks(spec)
    if pin:
        raise InvalidArgument(
            f"labels {REBALANCE!r} and {pin!r} contradict each other: a task moves by starting "
            "another one first, and the two cannot both have one address; drop one of the labels"
        )


def lost_strategy(spec: ServiceSpec, known: Collection[str]) -> str:
    """Return what to tell of a service whose strategy nobody here knows any more, or ""."""
    asked = spec.Labels.get(STRATEGY)
    if asked is None or asked in known:
        return ""
    return (
        f"strategy {asked!r} is not loaded on the leader: tasks are laid out as for services that "
        "ask for none"
    )
