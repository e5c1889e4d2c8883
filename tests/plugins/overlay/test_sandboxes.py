"""The side of the driver that is in tasks' namespaces, in this very process."""

from __future__ import annotations

import os
import resource
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.plugins import Sandbox
from swarmctl.plugins.model import EMPTY_TABLE
from swarmctl.plugins.overlay.nft import Nft
from swarmctl.plugins.overlay.sandboxes import SandboxSide
from tests.plugins.overlay.tables import NET_ID, member, network, service, table
from tests.plugins.overlay.wire import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins.overlay.namespaces import Namespace

pytestmark = pytest.mark.lab
TABLE = table(network(service(member(7))))


@pytest.fixture
def place(can_make_namespaces: None) -> Iterator[Netns]:
    """A container's namespace."""
    with ExitStack() as stack:
        yield Netns(stack, "s")


class PausedNft(Nft):
    """Waits with each script until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = trio.Event()
        self.may_go_on = trio.Event()

    async def apply(self, namespace: Namespace, script: str) -> None:
        """See ``Nft``."""
        self.is_asked.set()
        await self.may_go_on.wait()
        await super().apply(namespace, script)


async def test_one_that_is_wanted_again_while_it_is_let_go_has_its_rules(place: Netns) -> None:
    """As a container that a user takes off its network and puts on it again."""
    nft = PausedNft()
    side = SandboxSide(nft)
    sandbox = Sandbox(id="c", pid=place.pid, networks=(NET_ID,))
    look = partial(side.reconcile, resolved=(), narrow={}, audit=False)
    nft.may_go_on.set()
    side.take([sandbox])
    await look(TABLE, {"c"})
    nft.may_go_on, nft.is_asked = trio.Event(), trio.Event()
    side.take(())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, EMPTY_TABLE, set())
        await nft.is_asked.wait()
        side.take([sandbox])
        nft.may_go_on.set()
    await look(TABLE, {"c"})
    assert "10.0.1.7" in place.run("nft", "list", "table", "ip", "swarmctl")
    side.close()


def test_a_namespace_that_cannot_be_opened_now_is_opened_later(place: Netns) -> None:
    """A host out of descriptors breaks nothing but this: whoever says what is wanted goes on."""
    side = SandboxSide(Nft())
    sandbox = Sandbox(id="c", pid=place.pid, networks=(NET_ID,))
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        side.take([sandbox])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not side._open
    side.take([sandbox])
    assert side._open
    side.close()
