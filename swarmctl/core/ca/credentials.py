"""What a node proves itself with, and how it comes by it: join, renew, and TLS settings made of it.

A shell: it dials managers and reads and writes the key files. One :class:`Credentials` lives as
long as the node is in a swarm; a renewal replaces what is inside, and every connection made later
uses the new certificate. It must not know tables or tasks.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..errors import (
    CertificateRefused,
    InvalidArgument,
    NoLeader,
    SwarmError,
    Unavailable,
    UnknownAuthority,
)
from ..model.codec import pack, unpack
from ..wire.connect import dial, present_identity
from ..wire.tls import client_context, server_context, unverified_client_context
from . import keyfiles
from .calls import (
    ISSUE,
    RENEW,
    ROOT_CA,
    CertificateAnswer,
    IssueRequest,
    RenewRequest,
    RootAnswer,
)
from .chain import renewal_time, tls_info, verify_chain
from .livelinks import LiveLinks
from .returning import returning_request
from .token import parse_token, require_root
from .x509 import Role, identity_of, new_key_and_csr

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from ..clock import Clock
    from ..wire.link import Link, LinkSettings
    from .chain import TrustInfo
    from .x509 import Identity

MANAGER_NAME = Role.MANAGER.unit
JOIN_TIMEOUT_S = 20.0
RENEW_TIMEOUT_S = 20.0  # external CAs may be asked meanwhile, five seconds each
RETRY_FIRST_S = 5.0
RETRY_MAX_S = 3600.0
DOUBLINGS_MAX = 16
RENEWAL_PAUSE_S = 60.0

log = logging.getLogger(__name__)


Dial = Callable[[str], Awaitable["Link"]]


@dataclass(frozen=True)
class Material:
    """A certificate with its key and the roots it is trusted by."""

    root_pem: bytes
    pair: keyfiles.KeyPair


class Credentials:
    """This node's identity as it is now.

    Attributes:
        changed: set when the certificate or the trusted roots are others; a new one waits then.
        changing: held by whoever writes them to the disk and then here.
        told_root: the roots that a manager last said are to be trusted.
        links: the links that this node has dialled and accepted.
        passphrase: encrypts the key on the disk while this is a locked manager; else empty.
        unlock_key: opens that manager's database; None while it is not locked.

    Raises:
        CertificateRefused: at construction, when the certificate does not fit the roots or is past
            its end; the text says which.
    """

    def __init__(self, material: Material, now_ns: int) -> None:
        self.changed = trio.Event()
        self.changing = trio.Lock()
        self.told_root = material.root_pem
        self.links = LiveLinks()
        self.passphrase = b""
        self.unlock_key: bytes | None = None
        self._set(material, now_ns)

    def replace(self, material: Material, now_ns: int) -> None:
        """Use another certificate from now on, and tell who waits for ``changed``."""
        self._set(material, now_ns)
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    def _set(self, material: Material, now_ns: int) -> None:
        self.identity: Identity = verify_chain(
            material.pair.cert_pem, material.root_pem, now_ns=now_ns
        )
        self.material = material
        self._server = self._present(server_context(material.root_pem.decode("ascii")))
        self._client = self._present(client_context(material.root_pem.decode("ascii")))

    def _present(self, context: ssl.SSLContext) -> ssl.SSLContext:
        pair = self.material.pair
        present_identity(context, pair.cert_pem.decode("ascii"), pair.key_pem.decode("ascii"))
        return context

    @property
    def node_id(self) -> str:
        return self.identity.node_id

    @property
    def cluster_id(self) -> str:
        return self.identity.cluster_id

    @property
    def role(self) -> Role:
        return self.identity.role

    def has_expired(self, now_ns: int) -> bool:
        """True if the certificate is past its end."""
        return now_ns > self.identity.not_after_ns

    def passphrase_of(self, material: Material) -> bytes:
        """Return what encrypts a certificate's key on the disk.

        A worker's is never encrypted: it has no database that would keep what opens it.
        """
        role = identity_of(material.pair.cert_pem).role
        return self.passphrase if role is Role.MANAGER else b""

    def server_context(self) -> ssl.SSLContext:
        """TLS settings for accepting other nodes."""
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """TLS settings for dialling a manager."""
        return self._client

    async def dial(self, address: str, settings: LinkSettings | None = None) -> Link:
        """Make a link to the manager at ``host:port``, as this node; the caller runs it.

        Raises:
            As ``wire.connect.dial``.
        """
        host, port = split_address(address)
        link = await dial(host, port, self._client, server_hostname=MANAGER_NAME, settings=settings)
        return self.links.add(link)

    async def run_links(self, clock: Clock) -> None:
        """End links whose peers the trusted roots vouch for no more, until cancelled."""
        await self.links.run(lambda: (self.material.root_pem, self.changed), clock)

    def trust_info(self) -> TrustInfo:
        """Who signed this certificate, for the node's description."""
        return tls_info(self.material.root_pem, self.material.pair.cert_pem)


# --- joining -------------------------------------------------------------------------------------


