"""Options of the whole test run, and the clocks that marked tests run on."""

from __future__ import annotations

import pytest

from tests.clocks import RUNS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "still: time passes only when the test says so")
    config.addinivalue_line("markers", "hurried: time passes when there is nothing else to do")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, run in RUNS.items():
            if item.get_closest_marker(mark) is not None:
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
