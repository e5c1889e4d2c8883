"""What holds for every test of the repository: in CI a skipped test is a failed test.

Tests that need root, an engine or the lab skip with a reason where these are absent, so that anyone
can run the suite. CI provides all of them, hence a skip there means that something was not proved.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# A busy machine is no finding: examples are bounded by their number, not by how long they take.
# In CI they are the same each time, so that what turns red is the change. Elsewhere each run looks
# at others; what it finds becomes a test of its own.
settings.register_profile(
    "swarmctl",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=60,
    derandomize=IN_CI,
)
settings.load_profile("swarmctl")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


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