async def join(addresses: Sequence[str], token: str, availability: str, now_ns: int) -> Material:
    """Become a node of a swarm: fetch the root, check it against the token, have a key signed.

    Args:
        addresses: managers to try in turn, ``host:port``.
        token: a join token; its digest decides which root is believed.

    Raises:
        InvalidJoinToken: it is no token, not of the swarm that answers, or rotated away.
        Unreachable: none of the addresses answered; the text names the last and why.
    """
    key_pem, csr_pem = new_key_and_csr()
    request = IssueRequest(csr_pem=csr_pem, token=token, availability=availability)
    return await _enter(addresses, request, key_pem, now_ns)


async def come_back(
    addresses: Sequence[str], token: str, expired: Material, now_ns: int
) -> Material:
    """Get a new certificate for a node whose own has expired, as the same node.

    Args:
        token: a join token of the node's role.
        expired: what the node has.

    Raises:
        InvalidJoinToken, Unreachable: as ``join``.
        PermissionDenied: the node is no member any more, or this is an old copy of its state.
        CertificateRefused: what was signed is not for this node, or the clock here is wrong.
    """
    key_pem, csr_pem = new_key_and_csr()
    pair = expired.pair
    request = returning_request(
        csr_pem, token, old_chain_pem=pair.cert_pem, old_key_pem=pair.key_pem
    )
    material = await _enter(addresses, request, key_pem, now_ns)
    _require_same_node(material.pair.cert_pem, pair.cert_pem)
    return material


async def _enter(
    addresses: Sequence[str], request: IssueRequest, key_pem: bytes, now_ns: int
) -> Material:
    """Make a request by token at the first manager that answers."""
    parsed = parse_token(request.token)
    failure: SwarmError = InvalidArgument("at least 1 RemoteAddr is required to join")
    for address in addresses:
        host, port = split_address(address)
        try:
            root_pem = await _fetch_root(host, port)
            require_root(parsed, root_pem)
            context = client_context(root_pem.decode("ascii"))
            answer = await _ask(host, port, context, ISSUE, pack(request))
        except (Unavailable, NoLeader) as error:
            failure = error
            continue
        material = Material(root_pem, keyfiles.KeyPair(answer.cert_pem, key_pem))
        verify_chain(answer.cert_pem, root_pem, now_ns=now_ns)
        return material
    raise failure


async def _fetch_root(host: str, port: int) -> bytes:
    context = unverified_client_context()
    link = await dial(host, port, context, server_hostname=MANAGER_NAME)
    data = await call_once(link, ROOT_CA, b"")
    return unpack(data, RootAnswer).root_pem


async def _ask(
    host: str, port: int, context: ssl.SSLContext, method: str, body: bytes
) -> CertificateAnswer:
    link = await dial(host, port, context, server_hostname=MANAGER_NAME)
    return unpack(await call_once(link, method, body), CertificateAnswer)


async def call_once(link: Link, method: str, body: bytes) -> bytes:
    """Make one call over a link of its own, which ends with it.

    Raises:
        SwarmError: what the other side raised; Unavailable when it takes ``JOIN_TIMEOUT_S``.
    """
    answer = b""
    failure: SwarmError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run_quietly, link)
        try:
            with trio.fail_after(JOIN_TIMEOUT_S):
                answer = await link.call(method, body)
        except trio.TooSlowError:
            failure = Unavailable(f"{link.peer_address} did not answer in {JOIN_TIMEOUT_S:g} s")
        except SwarmError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return answer


async def _run_quietly(link: Link) -> None:
    """Run a link for somebody who learns from its calls how it ended."""
    try:
        await link.run()
    except SwarmError as error:
        log.debug("link to %s ended: %s", link.peer_address, error)


# --- renewing ------------------------------------------------------------------------------------


async def run_renewal(
    credentials: Credentials,
    state_dir: Path,
    managers: Callable[[], Sequence[str]],
    wait_asked: Callable[[], Awaitable[None]],
    clock: Clock,
) -> None:
    """Renew this node's certificate between 50 and 80 % of its life, until cancelled.

    Args:
        managers: where to ask, as known at that moment.
        wait_asked: returns when a manager wants a new certificate now.
    """
    draw = random.SystemRandom().random
    failures = 0
    pause_s = 0.0
    while True:
        identity = credentials.identity
        due = renewal_time(identity.not_before_ns, identity.not_after_ns, draw=draw())
        wait_s = max(pause_s, (due - clock.now()) / 1e9)
        if failures:
            wait_s = draw() * min(RETRY_FIRST_S * 2 ** min(failures, DOUBLINGS_MAX), RETRY_MAX_S)
        with trio.move_on_after(wait_s):
            await wait_asked()
        try:
            await renew(credentials, state_dir, managers(), clock.now())
        except SwarmError as error:
            failures += 1
            log.warning("the node certificate could not be renewed yet: %s", error)
        else:
            failures = 0
            pause_s = RENEWAL_PAUSE_S  # with a clock far ahead every certificate seems due at once
            log.info("the node certificate was renewed")


