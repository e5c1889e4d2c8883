"""The CA end to end: who is let in, by what, and in which words the others are not."""

from __future__ import annotations

from dataclasses import replace as replaced
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from swarmctl.core.api.forward import METHOD
from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca.calls import ISSUE, RENEW, ROOT_CA, IssueRequest, RenewRequest
from swarmctl.core.ca.credentials import (
    RENEWAL_PAUSE_S,
    Credentials,
    Material,
    join,
    renew,
    run_renewal,
)
from swarmctl.core.ca.issue import fresh_tokens, retire
from swarmctl.core.ca.keyfiles import KeyPair
from swarmctl.core.ca.x509 import (
    DAY_NS,
    HOUR_NS,
    Role,
    Signer,
    create_root,
    identity_of,
    new_key_and_csr,
    sign_node_certificate,
)
from swarmctl.core.errors import (
    CertificateRefused,
    InvalidCSR,
    InvalidJoinToken,
    PermissionDenied,
    SwarmError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnknownAuthority,
    WrongRole,
)
from swarmctl.core.manager.door import MANAGERS_ONLY
from swarmctl.core.model.change import Delete, Kind, Ref, Update
from swarmctl.core.model.codec import pack
from swarmctl.core.model.session import SESSION_METHOD
from swarmctl.core.together import run_until_first
from swarmctl.core.wire.tls import PeerRefused, PeerUntrusted, client_context

from .lone_manager import ADDRESS, LoneManager
from .memory_network import MemoryNetwork

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.still

DAY_S = 24 * 3600


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    return MemoryNetwork(monkeypatch)


@pytest.fixture
async def cluster(network: MemoryNetwork) -> AsyncIterator[LoneManager]:
    manager = LoneManager(network)
    async with manager.running():
        yield manager


async def try_to_join(cluster: LoneManager, token: str) -> Material:
    return await join([ADDRESS], token, "active", cluster.clock.now())


async def call(
    cluster: LoneManager, context: ssl.SSLContext, method: str, body: bytes = b""
) -> bytes:
    """Dial the manager, make one call, hang up."""
    dial = cluster.network.dialler("10.0.0.9")
    link = await dial("10.0.0.1", 2377, context, server_hostname=Role.MANAGER.unit)
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append(await link.call(method, body))

    await run_until_first(link.run, ask)
    return answers[0]


def anonymous(cluster: LoneManager) -> ssl.SSLContext:
    return client_context(cluster.cluster_private().ca_cert)


async def test_a_worker_token_makes_a_worker(cluster: LoneManager) -> None:
    """Joining gives a certificate of the token's role, and a row that knows its key."""
    material = await try_to_join(cluster, cluster.cluster_private().worker_token)
    joined = identity_of(material.pair.cert_pem)
    assert (joined.role, joined.cluster_id) == (Role.WORKER, "cluster")
    row = cluster.node(joined.node_id)
    assert row.private.public_key == joined.key_fingerprint
    assert row.api.Status.State == "unknown"


async def test_what_a_newcomer_claims_counts_for_nothing(cluster: LoneManager) -> None:
    """Only the key is taken from a signing request: the name is the CA's to give."""
    _, csr_pem = new_key_and_csr()
    token = cluster.cluster_private().worker_token
    ids = set()
    for _ in range(2):
        body = pack(IssueRequest(csr_pem=csr_pem, token=token))
        await call(cluster, anonymous(cluster), ISSUE, body)
        ids = {row.api.ID for row in cluster.view.nodes()}
    assert len(ids) == 3  # the manager, and one for each request


async def test_a_wrong_secret_is_refused(cluster: LoneManager) -> None:
    """A token of this swarm with another secret lets nobody in, and adds no node."""
    token = cluster.cluster_private().worker_token
    last = "0" if token[-1] != "0" else "1"
    with pytest.raises(
        InvalidJoinToken, match="its secret is neither the worker nor the manager secret"
    ):
        await try_to_join(cluster, token[:-1] + last)
    assert [row.api.ID for row in cluster.view.nodes()] == ["manager"]


