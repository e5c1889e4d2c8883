"""What joining and renewing nodes say to a manager's CA.

``root_ca`` and ``issue`` are the only two calls that need no certificate (DESIGN section 8).
"""

from __future__ import annotations

from ..model.base import PrivateStruct

ROOT_CA = "root_ca"
ISSUE = "issue"
RENEW = "renew"

ANONYMOUS = frozenset({ROOT_CA, ISSUE})


class RootAnswer(PrivateStruct, frozen=True, kw_only=True):
    """The trusted roots; believed only after they match a token's digest."""

    root_pem: bytes


class IssueRequest(PrivateStruct, frozen=True, kw_only=True):
    """A newcomer's request, or that of a member with an expired certificate. ``token`` is secret.

    Attributes:
        csr_pem: carries the newcomer's key; nothing else in it counts.
        availability: the node's first availability, "" for active.
        old_chain_pem, proof: what a member comes back with (``returning.py``).
    """

    csr_pem: bytes
    token: str
    availability: str = ""
    old_chain_pem: bytes = b""
    proof: bytes = b""


class RenewRequest(PrivateStruct, frozen=True, kw_only=True):
    """A member's request for a new certificate; who asks, the connection's certificate says."""

    csr_pem: bytes


class CertificateAnswer(PrivateStruct, frozen=True, kw_only=True):
    """A signed chain, and the roots to trust with it."""

    cert_pem: bytes
    root_pem: bytes
