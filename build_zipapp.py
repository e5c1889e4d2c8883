#!/usr/bin/env python3
"""Builds ``dist/swarmctl.pyz``: swarmctl, its executor plugins and their libraries in one file.

The archive holds

- ``__main__.py`` and two ``swarmctl_*.py``: the bootstrap, from ``bootstrap/``, and what the build
  tells it in ``swarmctl_built.py``;
- every pure package and its ``*.dist-info`` once, at the top, so that entry points resolve;
- a bill of materials (CycloneDX) in swarmctl's own ``dist-info/sboms/``;
- native code under ``native/<machine>/``: one directory serves all Python versions, because CPython
  puts its version into the names of extension modules.

Laws: the same input gives the same bytes (sorted entries, one fixed time, nothing of this machine);
third-party wheels are the ones pinned by hash in ``requirements.lock`` and no others; our own code
is read from this checkout, not built. Needs nothing but CPython 3.10+ with pip, or Debian's
python3-venv, or root to install that.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarmctl.licenses import license_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from email.message import Message

REPO = Path(__file__).resolve().parent
BUILD = REPO / "build"
LOCK = REPO / "requirements.lock"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
one_makes_pip = threading.Lock()
# What pip calls machines with each C library, newest first.
WHEEL_TAGS = {
    "gnu": (
        *("manylinux_2_28", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17"),
        *("manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux_2_5", "manylinux1"),
    ),
    "musl": ("musllinux_1_2", "musllinux_1_1"),
}
# Machine -> pip's names of it. Ours are the ends of CPython's extension tags.
MACHINES = {
    f"{arch}-linux-{libc}": tuple(f"{tag}_{arch}" for tag in tags)
    for libc, tags in WHEEL_TAGS.items()
    for arch in ("x86_64", "aarch64")
}
USUAL_MACHINES = tuple(machine for machine in MACHINES if machine.endswith("-gnu"))
# What of a wheel does not go in: a record that no longer holds, stubs, and the library's own tests.
LEFT_OUT = re.compile(r"\.dist-info/(RECORD|WHEEL|INSTALLER)$|\.pyi$|(^|/)_?tests/|\.data/")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
SHEBANG = b"#!/usr/bin/env python3\n"


class BuildError(Exception):
    """The archive cannot be built; ``str(error)`` says why and what to do."""


@dataclass(frozen=True, order=True)
class Target:
    """One interpreter on one machine: ``python`` as ``3.11``, ``machine`` a key of MACHINES."""

    python: str
    machine: str

    @property
    def tag(self) -> str:
        """The tag in the names of this interpreter's extension modules."""
        return f"cpython-{self.python.replace('.', '')}-{self.machine}"

    @property
    def pip_options(self) -> list[str]:
        """What makes pip choose wheels for this target, whatever pip itself runs on."""
        options = ["--python-version", self.python, "--implementation", "cp"]
        for abi in (f"cp{self.python.replace('.', '')}", "abi3", "none"):
            options += ["--abi", abi]
        for platform in MACHINES[self.machine]:
            options += ["--platform", platform]
        return options


@dataclass(frozen=True)
class Pin:
    """One line of the lock: a version, the wheels it may come as, and the Pythons that need it."""

    name: str
    version: str
    below: str | None  # needed by Pythons older than this only
    hashes: frozenset[str]

    def wanted_by(self, target: Target) -> bool:
        return self.below is None or _version(target.python) < _version(self.below)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def main() -> None:
    """Read the command line, build, and say what came out; exits 1 with a sentence on failure."""
    parser = argparse.ArgumentParser(description="Build swarmctl as one file.")
    parser.add_argument("--output", type=Path, default=REPO / "dist" / "swarmctl.pyz")
    for flag, default, choices in (
        ("--python", PYTHONS, PYTHONS),
        ("--platform", USUAL_MACHINES, tuple(MACHINES)),
    ):
        parser.add_argument(
            flag,
            nargs="+",
            default=default,
            choices=choices,
            help=f"what to serve, of: {', '.join(choices)} (default: {', '.join(default)})",
            metavar=flag.strip("-").upper(),
        )
    parser.add_argument(
        "--with",
        nargs="+",
        default=[],
        dest="extras",
        metavar="PACKAGE",
        help="plugins to bake in: names on the package index, wheels or directories",
    )
    options = parser.parse_args()
    started = time.monotonic()
    pythons = [python for python in PYTHONS if python in options.python]
    machines = [machine for machine in MACHINES if machine in options.platform]
    targets = [Target(python, machine) for python in pythons for machine in machines]
    try:
        data = build(targets, options.extras)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        partial = options.output.with_suffix(f".{os.getpid()}.new")
        partial.write_bytes(data)
        partial.chmod(0o755)
        partial.replace(options.output)
    except (BuildError, OSError) as error:
        sys.exit(f"build_zipapp: {error}")
    print(
        f"{options.output}: {len(data) / 1e6:.1f} MB for CPython {', '.join(pythons)}"
        f" on {', '.join(machines)}, sha256 {hashlib.sha256(data).hexdigest()},"
        f" {time.monotonic() - started:.1f} s"
    )


