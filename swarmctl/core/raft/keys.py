"""The keys of a Raft database, in its own tables: wrapped, rewrapped, rotated.

    keys 0      seals this node's TLS key while the database is locked
    keys 1..    data keys; the newest seals records, older ones are there while a rotation runs
    meta lock   whether the key encryption key is off the disk, and which cluster version said so

Laws:

- All wrapped keys and the lock change in one transaction, so that at any moment exactly one key
  encryption key opens the database: the old one or the new one, never both and never neither.
- A rotation is data: as long as two data keys are there it is unfinished, and whoever opens the
  database goes on with it. Records of both keys are read meanwhile.
- The old data key goes after the last record that needs it, and its traces in the write-ahead file
  with it.

Functions on a connection whose thread is the caller's business. It must not know trio.
"""

from __future__ import annotations

import hmac
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ..errors import StorageFailed
from .seal import CannotOpen, Keyring, new_key, unwrap_key, wrap_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

IDENTITY = 0
FIRST = 1
USES_MAX = 2**31
"""Records that a data key seals before it is replaced: random nonces are good for 2^32."""

USES_STEP = 2**20
"""Uses are counted on disk in steps of this, ahead of time."""

RESEAL_BYTES = 1024 * 1024
"""What a rotation seals anew in one transaction, so that appends never wait long for it."""

SEALED_META = {"hard_state": "meta", "starts": "starts"}
"""Sealed rows of ``meta``, and the table that each is bound to."""


class WrongKey(StorageFailed):
    """The key encryption key does not fit this database."""


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """Where the key encryption key is.

    Attributes:
        locked: off the disk, in the user's hands.
        version: of the cluster's row that said so; older rows are not followed any more.
    """

    locked: bool = False
    version: int = 0


class KeyChange(NamedTuple):
    """Another key encryption key.

    Attributes:
        identity_key: what seals this node's TLS key from now on; None leaves it as it is.
        rotate: also replace the data key, because the one of now lay open.
    """

    key: bytes
    lock: Lock
    identity_key: bytes | None = None
    rotate: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode_lock = msgspec.msgpack.Decoder(Lock).decode


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction; rolled back when the block or the commit raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def read_lock(connection: sqlite3.Connection) -> Lock:
    """Return where the key encryption key is."""
    row = connection.execute("SELECT value FROM meta WHERE name='lock'").fetchone()
    return _decode_lock(row[0]) if row is not None else Lock()


def make_keys(
    connection: sqlite3.Connection, key_encryption_key: bytes, lock: Lock, identity_key: bytes
) -> None:
    """Give a new database its first keys; part of the caller's transaction.

    Args:
        identity_key: empty when it is not locked.
    """
    keys = {FIRST: new_key()}
    if identity_key:
        keys[IDENTITY] = identity_key
    _put_keys(connection, key_encryption_key, keys)
    _put_lock(connection, lock)


def unwrap_all(connection: sqlite3.Connection, key_encryption_key: bytes) -> dict[int, bytes]:
    """Return every key by number.

    Raises:
        WrongKey: the key does not fit.
    """
    rows = connection.execute("SELECT kid, wrapped FROM keys").fetchall()
    try:
        return {kid: unwrap_key(key_encryption_key, wrapped, kid) for kid, wrapped in rows}
    except CannotOpen as error:
        raise WrongKey("the Raft database is locked: this key does not open it") from error


