"""The end-to-end tests on every engine, as a table: a row for each test, a column for each engine.

    python -m benchmarks.matrix [pytest's arguments, such as tests/e2e/test_swarm.py or -k update]

Every test that uses a lab's engines runs on Docker and on Podman, not only those that do so in CI.
A test that is about Docker alone says why. Takes half an hour; the exit status is pytest's.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

ENGINES = ("docker", "podman")
WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


class Table:
    """A pytest plugin that notes what became of each test on each engine, and prints it."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, str]] = {}  # node id -> row, engine
        self._reasons: dict[str, str] = {}  # row -> why it is for Docker only
        self._results: dict[str, dict[str, str]] = {}  # row -> engine -> word

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        """Find each test's row and column; tests that use no engine have none."""
        for item in items:
            params = getattr(getattr(item, "callspec", None), "params", {})
            engine = params.get("engine_kind") or params.get("engine")
            if engine not in ENGINES:
                continue
            row = item.nodeid.replace(f"[{engine}]", "").replace(f"[{engine}-", "[", 1)
            self._places[item.nodeid] = row, engine
            self._results.setdefault(row, {})
            if marker := item.get_closest_marker("docker_only"):
                self._reasons[row] = str(marker.args[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of a test's three phases."""
        row, engine = self._places.get(report.nodeid, ("", ""))
        if row and (report.when == "call" or not report.passed):
            held = self._results[row]
            if held.get(engine) != "FAILED":
                held[engine] = WORDS[report.outcome]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and for each engine how many tests passed."""
        width = max(map(len, self._results), default=0)
        terminalreporter.section("engine x test")
        for row, held in self._results.items():
            cells = [f"{held.get(engine, '-'):8}" for engine in ENGINES]
            reason = self._reasons.get(row, "")
            terminalreporter.line(f"{row:{width}}  {''.join(cells)} {reason}".rstrip())
        for engine in ENGINES:
            words = [held[engine] for held in self._results.values() if engine in held]
            terminalreporter.line(f"{engine}: {words.count('ok')} of {len(words)} passed")


def main() -> int:
    """Run the tests and print the table."""
    os.environ["SWARMCTL_LAB_ENGINES"] = ",".join(ENGINES)
    return int(pytest.main(["-q", *(sys.argv[1:] or ["tests/e2e"])], plugins=[Table()]))


if __name__ == "__main__":
    sys.exit(main())
