"""Random lives of a small cluster's services, by seed; and the shortest that shows the same.

    python -m tests.core.pipeline.lives --seeds 20000

A seed is evidence for one commit: who finds something writes a test by name for it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.core.pipeline import model
from tests.core.pipeline.ending import complaints
from tests.core.pipeline.model import Wish
from tests.core.pipeline.stage import BAD, MODES, ZONES, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

Deed = tuple[Any, ...]
DEEDS = (15, 60)
SOMETHING_ELSE = 0.25
VARIED = ("image", "image", "count", "zone", "start_first", "parallelism", "action")
BEGIN: tuple[Deed, ...] = (("join", "n0"), ("join", "n1"), ("join", "n2"), ("secret", "key"))
RECONCILERS = ("orchestrator", "reaper", "enforcer", "allocator", "scheduler")

WEIGHTS = {
    "set": 12,
    "scale": 4,
    "back": 3,
    "remove": 1.5,
    "stop": 1.5,
    "start": 3,
    "secret": 1.5,
    "join": 3,
    "leave": 1,
    "silent": 1,
    "node": 5,
    "availability": 5,
    "label": 9,
    "end": 12,
    "health": 1,
    "turn": 8,
    "turns": 8,
    "agents": 10,
    "sleep": 14,
    "time": 2,
    "lead": 2,
}


def life(seed: int) -> list[Deed]:
    """Return what happens in the life with that number."""
    rng = random.Random(seed)
    names = rng.sample(sorted(MODES), rng.randint(1, 3))  # few, so that much happens to each
    wishes = {name: wish(rng, name) for name in names}
    weights = {kind: rng.choice([0, 1, 1, 2]) * weight for kind, weight in WEIGHTS.items()}
    weights["set"], weights["sleep"] = WEIGHTS["set"], WEIGHTS["sleep"]
    kinds = rng.choices(list(weights), list(weights.values()), k=rng.randint(*DEEDS))
    begin = [*BEGIN, *(("set", name, wishes[name], "") for name in names), ("sleep", 6)]
    return [*begin, *(deed(rng, kind, wishes) for kind in kinds)]


def deed(rng: random.Random, kind: str, wishes: dict[str, Wish]) -> Deed:
    """Draw one deed of a kind; a service asks for much of what it did before."""
    name, machine = rng.choice(sorted(wishes)), rng.choice(sorted(ZONES))
    if kind == "set":
        wishes[name] = varied(rng, wishes[name], wish(rng, name))
    rest: dict[str, Sequence[Any]] = {
        "set": (name, wishes[name], rng.choice(["", "", "", "key", "other"])),
        "scale": (name, rng.randrange(6)),
        "secret": (rng.choice(["key", "other"]),),
        "node": (machine, rng.choice(["ready", "ready", "down", "unknown"])),
        "availability": (machine, rng.choice(["active", "active", "drain", "pause"])),
        "label": (machine, rng.choice("abb")),
        "end": (rng.randrange(10), rng.choice(["failed", "complete"])),
        "health": (rng.randrange(10),),
        "turn": (rng.choice(RECONCILERS),),
        "sleep": (rng.choice([0, 0, 1, 1, 6, 70]),),
        "time": (rng.choice([1, 70]),),
    }
    if kind in rest:
        return (kind, *rest[kind])
    if kind in ("back", "remove", "stop", "start"):
        return kind, name
    return (kind, machine) if kind in ("join", "leave", "silent") else (kind,)


def varied(rng: random.Random, before: Wish, other: Wish) -> Wish:
    """Return a wish with something of another one, at times with all of it."""
    if rng.random() < SOMETHING_ELSE:
        return other
    chosen = rng.sample(VARIED, rng.randint(1, 3))
    return replace(before, **{each: getattr(other, each) for each in chosen})


def wish(rng: random.Random, name: str) -> Wish:
    """Draw what a service of that name asks for."""
    mode = MODES[name]
    many = mode in (model.REPLICATED, model.JOB)
    return Wish(
        mode=mode,
        count=rng.choice([0, 1, 2, 2, 3, 4]) if many else 1,
        at_once=rng.randint(1, 3),
        image=rng.choice(["v1", "v1", "v2", "v2", BAD]),
        zone=rng.choice(["", "a"]),
        port=name == "port",
        condition=rng.choice(["any", "any", "on-failure", "none"]),
        attempts=rng.choice([0, 0, 1, 2]),
        start_first=rng.random() < 0.5,
        parallelism=rng.randint(0, 2),
        action=rng.choice(["pause", "continue", "rollback"]),
    )


def live(deeds: Sequence[Deed]) -> Stage:
    """Do it all, let the world settle, and see that it is as the model says.

    Raises:
        AssertionError: it is not.
    """
    stage = Stage()
    for each in deeds:
        stage.do(each)
    stage.settle_all()
    wrong = complaints(stage.model)
    assert not wrong, "\n".join(wrong)
    wanted = stage.wishes()
    assert not wanted, f"at rest, somebody wants {wanted}"
    return stage


def failure_of(deeds: Sequence[Deed]) -> str:
    """Return what is wrong with a life, "" for nothing."""
    try:
        live(deeds)
    except Exception as error:  # a decider that raises is a finding like any other
        return f"{type(error).__name__}: {error}"
    return ""


def shortened(deeds: Sequence[Deed]) -> list[Deed]:
    """Return the shortest life that goes wrong, too, as far as leaving things out finds it."""
    short = list(deeds)
    size = len(short)
    while size:
        at = 0
        while at < len(short):
            fewer = short[:at] + short[at + size :]
            if failure_of(fewer):
                short = fewer
            else:
                at += size
        size //= 2
    return short


def story(seed: int) -> str:
    """Return what is wrong with the life of that number, in a few lines; "" for nothing."""
    deeds = life(seed)
    if not failure_of(deeds):
        return ""
    short = shortened(deeds)
    lines = "\n".join(f"    {each!r}," for each in short)
    return f"seed {seed}: {failure_of(short)}\n{lines}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.core.pipeline.lives")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (0)")
    options = parser.parse_args()
    began = time.monotonic()
    wrong = 0
    for seed in range(options.first, options.first + options.seeds):
        if told := story(seed):
            print(told, flush=True)
            wrong += 1
    took = time.monotonic() - began
    print(f"{options.seeds} lives in {took:.1f} s, {wrong} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
