"""Lists our table as the kernel has it, without a process: chains with hooks, comments of rules."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .names import TABLE
from .netlink import DUMP, Request, attributes, string_of, text
from .rules import Found, FoundChain

if TYPE_CHECKING:
    from .netlink import NetlinkSocket

# linux/netfilter/nf_tables.h; libnftnl/udata.h
_SUBSYSTEM = 10 << 8
_GET_CHAIN, _GET_RULE = _SUBSYSTEM | 4, _SUBSYSTEM | 7
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_DATA = 1, 2, 7
_COMMENT = 0
_HEAD = struct.Struct("=BBH")
_FAMILIES = {2: "ip", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


def list_table(netfilter: NetlinkSocket) -> Found:
    """Return what our table has, in each family.

    Raises:
        OSError: what the kernel says.
    """
    hooks: dict[str, dict[str, str]] = {}
    comments: dict[tuple[str, str], list[str]] = {}
    for number, family in _FAMILIES.items():
        head = _HEAD.pack(number, 0, 0)
        for answer in netfilter.ask(Request(_GET_CHAIN, DUMP, head)):
            found = attributes(answer, _HEAD.size)
            if string_of(found[_CHAIN_TABLE]) == TABLE:
                hooks.setdefault(family, {})[string_of(found[_CHAIN_NAME])] = _hook(found)
        if family not in hooks:
            continue
        request = Request(_GET_RULE, DUMP, head + text(_RULE_TABLE, TABLE))
        for answer in netfilter.ask(request):
            found = attributes(answer, _HEAD.size)
            if string_of(found[_RULE_TABLE]) == TABLE:
                key = (family, string_of(found[_RULE_CHAIN]))
                comments.setdefault(key, []).append(comment_of(found.get(_RULE_DATA, b"")))
    return {
        family: {
            name: FoundChain(tuple(comments.get((family, name), ())), hook)
            for name, hook in chains.items()
        }
        for family, chains in hooks.items()
    }


def _hook(chain: dict[int, bytes]) -> str:
    if _CHAIN_HOOK not in chain:
        return ""
    hook = attributes(chain[_CHAIN_HOOK])
    number = struct.unpack("!I", hook[_HOOK_NUMBER])[0]
    priority = struct.unpack("!i", hook[_HOOK_PRIORITY])[0]
    kind = string_of(chain[_CHAIN_TYPE])
    return f"type {kind} hook {_HOOKS[number]} priority {priority}"


def comment_of(data: bytes) -> str:
    """Return the comment in a rule's user data: type, length, value, one after another."""
    offset = 0
    while offset + 2 <= len(data):
        kind, length = data[offset], data[offset + 1]
        if kind == _COMMENT:
            return string_of(data[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""
