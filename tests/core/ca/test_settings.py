"""What an update of the CA's settings means, and what it makes (swarm-behaviour.md 4.6)."""

from __future__ import annotations

from functools import cache

import pytest
from cryptography import x509 as lib
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from msgspec.structs import replace

from swarmctl.core.ca import settings, signing
from swarmctl.core.ca.chain import verify_chain
from swarmctl.core.ca.issue import fresh_tokens
from swarmctl.core.ca.roots import normal_form
from swarmctl.core.ca.settings import Move
from swarmctl.core.ca.signing import NodeRequest
from swarmctl.core.ca.x509 import (
    DAY_NS,
    Role,
    RootCA,
    Signer,
    create_root,
    cross_sign,
    new_key_and_csr,
)
from swarmctl.core.errors import CertificateRefused, InvalidArgument
from swarmctl.core.model.cluster import (
    CAConfig,
    ClusterInfo,
    ClusterPrivate,
    ExternalCA,
    SwarmSpec,
)
from swarmctl.core.model.objects import ClusterRow

from .conftest import NOW_NS

OUTSIDE = ExternalCA(Protocol="cfssl", URL="https://ca/sign")


@cache
def root(number: int) -> RootCA:
    return create_root(NOW_NS)


def cert(number: int) -> str:
    return root(number).cert_pem.decode()


def key(number: int) -> str:
    return root(number).key_pem.decode()


def founded(*, with_key: bool = True) -> ClusterRow:
    """A cluster of root 0."""
    worker, manager = fresh_tokens(
        root(0).cert_pem, worker_secret=b"w" * 16, manager_secret=b"m" * 16
    )
    private = ClusterPrivate(
        ca_cert=cert(0),
        ca_key=key(0) if with_key else "",
        worker_token=worker,
        manager_token=manager,
    )
    api = ClusterInfo(
        ID="cluster1",
        Spec=SwarmSpec(CAConfig=CAConfig(ForceRotate=3)),
        TLSInfo=settings.shown_trust(private),
    )
    return ClusterRow(api=api, private=private)


def updated(row: ClusterRow, number: int = 1, **config: object) -> ClusterRow:
    """Apply an update; a root that it needs made is root ``number``."""
    asked = CAConfig(**config)  # type: ignore[arg-type]
    change = settings.judge(row, asked, NOW_NS)
    new_root = None
    if change.move is Move.ROTATE:
        new_cert, new_key = settings.new_root_of(change, root(number))
        new_root = settings.NewRoot(
            cert=new_cert, key=new_key, worker_secret=b"1" * 16, manager_secret=b"2" * 16
        )
    spec = replace(row.api.Spec, CAConfig=asked)
    return settings.changed(row, spec, change, new_root, NOW_NS)


def rotating(number: int = 1) -> ClusterRow:
    """A cluster on its way from root 0 to another."""
    return updated(founded(), number, ForceRotate=4)


def test_other_settings_leave_the_root_alone() -> None:
    """No root, and the number as it was or not at all: nothing about the CA changes, and a client
    that does not know the number does not reset it."""
    for row in (founded(), rotating()):
        for number in (row.api.Spec.CAConfig.ForceRotate, 0):
            after = updated(row, ForceRotate=number, NodeCertExpiry=7, ExternalCAs=(OUTSIDE,))
            assert after.private == row.private
            assert after.api.Spec.CAConfig == CAConfig(
                ForceRotate=row.api.Spec.CAConfig.ForceRotate,
                NodeCertExpiry=7,
                ExternalCAs=(OUTSIDE,),
            )


def test_another_number_begins_a_rotation() -> None:
    """The coming root signs, the present one is trusted; a chain of the new leads to the old."""
    row = rotating()
    assert row.private.rotation is not None
    assert (row.private.ca_cert, row.private.rotation.ca_cert) == (cert(0), cert(1))
    assert row.private.worker_token == founded().private.worker_token
    assert (row.api.TLSInfo.TrustRoot, row.api.RootRotationInProgress) == (cert(0), True)
    request = NodeRequest(new_key_and_csr()[1], "node1", Role.WORKER)
    chain = signing.sign_here(row, request, NOW_NS)
    assert chain is not None
    for trusted in (0, 1):
        verify_chain(chain, root(trusted).cert_pem, now_ns=NOW_NS, cluster_id="cluster1")


