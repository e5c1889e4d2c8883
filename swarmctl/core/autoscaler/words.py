"""Measured numbers as people write them: 83%, 1.5 cores, 210 MiB."""

from __future__ import annotations

from .metrics import CPU, kind_of

KIB = 1024.0


def value_text(metric: str, value: float, base: float = 0.0) -> str:
    """Return a value in the words of its metric; as a percentage where it has a base."""
    if base:
        return f"{_number(100 * value / base)}%"
    kind = kind_of(metric)
    if kind == "share":
        return f"{_number(100 * value)}%"
    if kind == "bytes":
        return _bytes(value) + ("/s" if metric.startswith("net_") else "")
    return f"{_number(value)} cores" if metric == CPU else _number(value)


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < KIB or unit == "GiB":
            break
        value /= KIB
    return f"{_number(value)} {unit}"
