"""Asking external CAs: one HTTPS request each, with this node's certificate, in the order given.

A shell around ``cfssl.py``. Laws:

- Each CA has TIMEOUT_S for everything, and its answer a limit; the next one is asked after it.
- The server is believed under the cluster's root (and the coming one), or the certificate that was
  configured with the CA; never under the system's.
- Nothing is retried here: whoever asked for a certificate asks again.

Must not know tables, or what a good certificate is.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from ..errors import InvalidArgument, RemoteProtocolError
from ..wire.connect import present_identity
from ..wire.http1 import ClientCodec, ResponseHead, Signal
from .cfssl import MAX_ANSWER_BYTES, ExternalCAFailed, certificate_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.cluster import ExternalCA
    from .credentials import Credentials

TIMEOUT_S = 5.0
RECEIVE_BYTES = 64 * 1024
HTTPS_PORT = 443

log = logging.getLogger(__name__)


class Endpoint:
    """Where an external CA listens.

    Raises:
        InvalidArgument: the URL is none that can be asked.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidArgument(
                f"the external CA's URL {url!r} cannot be read: {error}"
            ) from None
        if parts.scheme != "https" or not host:
            raise InvalidArgument(f"the external CA's URL {url!r} must be https://HOST[:PORT]/PATH")
        self.host = host
        self.port = port or HTTPS_PORT
        self.authority = parts.netloc.rpartition("@")[2]
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class ExternalCAs:
    """Asks external CAs in this node's name.

    Args:
        credentials: this node's identity, shown to each CA.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def sign(self, among: Sequence[ExternalCA], body: bytes, roots_pem: str) -> bytes:
        """Have a request signed by the first CA that does; what it answers is not checked yet.

        Args:
            body: the request, as ``cfssl.py`` writes it.
            roots_pem: what a CA's own certificate may lead to.

        Raises:
            ExternalCAFailed: none did; the text says of each why.
        """
        failures = []
        for each in among:
            try:
                with trio.fail_after(TIMEOUT_S):
                    return await self._ask(each, body, roots_pem)
            except trio.TooSlowError:
                failures.append(f"{each.URL}: no answer within {TIMEOUT_S:g} s")
            except (ExternalCAFailed, InvalidArgument) as error:
                failures.append(f"{each.URL}: {error}")
        raise ExternalCAFailed("no external CA signed: " + "; ".join(failures))

    async def first_reachable(self, among: Sequence[ExternalCA], roots_pem: str) -> ExternalCA:
        """Return the first CA that a TLS connection can be made to.

        Raises:
            ExternalCAFailed: there is none; the text says of each why.
        """
        failures = []
        for each in among:
            try:
                with trio.fail_after(TIMEOUT_S):
                    stream = await self._connect(Endpoint(each.URL), each, roots_pem)
                    await trio.aclose_forcefully(stream)
                    return each
            except trio.TooSlowError:
                failures.append(f"{each.URL}: no answer within {TIMEOUT_S:g} s")
            except (ExternalCAFailed, InvalidArgument) as error:
                failures.append(f"{each.URL}: {error}")
        raise ExternalCAFailed("; ".join(failures) or "none is configured")

    async def _ask(self, external: ExternalCA, body: bytes, roots_pem: str) -> bytes:
        endpoint = Endpoint(external.URL)
        stream = await self._connect(endpoint, external, roots_pem)
        try:
            status, answer = await _exchange(stream, endpoint, body)
        except (trio.BrokenResourceError, RemoteProtocolError) as error:
            raise ExternalCAFailed(f"it broke off its answer: {_why(error)}") from error
        finally:
            await trio.aclose_forcefully(stream)
        return certificate_in(status, answer)

    async def _connect(
        self, endpoint: Endpoint, external: ExternalCA, roots_pem: str
    ) -> trio.SSLStream[trio.SocketStream]:
        """Connect and finish the handshake."""
        context = self._context(roots_pem + external.CACert)
        try:
            transport = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        except OSError as error:
            raise ExternalCAFailed(f"cannot reach it: {_why(error)}") from error
        stream = trio.SSLStream(
            transport, context, server_hostname=endpoint.host, https_compatible=True
        )
        try:
            await stream.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError):
                raise ExternalCAFailed(  # noqa: ASYNC104 - instead of a BrokenResourceError
                    f"no TLS connection to it: {_why(error)}"
                ) from error
            raise
        return stream

    def _context(self, roots_pem: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=roots_pem)
        pair = self._credentials.material.pair
        present_identity(context, pair.cert_pem.decode("ascii"), pair.key_pem.decode("ascii"))
        return context


async def _exchange(
    stream: trio.SSLStream[trio.SocketStream], endpoint: Endpoint, body: bytes
) -> tuple[int, bytes]:
    """Send one POST and return status and body of the answer.

    Raises:
        ExternalCAFailed: the answer is too long.
    """
    codec = ClientCodec()
    headers = (
        ("Host", endpoint.authority),
        ("User-Agent", "swarmctl"),
        ("Content-Type", "application/json"),
        ("Connection", "close"),
    )
    await stream.send_all(codec.request("POST", endpoint.target, headers, body))
    while not isinstance(head := codec.next_head(), ResponseHead):
        codec.receive(await stream.receive_some(RECEIVE_BYTES))
    answer = bytearray()
    while (chunk := codec.next_chunk()) is not Signal.END:
        if isinstance(chunk, bytes):
            answer += chunk
        else:
            codec.receive(await stream.receive_some(RECEIVE_BYTES))
        if len(answer) > MAX_ANSWER_BYTES:
            raise ExternalCAFailed(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
    return head.status, bytes(answer)


def _why(error: BaseException) -> str:
    """Dig out the words of what went wrong underneath."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__
