"""Dialling and accepting, with real TLS: who is let in, and what the others are told."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from swarmctl.core.errors import PermissionDenied, RemoteProtocolError, Unavailable
from swarmctl.core.wire import connect, tls
from swarmctl.core.wire.calls import LinkClosed
from swarmctl.core.wire.connect import (
    Unreachable,
    dial,
    open_link,
    present_identity,
    serve_links,
)
from swarmctl.core.wire.link import Link, LinkSettings, Methods

from .certificates import Issued, issue, make_root

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

SERVER_NAME = "swarm-manager"


@cache
def root() -> Issued:
    return make_root()


@cache
def other_root() -> Issued:
    return make_root()


def server_context(server: Issued | None = None) -> ssl.SSLContext:
    server = server or issue(root(), SERVER_NAME)
    context = tls.server_context(root().pem)
    present_identity(context, server.pem, server.key_pem)
    return context


def client_context(node: Issued | None, trust: Issued | None = None) -> ssl.SSLContext:
    context = tls.client_context((trust or root()).pem)
    if node is not None:
        present_identity(context, node.pem, node.key_pem)
    return context


async def echo(_link: Link, body: bytes) -> bytes:
    return body


async def offer_echo(link: Link) -> None:
    await link.run(Methods(calls={"echo": echo}))


class Handshake:
    """Both ends of one handshake over a memory stream: a link, or what it raised."""

    def __init__(self) -> None:
        self.client: Link | Exception | None = None
        self.server: Link | Exception | None = None

    async def dial(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
        try:
            self.client = await open_link(
                stream, context, dialling=True, server_hostname=SERVER_NAME
            )
        except Exception as error:
            self.client = error

    async def accept(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> None:
        try:
            self.server = await open_link(stream, context, dialling=False)
        except Exception as error:
            self.server = error


async def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> Handshake:
    ours, theirs = trio.testing.memory_stream_pair()
    result = Handshake()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(result.dial, ours, client)
            nursery.start_soon(result.accept, theirs, server)
    return result


class TestTrust:
    async def test_both_sides_see_the_others_certificate(self) -> None:
        """A link gives the peer's certificate in DER, on both sides, and carries calls."""
        node, manager = issue(root(), "swarm-worker"), issue(root(), SERVER_NAME)
        result = await shake_hands(client_context(node), server_context(manager))
        assert isinstance(result.client, Link)
        assert isinstance(result.server, Link)
        assert result.server.peer_certificate_der == node.der
        assert result.client.peer_certificate_der == manager.der
        async with trio.open_nursery() as nursery:
            nursery.start_soon(suppressed, offer_echo, result.server)
            nursery.start_soon(suppressed, Link.run, result.client)
            assert await result.client.call("echo", b"x") == b"x"
            result.client.close("done")

    async def test_a_node_without_a_certificate_may_connect(self) -> None:
        """A joining node gets a link with no certificate; what it may do is decided above."""
        for context in (client_context(None), tls.unverified_client_context()):
            result = await shake_hands(context, server_context())
            assert isinstance(result.server, Link)
            assert result.server.peer_certificate_der is None

    @pytest.mark.parametrize(
        ("node", "words"),
        [
            (lambda: issue(other_root(), "swarm-worker"), "it belongs to another swarm"),
            (lambda: issue(root(), "swarm-worker", valid_days=(-10, -1)), "it has expired"),
            (lambda: issue(root(), "swarm-worker", valid_days=(1, 10)), "not yet"),
        ],
        ids=["foreign", "expired", "early"],
    )
    async def test_a_refused_client_is_told_why(self, node, words: str) -> None:
        """TLS 1.3 refuses after the client's handshake; the client still gets it in words."""
        result = await shake_hands(client_context(node()), server_context())
        assert isinstance(result.client, tls.PeerRefused)
        assert words in str(result.client)
        assert isinstance(result.server, tls.PeerUntrusted)

    @pytest.mark.parametrize(
        ("server", "words"),
        [
            (lambda: issue(other_root(), SERVER_NAME), "none of this swarm's"),
            (lambda: issue(root(), SERVER_NAME, valid_days=(-10, -1)), "it has expired"),
            (lambda: issue(root(), "swarm-worker"), "Hostname mismatch"),
        ],
        ids=["foreign", "expired", "wrong role"],
    )
    async def test_a_client_refuses_a_server_it_cannot_trust(self, server, words: str) -> None:
        """A foreign or expired server, or a worker that poses as manager, is PeerUntrusted."""
        result = await shake_hands(client_context(None), server_context(server()))
        assert isinstance(result.client, tls.PeerUntrusted)
        assert words in str(result.client)
        assert isinstance(result.server, (tls.PeerRefused, LinkClosed))

    async def test_two_roots_are_trusted_during_a_rotation(self) -> None:
        """Nodes of the old and of the new root meet under a bundle of both."""
        both = root().pem + other_root().pem
        server = tls.server_context(both)
        manager = issue(other_root(), SERVER_NAME)
        present_identity(server, manager.pem, manager.key_pem)
        client = tls.client_context(both)
        node = issue(root(), "swarm-worker")
        present_identity(client, node.pem, node.key_pem)
        result = await shake_hands(client, server)
        assert isinstance(result.client, Link)
        assert isinstance(result.server, Link)

    async def test_sessions_are_never_resumed(self) -> None:
        """A server gives no tickets, so every connection checks certificates anew."""
        assert server_context().num_tickets == 0

    async def test_older_tls_is_refused_in_words(self) -> None:
        """A peer that offers TLS 1.2 at most is told apart from one that is not trusted."""
        old = client_context(None)
        old.minimum_version = tls.ssl.TLSVersion.TLSv1_2
        old.maximum_version = tls.ssl.TLSVersion.TLSv1_2
        result = await shake_hands(old, server_context())
        assert isinstance(result.server, RemoteProtocolError)
        assert "does not speak TLS 1.3" in str(result.server)

    async def test_a_key_leaves_no_file_behind(self) -> None:
        """Showing a certificate opens no file that could be found, and leaks no descriptor."""
        node = issue(root(), "swarm-worker")
        before = open_descriptors()
        for _ in range(3):
            client_context(node)
        assert open_descriptors() == before

    async def test_a_key_that_does_not_fit_is_an_error(self) -> None:
        """Certificate and key of two different nodes are refused where they are loaded."""
        first, second = issue(root(), "a"), issue(root(), "b")
        with pytest.raises(tls.ssl.SSLError):
            present_identity(tls.client_context(root().pem), first.pem, second.key_pem)


