"""The driver itself, where no kernel can be had to do what it is about."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from swarmctl.plugins import NetworkDriverSettings, SwarmError
from swarmctl.plugins.overlay.driver import OverlayDriver
from swarmctl.plugins.overlay.nft import Nft
from swarmctl.plugins.overlay.sandboxes import SandboxSide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Stubborn:
    """A host of which something stays."""

    def __init__(self, answer: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
        self.remove_all = answer


async def _tells() -> tuple[str, ...]:
    return ("vxlan sx-a: Device or resource busy",)


async def _fails() -> tuple[str, ...]:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


@pytest.mark.parametrize("answer", [_tells, _fails])
async def test_a_node_that_leaves_says_what_stays(
    tmp_path: Path, answer: Callable[[], Awaitable[tuple[str, ...]]]
) -> None:
    """However the kernel refuses it; and names are not answered any more in any case."""
    names = tmp_path / "dns"
    names.mkdir()
    driver = OverlayDriver(NetworkDriverSettings(state_dir=str(tmp_path)))
    driver._tasks = SandboxSide(Nft())
    driver._host = Stubborn(answer)  # type: ignore[assignment]
    with pytest.raises(SwarmError, match="busy"):
        await driver.remove_all()
    assert not names.exists()
