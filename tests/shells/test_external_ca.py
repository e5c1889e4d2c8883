"""External CAs: asked over real HTTPS on loopback, believed only for what was asked."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca import external
from swarmctl.core.ca.cfssl import MAX_ANSWER_BYTES
from swarmctl.core.ca.x509 import Role, create_root, identity_of, new_key_and_csr
from swarmctl.core.clock import SystemClock
from swarmctl.core.errors import InvalidArgument, Unavailable
from swarmctl.core.model.change import Update
from swarmctl.core.model.cluster import ExternalCA
from tests.api.running import RunningApi, running_api
from tests.ports import free_port

from .cfssl_server import CfsslServer, refused, signed
from .local_swarm import Machine, private_of, until, write
from .test_root_rotation import behind, cluster_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from swarmctl.core.ca.credentials import Material
    from swarmctl.core.node import LocalNode


class Founded:
    """A swarm of one manager, and a CA outside that holds its root's key too."""

    def __init__(self, manager: LocalNode, address: str, folder: Path) -> None:
        self.manager = manager
        self.address = address
        private = private_of(manager)
        self.outside = CfsslServer(folder, private.ca_cert, private.ca_key)

    async def configure(self, *urls: str, drop_key: bool = False) -> None:
        """Name external CAs in the settings, and perhaps leave the key to them alone."""
        row = cluster_of(self.manager)
        named = tuple(ExternalCA(Protocol="cfssl", URL=url) for url in urls)
        config = replace(row.api.Spec.CAConfig, ExternalCAs=named)
        api = replace(row.api, Spec=replace(row.api.Spec, CAConfig=config))
        private = replace(row.private, ca_key="") if drop_key else row.private
        await write(self.manager, Update(row=replace(row, api=api, private=private)))

    async def join(self) -> Material:
        """Become a worker."""
        token = private_of(self.manager).worker_token
        return await identity.join([self.address], token, "active", SystemClock().now())


@asynccontextmanager
async def founded(folder: Path) -> AsyncIterator[Founded]:
    boss = Machine(folder / "boss")
    async with boss.daemon() as manager:
        await boss.init(manager)
        yield Founded(manager, boss.address, folder)


async def test_the_external_ca_is_asked_first(tmp_path: Path) -> None:
    """A configured CA signs although the key is here; the manager shows it its own certificate,
    and the request is the one that Docker's managers send."""
    async with founded(tmp_path) as swarm:
        with swarm.outside.serving():
            await swarm.configure(swarm.outside.url)
            material = await swarm.join()
        joined = identity_of(material.pair.cert_pem)
        ((client, body),) = swarm.outside.asked
        assert client == swarm.manager.node_id
        assert body["subject"] == {
            "CN": joined.node_id,
            "names": [{"OU": "swarm-worker", "O": swarm.manager.cluster_id}],
        }
        assert body["hosts"] == ["swarm-worker", joined.node_id]
        assert "profile" not in body
        assert joined.role is Role.WORKER


async def test_our_own_key_signs_when_nobody_outside_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead, silent and refusing CAs are each passed over in their time; the node gets in."""
    monkeypatch.setattr(external, "TIMEOUT_S", 0.5)
    silent = threading.Event()
    async with founded(tmp_path) as swarm:

        def hang(_body: dict[str, Any]) -> tuple[int, bytes]:
            silent.wait(10)
            return refused("too late")

        with swarm.outside.serving():
            swarm.outside.behave = hang
            dead = f"https://localhost:{free_port()}/sign"
            await swarm.configure(dead, swarm.outside.url, "ftp://nowhere")
            began = trio.current_time()
            await swarm.join()
            silent.set()
        assert trio.current_time() - began < 5
        assert len(swarm.outside.asked) == 1


async def test_a_swarm_without_a_key_waits_for_its_ca(tmp_path: Path) -> None:
    """With the key outside only, nobody gets a certificate while that CA is down; the refusal
    says so, nothing is written, and the same request succeeds when it is back."""
    port = free_port()
    async with founded(tmp_path) as swarm:
        assert swarm.manager.manager is not None
        view = swarm.manager.manager.view
        await swarm.configure(f"https://localhost:{port}/sign", drop_key=True)
        with pytest.raises(Unavailable, match="no external CA signed: https://localhost"):
            await swarm.join()
        assert len(list(view.nodes())) == 1
        with swarm.outside.serving(port):
            await swarm.join()
        await swarm.configure()
        with pytest.raises(Unavailable, match="CA key is with an external CA, and none is config"):
            await swarm.join()
        assert len(list(view.nodes())) == 2


async def test_what_comes_back_has_to_be_what_was_asked_for(tmp_path: Path) -> None:
    """Errors, nonsense, too much, and certificates for another key, node, role or issuer or
    without the names are refused, and the words say which."""
    async with founded(tmp_path) as swarm:
        ca = swarm.outside
        stranger = create_root(SystemClock().now())
        foreign = CfsslServer(tmp_path, stranger.cert_pem.decode(), stranger.key_pem.decode())

        def other(**change: Any) -> Any:
            return lambda body: signed(ca.sign({**body, **change}))

        def as_subject(node_id: str, unit: str) -> dict[str, Any]:
            names = [{"OU": unit, "O": swarm.manager.cluster_id}]
            return {"CN": node_id, "names": names}

        another_csr = new_key_and_csr()[1].decode()
        with ca.serving():
            await swarm.configure(ca.url, drop_key=True)
            for behave, words in (
                (lambda _body: (500, b"out of order"), "status 500: out of order"),
                (lambda _body: (200, b"<html>"), "something else than CFSSL's JSON"),
                (lambda _body: refused("no such profile", "sorry"), "no such profile; sorry"),
                (lambda _body: refused(), "refused to sign: without a reason"),
                (lambda _body: signed("nothing"), "no X.509 certificate"),
                (
                    lambda _body: (200, b" " * (MAX_ANSWER_BYTES + 1)),
                    f"longer than {MAX_ANSWER_BYTES} bytes",
                ),
                (other(certificate_request=another_csr), "for another key"),
                (lambda body: signed(foreign.sign(body)), "not signed by the CA certificate"),
                (other(subject=as_subject("other", "swarm-worker")), "for another node"),
                (
                    other(subject=as_subject("other", "swarm-manager")),
                    "that of a worker is needed",
                ),
                (other(hosts=["swarm-worker"]), "lacks the names"),
            ):
                ca.behave = behave
                with pytest.raises(Unavailable, match=words):
                    await swarm.join()
            ca.behave = None
            await swarm.join()


# --- settings -------------------------------------------------------------------------------------


async def update(api: RunningApi, **ca: Any) -> tuple[int, str]:
    """Change the CA's settings; return status and message."""
    swarm = await api.get("/swarm")
    spec = {**swarm["Spec"], "CAConfig": {**swarm["Spec"]["CAConfig"], **ca}}
    path = f"/swarm/update?version={swarm['Version']['Index']}"
    reply = await api.request("POST", path, spec)
    return reply.status, reply.json["message"] if reply.status >= 400 else ""