async def renew(
    credentials: Credentials, state_dir: Path, addresses: Sequence[str], now_ns: int
) -> None:
    """Have a fresh key signed, store it and use it.

    Raises:
        SwarmError: no manager could be asked, or none signed; nothing changed.
    """
    key_pem, csr_pem = new_key_and_csr()
    failure: SwarmError = Unavailable("no manager is known to ask for a certificate")
    for address in addresses:
        host, port = split_address(address)
        try:
            with trio.fail_after(RENEW_TIMEOUT_S):
                answer = await _ask(
                    host,
                    port,
                    credentials.client_context(),
                    RENEW,
                    pack(RenewRequest(csr_pem=csr_pem)),
                )
        except (SwarmError, trio.TooSlowError) as error:
            failure = error if isinstance(error, SwarmError) else Unavailable(f"{address} is slow")
            continue
        _require_same_node(answer.cert_pem, credentials.material.pair.cert_pem)
        async with credentials.changing:
            roots = (credentials.told_root, credentials.material.root_pem, answer.root_pem)
            root_pem = _first_vouching(roots, answer.cert_pem, now_ns)
            material = Material(root_pem, keyfiles.KeyPair(answer.cert_pem, key_pem))
            passphrase = credentials.passphrase_of(material)
            await trio.to_thread.run_sync(store, state_dir, material, passphrase)
            credentials.replace(material, now_ns)
        return
    raise failure


async def take(credentials: Credentials, state_dir: Path, material: Material, now_ns: int) -> None:
    """Store another certificate of this node and use it.

    Raises:
        CertificateRefused, StorageFailed: it cannot be used, or not be kept; nothing changed.
    """
    async with credentials.changing:
        verify_chain(material.pair.cert_pem, material.root_pem, now_ns=now_ns)
        passphrase = credentials.passphrase_of(material)
        await trio.to_thread.run_sync(store, state_dir, material, passphrase)
        credentials.replace(material, now_ns)


async def trust(credentials: Credentials, state_dir: Path, root_pem: bytes, now_ns: int) -> None:
    """Trust other roots from now on, if they still vouch for this node's own certificate.

    Raises:
        CertificateRefused: they do not; nothing changed, and the next renewal tries them again.
        StorageFailed: the disk refused; nothing changed.
    """
    async with credentials.changing:
        credentials.told_root = root_pem
        material = Material(root_pem, credentials.material.pair)
        if material == credentials.material:
            return
        verify_chain(material.pair.cert_pem, root_pem, now_ns=now_ns)
        await trio.to_thread.run_sync(keyfiles.save_root, state_dir, root_pem)
        credentials.replace(material, now_ns)
        log.info("this node trusts another root CA now")


def _first_vouching(roots: Sequence[bytes], chain_pem: bytes, now_ns: int) -> bytes:
    """Return the first roots that a chain leads to.

    What the leader says to everybody counts before what came with a certificate, which may have
    been overtaken.

    Raises:
        CertificateRefused: none does.
    """
    *earlier, last = roots
    for root_pem in earlier:
        with suppress(UnknownAuthority):
            verify_chain(chain_pem, root_pem, now_ns=now_ns)
            return root_pem
    verify_chain(chain_pem, last, now_ns=now_ns)
    return last


def _require_same_node(new_chain_pem: bytes, old_chain_pem: bytes) -> None:
    new, old = identity_of(new_chain_pem), identity_of(old_chain_pem)
    if (new.cluster_id, new.node_id) != (old.cluster_id, old.node_id):
        raise CertificateRefused("the manager signed a certificate of another node")


# --- on disk -------------------------------------------------------------------------------------


def store(state_dir: Path, material: Material, passphrase: bytes = b"") -> None:
    """Write the identity; blocking.

    At every moment the roots on the disk vouch for the certificate there: while the certificate
    changes, both the old roots and the new ones are.

    Args:
        passphrase: encrypts the key on the disk of a locked manager.

    Raises:
        StorageFailed: the disk refused; what was there before still is.
    """
    old_root_pem = keyfiles.read_root(state_dir)
    if old_root_pem not in (None, material.root_pem):
        keyfiles.save_root(state_dir, material.root_pem + old_root_pem)
    elif old_root_pem is None:
        keyfiles.save_root(state_dir, material.root_pem)
    keyfiles.save_pair(state_dir, material.pair, passphrase=passphrase)
    if old_root_pem not in (None, material.root_pem):
        keyfiles.save_root(state_dir, material.root_pem)


def load(state_dir: Path, passphrase: bytes = b"") -> Material:
    """Read the identity; blocking.

    Args:
        passphrase: of the key, on a locked manager.

    Raises:
        IdentityMissing, IdentityBroken: see ``keyfiles.load``.
    """
    stored = keyfiles.load(state_dir, passphrase=passphrase)
    return Material(stored.root_pem, stored.pair)


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` (IPv6 hosts in brackets).

    Raises:
        InvalidArgument: not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"{address!r} is no address: expected HOST:PORT")
    return host.strip("[]"), int(port)
