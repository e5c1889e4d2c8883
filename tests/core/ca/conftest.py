"""Two unrelated swarms with real CAs, made once: keys are real everywhere in these tests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from swarmctl.core.ca import x509

NOW_NS = 1_800_000_000 * x509.SECOND_NS  # 2027-01-15T08:00:00Z


@dataclass(frozen=True)
class Swarm:
    """One cluster's CA, and certificates signed by it."""

    cluster_id: str
    root: x509.RootCA
    signer: x509.Signer

    @classmethod
    def create(cls, cluster_id: str) -> Swarm:
        root = x509.create_root(NOW_NS)
        return cls(cluster_id, root, x509.Signer.from_pem(root.cert_pem, root.key_pem))

    def issue(
        self,
        *,
        node_id: str = "node1",
        role: x509.Role = x509.Role.WORKER,
        expiry_ns: int = 90 * x509.DAY_NS,
        now_ns: int = NOW_NS,
        signer: x509.Signer | None = None,
    ) -> tuple[bytes, bytes]:
        """Return a fresh node's (chain, key)."""
        key, csr = x509.new_key_and_csr()
        chain = x509.sign_node_certificate(
            signer or self.signer,
            csr,
            node_id=node_id,
            role=role,
            cluster_id=self.cluster_id,
            expiry_ns=expiry_ns,
            now_ns=now_ns,
        )
        return chain, key


@pytest.fixture(scope="package")
def swarm() -> Swarm:
    return Swarm.create("cluster1")


@pytest.fixture(scope="package")
def stranger() -> Swarm:
    return Swarm.create("cluster2")


@pytest.fixture(scope="package")
def now_ns() -> int:
    return NOW_NS
