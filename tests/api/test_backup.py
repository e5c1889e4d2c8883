"""A swarm as one file and back: whole, sealed, and nobody of before has a vote in it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.core.api.backup import PASSPHRASE_HEADER
from swarmctl.core.ca.rotation import has_issuer
from swarmctl.core.errors import BadRequest
from swarmctl.core.manager.backup import Head, Reading, new_salt, seal_for, written
from swarmctl.core.model.change import Create, Transaction
from swarmctl.core.model.objects import (
    ClusterRow,
    Node,
    NodeRow,
    NodeStatus,
    Secret,
    SecretPrivate,
    SecretRow,
    SecretSpec,
)
from swarmctl.core.node import LocalState
from tests.shells.local_swarm import until

from .running import RunningApi, running_api

if TYPE_CHECKING:
    from pathlib import Path

SECRET = SecretRow(
    api=Secret(ID="s1", Spec=SecretSpec(Name="password")),
    private=SecretPrivate(data=b"hunter2-hunter2"),
)
PASSPHRASE = "correct horse battery"


async def back_up(api: RunningApi) -> bytes:
    reply = await api.request("POST", "/swarm/backup", {"Passphrase": PASSPHRASE})
    assert reply.status == 200, reply
    return bytes(reply.body)


async def restore(api: RunningApi, content: bytes, passphrase: str = PASSPHRASE) -> tuple[int, Any]:
    header = base64.b64encode(passphrase.encode()).decode()
    address = f"127.0.0.1:{api.port}"
    reply = await api.request(
        "POST",
        f"/swarm/restore?listenAddr={address}&advertiseAddr={address}",
        content,
        headers={PASSPHRASE_HEADER: header},
    )
    return reply.status, reply.json


async def test_a_restored_swarm_has_everything_that_was_committed(tmp_path: Path) -> None:
    """Services, secrets, tokens and CA are those of before; the node is a new one, and the manager
    of then a worker without a vote."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with running_api(tmp_path / "one") as api:
        former = await api.init()
        await api.create("web")
        await api.propose(Transaction(changes=(Create(row=SECRET),)))
        before = await api.get("/swarm")
        content = await back_up(api)
    assert b"hunter2" not in content
    async with running_api(tmp_path / "two") as api:
        status, node_id = await restore(api, content)
        assert status == 200, node_id
        assert node_id != former
        after = await api.get("/swarm")
        assert after["ID"] == before["ID"]
        assert after["JoinTokens"] == before["JoinTokens"]
        assert after["TLSInfo"] == before["TLSInfo"]
        assert [each["Spec"]["Name"] for each in await api.get("/services")] == ["web"]
        assert api.manager.view.secret("s1") is not None
        assert api.manager.view.secret("s1").private.data == b"hunter2-hunter2"
        nodes = {each["ID"]: each for each in await api.get("/nodes")}
        assert set(nodes) == {former, node_id}
        assert nodes[former]["Spec"]["Role"] == "worker"
        assert "ManagerStatus" not in nodes[former]
        assert nodes[node_id]["ManagerStatus"]["Leader"]
        await api.create("more")
    async with running_api(tmp_path / "two") as api:
        await until(lambda: api.node.manager is not None)
        assert {each["Spec"]["Name"] for each in await api.get("/services")} == {"web", "more"}


