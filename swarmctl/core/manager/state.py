"""A manager's replicated state on this host: founding it, opening it, forgetting it.

A shell of blocking functions; callers use a thread. Layout: ``<state>/raft/raft.db`` beside
``<state>/raft/kek``, the key encryption key, which autolock will keep off the disk.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
from typing import TYPE_CHECKING, NamedTuple

from ..errors import StorageFailed
from ..model.change import Entry
from ..model.codec import decode_entry
from ..raft.config import RaftConfig
from ..raft.disk import Disk, open_disk
from ..raft.message import ConfState, EntryKind, Snapshot, decode_conf_change
from ..raft.raft import Raft
from ..raft.seal import KEY_BYTES, new_key
from ..raft.storage import NO_LIMIT
from ..store.dump import dump, load
from ..store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from ..model.change import Transaction

DIRECTORY = "raft"
DATABASE = "raft.db"
KEY_FILE = "kek"
FOUNDING_INDEX = 1
FOUNDING_TERM = 1
APPLY_BYTES_MAX = 256 * 1024
UNCOMMITTED_BYTES_MAX = 64 * 1024 * 1024


class OpenState(NamedTuple):
    """Everything a manager starts from."""

    raft: Raft
    disk: Disk
    store: Store


def new_raft_id() -> int:
    """Return a fresh member number: random, positive, 63 bits, never used again."""
    return secrets.randbits(62) + 1


def found(state_dir: Path, *, owner: str, raft_id: int, founding: Transaction) -> None:
    """Write the database of a new cluster with this node as its only manager.

    What an unfinished earlier attempt left is removed. After a crash either all of it is there or
    :func:`open_state` finds nothing.

    Args:
        owner: cluster and node id; binds the records.
        founding: makes the cluster's and the first node's rows.
    """
    forget(state_dir)
    directory = state_dir / DIRECTORY
    directory.mkdir(parents=True, mode=0o700)
    store = Store()
    store.apply(FOUNDING_INDEX, Entry(transactions=(founding,)))
    disk = open_disk(directory / DATABASE, owner=owner, key_encryption_key=_make_key(directory))
    try:
        snapshot = Snapshot(
            index=FOUNDING_INDEX, term=FOUNDING_TERM, conf_state=ConfState(voters=(raft_id,))
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
    """
    forget(state_dir)
    directory = state_dir / DIRECTORY
    directory.mkdir(parents=True, mode=0o700)
    open_disk(directory / DATABASE, owner=owner, key_encryption_key=_make_key(directory)).close()
    for made in (directory, state_dir):
        _sync_directory(made)


def open_state(state_dir: Path, *, owner: str, raft_id: int) -> OpenState:
    """Open this manager's database and read it back.

    Raises:
        StorageFailed: it is missing, damaged, locked by another daemon, or of a newer format.
    """
    directory = state_dir / DIRECTORY
    path = directory / DATABASE
    if not path.exists():
        raise StorageFailed(f"this manager's Raft database {path} is missing")
    disk = open_disk(path, owner=owner, key_encryption_key=_read_key(directory))
    try:
        store = Store()
        chunks = list(disk.read_chunks())
        if chunks:
            load(store, chunks)
        disk.load()
        snapshot = disk.log.snapshot()
        _check_tables(path, snapshot, store)
        config = RaftConfig(
            applied=snapshot.index if snapshot is not None else 0,
            max_committed_size=APPLY_BYTES_MAX,
            max_uncommitted_size=UNCOMMITTED_BYTES_MAX,
        )
        raft = Raft(raft_id, disk.log, config, random.Random(secrets.randbits(64)))  # noqa: S311
    except BaseException:
        disk.close()
        raise
    return OpenState(raft, disk, store)


def _check_tables(path: Path, snapshot: Snapshot | None, store: Store) -> None:
    if snapshot is not None and snapshot.index != store.index:
        raise StorageFailed(
            f"the Raft database {path} lacks the tables of its snapshot at {snapshot.index}"
        )


def force_new(state_dir: Path, *, owner: str, raft_id: int, new_raft_id: int) -> None:
    """Make this manager the only one of its cluster, with everything that its log holds.

    For a swarm that lost its majority. Entries whose commit this manager did not hear of are kept:
    they may have been acknowledged. It takes a new number and every old one is removed for good,
    so that managers which come back are told to join anew.

    After a crash either the old database is there or the new one.

    Args:
        raft_id: the number it had.
        new_raft_id: a fresh one.

    Raises:
        StorageFailed: the database cannot be read or written; nothing has changed.
    """
    directory = state_dir / DIRECTORY
    opened = open_state(state_dir, owner=owner, raft_id=raft_id)
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
            index=last,
            term=max(hard_state.term, log.term(last)) + 1,
            conf_state=ConfState(voters=(new_raft_id,)),
            removed=tuple(sorted(gone)),
        )
        disk.rebuild(fresh, dump(store))
    finally:
        disk.close()
    _sync_directory(directory)


def _members(state: ConfState) -> tuple[int, ...]:
    return (*state.voters, *state.voters_outgoing, *state.learners)


def forget(state_dir: Path) -> None:
    """Remove this manager's database and key."""
    shutil.rmtree(state_dir / DIRECTORY, ignore_errors=True)


def _make_key(directory: Path) -> bytes:
    key = new_key()
    path = directory / KEY_FILE
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, key)
        os.fsync(handle)
    finally:
        os.close(handle)
    return key


def _read_key(directory: Path) -> bytes:
    path = directory / KEY_FILE
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StorageFailed(
            f"the key {path} of the Raft database cannot be read: {error}"
        ) from error
    if len(key) != KEY_BYTES:
        raise StorageFailed(f"the key {path} of the Raft database is damaged")
    return key


def _sync_directory(directory: Path) -> None:
    """Make a directory's own entries durable: a synced file without a name is lost all the same."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
