"""What is said to an external CA, and what it answers: CFSSL's JSON, as Docker's managers speak it.

One POST of a signing request to the URL that was configured. Fields and their names are those of
CFSSL's ``sign`` end point (swarm-behaviour.md 4.7).

Laws:

- An answer that is no certificate raises in words; what it quotes of the answer is short.
- Pure: bytes in, bytes out.

Must not know: connections, tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Unavailable
from .signing import names_of

if TYPE_CHECKING:
    from .roots import RootRequest
    from .signing import NodeRequest

PROTOCOL = "cfssl"
MAX_ANSWER_BYTES = 256 * 1024
CROSS_SIGN_PROFILE = "CA"
_BASIC_CONSTRAINTS = "2.5.29.19"
_QUOTED = 200


class ExternalCAFailed(Unavailable):
    """An external CA did not sign; the text says which and why. Trying again later can help."""


class _Result(msgspec.Struct):
    certificate: str = ""


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct):
    success: bool = False
    result: _Result | None = None
    errors: list[_Error] | None = None


def node_request(request: NodeRequest, cluster_id: str) -> bytes:
    """Return the body that asks for a node's certificate."""
    return _encoded(
        {
            "certificate_request": request.csr_pem.decode("ascii", "replace"),
            "hosts": list(names_of(request)),
            "subject": {
                "CN": request.node_id,
                "names": [{"OU": request.role.unit, "O": cluster_id}],
            },
        }
    )


def cross_sign_request(request: RootRequest) -> bytes:
    """Return the body that asks to vouch for another root."""
    return _encoded(
        {
            "certificate_request": request.csr_pem.decode("ascii"),
            "subject": {"CN": request.common_name, "names": []},
            "profile": CROSS_SIGN_PROFILE,
            "extensions": [  # CFSSL takes no extension but names from the request itself
                {
                    "id": _BASIC_CONSTRAINTS,
                    "critical": request.critical,
                    "value": request.basic_constraints.hex(),
                }
            ],
        }
    )


def certificate_in(status: int, body: bytes) -> bytes:
    """Return the certificate that an answer holds, in PEM, not yet checked.

    Raises:
        ExternalCAFailed: the answer is a refusal, or no answer of this protocol.
    """
    if status != 200:
        raise ExternalCAFailed(f"it answered with status {status}: {_quoted(body)}")
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, RecursionError) as error:  # the latter for "[[[[..."
        raise ExternalCAFailed(f"it answered with something else than CFSSL's JSON: {error}") from (
            error
        )
    if not answer.success or answer.result is None or not answer.result.certificate:
        reasons = "; ".join(each.message for each in answer.errors or () if each.message)
        raise ExternalCAFailed(f"it refused to sign: {reasons[:_QUOTED] or 'without a reason'}")
    return answer.result.certificate.encode("ascii", "replace")


def _encoded(body: dict[str, Any]) -> bytes:
    return msgspec.json.encode(body)


def _quoted(body: bytes) -> str:
    return body[:_QUOTED].decode("ascii", "replace").strip() or "and nothing else"
