"""Identifiers in Swarm's format, made from random bytes that the caller brings.

Pure: deciders get a ``new_id`` callable handed in, so their tests are repeatable.
"""

from __future__ import annotations

from collections.abc import Callable

NewId = Callable[[], str]
"""Makes a fresh id; deciders get one handed in."""

ID_ENTROPY_BYTES = 17
ID_LENGTH = 25
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """Return ``number`` (not negative) in lower-case base 36, without padding."""
    if number < 0:
        raise ValueError("base36 takes no negative numbers")
    digits: list[str] = []
    while number:
        number, rest = divmod(number, 36)
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits)) or "0"


def id_from_bytes(entropy: bytes) -> str:
    """Make a 25-character id from 17 random bytes.

    The top bit is forced on, so every number has the same length in base 36; the first digit then
    carries little entropy and is dropped.  # swarmkit identity/randomid.go
    """
    if len(entropy) != ID_ENTROPY_BYTES:
        raise ValueError(f"an id takes {ID_ENTROPY_BYTES} bytes, got {len(entropy)}")
    number = int.from_bytes(entropy, "big") | 1 << (8 * ID_ENTROPY_BYTES - 1)
    return base36(number)[1 : ID_LENGTH + 1]
