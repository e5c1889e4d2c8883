"""ca and update: what is sent, and how far a rotation is said to be."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.cli import ca
from tests.cli.objects import node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran
    from tests.cli.stub import Asked, Stub

OLD, NEW = "-----OLD-----\n", "-----NEW-----\n"
QUERY = {
    "version": "4",
    "rotateWorkerToken": "false",
    "rotateManagerToken": "false",
    "rotateManagerUnlockKey": "false",
}


def trust(root: str, key: str) -> dict[str, str]:
    return {"TrustRoot": root, "CertIssuerSubject": "c3Vi", "CertIssuerPublicKey": key}


def swarm(root: str = OLD, key: str = "a2V5", *, rotating: bool = False) -> dict[str, Any]:
    return {
        "Version": {"Index": 4},
        "Spec": {
            "Name": "default",
            "CAConfig": {"NodeCertExpiry": 5, "ForceRotate": 2},
            "EncryptionConfig": {"AutoLockManagers": False},
            "Newer": 1,
        },
        "TLSInfo": trust(root, key),
        "RootRotationInProgress": rotating,
    }


def digest(root: str) -> str:
    return "sha256:" + hashlib.sha256(root.encode()).hexdigest()


@pytest.fixture(autouse=True)
def answers(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "LOOK_EVERY_S", 0.001)
    stub.answers["GET /swarm"] = swarm()
    stub.answers["GET /nodes"] = [node(Description={"TLSInfo": trust(OLD, "a2V5")})]
    stub.answers["POST /swarm/update"] = None


def test_ca_prints_the_root(stub: Stub, run: Callable[..., Ran]) -> None:
    """Without flags the trusted root is printed and nothing is changed."""
    assert run("ca") == (0, "-----OLD-----\n", "")
    assert stub.lines() == ["GET /swarm"]
    stub.answers["GET /swarm"] = {**swarm(), "TLSInfo": {}}
    assert run("ca").err == "No CA information available\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cert-expiry", "2h"), "`--cert-expiry` flag requires the `--rotate` flag to update"),
        (
            ("--rotate", "--external-ca", "protocol=cfssl,url=https://x"),
            "rotating to an external CA requires the `--ca-cert` flag",
        ),
        (("--rotate", "--ca-cert", "FILE"), "the --ca-cert flag requires that a --ca-key flag"),
    ],
)
def test_flags_that_do_not_go_together(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """What docker's CLI refuses is refused in its words, before anything is sent."""
    file = tmp_path / "ca.pem"
    file.write_text(NEW)
    ran = run("ca", *(str(file) if word == "FILE" else word for word in words))
    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err
    assert "POST /swarm/update" not in stub.lines()


