"""The lab: a bridge, and hosts on it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import traces
from .clean import clean_hosts
from .hosts import Host, hosts_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from .engines import Engine

_REPOSITORY = Path(__file__).resolve().parents[3]


class Lab:
    """Hosts ``h1`` to ``h<n>`` on a private subnet, for the length of a ``with`` block.

    The block's end removes everything, whatever ended it. A lab whose owner was killed dies with
    it, and the next lab on the machine removes what is left. Labs do not see each other.

    Attributes:
        hosts: the hosts, in order.
        names: the names under which the lab is found on the machine.
        swarmctl_command: what :meth:`Host.swarmctl` and the daemons run.
    """

    def __init__(self, n_hosts: int, *, swarmctl_command: Sequence[str] | None = None) -> None:
        """Nothing happens yet; entering the ``with`` block makes the lab.

        Args:
            n_hosts: from 1 to 99.
            swarmctl_command: the words before swarmctl's own arguments. By default the variable
                ``SWARMCTL_LAB_COMMAND``, else ``dist/swarmctl.pyz`` under this interpreter without
                its virtual environment, as users have it.
        """
        if not 1 <= n_hosts <= 99:
            raise ValueError(f"a lab has 1 to 99 hosts, not {n_hosts}")
        self._n_hosts = n_hosts
        self.swarmctl_command = list(swarmctl_command or _default_command())
        self.hosts: list[Host] = []
        self.names: traces.Names

    def __enter__(self) -> Self:
        self.names = traces.claim()
        try:
            self.hosts = [Host(self, number + 1) for number in range(self._n_hosts)]
            (self.names.state_dir / "hosts").write_text(hosts_file(self.hosts))
            for host in self.hosts:
                host.begin()
            for host in self.hosts:
                host.finish()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts and remove every trace. Safe to call again.

        Raises:
            RuntimeError: something could not be removed; says what.
        """
        try:
            for host in self.hosts:
                host.end()
        finally:
            traces.erase(self.names)

    def start_engines(self, kind: str = "docker") -> list[Engine]:
        """Start an engine on every host, side by side, and wait for all; see Host.start_engine."""
        engines = [host.start_engine(kind, wait=False) for host in self.hosts]
        for engine in engines:
            engine.wait_until_ready()
        return engines

    def clean(self) -> None:
        """Bring the hosts back to how they were when made; see :mod:`.clean`."""
        clean_hosts(self.hosts)

    def __getitem__(self, index: int) -> Host:
        return self.hosts[index]


def _default_command() -> list[str]:
    override = os.environ.get("SWARMCTL_LAB_COMMAND")
    if override:
        return shlex.split(override)
    # The interpreter itself: a python3 on PATH may be a wrapper that costs 60 ms a start.
    return [os.path.realpath(sys.executable), str(_REPOSITORY / "dist" / "swarmctl.pyz")]
