"""Keys and X.509 certificates in Swarm's formats: make them, sign them, read them.

For: the CA (roots, node certificates, cross-signing) and everybody who is shown a certificate.
Whether a certificate is to be believed is decided in ``chain.py``, on the facts read here.

Laws:

- Of this package only this module, ``keys.py`` and ``roots.py`` know ``cryptography``; every
  argument and result is bytes, text, integer nanoseconds or one of the frozen classes below.
- Of a signing request only the public key counts. Who a node is, is said by the caller, who read
  it in the cluster's tables (swarm-behaviour.md 4.1).
- What cannot be read or may not be signed raises in words. Private keys appear in no ``repr`` and
  no error.
- Pure: the time comes in as an argument. Randomness is the library's own (keys, serial numbers,
  ECDSA nonces), so two calls give different bytes of the same meaning.

Must not know: tables, tokens, files, sockets.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from itertools import pairwise
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from ..errors import CertificateExpired, CertificateMalformed
from .keys import (
    SOUND_HASHES,
    PrivateKey,
    PublicKey,
    hash_for,
    key_pem,
    load_key,
    requested_key,
    spki,
    weakness,
)

ROOT_CN = "swarm-ca"
SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
ROOT_LIFE_NS = 20 * 365 * DAY_NS  # swarmkit ca/certificates.go RootCAExpiration: 630,720,000 s
BACKDATE_NS = HOUR_NS  # clocks of nodes differ; swarmkit ca/certificates.go CertBackdate

IDENTITIES_MAX = 4_096  # kept: a door asks for every message, and reading costs more than the rest
MAX_CHAIN = 8  # certificates in one presented chain, or one trusted bundle

_NAME = re.compile(r"[0-9A-Za-z.-]{1,64}")  # fits PrintableString, CN's 64 and a DNS name
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FAR_FUTURE_NS = 253_402_300_799 * SECOND_NS  # 9999-12-31T23:59:59Z, the last time X.509 can say
# What the TLS library and chain.py enforce; a critical extension beyond these must be refused.
_ENFORCED = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)


class Role(enum.Enum):
    """What a node is in its cluster; the value is the API's word for it."""

    WORKER = "worker"
    MANAGER = "manager"

    @property
    def unit(self) -> str:
        """The certificate's organisational unit, which is also the TLS name to ask for."""
        return f"swarm-{self.value}"


@dataclass(frozen=True)
class RootCA:
    """A self-signed root. ``key_pem`` (PKCS#8) belongs in the encrypted store and nowhere else."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True)
class Identity:
    """What a node certificate says about its holder; believed only after ``chain.verify_chain``."""

    node_id: str
    role: Role
    cluster_id: str
    not_before_ns: int
    not_after_ns: int
    serial: int
    key_fingerprint: str  # SHA-256 of the public key's DER, in hex: the node's key by any address


@dataclass(frozen=True)
class Certificate:
    """The facts of one parsed certificate that a judgement rests on."""

    subject: bytes  # DER
    public_key: bytes  # DER, SubjectPublicKeyInfo
    not_before_ns: int
    not_after_ns: int
    is_ca: bool
    path_length: int | None  # how many CAs may stand between this one and a leaf; None: any
    key_id: str  # of this certificate's key, in hex
    authority_key_id: str  # of the key that signed it, in hex; "unnamed" where it says nothing
    not_enforced: tuple[str, ...]  # critical extensions (dotted) beyond what swarmctl enforces
    weakness: str | None  # why its own key is not accepted
    parsed: x509.Certificate = field(repr=False)


@dataclass(frozen=True)
class Signer:
    """A CA certificate beside its key, parsed once: what signs node certificates.

    ``intermediates`` follow the leaf in every chain it signs: what a verifier needs between the
    leaf and a root it trusts, such as the cross-signed certificate during a root rotation.
    """

    certificate: Certificate
    key: PrivateKey = field(repr=False)
    intermediates: tuple[Certificate, ...] = ()

    @classmethod
    def from_pem(cls, cert_pem: bytes, key_pem: bytes, intermediates_pem: bytes = b"") -> Signer:
        """Parse and check a CA.

        Args:
            cert_pem: exactly one CA certificate.
            key_pem: its private key, PKCS#8, not encrypted.
            intermediates_pem: nothing, or a chain whose first certificate has this CA's name and
                key and each of whose others issued the one before it.

        Raises:
            CertificateMalformed: it is no CA certificate, the key is not its own, or the
                intermediates are no chain from it.
        """
        certificates = parse_certificates(cert_pem)
        if len(certificates) != 1:
            raise CertificateMalformed(
                f"a signer takes exactly one CA certificate, got {len(certificates)}"
            )
        certificate = certificates[0]
        require_ca(certificate)
        key = load_key(key_pem)
        if spki(key.public_key()) != certificate.public_key:
            raise CertificateMalformed("the CA's key does not belong to the CA's certificate")
        intermediates = tuple(parse_certificates(intermediates_pem)) if intermediates_pem else ()
        _require_chain_from(certificate, intermediates)
        return cls(certificate, key, intermediates)


# --- making and signing ---------------------------------------------------------------------------


def create_root(now_ns: int) -> RootCA:
    """Make a fresh self-signed P-256 root, CN ``swarm-ca``, good for 20 years from ``now_ns``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([_attribute(NameOID.COMMON_NAME, ROOT_CN)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_ns - BACKDATE_NS))
        .not_valid_after(_time(now_ns + ROOT_LIFE_NS))
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return RootCA(_pem(builder.sign(key, hashes.SHA256())), key_pem(key))


