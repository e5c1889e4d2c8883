"""What holds for every test of the repository: in CI a skipped test is a failed test.

Tests that need root, an engine or the lab skip with a reason where these are absent, so that anyone
can run the suite. CI provides all of them, hence a skip there means that something was not proved.

What is drawn is drawn alike in CI each time, so that what turns red is the change. Elsewhere each
run draws anew; what it finds becomes a test of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# A busy machine is no finding: examples are bounded by their number, not by how long they take.
settings.register_profile(
    "swarmctl",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=60,
    derandomize=IN_CI,
)
settings.load_profile("swarmctl")

# trio draws the order in which tasks run that are ready at once: where hypothesis is installed, all
# of it by this one's shuffle(). It has no public name.
TASK_ORDER = trio._core._run._r

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the order of trio's tasks be chosen."""
    parser.addoption(
        "--task-order",
        metavar="oldest|newest|NUMBER",
        help="which of the tasks that are ready at once runs first, or a seed to draw it from",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the order that was chosen."""
    order = config.getoption("task_order")
    if order in ("oldest", "newest"):
        # They come sorted by their age, and are taken from the end.
        shuffle = list.reverse if order == "oldest" else _leave_as_it_is
        TASK_ORDER.shuffle = shuffle  # type: ignore[method-assign, assignment]
    elif order is not None and not order.isdecimal():
        raise pytest.UsageError(f"--task-order {order}: neither oldest nor newest, nor a number")


def _leave_as_it_is(_: list[object]) -> None:
    """Shuffle nothing."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draw a test's order of tasks from its name, and from a number if one was given."""
    seed = item.config.getoption("task_order") or ("0" if IN_CI else None)
    if seed is not None:
        TASK_ORDER.seed(f"{seed} {item.nodeid}")


def _fail_if_skipped(report: Report) -> Report:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not be skipped in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test's skip into a failure (CI only)."""
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure (CI only)."""
    return _fail_if_skipped((yield))
