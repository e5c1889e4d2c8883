"""A root rotation on living nodes: real links and files, one process (scenarios 42, 50, 51)."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca import rotation, settings
from swarmctl.core.ca.chain import verify_chain
from swarmctl.core.ca.livelinks import is_vouched_for
from swarmctl.core.ca.rotation import has_issuer
from swarmctl.core.ca.x509 import create_root
from swarmctl.core.clock import SystemClock
from swarmctl.core.errors import UnknownAuthority
from swarmctl.core.manager.reconcile import Reconciler
from swarmctl.core.model.change import Delete, Kind, Ref, Update
from swarmctl.core.wire.calls import LinkClosed
from swarmctl.core.wire.connect import dial, present_identity
from swarmctl.core.wire.tls import PeerRefused, client_context

from .local_swarm import Machine, private_of, state_of, until, write

if TYPE_CHECKING:
    from pathlib import Path

    from swarmctl.core.model.objects import ClusterRow
    from swarmctl.core.node import LocalNode

WORK = (Reconciler(name=rotation.NAME, keys=rotation.keys, decide=rotation.decide),)


def watchful(state_dir: Path) -> Machine:
    """Return a host whose node minds rotations while it leads."""
    made = Machine(state_dir)
    made.work = WORK
    return made


def cluster_of(node: LocalNode) -> ClusterRow:
    assert node.manager is not None
    row = node.manager.view.cluster()
    assert row is not None
    return row


async def rotate(manager: LocalNode) -> str:
    """Begin a rotation to a fresh root, as an update of the settings does; return the root."""
    row, now_ns = cluster_of(manager), SystemClock().now()
    config = row.api.Spec.CAConfig
    spec = replace(row.api.Spec, CAConfig=replace(config, ForceRotate=config.ForceRotate + 1))
    change = settings.judge(row, spec.CAConfig, now_ns)
    cert, key = settings.new_root_of(change, create_root(now_ns))
    new_root = settings.NewRoot(
        cert=cert,
        key=key,
        worker_secret=secrets.token_bytes(16),
        manager_secret=secrets.token_bytes(16),
    )
    await write(manager, Update(row=settings.changed(row, spec, change, new_root, now_ns)))
    return cert


def behind(manager: LocalNode) -> list[str]:
    """Return the names of the nodes that do not show the wanted issuer, or the trusted root."""
    cluster = cluster_of(manager)
    assert manager.manager is not None
    return sorted(
        row.api.Description.Hostname
        for row in manager.manager.view.nodes()
        if not has_issuer(row, cluster)
        or row.api.Description.TLSInfo.TrustRoot != cluster.api.TLSInfo.TrustRoot
    )


def root_on_disk(machine: Machine) -> str:
    return identity.load(machine.state_dir).root_pem.decode()


async def test_a_rotation_reaches_every_node_and_waits_for_the_stopped(tmp_path: Path) -> None:
    """Nodes in session renew at once and go on working; a stopped one holds the rotation up, and
    its return under its own id ends it: new root everywhere, on disk too, and new tokens."""
    boss, here, away = (watchful(tmp_path / name) for name in ("boss", "here", "away"))
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(boss.daemon())
        await boss.init(manager)
        token = private_of(manager).worker_token
        worker = await stack.enter_async_context(here.daemon())
        await here.join(worker, boss.address, token)
        async with away.daemon() as other:
            await away.join(other, boss.address, token)
            away_id = other.node_id
            await until(lambda: state_of(manager, away_id) == "ready")
        await until(lambda: state_of(manager, away_id) != "ready")
        old_root = private_of(manager).ca_cert
        new_root = await rotate(manager)
        await until(lambda: behind(manager) == ["away"])
        assert private_of(manager).rotation is not None
        assert private_of(manager).ca_cert == old_root
        assert root_on_disk(here) == old_root

        async with away.daemon() as other:
            await until(lambda: private_of(manager).rotation is None)
            await until(lambda: behind(manager) == [])
            assert other.node_id == away_id
            for machine in (boss, here, away):
                assert root_on_disk(machine) == new_root
        late = Machine(tmp_path / "late")
        async with late.daemon() as newcomer:
            with pytest.raises(UnknownAuthority, match="root CA was rotated since"):
                await late.join(newcomer, boss.address, token)
            await late.join(newcomer, boss.address, private_of(manager).worker_token)


async def test_certificates_of_the_old_root_open_nothing_afterwards(tmp_path: Path) -> None:
    """What somebody signed with the old root's key, or kept from before, is refused on every new
    connection once the rotation is over, without a restart."""
    boss, here = watchful(tmp_path / "boss"), Machine(tmp_path / "here")
    async with boss.daemon() as manager, here.daemon() as worker:
        await boss.init(manager)
        await here.join(worker, boss.address, private_of(manager).worker_token)
        kept = identity.load(here.state_dir).pair
        host, port = identity.split_address(boss.address)

        async def knock(root_pem: str) -> None:
            context = client_context(root_pem)
            present_identity(context, kept.cert_pem.decode(), kept.key_pem.decode())
            link = await dial(host, port, context, server_hostname="swarm-manager")
            await link.hang_up()

        await knock(private_of(manager).ca_cert)
        new_root = await rotate(manager)
        await until(lambda: private_of(manager).ca_cert == new_root and behind(manager) == [])
        with pytest.raises(PeerRefused, match="another swarm, or to a root that was rotated away"):
            await knock(new_root)


async def test_links_of_the_old_root_end_with_it(tmp_path: Path) -> None:
    """A link that was made with a certificate of the old root is cut once the rotation is over, and
    told why; nodes connect again, and no link of theirs is of the old root, on either side."""
    boss, here = watchful(tmp_path / "boss"), Machine(tmp_path / "here")
    async with boss.daemon() as manager, here.daemon() as worker:
        await boss.init(manager)
        await here.join(worker, boss.address, private_of(manager).worker_token)
        await until(lambda: state_of(manager, worker.node_id) == "ready")
        kept = identity.load(here.state_dir).pair
        context = client_context(private_of(manager).ca_cert)
        present_identity(context, kept.cert_pem.decode(), kept.key_pem.decode())
        host, port = identity.split_address(boss.address)
        intruder = await dial(host, port, context, server_hostname="swarm-manager")
        ends: list[str] = []

        async def stay() -> None:
            with pytest.raises(LinkClosed) as caught:
                await intruder.run()
            ends.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay)
            new_root = await rotate(manager)
            await until(lambda: private_of(manager).ca_cert == new_root and behind(manager) == [])
            await until(lambda: ends)
        assert "the swarm's root CA was changed" in ends[0]

        def all_new() -> bool:
            members = [node._member for node in (manager, worker)]
            links = [link for one in members if one is not None for link in one.credentials.links]
            ended = [link for link in links if link._end is not None]
            live = [link for link in links if link not in ended]
            now_ns = SystemClock().now()
            return len(live) >= 2 and all(
                is_vouched_for(link, new_root.encode(), now_ns) for link in live
            )

        await until(all_new)
        assert state_of(manager, worker.node_id) == "ready"


async def test_a_node_that_joins_in_the_middle_is_of_the_coming_root(tmp_path: Path) -> None:
    """The token of before lets in while a rotation waits; the newcomer's certificate is the coming
    root's, so it is asked for no other, and it trusts the new root with everybody else."""
    boss, away, late = (watchful(tmp_path / name) for name in ("boss", "away", "late"))
    async with boss.daemon() as manager:
        await boss.init(manager)
        token = private_of(manager).worker_token
        async with away.daemon() as other:
            await away.join(other, boss.address, token)
            away_id = other.node_id
            await until(lambda: state_of(manager, away_id) == "ready")
        new_root = await rotate(manager)
        await until(lambda: behind(manager) == ["away"])
        async with late.daemon() as newcomer:
            await late.join(newcomer, boss.address, token)
            pair = identity.load(late.state_dir).pair
            await until(lambda: state_of(manager, newcomer.node_id) == "ready")
            assert behind(manager) == ["away"]
            async with away.daemon():
                await until(lambda: private_of(manager).ca_cert == new_root)
                await until(lambda: behind(manager) == [])
            assert identity.load(late.state_dir).pair == pair
            assert root_on_disk(late) == new_root