async def test_a_rotated_token_is_named_as_such(cluster: LoneManager) -> None:
    """A token that was rotated away is refused, and the words say that it was."""
    private = cluster.cluster_private()
    row = cluster.view.cluster()
    assert row is not None
    fresh, _ = fresh_tokens(
        private.ca_cert.encode(), worker_secret=b"n" * 16, manager_secret=b"m" * 16
    )
    changed = replace(
        private,
        worker_token=fresh,
        retired_tokens=retire(private.retired_tokens, private.worker_token),
    )
    await cluster.write(Update(row=replace(row, private=changed)))
    with pytest.raises(InvalidJoinToken, match="rotated"):
        await try_to_join(cluster, private.worker_token)
    await try_to_join(cluster, fresh)


async def test_another_swarms_token_is_refused_before_it_is_shown(cluster: LoneManager) -> None:
    """A token whose digest is not of the root that answers is never sent there."""
    foreign, _ = fresh_tokens(
        create_root(cluster.clock.now()).cert_pem,
        worker_secret=b"n" * 16,
        manager_secret=b"m" * 16,
    )
    before = cluster.network.dialled
    with pytest.raises(UnknownAuthority, match="the token belongs to another swarm"):
        await try_to_join(cluster, foreign)
    assert cluster.network.dialled == before + 1  # the root was fetched, and nothing after it


@pytest.mark.parametrize("token", ["", "SWMTKN-1", "SWMTKN-2-a-b", "x" * 500])
async def test_what_is_no_token_is_refused_without_a_call(cluster: LoneManager, token: str) -> None:
    """A mistyped token asks nobody."""
    before = cluster.network.dialled
    with pytest.raises(InvalidJoinToken):
        await try_to_join(cluster, token)
    assert cluster.network.dialled == before


async def test_a_manager_token_makes_a_manager(cluster: LoneManager) -> None:
    """The token decides the role: its holder gets a manager's certificate, and no vote yet."""
    material = await try_to_join(cluster, cluster.cluster_private().manager_token)
    identity = identity_of(material.pair.cert_pem)
    assert identity.role is Role.MANAGER
    row = cluster.node(identity.node_id)
    assert (row.api.Spec.Role, row.private.role, row.private.raft_id) == ("manager", "manager", 0)


async def test_the_next_address_is_tried(cluster: LoneManager) -> None:
    """A manager that does not answer is no reason not to ask the next one."""
    token = cluster.cluster_private().worker_token
    now = cluster.clock.now()
    await join(["10.0.0.99:2377", ADDRESS], token, "active", now)
    with pytest.raises(Unavailable, match=r"10\.0\.0\.98:2377"):
        await join(["10.0.0.99:2377", "10.0.0.98:2377"], token, "active", now)


async def test_a_bad_availability_or_request_is_refused(cluster: LoneManager) -> None:
    """What is wrong with a request is said; nothing is written."""
    token = cluster.cluster_private().worker_token
    with pytest.raises(SwarmError, match='invalid Availability: "lazy"'):
        await join([ADDRESS], token, "lazy", cluster.clock.now())
    body = pack(IssueRequest(csr_pem=b"no request", token=token))
    with pytest.raises(InvalidCSR):
        await call(cluster, anonymous(cluster), ISSUE, body)
    assert len(list(cluster.view.nodes())) == 1


# --- who may ask for what ------------------------------------------------------------------------


async def test_without_a_certificate_two_calls_are_open(cluster: LoneManager) -> None:
    """An anonymous peer gets the root and may ask to be let in; everything else needs a name."""
    context = anonymous(cluster)
    assert cluster.cluster_private().ca_cert.encode() in await call(cluster, context, ROOT_CA)
    for method in (RENEW, "anything"):
        with pytest.raises(Unauthenticated, match=f"{method} needs a node certificate"):
            await call(cluster, context, method)
    with pytest.raises(Unauthenticated, match=f"{SESSION_METHOD} needs a node certificate"):
        await open_session(cluster, context)


async def open_session(cluster: LoneManager, context: ssl.SSLContext) -> None:
    dial = cluster.network.dialler("10.0.0.9")
    link = await dial("10.0.0.1", 2377, context, server_hostname=Role.MANAGER.unit)

    async def ask() -> None:
        async with link.open_stream(SESSION_METHOD) as stream:
            await stream.receive()

    await run_until_first(link.run, ask)