def named(server: CfsslServer, cert: str = "") -> list[dict[str, Any]]:
    return [{"Protocol": "cfssl", "URL": server.url, "CACert": cert}]


async def test_the_root_moves_outside_and_back(tmp_path: Path) -> None:
    """A rotation to a root whose key is outside needs that CA to answer, and leaves no key here;
    one back to a root of our own has the CA outside vouch for it."""
    root = create_root(SystemClock().now())
    cert, key = root.cert_pem.decode(), root.key_pem.decode()
    async with running_api(tmp_path) as api:
        await api.init()
        node = api.node
        first = private_of(node).ca_cert
        outside = CfsslServer(tmp_path, cert, key, first)
        needed = "there must be at least one valid, reachable external CA corresponding to the "
        outside.url = f"https://localhost:{free_port()}/sign"
        status, message = await update(api, SigningCACert=cert, ExternalCAs=named(outside, cert))
        assert status == 400
        assert f"{needed}desired CA certificate" in message
        with outside.serving():
            answer = await update(api, SigningCACert=cert, ExternalCAs=named(outside, cert))
            assert answer == (200, "")
            await until(lambda: private_of(node).ca_cert == cert)
            assert private_of(node).ca_key == ""
            await until(lambda: behind(node) == [])
            assert (await api.get("/swarm"))["TLSInfo"]["TrustRoot"] == cert
            assert [body["subject"]["CN"] for _, body in outside.asked] == [node.node_id]

            status, message = await update(api, ExternalCAs=[])
            assert (status, f"{needed}current CA certificate" in message) == (400, True)
            answer = await update(api, ForceRotate=1)
            assert answer == (200, "")
            assert outside.asked[-1][1]["profile"] == "CA"
            await until(lambda: private_of(node).ca_cert not in (cert, first))
            assert private_of(node).ca_key != ""
            await until(lambda: behind(node) == [])


async def test_the_key_of_the_present_root_can_be_taken_in(tmp_path: Path) -> None:
    """With certificate and key of the very root that is trusted nothing rotates: the key is here
    from now on, whatever external CAs are there; one that does not fit is refused."""
    async with running_api(tmp_path, work=()) as api:
        await api.init()
        private = private_of(api.node)
        outside = CfsslServer(tmp_path, private.ca_cert, private.ca_key)
        with outside.serving():
            answer = await update(api, SigningCACert=private.ca_cert, ExternalCAs=named(outside))
            assert answer == (200, "")
            assert private_of(api.node).ca_key == ""
        stranger = create_root(SystemClock().now())
        status, message = await update(
            api, SigningCACert=private.ca_cert, SigningCAKey=stranger.key_pem.decode()
        )
        assert (status, "does not belong" in message) == (400, True)
        answer = await update(
            api,
            SigningCACert=private.ca_cert.replace("\n", "\r\n"),
            SigningCAKey=private.ca_key,
            ExternalCAs=[],
        )
        assert answer == (200, "")
        assert private_of(api.node) == replace(private, spec_index=private_of(api.node).spec_index)


async def test_other_protocols_are_refused(tmp_path: Path) -> None:
    """Only CFSSL's protocol is spoken, and a URL has to be one."""
    async with running_api(tmp_path) as api:
        await api.init()
        status, message = await update(api, ExternalCAs=[{"Protocol": "acme", "URL": "https://x"}])
        assert (status, 'invalid CAProtocol: "acme"' in message) == (400, True)
        bad = [{"Protocol": "cfssl", "URL": "https://x", "CACert": "none"}]
        status, message = await update(api, ExternalCAs=bad)
        assert (status, "external CA's certificate is refused" in message) == (400, True)
    for url in ("http://x", "https://", "x", "https://[", "https://x:99999/"):
        with pytest.raises(InvalidArgument, match="URL"):
            external.Endpoint(url)
    assert external.Endpoint("https://[::1]/a?b=c").target == "/a?b=c"
