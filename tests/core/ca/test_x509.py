"""Certificates as bytes: formats that Docker's clients know, and requests nobody trusts.

Everything made here is read back with the library itself, not with the code that made it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509 as lib
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarmctl.core.ca import x509
from swarmctl.core.ca.keys import MAX_CSR_BYTES
from swarmctl.core.errors import CertificateExpired, CertificateMalformed, InvalidCSR

if TYPE_CHECKING:
    from .conftest import Swarm

NOW = datetime(2027, 1, 15, 8, 0, tzinfo=timezone.utc)
PEM = serialization.Encoding.PEM


def sign(swarm: Swarm, csr: bytes, now_ns: int, role: x509.Role = x509.Role.WORKER) -> bytes:
    return x509.sign_node_certificate(
        swarm.signer,
        csr,
        node_id="node1",
        role=role,
        cluster_id="cluster1",
        expiry_ns=90 * x509.DAY_NS,
        now_ns=now_ns,
    )


def test_the_root_is_swarms(swarm: Swarm) -> None:
    """P-256, CN swarm-ca, self-signed, 20 years, back-dated 1 h, may sign and nothing else."""
    root = lib.load_pem_x509_certificate(swarm.root.cert_pem)
    root.verify_directly_issued_by(root)
    assert root.subject.rfc4514_string() == "CN=swarm-ca"
    assert root.subject.public_bytes().hex() == "3013" + "3111" + "300f" + "0603550403" + (
        "1308" + b"swarm-ca".hex()  # 13: PrintableString, as Go writes it
    )
    assert root.not_valid_before_utc == NOW - timedelta(hours=1)
    assert root.not_valid_after_utc == NOW + timedelta(seconds=630_720_000)
    basic = root.extensions.get_extension_for_class(lib.BasicConstraints)
    usage = root.extensions.get_extension_for_class(lib.KeyUsage)
    assert (basic.critical, basic.value.ca, usage.critical) == (True, True, True)
    assert (usage.value.key_cert_sign, usage.value.digital_signature) == (True, False)
    key = serialization.load_pem_private_key(swarm.root.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert swarm.root.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")  # PKCS#8


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (x509.Role.WORKER, ["swarm-worker", "node1"]),
        (x509.Role.MANAGER, ["swarm-manager", "node1", "swarm-ca"]),
    ],
)
def test_a_node_certificate_is_swarms(swarm: Swarm, role: x509.Role, names: list[str]) -> None:
    """O, OU, CN, SANs, usages and dates are those of swarm-behaviour.md 4.1."""
    chain, key_pem = swarm.issue(role=role)
    leaf = lib.load_pem_x509_certificate(chain)
    assert leaf.subject.rfc4514_string() == f"CN=node1,OU={names[0]},O=cluster1"
    assert b"\x13\x05node1" in leaf.subject.public_bytes()
    extensions = leaf.extensions
    san = extensions.get_extension_for_class(lib.SubjectAlternativeName).value
    assert san.get_values_for_type(lib.DNSName) == names
    usage = extensions.get_extension_for_class(lib.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (1, 1, 0)
    assert set(extensions.get_extension_for_class(lib.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert not extensions.get_extension_for_class(lib.BasicConstraints).value.ca
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
    key = serialization.load_pem_private_key(key_pem, None)
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    identity = x509.identity_of(chain)
    assert identity == x509.identity_of(leaf.public_bytes(serialization.Encoding.DER))
    assert (identity.node_id, identity.role, identity.cluster_id) == ("node1", role, "cluster1")
    assert identity.serial == leaf.serial_number
    assert identity.key_fingerprint == hashlib.sha256(der).hexdigest()
    assert identity.not_after_ns - identity.not_before_ns == 90 * x509.DAY_NS + x509.HOUR_NS


def test_a_malicious_request_gets_what_the_ca_says(swarm: Swarm, now_ns: int) -> None:
    """A CSR that asks to be a manager, a CA and another cluster's node yields none of these."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [
        lib.NameAttribute(NameOID.COMMON_NAME, "victim"),
        lib.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager"),
        lib.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster2"),
    ]
    csr = (
        lib.CertificateSigningRequestBuilder()
        .subject_name(lib.Name(subject))
        .add_extension(lib.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            lib.SubjectAlternativeName([lib.DNSName("swarm-manager"), lib.DNSName("swarm-ca")]),
            critical=True,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(PEM)
    )
    leaf = lib.load_pem_x509_certificate(sign(swarm, csr, now_ns))
    assert leaf.subject.rfc4514_string() == "CN=node1,OU=swarm-worker,O=cluster1"
    san = leaf.extensions.get_extension_for_class(lib.SubjectAlternativeName).value
    assert san.get_values_for_type(lib.DNSName) == ["swarm-worker", "node1"]
    assert not leaf.extensions.get_extension_for_class(lib.BasicConstraints).value.ca
    assert leaf.public_key() == key.public_key()


def test_a_request_must_prove_its_key(swarm: Swarm, now_ns: int) -> None:
    """A CSR whose signature was made by another key, or damaged, is refused."""
    _, good = x509.new_key_and_csr()
    der = bytearray(lib.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = lib.load_der_x509_csr(bytes(der)).public_bytes(PEM)
    with pytest.raises(InvalidCSR, match="did not prove"):
        sign(swarm, forged, now_ns)


def request_of(key: object) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = lib.CertificateSigningRequestBuilder().subject_name(lib.Name([]))
    return builder.sign(key, algorithm).public_bytes(PEM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-521", "RSA-2048"],
)
def test_sound_keys_are_signed(swarm: Swarm, now_ns: int, key: rsa.RSAPrivateKey) -> None:
    """The other accepted key types get certificates too."""
    leaf = lib.load_pem_x509_certificate(sign(swarm, request_of(key), now_ns))
    assert leaf.public_key() == key.public_key()


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (rsa.generate_private_key(65537, 1024), "1024 bits; 2048 to 8192"),
        (ec.generate_private_key(ec.SECP256K1()), "curve secp256k1"),
        (ed25519.Ed25519PrivateKey.generate(), "neither ECDSA nor RSA"),
        (dsa.generate_private_key(1024), "neither ECDSA nor RSA"),
    ],
    ids=["RSA-1024", "secp256k1", "Ed25519", "DSA"],
)
def test_weak_keys_are_refused_in_words(swarm: Swarm, now_ns: int, key: object, says: str) -> None:
    """A key outside the accepted kinds is named with what would be right."""
    with pytest.raises(InvalidCSR, match=says):
        sign(swarm, request_of(key), now_ns)


