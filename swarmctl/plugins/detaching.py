"""Starting a process that shall outlive this one: it detaches itself and says how that went.

What is started forks, so that it is no child of the daemon's, and writes one line to its standard
output once it serves, or once it knows that it will not.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

START_TIMEOUT_S = 30.0  # a loaded machine; normally it takes a fraction of a second
LAUNCH_END_S = 1.0


async def start_detached(
    command: Sequence[str], *, stderr: int = subprocess.DEVNULL, pass_fds: Sequence[int] = ()
) -> str:
    """Run a program that detaches itself; return the line that it says, "" when it says none.

    Cancelling leaves what was started already.

    Args:
        stderr: a descriptor for what it says before it has a log of its own.
        pass_fds: descriptors that it keeps, under the same numbers.

    Raises:
        OSError: the program cannot be run.
    """
    process = await trio.lowlevel.open_process(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd="/",
        start_new_session=True,
        pass_fds=pass_fds,
    )
    assert process.stdout is not None
    text = b""
    try:
        with trio.move_on_after(START_TIMEOUT_S):
            async for chunk in process.stdout:
                text += chunk
                if b"\n" in text:
                    break
        return text.decode(errors="replace").strip()
    finally:
        with trio.CancelScope(shield=True):
            await process.stdout.aclose()
            with trio.move_on_after(LAUNCH_END_S):
                await process.wait()  # it forks and ends at once
            process.kill()  # what hangs before that has started nothing
            await process.wait()
