"""A register with read, write and compare-and-set: what an object of the swarm is to its clients.

``GET`` is a read. An update with ``?version=`` is a compare-and-set: the version names the content
that was read with it, so "old" is that content, and it succeeds exactly when nobody has changed the
content since. Contents must be unique to be told apart; every writer puts a number of its own in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .wgl import Operation


@dataclass(frozen=True)
class Read:
    """Somebody read, and saw this value."""

    value: str


@dataclass(frozen=True)
class Write:
    """Somebody wrote, whatever was there."""

    value: str


@dataclass(frozen=True)
class Swap:
    """Somebody wrote ``new``, provided that ``old`` was still there.

    Attributes:
        done: whether it was; None when nobody knows.
    """

    old: str
    new: str
    done: bool | None


Action = Read | Write | Swap


class Register:
    """One register. See :class:`.wgl.Model`."""

    def __init__(self, initial: str = "") -> None:
        self.initial = initial

    def step(self, state: str, action: Action) -> str | None:
        """Return the value after an action, or None when it cannot have happened now."""
        if isinstance(action, Read):
            return state if action.value == state else None
        if isinstance(action, Write):
            return action.value
        if action.done is False:
            return None if action.old == state else state
        return action.new if action.old == state else None


def lost_writes(
    history: Iterable[Operation[Action]], *, initial: str, final: str
) -> list[Operation[Action]]:
    """Return the acknowledged swaps that have no part in how ``final`` came about.

    Every swap names what it replaced, and all values are unique, so one chain leads from the final
    value back to the initial one. An acknowledged swap beside the chain was lost.

    Args:
        final: what is read after everything else, with nobody writing.

    Raises:
        ValueError: the final value, or one on the way, was written by nobody.
    """
    swaps = [
        one for one in history if isinstance(one.action, Swap) and one.action.done is not False
    ]
    writer = {one.action.new: one.action for one in swaps if isinstance(one.action, Swap)}
    kept: set[str] = set()
    value = final
    while value != initial:
        if value not in writer or value in kept:
            raise ValueError(f"{value!r} was read, and nobody wrote it")
        kept.add(value)
        value = writer[value].old
    return [
        one
        for one in swaps
        if isinstance(one.action, Swap) and one.action.done and one.action.new not in kept
    ]
