"""A registry inside a lab host, for tests that really pull.

Every engine of the lab takes it without TLS, because it lies in the lab's own subnet.
"""

from __future__ import annotations

import subprocess
import urllib.request
from typing import TYPE_CHECKING

from .waiting import eventually

if TYPE_CHECKING:
    from .hosts import Host
    from .processes import HostProcess

_PORT = 5000
_READY_S = 15.0


class Registry:
    """A running docker-registry; ends with its host, or by ``process.kill()``.

    Attributes:
        address: ``host:port``, the first part of an image's name.
        process: the running registry.
    """

    def __init__(self, host: Host) -> None:
        """Start it on a host and wait until it answers.

        Raises:
            AssertionError: it does not answer; its words are in ``registry.log`` of the host.
        """
        self.host = host
        self.address = f"{host.address}:{_PORT}"
        config = host.state_dir / "registry.yml"
        config.write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {host.state_dir}/registry}}}}\n"
            f"http: {{addr: '{self.address}'}}\n"
        )
        with (host.state_dir / "registry.log").open("ab") as log:
            self.process: HostProcess = host.popen(
                ["docker-registry", "serve", config], stdout=log, stderr=subprocess.STDOUT
            )
        eventually(self._answers, _READY_S, what=f"the registry on {host.name}")

    def push(self, name: str) -> str:
        """Store the lab's image under a name, by way of this host's engine.

        Returns:
            The full name, which any engine of the lab can pull; this host's forgets it again.

        Raises:
            RuntimeError: this host runs no engine.
            ApiError: the engine refused; a push that failed half-way is an ``AssertionError``.
        """
        if self.host.engine is None:
            raise RuntimeError(f"{self.host.name} has no engine: call start_engine first")
        repository, _, tag = name.partition(":")
        full, tag = f"{self.address}/{repository}", tag or "latest"
        with self.host.engine.client() as client:
            client.call(
                "POST",
                f"/images/{self.host.engine.images[0]}/tag",
                query={"repo": full, "tag": tag},
            )
            # The engine asks for the header even where no password is needed; {} in base64.
            pushed = client.request(
                "POST",
                f"/images/{full}/push",
                query={"tag": tag},
                headers={"X-Registry-Auth": "e30="},
            )
            assert pushed.status == 200, pushed.body
            assert b'"error"' not in pushed.body, pushed.body
            client.call("DELETE", f"/images/{full}:{tag}")
        return f"{full}:{tag}"

    def _answers(self) -> bool:
        # From the machine itself, which has an address on the lab's bridge.
        with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