def build(targets: Sequence[Target], extras: Sequence[str] = ()) -> bytes:
    """Return the bytes of the archive for ``targets``.

    Args:
        targets: what it shall run on; at least one.
        extras: plugins to add, as pip names them: ``name``, ``name==1.2``, a wheel, a directory.

    Raises:
        BuildError: the lock does not fit the projects, a wheel is missing, two wheels contradict,
            or pip failed, having said why on stderr.
    """
    projects = [Project.read(path) for path in project_directories()]
    lock = read_lock()
    check_lock(lock, projects)
    content: dict[str, bytes] = {}
    for project in projects:
        merge(content, project.name, project.files())
    wheels: dict[tuple[str, str], Path] = {}  # a pure wheel serves all machines
    added: list[Path] = []
    for target, locked in zip(targets, locked_wheels(lock, targets), strict=True):
        if extras and not (added and all(map(is_pure, added))):
            added = extra_wheels(extras, target, lock, projects)
        for wheel in [*locked, *added]:
            wheels[wheel.name, "" if is_pure(wheel) else target.machine] = wheel
    for (name, machine), wheel in sorted(wheels.items()):
        merge(content, name, wheel_files(wheel, machine))
    place = f"{projects[0].info_directory}/sboms/swarmctl.cyclonedx.json"
    content[place] = bill_of_materials(projects, wheels.values())
    for path in sorted((REPO / "bootstrap").glob("*.py")):
        content[path.name] = path.read_bytes()
    digest = hashlib.sha256()
    for name, data in sorted(content.items()):
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    tags = tuple(target.tag for target in targets)
    content["swarmctl_built.py"] = (
        f'"""Written by build_zipapp.py."""\n\nCONTENT = "{digest.hexdigest()[:20]}"\n'
        f"TARGETS = {tags!r}\n"
    ).encode()
    return zip_bytes(content)


def merge(content: dict[str, bytes], source: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Add ``files`` of ``source`` to ``content``; the same path must always hold the same bytes."""
    for name, data in files:
        if content.setdefault(name, data) != data:
            raise BuildError(f"{name} of {source} differs from the one another package brings")


def zip_bytes(content: Mapping[str, bytes]) -> bytes:
    """Return a runnable zip archive of ``content`` whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return buffer.getvalue()


def bill_of_materials(projects: Sequence[Project], wheels: Iterable[Path]) -> bytes:
    """Return what is inside as CycloneDX: each distribution, its license, the wheels it came as."""
    found: dict[str, dict[str, Any]] = {}
    for wheel in sorted(wheels, key=lambda path: path.name):
        with zipfile.ZipFile(wheel) as archive:
            (place,) = (
                n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)
            )
            metadata = email.message_from_bytes(archive.read(place))
        part = found.setdefault(wheel.name.partition("-")[0], component(metadata))
        digest = {"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}
        reference = {"type": "distribution", "url": wheel.name, "hashes": [digest]}
        if reference not in part["externalReferences"]:
            part["externalReferences"].append(reference)
    own = [component(email.message_from_string(project.metadata())) for project in projects]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own[0] | {"type": "application"}},
        "components": [*own[1:], *(found[name] for name in sorted(found))],
    }
    return json.dumps(bill, indent=1, sort_keys=True).encode() + b"\n"


def component(metadata: Message) -> dict[str, Any]:
    """Return a distribution as a component of the bill."""
    name, version = canonical(metadata["Name"]), metadata["Version"]
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "licenses": [{"license": {"name": license_of(metadata)}}],
        "externalReferences": [],
    }


