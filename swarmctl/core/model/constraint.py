"""Placement constraints: ``key==value`` and ``key!=value``, parsed and matched.

Used when a spec is checked and by everyone who asks whether a node may run a task. Semantics are
swarmkit's (manager/constraint): values compare without case, a missing value is "", and a key or
address that makes no sense matches no node, whichever operator it has.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidConstraint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .objects import NodeRow

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)
_OPERATORS = ("==", "!=")

_NODE_LABEL = "node.labels."
_ENGINE_LABEL = "engine.labels."

_PLAIN_KEYS: dict[str, Callable[[NodeRow], str]] = {
    "node.id": lambda row: row.api.ID,
    "node.hostname": lambda row: row.api.Description.Hostname,
    "node.role": lambda row: row.private.role,
    "node.platform.os": lambda row: row.api.Description.Platform.OS,
    "node.platform.arch": lambda row: row.api.Description.Platform.Architecture,
}
KEYS = (*_PLAIN_KEYS, "node.ip", f"{_NODE_LABEL}<label>", f"{_ENGINE_LABEL}<label>")


class Constraint(msgspec.Struct, frozen=True):
    """One parsed constraint; ``negated`` for ``!=``."""

    key: str
    negated: bool
    value: str

    def matches(self, row: NodeRow) -> bool:
        """Return whether the node may run what carries this constraint."""
        actual = self.actual(row)
        if actual is None:
            return False
        if self.key.lower() == "node.ip":
            return self._matches_address(actual)
        return (actual.lower() == self.value.lower()) is not self.negated

    def actual(self, row: NodeRow) -> str | None:
        """Return what a node has there, "" where it has nothing; None for an unknown key."""
        key = self.key.lower()
        plain = _PLAIN_KEYS.get(key)
        if plain is not None:
            return plain(row)
        if key == "node.ip":
            return row.api.Status.Addr
        if key.startswith(_NODE_LABEL):  # the label's own name keeps its case
            return row.api.Spec.Labels.get(self.key[len(_NODE_LABEL) :], "")
        if key.startswith(_ENGINE_LABEL):
            return row.api.Description.Engine.Labels.get(self.key[len(_ENGINE_LABEL) :], "")
        return None

    @property
    def text(self) -> str:
        """The constraint as it is written."""
        return f"{self.key}{'!=' if self.negated else '=='}{self.value}"

    def why_never(self) -> str | None:
        """Return why this can match no node at all, in words, or None."""
        key = self.key.lower()
        if key == "node.ip":
            if _network(self.value) is None:
                return f"{self.value!r} is neither an IP address nor a subnet"
        elif key not in _PLAIN_KEYS and not key.startswith((_NODE_LABEL, _ENGINE_LABEL)):
            return f"unknown key {self.key!r}; the keys are {', '.join(KEYS)}"
        return None

    def _matches_address(self, address: str) -> bool:
        network = _network(self.value)
        if network is None:
            return False
        try:
            inside = ipaddress.ip_address(address) in network
        except ValueError:  # the node has told no address yet
            inside = False
        return inside is not self.negated


def parse_constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    """Return the constraints of a placement, parsed.

    Raises:
        InvalidConstraint: in Docker's words.
    """
    return tuple(map(parse_constraint, texts))


@lru_cache(maxsize=4096)  # the scheduler asks for the same few again and again
def parse_constraint(text: str) -> Constraint:
    """Return one constraint, parsed.

    Raises:
        InvalidConstraint: no operator, or a key or value with characters it may not have.
    """
    for operator in _OPERATORS:  # in this order: "a!=b==c" has a bad key
        key, found, value = text.partition(operator)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.fullmatch(key):
            raise InvalidConstraint(f"key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise InvalidConstraint(f"value '{value}' is invalid")
        return Constraint(key, operator == "!=", value)
    raise InvalidConstraint(f"constraint expected one operator from {', '.join(_OPERATORS)}")


def node_matches(constraints: Iterable[Constraint], row: NodeRow) -> bool:
    """Return whether a node meets every constraint."""
    return all(constraint.matches(row) for constraint in constraints)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
