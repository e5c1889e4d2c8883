"""Making links: dial a node, or accept those who dial us; TLS first, then both Hellos.

Laws:
- A link is handed out only after the peer's Hello. In TLS 1.3 that is when a client knows that its
  certificate was accepted, so ``dial`` raises ``PeerRefused`` itself and not the first call.
- Handshakes are bounded in time and in number, and none waits for another.
- Private keys never touch a disk here: ``present_identity`` goes through anonymous memory.

It must not know who may connect: ``on_link`` looks at the peer's certificate and decides.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import trio

from swarmctl.core.errors import SwarmError, Unavailable

from . import tls
from .address import join_host_port
from .calls import LinkClosed, Multiplexer
from .link import RECEIVE_BYTES, Link, LinkSettings

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_log = logging.getLogger(__name__)

MAX_HANDSHAKES: Final = 256
"""Handshakes at once; more wait in the kernel's backlog. Each costs 4-8 ms of CPU."""

STRANGERS_MAX: Final = 256
"""Links at once with who shows no certificate, and the seconds that each may take: two calls."""
STRANGER_S: Final = 300.0

ALERT_S: Final = 1.0
"""How long a peer we refuse may take to read why."""


class Unreachable(Unavailable):
    """No connection to that address; the text says which and why."""


async def dial(
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    server_hostname: str,
    settings: LinkSettings | None = None,
) -> Link:
    """Connect to a node. The caller runs the link (``Link.run``) or hangs up (``Link.hang_up``).

    Args:
        context: one of ``tls``'s client contexts.
        server_hostname: the name that the server's certificate has to bear; its role, not a host.

    Raises:
        Unreachable: nothing answers at that address, or not in time; or it can be none.
        PeerRefused: the server does not accept our certificate.
        PeerUntrusted: we do not accept the server's.
        RemoteProtocolError: something else listens there, or another version of us.
        LinkClosed: the server hung up or closed the link, with its reason.
    """
    settings = settings or LinkSettings()
    address = join_host_port(host, port)
    try:
        with trio.fail_after(settings.connect_s):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError as error:
        raise Unreachable(
            f"cannot reach {address}: no answer within {settings.connect_s:g} s"
        ) from error
    except OSError as error:
        raise Unreachable(f"cannot reach {address}: {_why(error)}") from error
    except ValueError as error:  # a label that is empty or too long, a character that names lack
        raise Unreachable(f"cannot reach {address}: it is no valid host name") from error
    return await open_link(
        stream, context, dialling=True, server_hostname=server_hostname, settings=settings
    )


async def serve_links(
    listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
    get_context: Callable[[], ssl.SSLContext | None],
    on_link: Callable[[Link], Awaitable[None]],
    *,
    settings: LinkSettings | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Accept links until cancelled; closes the listeners at the end.

    Args:
        get_context: asked per connection, so a renewed certificate or a rotated root counts from
            the next one on; None for no TLS (tests).
        on_link: runs in the link's own task: looks at ``peer_certificate_der``, then awaits
            ``link.run(methods)``. A SwarmError it raises instead is told to the peer as the reason
            why the link is closed. The link is over when it returns.

    Cancellation: all links are hung up.
    """
    doorway = _Doorway(get_context, on_link, settings or LinkSettings())
    gated = [_Gate(listener, doorway.slots) for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, doorway.welcome, gated)
        task_status.started()
        await trio.sleep_forever()
    raise AssertionError("sleep_forever returned")


async def open_link(
    stream: trio.abc.Stream,
    context: ssl.SSLContext | None,
    *,
    dialling: bool,
    server_hostname: str | None = None,
    settings: LinkSettings | None = None,
) -> Link:
    """Make a link over any trio stream: TLS if there is a context, then both Hellos.

    Raises:
        As ``dial``; the stream is closed then.
    """
    settings = settings or LinkSettings()
    address = peer_address(stream)
    secured: _SecuredStream | None = None
    try:
        with trio.fail_after(settings.handshake_s):
            if context is None:
                return await _greet(stream, dialling, address, None, settings)
            secured = _SecuredStream(stream, context, server_hostname)
            certificate_der = await secured.shake_hands(dialling)
            return await _greet(secured.stream, dialling, address, certificate_der, settings)
    except BaseException as error:
        if secured is not None and isinstance(error, trio.BrokenResourceError):
            await secured.send_alert()  # noqa: ASYNC102 - shielded and bounded in there
        await trio.aclose_forcefully(stream)
        if isinstance(error, trio.TooSlowError):
            raise Unreachable(  # noqa: ASYNC104 - instead of a TooSlowError
                f"{address} accepted the connection, but did not finish its handshake within "
                f"{settings.handshake_s:g} s"
            ) from error
        if isinstance(error, trio.BrokenResourceError):
            why = tls.explain(error)
            raise (  # noqa: ASYNC104 - instead of a BrokenResourceError
                why or LinkClosed(f"{address} hung up during the handshake")
            ) from error
        raise


async def _greet(
    stream: trio.abc.Stream,
    dialling: bool,
    address: str,
    certificate_der: bytes | None,
    settings: LinkSettings,
) -> Link:
    mux = Multiplexer(dialling=dialling)
    await stream.send_all(mux.take_outgoing())
    link = Link(
        stream,
        mux,
        peer_address=address,
        peer_certificate_der=certificate_der,
        settings=settings,
    )
    await link.wait_greeted()
    return link


class _SecuredStream:
    """A TLS stream whose alerts reach the peer.

    When a handshake fails, OpenSSL writes the alert that says why, and trio's SSLStream drops it:
    the peer would learn no more than that we hung up. So we stand where SSLStream asks its context
    for the two buffers, and keep the outgoing one.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        server_hostname: str | None,
    ) -> None:
        self._transport = transport
        self._context = context
        self._server_hostname = server_hostname
        self._outgoing: ssl.MemoryBIO | None = None

    async def shake_hands(self, dialling: bool) -> bytes | None:
        """Do the handshake and return the peer's certificate in DER, if it showed one."""
        self.stream = trio.SSLStream(
            self._transport,
            cast("ssl.SSLContext", self),  # only wrap_bio is asked for
            server_hostname=self._server_hostname,
            server_side=not dialling,
            https_compatible=False,
        )
        await self.stream.do_handshake()
        return cast("bytes | None", self.stream.getpeercert(binary_form=True))

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **kwargs: Any
    ) -> ssl.SSLObject:
        """Stand in for the context's own, for SSLStream."""
        self._outgoing = outgoing
        return self._context.wrap_bio(incoming, outgoing, **kwargs)

    async def send_alert(self) -> None:
        """Send what OpenSSL had to say last, and wait a moment until the peer has read it."""
        alert = self._outgoing.read() if self._outgoing is not None else b""
        if not alert:
            return
        with trio.move_on_after(ALERT_S, shield=True), suppress(trio.BrokenResourceError):
            await self._transport.send_all(alert)
            if isinstance(self._transport, trio.abc.HalfCloseableStream):
                await self._transport.send_eof()
            # Closing on unread bytes is a reset, after which the kernel repeats no lost packet.
            while await self._transport.receive_some(RECEIVE_BYTES):
                pass


