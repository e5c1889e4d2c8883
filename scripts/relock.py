#!/usr/bin/env python3
"""Writes requirements.lock and constraints.txt from the pyproject files of this repository.

``requirements.lock`` pins what goes into the archive, by version and by the hashes of the wheels it
may come as; ``constraints.txt`` pins everything the tests install. Run it after changing a
dependency, with CPython 3.10 to 3.13 at hand (on PATH or named as arguments).

Two traps decide how it works. pip judges environment markers by the Python it runs on, so each
version is resolved by an interpreter of that version, the oldest first, whose answers then bind the
newer ones. And a version that has a pure wheel beside compiled ones is pinned to the pure wheel
alone, one that has a stable-ABI wheel to that of the oldest Python: one file for all interpreters.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from build_zipapp import (
    BUILD,
    LOCK,
    MACHINES,
    PYTHONS,
    REPO,
    BuildError,
    Project,
    Target,
    canonical,
    download,
    project_directories,
)

CONSTRAINTS = REPO / "constraints.txt"
STORE = BUILD / "relock"
HEADER = "# Written by scripts/relock.py; do not edit.\n"

Versions = dict[str, str]  # distribution -> version


def main() -> None:
    """Resolve for every Python, collect the wheels' hashes, write both files."""
    projects = [Project.read(path) for path in project_directories()]
    ours = {canonical(project.name) for project in projects}
    runtime, tests = [], []
    for project in projects:
        runtime += project.table.get("dependencies", [])
        tests += project.table.get("optional-dependencies", {}).get("test", [])
    runtime = [one for one in runtime if canonical(one.split(">")[0].split("=")[0]) not in ours]
    needs: dict[str, Versions] = {}
    everything: dict[str, Versions] = {}
    for version, python in pythons().items():
        print(f"resolving for Python {version}")
        needs[version] = resolve(python, runtime, earlier(needs))
        everything[version] = resolve(python, runtime + tests, earlier(everything) | earlier(needs))
    rows = [
        f"{name}=={pinned}{marker(name, needs)}"
        + "".join(f" \\\n    --hash=sha256:{digest}" for digest in hashes(name, pinned, needs))
        for name, pinned in sorted(earlier(needs).items())
    ]
    LOCK.write_text(HEADER + "\n".join(rows) + "\n", "utf-8")
    # A constraint binds only what is installed anyway, so these need no markers.
    rows = [f"{name}=={version}" for name, version in sorted(earlier(everything).items())]
    CONSTRAINTS.write_text(HEADER + "\n".join(rows) + "\n", "utf-8")


def pythons() -> dict[str, str]:
    """Return an interpreter's path for each supported version, oldest first."""
    found: dict[str, str] = {}
    names = [*sys.argv[1:], *(f"python{version}" for version in PYTHONS)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names += [str(path) for path in sorted(pyenv.glob("3.1[0-3].*/bin/python3"))]
    ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for name in names:
        try:
            answer = subprocess.run([name, "-c", ask], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        version, path = answer.stdout.split(maxsplit=1)
        found.setdefault(version, path.strip())
    if missing := [version for version in PYTHONS if version not in found]:
        sys.exit(f"relock: no CPython {', '.join(missing)} found; name one as an argument")
    return {version: found[version] for version in PYTHONS}


def resolve(python: str, requirements: list[str], bound: Versions) -> Versions:
    """Return what ``python`` would install for ``requirements``, kept to ``bound`` where named."""
    constraints = STORE / "bound.txt"
    constraints.parent.mkdir(parents=True, exist_ok=True)
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in bound.items()))
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--only-binary=:all:", "--report", "-", "--constraint", str(constraints)]
    report = subprocess.run([*command, *requirements], check=True, stdout=subprocess.PIPE).stdout
    chosen = (row["metadata"] for row in json.loads(report)["install"])
    return {canonical(row["name"]): row["version"] for row in chosen}


def earlier(resolved: dict[str, Versions]) -> Versions:
    """The versions chosen so far; the oldest Python's choice wins."""
    known: Versions = {}
    for versions in resolved.values():
        known = versions | known
    return known


def marker(name: str, resolved: dict[str, Versions]) -> str:
    """Return the environment marker of a distribution that only old Pythons need."""
    wanted = [version for version in PYTHONS if name in resolved[version]]
    if wanted != list(PYTHONS[: len(wanted)]):
        sys.exit(f"relock: {name} is needed by {wanted} only; the lock cannot say that yet")
    return f" ; python_version < '{PYTHONS[len(wanted)]}'" if len(wanted) < len(PYTHONS) else ""


def hashes(name: str, version: str, resolved: dict[str, Versions]) -> list[str]:
    """Return the hashes of the wheels by which ``name`` may come into the archive."""
    wanted = [python for python in PYTHONS if name in resolved[python]]
    pure = STORE / "wheels" / f"{name}-{version}"
    pure.mkdir(parents=True, exist_ok=True)
    requirement = f"{name}=={version}"
    options = ["--no-deps", "--python-version", wanted[0], "--platform", "any", "--abi", "none"]
    try:
        download(pure, None, [*options, requirement])
    except BuildError:
        for machine in MACHINES:
            for python in wanted:
                target = Target(python, machine)
                native = pure / target.tag
                native.mkdir(exist_ok=True)
                download(native, target, ["--no-deps", requirement])
                if any("-abi3-" in path.name for path in native.glob("*.whl")):
                    break  # the oldest Python's stable-ABI wheel serves the newer ones
    print(f"  {requirement}: {', '.join(sorted(p.name for p in pure.rglob('*.whl')))}")
    return sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in pure.rglob("*.whl"))


if __name__ == "__main__":
    main()
