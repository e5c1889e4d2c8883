"""Join tokens and unlock keys: their text forms, and comparing them.

For: the CA (who holds this token may join, in which role), the joiner (is the CA that answered
the one the token was made for), and managers that start locked.

Laws:

- Formats are Swarm's (swarm-behaviour.md 3.3 and 4.2), so tokens look and paste as users know.
- A secret shows in no ``repr``, no ``str`` and no error text; ``reveal()`` is the one way out.
- Secrets are compared in constant time.
- Pure: random bytes come in as arguments.

Must not know: certificates (a root is just bytes here), tables, roles.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from ..errors import InvalidJoinToken, InvalidUnlockKey, UnknownAuthority
from ..ids import base36

TOKEN_PREFIX = "SWMTKN-1-"  # noqa: S105 - the public part of the format
KEY_PREFIX = "SWMKEY-1-"
DIGEST_LENGTH = 50  # SHA-256 in base 36, left-padded with 0
SECRET_LENGTH = 25  # 16 bytes in base 36, left-padded with 0
SECRET_BYTES = 16
UNLOCK_KEY_BYTES = 32
_BASE36 = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, eq=False)
class JoinToken:
    """A parsed join token: which CA to expect, and the secret that opens its door."""

    digest: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """The whole token, secret included: for the API's JoinTokens and the wire only."""
        return f"{TOKEN_PREFIX}{self.digest}-{self.secret}"

    def fingerprint(self) -> str:
        """A one-way name (hex) by which a token can be recognised after it was rotated away."""
        return hashlib.sha256(self.reveal().encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JoinToken):
            return NotImplemented
        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash(self.fingerprint())


@dataclass(frozen=True, eq=False)
class UnlockKey:
    """The cluster's key encryption key in the user's hands."""

    key: bytes = field(repr=False)

    def reveal(self) -> str:
        """The key as the user writes it down: for ``swarmctl unlock-key`` only."""
        return KEY_PREFIX + base64.b64encode(self.key).decode("ascii").rstrip("=")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UnlockKey):
            return NotImplemented
        return hmac.compare_digest(self.key, other.key)

    def __hash__(self) -> int:
        return hash(hashlib.sha256(self.key).digest())


def build_token(root_pem: bytes, secret: bytes) -> JoinToken:
    """Make the token that admits whoever shows ``secret`` to the cluster of ``root_pem``.

    Args:
        root_pem: the whole trusted bundle, byte for byte as ``root_ca`` serves it.
        secret: 16 fresh random bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a token's secret takes {SECRET_BYTES} bytes, got {len(secret)}")
    padded = base36(int.from_bytes(secret, "big")).rjust(SECRET_LENGTH, "0")
    return JoinToken(root_digest(root_pem), padded)


def root_digest(root_pem: bytes) -> str:
    """SHA-256 over the whole bundle as 50 base-36 digits; one PEM of two is another digest."""
    number = int.from_bytes(hashlib.sha256(root_pem).digest(), "big")
    return base36(number).rjust(DIGEST_LENGTH, "0")


def require_root(token: JoinToken, root_pem: bytes) -> None:
    """Raise UnknownAuthority unless ``root_pem`` is the CA that ``token`` was made for."""
    if not hmac.compare_digest(token.digest, root_digest(root_pem)):
        raise UnknownAuthority(
            "the CA that answered is not the one the join token was made for: the token belongs "
            "to another swarm, the swarm's root CA was rotated since, or the address is wrong"
        )


def parse_token(text: str) -> JoinToken:
    """Read a join token; surrounding white space is ignored.

    Raises:
        InvalidJoinToken: the text is no token, of another version, or damaged; says which and
            never quotes it.
    """
    text = text.strip()
    if not text:
        raise InvalidJoinToken(f"the join token is empty; {_TOKEN_FORM}")
    if text.startswith("SWMKEY-"):
        raise InvalidJoinToken(
            f"this is an unlock key (SWMKEY-...), which opens a locked manager; {_TOKEN_FORM}"
        )
    if not text.startswith("SWMTKN-"):
        raise InvalidJoinToken(f"this is no join token; {_TOKEN_FORM}")
    _, version, *rest = text.split("-")
    if version == "2":
        raise InvalidJoinToken(
            "this is a version 2 token, of a swarm in FIPS mode, which swarmctl cannot join"
        )
    if version != "1":
        raise InvalidJoinToken(f"this join token is not of version 1; {_TOKEN_FORM}")
    if len(rest) != 2:
        raise InvalidJoinToken(
            f"the join token has {len(rest) + 2} parts between dashes instead of 4; {_TOKEN_FORM}"
        )
    digest, secret = rest
    _require_digits(digest, DIGEST_LENGTH, "third part (the CA's digest)")
    _require_digits(secret, SECRET_LENGTH, "fourth part (the secret)")
    return JoinToken(digest, secret)


def parse_unlock_key(text: str) -> UnlockKey:
    """Read an unlock key; surrounding white space is ignored.

    Raises:
        InvalidUnlockKey: the text is no unlock key, or damaged; says which and never quotes it.
    """
    text = text.strip()
    if text.startswith("SWMTKN-"):
        raise InvalidUnlockKey("this is a join token (SWMTKN-...); an unlock key is SWMKEY-1-...")
    if not text.startswith(KEY_PREFIX):
        raise InvalidUnlockKey(f"this is no unlock key; {_KEY_FORM}")
    body = text[len(KEY_PREFIX) :].rstrip("=")
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidUnlockKey(f"the unlock key is damaged; {_KEY_FORM}") from error
    if len(key) != UNLOCK_KEY_BYTES:
        raise InvalidUnlockKey(
            f"the unlock key holds {len(key)} bytes instead of {UNLOCK_KEY_BYTES}; was it cut?"
        )
    return UnlockKey(key)


_TOKEN_FORM = (
    f"a join token is SWMTKN-1-<{DIGEST_LENGTH} characters>-<{SECRET_LENGTH} characters>, "
    "as printed by `swarmctl join-token worker` or `manager`"
)
_KEY_FORM = "an unlock key is SWMKEY-1-<43 characters>, as printed by `swarmctl unlock-key`"


def _require_digits(part: str, length: int, what: str) -> None:
    if len(part) != length:
        raise InvalidJoinToken(
            f"the join token's {what} has {len(part)} characters instead of {length}; was it cut?"
        )
    if not _BASE36.issuperset(part):
        raise InvalidJoinToken(
            f"the join token's {what} may hold only digits and lower-case letters"
        )
