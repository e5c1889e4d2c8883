"""A manager's replicated state on this host: founding it, opening it, forgetting it.

A shell of blocking functions; callers use a thread. Layout: ``<state>/raft/raft.db`` beside
``<state>/raft/kek``, the key encryption key. With autolock that file is not there: the cluster's
unlock key is the key encryption key then. The database says which of the two holds, so a file that
a crash left behind decides nothing.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from ..errors import InvalidUnlockKey, ManagerLocked, StorageFailed
from ..model.change import Conflict, Entry, Transaction, Update
from ..model.codec import decode_entry
from ..raft.config import RaftConfig
from ..raft.database import REMEDY, Damaged, create, peek_lock
from ..raft.disk import Disk, WrongKey, open_disk
from ..raft.keys import Lock
from ..raft.message import ConfState, EntryKind, Snapshot, decode_conf_change
from ..raft.raft import Raft
from ..raft.seal import KEY_BYTES, new_key
from ..raft.storage import NO_LIMIT
from ..store.dump import BadDump, dump, load
from ..store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from .backup import Head

DIRECTORY = "raft"
DATABASE = "raft.db"
KEY_FILE = "kek"
FOUNDING_INDEX = 1
FOUNDING_TERM = 1
APPLY_BYTES_MAX = 256 * 1024
UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024


class OpenState(NamedTuple):
    """Everything a manager starts from.

    Attributes:
        state_dir: where it lies; None for one in memory.
    """

    raft: Raft
    disk: Disk
    store: Store
    state_dir: Path | None = None


def new_raft_id() -> int:
    """Return a fresh member number: random, positive, 62 bits, never used again."""
    return secrets.randbits(62) + 1


def owner_of(cluster_id: str, node_id: str) -> str:
    """Return what a manager's database records are bound to."""
    return f"{cluster_id}/{node_id}"


def found(
    state_dir: Path,
    *,
    owner: str,
    raft_id: int,
    founding: Transaction,
    unlock_key: bytes = b"",
    identity_key: bytes = b"",
    backup: tuple[Head, Store] | None = None,
) -> None:
    """Write the database of a new cluster with this node as its only manager.

    What an unfinished earlier attempt left is removed. After a crash either all of it is there or
    :func:`open_state` finds nothing.

    Args:
        owner: cluster and node id; binds the records.
        founding: makes the cluster's and the first node's rows.
        unlock_key: locks it from the start, so that no other key ever was on this disk.
        identity_key: seals the node's TLS key then.
        backup: what is founded anew; its tables are changed by ``founding``.

    Raises:
        StorageFailed: the disk refused, or the tables of a backup do not take this node.
    """
    directory = _make_directory(state_dir)
    head, store = backup or (None, Store())
    index = max(store.index + 1, FOUNDING_INDEX)
    outcome = store.apply(index, Entry(transactions=(founding,)))
    if isinstance(outcome.results[0], Conflict):
        raise StorageFailed(f"the swarm cannot be founded: {outcome.results[0].text}")
    path = directory / DATABASE
    key = unlock_key or write_key(state_dir)
    lock = Lock(locked=bool(unlock_key), version=index)
    create(path, owner=owner, key_encryption_key=key, lock=lock, identity_key=identity_key)
    disk = open_disk(path, owner=owner, key_encryption_key=key)
    try:
        snapshot = Snapshot(
            index=index,
            term=FOUNDING_TERM if head is None else head.term + 1,
            conf_state=ConfState(voters=(raft_id,)),
            removed=() if head is None else head.members,
        )
        disk.bootstrap(snapshot, dump(store))
    finally:
        disk.close()
    for made in (directory, state_dir):
        _sync_directory(made)


def exists(state_dir: Path) -> bool:
    """Return whether there is a database."""
    return (state_dir / DIRECTORY / DATABASE).exists()


def make_empty(state_dir: Path, *, owner: str) -> None:
    """Write the empty database of a manager that the leader will send everything to.

    What an earlier member number left is removed.

    Raises:
        StorageFailed: the disk refused.
    """
    directory = _make_directory(state_dir)
    open_disk(directory / DATABASE, owner=owner, key_encryption_key=write_key(state_dir)).close()
    for made in (directory, state_dir):
        _sync_directory(made)


