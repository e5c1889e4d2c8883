"""unlock and unlock-key: no key in the arguments, Docker's words, one request each."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.objects import INFO

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

KEY = "SWMKEY-1-" + "k" * 43


def swarm(*, autolock: bool) -> dict[str, Any]:
    return {
        "Version": {"Index": 4},
        "Spec": {"Name": "default", "EncryptionConfig": {"AutoLockManagers": autolock}},
    }


def with_state(state: str) -> dict[str, Any]:
    return {**INFO, "Swarm": {"LocalNodeState": state}}


def test_the_key_is_read_from_standard_input(
    stub: Stub, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script pipes the key in; nothing is printed when it fits."""
    stub.answers["GET /info"] = with_state("locked")
    stub.answers["POST /swarm/unlock"] = None
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{KEY}\n"))
    ran = run("unlock")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert stub.posted() == {"UnlockKey": KEY}


def test_a_wrong_key_is_said_to_be_wrong(
    stub: Stub, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's words come out, with exit code 1."""
    stub.answers["GET /info"] = with_state("locked")
    refusal = {"message": "swarm could not be unlocked: invalid key provided"}
    stub.answers["POST /swarm/unlock"] = (401, refusal)
    monkeypatch.setattr(sys, "stdin", io.StringIO("nonsense\n"))
    ran = run("unlock")
    assert ran.code == 1
    assert ran.err == (
        "Error response from daemon: swarm could not be unlocked: invalid key provided\n"
    )


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("inactive", "Error: This node is not part of a swarm\n"),
        ("active", "Error: swarm is not locked\n"),
    ],
)
def test_nothing_to_unlock(stub: Stub, run: Callable[..., Ran], state: str, text: str) -> None:
    """No key is asked for where none is needed."""
    stub.answers["GET /info"] = with_state(state)
    ran = run("unlock")
    assert (ran.code, ran.err) == (1, text)


def test_the_key_is_shown(stub: Stub, run: Callable[..., Ran]) -> None:
    """Whole with what it is for, or alone for scripts."""
    stub.answers["GET /swarm/unlockkey"] = {"UnlockKey": KEY}
    assert f"\n    {KEY}\n" in run("unlock-key").out
    assert run("unlock-key", "-q").out == f"{KEY}\n"


def test_without_autolock_there_is_no_key(stub: Stub, run: Callable[..., Ran]) -> None:
    """Neither to show nor to rotate."""
    stub.answers["GET /swarm/unlockkey"] = {"UnlockKey": ""}
    stub.answers["GET /swarm"] = swarm(autolock=False)
    assert run("unlock-key") == (1, "", "no unlock key is set\n")
    refused = run("unlock-key", "--rotate")
    assert refused == (1, "", "cannot rotate because autolock is not turned on\n")


def test_the_key_is_rotated(stub: Stub, run: Callable[..., Ran]) -> None:
    """The settings go back as they were, with the wish beside them; the new key is printed."""
    stub.answers["GET /swarm/unlockkey"] = {"UnlockKey": KEY}
    stub.answers["GET /swarm"] = swarm(autolock=True)
    stub.answers["POST /swarm/update"] = None
    ran = run("unlock-key", "--rotate")
    assert ran.out.startswith("Successfully rotated manager unlock key.\n\n")
    assert KEY in ran.out
    (update,) = [asked for asked in stub.asked if asked.method == "POST"]
    assert update.body == swarm(autolock=True)["Spec"]
    assert update.query == {
        "version": "4",
        "rotateWorkerToken": "false",
        "rotateManagerToken": "false",
        "rotateManagerUnlockKey": "true",
    }