def test_a_users_key_is_never_in_the_spec() -> None:
    """Certificate and key that an update brings are kept in the private half alone."""
    row = updated(founded(), SigningCACert=cert(2), SigningCAKey=key(2), ForceRotate=3)
    assert row.private.rotation is not None
    assert (row.private.rotation.ca_cert, row.private.rotation.ca_key) == (cert(2), key(2))
    assert row.api.Spec.CAConfig == CAConfig(ForceRotate=3)
    change = settings.judge(founded(), CAConfig(SigningCACert=cert(2), SigningCAKey=key(2)), NOW_NS)
    assert "PRIVATE" not in repr((change, signing.issuer_of(row.private)))


def test_naming_the_present_root_gives_a_rotation_up() -> None:
    """However its PEM is wrapped; certificates of the present root are wanted again."""
    wrapped = "junk\n" + cert(0).replace("\n", "\r\n")
    after = updated(rotating(), SigningCACert=wrapped, SigningCAKey=key(0), ForceRotate=4)
    assert after.private == founded().private
    assert after.api.TLSInfo == founded().api.TLSInfo
    assert not after.api.RootRotationInProgress


def test_naming_the_coming_root_goes_on() -> None:
    """The same certificate again only says where its key is."""
    row = rotating()
    external = replace(OUTSIDE, CACert=cert(1))
    after = updated(row, SigningCACert=cert(1), ExternalCAs=(external,), ForceRotate=4)
    assert after.private.rotation == replace(row.private.rotation, ca_key="")
    again = updated(after, SigningCACert=cert(1), SigningCAKey=key(1), ForceRotate=4)
    assert again.private == row.private


def test_naming_another_root_begins_anew() -> None:
    """A rotation under way is replaced; the link is from the trusted root, not from the coming."""
    for config in (
        {"SigningCACert": cert(2), "SigningCAKey": key(2), "ForceRotate": 4},
        {"ForceRotate": 5},
    ):
        after = updated(rotating(), 2, **config)
        assert after.private.rotation is not None
        assert after.private.rotation.ca_cert == cert(2)
        request = NodeRequest(new_key_and_csr()[1], "node1", Role.MANAGER)
        chain = signing.sign_here(after, request, NOW_NS)
        assert chain is not None
        verify_chain(chain, root(0).cert_pem, now_ns=NOW_NS)


def intermediate() -> tuple[str, str]:
    """A CA certificate that is no root, and its key."""
    signer = Signer.from_pem(root(1).cert_pem, root(1).key_pem)
    return cross_sign(signer, root(2).cert_pem, now_ns=NOW_NS).decode(), key(2)


def short_lived() -> tuple[str, str]:
    made = create_root(NOW_NS - 19 * 365 * DAY_NS - DAY_NS)
    return made.cert_pem.decode(), made.key_pem.decode()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"SigningCAKey": "k"}, "the signing CA cert must also be provided"),
        ({"SigningCACert": "none", "SigningCAKey": "k"}, "no X.509 certificate"),
        ({"SigningCACert": cert(1), "SigningCAKey": key(2)}, "does not belong to the CA's cert"),
        ({"SigningCACert": cert(1), "SigningCAKey": "none"}, "no unencrypted private key"),
        ({"SigningCACert": cert(1) + cert(2)}, "cannot contain multiple certificates"),
        (dict(zip(("SigningCACert", "SigningCAKey"), intermediate(), strict=True)), "self-signed"),
        (dict(zip(("SigningCACert", "SigningCAKey"), short_lived(), strict=True)), "too soon"),
        ({"ExternalCAs": (ExternalCA(Protocol="acme"),)}, 'invalid CAProtocol: "acme"'),
    ],
)
def test_what_cannot_be_a_root_is_refused(config: dict[str, object], words: str) -> None:
    """A key without its certificate, halves that do not fit, several roots, an intermediate, one
    that ends within a year, another protocol: each is named, and nothing changes."""
    with pytest.raises(InvalidArgument, match=words):
        settings.judge(founded(), CAConfig(**config), NOW_NS)  # type: ignore[arg-type]