def new_key_and_csr() -> tuple[bytes, bytes]:
    """Make a fresh P-256 key and a request to sign it.

    Returns:
        The private key (PKCS#8 PEM) and the request (PEM). Its subject is empty, since a CA of a
        swarm reads nothing but the key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = request.sign(key, hashes.SHA256())
    return key_pem(key), csr.public_bytes(serialization.Encoding.PEM)


def sign_node_certificate(
    signer: Signer,
    csr_pem: bytes,
    *,
    node_id: str,
    role: Role,
    cluster_id: str,
    expiry_ns: int,
    now_ns: int,
) -> bytes:
    """Sign the key of ``csr_pem`` for the node that the caller names.

    NotBefore lies an hour back (at most ``expiry_ns``, for short-lived ones), NotAfter is
    ``now_ns + expiry_ns`` but never later than the CA's own: a leaf that outlives its CA would
    break at an hour that its own dates do not tell.

    Returns:
        The chain as PEM: leaf, then the signer's intermediates.

    Raises:
        InvalidCSR: not a request, its signature does not hold, or its key is too weak.
        CertificateExpired: the CA itself is past its end.
        ValueError: ``expiry_ns`` is not positive, or a name cannot stand in a certificate.
    """
    if expiry_ns <= 0:
        raise ValueError(f"a certificate's expiry must be positive, got {expiry_ns} ns")
    public_key = requested_key(csr_pem)
    ca = signer.certificate
    if now_ns >= ca.not_after_ns:
        raise CertificateExpired(
            f"the swarm's CA expired at {utc(ca.not_after_ns)} and can sign nothing: "
            "rotate the root CA"
        )
    subject = (
        _attribute(NameOID.ORGANIZATION_NAME, cluster_id),
        _attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.unit),
        _attribute(NameOID.COMMON_NAME, node_id),
    )
    names = [role.unit, node_id] + ([ROOT_CN] if role is Role.MANAGER else [])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(ca.parsed.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_ns - min(BACKDATE_NS, expiry_ns)))
        .not_valid_after(_time(min(now_ns + expiry_ns, ca.not_after_ns)))
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority(ca), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    )
    leaf = builder.sign(signer.key, hash_for(signer.key))
    return _pem(leaf) + b"".join(_pem(above.parsed) for above in signer.intermediates)


def cross_sign(signer: Signer, new_root_pem: bytes, *, now_ns: int) -> bytes:
    """Let an old root vouch for a new one, so that nodes which know only the old accept both.

    Returns:
        A PEM certificate with the new root's name and key, issued by ``signer``, ending with
        whichever of the two ends first. It goes into ``Signer.from_pem(..., intermediates_pem)``.

    Raises:
        CertificateMalformed: ``new_root_pem`` is not exactly one CA certificate.
        CertificateExpired: one of the two CAs is past its end.
    """
    new_roots = parse_certificates(new_root_pem)
    if len(new_roots) != 1:
        raise CertificateMalformed(f"a root rotation takes one new root, got {len(new_roots)}")
    new_root, old = new_roots[0], signer.certificate
    require_ca(new_root)
    end_ns = min(old.not_after_ns, new_root.not_after_ns)
    if now_ns >= end_ns:
        raise CertificateExpired(
            f"a root CA that expired at {utc(end_ns)} can take no part in a rotation"
        )
    basic = x509.BasicConstraints(ca=True, path_length=new_root.path_length)
    builder = (
        x509.CertificateBuilder()
        .subject_name(new_root.parsed.subject)
        .issuer_name(old.parsed.subject)
        .public_key(new_root.parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now_ns - BACKDATE_NS))
        .not_valid_after(_time(end_ns))
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(basic, critical=True)
        .add_extension(_key_identifier(new_root.parsed), critical=False)
        .add_extension(_authority(old), critical=False)
    )
    return _pem(builder.sign(signer.key, hash_for(signer.key)))


# --- reading --------------------------------------------------------------------------------------


@lru_cache(IDENTITIES_MAX)
def identity_of(certificate: bytes) -> Identity:
    """Read who a node certificate (DER, or PEM with the leaf first) claims to be.

    This proves nothing: use it on a certificate that TLS or ``chain.verify_chain`` has accepted.

    Raises:
        CertificateMalformed: no certificate, or its subject is not that of a swarm node.
    """
    return identity(parse_certificates(certificate)[0])


def identity(certificate: Certificate) -> Identity:
    """``identity_of`` for a certificate that is parsed already."""
    subject = certificate.parsed.subject
    node_id = _only(subject, NameOID.COMMON_NAME, "CN (node id)")
    unit = _only(subject, NameOID.ORGANIZATIONAL_UNIT_NAME, "OU (role)")
    cluster_id = _only(subject, NameOID.ORGANIZATION_NAME, "O (cluster id)")
    role = next((role for role in Role if role.unit == unit), None)
    if role is None:
        units = " or ".join(role.unit for role in Role)
        raise CertificateMalformed(f"the certificate's OU is {unit!r}; a node's is {units}")
    if certificate.is_ca:
        raise CertificateMalformed("a CA certificate cannot stand for a node")
    return Identity(
        node_id=node_id,
        role=role,
        cluster_id=cluster_id,
        not_before_ns=certificate.not_before_ns,
        not_after_ns=certificate.not_after_ns,
        serial=certificate.parsed.serial_number,
        key_fingerprint=hashlib.sha256(certificate.public_key).hexdigest(),
    )


def parse_certificates(data: bytes) -> list[Certificate]:
    """Read one DER certificate, or one to MAX_CHAIN in PEM, in their order.

    Raises:
        CertificateMalformed: the bytes are anything else.
    """
    try:
        if b"-----BEGIN" in data:
            found = x509.load_pem_x509_certificates(data)
        else:
            found = [x509.load_der_x509_certificate(data)]
        if len(found) <= MAX_CHAIN:
            return [_facts(certificate) for certificate in found]
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise CertificateMalformed(f"these {len(data)} bytes are no X.509 certificate") from error
    raise CertificateMalformed(
        f"{len(found)} certificates in one chain or bundle; at most {MAX_CHAIN} are read"
    )


def issued(issuer: Certificate, certificate: Certificate) -> bool:
    """True if ``issuer`` is a CA with a sound key and signed ``certificate`` with a sound hash."""
    if not issuer.is_ca or issuer.weakness is not None:
        return False
    try:
        if not isinstance(certificate.parsed.signature_hash_algorithm, SOUND_HASHES):
            return False
        certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def require_pair(chain_pem: bytes, key_pem: bytes) -> None:
    """Raise CertificateMalformed unless ``key_pem`` is the key of the chain's leaf."""
    if spki(load_key(key_pem).public_key()) != parse_certificates(chain_pem)[0].public_key:
        raise CertificateMalformed("the private key does not belong to the certificate")


