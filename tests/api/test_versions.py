"""``?version=``: who may change what somebody else may have changed meanwhile (decision 0005)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.errors import LostLeadership, NoLeader
from swarmctl.core.model.change import Applied, Result, Transaction, Update
from swarmctl.core.model.service import EndpointVirtualIP

from .running import RunningApi, running_api, service_body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SEQUENCE = (500, "rpc error: code = Unknown desc = update out of sequence")


async def _touch(api: RunningApi, service_id: str) -> None:
    """Do some bookkeeping on a service, as the allocator does where there is one."""
    row = api.manager.view.service(service_id)
    assert row is not None
    address = EndpointVirtualIP(NetworkID="n", Addr=f"10.0.0.{row.api.Version.Index % 256}/24")
    endpoint = replace(row.api.Endpoint, VirtualIPs=(address,))
    changed = replace(row, api=replace(row.api, Endpoint=endpoint))
    assert isinstance(await api.propose(Transaction(changes=(Update(row=changed),))), Applied)


def _changed(shown: dict[str, Any], **labels: str) -> tuple[str, dict[str, Any]]:
    """Return path and body of an update by a client that read ``shown``."""
    path = f"/services/{shown['ID']}/update?version={shown['Version']['Index']}"
    return path, {**shown["Spec"], "Labels": labels}


async def test_bookkeeping_spoils_nobodys_update(tmp_path: Path) -> None:
    """A read-modify-write succeeds although the cluster wrote to the object in between."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        service_id = await api.create("web", replicas=0)
        read = await api.get("/services/web")
        await _touch(api, service_id)
        assert (await api.get("/services/web"))["Version"] != read["Version"]
        path, body = _changed(read, by="client")
        assert (await api.request("POST", path, body)).status == 200
        shown = await api.get("/services/web")
        assert shown["Spec"]["Labels"] == {"by": "client"}
        assert shown["PreviousSpec"] == read["Spec"]
        assert shown["Endpoint"]["VirtualIPs"], "the bookkeeping was undone"


async def test_bookkeeping_spoils_nobodys_rotation(tmp_path: Path) -> None:
    """Tokens are rotated although the cluster's row was written to since the client's reading."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        read = await api.get("/swarm")
        row = api.manager.view.cluster()
        assert row is not None
        changed = replace(row, private=replace(row.private, last_vni=4097))
        assert isinstance(await api.propose(Transaction(changes=(Update(row=changed),))), Applied)
        path = f"/swarm/update?version={read['Version']['Index']}&rotateManagerToken=true"
        assert (await api.request("POST", path, read["Spec"])).status == 200
        after = (await api.get("/swarm"))["JoinTokens"]
        assert after["Manager"] != read["JoinTokens"]["Manager"]
        assert await api.refusal("POST", path, read["Spec"]) == SEQUENCE


async def test_somebody_elses_change_is_not_overwritten(tmp_path: Path) -> None:
    """Once the spec changed, an update or rollback from the older reading is out of sequence."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=0)
        read = await api.get("/services/web")
        path, body = _changed(read, by="first")
        assert (await api.request("POST", path, body)).status == 200
        path, body = _changed(read, by="second")
        assert await api.refusal("POST", path, body) == SEQUENCE
        assert await api.refusal("POST", f"{path}&rollback=previous", body) == SEQUENCE
        assert (await api.get("/services/web"))["Spec"]["Labels"] == {"by": "first"}


async def test_a_version_from_the_future_or_from_before_is_none(tmp_path: Path) -> None:
    """A version that the object never had is out of sequence, on services, nodes and the swarm."""
    async with running_api(tmp_path) as api:
        node = await api.init()
        await api.create("web", replicas=0)
        bodies = {
            "/services/web": service_body("web", replicas=0),
            f"/nodes/{node}": {"Role": "manager", "Availability": "active"},
            "/swarm": {"Name": "default"},
        }
        for path, body in bodies.items():
            for version in (0, 10**6):
                target = f"{path}/update?version={version}"
                assert await api.refusal("POST", target, body) == SEQUENCE, target


