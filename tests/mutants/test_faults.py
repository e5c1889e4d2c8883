"""The seeded faults do not rot: each still applies to the core as it is, and compiles."""

from __future__ import annotations

import pytest

from tests.mutants.faults import CORE, Fault, load

RULES = load()
FAULTS = [fault for rule in RULES for fault in rule.faults]


def test_twenty_rules_have_two_faults_each() -> None:
    """Every rule of the list has at least two faults, all with names of their own."""
    assert len(RULES) >= 20
    assert [rule.name for rule in RULES if len(rule.faults) < 2 or not rule.says] == []
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_fault_applies(fault: Fault) -> None:
    """Its snippet stands exactly once in the core, and what replaces it is another program."""
    source = fault.source()
    path = str(CORE / fault.file)
    assert compile(source, path, "exec") != compile(fault.path.read_text(), path, "exec")
