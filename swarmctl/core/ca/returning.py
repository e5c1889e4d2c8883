"""Coming back with an expired certificate: what a node shows, and what a manager reads out of it.

A certificate that has expired opens no connection, so the node asks as a newcomer does, by token,
and shows more: its old certificate, and a signature by the old key over the request for the new.

Laws:

- The old certificate is judged at the last moment at which it was good: everything but its age has
  to be right, up to a root that is trusted today.
- The signature covers the new key's request, so what somebody overheard certifies nothing else.
- Pure.

Must not know: tables, connections. Whether the node is still a member is the CA server's question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CertificateRefused, PermissionDenied
from .calls import IssueRequest
from .chain import verify_chain
from .keys import require_signed, sign
from .x509 import parse_certificates

if TYPE_CHECKING:
    from .x509 import Identity

_CONTEXT = b"swarmctl: an expired certificate's key asks for this one\n"


def returning_request(
    csr_pem: bytes, token: str, *, old_chain_pem: bytes, old_key_pem: bytes
) -> IssueRequest:
    """Return the request of a node that has only an expired certificate.

    Raises:
        CertificateMalformed: the old key cannot be read.
    """
    return IssueRequest(
        csr_pem=csr_pem,
        token=token,
        old_chain_pem=old_chain_pem,
        proof=sign(old_key_pem, _CONTEXT + csr_pem),
    )


def who_returns(request: IssueRequest, root_pem: bytes, cluster_id: str) -> Identity:
    """Return whose certificate and key the request shows.

    Raises:
        PermissionDenied: the old certificate is none of this swarm, or its key did not sign.
    """
    try:
        leaf, *links = parse_certificates(request.old_chain_pem)
        last_good_ns = min(each.not_after_ns for each in (leaf, *links))
        holder = verify_chain(
            request.old_chain_pem, root_pem, now_ns=last_good_ns, cluster_id=cluster_id
        )
        require_signed(leaf.public_key, _CONTEXT + request.csr_pem, request.proof)
    except CertificateRefused as error:
        raise PermissionDenied(f"the old certificate does not prove who asks: {error}") from error
    return holder
