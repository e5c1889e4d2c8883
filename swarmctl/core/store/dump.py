"""Snapshots of the tables as bytes, in chunks.

Taking the contents is quick (frozen rows are only referenced); encoding them is not, so it goes
chunk by chunk and the caller may do other work in between. A dump starts with a header and holds
every row and every remembered answer; :func:`load` accepts nothing less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import SwarmError
from ..model.change import FORMAT_LEVEL, Result
from ..model.codec import pack, unpack
from ..model.objects import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .store import Store

ROWS_PER_CHUNK = 200
ANSWERS_PER_CHUNK = 2_000


class BadDump(SwarmError):
    """A snapshot cannot be read; the text says why."""


class DumpChunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of a snapshot.

    Attributes:
        index, level, total: in the first chunk only; ``total`` counts all chunks.
    """

    number: int
    index: int = 0
    level: int = 0
    total: int = 0
    rows: tuple[Row, ...] = ()
    answers: tuple[tuple[str, Result], ...] = ()


def dump(store: Store) -> Iterator[bytes]:
    """Return the store's contents as of this call, encoded chunk by chunk as it is iterated."""
    rows, answers = store.contents()
    index = store.index
    row_groups = [tuple(rows[i : i + ROWS_PER_CHUNK]) for i in range(0, len(rows), ROWS_PER_CHUNK)]
    answer_groups = [
        tuple(answers[i : i + ANSWERS_PER_CHUNK]) for i in range(0, len(answers), ANSWERS_PER_CHUNK)
    ]
    total = 1 + len(row_groups) + len(answer_groups)

    def encoded() -> Iterator[bytes]:
        yield pack(DumpChunk(number=0, index=index, level=FORMAT_LEVEL, total=total))
        number = 1
        for rows_now in row_groups:
            yield pack(DumpChunk(number=number, rows=rows_now))
            number += 1
        for answers_now in answer_groups:
            yield pack(DumpChunk(number=number, answers=answers_now))
            number += 1

    return encoded()


def load(store: Store, chunks: Iterable[bytes]) -> None:
    """Replace the store's contents by a dump's.

    Raises:
        BadDump: chunks are missing, out of order, of a newer format level, or not decodable. The
            store is unchanged then.
    """
    rows: list[Row] = []
    answers: list[tuple[str, Result]] = []
    header: DumpChunk | None = None
    count = 0
    for data in chunks:
        try:
            chunk = unpack(data, DumpChunk)
        except (msgspec.MsgspecError, SwarmError, ValueError) as error:
            raise BadDump(f"snapshot chunk {count} cannot be read: {error}") from error
        if chunk.number != count:
            raise BadDump(f"snapshot chunk {count} is missing: found {chunk.number}")
        if header is None:
            header = chunk
            if header.level > FORMAT_LEVEL:
                raise BadDump(
                    f"the snapshot has format level {header.level}, newer than this release's "
                    f"{FORMAT_LEVEL}: upgrade swarmctl on this host"
                )
        rows.extend(chunk.rows)
        answers.extend(chunk.answers)
        count += 1
    if header is None or count != header.total:
        wanted = header.total if header else "some"
        raise BadDump(f"the snapshot is incomplete: {count} chunks of {wanted}")
    store.replace_contents(header.index, rows, answers)
