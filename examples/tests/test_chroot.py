"""The chroot executor keeps the laws of executors, and its tasks see a root of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.chroot import ChrootExecutor
from swarmctl.plugins import ExecutorError, ExecutorSettings, LogOptions
from swarmctl.plugins.model import ContainerSpec
from swarmctl.plugins.testing import ShellPrograms, check_executor
from tests.plugins.process_exec.hosts import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

BUSYBOX = shutil.which("busybox")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root"),
    pytest.mark.skipif(BUSYBOX is None, reason="needs a static busybox"),
]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A node whose only image is a busybox."""
    root = tmp_path / "small" / "bin"
    root.mkdir(parents=True)
    assert BUSYBOX is not None
    shutil.copy(BUSYBOX, root / "busybox")
    for name in ("sh", "sleep", "echo", "ls", "id"):
        (root / name).symlink_to("busybox")
    state_dir = Path(tempfile.mkdtemp(prefix="swarmctl-test-"))
    state_dir.chmod(0o711)
    made = Host(state_dir)
    try:
        yield made
    finally:
        made.clean_up()


def executor(host: Host, images: Path) -> ChrootExecutor:
    settings = ExecutorSettings(state_dir=str(host.state_dir), options={"images": str(images)})
    return ChrootExecutor(settings)


async def test_it_keeps_the_laws(host: Host, tmp_path: Path) -> None:
    """As every executor has to."""
    await check_executor(
        lambda: executor(host, tmp_path),
        programs=ShellPrograms("small"),
        identity=host.identity,
        timeout_s=60,
    )


async def test_tasks_see_their_image_and_nothing_else(
    host: Host, tmp_path: Path, nursery: trio.Nursery
) -> None:
    """The root is the image's directory, and the user is the one that was asked for."""
    made = executor(host, tmp_path)
    await nursery.start(made.run, host.identity)
    spec = ContainerSpec(Image="small:latest", Args=("sh", "-c", "ls /; id -u"), User="65534")
    control = made.controller(host.assignment(spec))
    await control.prepare()
    await control.start()
    assert (await control.wait()).code == 0
    async with aclosing(control.logs(LogOptions())) as lines:
        assert [line.text async for line in lines] == [b"bin", b"65534"]
    await control.remove()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (ContainerSpec(Image="none", Args=("true",)), "image 'none': there is no directory"),
        (ContainerSpec(Image="../etc", Args=("true",)), "image '../etc': there is no directory"),
        (ContainerSpec(Image="small", Args=("true",), Dir="/tmp"), "cannot give a task Dir"),
    ],
)
async def test_what_cannot_run_is_refused_in_words(
    host: Host, tmp_path: Path, nursery: trio.Nursery, spec: ContainerSpec, text: str
) -> None:
    """No such image, one that leads elsewhere, a field that would mean the host."""
    made = executor(host, tmp_path)
    await nursery.start(made.run, host.identity)
    with pytest.raises(ExecutorError, match=text):
        await made.controller(host.assignment(spec)).prepare()
