"""init, join, leave and join-token: one request each, and what to do next."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.cli.launch import unit_text
from tests.cli.objects import INFO, node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran
    from tests.cli.stub import Asked, Stub

SWARM: dict[str, Any] = {
    "Version": {"Index": 4},
    "Spec": {"Name": "default", "Labels": {}},
    "JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"},
}


@pytest.fixture(autouse=True)
def answers(stub: Stub) -> None:
    manager = {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}
    stub.answers["POST /swarm/init"] = "node1"
    stub.answers["GET /swarm"] = SWARM
    stub.answers["GET /nodes/node1"] = node(ManagerStatus=manager)
    stub.answers["GET /info"] = INFO


def test_init_prints_how_to_join(stub: Stub, run: Callable[..., Ran]) -> None:
    """The body is docker's with zero for every default; the text ends with the join command."""
    ran = run("init")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "Swarm initialized: current node (node1) is now a manager.\n\n"
        "To add a worker to this swarm, run the following command:\n\n"
        "    swarmctl join --token SWMTKN-1-w 10.0.0.1:2377\n\n"
        "To add a manager to this swarm, run 'swarmctl join-token manager' and follow the "
        "instructions.\n\n"
    )
    assert stub.posted() == {
        "ListenAddr": "0.0.0.0:2377",
        "AdvertiseAddr": "",
        "DataPathAddr": "",
        "DataPathPort": 0,
        "ForceNewCluster": False,
        "Spec": {
            "Labels": None,
            "Orchestration": {},
            "Raft": {"ElectionTick": 0, "HeartbeatTick": 0},
            "Dispatcher": {},
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": {"AutoLockManagers": False},
        },
        "AutoLockManagers": False,
        "Availability": "",
        "DefaultAddrPool": [],
        "SubnetSize": 24,
    }


def test_flags_of_init_go_where_docker_puts_them(stub: Stub, run: Callable[..., Ran]) -> None:
    """Settings of the swarm land in its spec, addresses beside it."""
    run(
        *("init", "--advertise-addr", "eth0", "--listen-addr", "1.2.3.4:5", "--availability=DRAIN"),
        *("--cert-expiry", "1h", "--dispatcher-heartbeat", "3s", "--task-history-limit", "7"),
        *("--default-addr-pool", "10.1.0.0/16,10.2.0.0/16", "--default-addr-pool-mask-length=25"),
        *("--external-ca", "protocol=cfssl,url=https://x,k=v", "--max-snapshots", "2"),
    )
    body = stub.posted()
    assert (body["AdvertiseAddr"], body["ListenAddr"], body["Availability"]) == (
        *("eth0", "1.2.3.4:5", "drain"),
    )
    assert body["DefaultAddrPool"] == ["10.1.0.0/16", "10.2.0.0/16"]
    assert body["SubnetSize"] == 25
    spec = body["Spec"]
    assert spec["CAConfig"]["NodeCertExpiry"] == 3_600_000_000_000
    ca = {"Protocol": "cfssl", "URL": "https://x", "Options": {"k": "v"}, "CACert": ""}
    assert spec["CAConfig"]["ExternalCAs"] == [ca]
    assert spec["Dispatcher"] == {"HeartbeatPeriod": 3_000_000_000}
    assert spec["Orchestration"] == {"TaskHistoryRetentionLimit": 7}
    assert spec["Raft"]["KeepOldSnapshots"] == 2


def test_a_refusal_is_the_daemons_own_words(stub: Stub, run: Callable[..., Ran]) -> None:
    """An error of the daemon is one line on standard error and exit code 1."""
    stub.answers["POST /swarm/init"] = (503, {"message": "This node is already part of a swarm."})
    ran = run("init")
    assert ran == (1, "", "Error response from daemon: This node is already part of a swarm.\n")


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ('Use "docker swarm leave" to leave.', 'Use "swarmctl leave" to leave.'),
        ('Please use "docker swarm unlock".', 'Please use "swarmctl unlock".'),
        ('Use the "docker info" command.', 'Use the "swarmctl info" command.'),
        ("image docker swarm is odd", "image docker swarm is odd"),
    ],
)
def test_commands_of_docker_are_told_as_ours(
    stub: Stub, run: Callable[..., Ran], told: str, shown: str
) -> None:
    """The daemon's texts are Docker's, for Docker's clients; who uses this one reads its words."""
    stub.answers["POST /swarm/init"] = (503, {"message": told})
    assert run("init").err == f"Error response from daemon: {shown}\n"


