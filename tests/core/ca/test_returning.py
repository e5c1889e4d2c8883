"""What an expired certificate still proves, together with its key; and what it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec.structs import replace

from swarmctl.core.ca import keys, x509
from swarmctl.core.ca.returning import returning_request, who_returns
from swarmctl.core.errors import CertificateRefused, PermissionDenied

if TYPE_CHECKING:
    from swarmctl.core.ca.calls import IssueRequest

    from .conftest import Swarm

HOUR = x509.HOUR_NS


def asking(chain: bytes, key: bytes) -> IssueRequest:
    _, csr = x509.new_key_and_csr()
    return returning_request(csr, "token", old_chain_pem=chain, old_key_pem=key)


def test_an_expired_certificate_and_its_key_prove_who_asks(swarm: Swarm, now_ns: int) -> None:
    """However long ago it ended, it says which node; the token and the new request are carried."""
    chain, key = swarm.issue(node_id="sleeper", expiry_ns=2 * HOUR, now_ns=now_ns)
    request = asking(chain, key)
    holder = who_returns(request, swarm.root.cert_pem, "cluster1")
    assert (holder.node_id, holder.role) == ("sleeper", x509.Role.WORKER)
    assert request.token == "token"


def test_the_signature_is_for_one_request_by_one_key(swarm: Swarm) -> None:
    """Another key's signature, none, or one over another request proves nothing."""
    chain, key = swarm.issue()
    _, other_key = swarm.issue()
    _, other_csr = x509.new_key_and_csr()
    good = asking(chain, key)
    for bad in (
        asking(chain, other_key),
        replace(good, proof=b""),
        replace(good, proof=good.proof[:-1] + bytes([good.proof[-1] ^ 1])),
        replace(good, csr_pem=other_csr),
    ):
        with pytest.raises(PermissionDenied, match="its key did not sign the request"):
            who_returns(bad, swarm.root.cert_pem, "cluster1")


def test_it_has_to_be_of_this_swarm(swarm: Swarm, stranger: Swarm) -> None:
    """A certificate of another root, or of another cluster under this root, is refused."""
    with pytest.raises(PermissionDenied, match="signed by another swarm's CA"):
        who_returns(asking(*stranger.issue()), swarm.root.cert_pem, "cluster1")
    with pytest.raises(PermissionDenied, match="is for cluster cluster1, this is cluster other"):
        who_returns(asking(*swarm.issue()), swarm.root.cert_pem, "other")
    with pytest.raises(PermissionDenied, match=r"no X\.509 certificate"):
        who_returns(replace(asking(*swarm.issue()), old_chain_pem=b"x"), swarm.root.cert_pem, "c")


def test_a_link_to_the_trusted_root_counts_as_of_then(swarm: Swarm, now_ns: int) -> None:
    """A certificate of a root that came and went by rotation leads, by its links, to the root that
    is trusted, judged at the last moment at which all of them were good."""
    new = x509.create_root(now_ns)
    link = x509.cross_sign(swarm.signer, new.cert_pem, now_ns=now_ns)
    signer = x509.Signer.from_pem(new.cert_pem, new.key_pem, link)
    chain, key = swarm.issue(signer=signer, expiry_ns=2 * HOUR)
    for root in (swarm.root.cert_pem, new.cert_pem):
        assert who_returns(asking(chain, key), root, "cluster1").node_id == "node1"


def test_rsa_keys_sign_and_are_checked_too() -> None:
    """Node keys are ECDSA here, but a certificate from elsewhere may have an RSA key."""
    key = rsa.generate_private_key(65537, 2048)
    pem, public = keys.key_pem(key), keys.spki(key.public_key())
    signature = keys.sign(pem, b"data")
    keys.require_signed(public, b"data", signature)
    with pytest.raises(CertificateRefused):
        keys.require_signed(public, b"other", signature)
    with pytest.raises(CertificateRefused):
        keys.require_signed(b"no key", b"data", signature)