class _Doorway:
    """The accepting side: one task per connection, from handshake to end."""

    def __init__(
        self,
        get_context: Callable[[], ssl.SSLContext | None],
        on_link: Callable[[Link], Awaitable[None]],
        settings: LinkSettings,
    ) -> None:
        self._get_context = get_context
        self._on_link = on_link
        self._settings = settings
        self.slots = trio.Semaphore(MAX_HANDSHAKES)
        self._strangers = 0

    async def welcome(self, stream: trio.abc.Stream) -> None:
        context = self._get_context()
        try:
            link = await open_link(stream, context, dialling=False, settings=self._settings)
        except SwarmError as error:
            _log.info("a connection from %s came to nothing: %s", peer_address(stream), error)
            return
        finally:
            self.slots.release()
        try:
            if context is not None and link.peer_certificate_der is None:
                await self._serve_stranger(link)
            else:
                await self._on_link(link)
        except LinkClosed as error:
            _log.debug("%s", error)
        except SwarmError as error:
            _log.info("link from %s refused: %s", link.peer_address, error)
            link.close(error)
            with suppress(LinkClosed):
                await link.run()  # it carries the reason, and nothing else any more
        except Exception as error:  # what one peer sets off may not end the others' links
            if not _only_the_link_ended(error):
                _log.exception("link from %s failed", link.peer_address)
        finally:
            await link.hang_up()  # noqa: ASYNC102 - shielded and bounded in there

    async def _serve_stranger(self, link: Link) -> None:
        """Serve who shows no certificate: a node that joins, or whoever else can reach this port.

        Raises:
            Unavailable: there are enough of them.
        """
        if self._strangers >= STRANGERS_MAX:
            raise Unavailable("too many nodes without a certificate ask at once; try again")
        self._strangers += 1
        try:
            with trio.move_on_after(STRANGER_S) as scope:
                await self._on_link(link)
            if scope.cancelled_caught:
                _log.info("a link without a certificate from %s took too long", link.peer_address)
        finally:
            self._strangers -= 1


class _Gate(trio.abc.Listener[trio.abc.Stream]):
    """A listener that accepts while there is a slot for one more handshake."""

    def __init__(
        self, listener: trio.abc.Listener[trio.SocketStream], slots: trio.Semaphore
    ) -> None:
        self._listener = listener
        self._slots = slots

    async def accept(self) -> trio.abc.Stream:
        await self._slots.acquire()
        try:
            return await self._listener.accept()
        except BaseException:
            self._slots.release()
            raise

    async def aclose(self) -> None:
        await self._listener.aclose()


def present_identity(context: ssl.SSLContext, certificate_pem: str, key_pem: str) -> None:
    """Make ``context`` show this certificate.

    OpenSSL's Python binding reads keys from files only, so the two go through an anonymous file in
    memory: nothing to leave behind on a disk, nothing for another process to open by name.

    Raises:
        ssl.SSLError: the two do not belong together, or are no PEM.
    """
    fd = os.memfd_create("swarmctl-identity", os.MFD_CLOEXEC)
    with open(fd, "w", encoding="ascii") as memory:  # noqa: PTH123 - a descriptor, not a path
        memory.write(f"{key_pem}\n{certificate_pem}")
        memory.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")


def peer_address(stream: trio.abc.Stream) -> str:
    """Return host:port of the other end, in a form that names it in logs and errors."""
    if not isinstance(stream, trio.SocketStream):
        return "an in-memory peer"
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:  # it left at once
        return "a peer that has left"
    return join_host_port(host, port)


def _only_the_link_ended(error: Exception) -> bool:
    """True for the end of a link that came out of a nursery, where it may be the end of several."""
    return isinstance(error, BaseExceptionGroup) and error.split(LinkClosed)[1] is None


def _why(error: OSError) -> str:
    """Dig out the operating system's words: trio groups one error for each address it tried."""
    cause: BaseException | None = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    first = cause if isinstance(cause, OSError) else error
    if first.errno is not None and first.errno > 0:
        return os.strerror(first.errno)
    return first.strerror or str(first)  # name look-ups have numbers of their own
