"""Writes rules of many namespaces in one pass: the first of a kind by ``nft``, the rest as copies.

What is worked out about rules is the same for all that want the same, and is worked out once. Kinds
are told apart by which objects these are, so one :class:`Writer` serves one pass.
"""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import trio

from .copying import CannotCopy, Copy
from .rules import as_found, plans_for, script_of

if TYPE_CHECKING:
    from .namespaces import Namespace
    from .nft import Nft
    from .rules import Found, Plan, Ruleset

COPIES_AT_ONCE = 2

log = logging.getLogger(__name__)


class Writer:
    """Writes rules for the length of one pass."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._room = trio.CapacityLimiter(COPIES_AT_ONCE)
        self._found: dict[int, _FoundOf] = {}
        self._plans: dict[tuple[int, int], _PlansOf] = {}
        self._first: dict[tuple[int, tuple[Plan, ...]], _First] = {}

    def found_of(self, wanted: Ruleset) -> Found:
        """Return what a kernel lists once it has these rules."""
        known = self._found.get(id(wanted))
        if known is None:
            known = self._found[id(wanted)] = _FoundOf(wanted, as_found(wanted))
        return known.found

    def plans(self, wanted: Ruleset, found: Found) -> tuple[Plan, ...]:
        """Return what turns what was found into what is wanted."""
        key = (id(wanted), id(found))
        known = self._plans.get(key)
        if known is None:
            plans = plans_for(wanted, found, self.found_of(wanted))
            known = self._plans[key] = _PlansOf(wanted, found, plans)
        return known.plans

    async def write(self, namespace: Namespace, plans: tuple[Plan, ...], wanted: Ruleset) -> None:
        """Carry plans out in a namespace, whole or not at all.

        Raises:
            RulesRefused: what nft says.
        """
        key = (id(wanted), plans)
        first = self._first.get(key)
        if first is not None:
            await first.is_over.wait()
            if await self._copied(first, namespace, plans, wanted):
                return
        else:
            first = self._first[key] = _First()
        try:
            await self._nft.apply(namespace, script_of(plans, wanted))
            first.namespace = first.namespace or namespace
        finally:
            first.is_over.set()

    async def _copied(
        self, first: _First, namespace: Namespace, plans: tuple[Plan, ...], wanted: Ruleset
    ) -> bool:
        """Write what the first of a kind has; False where that cannot be."""
        if first.namespace is None or first.cannot_copy:
            return False
        original = first.namespace

        def copy() -> None:
            if first.copy is None:
                with closing(original.netfilter_socket()) as kernel:  # its own one is in use
                    first.copy = Copy(kernel, plans, wanted)
            first.copy.write(namespace.netfilter)

        async with first.turn if first.copy is None else self._room:
            try:
                await trio.to_thread.run_sync(copy)
            except (CannotCopy, OSError) as error:
                first.cannot_copy = first.copy is None
                log.info("rules are written by nft once more: %s", error)
                return False
        return True


class _FoundOf(NamedTuple):
    wanted: Ruleset  # held, so that nobody else gets its id
    found: Found


class _PlansOf(NamedTuple):
    wanted: Ruleset
    found_before: Found
    plans: tuple[Plan, ...]


class _First:
    """The first namespace of a kind.

    Attributes:
        namespace: set when it went well there.
        copy: of what it got, once somebody else wanted the same.
    """

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.namespace: Namespace | None = None
        self.copy: Copy | None = None
        self.cannot_copy = False
        self.turn = trio.Lock()
