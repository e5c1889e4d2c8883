"""An nftables table of ours as a value: chains of rules, written as ``nft`` reads them.

Each rule carries a digest of itself as its comment, so that what a kernel lists can be compared
with what shall be without understanding a rule: a rule that was removed, added, moved or written
over shows. The table is ours alone; no other is looked at.

A change is one script, which the kernel takes whole or not at all, and in it one chain is written
anew and its neighbours are left as they are.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from .names import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

FAMILIES = ("ip", "ip6")
BRIEF = 'ct timeout set "brief"'
"""Part of a rule for TCP: the kernel forgets its connections soon after they have ended."""
_BRIEF = "brief {{ protocol tcp; l3proto {family}; policy = {{ time_wait : 2, close : 2 }}; }}"
_LABEL = re.compile(r"[^\w.:/ -]")


class Rule(NamedTuple):
    """One rule.

    Attributes:
        label: for people who list the rules.
    """

    text: str
    label: str = ""

    @property
    def comment(self) -> str:
        """What the rule is known by in a listing."""
        return _comment(self.text, self.label)


@lru_cache(maxsize=1 << 14)
def _comment(text: str, label: str) -> str:
    digest = hashlib.blake2s(text.encode(), digest_size=6).hexdigest()
    return f"{_LABEL.sub('_', label)[:80]} {digest}".lstrip()


class Chain(NamedTuple):
    """The rules of one chain.

    Attributes:
        hook: ``type nat hook output priority -100`` of a base chain, else "".
    """

    rules: tuple[Rule, ...] = ()
    hook: str = ""


Ruleset = dict[str, dict[str, Chain]]
"""By family, then by name. A family without chains has no table."""


class FoundChain(NamedTuple):
    """A chain as it is listed: its hook, and the comment of each rule."""

    comments: tuple[str, ...] = ()
    hook: str = ""


Found = dict[str, dict[str, FoundChain]]


def as_found(ruleset: Ruleset) -> Found:
    """Return what a kernel lists once it has these rules."""
    return {
        family: {
            name: FoundChain(tuple(rule.comment for rule in chain.rules), chain.hook)
            for name, chain in chains.items()
        }
        for family, chains in ruleset.items()
        if chains
    }


class Plan(NamedTuple):
    """How the table of one family becomes what it shall be; in this order, all at once.

    Attributes:
        drops, makes: the table itself.
        adds: chains that are not there.
        empties: chains that lose their rules.
        writes: chains that get theirs.
        removes: chains that go.
    """

    family: str
    drops: bool = False
    makes: bool = False
    adds: tuple[str, ...] = ()
    empties: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()


def plans_for(wanted: Ruleset, found: Found, shall: Found) -> tuple[Plan, ...]:
    """Return what turns what was found into what is wanted; nothing for nothing to do.

    Args:
        shall: what a kernel lists then.
    """
    plans = (
        _plan(one, wanted.get(one, {}), found.get(one), shall.get(one, {})) for one in FAMILIES
    )
    return tuple(plan for plan in plans if any(plan[1:]))


def script_of(plans: Iterable[Plan], wanted: Ruleset) -> str:
    """Return plans as ``nft`` reads them."""
    lines = (line for plan in plans for line in _lines(plan, wanted.get(plan.family, {})))
    return "".join(f"{line}\n" for line in lines)


def changes(wanted: Ruleset, found: Found) -> str:
    """Return the script that turns what was found into what is wanted; "" for nothing to do."""
    return script_of(plans_for(wanted, found, as_found(wanted)), wanted)


def differing(wanted: Ruleset, found: Found) -> Iterator[str]:
    """Yield the names of chains that are not as they shall be, and of those that should not be."""
    shall = as_found(wanted)
    for family in FAMILIES:
        here, there = shall.get(family, {}), found.get(family, {})
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                yield f"{family} {name}"


def _plan(
    family: str,
    wanted: Mapping[str, Chain],
    found: Mapping[str, FoundChain] | None,
    shall: Mapping[str, FoundChain],
) -> Plan:
    if not wanted:
        return Plan(family, drops=found is not None)
    there = dict(found or {})
    # A hook is for life; so begin anew, in the same transaction.
    drops = any(name in there and there[name].hook != chain.hook for name, chain in wanted.items())
    if drops:
        there = {}
    stale = [name for name in wanted if there.get(name) != shall[name]]
    gone = sorted(there.keys() - wanted.keys())
    return Plan(
        family,
        drops=drops,
        makes=drops or found is None,
        adds=tuple(name for name in stale if name not in there),
        empties=tuple(name for name in (*stale, *gone) if name in there),
        writes=tuple(stale),
        removes=tuple(gone),
    )


def _lines(plan: Plan, wanted: Mapping[str, Chain]) -> Iterator[str]:
    table = f"{plan.family} {TABLE}"
    if plan.drops:
        yield f"delete table {table}"
    if plan.makes:
        yield f"add table {table}"
    if any(BRIEF in rule.text for name in plan.writes for rule in wanted[name].rules):
        yield f"add ct timeout {table} {_BRIEF.format(family=plan.family)}"
    for name in plan.adds:
        hook = wanted[name].hook
        spec = f" {{ {hook}; policy accept; }}" if hook else ""
        yield f"add chain {table} {name}{spec}"
    for name in plan.empties:
        yield f"flush chain {table} {name}"
    for name in plan.writes:
        for rule in wanted[name].rules:
            yield f'add rule {table} {name} {rule.text} comment "{rule.comment}"'
    for name in plan.removes:
        yield f"delete chain {table} {name}"
