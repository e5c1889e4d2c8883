"""The table of Swarm's scenarios (docs/scenarios.md) names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent / "docs" / "scenarios.md"
FIRST, LAST = 1, 90


def test_every_test_that_the_table_names_is_there() -> None:
    """Who renames or removes a test finds out what it proved."""
    defined = {
        name
        for path in HERE.rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", TABLE.read_text()))
    assert named
    assert named <= defined


def test_no_scenario_is_left_out() -> None:
    """Each number from the first to the last has a row that names a test."""
    rows = re.findall(r"^\| (\d+) \|.*`test_\w+`", TABLE.read_text(), re.MULTILINE)
    assert {int(number) for number in rows} == set(range(FIRST, LAST + 1))
