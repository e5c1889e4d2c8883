"""What ``swarmctl network doctor`` says before and after damage by hand, on three hosts of the lab.

As root, from the root of the repository; the example in docs/design/overlay.md was made by it:

    python3 -m benchmarks.damage

Each host runs one task of a service that is published and on a network of its own. The second host
is damaged: another host for the address of the third one's task, the port's chain emptied, and then
the network's tunnel deleted. Nobody mends it but the node itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.e2e.lab import Lab, eventually
from tests.e2e.swarm import swarm_on

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.e2e.swarm import Swarm

NETWORK, SERVICE, PUBLISHED = "back", "web", 8080
NOWHERE = "192.0.2.9"
_MENDED_S = 20.0
"""Several periods of audits."""


class Damage:
    """Damage to the second host of three.

    Args:
        swarm: in which no service is called ``web`` and no network ``back``.

    Attributes:
        mac: of the third host's task in the network.
        tunnel: the network's device.
    """

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._host = swarm.hosts[1]
        network = swarm.api("POST", "/networks/create", {"Name": NETWORK, "Driver": "overlay"})
        self.tunnel = f"sx-{network['Id'][:12]}"
        service = swarm.create_spec(
            SERVICE,
            len(swarm.hosts),
            task={"Networks": [{"Target": NETWORK}]},
            EndpointSpec={"Ports": [{"PublishedPort": PUBLISHED, "TargetPort": 80}]},
        )
        swarm.wait_running(service, len(swarm.hosts))
        (there,) = (task for task in swarm.running(service) if swarm.nodes_of([task]) == [2])
        (cidr,) = (
            text
            for one in there["NetworksAttachments"]
            if one["Network"]["Spec"]["Name"] == NETWORK
            for text in one["Addresses"]
        )
        address = cidr.partition("/")[0]
        self.mac = f"02:42:{bytes(map(int, address.split('.'))).hex(':')}"
        self.misleading = (
            f"bridge fdb replace {self.mac} dev {self.tunnel} dst {NOWHERE} self permanent",
            f"nft flush chain ip swarmctl port-tcp-{PUBLISHED}",
        )
        self.deleting = f"ip link del {self.tunnel}"

    def doctor(self) -> subprocess.CompletedProcess[str]:
        """Run ``swarmctl network doctor`` on the first host."""
        return self._swarm.hosts[0].swarmctl(["network", "doctor"], check=False)

    def healthy(self, *, mended: int = 0) -> str:
        """Wait until the doctor finds nothing wrong, and so many kinds of damage were mended."""

        def look() -> str:
            done = self.doctor()
            rows = tables(done.stdout)[-1]
            is_mended = mended in (0, len(rows) - 1)
            return done.stdout if done.returncode == 0 and is_mended else ""

        return eventually(look, _MENDED_S, what="a swarm that is well")

    def mislead(self) -> str:
        """Have entry and chain wrong; return what the doctor says before they are mended."""

        def look() -> str:
            for command in self.misleading:
                self._host.run(command.split())
            said = self.doctor().stdout
            is_whole = NOWHERE in said and "port-tcp-" in said
            return said if is_whole and said.count("no answer") > 1 else ""

        return eventually(look, _MENDED_S, what="damage that is seen")

    def delete_tunnel(self) -> None:
        """Take the network's device away."""
        self._host.run(self.deleting.split())


def tables(text: str) -> list[list[list[str]]]:
    """Read tables off a command's output: rows of cells, the heads first."""
    return [
        [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
        for table in text.strip().split("\n\n")
    ]


def transcript(damage: Damage) -> Iterator[str]:
    """Yield what is typed and what is answered."""
    doctor = "$ swarmctl network doctor"
    yield f"{doctor}\n{damage.healthy()}"
    said = damage.mislead()
    yield "\n".join(f"h2# {command}" for command in damage.misleading) + "\n"
    yield f"{doctor}    (exit code 1)\n{said}"
    damage.delete_tunnel()
    yield f"h2# {damage.deleting}\n"
    yield f"{doctor}\n{damage.healthy(mended=3)}"


def main() -> None:
    """Print it."""
    with Lab(3) as lab:
        lab.start_engines()
        with swarm_on(lab.hosts) as swarm:
            for part in transcript(Damage(swarm)):
                print(part, flush=True)


if __name__ == "__main__":
    main()