async def test_a_certificate_of_another_swarm_is_refused(cluster: LoneManager) -> None:
    """Another swarm's node is turned away at the handshake, in words; and turns us away."""
    root = create_root(cluster.clock.now())
    foreign = material_of(cluster, Signer.from_pem(root.cert_pem, root.key_pem), root.cert_pem)
    with pytest.raises(PeerUntrusted, match=r"another swarm|none of this swarm's"):
        await call(cluster, foreign.client_context(), RENEW)
    ours = replaced(foreign.material, root_pem=cluster.cluster_private().ca_cert.encode())
    with pytest.raises(PeerRefused, match="another swarm"):
        await call(cluster, unchecked(ours), RENEW)


def material_of(
    cluster: LoneManager,
    signer: Signer,
    root_pem: bytes,
    *,
    cluster_id: str = "cluster",
    now_ns: int | None = None,
    life_ns: int = 90 * DAY_NS,
) -> Credentials:
    now_ns = now_ns if now_ns is not None else cluster.clock.now()
    key_pem, csr_pem = new_key_and_csr()
    chain = sign_node_certificate(
        signer,
        csr_pem,
        node_id="w1",
        role=Role.WORKER,
        cluster_id=cluster_id,
        expiry_ns=life_ns,
        now_ns=now_ns,
    )
    return Credentials(Material(root_pem, KeyPair(chain, key_pem)), now_ns)


def unchecked(material: Material) -> ssl.SSLContext:
    """A context that shows a certificate which does not fit the roots."""
    context = client_context(material.root_pem.decode())
    identity.present_identity(
        context, material.pair.cert_pem.decode(), material.pair.key_pem.decode()
    )
    return context


def own_signer(cluster: LoneManager) -> tuple[Signer, bytes]:
    private = cluster.cluster_private()
    root_pem = private.ca_cert.encode()
    return Signer.from_pem(root_pem, private.ca_key.encode()), root_pem


async def test_an_expired_certificate_is_refused(cluster: LoneManager) -> None:
    """A node that slept past its certificate's end is told that it has expired."""
    signer, root_pem = own_signer(cluster)
    old = material_of(cluster, signer, root_pem, life_ns=2 * HOUR_NS)  # the clock is days behind
    with pytest.raises(PeerRefused, match="it has expired"):
        await call(cluster, old.client_context(), RENEW)
    with pytest.raises(CertificateRefused, match="expired"):
        Credentials(old.material, cluster.clock.now() + 3 * HOUR_NS)


async def test_a_certificate_for_another_cluster_id_is_refused(cluster: LoneManager) -> None:
    """The same root and another cluster's id: a swarm that was founded anew from old keys."""
    signer, root_pem = own_signer(cluster)
    other = material_of(cluster, signer, root_pem, cluster_id="othercluster")
    with pytest.raises(SwarmError, match="is for cluster othercluster, this is cluster cluster"):
        await call(cluster, other.client_context(), RENEW)


async def test_a_node_that_nobody_knows_is_refused(cluster: LoneManager) -> None:
    """A good certificate whose node has no row may call nothing."""
    stranger = cluster.certify("w9")
    with pytest.raises(PermissionDenied, match="node w9 is not known in this swarm"):
        await call(cluster, stranger.client_context(), RENEW)


async def test_a_removed_nodes_calls_are_refused_as_such(cluster: LoneManager) -> None:
    """A node that was removed is told so, on calls and on renewal, until its certificate ends."""
    removed = await cluster.admit("w1")
    row = cluster.view.cluster()
    assert row is not None
    gone = replace(row.private, removed_nodes={"w1": 1})
    await cluster.write(
        Delete(ref=Ref(Kind.NODE, "w1"), version=cluster.node("w1").api.Version.Index),
        Update(row=replace(row, private=gone)),
    )
    _, csr_pem = new_key_and_csr()
    with pytest.raises(PermissionDenied, match="node w1 was removed from the swarm"):
        await call(cluster, removed.client_context(), RENEW, pack(RenewRequest(csr_pem=csr_pem)))


