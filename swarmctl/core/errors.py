"""One root error, and a leaf for each thing a caller can do something about.

The HTTP status and the gRPC code word that Docker's clients match on are class attributes, so the
API has one mapping and no chain of ifs (docker-api.md section 2.1, "gRPC mapping").
"""

from __future__ import annotations

from typing import ClassVar


class SwarmError(Exception):
    """Root of every error that swarmctl raises on purpose.

    ``str(error)`` is the sentence for the user; it never holds secret data.
    """

    status: ClassVar[int] = 500
    grpc_code: ClassVar[str | None] = None

    @property
    def message(self) -> str:
        """The text a client sees: Docker's ``rpc error`` prefix where Docker's API has one."""
        if self.grpc_code is None:
            return str(self)
        return f"rpc error: code = {self.grpc_code} desc = {self}"


class BadRequest(SwarmError):
    """The request cannot be understood; plain text, as Docker's HTTP converters answer."""

    status = 400


class InvalidArgument(SwarmError):
    """The request is well formed but asks for something that is not allowed."""

    status = 400
    grpc_code = "InvalidArgument"


class FailedPrecondition(SwarmError):
    """The cluster's state forbids it now."""

    status = 400
    grpc_code = "FailedPrecondition"


class Unauthenticated(SwarmError):
    """Who asks is not known here: no certificate, or one of another cluster."""

    status = 401
    grpc_code = "Unauthenticated"


class PermissionDenied(SwarmError):
    """Who asks is known and may not do this."""

    status = 403
    grpc_code = "PermissionDenied"


class Forbidden(SwarmError):
    """Not allowed to anybody (plain text, as Docker's own network code answers)."""

    status = 403


class NotFound(SwarmError):
    """No such object (plain text, as Docker answers when resolving a reference)."""

    status = 404


class AlreadyExists(SwarmError):
    """Name taken."""

    status = 409
    grpc_code = "AlreadyExists"


class OutOfSequence(SwarmError):
    """Somebody else changed the object since the version the caller read."""

    status = 500  # not 409: Docker's own answer, matched by docker-py and Ansible
    grpc_code = "Unknown"

    def __init__(self, text: str = "update out of sequence") -> None:
        super().__init__(text)


class NameTaken(SwarmError):
    """Name taken (plain text, as Docker's network code answers)."""

    status = 409


class NotLocked(SwarmError):
    """An unlock key for a swarm that needs none."""

    status = 409

    def __init__(self) -> None:
        super().__init__("swarm is not locked")


class UnknownOption(SwarmError):
    """A query's value is none that the API knows. Docker answers 500 here, in plain text."""


class InvalidConstraint(SwarmError):
    """A placement constraint cannot be parsed. Docker answers 500 here, and clients match that."""

    grpc_code = "Unknown"


class MissingNetwork(SwarmError):
    """A service names a network that is not there. Docker answers 500 here, in plain text."""


class Unimplemented(SwarmError):
    """Docker's API has it; it is not offered here, or may not change."""

    status = 501
    grpc_code = "Unimplemented"


class NotManager(SwarmError):
    """This node is no manager, so it can answer no cluster question."""

    status = 503


class Unavailable(SwarmError):
    """Not now; trying again later can help."""

    status = 503
    grpc_code = "Unavailable"


class NoLeader(SwarmError):
    """Too few managers are reachable to agree on anything."""

    status = 500
    grpc_code = "Unknown"

    def __init__(self) -> None:
        super().__init__(
            "The swarm does not have a leader. It's possible that too few managers are online. "
            "Make sure more than half of the managers are online."
        )


class LostLeadership(Unavailable):
    """The write's fate is unknown here: this manager stopped leading before it was committed."""


class LeaderElsewhere(Unavailable):
    """Only the leader does this, and another manager leads; the text is its ``host:port``."""


class MemberRemoved(PermissionDenied):
    """A manager's member number was removed from consensus for good: it may come back as new."""


class RemoteProtocolError(SwarmError):
    """The other side sent bytes that break the protocol; its connection is of no further use."""

    status = 400


class Undecodable(SwarmError):
    """Bytes that should hold a known object do not: damaged, or written by a newer release."""


class StorageFailed(SwarmError):
    """The disk refused a write; the manager ends, since retrying an fsync proves nothing."""


class CertificateRefused(Unauthenticated):
    """A certificate does not prove what it would have to; the leaves say what is wrong with it."""


class CertificateMalformed(CertificateRefused):
    """These bytes are no certificate, or one that names no node of any swarm."""


class CertificateExpired(CertificateRefused):
    """It was good once; its node must renew it, or join again."""


class CertificateNotYetValid(CertificateRefused):
    """It will be good later: one of the two clocks is wrong."""


class UnknownAuthority(CertificateRefused):
    """No CA that is trusted here signed it: another swarm's, or the root was rotated meanwhile."""


class WrongCluster(CertificateRefused):
    """Well signed, but made for a node of another cluster."""


class WrongRole(CertificateRefused):
    """Well signed and ours, but of a node whose role may not do this."""

    status = 403
    grpc_code = "PermissionDenied"


class InvalidCSR(InvalidArgument):
    """A certificate signing request that no CA here signs; a new key and request can help."""


class InvalidJoinToken(InvalidArgument):
    """The join token is mistyped, rotated, or of another swarm."""


class InvalidUnlockKey(SwarmError):
    """The unlock key is mistyped, or does not open this manager (Docker's text and status)."""

    status = 401

    def __init__(self, text: str = "invalid key provided") -> None:
        super().__init__(f"swarm could not be unlocked: {text}")


class ManagerLocked(SwarmError):
    """This manager's state needs the unlock key before anything can be done with it."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
            '"docker swarm unlock" to unlock it.'
        )


class IdentityMissing(SwarmError):
    """The state directory holds no node identity, or only half of one: join anew."""


class IdentityBroken(SwarmError):
    """The node's key, certificate or root cannot be used as they lie on the disk."""


class CopiedState(SwarmError):
    """The state directory belongs to a node on another machine."""


class AnswerAwaited(SwarmError):
    """A plugin outside this process was asked and has not answered yet; decide again when it has.

    Raised by the stand-ins of such plugins (docs/design/plugins.md), caught by who asks them.
    """