class LockState(NamedTuple):
    """How a node's secrets lie on its disk.

    Attributes:
        passphrase: opens the node's TLS key, if that is encrypted.
    """

    locked: bool = False
    passphrase: bytes = b""


def read_lock(state_dir: Path, unlock_key: bytes | None) -> LockState:
    """Return whether this node is a locked manager, and what opens its TLS key.

    Args:
        unlock_key: the user's, if one was given.

    Raises:
        ManagerLocked: it is locked and no key was given.
        InvalidUnlockKey: the key does not open it.
        StorageFailed: the database cannot be read.
    """
    directory = state_dir / DIRECTORY
    path = directory / DATABASE
    if not path.exists():
        return LockState()
    lock, _ = peek_lock(path, None)
    if lock.locked and unlock_key is None:
        raise ManagerLocked
    key = unlock_key if lock.locked and unlock_key is not None else _read_key(directory)
    try:
        return LockState(lock.locked, passphrase_of(peek_lock(path, key)[1]))
    except WrongKey as error:
        if not lock.locked:
            raise _key_damaged(directory) from error
        raise InvalidUnlockKey from error


def passphrase_of(identity_key: bytes) -> bytes:
    """Return what encrypts a TLS key under an identity key, empty under none."""
    return identity_key.hex().encode()


def open_state(
    state_dir: Path, *, owner: str, raft_id: int, unlock_key: bytes | None = None
) -> OpenState:
    """Open this manager's database and read it back.

    Args:
        unlock_key: for one that is locked.

    Raises:
        StorageFailed: it is missing, damaged, locked by another daemon, or of a newer format.
    """
    directory = state_dir / DIRECTORY
    path = directory / DATABASE
    if not path.exists():
        raise StorageFailed(f"this manager's Raft database {path} is missing. {REMEDY}")
    locked = unlock_key is not None and peek_lock(path, None)[0].locked
    key = unlock_key if locked and unlock_key is not None else _read_key(directory)
    try:
        disk = open_disk(path, owner=owner, key_encryption_key=key)
    except WrongKey as error:
        raise _key_damaged(directory) from error
    try:
        store = Store()
        chunks = list(disk.read_chunks())
        if chunks:
            _load(store, chunks, path)
        disk.load()
        snapshot = disk.log.snapshot()
        _check_tables(path, snapshot, store)
        disk.begin()
        config = RaftConfig(
            applied=snapshot.index if snapshot is not None else 0,
            max_committed_size=APPLY_BYTES_MAX,
            max_uncommitted_size=UNCOMMITTED_BYTES_MAX,
        )
        raft = Raft(raft_id, disk.log, config, random.Random(secrets.randbits(64)))  # noqa: S311
    except BaseException:
        disk.close()
        raise
    return OpenState(raft, disk, store, state_dir)


def _check_tables(path: Path, snapshot: Snapshot | None, store: Store) -> None:
    if snapshot is not None and snapshot.index != store.index:
        raise Damaged(
            f"the Raft database {path} is damaged: it lacks the tables of its snapshot at "
            f"{snapshot.index}. {REMEDY}"
        )


class Sole(NamedTuple):
    """A manager that is to be the only one.

    Attributes:
        raft_id: a fresh number.
        addr: where it is from now on.
    """

    node_id: str
    raft_id: int
    addr: str


