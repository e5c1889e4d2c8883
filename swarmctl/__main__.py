"""The entry point of ``python -m swarmctl``, of the installed script and of the one-file archive.

It imports nothing at the top, so that what a command costs is what that command needs.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Hand ``sys.argv`` to the command line; leaves by ``SystemExit`` with Docker's exit codes."""
    from swarmctl.cli.main import main as command_line

    command_line()


def self_command() -> list[str]:
    """Return the arguments that start this same swarmctl again, to append a command to.

    From the archive that is the archive itself (an absolute path, so the child may run anywhere),
    else the package, under this interpreter.
    """
    boot = sys.modules.get("swarmctl_boot")
    if boot is not None:
        return [sys.executable, boot.ARCHIVE]
    return [sys.executable, "-m", "swarmctl"]


if __name__ == "__main__":
    main()
