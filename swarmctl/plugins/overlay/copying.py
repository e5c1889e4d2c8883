"""Chains that ``nft`` wrote in one namespace, written in others without it.

The tasks of a host that are on the same networks have the same rules. What the kernel lists of a
rule is what it takes to make one, so the first namespace is written by ``nft`` and read back, and
the others get what was read: one message to the kernel in the place of two processes. Nothing of a
rule is understood here but by which names it uses its sets, which have others in each namespace.

A copy is whole or not made at all, as the script is that it stands for; and only of chains that
have the very rules that were asked for.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from .listing import comment_of
from .names import TABLE
from .netlink import (
    APPEND,
    CREATE,
    DUMP,
    NESTED,
    Request,
    attribute,
    attributes,
    elements,
    string_of,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .netlink import NetlinkSocket
    from .rules import Plan, Ruleset

# linux/netfilter/nf_tables.h
_SUBSYSTEM = 10 << 8
_NEW_TABLE, _DEL_TABLE, _NEW_CHAIN, _GET_CHAIN, _DEL_CHAIN = (
    _SUBSYSTEM | n for n in (0, 2, 3, 4, 5)
)
_NEW_RULE, _GET_RULE, _DEL_RULE = (_SUBSYSTEM | n for n in (6, 7, 8))
_NEW_SET, _GET_SET, _NEW_ELEMENTS, _GET_ELEMENTS = (_SUBSYSTEM | n for n in (9, 10, 12, 13))
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_DATA = 1, 2, 4, 7
_SET_TABLE, _SET_NAME, _SET_ID = 1, 2, 10
_SET_KEPT = (3, 4, 5, 6, 7, 8, 9, 13)  # flags, types, lengths, policy, description, user data
_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS, _ELEMENTS_SET_ID = 1, 2, 3, 4
_ELEMENT = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_LOOKUP_SET, _LOOKUP_SET_ID = 1, 4
_HEAD = struct.Struct("=BBH")
_NUMBERS = {"ip": 2, "ip6": 10}


class CannotCopy(Exception):
    """What was read is not what was written; somebody else was at it."""


class Copy:
    """What carries out plans in any namespace in which they are to be carried out.

    Args:
        netfilter: of the namespace where they have been.

    Raises:
        CannotCopy: they have not, or somebody has changed it since.
        OSError: what the kernel says.
    """

    def __init__(self, netfilter: NetlinkSocket, plans: Iterable[Plan], wanted: Ruleset) -> None:
        self._requests = [
            request for plan in plans for request in _Reading(netfilter, plan, wanted).requests()
        ]

    def write(self, netfilter: NetlinkSocket) -> None:
        """Carry it out, whole or not at all. Blocks, for as long as the kernel takes.

        Raises:
            OSError: what the kernel says.
        """
        netfilter.carry_out(self._requests)


class _Reading:
    """One family of one namespace."""

    def __init__(self, netfilter: NetlinkSocket, plan: Plan, wanted: Ruleset) -> None:
        self._netfilter = netfilter
        self._plan = plan
        self._wanted = wanted.get(plan.family, {})
        self._head = _HEAD.pack(_NUMBERS[plan.family], 0, 0)
        self._sets: dict[str, list[tuple[int, bytes]]] = {}
        self._set_ids: dict[str, int] = {}

    def requests(self) -> Iterator[Request]:
        """Yield what carries out the plan."""
        plan = self._plan
        if plan.drops:
            yield self._request(_DEL_TABLE, 0, text(_TABLE_NAME, TABLE))
        if plan.makes:
            yield self._request(_NEW_TABLE, CREATE, text(_TABLE_NAME, TABLE))
        yield from self._chains(plan.adds)
        for name in plan.empties:
            yield self._request(_DEL_RULE, 0, text(_RULE_TABLE, TABLE), text(_RULE_CHAIN, name))
        yield from self._rules(plan.writes)
        for name in plan.removes:
            yield self._request(_DEL_CHAIN, 0, text(_CHAIN_TABLE, TABLE), text(_CHAIN_NAME, name))

    def _request(self, kind: int, flags: int, *parts: bytes) -> Request:
        return Request(kind, flags, self._head + b"".join(parts))

    def _dump(self, kind: int, *parts: bytes) -> Iterator[list[tuple[int, bytes]]]:
        """Yield what the kernel lists of our table."""
        request = self._request(kind, DUMP, *parts)
        for answer in self._netfilter.ask(request):
            yield list(elements(answer[_HEAD.size :]))

    def _chains(self, names: Sequence[str]) -> Iterator[Request]:
        if not names:
            return
        found: dict[str, list[bytes]] = {}
        for parts in self._dump(_GET_CHAIN):
            chain = dict(parts)
            if string_of(chain[_CHAIN_TABLE]) == TABLE:
                kept = (_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE)
                found[string_of(chain[_CHAIN_NAME])] = [
                    attribute(kind | (NESTED if kind == _CHAIN_HOOK else 0), value)
                    for kind, value in parts
                    if kind in kept
                ]
        for name in names:
            if name not in found:
                raise CannotCopy(name)
            yield self._request(_NEW_CHAIN, CREATE, *found[name])

    def _rules(self, names: Sequence[str]) -> Iterator[Request]:
        if not names:
            return
        found: dict[str, list[dict[int, bytes]]] = {name: [] for name in names}
        for parts in self._dump(_GET_RULE, text(_RULE_TABLE, TABLE)):
            rule = dict(parts)
            chain = string_of(rule[_RULE_CHAIN])
            if string_of(rule[_RULE_TABLE]) == TABLE and chain in found:
                found[chain].append(rule)
        for parts in self._dump(_GET_SET, text(_SET_TABLE, TABLE)):
            self._sets[string_of(dict(parts)[_SET_NAME])] = parts
        for name in names:
            comments = [comment_of(rule.get(_RULE_DATA, b"")) for rule in found[name]]
            if comments != [rule.comment for rule in self._wanted[name].rules]:
                raise CannotCopy(name)
            for rule in found[name]:
                yield from self._rule(rule)

    def _rule(self, rule: dict[int, bytes]) -> Iterator[Request]:
        """Yield a rule, after the sets that it uses."""
        expressions = []
        for _, expression in elements(rule[_RULE_EXPRESSIONS]):
            parts = attributes(expression)
            data = parts.get(_EXPRESSION_DATA, b"")
            if string_of(parts[_EXPRESSION_NAME]) == "lookup":
                lookup = dict(elements(data))
                name = string_of(lookup.pop(_LOOKUP_SET))
                yield from self._set(name)
                data = text(_LOOKUP_SET, _any_number(name)) + b"".join(
                    attribute(kind, value) for kind, value in lookup.items()
                )
                data += attribute(_LOOKUP_SET_ID, self._id_of(name))
            expressions.append(
                attribute(
                    _ELEMENT | NESTED,
                    attribute(_EXPRESSION_NAME, parts[_EXPRESSION_NAME])
                    + attribute(_EXPRESSION_DATA | NESTED, data),
                )
            )
        yield self._request(
            _NEW_RULE,
            CREATE | APPEND,
            attribute(_RULE_TABLE, rule[_RULE_TABLE]),
            attribute(_RULE_CHAIN, rule[_RULE_CHAIN]),
            attribute(_RULE_EXPRESSIONS | NESTED, b"".join(expressions)),
            attribute(_RULE_DATA, rule[_RULE_DATA]),
        )

    def _set(self, name: str) -> Iterator[Request]:
        """Yield an anonymous set or map, and its elements."""
        if name not in self._sets:
            raise CannotCopy(name)
        self._set_ids[name] = len(self._set_ids) + 1
        fresh = (text(_SET_NAME, _any_number(name)), attribute(_SET_ID, self._id_of(name)))
        kept = [attribute(kind, value) for kind, value in self._sets[name] if kind in _SET_KEPT]
        yield self._request(_NEW_SET, CREATE, text(_SET_TABLE, TABLE), *fresh, *kept)
        which = (text(_ELEMENTS_TABLE, TABLE), text(_ELEMENTS_SET, name))
        for parts in self._dump(_GET_ELEMENTS, *which):
            yield self._request(
                _NEW_ELEMENTS,
                CREATE,
                text(_ELEMENTS_TABLE, TABLE),
                text(_ELEMENTS_SET, _any_number(name)),
                attribute(_ELEMENTS_SET_ID, self._id_of(name)),
                attribute(_ELEMENTS | NESTED, dict(parts)[_ELEMENTS]),
            )

    def _id_of(self, name: str) -> bytes:
        return struct.pack("!I", self._set_ids[name])


def _any_number(name: str) -> str:
    """Return what the kernel is to call a set that is ``__map3`` here."""
    return re.sub(r"\d+$", "%d", name)
