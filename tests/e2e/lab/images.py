"""The lab's one image, made of the machine's own busybox: no registry, no network.

It is written straight in the format that ``docker load`` and ``podman load`` read, byte for byte
the same for the same busybox, so every engine gives it the same id, as a pulled image would have.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

IMAGE = "alpine:latest"
"""The name services are created with. It pretends to be what people type first."""

# What `docker load` insists on; a fixed date keeps the id the same from one run to the next.
_CREATED = "2020-01-01T00:00:00Z"


def image_tar() -> Path:
    """The image as a file that engines can load; built on first use, then kept.

    Returns:
        A file in ``$XDG_CACHE_HOME/swarmctl-lab`` (``~/.cache`` by default), named after the
        busybox it holds, so a new busybox makes a new file.

    Raises:
        FileNotFoundError: there is no busybox on PATH.
    """
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("no busybox on PATH; Debian has it in busybox-static")
    binary = Path(found).read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "swarmctl-lab"
    target = cache / f"alpine-{hashlib.sha256(binary).hexdigest()[:16]}.tar"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(_archive(_layer(binary, _applets(found))))
        unfinished.replace(target)  # two labs may build it at once; each sees a whole file
    return target


def _applets(busybox: str) -> list[str]:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name != "busybox"]


def _layer(binary: bytes, applets: list[str]) -> bytes:
    """The root file system: busybox, its applets as links, and the few files programs expect."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, mode in [
            *((name, 0o755) for name in ("bin", "dev", "etc", "proc", "root", "run", "sys")),
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("usr/bin", 0o755),
            ("var", 0o755),
        ]:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "bin/busybox", binary, 0o755)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        _add_file(tar, "etc/group", b"root:x:0:\n", 0o644)
        for name in applets:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return out.getvalue()


def _archive(layer: bytes) -> bytes:
    """The layer in a docker archive: layer, configuration, and the manifest that names both."""
    layer_id = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "created": _CREATED,
            "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_id}"]},
            "history": [{"created": _CREATED, "created_by": "swarmctl lab"}],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer_id}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [IMAGE], "Layers": [layer_name]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add_file(tar, layer_name, layer, 0o644)
        _add_file(tar, config_name, config, 0o644)
        _add_file(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return out.getvalue()


def _add_file(tar: tarfile.TarFile, path: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
