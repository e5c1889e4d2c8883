"""The sentence that tells a user why a task is still pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .filters import Filter


def no_suitable_node(filters: Sequence[Filter], refused: Sequence[int]) -> str:
    """Return Docker's sentence for tasks that no node can run.

    Args:
        refused: for each filter the number of nodes it was the first to refuse; what refused most
            is named first.
    """
    blamed = sorted(
        (place for place, count in enumerate(refused) if count),
        key=lambda place: (-refused[place], place),
    )
    if not blamed:
        return "no suitable node"
    reasons = "; ".join(filters[place].explain(refused[place]) for place in blamed)
    return f"no suitable node ({reasons})"
