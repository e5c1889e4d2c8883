"""The SQLite file of a manager: making it, opening it, and the key that seals its records.

Blocking; before the writer thread of ``disk.py`` has it. It must not know what is in the tables.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from ..errors import StorageFailed
from .seal import CannotOpen, Seal, new_key, unwrap_key, wrap_key

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
LOCKED_S = 1.0  # another daemon does not go away while we wait longer

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (kid INTEGER PRIMARY KEY, wrapped BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log (
  idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kid INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (id INTEGER PRIMARY KEY, kid INTEGER, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS chunk (
  snapshot INTEGER, number INTEGER, kid INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (snapshot, number)) WITHOUT ROWID;
"""


class WrongKey(StorageFailed):
    """The key encryption key does not fit this database."""


def open_database(
    path: Path, *, owner: str, key_encryption_key: bytes
) -> tuple[sqlite3.Connection, Seal]:
    """Open (or make) a manager's Raft database; blocking.

    Args:
        path: the file; its directory exists and is private to the daemon's user.
        owner: cluster and node id; a database of another owner does not open.
        key_encryption_key: 32 bytes that unwrap the data key.

    Raises:
        WrongKey: the key does not fit.
        StorageFailed: the file cannot be used: locked by another daemon, damaged, newer format.
    """
    new = not path.exists()
    try:
        connection = sqlite3.connect(
            path, timeout=LOCKED_S, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise StorageFailed(f"the Raft database {path} cannot be opened: {error}") from error
    try:
        _configure(connection)
        path.chmod(0o600)
        seal = _load_seal(connection, owner, key_encryption_key)
    except (sqlite3.Error, OSError) as error:
        connection.close()
        text = f"the Raft database {path} cannot be opened: {error}"
        if "locked" in str(error):
            text += "; another daemon uses this state directory"
        raise StorageFailed(text) from error
    except BaseException:
        connection.close()
        raise
    if new:
        _sync_directory(path.parent)
    return connection, seal


def _configure(connection: sqlite3.Connection) -> None:
    for setting in (
        "locking_mode=EXCLUSIVE",  # no second daemon, and no shared-memory file
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",  # the writer checkpoints when idle, never inside a commit
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()
    connection.executescript(_SCHEMA)
    row = connection.execute("SELECT value FROM meta WHERE name='format'").fetchone()
    if row is None:
        connection.execute("INSERT INTO meta VALUES ('format', ?)", (FORMAT,))
    elif int(row[0]) > FORMAT:
        raise StorageFailed(
            f"the Raft database has format {row[0]}, newer than this release's {FORMAT}"
        )


def _load_seal(connection: sqlite3.Connection, owner: str, key_encryption_key: bytes) -> Seal:
    row = connection.execute("SELECT kid, wrapped FROM keys ORDER BY kid DESC").fetchone()
    if row is None:
        data_key = new_key()
        connection.execute(
            "INSERT INTO keys VALUES (1, ?)", (wrap_key(key_encryption_key, data_key, 1),)
        )
        return Seal(data_key, 1, owner)
    try:
        return Seal(unwrap_key(key_encryption_key, row[1], row[0]), row[0], owner)
    except CannotOpen as error:
        raise WrongKey("the Raft database is locked: this key does not open it") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
