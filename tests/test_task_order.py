"""The order of trio's tasks, which decides races, is drawn alike in CI, or chosen (conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parent.parent
TASKS = 30
RACE = f"""
import trio

async def test_race():
    order = []
    async def run(number):
        order.append(number)
    async with trio.open_nursery() as nursery:
        for number in range({TASKS}):
            nursery.start_soon(run, number)
    print("order", order)
"""


def race(tmp_path: Path, *args: str, ci: str = "") -> str:
    """Have tasks started that are ready at once; the order in which they ran."""
    (tmp_path / "test_race.py").write_text(RACE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "-o", "trio_mode=true", *args, str(tmp_path)],
        cwd=REPO,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("order")]
    return line.removeprefix("order ")


def test_the_oldest_or_the_newest_first(tmp_path: Path) -> None:
    """The two ends of what trio may draw."""
    numbers = list(range(TASKS))
    assert race(tmp_path, "--task-order", "oldest") == str(numbers)
    assert race(tmp_path, "--task-order", "newest") == str(numbers[::-1])


def test_in_ci_it_is_the_same_each_time(tmp_path: Path) -> None:
    """Nobody's change is red for an order that the run before it did not have."""
    first = race(tmp_path, ci="true")
    assert race(tmp_path, ci="true") == first
    assert race(tmp_path) not in (first, race(tmp_path))


def test_a_number_gives_an_order_again(tmp_path: Path) -> None:
    """What a run found can be looked at."""
    first = race(tmp_path, "--task-order", "7")
    assert race(tmp_path, "--task-order", "7") == first
    assert race(tmp_path, "--task-order", "8") != first
