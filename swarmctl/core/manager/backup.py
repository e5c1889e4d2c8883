"""A swarm in one encrypted file: everything committed, and nothing about who its managers were.

    magic, 16 bytes of salt, then records of length (4 bytes) and sealed content
    record 0      what it is a backup of
    record 1..n   the chunks of a dump (store/dump.py); the last one is sealed as the last

Laws:

- The key is made of a passphrase by scrypt and each record is bound to its place, so a file that
  was cut, shuffled or changed anywhere does not open.
- Nothing of it counts before all of it was read: :class:`Reading` gives its contents at the end.

It must not know: routes, state directories, what the rows say.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import msgspec

from ..errors import BadRequest
from ..model.codec import pack, unpack
from ..raft.seal import CannotOpen, Seal
from ..store.dump import BadDump, load
from ..store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAGIC = b"swarmctl backup 1\n"
SALT_BYTES = 16
LENGTH_BYTES = 4
RECORD_BYTES_MAX = 64 * 1024 * 1024
TOTAL_BYTES_MAX = 1024 * 1024 * 1024
PASSPHRASE_LENGTH_MIN = 8
SCRYPT_N, SCRYPT_R = 2**15, 8  # 32 MiB and a tenth of a second for each guess


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backup is of.

    Attributes:
        index, term: of the log, when it was made.
        made_at: nanoseconds, by the manager that made it.
        members: numbers of the managers of then, which never come back.
    """

    cluster_id: str
    index: int
    term: int
    made_at: int
    members: tuple[int, ...] = ()


def check_passphrase(passphrase: str) -> None:
    """Check that a passphrase protects anything.

    Raises:
        BadRequest: it is too short.
    """
    if len(passphrase) < PASSPHRASE_LENGTH_MIN:
        raise BadRequest(
            f"the passphrase of a backup needs {PASSPHRASE_LENGTH_MIN} characters and more: the "
            "file holds the swarm's secrets and the key of its CA"
        )


def seal_for(passphrase: str, salt: bytes) -> Seal:
    """Return what seals and opens the records; takes a tenth of a second on purpose."""
    key = hashlib.scrypt(
        passphrase.encode(),
        salt=salt,
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=1,
        maxmem=2 * 128 * SCRYPT_N * SCRYPT_R,
        dklen=32,
    )
    return Seal(key, 0, "backup")


def new_salt() -> bytes:
    """Return fresh salt."""
    return secrets.token_bytes(SALT_BYTES)


def written(seal: Seal, salt: bytes, head: Head, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a backup, record by record."""
    yield MAGIC + salt
    waiting, number = pack(head), 0
    for chunk in chunks:
        yield _record(seal, waiting, number, last=False)
        waiting, number = chunk, number + 1
    yield _record(seal, waiting, number, last=True)


def _record(seal: Seal, data: bytes, number: int, *, last: bool) -> bytes:
    sealed = seal.seal(data, table="record", index=number, term=int(last))
    return len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed


class Reading:
    """A backup on its way in. Feed it, then take its :meth:`contents`.

    Args:
        passphrase: of the file.
    """

    def __init__(self, passphrase: str) -> None:
        self._passphrase = passphrase
        self._buffer = bytearray()
        self._seal: Seal | None = None
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._total = 0
        self._whole = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes, in pieces of any size.

        Raises:
            BadRequest: this is no backup, it is damaged, or the passphrase is not its own.
        """
        self._buffer += data
        self._total += len(data)
        if self._total > TOTAL_BYTES_MAX:
            raise BadRequest(f"a backup of more than {TOTAL_BYTES_MAX} bytes is not read")
        if self._seal is None:
            begin = len(MAGIC) + SALT_BYTES
            if bytes(self._buffer[: len(MAGIC)]) != MAGIC[: len(self._buffer)]:
                raise BadRequest("this is no backup of a swarm")
            if len(self._buffer) < begin:
                return
            self._seal = seal_for(self._passphrase, bytes(self._buffer[len(MAGIC) : begin]))
            del self._buffer[:begin]
        while (sealed := self._next()) is not None:
            self._take(self._seal, sealed)

    def _next(self) -> bytes | None:
        if len(self._buffer) < LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
        if length > RECORD_BYTES_MAX:
            raise BadRequest("the backup is damaged: one of its records is too long")
        end = LENGTH_BYTES + length
        if len(self._buffer) < end:
            return None
        sealed = bytes(self._buffer[LENGTH_BYTES:end])
        del self._buffer[:end]
        return sealed

    def _take(self, seal: Seal, sealed: bytes) -> None:
        number = len(self._chunks) + (self._head is not None)
        if self._whole:
            raise BadRequest("the backup is damaged: something follows its end")
        try:
            plain = seal.open(sealed, table="record", index=number, term=0)
        except CannotOpen:
            try:
                plain = seal.open(sealed, table="record", index=number, term=1)
            except CannotOpen as error:
                if self._head is None:
                    raise BadRequest(
                        "the passphrase does not open this backup, or it is damaged at its start"
                    ) from error
                raise BadRequest(f"the backup is damaged at its record {number}") from error
            self._whole = True
        if self._head is None:
            self._head = unpack(plain, Head)
        else:
            self._chunks.append(plain)

    def contents(self) -> tuple[Head, Store]:
        """Return what the backup holds, once all of it was fed.

        Raises:
            BadRequest: it ends too early, or is of a release that this one cannot read.
        """
        if self._head is None or not self._whole or self._buffer:
            raise BadRequest("the backup is incomplete: it was cut short")
        store = Store()
        try:
            load(store, self._chunks)
        except BadDump as error:
            raise BadRequest(f"the backup cannot be used: {error}") from error
        if store.view.cluster() is None:
            raise BadRequest("the backup holds no swarm")
        return self._head, store
