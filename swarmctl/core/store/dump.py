"""Snapshots of the tables as bytes, in chunks.

Taking the contents is quick (frozen rows are only referenced); encoding them is not, so it goes
chunk by chunk and the caller may do other work in between. No chunk is larger than some
``CHUNK_BYTES`` (a single row may be), so any dump fits through frames and memory. It starts with a
header, holds every row and every remembered answer, and says so at its end; :class:`Loading`
accepts nothing less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import SwarmError
from ..model.change import FORMAT_LEVEL, Applied
from ..model.codec import pack, unpack
from ..model.objects import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .store import RowChange, Store

ROWS_PER_CHUNK = 200
ANSWERS_PER_CHUNK = 2_000
CHUNK_BYTES = 512 * 1024


class BadDump(SwarmError):
    """A snapshot cannot be read; the text says why."""


class DumpChunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of a snapshot.

    Attributes:
        index, level: in the first chunk only.
        last: True in the last chunk, which holds nothing else.
    """

    number: int
    index: int = 0
    level: int = 0
    rows: tuple[Row, ...] = ()
    answers: tuple[tuple[str, Applied], ...] = ()
    last: bool = False


def dump(store: Store) -> Iterator[bytes]:
    """Return the store's contents as of this call, encoded chunk by chunk as it is iterated."""
    rows, answers = store.contents()
    cluster = store.view.cluster()
    level = FORMAT_LEVEL if cluster is None else min(FORMAT_LEVEL, cluster.private.format_level)
    return _encoded(store.index, level, tuple(rows), tuple(answers))


def _encoded(
    index: int, level: int, rows: tuple[Row, ...], answers: tuple[tuple[str, Applied], ...]
) -> Iterator[bytes]:
    yield pack(DumpChunk(number=0, index=index, level=level))
    number = 1
    at = 0
    take = ROWS_PER_CHUNK
    while at < len(rows):
        data = pack(DumpChunk(number=number, rows=rows[at : at + take]))
        if len(data) > CHUNK_BYTES and take > 1:
            take //= 2
            continue
        yield data
        at, number, take = at + take, number + 1, min(2 * take, ROWS_PER_CHUNK)
    for at in range(0, len(answers), ANSWERS_PER_CHUNK):
        yield pack(DumpChunk(number=number, answers=answers[at : at + ANSWERS_PER_CHUNK]))
        number += 1
    yield pack(DumpChunk(number=number, last=True))


def load(store: Store, chunks: Iterable[bytes]) -> None:
    """Replace the store's contents by a dump's.

    Raises:
        BadDump: chunks are missing, out of order, of a newer format level, or not decodable. The
            store is unchanged then.
    """
    loading = Loading(store)
    for data in chunks:
        loading.add(data)
    loading.install()


class Loading:
    """A dump on its way into a store, which keeps what it has until :meth:`install`."""

    def __init__(self, store: Store) -> None:
        self.changes: tuple[RowChange, ...] = ()
        self._store = store
        self._rows: list[Row] = []
        self._answers: list[tuple[str, Applied]] = []
        self._index = 0
        self._count = 0
        self._whole = False

    def add(self, data: bytes) -> None:
        """Take the next chunk.

        Raises:
            BadDump: it is out of order, of a newer format level, or not decodable.
        """
        try:
            chunk = unpack(data, DumpChunk)
        except (msgspec.MsgspecError, SwarmError, ValueError) as error:
            raise BadDump(f"snapshot chunk {self._count} cannot be read: {error}") from error
        if chunk.number != self._count or self._whole:
            raise BadDump(f"snapshot chunk {self._count} is missing: found {chunk.number}")
        if not self._count:
            self._index = chunk.index
            if chunk.level > FORMAT_LEVEL:
                raise BadDump(
                    f"the snapshot has format level {chunk.level}, newer than this release's "
                    f"{FORMAT_LEVEL}: upgrade swarmctl on this host"
                )
        self._rows.extend(chunk.rows)
        self._answers.extend(chunk.answers)
        self._count += 1
        self._whole = chunk.last

    def check_whole(self) -> None:
        """Find nothing wrong, once the last chunk was added.

        Raises:
            BadDump: chunks are missing at the end.
        """
        if not self._whole:
            raise BadDump(f"the snapshot is incomplete: it ends after {self._count} chunks")

    def install(self) -> None:
        """Replace the store's contents; ``changes`` then says what is not as it was.

        Raises:
            BadDump: chunks are missing at the end; the store is unchanged.
        """
        self.check_whole()
        self.changes = self._store.replace_contents(self._index, self._rows, self._answers)