# --- our own distributions --------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """A distribution of this repository, read from its directory."""

    directory: Path
    table: Mapping[str, Any]  # [project] of its pyproject.toml

    @classmethod
    def read(cls, directory: Path) -> Project:
        text = (directory / "pyproject.toml").read_text("utf-8")
        return cls(directory, toml_loads(text)["project"])

    @property
    def name(self) -> str:
        return str(self.table["name"])

    @property
    def info_directory(self) -> str:
        return f"{re.sub(r'[-_.]+', '_', self.name)}-{self.table['version']}.dist-info"

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield every file of its packages, and the metadata an installed one would have."""
        for package in sorted(self.directory.glob("swarmctl*/__init__.py")):
            for path in sorted(package.parent.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path.relative_to(self.directory).as_posix(), path.read_bytes()
        yield f"{self.info_directory}/METADATA", self.metadata().encode()
        yield f"{self.info_directory}/entry_points.txt", self.entry_points().encode()

    def metadata(self) -> str:
        """The core metadata that importlib.metadata and pip read."""
        rows = ["Metadata-Version: 2.1", f"Name: {self.name}", f"Version: {self.table['version']}"]
        rows += [f"Summary: {self.table['description']}"] if "description" in self.table else []
        rows += [f"Requires-Python: {self.table.get('requires-python', '>=3.10')}"]
        rows += [f"Requires-Dist: {one}" for one in self.table.get("dependencies", ())]
        return "\n".join(rows) + "\n"

    def entry_points(self) -> str:
        groups = {"console_scripts": self.table.get("scripts", {})}
        groups |= self.table.get("entry-points", {})
        sections = (
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in rows.items())
            for group, rows in groups.items()
            if rows
        )
        return "\n".join(sections)


def project_directories() -> list[Path]:
    """This repository's distributions: swarmctl, then its executor plugins by name."""
    return [REPO, *sorted(path.parent for path in REPO.glob("plugins/*/pyproject.toml"))]


def toml_loads(text: str) -> dict[str, Any]:
    """Parse TOML; on CPython 3.10 with the parser that pip carries."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib
    return tomllib.loads(text)


# --- other people's wheels --------------------------------------------------------------------


def read_lock() -> list[Pin]:
    """Read requirements.lock, which scripts/relock.py writes."""
    pins = []
    for row in LOCK.read_text("utf-8").replace("\\\n", " ").splitlines():
        if not row.strip() or row.startswith("#"):
            continue
        words = re.fullmatch(
            r"(?P<name>[\w.-]+)==(?P<version>\S+?)"
            r"(?:\s*;\s*python_version < '(?P<below>[\d.]+)')?(?P<hashes>(?:\s+--hash=\S+)+)\s*",
            row,
        )
        if words is None:
            raise BuildError(f"{LOCK.name} has a line that is no pin: {row!r}")
        hashes = frozenset(re.findall(r"sha256:([0-9a-f]{64})", words["hashes"]))
        pins.append(Pin(words["name"], words["version"], words["below"], hashes))
    return pins


def check_lock(lock: Iterable[Pin], projects: Iterable[Project]) -> None:
    """Raise BuildError unless every dependency that the projects name is pinned."""
    known = {canonical(pin.name) for pin in lock} | {canonical(p.name) for p in projects}
    for project in projects:
        for requirement in project.table.get("dependencies", ()):
            name = re.match(r"[\w.-]+", requirement)
            if name is None or canonical(name[0]) not in known:
                raise BuildError(
                    f"{project.name} needs {requirement}, which {LOCK.name} does not pin;"
                    " run: python3 scripts/relock.py"
                )


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_wheels(lock: Iterable[Pin], targets: Sequence[Target]) -> list[list[Path]]:
    """Return the wheels that each target needs, fetching the ones that build/ does not have.

    Fetched side by side: pip mostly waits. Pure wheels are the same list for each target.
    """
    pins = [pin for pin in lock if any(map(pin.wanted_by, targets))]
    pure = [pin for pin in pins if len(pin.hashes) == 1]  # relock.py pins one wheel of those
    native = [pin for pin in pins if len(pin.hashes) > 1]
    with ThreadPoolExecutor() as pool:
        everywhere = pool.submit(fetched, BUILD / "wheels" / "pure", pure, None)
        own = [
            pool.submit(
                fetched,
                BUILD / "wheels" / target.tag,
                [pin for pin in native if pin.wanted_by(target)],
                target,
            )
            for target in targets
        ]
        return [[*everywhere.result(), *one.result()] for one in own]


def fetched(store: Path, pins: Sequence[Pin], target: Target | None) -> list[Path]:
    """Return the wheels of ``pins`` in ``store``, having fetched all if one was not there.

    Raises:
        BuildError: one is not to be had for ``target`` with the hash that the lock names.
    """
    found = find_wheels(store, pins)
    if not all(found.values()):
        store.mkdir(parents=True, exist_ok=True)
        rows = (
            f"{pin.name}=={pin.version} "
            + " ".join(f"--hash=sha256:{h}" for h in sorted(pin.hashes))
            for pin in pins
        )
        wanted = store / "requirements.txt"
        # Markers are resolved already: pip would ask the Python it runs on, not the target.
        wanted.write_text("\n".join(rows) + "\n", "utf-8")
        download(store, target, ["--no-deps", "--require-hashes", "--requirement", str(wanted)])
        found = find_wheels(store, pins)
    if missing := [pin.name for pin, path in found.items() if path is None]:
        place = target.tag if target else "every machine"
        raise BuildError(f"no wheel for {place} of: {', '.join(missing)}")
    return [path for path in found.values() if path is not None]


def find_wheels(store: Path, pins: Iterable[Pin]) -> dict[Pin, Path | None]:
    """Look up each pin's wheel in ``store`` by its hash."""
    known = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in store.glob("*.whl")}
    return {
        pin: next((known[digest] for digest in sorted(pin.hashes) if digest in known), None)
        for pin in pins
    }