def test_settings_of_a_daemon_that_runs_already_are_told_to_be_late(
    stub: Stub, run: Callable[..., Ran]
) -> None:
    """Flags for starting the daemon change nothing on one that answers, and that is said."""
    ran = run("init", "--executor", "process")
    assert ran.code == 0
    assert f"a daemon already serves {stub.path}; --executor did not change it" in ran.err


def test_join_says_as_what(stub: Stub, run: Callable[..., Ran]) -> None:
    """The role of the token decides; the answer of the daemon tells it."""
    stub.answers["POST /swarm/join"] = None
    ran = run("join", "--token", "T", "10.0.0.1:2377")
    assert ran.out == "This node joined a swarm as a manager.\n"
    body = stub.posted()
    assert (body["JoinToken"], body["RemoteAddrs"]) == ("T", ["10.0.0.1:2377"])
    stub.answers["GET /info"] = {"Swarm": {"LocalNodeState": "active", "ControlAvailable": False}}
    assert run("join", "--token", "T", "x").out == "This node joined a swarm as a worker.\n"


def test_a_token_can_come_from_elsewhere(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, standard input or the environment keep the token out of the process list."""
    stub.answers["POST /swarm/join"] = None
    file = tmp_path / "token"
    file.write_text("from-file\n")
    run("join", "--token-file", str(file), "x")
    monkeypatch.setattr(sys, "stdin", io.StringIO("from-stdin\n"))
    run("join", "--token", "-", "x")
    monkeypatch.setenv("SWARMCTL_TOKEN", "from-environment")
    run("join", "x")
    sent = [asked.body["JoinToken"] for asked in stub.asked if asked.method == "POST"]
    assert sent == ["from-file", "from-stdin", "from-environment"]
    ran = run("join", "--token", "a", "--token-file", "b", "x")
    assert ran.err == "--token and --token-file exclude each other\n"
    file.write_bytes(b"\xff\xfe")
    assert "the token cannot be read: " in run("join", "--token-file", str(file), "x").err
    monkeypatch.delenv("SWARMCTL_TOKEN")
    ran = run("join", "x")
    assert ran.code == 1
    assert ran.err.startswith("a token is needed: ")


def test_leave_waits_until_the_node_is_out(stub: Stub, run: Callable[..., Ran]) -> None:
    """The command ends when the node says that it is in no swarm."""
    states = ["active", "pending", "inactive"]

    def info(_asked: Asked) -> dict[str, Any]:
        return {"Swarm": {"LocalNodeState": states.pop(0)}}

    stub.answers["POST /swarm/leave"] = None
    stub.answers["GET /info"] = info
    assert run("leave", "--force") == (0, "Node left the swarm.\n", "")
    assert stub.asked[0].query == {"force": "1"}
    assert states == []


def test_join_tokens_are_shown_and_rotated(stub: Stub, run: Callable[..., Ran]) -> None:
    """-q gives the token alone; --rotate makes a new one for that role only."""
    assert run("join-token", "-q", "worker").out == "SWMTKN-1-w\n"
    told = run("join-token", "manager").out
    assert "    swarmctl join --token SWMTKN-1-m 10.0.0.1:2377\n" in told
    stub.answers["POST /swarm/update"] = None
    assert run("join-token", "--rotate", "-q", "worker").out == "SWMTKN-1-w\n"
    (asked,) = [asked for asked in stub.asked if asked.method == "POST"]
    assert asked.query == {
        "version": "4",
        "rotateWorkerToken": "true",
        "rotateManagerToken": "false",
        "rotateManagerUnlockKey": "false",
    }
    assert asked.body == SWARM["Spec"]
    assert run("join-token", "boss").err == "unknown role boss: it must be worker or manager\n"


def test_the_unit_keeps_settings_and_no_secret() -> None:
    """systemd reads back what was given, brings the daemon back, and lets tasks outlive it."""
    environment = {
        "SWARMCTL_CACHE": "/a $b",
        "SWARMCTL_TOKEN": "SWMTKN-1-secret",
        "PATH": "/bin",
    }
    words = ["/usr/bin/python3", "/opt/x%y.pyz", "daemon", "--engine=unix:///a $b"]
    lines = unit_text(words, environment).splitlines()
    assert 'ExecStart=/usr/bin/python3 "/opt/x%%y.pyz" daemon "--engine=unix:///a $$b"' in lines
    assert 'Environment="SWARMCTL_CACHE=/a $b"' in lines  # no variable there, unlike in commands
    assert "KillMode=process" in lines
    assert "Restart=always" in lines
    assert "secret" not in "\n".join(lines)
