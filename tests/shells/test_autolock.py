"""Autolock on a real node: what lies on the disk, what a restart needs, and what a crash leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.ca import keyfiles
from swarmctl.core.ca.token import UnlockKey
from swarmctl.core.errors import InvalidUnlockKey, ManagerLocked, NotLocked
from swarmctl.core.founding import new_unlock_key
from swarmctl.core.manager import lock as lock_module
from swarmctl.core.manager import state as manager_state
from swarmctl.core.manager.lock import LockKeeper
from swarmctl.core.model.change import Create, Update
from swarmctl.core.model.cluster import EncryptionConfig
from swarmctl.core.model.objects import Config, ConfigRow, ConfigSpec
from swarmctl.core.model.request import InitRequest
from swarmctl.core.node import LocalState
from swarmctl.core.raft.database import peek_lock
from swarmctl.core.raft.disk import Disk
from swarmctl.core.refusals import AlreadyInSwarm, LockedStay, NotInSwarm

from .local_swarm import SPEC, Machine, private_of, until, write

if TYPE_CHECKING:
    from pathlib import Path

    from swarmctl.core.node import LocalNode

LOCKED_SPEC = replace(SPEC, EncryptionConfig=EncryptionConfig(AutoLockManagers=True))
MARK = ConfigRow(api=Config(ID="mark", Spec=ConfigSpec(Name="mark")))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "one")


async def init_locked(machine: Machine, node: LocalNode) -> bytes:
    await node.init(InitRequest(ListenAddr=machine.address, AdvertiseAddr="127.0.0.1"), LOCKED_SPEC)
    return private_of(node).unlock_key


async def set_key(node: LocalNode, key: bytes) -> None:
    """Have the cluster's row say another unlock key, as the API does."""
    assert node.manager is not None
    cluster = node.manager.view.cluster()
    assert cluster is not None
    spec = LOCKED_SPEC if key else SPEC
    changed = replace(
        cluster,
        api=replace(cluster.api, Spec=spec),
        private=replace(cluster.private, unlock_key=key),
    )
    await write(node, Update(row=changed))


def disk_of(node: LocalNode) -> Disk:
    assert node.manager is not None
    disk = node.manager._disk
    assert isinstance(disk, Disk)
    return disk


def is_locked(machine: Machine) -> bool:
    """What the database says of a daemon that does not run."""
    return peek_lock(database(machine), None)[0].locked


def database(machine: Machine) -> Path:
    return machine.state_dir / "raft" / "raft.db"


def key_file(machine: Machine) -> Path:
    return machine.state_dir / "raft" / "kek"


def tls_key(machine: Machine) -> bytes:
    return (machine.state_dir / "certificates" / "swarm-node.key").read_bytes()


def certificate(machine: Machine) -> bytes:
    """The file with the certificate, which sealing the key leaves alone and renewing replaces."""
    return (machine.state_dir / "certificates" / "swarm-node.crt").read_bytes()


async def active(node: LocalNode) -> None:
    """Wait until a node has begun, and leads."""
    await until(lambda: node.state is LocalState.ACTIVE)
    assert node.manager is not None
    await node.manager.wait_leading()


async def settled(machine: Machine, node: LocalNode, *, locked: bool) -> None:
    """Wait until the disk is what the row says."""
    await until(
        lambda: (
            disk_of(node).keys.lock.locked == locked
            and not disk_of(node).keys.ring.rotating
            and key_file(machine).exists() != locked
            and keyfiles.is_sealed(machine.state_dir) == locked
        )
    )


async def test_a_swarm_founded_locked_has_no_key_on_its_disk(machine: Machine) -> None:
    """From the first byte on: no key file, and the TLS key is encrypted."""
    async with machine.daemon() as node:
        await init_locked(machine, node)
        assert not key_file(machine).exists()
        assert keyfiles.is_sealed(machine.state_dir)
        assert node.state is LocalState.ACTIVE


async def test_a_locked_manager_waits_for_its_key(machine: Machine) -> None:
    """A restart is locked, refuses a wrong key with nothing changed, and goes on with the right
    one; everything is there again."""
    async with machine.daemon() as node:
        key = await init_locked(machine, node)
        node_id = node.node_id
        await write(node, Create(row=MARK))
    async with machine.daemon() as node:
        assert (node.state, node.manager, node.agent) == (LocalState.LOCKED, None, None)
        before = database(machine).read_bytes()
        for wrong in (b"", b"x" * 32, key[:-1] + b"?"):
            with pytest.raises(InvalidUnlockKey, match="invalid key provided"):
                await node.unlock(wrong)
        assert node.state is LocalState.LOCKED
        assert database(machine).read_bytes() == before
        with pytest.raises(AlreadyInSwarm):
            await machine.init(node)
        await node.unlock(key)
        assert (node.state, node.node_id) == (LocalState.ACTIVE, node_id)
        assert node.manager is not None
        await node.manager.wait_leading()
        assert node.manager.view.config("mark") is not None
        with pytest.raises(NotLocked):
            await node.unlock(key)


async def test_turning_it_on_takes_the_keys_off_the_disk(machine: Machine) -> None:
    """Key file gone, data key replaced, TLS key encrypted and renewed; a restart needs the key."""
    key = new_unlock_key()
    async with machine.daemon() as node:
        await machine.init(node)
        first, open_key = tls_key(machine), key_file(machine).read_bytes()
        issued = certificate(machine)
        assert disk_of(node).keys.ring.key_id == 1
        await set_key(node, key)
        await settled(machine, node, locked=True)
        assert disk_of(node).keys.ring.key_id == 2
        await until(lambda: certificate(machine) != issued)  # another one, for another key
        assert keyfiles.is_sealed(machine.state_dir)
    for path in machine.state_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert open_key not in content, path
            assert first.splitlines()[1] not in content, path
            assert key not in content, path
    async with machine.daemon() as node:
        assert node.state is LocalState.LOCKED
        await node.unlock(key)
        assert node.state is LocalState.ACTIVE


