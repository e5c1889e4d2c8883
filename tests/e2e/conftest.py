"""Fixtures of the end-to-end tests: labs, shared within a module and clean for each test.

A test marked ``lab`` needs root and namespaces, one marked ``engine`` also an engine. Where these
are missing it is skipped with the reason; with ``CI=true`` it fails, so that a green run means that
it ran.

The hosts of ``lab1`` and ``lab3`` have Docker engines. A test marked ``every_engine`` runs a second
time on Podman hosts; with ``SWARMCTL_LAB_ENGINES=docker,podman`` (or one of them) every test runs
on each kind named there, but for those marked ``docker_only``: on Docker, and they say why.
``python -m benchmarks.matrix`` does that and prints a table.
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
    kind = _kind_of(item)
    if item.get_closest_marker("engine"):
        reason = missing_for_engines(kind)
    elif item.get_closest_marker("lab"):
        reason = missing_for_hosts()
    if reason is None:
        return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI must be able to run this: {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say on which kinds of engine a test that uses a lab's engines runs."""
    if "engine_kind" not in metafunc.fixturenames:
        return
    chosen = os.environ.get("SWARMCTL_LAB_ENGINES", "")
    if chosen:
        kinds = chosen.split(",")
    elif metafunc.definition.get_closest_marker("every_engine"):
        kinds = ["docker", "podman"]
    else:
        return
    if metafunc.definition.get_closest_marker("docker_only"):
        kinds = ["docker"]  # the marker says why; a skip would be a failure in CI
    metafunc.parametrize("engine_kind", kinds, indirect=True, scope="module")


def _kind_of(item: pytest.Item) -> str:
    params = (
        item.callspec.params
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else {}
    )
    return str(params.get("engine_kind", "docker"))


@pytest.fixture(scope="module")
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Which engines the lab's hosts have."""
    return str(getattr(request, "param", "docker"))


@pytest.fixture(scope="module")
def _module_lab1(engine_kind: str) -> Iterator[Lab]:
    with Lab(1) as lab:
        lab.start_engines(engine_kind)
        yield lab


@pytest.fixture(scope="module")
def _module_lab3(engine_kind: str) -> Iterator[Lab]:
    with Lab(3) as lab:
        lab.start_engines(engine_kind)
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
