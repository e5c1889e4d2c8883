"""The seeded faults of `faults.toml`: which there are, and what the core reads like with one.

A fault is a snippet that stands exactly once in one of the core's modules, and what stands there
instead. So it cannot rot unnoticed: a snippet that has been rewritten fails `test_faults.py`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = "swarmctl.core.raft"
CORE = Path(__file__).resolve().parents[2] / "swarmctl" / "core" / "raft"
LIST = Path(__file__).with_name("faults.toml")


@dataclass(frozen=True)
class Fault:
    """``breaks`` says what a member with this fault does wrong."""

    rule: str
    breaks: str
    file: str
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"{self.rule}: {self.breaks}"

    @property
    def module(self) -> str:
        return f"{PACKAGE}.{Path(self.file).stem}"

    @property
    def path(self) -> Path:
        return CORE / self.file

    def source(self) -> str:
        """The module's text with the fault in it.

        Raises:
            ValueError: the snippet does not stand exactly once in the module.
        """
        text = self.path.read_text()
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its snippet stands {times} times in {self.file}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Rule:
    name: str
    says: str
    faults: tuple[Fault, ...]


def load() -> tuple[Rule, ...]:
    """All rules with their faults, in the order of the list."""
    rules = tomllib.loads(LIST.read_text())["rule"]
    return tuple(
        Rule(
            rule["name"],
            rule["says"],
            tuple(Fault(rule["name"], **fault) for fault in rule["fault"]),
        )
        for rule in rules
    )
