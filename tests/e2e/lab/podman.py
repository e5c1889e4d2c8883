"""How a Podman of one's own is started: all of its state below one directory."""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING

from .unix_http import UnixClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_HELPERS = ("/usr/libexec/podman", "/usr/lib/podman", "/usr/local/libexec/podman")
_NEEDED = {
    "podman": "podman",
    "conmon": "conmon",
    "runc": "runc",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
}
# This machine's hard limit is lower than what Podman asks for by default; crun does not take the
# mixed control groups of a lab host; and nobody reads a journal here.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=4096:8192", "nproc=8192:8192"]
log_driver = "k8s-file"
[engine]
{init}
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
[network]
network_backend = "netavark"
"""


_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", *_HELPERS))


def podman_missing() -> str | None:
    """Why no Podman can be started here; None when it can."""
    absent = [name for name in _NEEDED if shutil.which(name, path=_PATH) is None]
    if not absent:
        return None
    packages = " ".join(sorted({_NEEDED[name] for name in absent}))
    return f"not on PATH: {', '.join(absent)} (Debian: apt-get install {packages})"


def podman_cli(home: Path) -> list[str]:
    """Return the words before a Podman command on the state below ``home``."""
    return [
        "podman",
        f"--root={home}/root",
        f"--runroot={home}/runroot",
        f"--tmpdir={home}/tmp",
        f"--network-config-dir={home}/networks",
        "--log-level=warn",
    ]


def podman_command(home: Path, socket: Path) -> list[str]:
    """Return what serves Podman's API at a socket, with its state below ``home``."""
    return [*podman_cli(home), "system", "service", "--time=0", f"unix://{socket}"]


def podman_environment(home: Path, *, insecure: Sequence[str] = ()) -> dict[str, str]:
    """Write Podman's configuration below ``home``, and return the variables that name it.

    Args:
        insecure: registries that are spoken to without TLS.
    """
    home.mkdir(exist_ok=True)
    conf, registries = home / "containers.conf", home / "registries.conf"
    init = shutil.which("docker-init", path=_PATH)  # Debian has no catatonit
    _write(conf, _CONTAINERS_CONF.format(init=f'init_path = "{init}"' if init else ""))
    _write(
        registries,
        'short-name-mode = "disabled"\n'
        + "".join(f'[[registry]]\nlocation = "{name}"\ninsecure = true\n' for name in insecure),
    )
    return {"CONTAINERS_CONF": str(conf), "CONTAINERS_REGISTRIES_CONF": str(registries)}


def _write(path: Path, text: str) -> None:
    """Write a file that another Podman may be reading: it would take half of it for all."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f"{path.name}.{threading.get_ident()}")
    partial.write_text(text)
    partial.replace(path)


def tag_for_hub(socket: Path) -> None:
    """Give ``localhost/alpine``, as a loaded image is called, the name that pulls would give it."""
    with UnixClient(socket) as client:
        client.call(
            "POST",
            "/v4.0.0/libpod/images/localhost/alpine:latest/tag",
            query={"repo": "docker.io/library/alpine", "tag": "latest"},
        )
