"""Who is silent for too long: times are plain numbers, the period is two seconds."""

from __future__ import annotations

import pytest

from swarmctl.core.dispatcher.liveness import (
    MASS_SILENCE_WAIT_S,
    Heard,
    Verdict,
    heard_at_takeover,
    judge,
    period_s,
)

PERIOD = 2.0


def verdict(heard: dict[str, Heard], now: float, silent_since: float = 0.0) -> Verdict:
    return judge(heard, now, PERIOD, silent_since)


def all_at(at: float, count: int) -> dict[str, Heard]:
    return {f"n{number}": Heard(at) for number in range(count)}


@pytest.mark.parametrize(
    ("configured_ns", "nodes", "expected"),
    [
        (0, 3, 2.0),
        (5_000_000_000, 3, 5.0),
        (500_000_000, 3, 0.5),
        (0, 1_000, 2.0),
        (0, 5_000, 10.0),
        (20_000_000_000, 5_000, 20.0),
    ],
)
def test_the_period_grows_with_the_swarm(configured_ns: int, nodes: int, expected: float) -> None:
    """Two seconds or as configured, and never more than 500 heartbeats a second."""
    assert period_s(configured_ns, nodes) == expected


@pytest.mark.parametrize(
    ("now", "down"), [(100.0, False), (105.9, False), (106.0, True), (200.0, True)]
)
def test_three_missed_heartbeats_are_one_too_many(now: float, down: bool) -> None:
    """A node is down three periods after it was heard last, and not a moment sooner."""
    assert verdict({"n": Heard(100.0)}, now).down == (("n",) if down else ())


def test_the_next_look_is_at_the_next_that_may_be_down() -> None:
    """Nobody is looked at before somebody's time is up; with nobody there, never."""
    assert verdict({"a": Heard(100.0), "b": Heard(99.0)}, 101.0).look_again == 105.0
    assert verdict({}, 101.0).look_again is None


def test_a_node_is_judged_by_what_it_was_told() -> None:
    """A node that was told ten seconds is not judged by two, before it heard of them."""
    told = {"n": Heard(100.0, period=10.0)}
    assert verdict(told, 129.0).down == ()
    assert verdict(told, 130.0).down == ("n",)


def test_an_announced_restart_has_its_grace() -> None:
    """A daemon that said it restarts is waited for until the time it named."""
    heard = {"n": Heard(100.0, grace_until=160.0)}
    assert verdict(heard, 159.0) == Verdict((), 160.0)
    assert verdict(heard, 160.0).down == ("n",)


def test_a_new_leader_waits_for_registrations() -> None:
    """After takeover silence counts from two periods and a dial in vain on."""
    heard = {"n": heard_at_takeover(100.0, PERIOD)}
    assert verdict(heard, 104.9).down == ()
    assert verdict(heard, 105.0).down == ("n",)


def test_a_restart_outlasts_a_change_of_leader() -> None:
    """A new leader grants what is left of a restart that the node announced to the old one."""
    assert verdict({"n": heard_at_takeover(100.0, PERIOD, 50.0)}, 149.0).down == ()
    assert verdict({"n": heard_at_takeover(100.0, PERIOD, 50.0)}, 150.0).down == ("n",)
    assert verdict({"n": heard_at_takeover(100.0, PERIOD, -3.0)}, 105.0).down == ("n",)


@pytest.mark.parametrize(
    ("silent", "alive", "held"),
    [
        (2, 0, False),  # fewer than three
        (3, 0, True),
        (3, 2, True),  # three of five
        (3, 3, False),  # exactly half
        (4, 3, True),
        (40, 60, False),
    ],
)
def test_mass_silence_takes_three_and_more_than_half(silent: int, alive: int, held: bool) -> None:
    """When over half of the nodes, and at least three, fall silent at once, replacement waits."""
    heard = all_at(100.0, silent) | {f"alive{n}": Heard(106.0) for n in range(alive)}
    found = verdict(heard, 106.5)
    assert bool(found.warning) is held
    assert len(found.down) == (0 if held else silent)


def test_mass_silence_ends_after_half_a_minute() -> None:
    """Replacement waits thirty seconds from when the silence was seen, and then it goes on."""
    heard = all_at(100.0, 4)
    first = verdict(heard, 106.0)
    assert first.look_again == 106.0 + MASS_SILENCE_WAIT_S
    assert "4 of 4 nodes fell silent at once" in first.warning
    assert verdict(heard, 135.9, silent_since=106.0).down == ()
    assert len(verdict(heard, 136.0, silent_since=106.0).down) == 4


def test_those_about_to_follow_belong_to_the_same_cut() -> None:
    """The first of a cut is not given up because the others' last heartbeats came a bit later."""
    heard = {"a": Heard(100.0), "b": Heard(101.0), "c": Heard(101.9), "d": Heard(101.5)}
    found = verdict(heard, 106.0)
    assert (found.down, bool(found.warning)) == ((), True)


def test_nodes_that_fail_one_after_another_are_no_mass() -> None:
    """Silences more than a period apart are several failures, not one cut."""
    heard = {"a": Heard(90.0), "b": Heard(94.0), "c": Heard(98.0)}
    assert verdict(heard, 106.0).down == ("a", "b", "c")


def test_a_node_in_its_grace_is_not_silent() -> None:
    """Announced restarts do not make a mass: a rolling restart of all nodes is no cut."""
    heard = all_at(100.0, 3) | {f"r{n}": Heard(100.0, grace_until=160.0) for n in range(3)}
    assert len(verdict(heard, 106.0).down) == 3
