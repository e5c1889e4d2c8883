"""Encrypting what the log keeps on disk, record by record.

AES-256-GCM with a random nonce; the associated data binds a record to its place (table, cluster,
node, index, term, key), so a row that was swapped, copied from another node or replayed elsewhere
does not open. Nonces are never derived from term and index: a restored backup may use a pair twice.

The data keys are wrapped by a key encryption key, which lives beside the database or, with
autolock, off the disk. It must not know: files, SQLite, what a record says.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_BYTES = 32
NONCE_BYTES = 12


class CannotOpen(SwarmError):
    """A record does not open: wrong key, or it is not what was written there."""


def new_key() -> bytes:
    """Return a fresh random key."""
    return secrets.token_bytes(KEY_BYTES)


class Seal:
    """Seals and opens the records of one node under one data key.

    Args:
        key: the data key, 32 bytes.
        key_id: number of the data key; part of every record's binding.
        owner: what the records belong to (cluster and node); part of every record's binding.
    """

    def __init__(self, key: bytes, key_id: int, owner: str) -> None:
        self._cipher = AESGCM(key)
        self.key_id = key_id
        self._owner = owner

    def seal(self, data: bytes, *, table: str, index: int, term: int = 0) -> bytes:
        """Encrypt one record for its place."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, self._binding(table, index, term))

    def open(self, record: bytes, *, table: str, index: int, term: int = 0) -> bytes:
        """Decrypt one record read from its place.

        Raises:
            CannotOpen: the record was not sealed for this place with this key.
        """
        nonce, sealed = record[:NONCE_BYTES], record[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, sealed, self._binding(table, index, term))
        except (InvalidTag, ValueError) as error:
            raise CannotOpen(
                f"record {index} of {table} does not open: it was damaged, moved, "
                "or written with another key"
            ) from error

    def _binding(self, table: str, index: int, term: int) -> bytes:
        return f"{table}|{self._owner}|{index}|{term}|{self.key_id}".encode()


class Keyring:
    """The data keys of one database: the newest seals, each of them opens.

    Args:
        keys: by number; one, or several while a rotation is under way.
        owner: see :class:`Seal`.

    Attributes:
        sealed: how many records this object has sealed with its newest key.
    """

    def __init__(self, keys: Mapping[int, bytes], owner: str) -> None:
        self._owner = owner
        self._seals = [Seal(keys[kid], kid, owner) for kid in sorted(keys, reverse=True)]
        self.sealed = 0

    @property
    def key_id(self) -> int:
        """Number of the key that seals."""
        return self._seals[0].key_id

    @property
    def rotating(self) -> bool:
        """True while records of an older key may be about."""
        return len(self._seals) > 1

    def add(self, key: bytes, key_id: int) -> None:
        """Seal with another key from now on."""
        self._seals.insert(0, Seal(key, key_id, self._owner))
        self.sealed = 0

    def forget_older(self) -> None:
        """Keep the newest key alone."""
        del self._seals[1:]

    def seal(self, data: bytes, *, table: str, index: int, term: int = 0) -> bytes:
        """Encrypt one record for its place."""
        self.sealed += 1
        return self._seals[0].seal(data, table=table, index=index, term=term)

    def open(self, record: bytes, *, table: str, index: int, term: int = 0) -> bytes:
        """Decrypt one record read from its place, whichever key it was written with.

        Raises:
            CannotOpen: none of the keys opens it.
        """
        for seal in self._seals[:-1]:
            try:
                return seal.open(record, table=table, index=index, term=term)
            except CannotOpen:
                continue
        return self._seals[-1].open(record, table=table, index=index, term=term)


def wrap_key(key_encryption_key: bytes, data_key: bytes, key_id: int) -> bytes:
    """Encrypt a data key for keeping it on disk."""
    return Seal(key_encryption_key, 0, "key").seal(data_key, table="keys", index=key_id)


def unwrap_key(key_encryption_key: bytes, wrapped: bytes, key_id: int) -> bytes:
    """Decrypt a data key.

    Raises:
        CannotOpen: the key encryption key is not the right one.
    """
    if len(key_encryption_key) != KEY_BYTES:
        raise CannotOpen("a key encryption key has 32 bytes")
    return Seal(key_encryption_key, 0, "key").open(wrapped, table="keys", index=key_id)