def extra_wheels(
    extras: Sequence[str], target: Target, lock: Iterable[Pin], projects: Iterable[Project]
) -> list[Path]:
    """Return the wheels of ``extras`` and of what they need beyond what is in already.

    Their dependencies' markers are judged by the Python that runs this build.
    """
    store = BUILD / "with" / target.tag
    shutil.rmtree(store, ignore_errors=True)
    ours = store / "ours"
    ours.mkdir(parents=True)
    for project in projects:  # so that a plugin may say that it needs swarmctl
        stem = project.info_directory.removesuffix(".dist-info")
        wheel = {f"{project.info_directory}/METADATA": project.metadata().encode()}
        wheel[f"{project.info_directory}/WHEEL"] = (
            b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        (ours / f"{stem}-py3-none-any.whl").write_bytes(zip_bytes(wheel).removeprefix(SHEBANG))
    pins = [pin for pin in lock if pin.wanted_by(target)]
    constraints = store / "constraints.txt"
    constraints.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), "utf-8")
    wanted = []
    for extra in extras:
        if Path(extra).is_dir():
            built = store / "built" / Path(extra).name
            command = [*pip(), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), extra]
            if subprocess.run(command).returncode:
                raise BuildError(f"pip could not build {extra}; what it said stands above")
            wanted += [str(path) for path in built.glob("*.whl")]
        else:
            wanted.append(extra)
    download(store, target, ["--constraint", str(constraints), "--find-links", str(ours), *wanted])
    inside = {canonical(pin.name) for pin in pins} | {canonical(p.name) for p in projects}
    return [p for p in sorted(store.glob("*.whl")) if canonical(p.name.split("-")[0]) not in inside]


def download(store: Path, target: Target | None, what: Sequence[str]) -> None:
    """Let pip put wheels into ``store``, for ``target`` or as ``what`` says itself.

    Raises:
        BuildError: pip could not; it has said why on stderr.
    """
    command = [*pip(), "download", "--quiet", "--only-binary=:all:", "--dest", str(store)]
    if subprocess.run([*command, *(target.pip_options if target else ()), *what]).returncode:
        raise BuildError("pip could not fetch the wheels; what it said stands above")


def is_pure(wheel: Path) -> bool:
    """Does one file serve all machines?"""
    return wheel.name.endswith("-any.whl")


def wheel_files(wheel: Path, machine: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a wheel as (path in the archive, bytes)."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or LEFT_OUT.search(entry.filename):
                continue
            data = archive.read(entry)
            # By content, not by name: libraries may be called anything. What was linked into them
            # (a wheel's bill of materials) is a machine's own affair, too.
            native = data.startswith(b"\x7fELF") or ".dist-info/sboms/" in entry.filename
            yield (f"native/{machine}/{entry.filename}" if native else entry.filename), data


def pip() -> list[str]:
    """Return the command that is pip: this interpreter's own, else one in build/pip.

    Whoever asks first of those that fetch side by side makes that one; the others wait.

    Raises:
        BuildError: there is none and none can be had.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    programs = BUILD / "pip" / "bin"
    with one_makes_pip:
        if not (programs / "pip").exists():  # the last that is put there
            _make_pip()
    return [str(programs / "python"), "-m", "pip"]


def _make_pip() -> None:
    apt_install = [str(REPO / "scripts" / "apt-install"), "python3-venv"]
    if not importlib.util.find_spec("ensurepip") and subprocess.run(apt_install).returncode:
        raise BuildError(f"{sys.executable} has no pip; install python3-venv, or use another")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", BUILD / "pip"]).returncode:
        raise BuildError("no pip: making a virtual environment for it failed, see above")


if __name__ == "__main__":
    main()