async def test_what_is_for_managers_is_refused_to_a_worker(cluster: LoneManager) -> None:
    """A worker's certificate does not get a client's request answered; a manager's may try."""
    worker = await cluster.admit("w1")
    for method in sorted(MANAGERS_ONLY):
        with pytest.raises(WrongRole, match=f"shows a worker's certificate; {method} needs a"):
            await call(cluster, worker.client_context(), method)
    with pytest.raises(Unimplemented, match="offers no call api"):
        await call(cluster, cluster.credentials.client_context(), METHOD)


# --- renewal -------------------------------------------------------------------------------------


async def test_a_renewal_replaces_files_and_live_settings(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """A renewed certificate has a new key, is on the disk, and is shown from the next dial on."""
    credentials = await cluster.admit("w1")
    identity.store(tmp_path, credentials.material)
    before, changed = credentials.identity, credentials.changed
    context = credentials.client_context()
    await renew(credentials, tmp_path, [ADDRESS], cluster.clock.now())
    assert changed.is_set()
    assert credentials.identity.node_id == "w1"
    assert credentials.identity.key_fingerprint != before.key_fingerprint
    assert credentials.client_context() is not context
    assert identity.load(tmp_path) == credentials.material
    assert cluster.node("w1").private.public_key == credentials.identity.key_fingerprint
    await renew(credentials, tmp_path, [ADDRESS], cluster.clock.now())  # the new one is good too


async def test_a_failed_renewal_changes_nothing(cluster: LoneManager, tmp_path: Path) -> None:
    """When nobody answers the old certificate stays in use, and the error names who was asked."""
    credentials = await cluster.admit("w1")
    before = credentials.material
    with pytest.raises(Unavailable, match=r"10\.0\.0\.99:2377"):
        await renew(credentials, tmp_path, ["10.0.0.99:2377"], cluster.clock.now())
    with pytest.raises(Unavailable, match="no manager is known"):
        await renew(credentials, tmp_path, [], cluster.clock.now())
    assert credentials.material is before


async def happens(event: trio.Event) -> None:
    """Wait for what takes a real disk's time, while ours stands still."""
    for _ in range(1_000):
        if event.is_set():
            return
        await trio.testing.wait_all_tasks_blocked(cushion=0.03)
    raise AssertionError("it did not happen within half a minute")


class Bell:
    """Asks for a renewal when rung."""

    def __init__(self) -> None:
        self.rung = trio.Event()

    async def wait(self) -> None:
        await self.rung.wait()
        self.rung = trio.Event()


async def test_renewal_waits_for_its_time_or_its_word(cluster: LoneManager, tmp_path: Path) -> None:
    """A certificate is renewed between half and four fifths of its life, or when asked for."""
    credentials = await cluster.admit("w1", days=21)
    bell = Bell()
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(run_renewal, credentials, tmp_path, lambda: [ADDRESS], bell.wait, cluster.clock)
        )
        first, changed = credentials.material, credentials.changed
        clock.jump(10 * DAY_S)
        await cluster.elapse(60)
        assert credentials.material is first
        clock.jump(7 * DAY_S)
        await happens(changed)
        second, changed = credentials.material, credentials.changed  # good for 90 days
        clock.jump(DAY_S)
        await cluster.elapse(60)
        assert credentials.material is second
        bell.rung.set()
        await happens(changed)
        nursery.cancel_scope.cancel()


async def test_a_clock_far_ahead_does_not_flood_the_ca(
    cluster: LoneManager, tmp_path: Path
) -> None:
    """When each new certificate seems due at once, renewals still come a minute apart."""
    credentials = await cluster.admit("w1")
    bell = Bell()

    class Ahead:
        def now(self) -> int:
            return cluster.clock.now() + 80 * DAY_NS

    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    changed = credentials.changed
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(run_renewal, credentials, tmp_path, lambda: [ADDRESS], bell.wait, Ahead())
        )
        for _ in range(3):
            await happens(changed)
            renewed, changed = credentials.material, credentials.changed
            dialled = cluster.network.dialled
            clock.jump(RENEWAL_PAUSE_S - 1)
            await trio.testing.wait_all_tasks_blocked(cushion=0.05)
            assert cluster.network.dialled == dialled
            assert credentials.material is renewed
            clock.jump(1)
        nursery.cancel_scope.cancel()
