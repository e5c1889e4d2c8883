"""A stub daemon, and the command line run against it in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from swarmctl.cli.main import cli
from tests.cli.stub import Stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Ran(NamedTuple):
    """What a command printed and returned."""

    code: int
    out: str
    err: str


Run = "Callable[..., Ran]"


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A daemon at the socket that the environment names."""
    for name in ("SWARMCTL_HOST", "SWARMCTL_TOKEN", "SWARMCTL_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    daemon = Stub(tmp_path / "swarmctl.sock")
    monkeypatch.setenv("SWARMCTL_SOCKET", str(daemon.path))
    with daemon.serving():
        yield daemon


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Ran]:
    """Run one command in this process."""

    def call(*words: str) -> Ran:
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words), prog_name="swarmctl")
        out, err = capfdbinary.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out.decode(), err.decode())

    return call
