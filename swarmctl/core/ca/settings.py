"""What ``POST /swarm/update`` asks of the CA: judged first, then made; asking outside fits between.

``judge`` says what the settings mean for a cluster as it is: nothing, another key for a root that
is known, or a new root. ``changed`` makes the cluster's row of it. Between the two, whoever calls
may have to ask external CAs (are they there, will they vouch for the new root): ``Change`` says
which. Rules and words: swarm-behaviour.md 4.6, swarmkit manager/controlapi/ca_rotation.go.

Laws:

- A user's CA key goes into the private half and never into the spec, which is shown.
- A number of ``ForceRotate`` that differs asks for a new root; none at all (0) asks for nothing,
  since clients that do not know the field send it so.
- Pure: the time and random bytes come in as arguments; keys are the library's own.

Must not know: connections, who asks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import CertificateRefused, InvalidArgument
from ..model.cluster import RootRotation, TLSInfo
from .cfssl import PROTOCOL
from .issue import fresh_tokens
from .roots import normal_form, pem_of, require_root
from .signing import issuer_of
from .x509 import DAY_NS, Certificate, RootCA, Signer, cross_sign, issued, parse_certificates

if TYPE_CHECKING:
    from ..model.cluster import CAConfig, ClusterPrivate, SwarmSpec
    from ..model.objects import ClusterRow

MIN_ROOT_LIFE_NS = 365 * DAY_NS


class Move(enum.Enum):
    """What the settings mean for the root CA."""

    KEEP = "nothing changes"
    PRESENT = "the present root stays, with this key; a rotation is given up"
    COMING = "the rotation under way goes on, with this key"
    ROTATE = "another root shall come"


@dataclass(frozen=True)
class Change:
    """What the settings ask for, judged against one state of the cluster.

    Attributes:
        cert, key: the root that was named, in normal form; empty for one that is made here.
        reachable: for which CA certificates an external CA must be there, by the word for each.
        outside: the present root's key is not here, so an external CA has to vouch for the new.
        base: the roots that this was judged against.
    """

    move: Move
    cert: str = ""
    key: str = field(default="", repr=False)
    reachable: tuple[tuple[str, str], ...] = ()
    outside: bool = False
    base: tuple[str, str] = ("", "")


def judge(row: ClusterRow, config: CAConfig, now_ns: int) -> Change:
    """Say what the settings ask for.

    Raises:
        InvalidArgument: they cannot be followed, in Docker's words where it has some.
    """
    try:
        return _judge(row, config, now_ns)
    except CertificateRefused as error:
        raise InvalidArgument(str(error)) from error


def check_externals(config: CAConfig) -> None:
    """Check what was said about external CAs, without asking them.

    Raises:
        InvalidArgument: another protocol, or a certificate that is none.
    """
    for each in config.ExternalCAs:
        if each.Protocol.lower() != PROTOCOL:
            raise InvalidArgument(f'invalid CAProtocol: "{each.Protocol}"')
        try:
            if each.CACert:
                normal_form(each.CACert)
        except CertificateRefused as error:
            raise InvalidArgument(f"the external CA's certificate is refused: {error}") from error


def check_founding(config: CAConfig) -> None:
    """Check the CA settings of a swarm that is about to be founded.

    Raises:
        InvalidArgument: they name a root; a new swarm makes its own, and may rotate it then.
    """
    check_externals(config)
    if config.SigningCACert or config.SigningCAKey:
        raise InvalidArgument(
            "a new swarm makes its own root CA; `swarmctl ca --rotate --ca-cert FILE --ca-key "
            "FILE` brings in another one"
        )


def _judge(row: ClusterRow, config: CAConfig, now_ns: int) -> Change:
    private = row.private
    rotation = private.rotation
    coming = normal_form(rotation.ca_cert) if rotation is not None else ""
    current = normal_form(private.ca_cert)
    wanted = normal_form(config.SigningCACert) if config.SigningCACert else ""
    key, base = config.SigningCAKey, (current, coming)
    if key and not wanted:
        raise InvalidArgument(
            "if a signing CA key is provided, the signing CA cert must also be provided"
        )
    check_externals(config)
    if wanted and key:
        Signer.from_pem(wanted.encode(), key.encode())
    if not private.ca_key and wanted == current and key:
        return Change(Move.PRESENT, wanted, key, base=base)
    reachable = () if private.ca_key else (("current", current),)
    if not wanted:
        if config.ForceRotate not in (0, row.api.Spec.CAConfig.ForceRotate):
            outside = not private.ca_key
            return Change(Move.ROTATE, reachable=reachable, outside=outside, base=base)
        if rotation is not None and not rotation.ca_key:
            reachable = (*reachable, ("next", coming))
        return Change(Move.KEEP, reachable=reachable, base=base)
    root = require_root(wanted)
    if root.not_after_ns < now_ns + MIN_ROOT_LIFE_NS:
        raise InvalidArgument("CA certificate expires too soon")
    if not key:
        reachable = (*reachable, ("desired", wanted))
    if wanted == current:
        return Change(Move.PRESENT, wanted, key, reachable, base=base)
    if root.public_key == parse_certificates(current.encode())[0].public_key:
        raise InvalidArgument("Cannot update to a cert with an identical key")
    if wanted == coming:
        return Change(Move.COMING, wanted, key, reachable, base=base)
    if not private.ca_key and not key:
        raise InvalidArgument(
            "rotating from one external CA to a different external CA is not supported"
        )
    return Change(Move.ROTATE, wanted, key, reachable, outside=not private.ca_key, base=base)


# --- making it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewRoot:
    """The root to come, and what makes it one.

    Attributes:
        cross_signed: what an external CA vouched for it with; empty to have it made here.
        worker_secret, manager_secret: 16 random bytes each, for the tokens.
    """

    cert: str
    key: str = field(repr=False)
    worker_secret: bytes = field(repr=False)
    manager_secret: bytes = field(repr=False)
    cross_signed: bytes = b""


def changed(
    row: ClusterRow, spec: SwarmSpec, change: Change, new_root: NewRoot | None, now_ns: int
) -> ClusterRow:
    """Return the cluster with new settings, and with its CA as they ask.

    Args:
        spec: complete and checked.
        change: what ``judge`` says of this very row and spec.
        new_root: for a rotation that begins.

    Raises:
        InvalidArgument: one of the two roots can take no part in a rotation.
    """
    private = row.private
    if change.move is Move.PRESENT:
        private = replace(private, ca_key=change.key, rotation=None)
    elif change.move is Move.COMING:
        assert private.rotation is not None
        private = replace(private, rotation=replace(private.rotation, ca_key=change.key))
    elif change.move is Move.ROTATE:
        assert new_root is not None
        private = replace(private, rotation=_rotation(private, new_root, now_ns))
    force = spec.CAConfig.ForceRotate or row.api.Spec.CAConfig.ForceRotate
    config = replace(spec.CAConfig, SigningCACert="", SigningCAKey="", ForceRotate=force)
    api = replace(
        row.api,
        Spec=replace(spec, CAConfig=config),
        RootRotationInProgress=private.rotation is not None,
        TLSInfo=shown_trust(private),
    )
    return replace(row, api=api, private=private)


def shown_trust(private: ClusterPrivate) -> TLSInfo:
    """Return the cluster's ``TLSInfo``: the root that is trusted, and the CA that signs now."""
    issuer = parse_certificates(issuer_of(private).cert.encode())[0]
    return TLSInfo(
        TrustRoot=private.ca_cert,
        CertIssuerSubject=issuer.subject,
        CertIssuerPublicKey=issuer.public_key,
    )


