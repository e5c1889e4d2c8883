"""What every API struct shares: how it prints, how time is kept.

Field names are the Docker Engine API's own, so one set of types serves the store, the log, the
wire and the API (DESIGN section 7). Laws:

- A field with a plain default is omitted from JSON when it holds that default (Go's omitempty).
- A field made with :func:`printed` is always printed.
- A Go pointer is ``T | None``: a pointer to zero is kept, nil is omitted.
- Structs are frozen and maps inside them are never mutated; tuples hold lists.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

T = TypeVar("T")

I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
U64 = Annotated[int, msgspec.Meta(ge=0)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""Go's widths, held when a request is decoded: a number that no Go client could read back would
make every list that shows it fail. (msgspec has no bound beyond 63 bits; codec.py holds U64's.)
"""

NANOSECONDS_PER_SECOND = 1_000_000_000
SECOND = NANOSECONDS_PER_SECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


class Time(int):
    """A wall-clock time in integer nanoseconds since the Unix epoch; RFC 3339 in JSON.

    msgspec's own datetime keeps microseconds only, and Docker's clients compare nanoseconds.
    """

    __slots__ = ()


NEVER = Time(0)
"""Not yet. Printed as Go's zero time (year 1), which 64 bits of nanoseconds cannot hold."""


class ApiStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of every struct that the API shows.

    Frozen trees cannot form cycles, so the garbage collector need not walk them: with 10,000 tasks
    in the tables that was a pause of 0.1 s.
    """


class PrivateStruct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of every struct that the API must never show."""


def printed(value: T) -> T:
    """A field default that JSON shows even when nothing was set.

    msgspec omits a default it can recognise; one that comes out of a factory it cannot.
    """
    return msgspec.field(default_factory=lambda: value)


class Version(ApiStruct, frozen=True, kw_only=True):
    """Raft log index of the last write to an object."""

    Index: U64 = printed(0)


class Driver(ApiStruct, frozen=True, kw_only=True):
    """A named driver with options (logging, secrets, templating, IPAM)."""

    Name: str = ""
    Options: dict[str, str] = msgspec.field(default_factory=dict)


class Platform(ApiStruct, frozen=True, kw_only=True):
    """A machine's architecture and operating system; empty means any."""

    Architecture: str = ""
    OS: str = ""