class Keys:
    """The opened keys.

    Attributes:
        ring: seals and opens records.
        lock: where the key encryption key is.
        identity_key: seals this node's TLS key; empty while nothing does.
    """

    def __init__(
        self, connection: sqlite3.Connection, key_encryption_key: bytes, owner: str
    ) -> None:
        """Open the keys.

        Raises:
            WrongKey: the key does not fit.
            CannotOpen: the database has no keys.
        """
        keys = unwrap_all(connection, key_encryption_key)
        self.identity_key = keys.pop(IDENTITY, b"")
        if not keys:
            raise CannotOpen("it has lost its keys")
        self._connection = connection
        self._key_encryption_key = key_encryption_key
        self._keys = keys
        self.lock = read_lock(connection)
        self.ring = Keyring(keys, owner)
        self._counted = self._read_uses()

    def opens_with(self, key_encryption_key: bytes) -> bool:
        """Return whether this is the key encryption key in force; for a locked database only."""
        return not self.lock.locked or hmac.compare_digest(
            self._key_encryption_key, key_encryption_key
        )

    def change(self, change: KeyChange) -> None:
        """Wrap everything anew; one transaction."""
        keys = dict(self._keys)
        if change.rotate:
            keys[self.ring.key_id + 1] = new_key()
        identity_key = self.identity_key if change.identity_key is None else change.identity_key
        wrapped = {**keys, IDENTITY: identity_key} if identity_key else keys
        with transaction(self._connection):
            self._connection.execute("DELETE FROM keys")
            _put_keys(self._connection, change.key, wrapped)
            _put_lock(self._connection, change.lock)
            if change.rotate:
                self._put_uses(0)
        self._key_encryption_key = change.key
        self.lock, self.identity_key = change.lock, identity_key
        self._take(keys)

    def rotate(self) -> None:
        """Begin a rotation: another data key seals from now on, and is durable before it does."""
        kid = self.ring.key_id + 1
        keys = {**self._keys, kid: new_key()}
        with transaction(self._connection):
            _put_keys(self._connection, self._key_encryption_key, {kid: keys[kid]})
            self._put_uses(0)
        self._take(keys)

    def count_uses(self) -> bool:
        """Note on disk how often the newest key was used; True when it is time to replace it."""
        if self.ring.sealed >= self._counted:
            self._counted += USES_STEP
            with transaction(self._connection):
                self._put_uses(self._counted)
        return self._counted >= USES_MAX

    def reseal_some(self) -> bool:
        """Seal some old records anew, in one transaction; False when none is left."""
        with transaction(self._connection):
            return self._reseal_log() or self._reseal_snapshot() or self._reseal_chunks()

    def finish(self) -> None:
        """Drop the older data keys; nothing is sealed with them any more."""
        kid = self.ring.key_id
        with transaction(self._connection):
            for name, table in SEALED_META.items():
                self._reseal_meta(name, table)
            self._connection.execute(
                "DELETE FROM keys WHERE kid <> ? AND kid <> ?", (kid, IDENTITY)
            )
        self._keys = {kid: self._keys[kid]}
        self.ring.forget_older()

    def _take(self, keys: dict[int, bytes]) -> None:
        newest = max(keys)
        if newest != self.ring.key_id:
            self.ring.add(keys[newest], newest)
            self._counted = 0
        self._keys = keys

    def _read_uses(self) -> int:
        """Return how often the newest key may have been used, counting what went uncounted."""
        row = self._connection.execute("SELECT value FROM meta WHERE name='uses'").fetchone()
        counted = int(row[0]) if row is not None else 0
        self.ring.sealed = counted
        return counted

    def _put_uses(self, uses: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('uses', ?)", (uses,))

    def _old(self, query: str) -> Iterator[tuple[int, int, bytes]]:
        """Yield rows of an older key, some ``RESEAL_BYTES`` of them: two numbers and the record."""
        size = 0
        cursor = self._connection.execute(query, (self.ring.key_id,))
        try:
            for row in cursor:
                yield row
                size += len(row[2])
                if size >= RESEAL_BYTES:
                    return
        finally:
            cursor.close()

    def _reseal_log(self) -> bool:
        ring, kid = self.ring, self.ring.key_id
        fresh = []
        for index, term, record in self._old("SELECT idx, term, record FROM log WHERE kid <> ?"):
            plain = ring.open(record, table="log", index=index, term=term)
            fresh.append((kid, ring.seal(plain, table="log", index=index, term=term), index))
        self._connection.executemany("UPDATE log SET kid = ?, record = ? WHERE idx = ?", fresh)
        return bool(fresh)

    def _reseal_snapshot(self) -> bool:
        ring, kid = self.ring, self.ring.key_id
        fresh = []
        for number, _, record in self._old("SELECT id, 0, record FROM snapshot WHERE kid <> ?"):
            plain = ring.open(record, table="snapshot", index=number)
            fresh.append((kid, ring.seal(plain, table="snapshot", index=number), number))
        self._connection.executemany("UPDATE snapshot SET kid = ?, record = ? WHERE id = ?", fresh)
        return bool(fresh)

    def _reseal_chunks(self) -> bool:
        ring, kid = self.ring, self.ring.key_id
        fresh = []
        for snapshot, number, record in self._old(
            "SELECT snapshot, number, record FROM chunk WHERE kid <> ?"
        ):
            table = f"chunk {snapshot}"
            plain = ring.open(record, table=table, index=number)
            fresh.append((kid, ring.seal(plain, table=table, index=number), snapshot, number))
        self._connection.executemany(
            "UPDATE chunk SET kid = ?, record = ? WHERE snapshot = ? AND number = ?", fresh
        )
        return bool(fresh)

    def _reseal_meta(self, name: str, table: str) -> None:
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is not None:
            record = self.ring.seal(
                self.ring.open(row[0], table=table, index=0), table=table, index=0
            )
            self._connection.execute("UPDATE meta SET value = ? WHERE name = ?", (record, name))


def _put_keys(
    connection: sqlite3.Connection, key_encryption_key: bytes, keys: dict[int, bytes]
) -> None:
    connection.executemany(
        "INSERT INTO keys VALUES (?, ?)",
        [(kid, wrap_key(key_encryption_key, key, kid)) for kid, key in keys.items()],
    )


def _put_lock(connection: sqlite3.Connection, lock: Lock) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('lock', ?)", (_encode(lock),))