def require_ca(certificate: Certificate) -> None:
    """Raise CertificateMalformed unless this may sign certificates, with a sound key."""
    if not certificate.is_ca:
        raise CertificateMalformed("the certificate is no CA certificate")
    if certificate.weakness is not None:
        raise CertificateMalformed(f"the CA certificate is refused: {certificate.weakness}")


def utc(moment_ns: int) -> str:
    """A moment as error texts show it, to the second."""
    return _time(moment_ns).strftime("%Y-%m-%dT%H:%M:%SZ")


def _facts(certificate: x509.Certificate) -> Certificate:
    extensions = certificate.extensions
    is_ca, path_length = _ca_facts(extensions)
    try:
        authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        authority_key = authority.value.key_identifier or b""
    except x509.ExtensionNotFound:
        authority_key = b""
    return Certificate(
        subject=certificate.subject.public_bytes(),
        public_key=spki(certificate.public_key()),
        not_before_ns=_ns(certificate.not_valid_before_utc),
        not_after_ns=_ns(certificate.not_valid_after_utc),
        is_ca=is_ca,
        path_length=path_length,
        key_id=_key_identifier(certificate).digest.hex(),
        authority_key_id=authority_key.hex() or "unnamed",
        not_enforced=tuple(
            e.oid.dotted_string for e in extensions if e.critical and e.oid not in _ENFORCED
        ),
        weakness=weakness(certificate.public_key()),
        parsed=certificate,
    )


