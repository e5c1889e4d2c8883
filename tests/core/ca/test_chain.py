"""What is believed and what is refused, in words; and that OpenSSL believes the same."""

from __future__ import annotations

import base64
import ssl
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography import x509 as lib
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.ca import x509
from swarmctl.core.ca.chain import (
    renewal_time,
    renewal_window,
    require_roots,
    tls_info,
    verify_chain,
)
from swarmctl.core.ca.keys import load_key
from swarmctl.core.errors import (
    CertificateExpired,
    CertificateMalformed,
    CertificateNotYetValid,
    CertificateRefused,
    UnknownAuthority,
    WrongCluster,
    WrongRole,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Swarm

DAY, HOUR, SECOND = x509.DAY_NS, x509.HOUR_NS, x509.SECOND_NS
NOW = datetime(2027, 1, 15, 8, 0, tzinfo=timezone.utc)


def test_a_sound_certificate_proves_its_node(swarm: Swarm, now_ns: int) -> None:
    """Chain, cluster, role and time hold: the identity comes back, from PEM and from DER."""
    chain, _ = swarm.issue(role=x509.Role.MANAGER)
    der = lib.load_pem_x509_certificate(chain).public_bytes(serialization.Encoding.DER)
    for form in (chain, der):
        identity = verify_chain(
            form,
            swarm.root.cert_pem,
            now_ns=now_ns,
            cluster_id="cluster1",
            role=x509.Role.MANAGER,
        )
        assert identity == x509.identity_of(chain)


def test_a_foreign_certificate_is_named_as_such(swarm: Swarm, stranger: Swarm, now_ns: int) -> None:
    """Same CA name, another key: the text names the node, its cluster and both CA keys."""
    chain, _ = stranger.issue(node_id="node7")
    with pytest.raises(UnknownAuthority, match=r"node7 .*another swarm's CA.*cluster2") as refused:
        verify_chain(chain, swarm.root.cert_pem, now_ns=now_ns, cluster_id="cluster1")
    for root in (swarm.root, stranger.root):
        assert x509.parse_certificates(root.cert_pem)[0].key_id[:16] in str(refused.value)
    assert (refused.value.status, refused.value.grpc_code) == (401, "Unauthenticated")


def test_a_certificate_cannot_bring_its_own_root(
    swarm: Swarm, stranger: Swarm, now_ns: int
) -> None:
    """A chain that ends in a root of its own is as foreign as without it."""
    chain, _ = stranger.issue()
    with pytest.raises(UnknownAuthority):
        verify_chain(chain + stranger.root.cert_pem, swarm.root.cert_pem, now_ns=now_ns)


def test_another_cluster_under_one_root_is_refused(swarm: Swarm, now_ns: int) -> None:
    """A CA shared by two clusters does not make one's nodes the other's."""
    chain, _ = swarm.issue()
    with pytest.raises(WrongCluster, match="node1 is for cluster cluster1, this is cluster other"):
        verify_chain(chain, swarm.root.cert_pem, now_ns=now_ns, cluster_id="other")


def test_the_wrong_role_is_permission_denied(swarm: Swarm, now_ns: int) -> None:
    """A worker's certificate on a manager's errand: 403, and both roles in the text."""
    chain, _ = swarm.issue(role=x509.Role.WORKER)
    with pytest.raises(WrongRole, match=r"a worker where that of a manager") as refused:
        verify_chain(chain, swarm.root.cert_pem, now_ns=now_ns, role=x509.Role.MANAGER)
    assert (refused.value.status, refused.value.grpc_code) == (403, "PermissionDenied")


def test_the_edges_of_time(swarm: Swarm, now_ns: int) -> None:
    """Valid from NotBefore to NotAfter inclusive; a second beyond says since or from when."""
    chain, _ = swarm.issue(expiry_ns=DAY)
    root = swarm.root.cert_pem
    for moment in (now_ns - HOUR, now_ns + DAY):
        verify_chain(chain, root, now_ns=moment)
    with pytest.raises(CertificateExpired, match=r"node1 expired at 2027-01-16T08:00:00Z; .*01Z"):
        verify_chain(chain, root, now_ns=now_ns + DAY + SECOND)
    with pytest.raises(CertificateNotYetValid, match=r"from 2027-01-15T07:00:00Z; .*06:59:59Z"):
        verify_chain(chain, root, now_ns=now_ns - HOUR - SECOND)


def test_an_expired_ca_is_told_from_an_expired_node(swarm: Swarm, now_ns: int) -> None:
    """A leaf in its time under a CA past its end: the text speaks of the CA, by its key."""
    short = make_ca(swarm, ends=NOW + timedelta(hours=2))
    careless = replace(short, certificate=replace(short.certificate, not_after_ns=now_ns + DAY))
    leaf, _ = swarm.issue(signer=careless, expiry_ns=DAY)
    chain = leaf + cert_pem(short)
    verify_chain(chain, swarm.root.cert_pem, now_ns=now_ns + 2 * HOUR)
    key_id = short.certificate.key_id[:16]
    with pytest.raises(CertificateExpired, match=f"CA certificate with key {key_id} expired at"):
        verify_chain(chain, swarm.root.cert_pem, now_ns=now_ns + 3 * HOUR)


def test_a_root_bundle_trusts_each_of_its_roots(swarm: Swarm, stranger: Swarm, now_ns: int) -> None:
    """During a rotation both roots are trusted, in either order."""
    for bundle in (
        swarm.root.cert_pem + stranger.root.cert_pem,
        stranger.root.cert_pem + swarm.root.cert_pem,
    ):
        require_roots(bundle)
        for issuer in (swarm, stranger):
            verify_chain(issuer.issue()[0], bundle, now_ns=now_ns)


def test_cross_signing_carries_a_rotation(swarm: Swarm, stranger: Swarm, now_ns: int) -> None:
    """A leaf of the new root is believed by who knows only the old root, and only the new one."""
    cross = x509.cross_sign(swarm.signer, stranger.root.cert_pem, now_ns=now_ns)
    signer = x509.Signer.from_pem(stranger.root.cert_pem, stranger.root.key_pem, cross)
    chain, _ = swarm.issue(signer=signer)
    for root in (swarm.root, stranger.root):
        assert verify_chain(chain, root.cert_pem, now_ns=now_ns).node_id == "node1"
    new = tls_info(swarm.root.cert_pem, chain)
    assert new.issuer_public_key == stranger.signer.certificate.public_key
    leaf_alone = lib.load_pem_x509_certificate(chain).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(UnknownAuthority):
        verify_chain(leaf_alone, swarm.root.cert_pem, now_ns=now_ns)


def test_cross_signing_refuses_what_is_no_root(swarm: Swarm, now_ns: int) -> None:
    """Two roots, a leaf, or an ended CA are no start of a rotation."""
    root = swarm.root.cert_pem
    with pytest.raises(CertificateMalformed, match="one new root"):
        x509.cross_sign(swarm.signer, root + root, now_ns=now_ns)
    with pytest.raises(CertificateMalformed, match="no CA"):
        x509.cross_sign(swarm.signer, swarm.issue()[0], now_ns=now_ns)
    with pytest.raises(CertificateExpired, match="no part in a rotation"):
        x509.cross_sign(swarm.signer, root, now_ns=now_ns + 21 * 365 * DAY)


def make_ca(
    swarm: Swarm,
    *,
    ends: datetime,
    path_length: int | None = None,
    digest: hashes.HashAlgorithm | None = None,
    extra: lib.ExtensionType | None = None,
) -> x509.Signer:
    """An intermediate CA under ``swarm``'s root, as an outside PKI might make one."""
    root_key = serialization.load_pem_private_key(swarm.root.key_pem, None)
    root = lib.load_pem_x509_certificate(swarm.root.cert_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    name = lib.Name.from_rfc4514_string("CN=intermediate")
    builder = lib.CertificateBuilder(
        root.subject, name, key.public_key(), 7, NOW - timedelta(hours=1), ends
    ).add_extension(lib.BasicConstraints(ca=True, path_length=path_length), critical=True)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    certificate = builder.sign(root_key, digest or hashes.SHA256())  # type: ignore[arg-type]
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return x509.Signer.from_pem(certificate.public_bytes(serialization.Encoding.PEM), key_pem)


def cert_pem(signer: x509.Signer) -> bytes:
    return signer.certificate.parsed.public_bytes(serialization.Encoding.PEM)


def test_a_path_length_is_kept(swarm: Swarm, now_ns: int) -> None:
    """A CA that may have no CA below it carries leaves, and no further CA."""
    root = swarm.root.cert_pem
    closed = make_ca(swarm, ends=NOW + timedelta(days=9), path_length=0)
    below = x509.create_root(now_ns)
    cross = x509.cross_sign(closed, below.cert_pem, now_ns=now_ns)
    signer = x509.Signer.from_pem(below.cert_pem, below.key_pem)
    leaf, _ = swarm.issue(signer=signer, expiry_ns=HOUR)
    with pytest.raises(UnknownAuthority):
        verify_chain(leaf + cross + cert_pem(closed), root, now_ns=now_ns)
    leaf, _ = swarm.issue(signer=closed, expiry_ns=HOUR)
    verify_chain(leaf + cert_pem(closed), root, now_ns=now_ns)


def test_demands_nobody_enforces_are_refused(swarm: Swarm, now_ns: int) -> None:
    """A critical extension beyond ours (here name constraints) is not passed over."""
    constrained = make_ca(
        swarm,
        ends=NOW + timedelta(days=9),
        extra=lib.NameConstraints([lib.DNSName("example.com")], None),
    )
    leaf, _ = swarm.issue(signer=constrained)
    with pytest.raises(CertificateMalformed, match=r"2\.5\.29\.30"):
        verify_chain(leaf + cert_pem(constrained), swarm.root.cert_pem, now_ns=now_ns)


def test_a_weak_hash_proves_nothing(swarm: Swarm, now_ns: int) -> None:
    """A link signed with SHA-224 is no link."""
    weak = make_ca(swarm, ends=NOW + timedelta(days=9), digest=hashes.SHA224())
    leaf, _ = swarm.issue(signer=weak)
    with pytest.raises(UnknownAuthority):
        verify_chain(leaf + cert_pem(weak), swarm.root.cert_pem, now_ns=now_ns)


def test_a_leaf_signs_nobody(swarm: Swarm, now_ns: int) -> None:
    """A node that signs another node's certificate with its own key is no CA."""
    chain, key = swarm.issue(role=x509.Role.MANAGER)
    parsed = x509.parse_certificates(chain)[0]
    rogue = x509.Signer(parsed, load_key(key))
    forged, _ = swarm.issue(node_id="node9", role=x509.Role.MANAGER, signer=rogue)
    with pytest.raises(UnknownAuthority):
        verify_chain(forged + chain, swarm.root.cert_pem, now_ns=now_ns)


def test_tls_info_is_the_apis(swarm: Swarm, stranger: Swarm) -> None:
    """Issuer subject and key in DER; the subject's base64 is the very text Docker shows."""
    chain, _ = swarm.issue()
    info = tls_info(swarm.root.cert_pem, chain)
    assert base64.b64encode(info.issuer_subject) == b"MBMxETAPBgNVBAMTCHN3YXJtLWNh"
    key = serialization.load_der_public_key(info.issuer_public_key)
    assert key == lib.load_pem_x509_certificate(swarm.root.cert_pem).public_key()
    assert info.trust_root.encode() == swarm.root.cert_pem
    with pytest.raises(UnknownAuthority, match="neither in its chain nor"):
        tls_info(stranger.root.cert_pem, chain)


@given(st.integers(0, 2**62), st.integers(0, 20 * 365 * DAY), st.floats(0, 1), st.floats(0, 1))
def test_renewal_falls_between_half_and_four_fifths(
    start: int, life: int, one: float, other: float
) -> None:
    """Every draw lies in the window, the ends are reached, and a larger draw is no earlier."""
    earliest, latest = renewal_window(start, start + life)
    assert start + life // 2 == earliest
    assert latest == start + life * 4 // 5
    assert renewal_time(start, start + life, draw=0.0) == earliest
    low, high = sorted((one, other))
    moments = [renewal_time(start, start + life, draw=draw) for draw in (0.0, low, high, 1.0)]
    assert moments == sorted(moments)
    assert abs(moments[-1] - latest) <= 256  # a float's precision, in nanoseconds


def test_a_draw_outside_the_window_is_a_bug() -> None:
    """A draw that is no share is refused."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        renewal_time(0, 10, draw=1.5)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_our_words(noise: bytes) -> None:
    """Noise in a certificate's place raises CertificateRefused and nothing else."""
    with pytest.raises(CertificateRefused):
        x509.parse_certificates(noise)


@pytest.mark.parametrize("rotating", [False, True])
def test_openssl_believes_the_same(swarm: Swarm, tmp_path: Path, rotating: bool) -> None:
    """TLS 1.3 with mutual certificates, strict X.509 checks and the name swarm-manager succeeds;
    during a rotation too, though each side knows only the old root."""
    root_pem, signer, now_ns = ca_at_present(rotating=rotating)
    files = {}
    for role in x509.Role:
        chain, key = swarm.issue(role=role, signer=signer, now_ns=now_ns)
        files[role] = tmp_path / f"{role.value}.pem"
        files[role].write_bytes(chain + key)
    (tmp_path / "root.pem").write_bytes(root_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context, role in ((server, x509.Role.MANAGER), (client, x509.Role.WORKER)):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(tmp_path / "root.pem")
        context.load_cert_chain(files[role])
    peers = shake_hands(server, client, server_hostname="swarm-manager")
    assert [x509.identity_of(der).role for der in peers] == [x509.Role.WORKER, x509.Role.MANAGER]


def ca_at_present(*, rotating: bool) -> tuple[bytes, x509.Signer, int]:
    """A trusted root and a signer that begin now, since OpenSSL reads the machine's clock."""
    now_ns = int(datetime.now(timezone.utc).timestamp()) * SECOND
    root = x509.create_root(now_ns)
    signer = x509.Signer.from_pem(root.cert_pem, root.key_pem)
    if rotating:
        new = x509.create_root(now_ns)
        cross = x509.cross_sign(signer, new.cert_pem, now_ns=now_ns)
        signer = x509.Signer.from_pem(new.cert_pem, new.key_pem, cross)
    return root.cert_pem, signer, now_ns


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, *, server_hostname: str
) -> tuple[bytes, bytes]:
    """Run a handshake in memory; return what the server and the client saw of each other (DER)."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(up, down, server_side=True),
        client.wrap_bio(down, up, server_hostname=server_hostname),
    )
    pending = set(ends)
    for _ in range(10):
        for end in tuple(pending):
            try:
                end.do_handshake()
                pending.discard(end)
            except ssl.SSLWantReadError:
                continue
    assert not pending
    seen = tuple(end.getpeercert(binary_form=True) for end in ends)
    assert seen[0] is not None
    assert seen[1] is not None
    return seen[0], seen[1]
