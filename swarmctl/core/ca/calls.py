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
    """A newcomer's request. ``token`` is secret.

    Attributes:
        csr_pem: carries the newcomer's key; nothing else in it counts.
        availability: the node's first availability, "" for active.
    """

    csr_pem: bytes
    token: str
    availability: str = ""


class RenewRequest(PrivateStruct, frozen=True, kw_only=True):
    """A member's request for a new certificate; who asks, the connection's certificate says."""

    csr_pem: bytes


class CertificateAnswer(PrivateStruct, frozen=True, kw_only=True):
    """A signed chain, and the roots to trust with it."""

    cert_pem: bytes
    root_pem: bytes
