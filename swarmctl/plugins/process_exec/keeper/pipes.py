"""A task's stdout and stderr: named pipes between the task and its output files.

The task's end is opened for reading *and* writing, so the pipe has a reader as long as the task
lives: a keeper that dies breaks no pipe, and the next one opens the same names and reads on.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop
    from .output import OutputFiles

NAMES = {1: "stdout", 2: "stderr"}
CHUNK_BYTES = 64 * 1024
MAX_DRAIN_CHUNKS = 64  # more than a pipe holds: whoever writes on after the end is cut off


class OutputPipes:
    """Carries one task's output into its files.

    Args:
        folder: the task's directory.
        grew: called after output was written.
    """

    def __init__(
        self, loop: Loop, folder: str, files: OutputFiles, grew: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._files = files
        self._grew = grew
        self._open: dict[int, int] = {}  # stream -> our end

    def make(self, uid: int | None) -> tuple[int, int]:
        """Make both pipes and begin to read them.

        Args:
            uid: who may open them by name, such as by /dev/stdout; None for ourselves.

        Returns:
            The task's ends; the caller closes them once the task has them.
        """
        for name in NAMES.values():
            path = f"{self._folder}/{name}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.mkfifo(path, 0o600)
            if uid is not None:
                os.chown(path, uid, -1)
        self.attach()
        out, err = (os.open(f"{self._folder}/{n}", os.O_RDWR) for n in NAMES.values())
        return out, err

    def attach(self) -> None:
        """Read pipes that exist already."""
        for stream, name in NAMES.items():
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_NONBLOCK)
                self._open[stream] = descriptor
                self._loop.watch(descriptor, partial(self._pump, stream))

    def finish(self) -> None:
        """Take what is still in the pipes, then remove them."""
        for stream in list(self._open):
            for _ in range(MAX_DRAIN_CHUNKS):
                if not self._pump(stream):
                    break
            self._close(stream)
        for name in NAMES.values():
            with contextlib.suppress(OSError):
                os.unlink(f"{self._folder}/{name}")

    def _pump(self, stream: int) -> bool:
        """Move one chunk; False when there was none."""
        descriptor = self._open.get(stream)
        if descriptor is None:
            return False
        try:
            data = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:  # nobody has it open for writing any more
            self._close(stream)
            return False
        self._files.write(stream, data, time.time_ns())
        self._grew()
        return True

    def _close(self, stream: int) -> None:
        descriptor = self._open.pop(stream, None)
        if descriptor is not None:
            self._loop.forget(descriptor)
            os.close(descriptor)
