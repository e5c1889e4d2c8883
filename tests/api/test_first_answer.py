"""A request that is asked again gets the first answer, wherever its leader was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from swarmctl.core.api.call import Call
from swarmctl.core.api.forward import Origin
from swarmctl.core.api.write import write
from swarmctl.core.model.change import Create, Kind, Transaction
from swarmctl.core.model.objects import Secret, SecretRow, SecretSpec
from swarmctl.core.wire.http1 import Fields, Request, Response

from .running import service_body
from .several import (
    Several,
    committed_by_the_next,
    cut_after_commit,
    cut_in_flight,
    deposed_after_commit,
    deposed_before_commit,
    killed_after_commit,
    killed_before_commit,
    overtaken,
    several,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarmctl.core.store.view import View

    from .several import Answer, Fate


class Asked(NamedTuple):
    """A request, made from the service that is there before it."""

    method: str
    path: str
    body: Any = None
    status: int = 200


def _create(_version: int) -> Asked:
    warned = {"ContainerSpec": {"Image": "host", "Isolation": "hyperv"}}
    return Asked("POST", "/services/create", service_body("new", TaskTemplate=warned), 201)


def _create_unnamed(_version: int) -> Asked:
    return Asked("POST", "/services/create", service_body(""), 201)


def _update(version: int) -> Asked:
    return Asked("POST", f"/services/web/update?version={version}", service_body("web", replicas=5))


def _update_nothing(version: int) -> Asked:
    return Asked("POST", f"/services/web/update?version={version}", service_body("web"))


def _remove(_version: int) -> Asked:
    return Asked("DELETE", "/services/web")


def _label_node(_version: int) -> Asked:
    body = {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}}
    return Asked("POST", "/nodes/m3/update?version=1", body)


def _rotate_token(_version: int) -> Asked:
    return Asked("POST", "/swarm/update?version=1&rotateWorkerToken=1", {"Name": "default"})


REQUESTS = (_create, _create_unnamed, _update, _update_nothing, _remove, _label_node, _rotate_token)
LOST: tuple[Fate, ...] = (
    killed_before_commit,
    killed_after_commit,
    committed_by_the_next,
    cut_after_commit,
    cut_in_flight,
    deposed_before_commit,
    deposed_after_commit,
)
AT_THE_LEADER = (deposed_before_commit, deposed_after_commit)


async def _ask(managers: Several, make: Any, *, at: int, fates: list[Fate]) -> tuple[Asked, Answer]:
    """Make a service `web`, then ask for something while the fates have their way."""
    made = await managers[at].request("POST", "/services/create", service_body("web"))
    assert made.status == 201
    asked = make(managers.services()[0].api.Version.Index)
    managers.fates = list(fates)
    answer = await managers[at].request(asked.method, asked.path, asked.body)
    return asked, answer


def _tables(managers: Several) -> tuple[Any, ...]:
    """Return what the requests may have changed, without ids and versions."""
    view = managers.truth.view
    cluster = view.cluster()
    assert cluster is not None
    node = view.node("m3")
    assert node is not None
    specs = [row.api.Spec for row in view.services()]
    unnamed = ("web", "new")
    return (
        sorted((s.Name if s.Name in unnamed else "?", repr(s.Mode)) for s in specs),
        node.api.Spec.Labels,
        len(cluster.private.retired_tokens),
    )


async def _check(make: Any, *, at: int, fates: list[Fate]) -> None:
    """Compare what happens under these fates with what happens under none."""
    async with several() as calm:
        asked, wanted = await _ask(calm, make, at=at, fates=[])
        assert wanted.status == asked.status
        tables = _tables(calm)
    async with several() as managers:
        asked, answer = await _ask(managers, make, at=at, fates=fates)
        assert answer.status == asked.status, (answer, fates)
        assert _tables(managers) == tables
        if asked.status == 201:
            (made,) = [row for row in managers.services() if row.api.Spec.Name != "web"]
            assert answer.json["ID"] == made.api.ID
            assert answer.json["Warnings"] == wanted.json["Warnings"]
            assert bool(wanted.json["Warnings"]) == (make is _create)
        else:
            assert answer.body == wanted.body
        assert not managers.fates, "not every fate was met"


@pytest.mark.parametrize("fate", LOST, ids=lambda fate: fate.__name__)
@pytest.mark.parametrize("make", REQUESTS, ids=lambda make: make.__name__)
async def test_a_request_whose_leader_was_lost_gets_the_first_answer(
    autojump_clock: MockClock, make: Any, fate: Fate
) -> None:
    """A create, update or delete through a follower takes effect once and is answered as if nothing
    had happened: with the first id and warnings, with 200 and not with "out of sequence" or 404;
    whether the leader is lost before or after the commit, and whether the entry lives on."""
    await _check(make, at=1, fates=[fate])


@pytest.mark.parametrize("fate", AT_THE_LEADER, ids=lambda fate: fate.__name__)
@pytest.mark.parametrize("make", REQUESTS, ids=lambda make: make.__name__)
async def test_a_leader_that_is_deposed_asks_its_successor(
    autojump_clock: MockClock, make: Any, fate: Fate
) -> None:
    """The same for a client of the leader itself: the request goes on at the next one."""
    await _check(make, at=0, fates=[fate])


@given(
    st.sampled_from(REQUESTS),
    st.lists(st.sampled_from((*LOST, overtaken)), min_size=1, max_size=4).filter(
        lambda fates: (
            sum("killed" in fate.__name__ or "next" in fate.__name__ for fate in fates) < 2
        )
    ),
)
@settings(max_examples=100)
def test_a_retry_at_any_point_gives_the_first_answer(make: Any, fates: list[Fate]) -> None:
    """However often and wherever on its way a write is lost or overtaken, it takes effect once, and
    the answer is the first one's."""

    async def check() -> None:
        async with several(5) as managers:
            asked, answer = await _ask(managers, make, at=4, fates=fates)
            assert answer.status == asked.status, (answer, fates)
            names = sorted(row.api.Spec.Name for row in managers.services())
            if asked.status == 201:
                assert len(names) == 2
                (made,) = [row for row in managers.services() if row.api.Spec.Name != "web"]
                assert answer.json["ID"] == made.api.ID
            elif asked.method == "DELETE":
                assert names == []

    trio.run(check, clock=MockClock(autojump_threshold=0))


