"""Strategies: names that somebody answers to, and wishes that do not undo each other."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from swarmctl.core.errors import InvalidArgument
from swarmctl.core.model.labels import REBALANCE, STRATEGY, TASK_IPS
from swarmctl.core.model.spec import GlobalService, ReplicatedJob, ServiceMode, ServiceSpec
from swarmctl.core.model.strategy import check_strategy, lost_strategy
from tests.core.pipeline.world import spec

KNOWN = ("spread", "binpack")


def wanting(mode: ServiceMode | None = None, **labels: str) -> ServiceSpec:
    names = {"strategy": STRATEGY, "rebalance": REBALANCE, "ip": f"{TASK_IPS}net"}
    wanted = replace(spec(), Labels={names[name]: value for name, value in labels.items()})
    return wanted if mode is None else replace(wanted, Mode=mode)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (wanting(strategy="tetris"), "no strategy 'tetris'; there are: binpack, spread"),
        (wanting(strategy="binpack", rebalance="on-join"), "contradict each other"),
        (wanting(ServiceMode(Global=GlobalService()), strategy="spread"), "runs on every node"),
        (
            wanting(ServiceMode(ReplicatedJob=ReplicatedJob()), rebalance="on-join"),
            "is for replicated services",
        ),
        (wanting(rebalance="on-join", ip="10.0.1.10"), "swarmctl.ip.net' contradict each other"),
    ],
)
def test_what_nobody_could_do_is_refused(wanted: ServiceSpec, text: str) -> None:
    """With what would be right, where there is something."""
    with pytest.raises(InvalidArgument, match=text):
        check_strategy(wanted, KNOWN)


@pytest.mark.parametrize(
    "wanted",
    [
        wanting(),
        wanting(strategy="binpack"),
        wanting(strategy="spread", rebalance="on-join"),
        wanting(strategy="binpack", rebalance="never"),
        wanting(rebalance="never", ip="10.0.1.10"),
        wanting(ServiceMode(ReplicatedJob=ReplicatedJob()), strategy="binpack"),
        wanting(ServiceMode(Global=GlobalService()), rebalance="never"),
    ],
)
def test_what_can_be_done_passes(wanted: ServiceSpec) -> None:
    """And nothing is to be told of it."""
    check_strategy(wanted, KNOWN)
    assert lost_strategy(wanted, KNOWN) == ""


def test_a_strategy_that_was_lost_is_told_and_stands_in_nobodys_way() -> None:
    """Another leader, other plugins: updates of something else go through, with a warning."""
    wanted = wanting(strategy="cost")
    check_strategy(wanted, KNOWN, before=wanted)
    assert "strategy 'cost' is not loaded on the leader" in lost_strategy(wanted, KNOWN)
    with pytest.raises(InvalidArgument):
        check_strategy(wanted, KNOWN, before=wanting(strategy="spread"))
