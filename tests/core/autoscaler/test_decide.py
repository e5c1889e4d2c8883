"""The decision of scaling (core/autoscaler/decide.py): tables first, then what always holds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.core.autoscaler.decide import Situation, Verdict, decide
from swarmctl.core.autoscaler.metrics import PERIOD_NS, SECOND, Frame
from swarmctl.core.autoscaler.tracking import Answer, track
from swarmctl.core.model.service import ScaleDecision
from tests.core.autoscaler.load import EPOCH, World, answers_of, frames_of, point, rules

TRACKED = {"min": "1", "max": "20", "target": "cpu=50%"}
MINUTE = 60 * SECOND
RULED = {
    "min": "1",
    "max": "20",
    "up__when": "cpu > 80% for 30s",
    "down__when": "cpu < 20% for 1m",
}


def once(
    labels: dict[str, str],
    frames: list[Frame],
    answers: list[Answer] | None = None,
    **situation: object,
) -> Verdict:
    count = len(frames[-1].tasks) if frames else 1
    about = Situation(**{"count": count, **situation})  # type: ignore[arg-type] # by name
    return decide(rules(**labels), about, frames, answers or [], EPOCH)


def low_answers(wanted: int, seconds: int = 300) -> list[Answer]:
    """Answers that wanted so many for so long."""
    return [Answer(EPOCH - at * SECOND, wanted) for at in range(seconds, 0, -5)]


@pytest.mark.parametrize(
    ("cpus", "count"),
    [
        ([0.5, 0.5], 2),
        ([0.54, 0.55], 2),  # within the tolerance
        ([0.56, 0.56], 3),
        ([0.9, 0.9], 4),
        ([1.5, 1.5], 6),
        ([1.0] * 12, 20),  # 24 are wanted
        ([1.0], 2),
    ],
)
def test_a_target_wants_value_over_target(cpus: list[float], count: int) -> None:
    """The number now times value over target, rounded up; nothing within the tolerance."""
    assert once(TRACKED, frames_of(cpus)).count == count


def test_a_target_adds_four_or_doubles_in_one_step() -> None:
    """However much load there is, the number at most doubles within 15 s, or grows by four."""
    labels = {**TRACKED, "max": "100"}
    assert once(labels, frames_of([40.0])).count == 5
    assert once(labels, frames_of([40.0] * 10)).count == 20
    just = ScaleDecision(at=EPOCH - 10 * SECOND, rule="", before=10, after=20, reason="")
    verdict = once(labels, frames_of([40.0] * 20), decisions=(just,))
    assert (verdict.count, verdict.reason.endswith("one step at a time")) == (20, True)
    noted = ScaleDecision(
        at=EPOCH - 5 * SECOND, rule="capped", before=20, after=20, reason="", applied=False
    )
    assert once(labels, frames_of([40.0] * 20), decisions=(just, noted)).count == 20
    earlier = ScaleDecision(at=EPOCH - 15 * SECOND, rule="", before=10, after=20, reason="")
    assert once(labels, frames_of([40.0] * 20), decisions=(earlier,)).count == 40


def test_down_takes_the_most_that_was_wanted_within_the_window() -> None:
    """Five minutes of lower answers, and the highest of them counts."""
    frames, low = frames_of([0.1] * 10), low_answers(2)
    assert once(TRACKED, frames, low).count == 2
    assert once(TRACKED, frames, [*low[:-1], Answer(EPOCH - 1, 7)]).count == 7
    assert once(TRACKED, frames, low_answers(2, 200)).count == 10  # the window is not full
    moment = [Answer(at, None if number in (20, 21) else 2) for number, (at, _) in enumerate(low)]
    assert once(TRACKED, frames, moment).count == 2
    hole = [
        Answer(at, None if number in range(20, 24) else 2) for number, (at, _) in enumerate(low)
    ]
    assert once(TRACKED, frames, hole).count == 10
    assert once(TRACKED, frames).count == 10


def test_a_window_of_nothing_takes_what_is_wanted_now() -> None:
    """With a cooldown of 0 s a target goes down at once, a step every 15 s."""
    labels, frames = {**TRACKED, "cooldown": "down=0s"}, frames_of([0.1] * 10)
    assert once(labels, frames).count == 2
    just = ScaleDecision(at=EPOCH - 10 * SECOND, rule="", before=11, after=10, reason="")
    assert once(labels, frames, decisions=(just,)).count == 10


def test_a_cooldown_longer_than_windows_counts_from_the_last_step() -> None:
    """Nobody remembers load for longer than ten minutes, so what is longer waits after steps."""
    labels, frames = {**TRACKED, "cooldown": "down=1h"}, frames_of([0.1] * 10)
    assert once(labels, frames, low_answers(2, 300)).count == 10
    assert once(labels, frames, low_answers(2, 600)).count == 2

    def after(minutes: int) -> Verdict:
        step = ScaleDecision(at=EPOCH - minutes * MINUTE, rule="", before=9, after=10, reason="")
        return once(labels, frames, low_answers(2, 600), decisions=(step,))

    assert (after(59).count, after(59).down_at) == (10, EPOCH + MINUTE)
    assert after(59).reason.endswith("cooling down")
    assert after(60).count == 2


def test_when_a_target_can_go_down_is_told() -> None:
    """Not before its window holds nothing that wanted as many, nor before the window is full."""
    low, frames = low_answers(2), frames_of([0.1] * 10)
    assert once(TRACKED, frames, low).down_at == EPOCH
    high = [Answer(at, 10 if EPOCH - at == MINUTE else 2) for at, _ in low]
    verdict = once(TRACKED, frames, high)
    assert (verdict.count, verdict.down_at) == (10, EPOCH + 4 * MINUTE)
    assert once(TRACKED, frames, low_answers(2, 120)).down_at == EPOCH + 170 * SECOND
    assert once(TRACKED, frames_of([0.9] * 10), low).down_at == EPOCH + 5 * MINUTE
    assert once(TRACKED, []).down_at == EPOCH + 290 * SECOND
    assert once(RULED, []).down_at == EPOCH


def test_the_largest_answer_wins() -> None:
    """Of several targets the one that wants most decides, up and down."""
    labels = {**TRACKED, "target": "cpu=50%,jobs=10 per replica", "metric__jobs": "http://q/"}
    assert once(labels, frames_of([0.1] * 4, jobs=90.0)).count == 8  # 9, by at most four
    assert once(labels, frames_of([0.9] * 4, jobs=10.0)).count == 8
    assert once(labels, frames_of([0.1] * 4, jobs=30.0), low_answers(3)).count == 3


def test_a_missing_metric_keeps_from_going_down_and_not_from_going_up() -> None:
    """What cannot be told holds, unless another metric wants more."""
    labels = {**TRACKED, "target": "cpu=50%,jobs=10 per replica", "metric__jobs": "http://q/"}
    verdict = once(labels, frames_of([0.1] * 4), low_answers(1))
    assert (verdict.count, verdict.reason) == (4, "jobs has no value")
    assert once(labels, frames_of([0.9] * 4)).count == 8
    ignoring = {**labels, "missing": "ignore"}
    assert once(ignoring, frames_of([0.1] * 4), low_answers(1)).count == 1


def test_a_task_without_a_sample_counts_as_idle_up_and_busy_down() -> None:
    """As HPA has it; and when that turns the direction, nothing is done."""
    half = Frame(EPOCH, (point("a", cpu=0.9), point("b", cpu=0.9), point("c"), point("d")))
    assert once(TRACKED, [half]).count == 4  # (0.9 + 0.9) / 4 is within the tolerance
    most = Frame(EPOCH, (*(point(f"{at}", cpu=0.9) for at in range(6)), point("c")))
    assert once(TRACKED, [most]).count == 11  # 5.4 / 0.5, and not 13
    idle = Frame(EPOCH, (*(point(f"{at}", cpu=0.1) for at in range(6)), point("c")))
    assert once(TRACKED, [idle], low_answers(1)).count == 4  # 1.6 / 0.5


def test_the_young_count_as_idle_when_more_are_wanted() -> None:
    """New tasks take their share only later: what runs hot meanwhile does not overshoot."""
    tasks = tuple(point(f"{at}", cpu=0.9) for at in range(4))
    young = tuple(point(f"y{at}", age_s=5, cpu=0.0) for at in range(4))
    assert once(TRACKED, [Frame(EPOCH, (*tasks, *young))]).count == 8
    starting = tuple(point(f"y{at}", ready=False) for at in range(4))
    assert once(TRACKED, [Frame(EPOCH, (*tasks, *starting))]).count == 8


def test_conditions_go_step_by_step() -> None:
    """One task a step by default, or as far as the labels say; up beats down."""
    busy, idle = frames_of(*[[0.9] * 4] * 7), frames_of(*[[0.1] * 4] * 13)
    assert once(RULED, busy).count == 5
    assert once({**RULED, "up__by": "50%"}, busy).count == 6
    assert once({**RULED, "up__by": "+3"}, busy).count == 7
    assert once({**RULED, "up__by": "to=10"}, busy).count == 10
    assert once(RULED, idle).count == 3
    assert once({**RULED, "down__by": "50%"}, idle).count == 2
    both = {**RULED, "up__when": "cpu > 0", "down__when": "cpu > 0"}
    assert once(both, busy).count == 5


def test_a_condition_waits_for_its_cooldown() -> None:
    """30 s after a step up and 5 minutes after any step, or as the labels say."""
    busy, idle = frames_of(*[[0.9] * 4] * 7), frames_of(*[[0.1] * 4] * 13)

    def after(seconds: int, frames: list[Frame], **labels: str) -> Verdict:
        step = ScaleDecision(at=EPOCH - seconds * SECOND, rule="", before=3, after=4, reason="")
        return once({**RULED, **labels}, frames, decisions=(step,))

    assert after(29, busy).count == 4
    assert after(30, busy).count == 5
    assert after(59, busy, cooldown="up=1m").count == 4
    assert after(299, idle).count == 4
    assert after(300, idle).count == 3
    assert after(60, idle, cooldown="1m").count == 3
    assert after(29, busy).up_at == EPOCH + SECOND
    assert after(-500, busy).count == 4  # a time that is yet to come counts as now


def test_targets_and_conditions_together() -> None:
    """Each may add; to take away, all that have a say must agree, and the largest wins."""
    labels = {**TRACKED, "down__when": "jobs < 1", "metric__jobs": "http://q/"}
    idle = [0.1] * 10
    assert once(labels, frames_of(idle, jobs=5.0), low_answers(2)).count == 10
    assert once(labels, frames_of(idle, jobs=0.0), low_answers(2)).count == 9
    assert once(labels, frames_of(idle), low_answers(2)).count == 10


def test_no_more_than_there_is_room_for() -> None:
    """What no node would take is not asked for, and the verdict says so."""
    verdict = once(TRACKED, frames_of([0.9] * 4), room=1)
    assert (verdict.count, verdict.capped) == (5, True)
    assert verdict.reason.startswith("capped: no room for 8 tasks; cpu is 90%, target cpu=50%")
    none = once(TRACKED, frames_of([0.9] * 4), room=0)
    assert (none.count, none.capped, none.rule) == (4, True, "")


def test_what_the_bounds_cut_off_needs_no_room() -> None:
    """Room for as many as the bounds allow is room enough, however much load asks for."""
    verdict = once({**TRACKED, "max": "5"}, frames_of([0.9] * 4), room=1)
    assert (verdict.count, verdict.capped) == (5, False)
    assert verdict.reason == "cpu is 90%, target cpu=50%; at most 5 (bounds)"


def test_a_rollout_or_a_stop_holds_still() -> None:
    """While an update is under way nothing changes, not even to the bounds."""
    verdict = once(TRACKED, frames_of([0.9] * 4), holds="an update is under way")
    assert (verdict.count, verdict.reason) == (4, "an update is under way")
    assert once({**TRACKED, "max": "3"}, frames_of([0.9] * 4), holds="stopped").count == 4


def test_bounds_schedule_and_a_humans_number() -> None:
    """Bounds count without any sample; a schedule and a floor raise the least."""
    assert once({**TRACKED, "min": "3"}, [], count=1).count == 3
    assert once({**TRACKED, "max": "3"}, [], count=9).count == 3
    night = {**TRACKED, "schedule": "22:00-24:00 UTC min=6; 00:00-22:00 UTC max=2"}
    verdict = once(night, [], count=1)  # 22:13 UTC
    assert (verdict.count, verdict.rule) == (6, "schedule 22:00-24:00 UTC min=6")
    fewer = once({**night, "schedule": "22:00-23:00 max=2; 20:00-23:00 min=2"}, [], count=9)
    assert (fewer.count, fewer.rule) == (2, "schedule 22:00-23:00 max=2")
    assert fewer.reason == "at most 2 (schedule 22:00-23:00 max=2)"
    floor = once(TRACKED, frames_of([0.1] * 10), low_answers(2), floor=5, until=EPOCH + 1)
    assert (floor.count, floor.bounds.least) == (5, 5)
    assert once(TRACKED, frames_of([0.1] * 10), low_answers(2), floor=5, until=EPOCH).count == 2


def test_nothing_measured_holds_still() -> None:
    """No frame, or none for 15 s: nothing is decided."""
    assert once(TRACKED, [], count=4).reason == "nothing was measured yet"
    old = [frame._replace(at=frame.at - 16 * SECOND) for frame in frames_of([0.9] * 4)]
    assert once(TRACKED, old).count == 4


def test_a_new_leader_finds_the_answers_of_the_window() -> None:
    """Answers are a function of the frames, so who reads those back knows what was wanted."""
    frames = frames_of(*[[0.1] * 10] * 61)
    answers = answers_of(rules(**TRACKED), frames)
    assert [answer.wanted for answer in answers] == [2] * 61
    assert once(TRACKED, frames, answers[:-1]).count == 2


# --- what always holds ---------------------------------------------------------------------------

labels_of = st.fixed_dictionaries(
    {
        "min": st.integers(1, 5).map(str),
        "max": st.integers(5, 40).map(str),
        "target": st.sampled_from(["cpu=50%", "cpu=70%,mem=60%", "cpu=0.4"]),
    },
    optional={
        "up__when": st.sampled_from(["cpu > 80% for 30s", "max(cpu) > 90%"]),
        "down__when": st.sampled_from(["cpu < 20% for 1m", "cpu < 90%"]),
        "up__by": st.sampled_from(["1", "50%", "to=30"]),
        "down__by": st.sampled_from(["1", "50%"]),
        "cooldown": st.sampled_from(["0s", "up=1m,down=2m"]),
        "missing": st.sampled_from(["hold", "zero", "ignore"]),
    },
)
samples = st.lists(st.one_of(st.none(), st.floats(0, 4)), min_size=1, max_size=12)


def window(rows: list[list[float | None]]) -> list[Frame]:
    return [
        Frame(
            EPOCH - (len(rows) - 1 - at) * PERIOD_NS,
            tuple(
                point(f"t{number}") if cpu is None else point(f"t{number}", cpu=cpu, mem=1e8)
                for number, cpu in enumerate(row)
            ),
        )
        for at, row in enumerate(rows)
    ]


@given(
    labels_of,
    st.lists(samples, max_size=20),
    st.integers(1, 60),
    st.one_of(st.none(), st.integers(0, 10)),
    st.integers(0, 50),
)
def test_never_beyond_the_bounds(
    labels: dict[str, str],
    rows: list[list[float | None]],
    count: int,
    room: int | None,
    floor: int,
) -> None:
    """Whatever is measured, the answer lies within the bounds, and within the room above them."""
    policy = rules(**labels)
    frames = window(rows)
    situation = Situation(count=count, room=room, floor=floor, until=EPOCH + 1)
    verdict = decide(policy, situation, frames, answers_of(policy, frames), EPOCH)
    assert policy.least <= verdict.bounds.least <= verdict.count <= policy.most
    if room is not None and verdict.count > count:
        assert verdict.count <= max(count + room, verdict.bounds.least)


@given(labels_of, st.lists(samples, min_size=1, max_size=20), st.integers(0, 400))
def test_never_down_on_missing_data(
    labels: dict[str, str], rows: list[list[float | None]], seconds: int
) -> None:
    """With a metric that nobody can tell, a service that holds on missing data never shrinks."""
    policy = rules(**{**labels, "missing": "hold"})
    frames = [
        frame._replace(tasks=tuple(task._replace(values={}) for task in frame.tasks))
        for frame in window(rows)
    ]
    count = len(frames[-1].tasks)
    verdict = decide(
        policy, Situation(count=count), frames, low_answers(1, seconds) if seconds else [], EPOCH
    )
    assert verdict.count >= min(count, policy.most)


@given(
    st.lists(st.floats(0, 4), min_size=1, max_size=12),
    st.lists(st.floats(0, 4), min_size=12, max_size=12),
)
def test_more_load_never_means_fewer_tasks(loads: list[float], extra: list[float]) -> None:
    """Monotony: a window with more load in it wants at least as many tasks."""
    policy = rules(**{**TRACKED, "max": "100"})
    heavier = [load + more for load, more in zip(loads, extra, strict=False)]
    light, heavy = (track(policy, frames_of(row), len(row))[0].wanted for row in (loads, heavier))
    assert light is not None
    assert heavy is not None
    assert heavy >= light


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 18), st.integers(1, 20), st.sampled_from(["cpu=50%", "cpu=70%", "cpu=90%"]))
def test_constant_load_ends_in_peace(load: float, count: int, target: str) -> None:
    """No flapping: under constant load the number settles, and then never changes again."""
    world = World(rules(min="1", max="40", target=target), count, lambda _: load)
    world.run(1200)
    settled = set(world.run(3600))
    assert len(settled) == 1
    share = load / settled.pop()
    goal = int(target[4:-1]) / 100
    assert share <= 1.1 * goal + 1e-6 or math.isclose(share, 1.1 * goal)


@settings(deadline=None, max_examples=40)
@given(st.floats(1, 20), st.floats(1, 20))
def test_a_step_is_answered_within_a_minute_and_a_half(before: float, after: float) -> None:
    """A load that jumps is carried 90 s later: the new tasks have come and settled."""
    world = World(rules(min="1", max="100", target="cpu=50%"), 2, lambda _: before)
    world.run(1200)
    world.load = lambda _: max(before, after)
    world.run(90)
    assert max(before, after) / world.count <= 0.55 + 1e-9
    steps = len({step.at for step in world.decisions if step.at > EPOCH + 1200 * SECOND})
    assert steps <= 8


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_noise_does_not_make_it_flap(seed: int) -> None:
    """Load that trembles by a tenth around its mean changes the number a few times an hour."""
    noise = [((seed * (at + 1) * 2654435761) % 1000) / 5000 - 0.1 for at in range(2000)]
    world = World(
        rules(min="1", max="40", target="cpu=50%"), 8, lambda at: 4 * (1 + noise[int(at / 5)])
    )
    world.run(1200)
    world.history.clear()
    numbers = world.run(3600)
    changes = sum(a != b for a, b in pairwise(numbers))
    assert changes <= 6


@given(labels_of, st.lists(samples, min_size=1, max_size=10), st.integers(1, 20))
def test_one_question_has_one_answer(
    labels: dict[str, str], rows: list[list[float | None]], count: int
) -> None:
    """The decision is a function: asked again about the same it says the same."""
    policy, frames = rules(**labels), window(rows)
    ask = [decide(policy, Situation(count=count), frames, [], EPOCH) for _ in range(2)]
    assert ask[0] == ask[1]
