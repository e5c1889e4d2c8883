"""backup and restore: the passphrase in no argument, the file whole or not there."""

from __future__ import annotations

import base64
import io
import sys
from typing import TYPE_CHECKING

import pytest

from swarmctl.cli.launch import unit_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

SECRET = "correct horse battery"


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text(f"{SECRET}\n")
    return str(path)


def test_a_backup_is_written_whole_and_for_its_owner(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, passphrase: str
) -> None:
    """What the daemon sends is in the file, mode 0600, with nothing left beside it."""
    stub.answers["POST /swarm/backup"] = b"sealed bytes"
    target = tmp_path / "out" / "swarm.backup"
    target.parent.mkdir()
    ran = run("backup", "--passphrase-file", passphrase, str(target))
    assert (ran.code, ran.err) == (0, "")
    assert target.read_bytes() == b"sealed bytes"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(target.parent.iterdir()) == [target]
    assert stub.posted() == {"Passphrase": SECRET}


def test_a_key_file_is_read_to_its_end(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From standard input as from a file: their first line is the same in all PEM files."""
    key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\n-----END PRIVATE KEY-----\n"
    stub.answers["POST /swarm/backup"] = b"sealed bytes"
    file = tmp_path / "key.pem"
    file.write_text(key)
    monkeypatch.setattr(sys, "stdin", io.StringIO(key))
    for source in (str(file), "-"):
        target = tmp_path / f"by-{len(stub.asked)}"
        assert run("backup", "--passphrase-file", source, str(target)).code == 0
    assert [asked.body for asked in stub.asked] == [{"Passphrase": key.rstrip("\n")}] * 2


def test_a_file_is_replaced_by_force_only(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, passphrase: str
) -> None:
    """Nothing is asked of the daemon when the file is there already."""
    stub.answers["POST /swarm/backup"] = b"new"
    target = tmp_path / "swarm.backup"
    target.write_bytes(b"old")
    ran = run("backup", "--passphrase-file", passphrase, str(target))
    assert (ran.code, ran.err) == (1, f"{target} exists; --force replaces it\n")
    assert target.read_bytes() == b"old"
    assert stub.asked == []
    assert run("backup", "--force", "--passphrase-file", passphrase, str(target)).code == 0
    assert target.read_bytes() == b"new"


def test_a_refused_backup_leaves_no_file(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, passphrase: str
) -> None:
    """Neither under its name nor beside it."""
    stub.answers["POST /swarm/backup"] = (503, {"message": "not a manager"})
    folder = tmp_path / "out"
    folder.mkdir()
    ran = run("backup", "--passphrase-file", passphrase, str(folder / "swarm.backup"))
    assert (ran.code, ran.err) == (1, "Error response from daemon: not a manager\n")
    assert list(folder.iterdir()) == []


def test_a_restore_sends_the_file_and_the_passphrase(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From standard input or the environment as well; addresses go along."""
    stub.answers["POST /swarm/restore"] = "node9"
    source = tmp_path / "swarm.backup"
    source.write_text('"sealed"')
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))
    ran = run("restore", "--listen-addr", "1.2.3.4:5", "--passphrase-file", "-", str(source))
    assert ran.code == 0, ran
    assert "current node (node9) is now its only manager" in ran.out
    monkeypatch.setenv("SWARMCTL_PASSPHRASE", SECRET)
    assert run("restore", str(source)).code == 0
    first, second = [each for each in stub.asked if each.method == "POST"]
    assert first.query == {"listenAddr": "1.2.3.4:5"}
    for each in (first, second):
        headers = {name.lower(): value for name, value in each.headers.items()}
        assert base64.b64decode(headers["x-swarmctl-passphrase"]).decode() == SECRET
        assert headers["content-type"] == "application/octet-stream"


def test_a_backup_that_is_not_there_is_named(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path
) -> None:
    """Nothing is asked of the daemon for a file that cannot be read."""
    ran = run("restore", str(tmp_path / "none"))
    text = f"the backup {tmp_path}/none cannot be read: No such file or directory\n"
    assert (ran.code, ran.err) == (1, text)
    assert stub.asked == []


def test_without_a_terminal_a_passphrase_has_to_be_given(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that forgot it is told, and waits for nobody."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    ran = run("backup", str(tmp_path / "swarm.backup"))
    assert ran.code == 1
    assert "a passphrase is needed: --passphrase-file FILE" in ran.err
    assert stub.asked == []


def test_a_daemon_never_inherits_the_passphrase() -> None:
    """It is in no unit that a restore writes."""
    text = unit_text(["swarmctl", "daemon"], {"SWARMCTL_PASSPHRASE": SECRET, "SWARMCTL_X": "1"})
    assert SECRET not in text
    assert "SWARMCTL_X=1" in text
