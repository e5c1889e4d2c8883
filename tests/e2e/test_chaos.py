"""Clients are told the truth, whatever befalls the managers: real ones, in trouble, and a judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.storm import Storm, faults_for
from tests.e2e.swarm import managers_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.lab import Lab

pytestmark = pytest.mark.lab

HOLD_S = 1.5
CALM_S = 0.7


def test_a_lone_manager_killed_and_stopped(
    bare_lab3: Lab, record_property: Callable[[str, object], None]
) -> None:
    """Eight clients of one manager that is killed and stopped see one register each, none lost."""
    with managers_on(bare_lab3.hosts[:1]) as managers:
        storm = Storm(managers, seed=1)
        storm.plan(faults_for(1), hold_s=HOLD_S, calm_s=CALM_S)
    record_property("storm", str(storm.report))
    assert storm.report.record.answers["swap"] > 50, str(storm.report)
    assert storm.report.is_good, str(storm.report)


def test_three_managers_in_trouble(
    bare_lab3: Lab, record_property: Callable[[str, object], None]
) -> None:
    """The leader is killed, stopped, cut off, deafened, muted: one register each, none lost."""
    with managers_on(bare_lab3.hosts) as managers:
        storm = Storm(managers, seed=1)
        storm.plan(faults_for(3), hold_s=HOLD_S, calm_s=CALM_S)
    record_property("storm", str(storm.report))
    assert storm.report.leaders == len(faults_for(3)), str(storm.report)
    assert storm.report.record.answers["swap"] > 50, str(storm.report)
    assert storm.report.is_good, str(storm.report)
