"""What the tests against a real kernel need, and when they skip."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.plugins.overlay.scene import Scene
from tests.plugins.overlay.wire import wired

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def can_make_namespaces() -> None:
    """Skips where none can be made, which in CI is a failure as every skip is."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        pytest.skip("network namespaces need root and nft")


@pytest.fixture
def scene(can_make_namespaces: None) -> Iterator[Scene]:
    """Two hosts with a driver each, two containers on one network, and a third on the second."""
    with wired(2) as (stack, hosts):
        yield Scene(stack, hosts)