def test_a_new_certificate_for_the_old_key_is_refused() -> None:
    """Two roots of one key in a chain do not verify everywhere, so the key has to be new."""
    row = founded()
    renewed = reissued_root()
    with pytest.raises(InvalidArgument, match="Cannot update to a cert with an identical key"):
        settings.judge(row, CAConfig(SigningCACert=renewed, SigningCAKey=key(0)), NOW_NS)


def reissued_root() -> str:
    """Root 0's key in a certificate with other dates."""
    old = lib.load_pem_x509_certificate(root(0).cert_pem)
    builder = lib.CertificateBuilder(
        issuer_name=old.issuer,
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=lib.random_serial_number(),
        not_valid_before=old.not_valid_before_utc,
        not_valid_after=old.not_valid_after_utc,
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signer = load_pem_private_key(root(0).key_pem, None)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


# --- keys that are elsewhere ----------------------------------------------------------------------


def needs(row: ClusterRow, **config: object) -> tuple[Move, tuple[str, ...], bool]:
    change = settings.judge(row, CAConfig(**config), NOW_NS)  # type: ignore[arg-type]
    return change.move, tuple(word for word, _ in change.reachable), change.outside


def test_where_a_key_is_not_here_an_external_ca_has_to_be() -> None:
    """For the present root, the coming one and one that is named without key; and to vouch for a
    new root when the present one's key is outside. With the key none is needed."""
    here, outside = founded(), founded(with_key=False)
    named: dict[str, object] = {"SigningCACert": cert(2)}
    with_key = {**named, "SigningCAKey": key(2)}
    assert needs(here) == (Move.KEEP, (), False)
    assert needs(here, **named) == (Move.ROTATE, ("desired",), False)
    assert needs(here, **with_key) == (Move.ROTATE, (), False)
    assert needs(outside) == (Move.KEEP, ("current",), False)
    assert needs(outside, ForceRotate=9) == (Move.ROTATE, ("current",), True)
    assert needs(outside, **with_key) == (Move.ROTATE, ("current",), True)
    assert needs(outside, SigningCACert=cert(0)) == (Move.PRESENT, ("current", "desired"), False)
    taken_in = needs(outside, SigningCACert=cert(0), SigningCAKey=key(0))
    assert taken_in == (Move.PRESENT, (), False)
    with pytest.raises(InvalidArgument, match="from one external CA to a different external CA"):
        needs(outside, **named)
    row = rotating()
    assert row.private.rotation is not None
    keyless = replace(
        row, private=replace(row.private, rotation=replace(row.private.rotation, ca_key=""))
    )
    assert needs(keyless) == (Move.KEEP, ("next",), False)


def test_an_external_ca_signs_for_the_root_it_names() -> None:
    """One that names none signs for the present root; a rotation does not hand it the new one."""
    for_new = replace(OUTSIDE, CACert=cert(1).replace("\n", "\r\n"))
    config = CAConfig(ExternalCAs=(OUTSIDE, for_new))
    assert signing.externals_of(config, cert(0), cert(0)) == (OUTSIDE,)
    assert signing.externals_of(config, cert(1), cert(0)) == (for_new,)
    assert signing.externals_of(config, cert(2), cert(0)) == ()


def test_what_vouches_for_a_root_is_checked() -> None:
    """The external CA's link has to be of the new root's name and key, signed by the present."""
    row = rotating()
    assert row.private.rotation is not None
    link = row.private.rotation.cross_signed.encode()
    accepted = settings.accept_cross_signed(link, cert(1), cert(0))
    assert accepted.decode() == normal_form(link.decode())
    for new, present, words in (
        (cert(2), cert(0), "another name or key"),
        (cert(1), cert(2), "did not sign as the swarm's present root"),
    ):
        with pytest.raises(CertificateRefused, match=words):
            settings.accept_cross_signed(link, new, present)


def test_a_new_swarm_makes_its_own_root() -> None:
    """A root in the settings of a swarm to be founded is refused, with the command that does it."""
    settings.check_founding(CAConfig(ExternalCAs=(OUTSIDE,)))
    with pytest.raises(InvalidArgument, match="swarmctl ca --rotate --ca-cert"):
        settings.check_founding(CAConfig(SigningCACert=cert(1)))
