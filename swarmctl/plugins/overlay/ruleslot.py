"""Keeps the rules of one namespace as they shall be, and finds out when somebody changed them.

What was written last is remembered with the number that the kernel counts changes of rules by. As
long as that number stands nothing needs to be read; when it moved the rules are listed and
compared. So an audit of a hundred namespaces costs a hundred system calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .listing import list_table
from .rules import Found, Ruleset, differing
from .writing import Writer

if TYPE_CHECKING:
    from .namespaces import Namespace
    from .nft import Nft


class RuleSlot:
    """Our table in one namespace.

    Attributes:
        found: what it has, as far as is known; None before it was looked at.
    """

    def __init__(self, namespace: Namespace, nft: Nft) -> None:
        self.namespace = namespace
        self.found: Found | None = None
        self._nft = nft
        self._generation: int | None = None
        self._agreed: Ruleset | None = None

    def is_as(self, wanted: Ruleset) -> bool:
        """Return whether these rules are in place, and nobody changed any since.

        Raises:
            OSError: the namespace cannot be asked.
        """
        return wanted == self._agreed and self.namespace.generation() == self._generation

    def listed(self) -> Found:
        """Return what is there now.

        Raises:
            OSError: what the kernel says.
        """
        return list_table(self.namespace.netfilter)

    async def ensure(self, wanted: Ruleset, writer: Writer | None = None) -> list[str]:
        """Have these rules in place; return what was found changed by others.

        Args:
            writer: of a pass in which others may want the same.

        Raises:
            RulesRefused: what nft says; nothing was changed then.
            OSError: the namespace cannot be asked.
        """
        drift: list[str] = []
        before = self.namespace.generation()
        if self.found is None or before != self._generation:
            found = self.listed()
            if self._agreed is not None:
                drift = list(differing(self._agreed, found))
            self.found, self._generation = found, before
        writer = writer or Writer(self._nft)
        plans = writer.plans(wanted, self.found)
        if plans:
            self.found = None  # until it is known how it went
            await writer.write(self.namespace, plans, wanted)
            after = self.namespace.generation()
            # Somebody else was at it meanwhile: then it is looked at next time.
            self._generation = after if after == self._generation + 1 else None
            self.found = writer.found_of(wanted)
        self._agreed = wanted
        return drift