@pytest.mark.parametrize("with_bookkeeping", [False, True])
async def test_of_clients_that_race_exactly_one_wins(
    tmp_path: Path, with_bookkeeping: bool
) -> None:
    """Of eight updates from one reading one is made, seven are told; also while rows move."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        service_id = await api.create("web", replicas=0)
        for round_ in range(3):
            read = await api.get("/services/web")
            answers: list[int] = []

            async def update(read: dict[str, Any], label: str, answers: list[int]) -> None:
                path, body = _changed(read, by=label)
                answers.append((await api.request("POST", path, body)).status)

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(update, read, f"{round_}-{number}", answers)
                if with_bookkeeping:
                    nursery.start_soon(_touch, api, service_id)
            assert sorted(answers) == [200] + [500] * 7


async def test_two_names_at_once_give_one_service(tmp_path: Path) -> None:
    """Of creates that ask for one name or one port at once, one succeeds and says so."""
    async with running_api(tmp_path) as api:
        await api.init()
        answers: dict[str, list[int]] = {"name": [], "port": []}

        async def create(kind: str, body: dict[str, Any]) -> None:
            answers[kind].append((await api.request("POST", "/services/create", body)).status)

        ports = {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}}
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(create, "name", service_body("one", replicas=0))
                body = service_body(f"port-{number}", replicas=0, **ports)
                nursery.start_soon(create, "port", body)
        assert sorted(answers["name"]) == [201] + [409] * 5
        assert sorted(answers["port"]) == [201] + [400] * 5


@pytest.mark.parametrize("was_applied", [True, False])
async def test_a_write_whose_leader_was_lost_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_applied: bool
) -> None:
    """When nobody knows whether a write took effect, it is asked again by its id: it takes effect
    once, and the client hears of its success, also when a second look would refuse it."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=0)
        propose, attempts = api.manager.propose, Counter[str]()

        async def lossy(transactions: Sequence[Transaction]) -> tuple[Result, ...]:
            (transaction,) = transactions
            attempts[transaction.request_id] += 1
            if attempts[transaction.request_id] == 3:
                return await propose(transactions)
            if was_applied:
                await propose(transactions)
            raise LostLeadership("the leader was lost")

        monkeypatch.setattr(api.manager, "propose", lossy)
        read = await api.get("/services/web")
        path, body = _changed(read, by="client")
        assert (await api.request("POST", path, body)).status == 200
        created = await api.request("POST", "/services/create", service_body("new", replicas=0))
        assert created.status == 201
        node = (await api.get("/nodes"))[0]
        path = f"/nodes/{node['ID']}/update?version={node['Version']['Index']}"
        assert (
            await api.request("POST", path, {**node["Spec"], "Labels": {"a": "b"}})
        ).status == 200
        assert (await api.request("DELETE", "/services/web")).status == 200
        assert list(attempts.values()) == [1 if was_applied else 3] * 4
        services = await api.get("/services")
        assert [row["ID"] for row in services] == [created.json["ID"]]


async def test_a_manager_without_a_leader_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that no leader takes is answered in Docker's words, after bounded tries."""
    monkeypatch.setattr("swarmctl.core.api.server.LEADER_WAIT_S", 0.5)
    async with running_api(tmp_path) as api:
        await api.init()

        async def leaderless(transactions: Sequence[Transaction]) -> tuple[Result, ...]:
            raise NoLeader

        monkeypatch.setattr(api.manager, "propose", leaderless)
        status, text = await api.refusal("POST", "/services/create", service_body("web"))
        assert status == 500
        assert text.startswith("rpc error: code = Unknown desc = The swarm does not have a leader.")

        async def losing(transactions: Sequence[Transaction]) -> tuple[Result, ...]:
            raise LostLeadership("the leader was lost")

        monkeypatch.setattr(api.manager, "propose", losing)
        status, text = await api.refusal("POST", "/services/create", service_body("web"))
        assert status == 503
        assert text == "rpc error: code = Unavailable desc = the leader was lost"
