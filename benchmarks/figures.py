"""Samples in, a table of medians and ratios out."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = "engine limit"


class Figures:
    """Seconds, by step and by who took them; steps keep the order in which they first came."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, step: str, who: str, seconds: float) -> None:
        """Note one sample."""
        self._samples[step][who].append(seconds)

    def table(self, *, rival: str, ours: str) -> str:
        """Every step's median (least to most) for each who, and the three ratios of medians.

        A ratio below 1 means that the first named took less time. ``-`` stands where a side did
        not take part or a step has no such figure.
        """
        head = ["step", LIMIT, rival, ours, f"{ours}/{rival}", f"{ours}/limit", f"{rival}/limit"]
        rows = [head]
        for step, by in self._samples.items():
            rows.append(
                [
                    step,
                    *(_spread(by.get(who, [])) for who in (LIMIT, rival, ours)),
                    _ratio(by.get(ours, []), by.get(rival, [])),
                    _ratio(by.get(ours, []), by.get(LIMIT, [])),
                    _ratio(by.get(rival, []), by.get(LIMIT, [])),
                ]
            )
        return aligned(rows)

    def comparison(self, *, rival: str, ours: str, unit: str = "s", tails: bool = False) -> str:
        """Every step's median (least to most) on both sides, and the ratio of medians.

        Args:
            tails: show 99th percentiles and the number of samples besides.
        """
        rows = [["step", rival, ours, f"{ours}/{rival}"]]
        for step, by in self._samples.items():
            theirs, own = by.get(rival, []), by.get(ours, [])
            spreads = [_spread_of(one, unit, tails=tails) for one in (theirs, own)]
            rows.append([step, *spreads, _ratio(own, theirs)])
        return aligned(rows)

    def write_json(self, path: Path) -> None:
        """Every sample, for whoever wants other statistics."""
        path.write_text(json.dumps(self._samples, indent=2) + "\n")


def percentile(samples: list[float], percent: float) -> float:
    """The smallest sample that so many per cent of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def aligned(rows: list[list[str]]) -> str:
    """Rows as lines, with their columns one below the other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _spread_of(samples: list[float], unit: str, *, tails: bool) -> str:
    if not samples:
        return "-"
    middle, least, most = statistics.median(samples), min(samples), max(samples)
    digits = 0 if least >= 100 else 3 if most < 1 else 2
    extremes = f"{least:.{digits}f}-{most:.{digits}f}"
    if not tails:
        return f"{middle:.{digits}f} {unit} ({extremes})"
    late = percentile(samples, 99)
    return f"{middle:.{digits}f} {unit}, p99 {late:.{digits}f} ({extremes}, n={len(samples)})"


def _spread(samples: list[float]) -> str:
    if not samples:
        return "-"
    return f"{statistics.median(samples):.2f} s ({min(samples):.2f}-{max(samples):.2f})"


def _ratio(above: list[float], below: list[float]) -> str:
    if not above or not below:
        return "-"
    return f"{statistics.median(above) / statistics.median(below):.2f}"
