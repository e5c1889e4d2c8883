"""Who is let in, in which role, and how long a certificate lasts: the CA's rules without tables.

For: the CA server, which reads tokens and settings from the tables and signs with ``x509.py``.

Laws:

- The token alone decides the role of a newcomer; what its signing request says counts for nothing.
- A refusal says whether the token is damaged, of another swarm, rotated, or of no swarm at all, and
  never quotes it. Every comparison of secrets takes the same time.
- Pure: random bytes and stored values come in as arguments.

Must not know: tables, connections, the time.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from ..errors import InvalidJoinToken
from .token import build_token, parse_token
from .x509 import DAY_NS, HOUR_NS, Role

if TYPE_CHECKING:
    from collections.abc import Collection

DEFAULT_EXPIRY_NS = 90 * DAY_NS
MIN_EXPIRY_NS = HOUR_NS
MAX_RETIRED = 64  # fingerprints of rotated tokens kept, to tell "rotated" from "mistyped"


def admit(presented: str, *, worker: str, manager: str, retired: Collection[str] = ()) -> Role:
    """Decide in which role the holder of a join token may enter.

    Args:
        presented: what the joiner sent.
        worker: the cluster's present worker token.
        manager: the cluster's present manager token.
        retired: fingerprints of earlier tokens, as kept by ``retire``.

    Raises:
        InvalidJoinToken: it opens no door here; the text says which kind of wrong it is.
    """
    token = parse_token(presented)
    shown = token.reveal().encode()
    is_worker = hmac.compare_digest(shown, worker.encode())
    is_manager = hmac.compare_digest(shown, manager.encode())
    if is_manager:
        return Role.MANAGER
    if is_worker:
        return Role.WORKER
    if token.fingerprint() in retired:
        raise InvalidJoinToken(
            "the join token was rotated and opens nothing any more; `swarmctl join-token worker` "
            "or `manager` on a manager prints the present one"
        )
    if token.digest != parse_token(worker).digest:
        raise InvalidJoinToken(
            "the join token belongs to another swarm, or was made before this swarm's root CA "
            "was rotated"
        )
    raise InvalidJoinToken(
        "the join token names this swarm, but its secret is neither the worker nor the manager "
        "secret: it is mistyped, or was rotated long ago"
    )


def require_role(node_id: str, of_token: Role, of_node: Role) -> None:
    """Raise InvalidJoinToken unless a member comes back with a token of its own role."""
    if of_token is not of_node:
        raise InvalidJoinToken(
            f"node {node_id} is a {of_node.value} and this is the token of a {of_token.value}: "
            f"`swarmctl join-token {of_node.value}` on a manager prints the right one"
        )


def fresh_tokens(
    root_pem: bytes, *, worker_secret: bytes, manager_secret: bytes
) -> tuple[str, str]:
    """Make a cluster's two join tokens from 16 random bytes each.

    Returns:
        The worker's and the manager's token, whole.
    """
    if hmac.compare_digest(worker_secret, manager_secret):
        raise ValueError("the two secrets must differ: the secret is what decides the role")
    worker, manager = build_token(root_pem, worker_secret), build_token(root_pem, manager_secret)
    return worker.reveal(), manager.reveal()


def retire(retired: tuple[str, ...], old_token: str) -> tuple[str, ...]:
    """Remember that a token was rotated away, by its one-way fingerprint; the oldest drop out."""
    return (*retired, parse_token(old_token).fingerprint())[-MAX_RETIRED:]


def node_expiry_ns(configured_ns: int) -> int:
    """How long a node certificate lasts under the cluster's setting.

    Less than an hour, which the API refuses anyway, becomes 90 days: such a certificate would be
    due for renewal before it reached its node.  # swarmkit ca/certificates.go: signing policy
    """
    return configured_ns if configured_ns >= MIN_EXPIRY_NS else DEFAULT_EXPIRY_NS
