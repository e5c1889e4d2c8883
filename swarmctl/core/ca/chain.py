"""Is this certificate to be believed? Judgements over chains of parsed certificates.

For: whoever receives a certificate as data (a joiner its own, the CA a renewal's, a manager a
forwarded caller's), and whoever shows the user which CA a node's certificate comes from.

Laws:

- A judgement that fails raises, in words that name the node, the fact and the time; none returns
  False. (``ssl`` judges each TLS handshake by itself; an alert only carries a number.)
- Authority comes first: until a trusted root leads to it, a certificate's own words are claims,
  and an error text calls them so.
- Bounded: chains and bundles hold at most MAX_CHAIN certificates, each used once.
- Pure: time and randomness come in as arguments.

Must not know: ``cryptography`` (``x509.py`` does), tables, tokens, files, sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import (
    CertificateExpired,
    CertificateMalformed,
    CertificateNotYetValid,
    UnknownAuthority,
    WrongCluster,
    WrongRole,
)
from .x509 import Certificate, Identity, Role, identity, issued, parse_certificates, require_ca, utc

RENEW_FROM, RENEW_TO = 50, 80  # per cent of a certificate's life in which it is renewed


@dataclass(frozen=True)
class TrustInfo:
    """The API's ``TLSInfo`` of a node or of the cluster, as text and DER."""

    trust_root: str
    issuer_subject: bytes
    issuer_public_key: bytes


def verify_chain(
    chain: bytes,
    root_pem: bytes,
    *,
    now_ns: int,
    cluster_id: str | None = None,
    role: Role | None = None,
) -> Identity:
    """Prove a node certificate up to a trusted root, or say in words why not.

    Args:
        chain: PEM with the leaf first and intermediates in any order, or one DER certificate.
        root_pem: the trusted roots, one or several.
        now_ns: wall time.
        cluster_id: when given, the only cluster accepted.
        role: when given, the only role accepted.

    Returns:
        Whom it proves.

    Raises:
        CertificateMalformed: not a node certificate, or with demands nobody here enforces.
        UnknownAuthority: no trusted root leads to it.
        CertificateExpired: it, or a CA above it, is past its end.
        CertificateNotYetValid: it, or a CA above it, begins later than ``now_ns``.
        WrongCluster: made for a node of another cluster.
        WrongRole: of a node with another role.
    """
    leaf, *intermediates = parse_certificates(chain)
    holder = identity(leaf)
    roots = parse_certificates(root_pem)
    path = _path_to_root(leaf, intermediates, roots)
    if path is None:
        raise UnknownAuthority(
            f"the certificate of node {holder.node_id} was signed by another swarm's CA: it claims "
            f"cluster {holder.cluster_id} and CA key {_short(leaf.authority_key_id)}, trusted "
            f"here is CA key {' or '.join(_short(root.key_id) for root in roots)}"
        )
    _require_enforceable(path)
    if cluster_id is not None and holder.cluster_id != cluster_id:
        raise WrongCluster(
            f"the certificate of node {holder.node_id} is for cluster {holder.cluster_id}, "
            f"this is cluster {cluster_id}"
        )
    _require_in_time(leaf, f"the certificate of node {holder.node_id}", now_ns)
    for ca in path[1:]:
        _require_in_time(ca, f"the CA certificate with key {_short(ca.key_id)}", now_ns)
    if role is not None and holder.role is not role:
        raise WrongRole(
            f"node {holder.node_id} shows the certificate of a {holder.role.value} where "
            f"that of a {role.value} is needed"
        )
    return holder


def require_roots(root_pem: bytes) -> None:
    """Raise CertificateMalformed unless ``root_pem`` holds CA certificates and nothing else."""
    for certificate in parse_certificates(root_pem):
        require_ca(certificate)


def tls_info(root_pem: bytes, chain: bytes) -> TrustInfo:
    """Say which CA signed ``chain``'s leaf, in the API's form.

    The issuer is looked for in the chain itself (a rotation's intermediate) and in ``root_pem``.

    Raises:
        CertificateMalformed: one of the two cannot be read.
        UnknownAuthority: neither holds the issuer.
    """
    leaf, *intermediates = parse_certificates(chain)
    for issuer in (*intermediates, *parse_certificates(root_pem)):
        if issued(issuer, leaf):
            return TrustInfo(root_pem.decode("ascii"), issuer.subject, issuer.public_key)
    raise UnknownAuthority(
        f"the CA with key {_short(leaf.authority_key_id)}, which signed this certificate, is "
        "neither in its chain nor among the trusted roots"
    )


def renewal_window(not_before_ns: int, not_after_ns: int) -> tuple[int, int]:
    """Return when renewal may start and when it should have: 50 and 80 % of a certificate's life.

    The life counts from NotBefore, the back-dated hour included (swarm-behaviour.md 4.4).
    """
    life_ns = not_after_ns - not_before_ns
    return (
        not_before_ns + life_ns * RENEW_FROM // 100,
        not_before_ns + life_ns * RENEW_TO // 100,
    )


def renewal_time(not_before_ns: int, not_after_ns: int, *, draw: float) -> int:
    """Pick a moment of the renewal window, so that a fleet does not renew in one instant.

    Args:
        draw: a random number from 0 to 1 that the caller brings.

    Returns:
        Wall time in nanoseconds; one in the past means now.
    """
    if not 0.0 <= draw <= 1.0:
        raise ValueError(f"draw must lie between 0 and 1, got {draw}")
    start_ns, end_ns = renewal_window(not_before_ns, not_after_ns)
    return start_ns + int((end_ns - start_ns) * draw)


def _path_to_root(
    leaf: Certificate, intermediates: list[Certificate], roots: list[Certificate]
) -> list[Certificate] | None:
    """Find leaf, its issuers and the trusted root above them, or None.

    Roots are asked first at each step, so an intermediate that leads nowhere is no obstacle as
    long as a trusted root issued what stands below it.
    """
    path, unused = [leaf], list(intermediates)
    while True:
        for root in roots:
            if issued(root, path[-1]) and _allows_depth(root, len(path) - 1):
                return [*path, root]
        above = [c for c in unused if issued(c, path[-1]) and _allows_depth(c, len(path) - 1)]
        # Of two certificates with one name and key, take the one that a trusted root vouches for.
        above.sort(key=lambda c: not any(issued(root, c) for root in roots))
        if not above:
            return None
        path.append(above[0])
        unused.remove(above[0])


def _allows_depth(ca: Certificate, intermediates_below: int) -> bool:
    return ca.path_length is None or intermediates_below <= ca.path_length


def _require_enforceable(path: list[Certificate]) -> None:
    for certificate in path:
        if certificate.not_enforced:
            raise CertificateMalformed(
                f"a certificate of the chain demands {', '.join(certificate.not_enforced)} "
                "(critical extensions), which swarmctl does not enforce"
            )


def _require_in_time(certificate: Certificate, what: str, now_ns: int) -> None:
    if now_ns > certificate.not_after_ns:
        raise CertificateExpired(
            f"{what} expired at {utc(certificate.not_after_ns)}; the clock here says {utc(now_ns)}"
        )
    if now_ns < certificate.not_before_ns:
        raise CertificateNotYetValid(
            f"{what} is valid from {utc(certificate.not_before_ns)}; "
            f"the clock here says {utc(now_ns)}"
        )


def _short(key_id: str) -> str:
    """Enough of a key's name to tell two CAs apart in a sentence: all roots share one subject."""
    return key_id[:16]
