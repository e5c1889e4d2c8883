"""Conditions (core/autoscaler/expression.py): the grammar, its refusals, and what is judged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.autoscaler.expression import (
    Comparison,
    Every,
    Expression,
    ExpressionError,
    Held,
    Not,
    aggregate,
    bounds_of,
    judge,
    parse,
)
from swarmctl.core.autoscaler.metrics import PERIOD_NS, SECOND, Bases, Frame
from tests.core.autoscaler.load import EPOCH, frames_of, point

BASES = Bases(cpu=0.5, mem=float(1 << 30))


def read(text: str) -> Expression:
    return parse(text, BASES, ("latency_ms", "jobs"))


def shape(found: Expression) -> str:
    """The tree in one line: what binds to what."""
    if isinstance(found, Comparison):
        return found.text
    if isinstance(found, Not):
        return f"not[{shape(found.term)}]"
    if isinstance(found, Held):
        return f"{{{shape(found.term)}}}{found.duration_ns // SECOND}"
    word = " & " if isinstance(found, Every) else " | "
    return f"({word.join(map(shape, found.terms))})"


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("cpu > 80%", "cpu > 80%"),
        ("cpu>80%", "cpu>80%"),
        ("cpu > 80% for 1m", "{cpu > 80%}60"),
        ("cpu < 30% and mem < 60% for 5m", "{(cpu < 30% & mem < 60%)}300"),
        ("cpu > 1 for 1m and mem > 2 for 30s", "({cpu > 1}60 & {mem > 2}30)"),
        ("cpu > 1 for 1m and mem > 2 and pids > 3", "({cpu > 1}60 & mem > 2 & pids > 3)"),
        (
            "cpu > 1 and mem > 2 or pids > 3 and jobs > 4",
            "((cpu > 1 & mem > 2) | (pids > 3 & jobs > 4))",
        ),
        ("cpu > 1 or mem > 2 for 5s", "(cpu > 1 | {mem > 2}5)"),
        ("(cpu > 1 or mem > 2) for 1m30s", "{(cpu > 1 | mem > 2)}90"),
        ("not cpu > 1 and not (mem > 2)", "(not[cpu > 1] & not[mem > 2])"),
        ("p95(latency_ms) >= 300", "p95(latency_ms) >= 300"),
        ("sum(psi.cpu) > 3", "sum(psi.cpu) > 3"),
        ("psi.cpu != 10% and net_rx == 5MiB", "(psi.cpu != 10% & net_rx == 5MiB)"),
    ],
)
def test_what_binds_to_what(text: str, tree: str) -> None:
    """``and`` binds closer than ``or``; ``for`` takes what ``and`` joined before it."""
    assert shape(read(text)) == tree


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("cpu > 80%", 0.4),  # of half a core
        ("cpu > 0.4", 0.4),
        ("mem > 50%", float(1 << 29)),
        ("mem > 64MiB", float(64 << 20)),
        ("net_rx > 2MB", 2e6),
        ("psi.io > 5%", 0.05),
        ("jobs > 12", 12.0),
        ("latency_ms > 300ms", 0.3),
        ("latency_ms > 50%", 0.5),
    ],
)
def test_a_number_is_of_the_metrics_unit(text: str, limit: float) -> None:
    """Percentages are of what is reserved; times of the user's metrics become seconds."""
    found = read(text)
    assert isinstance(found, Comparison)
    assert math.isclose(found.limit, limit)


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("", 0, "a metric is expected"),
        ("cpu", 3, "a comparison is expected"),
        ("cpu >", 5, "a number is expected"),
        ("cpu > %", 6, "a number is expected"),
        ("cpu > 80% foo", 10, "'foo' is not expected here"),
        ("psi.cpu > 10", 10, "psi.cpu is a share, 100% (1) at most"),
        ("psi.io >= 120%", 10, "psi.io is a share, 100% (1) at most"),
        ("cpu > 80 %", 9, "no space is between a number and its unit %"),
        ("mem > 1 GiB for 1m", 8, "no space is between a number and its unit GiB"),
        ("cpu > 80ms", 8, "'ms' is no unit of cpu, which may have % or no unit"),
        ("pids > 3%", 8, "'%' is no unit of pids, which has no unit"),
        ("pids > 3x", 8, "'x' is no unit of pids"),
        ("latency > 3", 0, "'latency' is no metric; there are cpu, mem"),
        ("p95(cpu > 3", 8, "')' is missing"),
        ("p5(cpu) > 3", 0, "'p5' is no function"),
        ("max(replicas) > 3", 0, "takes no function"),
        ("cpu > 80% for", 13, "a duration is expected"),
        ("cpu > 80% for 1 m", 14, "a duration is expected"),
        ("cpu > 80% for 30m", 14, "windows are from 5s to 10m0s long"),
        ("cpu > 80% for 1s", 14, "windows are from 5s to 10m0s long"),
        ("(cpu > 1 for 1m) for 1m", 17, "a 'for' inside another"),
        ("cpu > 1 for 1m for 2m", 15, "'for' has nothing before it"),
        ("(cpu > 1", 8, "')' is missing"),
        ("cpu > 1)", 7, "')' is not expected here"),
        ("cpu > 1 und mem > 2", 8, "'und' is not expected here"),
        ("cpu & 1", 4, "'&' is not expected here"),
        ("and > 1", 0, "a metric is expected"),
        ("(" * 30 + "cpu > 1" + ")" * 30, 20, "more than 20 levels"),
    ],
)
def test_a_refusal_names_the_place(text: str, at: int, words: str) -> None:
    """What is no condition is refused where it goes wrong, with what would be right."""
    with pytest.raises(ExpressionError) as caught:
        read(text)
    assert (caught.value.at, words in str(caught.value)) == (at, True), str(caught.value)