async def test_the_answer_outlives_a_snapshot(autojump_clock: MockClock) -> None:
    """A new leader that came in by snapshot gives the first answer as well."""
    async with several() as managers:
        managers[1].manager.lagging = managers[2].manager.lagging = True
        managers.by_snapshot = True
        asked, answer = await _ask(managers, _create, at=2, fates=[killed_after_commit])
        assert answer.status == asked.status
        (made,) = [row for row in managers.services() if row.api.Spec.Name == "new"]
        assert answer.json["ID"] == made.api.ID


async def test_refusals_are_made_anew(autojump_clock: MockClock) -> None:
    """A request that was refused has changed nothing, and each client hears its own refusal."""
    async with several() as managers:
        await managers[1].request("POST", "/services/create", service_body("web"))
        for at in (0, 1, 2):
            again = await managers[at].request("POST", "/services/create", service_body("web"))
            assert again.status == 409
        assert (await managers[2].request("DELETE", "/services/web")).status == 200
        assert (await managers[1].request("DELETE", "/services/web")).status == 404
        made = await managers[0].request("POST", "/services/create", service_body("web"))
        assert made.status == 201


async def test_several_writes_of_one_request_are_told_apart(autojump_clock: MockClock) -> None:
    """A handler that writes twice takes effect with both, once each, however often it is asked; the
    write without a part gives the answer."""
    async with several() as managers:
        manager: Any = managers[0].manager
        call = Call(
            Request("POST", "/x", "/x", Fields(), Fields()), {}, "", Origin("m1", "request", "test")
        )

        def plan(name: str, body: bytes) -> Callable[[View], tuple[Transaction, Response]]:
            row = SecretRow(api=Secret(ID=name, Spec=SecretSpec(Name=name)))
            changes = (Create(row=row),)
            return lambda _view: (Transaction(changes=changes), Response(201, (), body))

        for number in (b"1", b"2"):
            first = await write(manager, call, plan("one", b"one" + number), part="prepare")
            second = await write(manager, call, plan("two", b"two" + number))
            assert (first.body, second.body) == (b"one1", b"two1")
        assert [row.api.ID for row in managers.truth.view.rows(Kind.SECRET)] == ["one", "two"]
