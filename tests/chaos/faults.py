"""What happens to managers: killed, stopped, cut off, half deaf, on a bad line.

A fault begins and ends; in between it holds. What is done to the network is done inside the host
it befalls, by packet filter rules of that host's own, so one-way losses are really one way. The
clients reach every manager all the while: they use its socket, not its network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.managers import ManagerHost

Act = Callable[[Sequence["ManagerHost"], Sequence["ManagerHost"]], None]
LOSS_PERCENT = 20

_RULES = """
add table inet chaos
delete table inet chaos
add table inet chaos
add chain inet chaos heard { type filter hook input priority 0; }
add chain inet chaos said { type filter hook output priority 0; }
"""
_NO_RULES = """
add table inet chaos
delete table inet chaos
"""


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: as reports call it.
        begin, end: take the managers it befalls, and the others.
    """

    name: str
    begin: Act
    end: Act


def _kill(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.kill()


def _restart(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.restart()


def _stop(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.pause()


def _continue(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.resume()


def _unplug(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.host.cut()


def _plug(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.host.heal()


def _split(victims: Sequence[ManagerHost], others: Sequence[ManagerHost]) -> None:
    there = _addresses(others)
    for victim in victims:
        _filter(
            victim,
            f"add rule inet chaos heard ip saddr {there} drop",
            f"add rule inet chaos said ip daddr {there} drop",
        )


def _deafen(victims: Sequence[ManagerHost], others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        _filter(victim, f"add rule inet chaos heard ip saddr {_addresses(others)} drop")


def _mute(victims: Sequence[ManagerHost], others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        _filter(victim, f"add rule inet chaos said ip daddr {_addresses(others)} drop")


def _lose(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        _filter(
            victim,
            f"add rule inet chaos heard numgen random mod 100 < {LOSS_PERCENT} drop",
            f"add rule inet chaos said numgen random mod 100 < {LOSS_PERCENT} drop",
        )


def _unfilter(victims: Sequence[ManagerHost], _others: Sequence[ManagerHost]) -> None:
    for victim in victims:
        victim.host.run(["nft", "-f", "-"], input_text=_NO_RULES)


def _filter(victim: ManagerHost, *rules: str) -> None:
    victim.host.run(["nft", "-f", "-"], input_text=_RULES + "\n".join(rules) + "\n")


def _addresses(hosts: Sequence[ManagerHost]) -> str:
    return "{ " + ", ".join(host.address for host in hosts) + " }"


KILL = Fault("kill -9", _kill, _restart)
STOP = Fault("SIGSTOP", _stop, _continue)
CUT = Fault("cable out", _unplug, _plug)
SPLIT = Fault("partition", _split, _unfilter)
DEAF = Fault("hears nobody", _deafen, _unfilter)
MUTE = Fault("reaches nobody", _mute, _unfilter)
LOSS = Fault("packet loss", _lose, _unfilter)
NETWORK = (CUT, SPLIT, DEAF, MUTE, LOSS)
FAULTS = (KILL, STOP, *NETWORK)
