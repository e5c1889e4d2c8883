"""Root certificates as data: one form for comparing them, and what an outside CA needs to see.

For: taking a user's root in (``settings.py``), and the protocol of external CAs (``cfssl.py``).

Laws:

- A root is compared in its normal form: the same certificate, however its PEM was wrapped.
- Pure, as ``x509.py`` is; the library's randomness is in the signatures it makes.

Must not know: tables, connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ..errors import CertificateMalformed
from .keys import hash_for, load_key
from .x509 import Certificate, issued, parse_certificates, require_ca

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class RootRequest:
    """What an external CA is asked in order to vouch for another root."""

    csr_pem: bytes
    common_name: str
    basic_constraints: bytes  # DER of the extension's value
    critical: bool


def normal_form(pem: str) -> str:
    """Return certificates as this library writes them; two texts of one root become equal.

    Raises:
        CertificateMalformed: no certificate, or too many.
    """
    return pem_of(parse_certificates(pem.encode("ascii", "replace"))).decode("ascii")


def pem_of(certificates: Iterable[Certificate]) -> bytes:
    """Return certificates as PEM, in their order."""
    return b"".join(each.parsed.public_bytes(Encoding.PEM) for each in certificates)


def require_root(pem: str) -> Certificate:
    """Return the one self-signed CA certificate that ``pem`` holds.

    Raises:
        CertificateMalformed: it is anything else; the text says what.
    """
    certificates = parse_certificates(pem.encode("ascii", "replace"))
    if len(certificates) != 1:
        raise CertificateMalformed(
            "the desired CA certificate cannot contain multiple certificates"
        )
    root = certificates[0]
    require_ca(root)
    if not issued(root, root):
        raise CertificateMalformed(
            "the desired CA certificate is not self-signed: it is no root, and nodes trust roots"
        )
    return root


def root_request(cert_pem: bytes, key_pem: bytes) -> RootRequest:
    """Make the request by which an external CA vouches for a root, signed with the root's own key.

    Raises:
        CertificateMalformed: not one CA certificate, or a key that cannot be read.
    """
    root = require_root(cert_pem.decode("ascii", "replace")).parsed
    basic = root.extensions.get_extension_for_class(x509.BasicConstraints)
    key = load_key(key_pem)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(root.subject)
        .add_extension(basic.value, critical=basic.critical)
        .sign(key, hash_for(key))
    )
    names = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = names[0].value if names else ""
    return RootRequest(
        csr_pem=request.public_bytes(Encoding.PEM),
        common_name=common_name if isinstance(common_name, str) else "",
        basic_constraints=basic.value.public_bytes(),
        critical=basic.critical,
    )


def dns_names(certificate: Certificate) -> frozenset[str]:
    """Return the names that a TLS client may ask this certificate for."""
    try:
        names = certificate.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(names.value.get_values_for_type(x509.DNSName))