def test_percentages_need_something_to_be_of() -> None:
    """CPU and memory in % are refused for a service that reserves and limits nothing."""
    with pytest.raises(ExpressionError, match=r"--reserve-cpu, --limit-cpu") as caught:
        parse("cpu > 80%", Bases())
    assert caught.value.at == 8
    parse("cpu > 0.8", Bases())


@given(st.text(alphabet="cpumemands()<>=!% 0123456789.forti\n\t_§", max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """Whatever is written, the parser ends, with a tree or with a place inside the text."""
    refused: ExpressionError | None = None
    try:
        found = read(text)
    except ExpressionError as error:
        refused = error
    assert 0 <= refused.at <= len(text) if refused is not None else shape(found)


names = st.sampled_from(["cpu", "mem", "pids", "jobs", "p90(latency_ms)", "pending"])
atoms = st.builds(
    lambda name, sign, number: f"{name} {sign} {number}",
    names,
    st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    st.integers(0, 999),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' and '.join(parts)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' or '.join(parts)})"),
        inner.map(lambda part: f"not ({part})"),
    ),
    max_leaves=8,
)


@given(conditions, st.lists(st.floats(0, 1000), max_size=4))
def test_what_the_grammar_gives_is_read_and_judged(text: str, values: list[float]) -> None:
    """Every condition of the grammar parses and is true, false or unknown; ``not`` turns it."""
    found = read(text)
    frames = frames_of(values, latency_ms=3.0)
    verdict = judge(found, frames)
    turned = judge(Not(found), frames)
    assert turned is (None if verdict is None else not verdict)


def test_a_condition_for_a_time_needs_all_of_it() -> None:
    """``for`` is true when it was so at every frame, and unknown while the window is not full."""
    busy = read("cpu > 0.5 for 30s")
    assert judge(busy, frames_of(*[[0.9]] * 7)) is True
    assert judge(busy, frames_of(*[[0.9]] * 5)) is None
    assert judge(busy, frames_of(*[[0.9]] * 3, [0.1], *[[0.9]] * 3)) is False
    assert judge(busy, frames_of([0.1], [0.9])) is False  # it is not full, and false all the same