def open_descriptors() -> int:
    """Count them, without those that other tests left to the garbage collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


async def suppressed(run, link: Link) -> None:
    with suppress(LinkClosed):
        await run(link)


@asynccontextmanager
async def listening(on_link=offer_echo, get_context=None, **options) -> AsyncIterator[int]:
    """Serve links on a loopback port: sockets are what dial, resets and backlogs are about."""
    context = server_context()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(
            lambda task_status: serve_links(
                listeners,
                get_context or (lambda: context),
                on_link,
                task_status=task_status,
                **options,
            )
        )
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def dial_local(port: int, context: ssl.SSLContext | None = None, **options) -> Link:
    context = context or client_context(issue(root(), "swarm-worker"))
    return await dial("127.0.0.1", port, context, server_hostname=SERVER_NAME, **options)


class TestSockets:
    async def test_dial_and_call(self) -> None:
        """A node dials another by address, checks its role's name, and calls."""
        async with listening() as port, trio.open_nursery() as nursery:
            link = await dial_local(port)
            assert link.peer_address == f"127.0.0.1:{port}"
            nursery.start_soon(suppressed, Link.run, link)
            assert await link.call("echo", b"x" * 500_000) == b"x" * 500_000
            link.close("done")

    async def test_a_refused_certificate_is_told_over_real_sockets(self) -> None:
        """The alert arrives although the server closes a connection with unread bytes in it."""
        foreign = client_context(issue(other_root(), "swarm-worker"))
        async with listening() as port:
            for _ in range(5):
                with pytest.raises(tls.PeerRefused, match="another swarm"):
                    await dial_local(port, foreign)

    async def test_a_refused_client_that_reads_late_is_told_all_the_same(self) -> None:
        """Bytes the server never read do not turn its alert into a reset."""
        foreign = client_context(issue(other_root(), "swarm-worker"))
        async with listening() as port:
            stream = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", port), foreign, server_hostname=SERVER_NAME
            )
            await stream.do_handshake()
            await stream.send_all(b"x" * 1000)
            await trio.testing.wait_all_tasks_blocked(0.2)  # real sockets: the server has closed
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(tls.explain(caught.value), tls.PeerRefused)
            await trio.aclose_forcefully(stream)

    async def test_an_on_link_that_refuses_gives_its_reason_to_the_peer(self) -> None:
        """Authorisation happens after TLS: its words reach the peer as LinkClosed.reason."""

        async def refuse(link: Link) -> None:
            raise PermissionDenied("node n1 was removed from the swarm")

        async with listening(refuse) as port:
            link = await dial_local(port)
            with pytest.raises(LinkClosed, match="was removed") as caught:
                await link.run()
            assert isinstance(caught.value.reason, PermissionDenied)

    async def test_a_bug_in_on_link_costs_one_link(self, caplog: pytest.LogCaptureFixture) -> None:
        """An unforeseen exception is logged; the listener goes on."""
        count = 0

        async def on_link(link: Link) -> None:
            nonlocal count
            count += 1
            if count == 1:
                raise ZeroDivisionError
            await offer_echo(link)

        async with listening(on_link) as port:
            first = await dial_local(port)
            with pytest.raises(LinkClosed, match=r"lost|hung up"):
                await first.run()
            async with trio.open_nursery() as nursery:
                second = await dial_local(port)
                nursery.start_soon(suppressed, Link.run, second)
                assert await second.call("echo", b"x") == b"x"
                second.close("done")
        assert "ZeroDivisionError" in caplog.text

    async def test_slow_handshakes_hold_up_nobody(self) -> None:
        """Twenty clients that connect and say nothing do not delay the one that speaks."""
        async with listening() as port:
            idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
            with trio.fail_after(5):
                link = await dial_local(port)
            await link.hang_up()
            for stream in idle:
                await stream.aclose()

    async def test_a_renewed_certificate_counts_from_the_next_connection(self) -> None:
        """The context is asked for per connection, so renewal needs no new listener."""
        first, second = issue(root(), SERVER_NAME), issue(root(), SERVER_NAME)
        contexts = [server_context(first), server_context(second)]
        async with listening(get_context=lambda: contexts.pop(0)) as port:
            for expected in (first, second):
                link = await dial_local(port)
                assert link.peer_certificate_der == expected.der
                await link.hang_up()

    async def test_addresses_where_nobody_listens_are_named(self) -> None:
        """The error says which address, and the system's reason."""
        with pytest.raises(Unreachable, match=r"cannot reach 127\.0\.0\.1:1: Connection refused"):
            await dial_local(1)

    @pytest.mark.parametrize("host", ["manager..example", "m" * 64, "m\u00e4nager_1"])
    async def test_a_host_that_can_have_no_such_name_is_named(self, host: str) -> None:
        """It is as unreachable as one that is not there, so that others are tried, too."""
        with pytest.raises(Unreachable, match=f"cannot reach {host}:1: it is no valid host name"):
            await dial(host, 1, client_context(None), server_hostname=SERVER_NAME)

    async def test_what_is_no_swarmctl_node_is_told_apart(self) -> None:
        """A port that speaks something else is a protocol error, not a refusal."""

        async def speak_ssh(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(trio.serve_listeners, speak_ssh, listeners)
            port = listeners[0].socket.getsockname()[1]
            with pytest.raises(RemoteProtocolError, match=r"does not speak TLS 1\.3"):
                await dial_local(port)
            nursery.cancel_scope.cancel()

    async def test_a_server_that_never_answers_is_given_up(self) -> None:
        """A port that accepts and then says nothing costs ``handshake_s``."""
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            with pytest.raises(Unreachable, match=r"handshake within 0\.1 s"):
                await dial_local(port, settings=LinkSettings(handshake_s=0.1))
            nursery.cancel_scope.cancel()
            await listeners[0].aclose()

    async def test_a_client_that_refuses_us_is_noted_and_no_more(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Port scans and strangers leave one line in the log and no traceback."""
        caplog.set_level(logging.INFO)
        async with listening() as port:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                while await stream.receive_some():
                    pass
            await trio.testing.wait_all_tasks_blocked()
        assert "came to nothing" in caplog.text
        assert "Traceback" not in caplog.text

    async def test_strangers_are_few_and_brief(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who shows no certificate gets one of few places and keeps it for a while; nodes do not
        compete with them."""
        monkeypatch.setattr(connect, "STRANGERS_MAX", 1)
        monkeypatch.setattr(connect, "STRANGER_S", 1.0)
        stranger = client_context(None)
        async with listening() as port, trio.open_nursery() as nursery:
            first = await dial_local(port, stranger)
            second = await dial_local(port, stranger)
            with pytest.raises(Unavailable, match="too many nodes without a certificate"):
                await second.run()
            node = await dial_local(port)
            nursery.start_soon(suppressed, Link.run, node)
            with trio.fail_after(20), pytest.raises(LinkClosed, match="hung up"):
                await first.run()
            third = await dial_local(port, stranger)
            nursery.start_soon(suppressed, Link.run, third)
            assert await third.call("echo", b"x") == b"x"
            assert await node.call("echo", b"y") == b"y"
            nursery.cancel_scope.cancel()
