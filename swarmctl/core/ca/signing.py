"""Which CA signs now, by the cluster's tables, and what its certificates must look like.

For: the CA server, and whoever holds the tables and signs for itself.

Laws:

- While a rotation runs the coming root signs; else the present one does. Either may be without a
  key here, when an external CA holds it.
- A certificate that came from outside is used only if it says exactly what we would have said:
  this node, this role, this key, this issuer.
- Pure: the time comes in as an argument.

Must not know: connections, tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import CertificateRefused
from .chain import verify_chain
from .issue import node_expiry_ns
from .keys import requested_key, spki
from .roots import dns_names, normal_form, pem_of
from .x509 import ROOT_CN, Role, Signer, issued, parse_certificates, sign_node_certificate

if TYPE_CHECKING:
    from ..model.cluster import CAConfig, ClusterPrivate, ExternalCA
    from ..model.objects import ClusterRow


class NodeRequest(NamedTuple):
    """For whom a certificate is wanted, by the tables."""

    csr_pem: bytes
    node_id: str
    role: Role


class Issuer(NamedTuple):
    """The CA that signs now. ``links`` go with each certificate, up to the root that is trusted."""

    cert: str
    key: str
    links: str

    def __repr__(self) -> str:
        return f"Issuer(key={'here' if self.key else 'elsewhere'})"


def issuer_of(private: ClusterPrivate) -> Issuer:
    """Return the CA that signs now."""
    rotation = private.rotation
    if rotation is None:
        return Issuer(private.ca_cert, private.ca_key, private.intermediates)
    links = rotation.cross_signed + private.intermediates
    return Issuer(rotation.ca_cert, rotation.ca_key, links)


def sign_here(
    cluster: ClusterRow, request: NodeRequest, now_ns: int, *, expiry_ns: int | None = None
) -> bytes | None:
    """Sign with the key in the tables; None if it is not there.

    Args:
        expiry_ns: how long it lasts; by default what the cluster's settings say.

    Raises:
        InvalidCSR, CertificateExpired: see ``x509.sign_node_certificate``.
    """
    issuer = issuer_of(cluster.private)
    if not issuer.key:
        return None
    return sign_node_certificate(
        Signer.from_pem(issuer.cert.encode(), issuer.key.encode(), issuer.links.encode()),
        request.csr_pem,
        node_id=request.node_id,
        role=request.role,
        cluster_id=cluster.api.ID,
        expiry_ns=expiry_ns or node_expiry_ns(cluster.api.Spec.CAConfig.NodeCertExpiry),
        now_ns=now_ns,
    )


def externals_of(config: CAConfig, cert: str, current: str) -> tuple[ExternalCA, ...]:
    """Return the external CAs that sign for one CA certificate.

    Args:
        cert: which, in PEM.
        current: the present root; an external CA that names none signs for it.
    """
    wanted = normal_form(cert)
    return tuple(
        each for each in config.ExternalCAs if normal_form(each.CACert or current) == wanted
    )


def accept_foreign(
    answer_pem: bytes, cluster: ClusterRow, request: NodeRequest, now_ns: int
) -> bytes:
    """Check what an external CA signed.

    Returns:
        The chain as the node shall have it: the leaf, and the links to the trusted root.

    Raises:
        CertificateRefused: it is not what was asked for; the text says in what.
    """
    issuer = issuer_of(cluster.private)
    leaf = parse_certificates(answer_pem)[0]
    if leaf.public_key != spki(requested_key(request.csr_pem)):
        raise CertificateRefused("it is for another key than was asked for")
    if not issued(parse_certificates(issuer.cert.encode())[0], leaf):
        raise CertificateRefused("it is not signed by the CA certificate that was configured")
    chain = pem_of([leaf]) + issuer.links.encode()
    holder = verify_chain(
        chain,
        cluster.private.ca_cert.encode(),
        now_ns=now_ns,
        cluster_id=cluster.api.ID,
        role=request.role,
    )
    if holder.node_id != request.node_id:
        raise CertificateRefused("it is for another node than was asked for")
    missing = set(names_of(request)) - dns_names(leaf)
    if missing:
        raise CertificateRefused(f"it lacks the names {', '.join(sorted(missing))}")
    return chain


def names_of(request: NodeRequest) -> tuple[str, ...]:
    """Return the DNS names of the node's certificate."""
    names = (request.role.unit, request.node_id)
    return (*names, ROOT_CN) if request.role is Role.MANAGER else names
