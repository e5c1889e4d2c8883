"""Amounts as users read them: CPUs and bytes with their units."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def cpus(nano: int) -> str:
    """Return 1e-9 cores as ``0.5 CPUs``."""
    text = f"{nano / 1e9:.3f}".rstrip("0").rstrip(".")
    return f"{text} CPU" if text == "1" else f"{text} CPUs"


def memory(size: int) -> str:
    """Return bytes as ``1.5 GiB``."""
    amount, at = float(size), 0
    while amount >= 1024 and at < len(_UNITS) - 1:
        amount /= 1024
        at += 1
    return f"{amount:.4g} {_UNITS[at]}"