def test_a_hole_in_a_window_is_unknown() -> None:
    """Frames too far apart do not make a window."""
    frames = frames_of(*[[0.9]] * 13)
    assert judge(read("cpu > 0.5 for 1m"), frames) is True
    assert judge(read("cpu > 0.5 for 1m"), [*frames[:4], *frames[8:]]) is None
    unknown = [frame._replace(tasks=()) for frame in frames]
    assert judge(read("cpu > 0.5 for 1m"), [*frames[:4], *unknown[4:6], *frames[6:]]) is True
    assert judge(read("cpu > 0.5 for 1m"), [*frames[:4], *unknown[4:8], *frames[8:]]) is None
    assert judge(read("cpu > 0.5 for 1m"), [*frames[:-1], unknown[-1]]) is None


def test_what_is_not_known_is_not_guessed() -> None:
    """A task without a sample may use anything: only what holds anyhow is true or false."""
    tasks = (point("a", cpu=0.9), point("b", cpu=0.9), point("c"))
    frame = Frame(EPOCH, tasks)
    assert judge(read("cpu > 0.5"), [frame]) is True  # (0.9 + 0.9 + 0) / 3
    assert judge(read("cpu > 0.7"), [frame]) is None
    assert judge(read("cpu < 0.95"), [frame]) is None
    assert judge(read("max(cpu) < 0.95"), [frame]) is None
    assert judge(read("max(cpu) > 0.8"), [frame]) is True
    assert judge(read("min(cpu) > 0.95"), [frame]) is False
    assert judge(read("cpu == 0.9"), [frame]) is None
    assert judge(read("cpu != 0.1"), [frame]) is True
    assert judge(read("jobs > 1"), [frame]) is None


def test_what_missing_counts_as_is_the_users_to_say() -> None:
    """``hold`` tells nothing, ``zero`` takes 0, ``ignore`` leaves it to the other operands."""
    frames = frames_of([0.9])
    either = read("jobs > 1 or cpu > 0.5")
    both = read("jobs < 1 and cpu > 0.5")
    assert judge(either, frames) is True  # it holds anyhow
    assert judge(both, frames) is None
    assert judge(both, frames, missing="zero") is True
    assert judge(both, frames, missing="ignore") is True
    assert judge(read("jobs > 1"), frames, missing="ignore") is None


def test_the_young_are_left_out() -> None:
    """What a task uses while it starts is not what it will use; without others nothing is known."""
    young = point("b", age_s=3, cpu=9.0)
    assert judge(read("cpu > 0.5"), [Frame(EPOCH, (point("a", cpu=0.1), young))]) is False
    assert judge(read("cpu > 0.5"), [Frame(EPOCH, (young,))]) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(50, 99))
def test_aggregates(values: list[float], percent: int) -> None:
    """A percentile is one of the values, with so many at or below it; the mean lies between."""
    low, high = min(values), max(values)
    found = aggregate(f"p{percent}", values)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values)
    mean = aggregate("avg", values)
    assert mean is not None
    assert low - 1e-6 <= mean <= high + 1e-6
    assert (aggregate("min", values), aggregate("max", values)) == (low, high)
    assert aggregate("avg", []) is None


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=1, max_size=8),
    st.lists(st.floats(0, 10), min_size=8, max_size=8),
    st.sampled_from(["avg", "min", "max", "sum", "p50", "p95"]),
    st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    st.floats(0, 10),
)
def test_a_verdict_stands_whatever_the_missing_turn_out_to_be(
    seen: list[float | None], filled: list[float], function: str, sign: str, limit: float
) -> None:
    """The interval that is judged holds the value, once the missing samples are there."""
    comparison = Comparison(function, "cpu", sign, limit, "")
    tasks = tuple(
        point(f"t{at}") if value is None else point(f"t{at}", cpu=value)
        for at, value in enumerate(seen)
    )
    verdict = judge(comparison, [Frame(EPOCH, tasks)])
    whole = [filled[at] if value is None else value for at, value in enumerate(seen)]
    truth = judge(comparison, frames_of(whole))
    assert verdict is None or verdict is truth
    low, high = bounds_of(comparison, Frame(EPOCH, tasks))
    real = aggregate(function, whole)
    if low is not None and high is not None:
        assert real is not None
        assert low - 1e-9 <= real <= high + 1e-9


def test_frames_are_as_far_apart_as_samples() -> None:
    """The tests' windows are like the leader's."""
    frames = frames_of([0.1], [0.1])
    assert frames[1].at - frames[0].at == PERIOD_NS
