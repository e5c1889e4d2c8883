"""Options of the whole test run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


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