def _ca_facts(extensions: x509.Extensions) -> tuple[bool, int | None]:
    """Whether it may sign certificates, and over how many further CAs."""
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False, None
    try:
        may_sign = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True  # no key usage means any (RFC 5280, 4.2.1.3)
    return basic.ca and may_sign, basic.path_length


def _only(name: x509.Name, oid: x509.ObjectIdentifier, what: str) -> str:
    """The one value of an attribute; two would let each reader believe in another node."""
    values = name.get_attributes_for_oid(oid)
    value = values[0].value if len(values) == 1 else None
    if not isinstance(value, str) or not value:
        raise CertificateMalformed(
            f"a node certificate's subject has exactly one {what}, this one has {len(values)}"
        )
    return value


def _require_chain_from(ca: Certificate, intermediates: tuple[Certificate, ...]) -> None:
    if not intermediates:
        return
    first = intermediates[0]
    if (first.subject, first.public_key) != (ca.subject, ca.public_key):
        raise CertificateMalformed("the first intermediate has not the signing CA's name and key")
    for below, above in pairwise(intermediates):
        if not issued(above, below):
            raise CertificateMalformed("the intermediates are not in order: each signs the last")


# --- small parts of X.509 -------------------------------------------------------------------------


def _attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} cannot stand in a certificate: letters, digits, - and . can")
    # Go, and so Docker, writes PrintableString where it can; clients compare CertIssuerSubject as
    # bytes. The library offers the choice only under this underscored name.
    return x509.NameAttribute(oid, value, _ASN1Type.PrintableString)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier(ca: x509.Certificate) -> x509.SubjectKeyIdentifier:
    try:
        return ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(cast("PublicKey", ca.public_key()))


def _authority(ca: Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        _key_identifier(ca.parsed)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _time(moment_ns: int) -> datetime:
    return _EPOCH + timedelta(seconds=min(moment_ns, _FAR_FUTURE_NS) // SECOND_NS)


def _ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1) * SECOND_NS
