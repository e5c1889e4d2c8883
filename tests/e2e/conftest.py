"""Fixtures of the end-to-end tests: labs, shared within a module and clean for each test.

A test marked ``lab`` needs root and namespaces, one marked ``engine`` also a Docker engine. Where
these are missing it is skipped with the reason; with ``CI=true`` it fails, so that a green run
means that it ran.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e.lab import Lab, missing_for_engines, missing_for_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or in CI fail, a test that this machine cannot run, before its fixtures start."""
    reason = None
    if item.get_closest_marker("engine"):
        reason = missing_for_engines()
    elif item.get_closest_marker("lab"):
        reason = missing_for_hosts()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must be able to run this: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def _module_lab1() -> Iterator[Lab]:
    with Lab(1) as lab:
        lab.start_engines()
        yield lab


@pytest.fixture(scope="module")
def _module_lab3() -> Iterator[Lab]:
    with Lab(3) as lab:
        lab.start_engines()
        yield lab


@pytest.fixture(scope="module")
def _module_bare_lab3() -> Iterator[Lab]:
    with Lab(3) as lab:
        yield lab


@pytest.fixture
def lab1(_module_lab1: Lab) -> Iterator[Lab]:
    """One host with a running, empty engine."""
    yield _module_lab1
    _module_lab1.clean()


@pytest.fixture
def lab3(_module_lab3: Lab) -> Iterator[Lab]:
    """Three hosts, each with a running, empty engine."""
    yield _module_lab3
    _module_lab3.clean()


@pytest.fixture
def bare_lab3(_module_bare_lab3: Lab) -> Iterator[Lab]:
    """Three hosts without engines, for processes."""
    yield _module_bare_lab3
    _module_bare_lab3.clean()
