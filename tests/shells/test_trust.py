"""Certificates and roots that change under a node's feet (scenarios 35, 37, 38, 42 and 51)."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca import rotation, settings
from swarmctl.core.ca.chain import verify_chain
from swarmctl.core.ca.credentials import renew, run_renewal, trust
from swarmctl.core.ca.rotation import KEY, finished, shall_renew
from swarmctl.core.ca.x509 import HOUR_NS, create_root, identity_of
from swarmctl.core.errors import UnknownAuthority
from swarmctl.core.model.change import Update
from swarmctl.core.node import LocalState

from .local_swarm import Machine, private_of, state_of, until
from .lone_manager import ADDRESS, Host, LoneManager
from .memory_network import MemoryNetwork
from .test_joining import Bell, happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from swarmctl.core.ca.credentials import Credentials
    from swarmctl.core.model.objects import ClusterRow

still = pytest.mark.still


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LoneManager]:
    manager = LoneManager(MemoryNetwork(monkeypatch))
    async with manager.running():
        yield manager


def row_of(cluster: LoneManager) -> ClusterRow:
    row = cluster.view.cluster()
    assert row is not None
    return row


async def begin_rotation(cluster: LoneManager) -> bytes:
    """Begin a rotation; return the coming root."""
    row, now_ns = row_of(cluster), cluster.clock.now()
    spec = replace(row.api.Spec, CAConfig=replace(row.api.Spec.CAConfig, ForceRotate=1))
    change = settings.judge(row, spec.CAConfig, now_ns)
    cert, key = settings.new_root_of(change, create_root(now_ns))
    worker, manager = secrets.token_bytes(16), secrets.token_bytes(16)
    new_root = settings.NewRoot(cert=cert, key=key, worker_secret=worker, manager_secret=manager)
    await cluster.write(Update(row=settings.changed(row, spec, change, new_root, now_ns)))
    return cert.encode()


async def end_rotation(cluster: LoneManager) -> None:
    await cluster.write(Update(row=finished(row_of(cluster))))


def assert_vouched(credentials: Credentials, state_dir: Path, now_ns: int) -> None:
    """In memory and on the disk the trusted root leads to the certificate."""
    stored = identity.load(state_dir)
    assert stored == credentials.material
    verify_chain(stored.pair.cert_pem, stored.root_pem, now_ns=now_ns)


@still
async def test_asking_a_node_signs_nothing(cluster: LoneManager, tmp_path: Path) -> None:
    """A node that is asked to renew keeps its certificate until it asks for another itself; it is
    asked with the first word of its session, and again only by another number."""
    credentials = await cluster.admit("w1")
    before = credentials.material
    host = Host(cluster, "w1", credentials, tmp_path)
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        assert not host.news[-1].renew
        await begin_rotation(cluster)
        decision = rotation.decide(cluster.view, KEY, cluster.clock.now(), lambda: "")
        for transaction in decision.transactions:
            await cluster.write(*transaction.changes)
        await cluster.until(lambda: host.news[-1].renew)
        asked = host.news[-1].renew_asked
        assert asked == cluster.node("w1").private.renew_asked != 0
        await cluster.elapse(10)
        assert credentials.material is before
        key = identity_of(before.pair.cert_pem).key_fingerprint
        assert cluster.node("w1").private.public_key == key
        assert shall_renew(cluster.node("w1"), row_of(cluster))


@still
async def test_a_new_issuer_is_told_at_once(cluster: LoneManager, tmp_path: Path) -> None:
    """After a renewal the node's description shows the new issuer without waiting for its turn,
    and the asking is over."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    host = Host(cluster, "w1", credentials, tmp_path)
    async with host.daemon():
        await cluster.until(lambda: cluster.state_of("w1") == "ready")
        await begin_rotation(cluster)
        began = trio.current_time()
        await renew(credentials, tmp_path, [ADDRESS], cluster.clock.now())
        wanted = row_of(cluster).api.TLSInfo.CertIssuerPublicKey
        await cluster.until(
            lambda: cluster.node("w1").api.Description.TLSInfo.CertIssuerPublicKey == wanted
        )
        assert trio.current_time() - began < 1


