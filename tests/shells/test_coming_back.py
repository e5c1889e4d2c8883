"""Nodes whose certificate expired while they were off, or on: how they come back, and who may not.

The certificates here are expired by the true clock, as OpenSSL sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca.credentials import Material
from swarmctl.core.ca.issue import fresh_tokens
from swarmctl.core.ca.keyfiles import KeyPair
from swarmctl.core.ca.x509 import (
    DAY_NS,
    HOUR_NS,
    Role,
    Signer,
    identity_of,
    new_key_and_csr,
    sign_node_certificate,
)
from swarmctl.core.clock import SystemClock
from swarmctl.core.errors import (
    CertificateExpired,
    InvalidJoinToken,
    ManagerLocked,
    PermissionDenied,
    SwarmError,
)
from swarmctl.core.model.base import MINUTE
from swarmctl.core.model.change import Delete, Kind, Ref, Update
from swarmctl.core.model.cluster import EncryptionConfig
from swarmctl.core.model.request import InitRequest
from swarmctl.core.node import LocalState

from .local_swarm import SPEC, Machine, private_of, state_of, until, write

if TYPE_CHECKING:
    from pathlib import Path

    from swarmctl.core.model.cluster import ClusterPrivate
    from swarmctl.core.model.objects import NodeRow
    from swarmctl.core.node import LocalNode

EXPIRED = "Swarm certificates have expired. To come back as the same node: `swarmctl join"


class AheadClock:
    """A wall clock that somebody set wrong."""

    def __init__(self, ahead_ns: int = 0) -> None:
        self.ahead_ns = ahead_ns

    def now(self) -> int:
        return SystemClock().now() + self.ahead_ns


def expired(private: ClusterPrivate, known: Material) -> Material:
    """Return a certificate of the same node that ended ten minutes ago.

    The root is as young as the test, and a certificate must not be older than its root.
    """
    who = identity_of(known.pair.cert_pem)
    key_pem, csr_pem = new_key_and_csr()
    chain = sign_node_certificate(
        Signer.from_pem(private.ca_cert.encode(), private.ca_key.encode()),
        csr_pem,
        node_id=who.node_id,
        role=who.role,
        cluster_id=who.cluster_id,
        expiry_ns=40 * MINUTE,
        now_ns=SystemClock().now() - 50 * MINUTE,
    )
    return Material(known.root_pem, KeyPair(chain, key_pem))


def row_of(manager: LocalNode, node_id: str) -> NodeRow:
    assert manager.manager is not None
    row = manager.manager.view.node(node_id)
    assert row is not None
    return row


async def note_key(manager: LocalNode, material: Material) -> None:
    """Make the tables believe that this was the last certificate they gave."""
    who = identity_of(material.pair.cert_pem)
    row = row_of(manager, who.node_id)
    private = replace(row.private, public_key=who.key_fingerprint, previous_key="")
    await write(manager, Update(row=replace(row, private=private)))


async def let_expire(manager: LocalNode, machine: Machine) -> Material:
    """Age a stopped node's certificate, as if it had slept for long."""
    material = expired(private_of(manager), identity.load(machine.state_dir))
    identity.store(machine.state_dir, material)
    await note_key(manager, material)
    return material


async def join_and_stop(manager: LocalNode, boss: Machine, machine: Machine) -> str:
    """Make a worker of a machine, and stop its daemon."""
    async with machine.daemon() as worker:
        await machine.join(worker, boss.address, private_of(manager).worker_token)
        node_id = worker.node_id
        await until(lambda: state_of(manager, node_id) == "ready")
    return node_id


@pytest.fixture
def boss(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "boss")


@pytest.fixture
def sleeper(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "sleeper")


async def test_a_worker_comes_back_under_its_own_id(boss: Machine, sleeper: Machine) -> None:
    """It starts in state error with a text that names the remedy, and `join` with the worker
    token gives it a new certificate, its old id and its place."""
    async with boss.daemon() as manager:
        await boss.init(manager)
        node_id = await join_and_stop(manager, boss, sleeper)
        await let_expire(manager, sleeper)
        async with sleeper.daemon() as worker:
            assert worker.state is LocalState.ERROR
            assert worker.error.startswith(EXPIRED)
            assert "with the worker token" in worker.error
            assert "the clock here says" in worker.error
            await sleeper.join(worker, boss.address, private_of(manager).worker_token)
            assert (worker.state, worker.error) == (LocalState.ACTIVE, "")
            assert worker.node_id == node_id
            await until(lambda: state_of(manager, node_id) == "ready")
            assert len(list(manager.manager.view.nodes())) == 2  # type: ignore[union-attr]
            known = identity_of(identity.load(sleeper.state_dir).pair.cert_pem)
            assert known.not_after_ns > SystemClock().now() + 80 * DAY_NS
            assert row_of(manager, node_id).private.public_key == known.key_fingerprint
        async with sleeper.daemon() as worker:  # and it stays so
            await until(lambda: state_of(manager, node_id) == "ready")


