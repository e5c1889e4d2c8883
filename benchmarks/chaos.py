"""Random trouble for a real swarm of several managers, with clients at work and a judge behind.

    python -m benchmarks.chaos [--minutes 10] [--managers 5] [--seed N] [--side swarmctl|swarm]
                              [--logs DIR]

Eight clients read and compare-and-set three objects through all managers, while managers are
killed, stopped, cut off, made deaf or mute and put on lossy lines, a minority at a time. Then all
are killed at once and started again. Prints what was asked and answered, the longest time without
an acknowledged write, the verdict of the linearizability checker for each object, and the writes
that were acknowledged and lost. The exit status is 1 unless every verdict is "linearizable" and
nothing was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sides import SWARM
from tests.chaos.storm import Storm
from tests.e2e.lab import Lab, missing_for_engines, missing_for_hosts
from tests.e2e.swarm import managers_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.managers import Managers


def main() -> int:
    """Run the storm and print the report."""
    options = _parse()
    missing = missing_for_engines() if options.side == "swarm" else missing_for_hosts()
    if missing is None and shutil.which("nft") is None:
        missing = "not on PATH: nft (Debian: apt-get install nftables)"
    if missing:
        print(f"cannot be done here: {missing}", file=sys.stderr)
        return 2
    print(f"{options.managers} managers of {options.side}, seed {options.seed}", flush=True)
    with _managers(options.side, options.managers) as managers:
        storm = Storm(managers, options.seed)
        try:
            storm.rage(options.minutes * 60)
        finally:
            for host in managers.hosts if options.logs else ():
                (options.logs / f"{host.host.name}.log").write_text(host.log)
    print(storm.report)
    return int(not storm.report.is_good)


@contextmanager
def _managers(side: str, count: int) -> Iterator[Managers]:
    with Lab(count) as lab:
        if side == "swarm":
            lab.start_engines()
            with SWARM.managers(lab, count) as managers:
                yield managers
        else:
            with managers_on(lab.hosts) as managers:
                yield managers


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("--minutes", type=float, default=10, help="default 10")
    parser.add_argument("--managers", type=int, default=5, help="default 5")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1_000_000), help="which faults; else random"
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="where to keep what managers say")
    parser.add_argument("--side", choices=("swarm", "swarmctl"), default="swarmctl")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