async def test_removing_the_missing_node_ends_a_rotation(tmp_path: Path) -> None:
    """A node that never comes back is removed, and the rotation is over."""
    boss, away = watchful(tmp_path / "boss"), Machine(tmp_path / "away")
    async with boss.daemon() as manager:
        await boss.init(manager)
        async with away.daemon() as other:
            await away.join(other, boss.address, private_of(manager).worker_token)
            away_id = other.node_id
            await until(lambda: state_of(manager, away_id) == "ready")
        new_root = await rotate(manager)
        await until(lambda: behind(manager) == ["away"])
        assert manager.manager is not None
        row = manager.manager.view.node(away_id)
        assert row is not None
        await write(manager, Delete(ref=Ref(Kind.NODE, away_id), version=row.api.Version.Index))
        await until(lambda: private_of(manager).ca_cert == new_root)
        await until(lambda: behind(manager) == [])


async def test_a_node_that_misses_the_end_comes_back_all_the_same(tmp_path: Path) -> None:
    """A node that has renewed and stops before it hears of the end trusts only the old root; the
    link from the new root to the old, shown by the manager's newest certificate, lets it in."""
    boss, away = Machine(tmp_path / "boss"), Machine(tmp_path / "away")
    async with boss.daemon() as manager:  # nobody ends the rotation yet
        await boss.init(manager)
        async with away.daemon() as other:
            await away.join(other, boss.address, private_of(manager).worker_token)
            away_id = other.node_id
            old_root = private_of(manager).ca_cert
            await rotate(manager)
            for node in (manager, other):
                member = node._member  # renewed by hand: no reconciler asks here
                assert member is not None
                await identity.renew(
                    member.credentials,
                    member._settings.state_dir,
                    [boss.address],
                    SystemClock().now(),
                )
            await until(lambda: behind(manager) == [])
    boss.work = WORK
    async with boss.daemon() as manager:
        await until(lambda: manager.manager is not None and manager.manager.leading)
        await until(lambda: private_of(manager).rotation is None)
        await until(lambda: root_on_disk(boss) != old_root)
        member = manager._member
        assert member is not None
        await identity.renew(
            member.credentials, boss.state_dir, [boss.address], SystemClock().now()
        )
        assert root_on_disk(away) == old_root
        async with away.daemon() as other:
            await until(lambda: state_of(manager, away_id) == "ready")
            await until(lambda: root_on_disk(away) == private_of(manager).ca_cert)
            assert other.node_id == away_id


async def test_rotations_in_a_row_end_in_the_last(tmp_path: Path) -> None:
    """Three wishes, one after the other without waiting: the last root is the one that stays, and
    every certificate on a disk is vouched for by the root beside it."""
    boss, here = watchful(tmp_path / "boss"), Machine(tmp_path / "here")
    async with boss.daemon() as manager, here.daemon() as worker:
        await boss.init(manager)
        await here.join(worker, boss.address, private_of(manager).worker_token)
        for _ in range(3):
            last = await rotate(manager)
        await until(lambda: private_of(manager).ca_cert == last)
        await until(lambda: behind(manager) == [])
        for machine in (boss, here):
            stored = identity.load(machine.state_dir)
            assert stored.root_pem.decode() == last
            verify_chain(stored.pair.cert_pem, stored.root_pem, now_ns=SystemClock().now())