def new_root_of(change: Change, made: RootCA) -> tuple[str, str]:
    """Return certificate and key of the root to come: the one that was named, else ``made``."""
    if change.cert:
        return change.cert, change.key
    return made.cert_pem.decode("ascii"), made.key_pem.decode("ascii")


def accept_cross_signed(answer_pem: bytes, new_cert: str, present_cert: str) -> bytes:
    """Check that what an external CA vouched with leads from the new root to the present one.

    Raises:
        CertificateRefused: it does not; the text says why.
    """
    vouched, new, present = (
        parse_certificates(pem)[0] for pem in (answer_pem, new_cert.encode(), present_cert.encode())
    )
    _require_link(vouched, new, present)
    return pem_of([vouched])


def _require_link(link: Certificate, new: Certificate, present: Certificate) -> None:
    if (link.subject, link.public_key) != (new.subject, new.public_key):
        raise CertificateRefused(
            "the external CA certified another name or key than the new root's"
        )
    if not issued(present, link):
        raise CertificateRefused("the external CA did not sign as the swarm's present root")
    if not link.is_ca:
        raise CertificateRefused("the external CA did not certify the new root as a CA")


def _rotation(private: ClusterPrivate, new: NewRoot, now_ns: int) -> RootRotation:
    cross_signed = new.cross_signed
    try:
        if not cross_signed:
            signer = Signer.from_pem(private.ca_cert.encode(), private.ca_key.encode())
            cross_signed = cross_sign(signer, new.cert.encode(), now_ns=now_ns)
    except CertificateRefused as error:
        raise InvalidArgument(str(error)) from error
    worker, manager = fresh_tokens(
        new.cert.encode(), worker_secret=new.worker_secret, manager_secret=new.manager_secret
    )
    return RootRotation(
        ca_cert=new.cert,
        ca_key=new.key,
        cross_signed=cross_signed.decode("ascii"),
        worker_token=worker,
        manager_token=manager,
    )