def test_a_request_signed_with_a_weak_hash_is_refused(swarm: Swarm, now_ns: int) -> None:
    """A sound key under SHA-224 is refused by the hash's name."""
    builder = lib.CertificateSigningRequestBuilder().subject_name(lib.Name([]))
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA224())
    with pytest.raises(InvalidCSR, match="other than SHA-256"):
        sign(swarm, csr.public_bytes(PEM), now_ns)


@pytest.mark.parametrize(
    "csr",
    [b"", b"hello", b"\xff" * 100, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"],
)
def test_what_is_no_request_is_refused(swarm: Swarm, now_ns: int, csr: bytes) -> None:
    """Arbitrary bytes are a refusal, not a crash; so is a certificate in a CSR's place."""
    for wrong in (csr, swarm.root.cert_pem):
        with pytest.raises(InvalidCSR, match=r"no PKCS#10"):
            sign(swarm, wrong, now_ns)
    with pytest.raises(InvalidCSR, match="at most"):
        sign(swarm, b" " * (MAX_CSR_BYTES + 1), now_ns)


def test_no_leaf_outlives_its_ca(swarm: Swarm, now_ns: int) -> None:
    """NotAfter is cut at the CA's own, and an expired CA signs nothing."""
    root_end = x509.parse_certificates(swarm.root.cert_pem)[0].not_after_ns
    chain, _ = swarm.issue(now_ns=root_end - x509.DAY_NS)
    assert x509.identity_of(chain).not_after_ns == root_end
    huge, _ = swarm.issue(expiry_ns=10**6 * 365 * x509.DAY_NS)
    assert x509.identity_of(huge).not_after_ns == root_end
    with pytest.raises(CertificateExpired, match=r"expired at 2047-01-10T08:00:00Z.*rotate"):
        swarm.issue(now_ns=root_end)


def test_a_short_life_is_not_spent_when_it_begins(swarm: Swarm, now_ns: int) -> None:
    """Back-dating never exceeds the expiry, so a one-minute certificate is not overdue at birth."""
    chain, _ = swarm.issue(expiry_ns=60 * x509.SECOND_NS)
    identity = x509.identity_of(chain)
    assert identity.not_before_ns == now_ns - 60 * x509.SECOND_NS
    assert identity.not_after_ns == now_ns + 60 * x509.SECOND_NS


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, "a,O=evil", "n\0"])
def test_names_that_could_be_misread_are_a_bug(swarm: Swarm, name: str) -> None:
    """Only letters, digits, dash and dot come into a subject."""
    with pytest.raises(ValueError, match="cannot stand in a certificate"):
        swarm.issue(node_id=name)
    with pytest.raises(ValueError, match="positive"):
        swarm.issue(expiry_ns=0)


