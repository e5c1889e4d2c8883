"""Options of the whole test run, the clocks of marked tests, and what every user may run."""

from __future__ import annotations

from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from tests.archive import VERSIONS
from tests.clocks import RUNS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "still: time passes only when the test says so")
    config.addinivalue_line("markers", "hurried: time passes when there is nothing else to do")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, run in RUNS.items():
            marked = item.get_closest_marker(mark) is not None
            if marked and iscoroutinefunction(getattr(item, "obj", None)):
                item.add_marker(pytest.mark.trio(run=run), append=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="write what is answered now into our own transcripts (tests/datadriven), for review",
    )
    parser.addoption(
        "--raft-seeds", type=int, default=60, help="how many seeds tests/sim plays for consensus"
    )
    parser.addoption("--raft-first-seed", type=int, default=0, help="the first of them")
    parser.addoption(
        "--cluster-seeds", type=int, default=300, help="how many seeds tests/sim plays of clusters"
    )
    parser.addoption("--cluster-first-seed", type=int, default=0, help="the first of them")
    parser.addoption(
        "--model-seeds", type=int, default=300, help="how many lives of services meet the model"
    )
    parser.addoption("--model-first-seed", type=int, default=0, help="the first of them")


@pytest.fixture(scope="session")
def everybodys_python() -> Path:
    """An interpreter that the archive serves and every user of this machine may run."""
    places = [Path(f"/usr/bin/python{version}") for version in VERSIONS]
    found = [place for place in places if place.exists()]
    if not found:
        pytest.skip(f"there is none of {', '.join(map(str, places))}")
    return found[-1]
