"""The ledger: what is written down is given, and the rest keeps out of its way."""

from __future__ import annotations

import pytest

from examples.ledger import LedgerAllocator, swarmctl_allocator
from swarmctl.core.manager.pipeline import reconcilers
from swarmctl.plugins import AllocatorSettings, InvalidArgument
from swarmctl.plugins.spread import SpreadScheduler
from swarmctl.plugins.testing import check_allocator
from tests.core.allocator.joined import add_network, addresses, on_networks, subnets, vips
from tests.core.pipeline import world as worlds

BOOK = {
    "subnet back": "10.20.0.0/24",
    "back web": "10.20.0.5",
    "back web.1": "10.20.0.11",
    "back web.2": "10.20.0.12",
}


def made(options: dict[str, str]) -> LedgerAllocator:
    found = swarmctl_allocator("ledger", AllocatorSettings(options=options))
    assert found is not None
    return found


def world(monkeypatch: pytest.MonkeyPatch, options: dict[str, str]) -> worlds.World:
    """Return a cluster whose leader goes by a book."""
    monkeypatch.setattr(
        worlds, "the_reconcilers", lambda: reconcilers(SpreadScheduler(), made(options))
    )
    found = worlds.World()
    found.node("n0")
    add_network(found, "back")
    add_network(found, "front")
    found.settle()
    return found


def test_it_keeps_the_laws() -> None:
    """As every allocator has to, with or without a book."""
    check_allocator(made({}))
    check_allocator(made({"subnet other": "10.9.1.0/24", "checked checked.1": "10.9.1.9"}))


def test_what_is_written_down_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Subnet, service and tasks; a third task and another network get what nobody wrote of."""
    found = world(monkeypatch, BOOK)
    found.service("web", on_networks("web", "back", "front", replicas=3))
    found.run()
    assert (subnets(found, "back"), subnets(found, "front")) == (["10.20.0.0/24"], ["10.0.0.0/24"])
    assert vips(found)["back"] == "10.20.0.5/24"
    assert [each[0] for each in addresses(found)] == [
        "10.20.0.11/24",
        "10.20.0.12/24",
        "10.20.0.254/24",
    ]
    assert found.wishes() == []


def test_a_written_address_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task says that it gets none, and has it once it is free."""
    found = world(monkeypatch, {**BOOK, "back other.1": "10.20.0.11"})
    found.service("other", on_networks("other", "back", mode="dnsrr"))
    found.run()
    assert addresses(found, "other") == [("10.20.0.11/24",)]
    found.service("web", on_networks("web", "back"))
    found.run()
    (task,) = found.tasks("web")
    assert "has no free address left" in task.api.Status.Err
    found.remove_service("other")
    found.run()
    assert addresses(found) == [("10.20.0.11/24",)]


@pytest.mark.parametrize(
    "options", [{"subnet back": "10.20.0.1/24"}, {"back web": "10.20.0"}, {"subnet x": "all"}]
)
def test_a_book_that_cannot_be_read_is_refused(options: dict[str, str]) -> None:
    """With the line that is wrong; another name is another plugin's."""
    (line,) = options
    with pytest.raises(InvalidArgument, match=f"^ledger: {line} = "):
        made(options)
    assert swarmctl_allocator("other", AllocatorSettings()) is None