@still
async def test_a_renewal_that_a_rotations_end_overtook(
    cluster: LoneManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer carries the root of the moment at which it was signed. When the node has heard of
    the new root meanwhile, the new root stays, and the new certificate is one that it vouches
    for."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    old_root = credentials.material.root_pem
    new_root = await begin_rotation(cluster)
    await renew(credentials, tmp_path, [ADDRESS], cluster.clock.now())
    assert credentials.material.root_pem == old_root
    ask = identity._ask

    async def overtaken(*args: object) -> object:
        answer = await ask(*args)  # type: ignore[arg-type]
        assert answer.root_pem == old_root
        await end_rotation(cluster)
        await trust(credentials, tmp_path, new_root, cluster.clock.now())
        return answer

    monkeypatch.setattr(identity, "_ask", overtaken)
    await renew(credentials, tmp_path, [ADDRESS], cluster.clock.now())
    assert credentials.material.root_pem == new_root
    assert_vouched(credentials, tmp_path, cluster.clock.now())


@still
async def test_a_root_that_does_not_vouch_is_not_trusted_yet(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """Told of a root that its certificate does not lead to, a node keeps what it has; its next
    renewal brings a certificate of that root, and with it the trust."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    before = credentials.material
    new_root = await begin_rotation(cluster)
    with pytest.raises(UnknownAuthority):
        await trust(credentials, tmp_path, new_root, cluster.clock.now())
    assert credentials.material is before
    assert_vouched(credentials, tmp_path, cluster.clock.now())
    await renew(credentials, tmp_path, [ADDRESS], cluster.clock.now())
    assert credentials.material.root_pem == new_root
    assert_vouched(credentials, tmp_path, cluster.clock.now())


@still
async def test_renewals_and_roots_in_any_order_stay_vouched_for(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """Renewals and news of roots at once, over two rotations: whatever comes first, the trusted
    root leads to the certificate, and at the end it is the last root."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    of_manager, now_ns = tmp_path / "manager", cluster.clock.now
    for _ in range(2):
        root_pem = await begin_rotation(cluster)
        await renew(cluster.credentials, of_manager, [ADDRESS], now_ns())
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(renew, credentials, tmp_path, [ADDRESS], now_ns())
        assert_vouched(credentials, tmp_path, now_ns())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, credentials, tmp_path, [ADDRESS], now_ns())
            nursery.start_soon(end_rotation, cluster)
            nursery.start_soon(trust, credentials, tmp_path, root_pem, now_ns())
            nursery.start_soon(renew, credentials, tmp_path, [ADDRESS], now_ns())
        assert credentials.material.root_pem == root_pem
        assert_vouched(credentials, tmp_path, now_ns())
        await trust(cluster.credentials, of_manager, root_pem, now_ns())
        row = row_of(cluster)
        config = replace(row.api.Spec.CAConfig, ForceRotate=0)
        spec = replace(row.api.Spec, CAConfig=config)
        await cluster.write(Update(row=replace(row, api=replace(row.api, Spec=spec))))


@still
async def test_a_renewal_or_a_root_cancelled_anywhere_leaves_a_whole_identity(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """Cancelled after any number of steps, what is on the disk is what is in use, and its root
    leads to its certificate."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    new_root = await begin_rotation(cluster)
    roots = (new_root, credentials.material.root_pem)
    now_ns = cluster.clock.now()
    await renew(cluster.credentials, tmp_path / "manager", [ADDRESS], now_ns)
    done = 0
    for steps in range(200):
        before = credentials.material
        async with trio.open_nursery() as nursery:
            if steps % 2:
                nursery.start_soon(trust, credentials, tmp_path, roots[steps // 2 % 2], now_ns)
            nursery.start_soon(renew, credentials, tmp_path, [ADDRESS], now_ns)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert_vouched(credentials, tmp_path, now_ns)
        done += credentials.material.pair != before.pair
        if done == 5:
            break
        if done == 0 and steps == 0:
            await renew(credentials, tmp_path, [ADDRESS], now_ns)  # of the coming root from here on
    assert done == 5


@still
async def test_a_shorter_life_counts_from_the_next_renewal(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """The cluster's setting decides how long a certificate lasts that is signed after it; those
    that are out keep their end. Below an hour, which the API refuses, it is 90 days."""
    for node_id, configured, lasts in (
        ("w1", 2 * HOUR_NS, 2 * HOUR_NS),
        ("w2", HOUR_NS - 1, 90 * 24 * HOUR_NS),
    ):
        credentials = await cluster.admit(node_id)
        end_ns = credentials.identity.not_after_ns
        row = row_of(cluster)
        config = replace(row.api.Spec.CAConfig, NodeCertExpiry=configured)
        spec = replace(row.api.Spec, CAConfig=config)
        await cluster.write(Update(row=replace(row, api=replace(row.api, Spec=spec))))
        assert credentials.identity.not_after_ns == end_ns
        now_ns = cluster.clock.now()
        await renew(credentials, tmp_path / node_id, [ADDRESS], now_ns)
        assert abs(credentials.identity.not_after_ns - now_ns - lasts) < 2e9


@still
async def test_a_renewal_goes_on_over_failures_and_other_managers(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """A manager that does not answer is passed over; when none does the node asks again and again,
    and the certificate comes with the first that is back."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    bell, known = Bell(), ["10.0.0.99:2377"]
    async with trio.open_nursery() as nursery:
        changed = credentials.changed
        nursery.start_soon(
            partial(run_renewal, credentials, tmp_path, lambda: known, bell.wait, cluster.clock)
        )
        bell.rung.set()
        await cluster.elapse(30)
        assert not changed.is_set()
        known.append(ADDRESS)
        bell.rung.set()
        await happens(changed)
        nursery.cancel_scope.cancel()


# --- whole nodes ----------------------------------------------------------------------------------


async def test_a_stopped_worker_starts_under_its_id_without_an_address(tmp_path: Path) -> None:
    """A worker that was in a swarm needs no address and no token to come back: certificate, root
    and managers are on its disk."""
    boss, worker = Machine(tmp_path / "boss"), Machine(tmp_path / "worker")
    async with boss.daemon() as manager:
        await boss.init(manager)
        async with worker.daemon() as node:
            await worker.join(node, boss.address, private_of(manager).worker_token)
            node_id = node.node_id
            await until(lambda: state_of(manager, node_id) == "ready")
        await until(lambda: state_of(manager, node_id) != "ready")
        async with worker.daemon() as node:
            assert node.node_id == node_id
            await until(lambda: state_of(manager, node_id) == "ready")


async def test_a_node_with_another_swarms_certificates_is_told_so(tmp_path: Path) -> None:
    """With the certificates of another swarm on its disk a node is refused, by either side, in
    words that say so; and joining with them there is refused at once: leave first."""
    ours, theirs, stray = (Machine(tmp_path / name) for name in ("ours", "theirs", "stray"))
    async with ours.daemon() as manager, theirs.daemon() as foreigner:
        await ours.init(manager)
        await theirs.init(foreigner)
        async with stray.daemon() as node:
            await stray.join(node, theirs.address, private_of(foreigner).worker_token)
            foreign = identity.load(stray.state_dir)
            await node.leave(force=True)
            await stray.join(node, ours.address, private_of(manager).worker_token)
            await until(lambda: state_of(manager, node.node_id) == "ready")
        identity.store(stray.state_dir, foreign)
        async with stray.daemon() as node:
            await until(lambda: "is not accepted" in node.error or "does not accept" in node.error)
            assert "swarm" in node.error
            assert node.state is LocalState.ACTIVE
            with pytest.raises(Exception, match="already part of a swarm"):
                await stray.join(node, ours.address, private_of(manager).worker_token)
        known = identity_of(foreign.pair.cert_pem).node_id
        assert manager.manager is not None
        assert manager.manager.view.node(known) is None
