"""Rules that are copied from one namespace to another are those that nft would have written."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.plugins.overlay.balance import sandbox_rules
from swarmctl.plugins.overlay.copying import CannotCopy, Copy
from swarmctl.plugins.overlay.nft import Nft
from swarmctl.plugins.overlay.rules import as_found, plans_for, script_of
from swarmctl.plugins.overlay.ruleslot import RuleSlot
from swarmctl.plugins.overlay.writing import Writer
from tests.plugins.overlay.tables import member, network, service, tables
from tests.plugins.overlay.wire import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarmctl.plugins.model import EndpointTable
    from swarmctl.plugins.overlay.rules import Ruleset

pytestmark = pytest.mark.lab


class Counting(Nft):
    """Runs nft, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def apply(self, *what: object) -> None:
        """See :class:`Nft`."""
        self.count += 1
        await super().apply(*what)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def spaces(can_make_namespaces: None) -> Iterator[list[Netns]]:
    """Four namespaces of containers."""
    with ExitStack() as stack:
        yield [Netns(stack, "c") for _ in range(4)]


def rules_of(table: EndpointTable, *, seed: str = "s") -> Ruleset:
    return sandbox_rules(table.networks, seed=seed, has_resolver=len(table.networks) > 1)


def shown(space: Netns) -> str:
    return space.run("nft", "--stateless", "list", "ruleset")


WEB = {
    count: sandbox_rules([network(service(*map(member, range(7, 7 + count))))], seed="s")
    for count in (0, 1, 3)
}


@settings(max_examples=15, deadline=None)
@given(st.lists(tables(), min_size=1, max_size=4))
def test_a_copy_is_what_nft_writes(spaces: list[Netns], history: list[EndpointTable]) -> None:
    """Whatever is wanted after whatever there was: both namespaces list the same."""
    first, second = (space.namespace for space in spaces[:2])
    before: Ruleset = {}
    for wanted in ({}, *map(rules_of, history), {}):
        plans = plans_for(wanted, as_found(before), as_found(wanted))
        if plans:
            trio.run(Nft().apply, first, script_of(plans, wanted))
            Copy(first.netfilter, plans, wanted).write(second.netfilter)
        assert shown(spaces[0]) == shown(spaces[1])
        before = wanted
    assert shown(spaces[1]) == ""


async def ensure(slots: list[RuleSlot], wanted: Ruleset, nft: Nft) -> list[str]:
    """Have the same in all, in one pass; return what had drifted."""
    writer, drift = Writer(nft), []

    async def one(slot: RuleSlot) -> None:
        drift.extend(await slot.ensure(wanted, writer))

    async with trio.open_nursery() as nursery:
        for slot in slots:
            nursery.start_soon(one, slot)
    return drift


async def test_one_pass_needs_nft_once_for_a_kind(spaces: list[Netns]) -> None:
    """For every change; and all have it."""
    nft = Counting()
    slots = [RuleSlot(space.namespace, nft) for space in spaces]
    for count, runs in ((3, 1), (1, 2), (1, 2), (0, 3), (3, 4)):
        await ensure(slots, WEB[count], nft)
        assert nft.count == runs
        assert len({shown(space) for space in spaces}) == 1
        assert all(slot.is_as(WEB[count]) for slot in slots)
    await ensure(slots, {}, nft)
    assert {shown(space) for space in spaces} == {""}


async def test_what_somebody_changed_is_mended_there_alone(spaces: list[Netns]) -> None:
    """A namespace that is not like the others is of another kind."""
    nft = Counting()
    slots = [RuleSlot(space.namespace, nft) for space in spaces]
    await ensure(slots, WEB[3], nft)
    spaces[2].run("nft", "flush", "chain", "ip", "swarmctl", "vip-10.0.1.2")
    drift = await ensure(slots, WEB[3], nft)
    assert drift == ["ip vip-10.0.1.2"]
    assert nft.count == 2
    assert len({shown(space) for space in spaces}) == 1
    await ensure(slots, {}, nft)


def test_what_was_changed_meanwhile_is_not_copied(spaces: list[Netns]) -> None:
    """Nor what was never there; and nothing is written then."""
    first, second = (space.namespace for space in spaces[:2])
    wanted = WEB[3]
    plans = plans_for(wanted, {}, as_found(wanted))
    trio.run(Nft().apply, first, script_of(plans, wanted))
    spaces[0].run("nft", "flush", "chain", "ip", "swarmctl", "vip-10.0.1.2")
    with pytest.raises(CannotCopy):
        Copy(first.netfilter, plans, wanted)
    with pytest.raises(CannotCopy):
        Copy(second.netfilter, plans, wanted)
    spaces[0].run("nft", "delete", "table", "ip", "swarmctl")


def test_a_copy_that_does_not_fit_writes_nothing(spaces: list[Netns]) -> None:
    """Into a namespace that is not as it was read: the kernel refuses it whole."""
    first, second = (space.namespace for space in spaces[:2])
    plans = plans_for(WEB[3], {}, as_found(WEB[3]))
    trio.run(Nft().apply, first, script_of(plans, WEB[3]))
    change = plans_for(WEB[1], as_found(WEB[3]), as_found(WEB[1]))
    trio.run(Nft().apply, first, script_of(change, WEB[1]))
    with pytest.raises(FileNotFoundError):
        Copy(first.netfilter, change, WEB[1]).write(second.netfilter)
    assert shown(spaces[1]) == ""
    spaces[0].run("nft", "delete", "table", "ip", "swarmctl")
