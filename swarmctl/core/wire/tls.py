"""TLS between nodes: how each kind of connection is set up, and what its failures mean in words.

Laws:
- TLS 1.3 only, no session tickets: a resumed session would skip the certificate check, and so
  outlive a removal or a rotation.
- Trust is the cluster's own roots and nothing else; the system's are never loaded.
- A server asks for a certificate and takes none as an answer: a joining node has none yet. Who may
  call what without one is decided above, from the peer's certificate in DER.
- In TLS 1.3 a server refuses a bad certificate after the client's handshake has succeeded, so the
  client meets the alert in its first read. ``explain`` turns it into ``PeerRefused`` there too.

It must not touch files: keys are put into a context by ``connect.present_identity``.
"""

from __future__ import annotations

import ssl
from typing import Final

from swarmctl.core.errors import RemoteProtocolError, SwarmError, Unauthenticated


class PeerRefused(Unauthenticated):
    """The other side does not accept our certificate; the text says why."""


class PeerUntrusted(Unauthenticated):
    """We do not accept the other side's certificate; the text says why."""


def server_context(trust_pem: str) -> ssl.SSLContext:
    """For accepting: verifies a client's certificate if it shows one.

    Args:
        trust_pem: the cluster's root certificates; two during a rotation.

    Raises:
        ssl.SSLError: ``trust_pem`` holds no certificate.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    context.load_verify_locations(cadata=trust_pem)
    return context


def client_context(trust_pem: str) -> ssl.SSLContext:
    """For dialling a server that has to prove its name under ``trust_pem``.

    As it is, the client is anonymous (a joining node that knows the root); with
    ``connect.present_identity`` it is a node.

    Raises:
        ssl.SSLError: ``trust_pem`` holds no certificate.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trust_pem)
    return context


def unverified_client_context() -> ssl.SSLContext:
    """For fetching the root certificate, and nothing else: the server may be anybody.

    What comes over such a connection is believed only after it was checked against a join token's
    digest.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    return context


def explain(error: BaseException) -> SwarmError | None:
    """Say what a TLS failure means, looking through the errors that caused ``error``.

    Returns:
        PeerRefused for an alert about our certificate, PeerUntrusted for a certificate we refuse,
        RemoteProtocolError for a peer that speaks something else, None if TLS is not to blame.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, ssl.SSLError):
            return _explain_ssl(cause)
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _explain_ssl(error: ssl.SSLError) -> SwarmError | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return PeerUntrusted(f"the other side's certificate is not accepted: {_why(error)}")
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return None  # the connection ended; TLS only noticed
    reason = error.reason or ""
    for word, meaning in _ALERTS.items():
        if word in reason:
            return PeerRefused(f"the other side does not accept our certificate: {meaning}")
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return PeerUntrusted("the other side showed no certificate")
    return RemoteProtocolError(
        f"the other side does not speak TLS 1.3 as a swarmctl node does ({reason or error})"
    )


def _why(error: ssl.SSLCertVerificationError) -> str:
    return _VERIFY_WORDS.get(error.verify_code, error.verify_message)


# OpenSSL words an alert it received as <VERSION>_ALERT_<NAME>; the version in it is of the alert's
# first appearance, so only the name is compared.
_ALERTS: Final = {
    "ALERT_UNKNOWN_CA": "it belongs to another swarm, or to a root that was rotated away",
    "ALERT_CERTIFICATE_EXPIRED": "it has expired",
    "ALERT_CERTIFICATE_REVOKED": "it was revoked",
    "ALERT_CERTIFICATE_UNKNOWN": "something in it is not acceptable",
    "ALERT_CERTIFICATE_REQUIRED": "it demands one, and we showed none",
    "ALERT_UNSUPPORTED_CERTIFICATE": "its kind is not supported",
    "ALERT_BAD_CERTIFICATE": "it is damaged, or not yet or no longer valid",
    "ALERT_DECRYPT_ERROR": "its signature is wrong there: it belongs to another swarm of that name",
    "ALERT_ACCESS_DENIED": "access is denied",
}

# X509_V_ERR_* numbers, which Python's ssl does not name.
_VERIFY_WORDS: Final = {
    7: "its signature is wrong here: it belongs to another swarm of that name",
    9: "it is not valid yet: compare the two hosts' clocks",
    10: "it has expired",
    18: "it is self-signed and none of this swarm's roots",
    19: "its root is none of this swarm's",
    20: "its issuer is none of this swarm's roots",
    21: "its issuer is none of this swarm's roots",
}
