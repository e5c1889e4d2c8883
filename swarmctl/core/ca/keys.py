"""Private keys, public keys and the requests to certify them: which are accepted, in which form.

Laws:

- Accepted are ECDSA on P-256, P-384, P-521 and RSA of 2048 bits and more, with SHA-256, SHA-384
  or SHA-512 (swarm-behaviour.md 4.1). Private keys are PKCS#8.
- What is refused is named in words; no error quotes a key.

Must not know: certificates, and who asks for one.
"""

from __future__ import annotations

from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from ..errors import CertificateMalformed, CertificateRefused, InvalidCSR

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

SOUND_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
MAX_CSR_BYTES = 16 * 1024
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # anybody with a token may ask; checking a request must stay cheap


def requested_key(csr_pem: bytes) -> PublicKey:
    """Take the public key out of a signing request, and nothing else.

    Raises:
        InvalidCSR: not a request, not signed by the key it names, or a key that is refused.
    """
    if len(csr_pem) > MAX_CSR_BYTES:
        raise InvalidCSR(
            f"the signing request has {len(csr_pem)} bytes; at most {MAX_CSR_BYTES} are read"
        )
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        reason = weakness(key)
        if reason is None and not isinstance(csr.signature_hash_algorithm, SOUND_HASHES):
            reason = "it is signed with a hash other than SHA-256, SHA-384 or SHA-512"
        if reason is not None:
            raise InvalidCSR(f"the signing request is refused: {reason}")
        if not csr.is_signature_valid:
            raise InvalidCSR(
                "the signing request is not signed by the key it asks to certify, so its sender "
                "did not prove to hold that key"
            )
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidCSR("this is no PKCS#10 certificate signing request in PEM") from error
    return cast("PublicKey", key)  # weakness() refuses every other type


def load_key(pem: bytes) -> PrivateKey:
    """Parse an unencrypted private key; CertificateMalformed says why it cannot be used."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateMalformed("this is no unencrypted private key in PEM") from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise CertificateMalformed("the private key is neither ECDSA nor RSA")
    return key


def sign(pem: bytes, data: bytes) -> bytes:
    """Sign ``data`` with a private key.

    Raises:
        CertificateMalformed: the key cannot be read.
    """
    key = load_key(pem)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hash_for(key))
    return key.sign(data, ec.ECDSA(hash_for(key)))


def require_signed(public_key: bytes, data: bytes, signature: bytes) -> None:
    """Raise CertificateRefused unless the key (DER) made ``signature`` over ``data``."""
    try:
        key = serialization.load_der_public_key(public_key)
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hash_for(key))
            return
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hash_for(key)))
            return
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CertificateRefused("its key did not sign the request") from error
    raise CertificateRefused("its key is neither ECDSA nor RSA")


def key_pem(key: PrivateKey) -> bytes:
    """A private key as PKCS#8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def seal_key_pem(pem: bytes, passphrase: bytes) -> bytes:
    """An unencrypted PKCS#8 key as an encrypted one; without a passphrase as it is."""
    if not passphrase:
        return pem
    return load_key(pem).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )


def open_key_pem(pem: bytes, passphrase: bytes) -> bytes:
    """A key that may be encrypted as an unencrypted one.

    Raises:
        CertificateMalformed: it is encrypted with another passphrase, or no key.
    """
    if ENCRYPTED not in pem:
        return pem
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase or None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateMalformed("this private key is encrypted with another key") from error
    return key_pem(cast("PrivateKey", key))


def spki(key: object) -> bytes:
    """A public key's DER, the form in which keys are compared and shown."""
    return cast("PublicKey", key).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def weakness(key: object) -> str | None:
    """Say why a public key is not accepted, or None if it is."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)):
            return None
        return f"its key is on curve {key.curve.name}; P-256, P-384 and P-521 are accepted"
    if isinstance(key, rsa.RSAPublicKey):
        if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            return None
        return f"its RSA key has {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
    return "its key is neither ECDSA nor RSA"


def hash_for(key: PrivateKey | PublicKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash that matches a signing key's strength."""
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        if isinstance(key.curve, ec.SECP384R1):
            return hashes.SHA384()
        if isinstance(key.curve, ec.SECP521R1):
            return hashes.SHA512()
    return hashes.SHA256()