async def test_a_locked_swarm_is_restored_locked(tmp_path: Path) -> None:
    """The unlock key of before opens the restored manager after its next start."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with running_api(tmp_path / "one") as api:
        address = f"127.0.0.1:{api.port}"
        body = {"ListenAddr": address, "AdvertiseAddr": address, "AutoLockManagers": True}
        assert (await api.request("POST", "/swarm/init", body)).status == 200
        key = (await api.get("/swarm/unlockkey"))["UnlockKey"]
        content = await back_up(api)
    async with running_api(tmp_path / "two") as api:
        assert (await restore(api, content))[0] == 200
        assert not (tmp_path / "two" / "state" / "raft" / "kek").exists()
    async with running_api(tmp_path / "two") as api:
        assert api.node.state is LocalState.LOCKED
        assert (await api.request("POST", "/swarm/unlock", {"UnlockKey": key})).status == 200


async def test_a_backup_in_the_middle_of_a_root_rotation(tmp_path: Path) -> None:
    """The restored swarm goes on rotating where the old one was: its manager has a certificate of
    the coming root, nodes of before hold the end up, and once these are removed it is over."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    away = NodeRow(api=Node(ID="away", Status=NodeStatus(State="down")))
    async with running_api(tmp_path / "one") as api:
        await api.init()
        await api.propose(Transaction(changes=(Create(row=away),)))
        before = await api.get("/swarm")
        spec = before["Spec"]
        spec["CAConfig"] = {**spec.get("CAConfig", {}), "ForceRotate": 1}
        path = f"/swarm/update?version={before['Version']['Index']}"
        assert (await api.request("POST", path, spec)).status == 200
        await until(lambda: lagging(api) == {"away"})
        content = await back_up(api)
        rotating = await api.get("/swarm")
        assert rotating["RootRotationInProgress"] is True
    async with running_api(tmp_path / "two") as api:
        status, node_id = await restore(api, content)
        assert status == 200, node_id
        found = await api.get("/swarm")
        assert found["RootRotationInProgress"] is True
        assert found["TLSInfo"] == rotating["TLSInfo"]
        assert found["JoinTokens"] == before["JoinTokens"]
        await until(lambda: node_id not in lagging(api))
        assert lagging(api) == {"away"}
        nodes = [each["ID"] for each in await api.get("/nodes") if each["ID"] != node_id]
        for gone in nodes:
            assert (await api.request("DELETE", f"/nodes/{gone}?force=true")).status == 200
        await until(lambda: not cluster_of(api).api.RootRotationInProgress)
        after = await api.get("/swarm")
        assert after["TLSInfo"]["TrustRoot"] != before["TLSInfo"]["TrustRoot"]
        assert after["TLSInfo"]["CertIssuerPublicKey"] == rotating["TLSInfo"]["CertIssuerPublicKey"]
        for role in ("Worker", "Manager"):
            assert after["JoinTokens"][role] != before["JoinTokens"][role]
        await api.create("web")
    async with running_api(tmp_path / "two") as api:
        await until(lambda: api.node.manager is not None)
        assert [each["Spec"]["Name"] for each in await api.get("/services")] == ["web"]


def cluster_of(api: RunningApi) -> ClusterRow:
    row = api.manager.view.cluster()
    assert row is not None
    return row


def lagging(api: RunningApi) -> set[str]:
    """Return the nodes that do not show a certificate of the CA that signs now."""
    return {row.api.ID for row in api.manager.view.nodes() if not has_issuer(row, cluster_of(api))}


async def test_what_is_no_whole_backup_changes_nothing(tmp_path: Path) -> None:
    """Another passphrase, a cut, a flipped bit, another file: refused in words, before anything is
    written; and a node that is in a swarm restores nothing over it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with running_api(tmp_path / "one") as api:
        await api.init()
        content = await back_up(api)
        status, answer = await restore(api, content)
        assert status == 503
        assert "already part of a swarm" in answer["message"]
        refused = await api.refusal("POST", "/swarm/backup", {"Passphrase": "short"})
        assert refused[0] == 400
        assert "8 characters and more" in refused[1]
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    async with running_api(tmp_path / "two") as api:
        for damaged, passphrase, says in (
            (content, "another passphrase", "the passphrase does not open this backup"),
            (content[:-1], PASSPHRASE, "cut short"),
            (content[: len(content) // 2], PASSPHRASE, "cut short"),
            (bytes(flipped), PASSPHRASE, "damaged"),
            (content + b"x", PASSPHRASE, "cut short"),
            (b"PK something else", PASSPHRASE, "this is no backup of a swarm"),
            (b"", PASSPHRASE, "cut short"),
        ):
            status, answer = await restore(api, damaged, passphrase)
            assert status == 400, says
            assert says in answer["message"]
            assert api.node.state is LocalState.INACTIVE
        assert not (tmp_path / "two" / "state" / "raft").exists()


def test_records_are_bound_to_their_places() -> None:
    """Swapped, doubled or left out, they do not open; in pieces of any size they do."""
    salt = new_salt()
    seal = seal_for(PASSPHRASE, salt)
    head = Head(cluster_id="c", index=1, term=1, made_at=1)
    parts = list(written(seal, salt, head, [b"one", b"two", b"three"]))
    whole = b"".join(parts)
    reading = Reading(PASSPHRASE)
    for place in range(len(whole)):
        reading.feed(whole[place : place + 1])
    assert reading._chunks == [b"one", b"two", b"three"]
    for wrong in (
        [parts[0], parts[1], parts[3], parts[2], parts[4]],
        [*parts[:2], *parts[3:]],
        [*parts[:3], *parts[2:]],
        [*parts, parts[-1]],
    ):
        with pytest.raises(BadRequest, match="damaged"):
            Reading(PASSPHRASE).feed(b"".join(wrong))
