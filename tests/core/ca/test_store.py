"""Root and pair on the disk change together without a moment in which they do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.ca import credentials as identity
from swarmctl.core.ca.chain import verify_chain
from swarmctl.core.ca.credentials import Material
from swarmctl.core.ca.keyfiles import KeyPair

from .conftest import Swarm
from .test_keyfiles import crashes, leaves_files_open

if TYPE_CHECKING:
    from pathlib import Path


@leaves_files_open
def test_a_crash_while_root_and_pair_change_leaves_them_fitting(
    tmp_path: Path, swarm: Swarm, now_ns: int
) -> None:
    """From one root's certificate to another's, with no link between the two: wherever it ends,
    what is on the disk is one whole pair, and the roots beside it vouch for it."""
    other = Swarm.create("cluster1")
    old = Material(swarm.root.cert_pem, KeyPair(*swarm.issue()))
    new = Material(other.root.cert_pem, KeyPair(*other.issue()))
    state = tmp_path / "state"
    identity.store(state, old)
    pairs = []
    for crashed in crashes(state, tmp_path / "crashed", lambda at: identity.store(at, new)):
        found = identity.load(crashed)
        verify_chain(found.pair.cert_pem, found.root_pem, now_ns=now_ns)
        pairs.append(found.pair)
        identity.store(crashed, new)  # the next attempt ends it
        assert identity.load(crashed) == new
    assert set(pairs) == {old.pair, new.pair}


def test_an_unchanged_root_is_not_written(tmp_path: Path, swarm: Swarm) -> None:
    """A plain renewal leaves the root's file alone."""
    identity.store(tmp_path, Material(swarm.root.cert_pem, KeyPair(*swarm.issue())))
    path = tmp_path / "certificates" / "swarm-root-ca.crt"
    before = path.stat().st_ino
    identity.store(tmp_path, Material(swarm.root.cert_pem, KeyPair(*swarm.issue())))
    assert path.stat().st_ino == before
    assert path.read_bytes() == swarm.root.cert_pem