def test_a_rotation_raises_the_number_and_sends_the_rest_back(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """ForceRotate goes up by one; settings that this CLI does not know come back as they were."""
    assert run("ca", "--rotate", "--detach") == (0, "", "")
    (asked,) = (asked for asked in stub.asked if asked.method == "POST")
    spec = swarm()["Spec"]
    spec["CAConfig"] |= {"ForceRotate": 3, "SigningCACert": "", "SigningCAKey": ""}
    assert (asked.body, asked.query) == (spec, QUERY)


def test_a_root_of_ones_own(stub: Stub, run: Callable[..., Ran], tmp_path: Path) -> None:
    """Certificate and key are sent as they are in the files; an external CA signs for that
    certificate unless it names another."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(NEW)
    key.write_text("KEY")
    run(
        *("ca", "--rotate", "-d", "--ca-cert", str(cert), "--ca-key", str(key)),
        *("--cert-expiry", "2h", "--external-ca", "protocol=cfssl,url=https://x"),
        *("--external-ca", f"protocol=cfssl,url=https://y,cacert={key}"),
    )
    config = stub.posted()["CAConfig"]
    assert (config["SigningCACert"], config["SigningCAKey"]) == (NEW, "KEY")
    assert (config["ForceRotate"], config["NodeCertExpiry"]) == (2, 7_200_000_000_000)
    assert [(each["URL"], each["CACert"]) for each in config["ExternalCAs"]] == [
        ("https://x", NEW),
        ("https://y", "KEY"),
    ]
    missing = run("ca", "--rotate", "--ca-cert", str(tmp_path / "none"))
    assert missing.code == 125
    assert "No such file" in missing.err


def test_progress_counts_nodes_and_ends_with_the_root(stub: Stub, run: Callable[..., Ran]) -> None:
    """First certificates are counted, then, once all are new and the rotation is over, roots; at
    the end the new root is printed."""
    done, half, old = trust(NEW, "bmV3"), trust(OLD, "bmV3"), trust(OLD, "a2V5")
    looks = [
        (swarm(OLD, "bmV3", rotating=True), [old, old]),
        (swarm(OLD, "bmV3", rotating=True), [half, old]),
        (swarm(OLD, "bmV3", rotating=True), [half, half]),
        (swarm(NEW, "bmV3"), [half, done]),
        (swarm(NEW, "bmV3"), [done, done]),
    ]
    at = [-1]

    def answer_swarm(_asked: Asked) -> dict[str, Any]:
        at[0] += 1  # the first is what the command reads before it changes it
        return copy.deepcopy(looks[min(max(at[0] - 1, 0), len(looks) - 1)][0])

    def answer_nodes(_asked: Asked) -> list[Any]:
        return [node(Description={"TLSInfo": each}) for each in looks[at[0] - 1][1]]

    stub.answers["GET /swarm"], stub.answers["GET /nodes"] = answer_swarm, answer_nodes
    assert run("ca", "--rotate").out.splitlines() == [
        f"desired root digest: {digest(OLD)}",
        "  rotated TLS certificates: 0/2 nodes",
        "  rotated CA certificates: 0/2 nodes",
        "  rotated TLS certificates: 1/2 nodes",
        "  rotated TLS certificates: 2/2 nodes",
        f"desired root digest: {digest(NEW)}",
        "  rotated CA certificates: 1/2 nodes",
        "  rotated CA certificates: 2/2 nodes",
        "-----NEW-----",
    ]
    at[0] = -1
    assert run("ca", "--rotate", "--quiet").out == ""
    assert at[0] == len(looks)


def test_who_holds_a_rotation_up_is_named() -> None:
    """Nodes that are down and have not renewed are named, five at most; those that are there are
    only a matter of time."""
    info = {"TLSInfo": trust(OLD, "a2V5")}
    there = node(Description={"Hostname": "there", **info})
    away = [
        node(ID=f"n{at}", Status={"State": "down"}, Description={"Hostname": f"h{at}", **info})
        for at in range(7)
    ]
    rotating = swarm(OLD, "bmV3", rotating=True)
    assert len(ca.look_at(rotating, [there]).lines()) == 3
    waits = "  waits for nodes that are down: "
    assert ca.look_at(rotating, [there, away[1], away[0]]).lines()[3] == (f"{waits}h0, h1", None)
    said = f"{waits}h0, h1, h2, h3, h4 and 2 more"
    assert ca.look_at(rotating, away).lines()[3] == (said, None)
    renewed = [{**each, "Description": {"TLSInfo": trust(OLD, "bmV3")}} for each in away]
    assert len(ca.look_at(rotating, renewed).lines()) == 3


def test_a_terminal_shows_bars_over_one_another(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look replaces the one before, also when it has fewer lines, and no line wraps."""
    monkeypatch.setenv("COLUMNS", "60")
    bars = ca._Bars()
    bars.show(ca.Look("d" * 64, 1, 0, 2, False, ("h1",)))
    bars.show(ca.Look("e" * 64, 2, 2, 2, True))
    drawn = capfdbinary.readouterr().out.decode()
    first, second = drawn.split("\x1b[4A\x1b[J")
    assert first.splitlines()[3] == "  waits for nodes that are down: h1"
    assert "=" * 10 + " " in first.splitlines()[1]
    assert len(second.splitlines()) == 3
    assert max(map(len, (*first.splitlines(), *second.splitlines()))) == 59


def test_update_changes_what_was_named(stub: Stub, run: Callable[..., Ran]) -> None:
    """Only the settings that were named differ; without any the help is shown."""
    ran = run("update", "--cert-expiry", "3h", "--max-snapshots", "2", "--task-history-limit=9")
    assert ran == (0, "Swarm updated.\n", "")
    spec = swarm()["Spec"]
    spec["CAConfig"]["NodeCertExpiry"] = 10_800_000_000_000
    spec["Raft"], spec["Orchestration"] = (
        {"KeepOldSnapshots": 2},
        {"TaskHistoryRetentionLimit": 9},
    )
    (asked,) = (asked for asked in stub.asked if asked.method == "POST")
    assert (asked.body, asked.query) == (spec, QUERY)
    helped = run("update")
    assert helped.code == 0
    assert helped.out.startswith("Usage:  swarmctl update [OPTIONS]")


def test_an_external_ca_of_an_update_signs_for_the_present_root(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """Docker pins it to the root at that moment; a rotation later does not hand it the new one."""
    run("update", "--external-ca", "protocol=cfssl,url=https://x")
    (external,) = stub.posted()["CAConfig"]["ExternalCAs"]
    assert external["CACert"] == OLD


def test_turning_autolock_on_shows_the_key(stub: Stub, run: Callable[..., Ran]) -> None:
    """The key that the next start needs is printed once, when locking begins."""
    stub.answers["GET /swarm/unlockkey"] = {"UnlockKey": "SWMKEY-1-x"}
    ran = run("update", "--autolock")
    assert "    SWMKEY-1-x\n" in ran.out
    assert stub.posted()["EncryptionConfig"] == {"AutoLockManagers": True}
    ran = run("update", "--autolock=false")
    assert ran.out == "Swarm updated.\n"
