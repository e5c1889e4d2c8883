"""Runs ``nft``: one script is one transaction, in this host's own namespace or in a task's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from swarmctl.plugins import SwarmError

if TYPE_CHECKING:
    import subprocess

    from .namespaces import Namespace

AT_ONCE = 4
"""Processes side by side; what they do is the kernel's work, on few processors."""


class RulesRefused(SwarmError):
    """The kernel, or ``nft``, does not take a script."""


class Nft:
    """Applies scripts, a few at a time."""

    def __init__(self) -> None:
        self._turn = trio.CapacityLimiter(AT_ONCE)

    async def apply(self, namespace: Namespace, script: str) -> None:
        """Carry out a script, whole or not at all.

        Raises:
            RulesRefused: what nft says.
        """
        command = ["nft", "-f", "-"]
        if namespace.pid:
            command = ["nsenter", f"--net={namespace.path}", *command]
        async with self._turn:
            try:
                done = await trio.run_process(
                    command,
                    stdin=script.encode(),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
            except OSError as error:
                raise RulesRefused(
                    f"cannot run {command[0]}: {error}; install nftables and util-linux"
                ) from error
        if done.returncode:
            raise RulesRefused(_first_line(done))


def _first_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").splitlines()
    return lines[0] if lines else f"nft ended with {done.returncode}"
