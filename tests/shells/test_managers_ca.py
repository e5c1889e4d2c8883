"""Every manager is a CA: certificates through any of them, rotations over changing leaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca.x509 import identity_of
from swarmctl.core.clock import SystemClock
from swarmctl.core.model.request import InitRequest

from .local_swarm import SPEC, private_of, state_of, until
from .test_coming_back import expired
from .test_managers import Managers, managers
from .test_root_rotation import WORK, behind, root_on_disk, rotate

if TYPE_CHECKING:
    from pathlib import Path


def a_follower(swarm: Managers) -> int:
    """Return a manager that does not lead."""
    leading = swarm.number_of_leader()
    return next(
        number
        for number, node in swarm.nodes.items()
        if number != leading and node.manager is not None
    )


async def test_any_manager_lets_in_and_renews(tmp_path: Path) -> None:
    """A worker that knows only a manager which does not lead joins there, has its certificate
    renewed there, and comes back there when it has expired: the leader signs all the same."""
    async with managers(tmp_path, 3, machines=4) as swarm:
        address = swarm.nodes[a_follower(swarm)].advertise_addr
        worker = await swarm.start(3)
        token = private_of(swarm.leader()).worker_token
        await swarm.machines[3].join(worker, address, token)
        node_id = worker.node_id
        await until(lambda: state_of(swarm.leader(), node_id) == "ready")
        member, now_ns = worker._member, SystemClock().now()
        assert member is not None
        before = member.credentials.identity
        await identity.renew(member.credentials, swarm.machines[3].state_dir, [address], now_ns)
        renewed = member.credentials.identity
        assert renewed.key_fingerprint != before.key_fingerprint
        row = swarm.row(3)
        assert row.private.public_key == renewed.key_fingerprint
        assert row.private.previous_key == before.key_fingerprint
        back = await identity.come_back([address], token, member.credentials.material, now_ns)
        assert identity_of(back.pair.cert_pem).node_id == node_id


async def test_a_rotation_outlives_its_leader_and_waits_for_stopped_managers(
    tmp_path: Path,
) -> None:
    """With one manager stopped a rotation does not end; the leader that began it stops too, the
    manager returns, another leader ends it; every node trusts the new root, whoever led."""
    async with managers(tmp_path, 4, machines=5, work=WORK) as swarm:
        await swarm.join(4, manager=False)
        stopped = a_follower(swarm)
        await swarm.stop(stopped)
        new_root = await rotate(swarm.leader())
        name = swarm.machines[stopped].state_dir.name
        await until(lambda: swarm.led() and behind(swarm.leader()) == [name])
        assert private_of(swarm.leader()).rotation is not None
        began = swarm.number_of_leader()
        await swarm.start(stopped)
        await until(lambda: swarm.voters() == 4)
        if private_of(swarm.leader()).rotation is not None:
            await swarm.stop(began)
            await until(swarm.led)
            await swarm.start(began)
        await until(lambda: swarm.led() and private_of(swarm.leader()).ca_cert == new_root)
        await until(lambda: swarm.led() and behind(swarm.leader()) == [])
        assert {root_on_disk(machine) for machine in swarm.machines} == {new_root}
        await swarm.name_cluster("after")
        followers = [number for number, node in swarm.nodes.items() if node.manager is not None]
        await until(lambda: all(swarm.has(number, "after") for number in followers))


async def test_a_rotation_goes_on_under_another_leader(tmp_path: Path) -> None:
    """The leader stops the moment a rotation has begun; the next one asks the nodes and, when the
    old leader is back, ends it."""
    async with managers(tmp_path, 3, work=WORK) as swarm:
        first = swarm.number_of_leader()
        new_root = await rotate(swarm.leader())
        await swarm.stop(first)
        await until(swarm.led)
        assert swarm.number_of_leader() != first
        await swarm.start(first)
        await until(lambda: swarm.led() and private_of(swarm.leader()).ca_cert == new_root)
        await until(lambda: swarm.led() and behind(swarm.leader()) == [])
        assert {root_on_disk(machine) for machine in swarm.machines} == {new_root}


async def test_a_swarm_that_was_off_as_a_whole_comes_back_by_itself(tmp_path: Path) -> None:
    """All managers stop, all their certificates expire, and they start: each signs itself one,
    they find each other, one leads, and nobody has another id."""
    async with managers(tmp_path, 3) as swarm:
        private = private_of(swarm.leader())
        ids = {number: node.node_id for number, node in swarm.nodes.items()}
        for number in list(swarm.nodes):
            await swarm.stop(number)
        for machine in swarm.machines:
            identity.store(machine.state_dir, expired(private, identity.load(machine.state_dir)))
        for number in ids:
            await swarm.start(number)
        await until(lambda: swarm.voters() == 3)
        assert {number: node.node_id for number, node in swarm.nodes.items()} == ids
        await swarm.name_cluster("back")
        await until(lambda: all(swarm.has(number, "back") for number in ids))


async def test_by_force_with_an_expired_certificate(tmp_path: Path) -> None:
    """A manager that lost its only peer and was off for too long begins anew all the same: with
    everything it had, under its own id, and others join it."""
    async with managers(tmp_path, 2, machines=3) as swarm:
        private = private_of(swarm.leader())
        await swarm.name_cluster("kept")
        await until(lambda: swarm.has(0, "kept") and swarm.has(1, "kept"))
        node_id = swarm.nodes[1].node_id
        for number in (0, 1):
            await swarm.stop(number)
        state_dir = swarm.machines[1].state_dir
        identity.store(state_dir, expired(private, identity.load(state_dir)))
        survivor = await swarm.start(1)
        assert (survivor.node_id, survivor.error, swarm.led()) == (node_id, "", False)
        assert await survivor.init(InitRequest(ForceNewCluster=True), SPEC) == node_id
        await until(lambda: swarm.has(1, "kept") and swarm.led())
        assert swarm.voters() == 1
        await swarm.join(2)
        await until(lambda: swarm.voters() == 2 and swarm.has(2, "kept"))