def force_new(
    state_dir: Path,
    *,
    owner: str,
    raft_id: int,
    sole: Sole,
    now_ns: int,
    unlock_key: bytes | None = None,
) -> None:
    """Make this manager the only one of its cluster, with everything that its log holds.

    For a swarm that lost its majority. Entries whose commit this manager did not hear of are kept:
    they may have been acknowledged. It takes a new number and every old one is removed for good,
    so that managers which come back are told to join anew.

    After a crash either the old database is there or the new one.

    Args:
        raft_id: the number it had.
        sole: what its row says afterwards.
        unlock_key: opens its database, if that is locked.

    Raises:
        StorageFailed: the database cannot be read or written; nothing has changed.
    """
    directory = state_dir / DIRECTORY
    opened = open_state(state_dir, owner=owner, raft_id=raft_id, unlock_key=unlock_key)
    disk, store = opened.disk, opened.store
    try:
        log = disk.log
        last = log.last_index()
        snapshot = log.snapshot() or Snapshot()
        gone = {raft_id, *snapshot.removed, *_members(snapshot.conf_state)}
        for entry in log.entries(store.index + 1, last + 1, NO_LIMIT):
            if entry.kind is not EntryKind.NORMAL:
                gone.update(each.node for each in decode_conf_change(entry.data).changes)
                store.skip(entry.index)
            elif entry.data:
                store.apply(entry.index, decode_entry(entry.data))
            else:
                store.skip(entry.index)
        hard_state = log.initial_state()[0]
        fresh = Snapshot(
            index=_note_sole(store, last + 1, sole, now_ns),
            term=max(hard_state.term, log.term(last)) + 1,
            conf_state=ConfState(voters=(sole.raft_id,)),
            removed=tuple(sorted(gone)),
        )
        disk.rebuild(fresh, dump(store))
    finally:
        disk.close()
    _sync_directory(directory)


def _note_sole(store: Store, index: int, sole: Sole, now_ns: int) -> int:
    """Have the tables know the only manager by its number and place; return their index."""
    row = store.view.node(sole.node_id)
    if row is None:
        store.skip(index)
        return index
    private = replace(row.private, raft_id=sole.raft_id, manager_addr=sole.addr)
    known = Transaction(changes=(Update(row=replace(row, private=private)),), now=now_ns)
    store.apply(index, Entry(transactions=(known,)))
    return index


def _members(state: ConfState) -> tuple[int, ...]:
    return (*state.voters, *state.voters_outgoing, *state.learners)


def _load(store: Store, chunks: list[bytes], path: Path) -> None:
    try:
        load(store, chunks)
    except BadDump as error:
        raise Damaged(f"the Raft database {path} is damaged: {error}. {REMEDY}") from error


def forget(state_dir: Path) -> None:
    """Remove this manager's database and key."""
    shutil.rmtree(state_dir / DIRECTORY, ignore_errors=True)


def _make_directory(state_dir: Path) -> Path:
    """Make the directory of a database that is about to be written; an earlier one is removed."""
    forget(state_dir)
    directory = state_dir / DIRECTORY
    try:
        directory.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise StorageFailed(f"{directory} cannot be made: {error}") from error
    return directory


def write_key(state_dir: Path) -> bytes:
    """Make a key encryption key and keep it in its file; durable when this returns.

    It opens nothing until the database was wrapped with it.

    Raises:
        StorageFailed: the disk refused; the old file, if any, is still there.
    """
    key = new_key()
    directory = state_dir / DIRECTORY
    path = directory / KEY_FILE
    temporary = directory / f".{KEY_FILE}.new"
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(handle)
        temporary.rename(path)
        _sync_directory(directory)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error}") from error
    return key


def remove_key(state_dir: Path) -> None:
    """Take the key encryption key off the disk, once the database needs it no more.

    Raises:
        StorageFailed: the disk refused.
    """
    directory = state_dir / DIRECTORY
    path = directory / KEY_FILE
    try:
        for each in (path, directory / f".{KEY_FILE}.new"):
            each.unlink(missing_ok=True)
        _sync_directory(directory)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be removed: {error}") from error


def _read_key(directory: Path) -> bytes:
    path = directory / KEY_FILE
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StorageFailed(
            f"the key {path} of the Raft database cannot be read: {error}. {REMEDY}"
        ) from error
    if len(key) != KEY_BYTES:
        raise _key_damaged(directory)
    return key


def _key_damaged(directory: Path) -> StorageFailed:
    return StorageFailed(
        f"the key {directory / KEY_FILE} of the Raft database is damaged: it does not open it. "
        f"{REMEDY}"
    )


def _sync_directory(directory: Path) -> None:
    """Make a directory's own entries durable: a synced file without a name is lost all the same.

    Raises:
        StorageFailed: the disk refused.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageFailed(f"{directory} cannot be written: {error}") from error
