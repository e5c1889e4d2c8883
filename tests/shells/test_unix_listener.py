"""The API's socket: what it replaces, what it leaves alone, who may connect."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest
import trio

from swarmctl.core.wire.unix_listener import MAX_UNIX_PATH_BYTES, ListenFailed, open_unix_listener

if TYPE_CHECKING:
    from pathlib import Path


def leave_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


async def test_it_listens_and_is_removed_at_the_end(tmp_path: Path) -> None:
    """Clients can connect while it lasts; afterwards the file is gone."""
    path = tmp_path / "s.sock"
    async with (
        open_unix_listener(str(path)) as listener,
        await trio.open_unix_socket(str(path)) as client,
        await listener.accept() as accepted,
    ):
        await client.send_all(b"x")
        assert await accepted.receive_some() == b"x"
    assert not path.exists()


async def test_mode_and_group_are_set_before_anyone_can_connect(tmp_path: Path) -> None:
    """Whoever may connect is decided by the file's mode and group alone."""
    path = tmp_path / "s.sock"
    group = os.getgroups()[0] if os.getuid() else 12345
    async with open_unix_listener(str(path), mode=0o600, gid=group):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_gid == group


async def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    """A socket that a killed daemon left behind does not stand in the way."""
    path = tmp_path / "s.sock"
    leave_dead_socket(path)
    async with open_unix_listener(str(path)), await trio.open_unix_socket(str(path)):
        pass


async def test_a_live_socket_is_not_taken_over(tmp_path: Path) -> None:
    """A second daemon is told that another one answers there, and the first keeps working."""
    path = tmp_path / "s.sock"
    async with open_unix_listener(str(path)):
        with pytest.raises(ListenFailed, match="another daemon answers there"):
            async with open_unix_listener(str(path)):
                pass
        async with await trio.open_unix_socket(str(path)):
            pass


async def test_a_live_socket_with_a_full_backlog_is_not_taken_over(tmp_path: Path) -> None:
    """A daemon too busy to accept is alive."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ListenFailed, match="another daemon answers there"):
            async with open_unix_listener(str(path)):
                pass


async def test_of_two_daemons_that_start_at_once_one_wins(tmp_path: Path) -> None:
    """Two that find the same dead socket do not both remove it."""
    path = tmp_path / "s.sock"
    leave_dead_socket(path)
    outcomes: list[str] = []
    all_tried = trio.Event()

    async def start() -> None:
        try:
            async with open_unix_listener(str(path)):
                tried("listens")
                await all_tried.wait()
        except ListenFailed:
            tried("refused")

    def tried(outcome: str) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 8:
            all_tried.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(start)
    assert sorted(outcomes) == ["listens"] + ["refused"] * 7


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file in the place of the socket is an error, not something to delete."""
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(ListenFailed, match="is no socket"):
        async with open_unix_listener(str(path)):
            pass
    assert path.read_text() == "precious"


async def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    """Whoever ends removes its own socket only, even if another has its name by now."""
    path = tmp_path / "s.sock"
    async with open_unix_listener(str(path)):
        path.rename(tmp_path / "moved")
        leave_dead_socket(path)
    assert path.exists()


async def test_a_path_too_long_is_explained(tmp_path: Path) -> None:
    """The kernel's limit on socket paths is named, and a path of just that length works."""
    room = MAX_UNIX_PATH_BYTES - len(str(tmp_path)) - 1
    async with open_unix_listener(str(tmp_path / ("s" * room))):
        pass
    with pytest.raises(ListenFailed, match="longer than 107 bytes"):
        async with open_unix_listener(str(tmp_path / ("s" * (room + 1)))):
            pass


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """An error of the system's is passed on in words, with the path."""
    with pytest.raises(ListenFailed, match=r"cannot listen on .*nowhere.*No such file"):
        async with open_unix_listener(str(tmp_path / "nowhere" / "s.sock")):
            pass