async def test_it_takes_a_token_of_its_role(boss: Machine, sleeper: Machine) -> None:
    """The other role's token, a rotated one and a foreign one are refused in words; the node stays
    as it is, on the disk too."""
    async with boss.daemon() as manager:
        await boss.init(manager)
        await join_and_stop(manager, boss, sleeper)
        old = await let_expire(manager, sleeper)
        private = private_of(manager)
        foreign, _ = fresh_tokens(
            private.ca_cert.encode(), worker_secret=b"x" * 16, manager_secret=b"y" * 16
        )
        async with sleeper.daemon() as worker:
            for token, words in (
                (private.manager_token, "is a worker and this is the token of a manager"),
                (foreign, "neither the worker nor the manager secret"),
                ("SWMTKN-1-x", "parts between dashes"),
            ):
                with pytest.raises(InvalidJoinToken, match=words):
                    await sleeper.join(worker, boss.address, token)
                assert worker.state is LocalState.ERROR
            assert identity.load(sleeper.state_dir) == old
            await sleeper.join(worker, boss.address, private.worker_token)


async def test_a_removed_node_does_not_come_back(boss: Machine, sleeper: Machine) -> None:
    """Token and key are not enough once the node was removed; after leaving it joins as new."""
    async with boss.daemon() as manager:
        await boss.init(manager)
        node_id = await join_and_stop(manager, boss, sleeper)
        await let_expire(manager, sleeper)
        version = row_of(manager, node_id).api.Version.Index
        await write(manager, Delete(ref=Ref(Kind.NODE, node_id), version=version))
        token = private_of(manager).worker_token
        async with sleeper.daemon() as worker:
            with pytest.raises(PermissionDenied, match=f"node {node_id} is not part of this swarm"):
                await sleeper.join(worker, boss.address, token)
            await worker.leave(force=True)
            await sleeper.join(worker, boss.address, token)
            assert worker.node_id != node_id


async def test_an_old_copy_does_not_come_back(boss: Machine, sleeper: Machine) -> None:
    """The key has to be the last that the node is known to hold: a disk restored from before its
    last renewal is refused, and so is a copy of a node that came back already."""
    async with boss.daemon() as manager:
        await boss.init(manager)
        node_id = await join_and_stop(manager, boss, sleeper)
        old = expired(private_of(manager), identity.load(sleeper.state_dir))
        identity.store(sleeper.state_dir, old)
        token = private_of(manager).worker_token
        async with sleeper.daemon() as worker:
            with pytest.raises(PermissionDenied, match="has had a newer certificate"):
                await sleeper.join(worker, boss.address, token)
            assert row_of(manager, node_id).private.public_key != ""


async def test_a_lost_answer_locks_nobody_out(boss: Machine, sleeper: Machine) -> None:
    """When a certificate was signed and never arrived, the node asks again with what it has: the
    key that it last proved is good until the next one is proved."""
    async with boss.daemon() as manager:
        await boss.init(manager)
        node_id = await join_and_stop(manager, boss, sleeper)
        old = await let_expire(manager, sleeper)
        token, now_ns = private_of(manager).worker_token, SystemClock().now()
        for _ in range(3):  # what comes back is lost each time
            await identity.come_back([boss.address], token, old, now_ns)
        async with sleeper.daemon() as worker:
            await sleeper.join(worker, boss.address, token)
            assert worker.node_id == node_id
            await until(lambda: state_of(manager, node_id) == "ready")
            member = worker._member
            assert member is not None
            await identity.renew(member.credentials, sleeper.state_dir, [boss.address], now_ns)
        with pytest.raises(PermissionDenied, match="has had a newer certificate"):
            await identity.come_back([boss.address], token, old, now_ns)


async def test_a_node_that_runs_comes_back_without_a_restart(
    boss: Machine, sleeper: Machine
) -> None:
    """A certificate that expired under a running daemon, out of touch for too long, is replaced by
    the same command; its stay goes on."""
    async with boss.daemon() as manager, sleeper.daemon() as worker:
        await boss.init(manager)
        await sleeper.join(worker, boss.address, private_of(manager).worker_token)
        node_id, member = worker.node_id, worker._member
        assert member is not None
        await until(lambda: state_of(manager, node_id) == "ready")
        old = expired(private_of(manager), member.credentials.material)
        await note_key(manager, old)
        member.credentials.replace(old, SystemClock().now() - 20 * MINUTE)
        assert worker.error.startswith(EXPIRED)
        await sleeper.join(worker, boss.address, private_of(manager).worker_token)
        assert (worker.error, worker._member) == ("", member)
        assert member.credentials.identity.not_after_ns > SystemClock().now()
        assert identity.load(sleeper.state_dir) == member.credentials.material


