"""Several real hosts with real engines on one Linux machine.

A lab host is a process tree with its own network, mounts, processes, host name and control
groups, joined to its neighbours by a bridge. Each can run an engine and a swarmctl daemon of its
own, be cut off, slowed, paused, or lose its power; the tests and the benchmarks drive it as
somebody with a shell on three machines would.

Laws: everything a lab puts on the machine carries its name, which holds the id of the process
that owns it; closing a lab, or the death of its owner followed by the next lab, removes all of
it and nothing else. Nothing here knows swarmctl's code: only its command line and its socket.
"""

from . import traces
from .daemons import Daemon
from .engines import Engine, PodmanEngine, run_container
from .hosts import Host, HostCommandFailed
from .images import IMAGE
from .lab import Lab
from .needs import missing_for_engines, missing_for_hosts
from .registry import Registry
from .traces import find_traces
from .unix_http import ApiError, Reply, UnixClient
from .waiting import eventually

__all__ = [
    "IMAGE",
    "ApiError",
    "Daemon",
    "Engine",
    "Host",
    "HostCommandFailed",
    "Lab",
    "PodmanEngine",
    "Registry",
    "Reply",
    "UnixClient",
    "eventually",
    "find_traces",
    "missing_for_engines",
    "missing_for_hosts",
    "run_container",
    "traces",
]
