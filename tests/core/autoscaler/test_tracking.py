"""Target tracking beside an independent reading of what Kubernetes does (benchmarks/hpa.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hpa import Hpa, Pod
from benchmarks.scaling import SHAPES, run_hpa, run_ours
from swarmctl.core.autoscaler.metrics import Frame
from swarmctl.core.autoscaler.tracking import track
from tests.core.autoscaler.load import EPOCH, point, rules

if TYPE_CHECKING:
    from swarmctl.core.autoscaler.metrics import TaskPoint

tasks = st.lists(
    st.one_of(
        st.tuples(st.just("known"), st.floats(0, 3)),
        st.tuples(st.sampled_from(["missing", "unready"]), st.just(0.0)),
    ),
    min_size=1,
    max_size=20,
)


@given(tasks, st.integers(5, 100))
def test_targets_are_tracked_as_kubernetes_does(
    seen: list[tuple[str, float]], percent: int
) -> None:
    """Whatever tasks are busy, missing or not ready, the number wanted is HPA's."""
    pods: list[Pod] = []
    points: list[TaskPoint] = []
    for at, (kind, usage) in enumerate(seen):
        name = f"t{at}"
        if kind == "known":
            pods.append(Pod(0, 5, usage, 1000))
            points.append(point(name, cpu=usage))
        elif kind == "missing":
            pods.append(Pod(0, 5, None, 0))
            points.append(point(name))
        else:
            pods.append(Pod(990, None, None, 0))
            points.append(point(name, ready=False))
    theirs = Hpa(1, 1000, percent / 100).wanted(pods, 1000)
    policy = rules(max="1000", target=f"cpu={percent}%")
    ours = track(policy, [Frame(EPOCH, tuple(points))], len(points))[0].wanted
    assert (len(points) if ours is None else ours) == theirs


@pytest.mark.parametrize("shape", ["step", "spike", "sawtooth"])
def test_our_default_is_late_for_fewer_requests_than_kubernetes(shape: str) -> None:
    """Under loads that move fast, for at most a seventh more replica hours."""
    ours, theirs = (run(SHAPES[shape], 7, 2 * 3600) for run in (run_ours, run_hpa))
    assert ours.violated < theirs.violated
    assert ours.hours < 1.15 * theirs.hours