def test_a_signer_takes_only_a_ca_and_its_key(swarm: Swarm, stranger: Swarm) -> None:
    """A leaf, two certificates, a stranger's key or no key at all make no signer."""
    chain, key = swarm.issue()
    root = swarm.root
    for cert_pem, key_pem, says in (
        (chain, key, "no CA certificate"),
        (root.cert_pem * 2, root.key_pem, "exactly one"),
        (root.cert_pem, stranger.root.key_pem, "does not belong"),
        (root.cert_pem, b"no key", "no unencrypted private key"),
        (b"no certificate", root.key_pem, "no X.509 certificate"),
    ):
        with pytest.raises(CertificateMalformed, match=says):
            x509.Signer.from_pem(cert_pem, key_pem)
    with pytest.raises(CertificateMalformed, match="name and key"):
        x509.Signer.from_pem(root.cert_pem, root.key_pem, stranger.root.cert_pem)


def test_what_is_no_node_certificate_has_no_identity(swarm: Swarm) -> None:
    """A root, a certificate of another kind, and noise are told apart from a node's certificate."""
    for wrong in (b"", b"noise", swarm.root.key_pem):
        with pytest.raises(CertificateMalformed, match=r"no X\.509"):
            x509.identity_of(wrong)
    with pytest.raises(CertificateMalformed, match="exactly one OU"):
        x509.identity_of(swarm.root.cert_pem)
    with pytest.raises(CertificateMalformed, match="at most 8"):
        x509.parse_certificates(swarm.root.cert_pem * 9)


@pytest.mark.parametrize(
    ("units", "ca", "says"),
    [
        (["swarm-manager", "swarm-worker"], False, "exactly one OU"),
        (["swarm-admin"], False, "swarm-worker or swarm-manager"),
        (["swarm-manager"], True, "CA certificate cannot stand for a node"),
    ],
)
def test_an_ambiguous_subject_names_nobody(units: list[str], ca: bool, says: str) -> None:
    """Two roles, an unknown role, and a CA posing as a node are refused."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = lib.Name(
        [lib.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster1")]
        + [lib.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
        + [lib.NameAttribute(NameOID.COMMON_NAME, "node1")]
    )
    certificate = (
        lib.CertificateBuilder(subject, subject, key.public_key(), 1, NOW, NOW + timedelta(days=1))
        .add_extension(lib.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(CertificateMalformed, match=says):
        x509.identity_of(certificate.public_bytes(PEM))


def test_private_keys_show_nowhere(swarm: Swarm) -> None:
    """No repr of a root or signer holds key material."""
    body = swarm.root.key_pem.decode().splitlines()[1]
    assert body not in repr(swarm.root)
    assert "PrivateKey" not in repr(swarm.signer)


def test_every_issuance_is_its_own(swarm: Swarm) -> None:
    """Keys and serial numbers are fresh each time."""
    identities = [x509.identity_of(swarm.issue()[0]) for _ in range(5)]
    assert len({identity.serial for identity in identities}) == 5
    assert len({identity.key_fingerprint for identity in identities}) == 5