async def test_a_wrong_clock_is_told_and_costs_nothing(boss: Machine, sleeper: Machine) -> None:
    """With the clock a year ahead every certificate has expired: the error says what the clock
    says, coming back fails for the same reason, and with the clock set right all is as before."""
    clock = AheadClock(365 * DAY_NS)
    async with boss.daemon() as manager:
        await boss.init(manager)
        node_id = await join_and_stop(manager, boss, sleeper)
        before = identity.load(sleeper.state_dir)
        async with sleeper.daemon(clock=clock) as worker:
            assert worker.state is LocalState.ERROR
            with pytest.raises(CertificateExpired, match="the clock here says"):
                await sleeper.join(worker, boss.address, private_of(manager).worker_token)
            assert worker.state is LocalState.ERROR
        assert identity.load(sleeper.state_dir) == before
        async with sleeper.daemon() as worker:
            await until(lambda: state_of(manager, node_id) == "ready")
            assert worker.error == ""


# --- managers -------------------------------------------------------------------------------------


async def test_a_manager_helps_itself(boss: Machine) -> None:
    """A lone manager that was off for too long starts all the same: it signs itself a certificate
    for an hour with the key in its tables, and has it renewed in the ordinary way."""
    async with boss.daemon() as manager:
        node_id = await boss.init(manager)
        private = private_of(manager)
    identity.store(boss.state_dir, expired(private, identity.load(boss.state_dir)))
    async with boss.daemon() as manager:
        assert (manager.node_id, manager.error) == (node_id, "")
        await until(lambda: manager.manager is not None and manager.manager.leading)
        await until(lambda: state_of(manager, node_id) == "ready")
        member = manager._member
        assert member is not None
        own = member.credentials.identity
        assert own.role is Role.MANAGER
        assert own.not_after_ns < SystemClock().now() + HOUR_NS + DAY_NS // 1000
        now_ns = SystemClock().now()
        await identity.renew(member.credentials, boss.state_dir, [boss.address], now_ns)
        own = member.credentials.identity
        assert own.not_after_ns > now_ns + 80 * DAY_NS
        assert row_of(manager, node_id).private.public_key == own.key_fingerprint


async def test_a_manager_without_the_key_says_so(boss: Machine) -> None:
    """Where the CA's key is with an external CA a manager cannot help itself; its error says that,
    and what it can do."""
    async with boss.daemon() as manager:
        await boss.init(manager)
        assert manager.manager is not None
        row = manager.manager.view.cluster()
        assert row is not None
        private = row.private
        keyless = replace(row, private=replace(private, ca_key=""))
        await write(manager, Update(row=keyless))
    old = expired(private, identity.load(boss.state_dir))
    identity.store(boss.state_dir, old)
    async with boss.daemon() as manager:
        assert manager.state is LocalState.ERROR
        assert manager.error.startswith(EXPIRED)
        assert "with the manager token" in manager.error
        assert "CA key is with an external CA" in manager.error
        with pytest.raises(SwarmError, match="cannot reach"):
            await boss.join(manager, boss.address, private.manager_token)
    assert identity.load(boss.state_dir) == old


async def test_a_locked_manager_that_came_back_is_to_be_unlocked(
    boss: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new certificate opens no locked manager: whoever got it by token is told to unlock it."""
    spec = replace(SPEC, EncryptionConfig=EncryptionConfig(AutoLockManagers=True))
    async with boss.daemon() as manager:
        await manager.init(InitRequest(ListenAddr=boss.address, AdvertiseAddr="127.0.0.1"), spec)
        assert manager.manager is not None
        row = manager.manager.view.cluster()
        assert row is not None
        private = row.private
        await write(manager, Update(row=replace(row, private=replace(private, ca_key=""))))
        assert manager._member is not None
        held = manager._member.credentials
    identity.store(boss.state_dir, expired(private, held.material), held.passphrase)

    async def come_back(*_args: object) -> Material:
        await trio.lowlevel.checkpoint()
        return held.material

    monkeypatch.setattr(identity, "come_back", come_back)
    async with boss.daemon() as manager:
        assert manager.state is LocalState.LOCKED
        with pytest.raises(CertificateExpired):
            await manager.unlock(private.unlock_key)
        with pytest.raises(ManagerLocked, match="needs to be unlocked"):
            await boss.join(manager, boss.address, private.manager_token)
        await manager.unlock(private.unlock_key)
        await until(lambda: manager.state is LocalState.ACTIVE)


async def test_a_manager_comes_back_by_token_too(boss: Machine) -> None:
    """Asked over the wire a manager needs the manager token; the worker's is refused."""
    async with boss.daemon() as manager:
        node_id = await boss.init(manager)
        private = private_of(manager)
        old = expired(private, identity.load(boss.state_dir))
        await note_key(manager, old)
        now_ns = SystemClock().now()
        with pytest.raises(InvalidJoinToken, match="is a manager and this is the token of a work"):
            await identity.come_back([boss.address], private.worker_token, old, now_ns)
        fresh = await identity.come_back([boss.address], private.manager_token, old, now_ns)
        who = identity_of(fresh.pair.cert_pem)
        assert (who.node_id, who.role) == (node_id, Role.MANAGER)
