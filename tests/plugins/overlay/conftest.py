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


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Two hosts with a driver each, two containers on one network, and a third on the second."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        if os.environ.get("CI"):
            pytest.fail("network namespaces need root and nft")
        pytest.skip("network namespaces need root and nft")
    with wired(2) as (stack, hosts):
        yield Scene(stack, hosts)