async def test_turning_it_off_leaves_a_key_on_the_disk_and_the_data_key(machine: Machine) -> None:
    """A restart needs no key any more, and no record was sealed anew."""
    async with machine.daemon() as node:
        await init_locked(machine, node)
        await set_key(node, b"")
        await settled(machine, node, locked=False)
        assert disk_of(node).keys.ring.key_id == 1
    async with machine.daemon() as node:
        await active(node)


async def test_a_rotated_key_opens_and_the_old_one_does_not(machine: Machine) -> None:
    """Once this manager has followed, the old unlock key is refused; the data key stays."""
    new = new_unlock_key()
    async with machine.daemon() as node:
        old = await init_locked(machine, node)
        await set_key(node, new)
        await until(lambda: disk_of(node).keys.opens_with(new))
        assert disk_of(node).keys.ring.key_id == 1
    async with machine.daemon() as node:
        with pytest.raises(InvalidUnlockKey):
            await node.unlock(old)
        await node.unlock(new)
        assert node.state is LocalState.ACTIVE


async def test_a_restart_does_not_go_back_to_the_keys_of_older_rows(machine: Machine) -> None:
    """The log is read from its beginning again, and its older keys are not followed."""
    async with machine.daemon() as node:
        await init_locked(machine, node)
        for _ in range(3):
            newest = new_unlock_key()
            await set_key(node, newest)
            await until(lambda key=newest: disk_of(node).keys.opens_with(key))
    for _ in range(3):
        async with machine.daemon() as node:
            await node.unlock(newest)
            assert node.manager is not None
            await node.manager.wait_leading()
            assert private_of(node).unlock_key == newest
            assert disk_of(node).keys.opens_with(newest)


async def test_a_locked_node_can_be_left_by_force_only(machine: Machine) -> None:
    """Docker's words without force; with it the node is in no swarm and nothing is left."""
    async with machine.daemon() as node:
        await init_locked(machine, node)
    async with machine.daemon() as node:
        with pytest.raises(LockedStay, match="Please unlock it first or use `--force`"):
            await node.leave(force=False)
        await node.leave(force=True)
        assert node.state is LocalState.INACTIVE
        assert not database(machine).exists()
        with pytest.raises(NotInSwarm):
            await node.unlock(b"x" * 32)
        await machine.init(node)


# --- crashes -------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the power going."""


STEPS = [
    *(("on", "change_key"), ("on", "reseal_key"), ("on", "remove_key")),
    ("other", "change_key"),
    *(("off", "write_key"), ("off", "change_key"), ("off", "reseal_key")),
]


def die_at(monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
    """Make the machine stop before or after a step; steps that follow are not taken."""
    owner = {
        "change_key": LockKeeper,
        "reseal_key": lock_module.keyfiles,
        "write_key": lock_module.state,
        "remove_key": lock_module.state,
    }[step]
    name = "_change" if step == "change_key" else step
    real = getattr(owner, name)

    def dying(*arguments: object, **named: object) -> object:
        if after:
            real(*arguments, **named)
        raise Killed

    async def dying_later(*arguments: object) -> None:
        if after:
            await real(*arguments)
        raise Killed

    monkeypatch.setattr(owner, name, dying_later if step == "change_key" else dying)


async def follow(machine: Machine, key: bytes | None, wish: bytes) -> None:
    """Run a daemon that dies of following a wish."""
    try:
        async with machine.daemon() as node:
            if key is not None:
                await node.unlock(key)
            await active(node)
            await set_key(node, wish)
            await trio.sleep_forever()
    except BaseException as error:
        if not _is_killed(error):
            raise


def _is_killed(error: BaseException) -> bool:
    inner = getattr(error, "exceptions", None)
    return isinstance(error, Killed) if inner is None else any(map(_is_killed, inner))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("way", "step"), STEPS)
async def test_a_crash_at_any_step_leaves_one_key_that_opens(
    machine: Machine, way: str, step: str, after: bool
) -> None:
    """Locking, changing the key and unlocking, cut before or after each of their steps: the next
    start opens with the old or the new key, comes to rest as the row says, and lost nothing."""
    old, new = new_unlock_key(), b"" if way == "off" else new_unlock_key()
    async with machine.daemon() as node:
        await machine.init(node)
        await write(node, Create(row=MARK))
        if way != "on":
            await set_key(node, old)
            await settled(machine, node, locked=True)
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, step, after=after)
        await follow(machine, None if way == "on" else old, new)
    async with machine.daemon() as node:
        if node.state is LocalState.LOCKED:
            right, wrong = (new, old) if opens(machine, new) else (old, new or b"?" * 32)
            with pytest.raises(InvalidUnlockKey):
                await node.unlock(wrong)
            await node.unlock(right)
        await active(node)
        await settled(machine, node, locked=bool(new))
        assert node.manager.view.config("mark") is not None
    assert is_locked(machine) == bool(new)


def opens(machine: Machine, key: bytes) -> bool:
    if not key:
        return False
    try:
        # The daemon that is locked holds no lock on the file.
        manager_state.read_lock(machine.state_dir, key)
    except (InvalidUnlockKey, ManagerLocked):
        return False
    return True


def test_the_key_that_is_written_down_is_the_one_that_opens() -> None:
    """The text form holds the key, whole."""
    key = new_unlock_key()
    assert UnlockKey(key).reveal().startswith("SWMKEY-1-")
