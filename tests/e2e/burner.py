"""Services that burn what they may while a file is there: load for scaling, in the lab."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.e2e.lab import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.swarm import Swarm

MOST = 5
CORE_SHARE = 0.1
BURN = (
    "while :; do if [ -e $LOAD/busy ]; then i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; "
    "else sleep 1; fi; done"
)
WINDOW_S = 5
RULES = {
    "min": "2",
    "max": str(MOST),
    "target": "cpu=20%",  # what burns is above, also where the machine has much else to do
    "cooldown": f"up=0s,down={WINDOW_S}s",
}


def labels(**rules: str) -> dict[str, str]:
    return {f"swarmctl.scale.{name.replace('__', '.')}": rules[name] for name in rules}


class Burner:
    """A service whose tasks burn all they may while a file is there, and nothing else.

    Each may use a tenth of a core, so a few of them do no harm to the machine.
    """

    def __init__(self, swarm: Swarm, folder: Path, name: str) -> None:
        self.swarm, self.folder, self.name = swarm, folder, name
        self.id = ""
        folder.mkdir(exist_ok=True)

    def create(self, *, boxed: bool, **rules: str) -> None:
        container: dict[str, Any] = {"Command": ["sh", "-c", BURN], "Env": ["LOAD=/load"]}
        if boxed:
            mount = {"Type": "bind", "Source": str(self.folder), "Target": "/load"}
            container |= {"Mounts": [mount]}
        else:
            container |= {"Image": "host", "Env": [f"LOAD={self.folder}"]}
        use = {"NanoCPUs": int(CORE_SHARE * 1e9)}
        self.id = self.swarm.create_spec(
            self.name,
            2,
            container=container,
            task={"Resources": {"Limits": use, "Reservations": use}},
            Labels=labels(**{**RULES, **rules}),
        )

    def busy(self, *, on: bool) -> None:
        flag = self.folder / "busy"
        flag.touch() if on else flag.unlink(missing_ok=True)

    def count(self) -> int:
        return len(self.swarm.running(self.id))

    def scaling(self) -> Any:
        return self.swarm.api("GET", f"/services/{self.id}/scaling")

    def wait_count(self, count: int, within_s: float) -> None:
        """Wait until so many tasks run."""

        def there() -> bool:
            return self.count() == count

        try:
            eventually(there, within_s, every_s=0.2)
        except AssertionError as error:
            raise AssertionError(f"not {count} tasks: {json.dumps(self.scaling())}") from error


@contextmanager
def burning(swarm: Swarm, folder: Path, *names: str) -> Iterator[list[Burner]]:
    """Burners that are out when the test ends."""
    burners = [Burner(swarm, folder, name) for name in names]
    try:
        yield burners
    finally:
        for burner in burners:
            burner.busy(on=False)
        shutil.rmtree(folder, ignore_errors=True)
