"""What the machine must offer before a lab can stand on it, said in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

from .podman import podman_missing

_FOR_HOSTS = {
    "busybox": "busybox-static",
    "ip": "iproute2",
    "iptables": "iptables",
    "kill": "procps",
    "mount": "mount",
    "nsenter": "util-linux",
    "ps": "procps",
    "strace": "strace",
    "unshare": "util-linux",
}
_REGISTRY = {"docker-registry": "docker-registry"}
_FOR_ENGINES = {"dockerd": "docker.io", **_REGISTRY}


@cache
def missing_for_hosts() -> str | None:
    """Why no lab host can be made here; None when it can."""
    if sys.platform != "linux":
        return "a lab needs Linux"
    if os.geteuid() != 0:
        return "a lab needs root, for network namespaces"
    missing = _missing_commands(_FOR_HOSTS)
    if missing:
        return missing
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--cgroup", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"a lab needs namespaces, which this machine refuses: {tried.stderr.strip()}"
    return None


@cache
def missing_for_engines(kind: str = "docker") -> str | None:
    """Why no lab host could run such an engine here; None when it could."""
    missing = missing_for_hosts()
    if kind == "podman":
        return missing or podman_missing() or _missing_commands(_REGISTRY)
    return missing or _missing_commands(_FOR_ENGINES)


def _missing_commands(wanted: dict[str, str]) -> str | None:
    missing = [command for command in wanted if shutil.which(command) is None]
    if not missing:
        return None
    packages = " ".join(sorted({wanted[command] for command in missing}))
    return f"not on PATH: {', '.join(missing)} (Debian: apt-get install {packages})"
