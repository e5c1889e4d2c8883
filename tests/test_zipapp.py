"""The one-file archive, run for real: first starts, warm starts, and everything that can go wrong.

The archive is built once for each state of the sources, into ``build/``. Every start gets an
environment of its own, so no test sees or leaves anything in the user's caches; where that needs
another view of the filesystem, the start runs in a mount namespace (root only).
"""

from __future__ import annotations

import email
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from tests.archive import (
    REPO,
    SOURCES,
    START_TIMEOUT_S,
    VERSIONS,
    Host,
    build,
    cached_archive,
    interpreters,
    worked,
)

ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")


@pytest.fixture(scope="session")
def archive() -> Path:
    """An archive of the sources as they are."""
    return cached_archive()


@pytest.fixture
def refused(host: Host, warm: Host) -> Host:
    """A host that has the tree in the second place it looks, so that only the first matters."""
    shutil.copytree(warm.cache, host.second, copy_function=os.link)
    return host


@pytest.fixture
def host(tmp_path: Path, archive: Path) -> Host:
    return Host(tmp_path, archive)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Host:
    """A host on which the archive has been started once; tests leave its tree as it is."""
    started = Host(tmp_path_factory.mktemp("warm"), archive)
    assert started.start().returncode == 0
    return started


def test_it_runs_from_any_directory_and_unpacks_one_tree(warm: Host) -> None:
    """A first start makes one tree, writable by its owner only, and a second start only reads."""
    (tree,) = warm.trees()
    assert tree.stat().st_mode & 0o077 == 0
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    assert worked(warm.start())
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before
    assert not (warm.cwd.parent / "home").exists()


def test_an_isolated_interpreter_runs_it_too(warm: Host) -> None:
    """``python -I`` and ``-S`` start it: it needs no site-packages and no environment of Python."""
    assert worked(warm.start("-I", "-S"))


def test_no_start_compiles_again(warm: Host) -> None:
    """All that a command imports was compiled at unpacking, even where no bytecode is written."""
    (tree,) = warm.trees()
    loaded = re.findall(rf"# code object from '?({tree}/[^\s']+)", warm.start("-v").stderr)
    assert any("/swarmctl/cli/" in path for path in loaded)
    assert [path for path in loaded if not path.endswith(".pyc")] == []


def test_the_root_command_imports_nothing_of_weight(warm: Host) -> None:
    """``swarmctl --version`` starts without trio, rich, TLS or an engine's client."""
    code = (
        "import sys; from swarmctl.__main__ import main; sys.argv = ['swarmctl', '--version']\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    imported = warm.python(code).stderr.split()
    assert "swarmctl.cli.main" in imported
    heavy = {"trio", "rich", "cryptography", "msgspec", "docker", "podman", "ssl", "pluggy"}
    heavy |= {"asyncio"}
    assert heavy & set(imported) == set()


def test_entry_points_resolve_from_the_unpacked_tree(warm: Host) -> None:
    """The built-in executor and those for engines are found and importable as entry points."""
    (tree,) = warm.trees()
    code = (
        "import json; from importlib.metadata import entry_points\n"
        "found = entry_points(group='swarmctl')\n"
        "print(json.dumps({one.name: one.load().__file__ for one in found}))"
    )
    done = warm.python(code)
    found = json.loads(done.stdout or "{}")
    assert {"process", "docker", "podman"} <= found.keys(), done.stderr
    assert all(path.startswith(str(tree)) for path in found.values())


def test_time_zones_are_there_where_the_host_has_none(warm: Host) -> None:
    """Schedules of scaling work on hosts without zoneinfo: the archive brings its own."""
    ran = warm.python(
        "import zoneinfo; zoneinfo.reset_tzpath(()); "
        "from swarmctl.core.autoscaler.schedule import local_time; "
        "print(local_time(1_780_000_000 * 10**9, 'Europe/Zurich'), zoneinfo.TZPATH)"
    )
    assert ran.stdout == "2026-05-28 22:26:40+02:00 ()\n", ran.stderr


def test_first_starts_at_the_same_moment_make_one_tree(host: Host) -> None:
    """Two first starts at once both work, and leave one tree and no remains."""
    both = [
        subprocess.Popen(host.command(), env=host.environment, cwd=host.cwd, stdout=-1, stderr=-1)
        for _ in range(2)
    ]
    ended = [
        (*process.communicate(timeout=START_TIMEOUT_S), process.returncode) for process in both
    ]
    assert [code for _, _, code in ended] == [0, 0], ended
    assert len(host.trees()) == 1


def test_a_damaged_tree_is_repaired(host: Host, warm: Host) -> None:
    """A file that is gone and one that was cut short are put back before anything is imported."""
    shutil.copytree(warm.cache, host.cache)
    (tree,) = host.trees()
    whole = (tree / "click" / "core.py").read_bytes()
    (tree / "click" / "core.py").write_bytes(whole[:1000])
    (tree / "swarmctl" / "__main__.py").unlink()
    assert worked(host.start())
    assert (tree / "click" / "core.py").read_bytes() == whole
    assert (tree / "swarmctl" / "__main__.py").exists()
    assert host.trees() == [tree]


def test_damage_that_only_shows_when_it_is_used_is_told_with_the_remedy(
    host: Host, warm: Host
) -> None:
    """Native code that is all zeros, as after a power loss: what to type, and then it works."""
    shutil.copytree(warm.cache, host.cache)
    (tree,) = host.trees()
    (native,) = tree.glob("msgspec/_core.*.so")
    native.write_bytes(bytes(native.stat().st_size))
    done = host.start_command("node", "ls")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"anew, after: rm -r {tree}")
    assert "Traceback" not in done.stderr
    shutil.rmtree(tree)
    assert worked(host.start())


def test_a_cache_that_cannot_be_made_is_named_and_passed_over(refused: Host) -> None:
    """With an impossible SWARMCTL_CACHE the next directory serves, and standard error says why."""
    refused.environment["SWARMCTL_CACHE"] = "/dev/null/cache"
    done = refused.start()
    assert worked(done)
    assert "SWARMCTL_CACHE is of no use:\n  /dev/null/cache: " in done.stderr
    assert len(refused.trees(refused.second)) == 1


def test_code_is_not_run_from_where_others_may_write(refused: Host) -> None:
    """A cache directory that others may write to is refused, with the command that mends it."""
    refused.cache.mkdir()
    refused.cache.chmod(0o777)
    done = refused.start()
    assert worked(done)
    assert f"others may write to it; chmod go-w {refused.cache}" in done.stderr
    assert refused.trees() == []


@needs_root
@pytest.mark.lab
@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ("-t tmpfs -o noexec none", "it lies on a filesystem mounted noexec"),
        ("-t tmpfs -o size=5m none", "No space left on device"),
        ("-t tmpfs -o ro none", "Read-only file system"),
    ],
)
def test_a_filesystem_that_cannot_serve_is_passed_over(
    refused: Host, mount: str, reason: str
) -> None:
    """A noexec, full or read-only cache directory is named with its reason; the next one serves."""
    refused.cache.mkdir(mode=0o700)
    done = refused.start(within=f"mount {mount} {refused.cache}; chmod 700 {refused.cache} || true")
    assert worked(done)
    assert reason in done.stderr
    assert len(refused.trees(refused.second)) == 1


@needs_root
@pytest.mark.lab
def test_a_user_with_a_read_only_home_gets_a_private_directory(host: Host) -> None:
    """Where no home and no cache can be written, the tree goes to a private temporary directory."""
    del host.environment["SWARMCTL_CACHE"]
    host.environment["XDG_CACHE_HOME"] = "/proc/nowhere"
    done = host.start(within="mount -t tmpfs -o ro none /var/cache")
    assert worked(done)
    private = host.cwd.parent / f"swarmctl-{os.geteuid()}"
    assert private.stat().st_mode & 0o777 == 0o700
    assert len(host.trees(private)) == 1


@needs_root
@pytest.mark.lab
def test_a_second_user_gets_a_tree_of_their_own(archive: Path, everybodys_python: Path) -> None:
    """One file for all: whoever starts it unpacks into their own cache and never into another's."""
    folder = Path(tempfile.mkdtemp(prefix="swarmctl-users-"))
    folder.chmod(0o755)
    try:
        shared = folder / "swarmctl.pyz"
        shutil.copyfile(archive, shared)
        shared.chmod(0o644)
        for uid in (os.geteuid(), 65534):
            home = folder / f"home{uid}"
            home.mkdir()
            os.chown(home, uid, uid)
            done = subprocess.run(
                [everybodys_python, str(shared), "--version"],
                capture_output=True,
                text=True,
                user=uid,
                cwd="/",
                env={"HOME": str(home), "XDG_CACHE_HOME": str(home), "PATH": "/usr/bin:/bin"},
                timeout=START_TIMEOUT_S,
            )
            assert worked(done)
            (tree,) = [one for one in (home / "swarmctl").iterdir() if one.name != ".lock"]
            assert (tree.stat().st_uid, tree.stat().st_mode & 0o077) == (uid, 0)
        theirs = {"HOME": "/", "XDG_CACHE_HOME": str(folder / "home0"), "PATH": "/usr/bin:/bin"}
        theirs["TMPDIR"] = str(folder / "home65534")
        done = subprocess.run(
            [everybodys_python, str(shared), "--version"],
            capture_output=True,
            text=True,
            user=65534,
            cwd="/",
            env=theirs,
            timeout=START_TIMEOUT_S,
        )
        assert worked(done)
        assert (folder / "home65534" / "swarmctl-65534").is_dir()
    finally:
        shutil.rmtree(folder)


@needs_root
@pytest.mark.lab
def test_no_directory_at_all_is_an_answer(host: Host) -> None:
    """Where nothing serves, it says for each directory why not, and what would help."""
    host.environment |= {"XDG_CACHE_HOME": "/dev/null", "TMPDIR": "/dev/null"}
    host.environment["SWARMCTL_CACHE"] = "/proc/nowhere"
    done = host.start(within="mount -t tmpfs -o noexec none /var/cache")
    assert done.returncode == 1
    assert done.stdout == ""
    for part in ("/proc/nowhere: ", "/var/cache/swarmctl: it lies on", "Set SWARMCTL_CACHE to"):
        assert part in done.stderr


def test_trees_that_nobody_uses_are_pruned_at_a_first_start(host: Host) -> None:
    """A tree unused for 30 days goes, unless a process still runs from it."""
    host.cache.mkdir(mode=0o700)
    month_ago = time.time() - 31 * 24 * 3600
    markers = {}
    for name in ("unused", "held", "recent"):
        digest = hashlib.sha256(name.encode()).hexdigest()[:20]
        markers[name] = host.cache / f"{digest}-cpython-311-x86_64-linux-gnu" / ".ok"
        markers[name].parent.mkdir()
        markers[name].touch()
        if name != "recent":
            os.utime(markers[name], (month_ago, month_ago))
    with markers["held"].open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert worked(host.start())
    assert {name for name, marker in markers.items() if marker.exists()} == {"held", "recent"}


def cut_down(archive: Path, output: Path, target: str) -> Path:
    """Make an archive that serves ``target`` alone, and holds no more than refusing takes."""
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(output, "w") as cut:
        for name in ("__main__.py", "swarmctl_boot.py"):
            cut.writestr(name, whole.read(name))
        cut.writestr("swarmctl_built.py", f"CONTENT='0'\nTARGETS=({target!r},)")
    return output


def test_an_interpreter_it_cannot_serve_is_told_so(host: Host, tmp_path: Path) -> None:
    """An archive without native code for this interpreter names both, and what to do."""
    host.archive = cut_down(host.archive, tmp_path / "other.pyz", "cpython-39-riscv-linux-gnu")
    done = host.start()
    assert done.returncode == 1
    for part in (
        f"does not serve this interpreter (cpython-3{sys.version_info[1]}-",
        "It serves CPython 3.9 on riscv-linux-gnu.",
        f"python3 build_zipapp.py --platform {os.uname().machine}-linux-gnu",
    ):
        assert part in done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [("", "Install one of those, then run: python3.9 "), ("x", "This host has one of those: ")],
)
def test_a_version_that_it_cannot_serve_is_pointed_to_one_that_it_can(
    host: Host, tmp_path: Path, path: str, text: str
) -> None:
    """On the right machine under the wrong CPython: the command to type, or what to install."""
    machine = f"{os.uname().machine}-linux-gnu"
    host.archive = cut_down(host.archive, tmp_path / "other.pyz", f"cpython-39-{machine}")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "python3.9").touch(mode=0o755)
    host.environment["PATH"] = str(tmp_path / path) if path else "/nowhere"
    done = host.start()
    assert done.returncode == 1
    assert text in done.stderr


def test_old_pythons_are_refused_in_words(host: Host) -> None:
    """Whatever old Python this machine has says what is needed, and no traceback."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for python in pyenv.glob("versions/[23].[0-9].*/bin/python"):
        done = subprocess.run([python, host.archive], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("swarmctl needs CPython 3.10 or newer; this is Python ")


def test_native_code_lies_under_native_only(archive: Path) -> None:
    """Every ELF file is below native/; nothing else is, but the bills of what they are made of."""
    with zipfile.ZipFile(archive) as whole:
        elf = {name for name in whole.namelist() if whole.read(name)[:4] == b"\x7fELF"}
        below = {name for name in whole.namelist() if name.startswith("native/")}
    assert elf
    assert elf == {name for name in below if "/sboms/" not in name}


def test_native_code_is_what_its_directory_says(archive: Path) -> None:
    """For both machines: of that machine, for a C library no newer than promised, all there."""
    with zipfile.ZipFile(archive) as whole:
        native = {name: whole.read(name) for name in whole.namelist() if name.endswith(".so")}
    machines = ("x86_64-linux-gnu", "aarch64-linux-gnu")
    modules = ("_cffi_backend", "msgspec/_core")
    assert native.keys() == {
        *(
            f"native/{machine}/{module}.cpython-{python.replace('.', '')}-{machine}.so"
            for machine in machines
            for module in modules
            for python in VERSIONS
        ),
        *(f"native/{m}/cryptography/hazmat/bindings/_rust.abi3.so" for m in machines),
    }
    for name, data in native.items():
        assert ELF_MACHINES[struct.unpack_from("<H", data, 18)[0]] == name.split("/")[1][:-10], name
        asked = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", data)
        assert max((int(major), int(minor)) for major, minor in asked) <= (2, 28), name


def test_an_archive_for_musl(tmp_path: Path) -> None:
    """Its native code is musl's, and the modules that CPython 3.10 calls gnu all the same."""
    musl = "x86_64-linux-musl"
    archive = cached_archive("--python", "3.10", "3.11", "--platform", musl)
    with zipfile.ZipFile(archive) as whole:
        native = {n: whole.read(n) for n in whole.namelist() if n.startswith("native/")}
        built = whole.read("swarmctl_built.py").decode()
    assert f"TARGETS = ('cpython-310-{musl}', 'cpython-311-{musl}')" in built
    libraries = {name for name in native if "/sboms/" not in name}
    assert {f"native/{musl}/msgspec/_core.cpython-310-x86_64-linux-gnu.so"} < libraries
    for name in libraries:
        assert b"\0libc.musl-x86_64.so.1\0" in native[name], name
        assert b"\0libc.so.6\0" not in native[name], name
    host = Host(tmp_path, archive)
    done = host.start()
    assert done.returncode == 1
    assert f"on {musl}.\nBuild one for this machine: " in done.stderr


def start_on(host: Host, library: str, version: str = "3.10") -> subprocess.CompletedProcess[str]:
    """Start the archive where ``os.confstr`` and musl's loader say what they say elsewhere."""
    loader = host.cwd / "loader"
    loader.write_text(f"#!/bin/sh\necho 'musl libc (x86_64)\nVersion {library}' >&2; exit 1\n")
    loader.chmod(0o755)
    said = f"return 'glibc {library}'" if library.startswith("2.") else "raise OSError(22, 'no')"
    code = (
        f"import os, sys\ndef confstr(name): {said}\n"
        f"os.confstr = confstr; sys.path.insert(0, {str(host.archive)!r})\n"
        f"import swarmctl_boot, swarmctl_unpack; swarmctl_unpack.MUSL_LOADER = {str(loader)!r}\n"
        "sys.argv = ['swarmctl', '--version']; swarmctl_boot.main()"
    )
    return subprocess.run(
        [interpreters().get(version, sys.executable), "-c", code],
        capture_output=True,
        text=True,
        env=host.environment,
        cwd=host.cwd,
        timeout=START_TIMEOUT_S,
    )


def test_a_python_on_musl_that_says_gnu_is_known(host: Host) -> None:
    """As CPython 3.10 does: it gets musl's native code, and none from an archive for glibc."""
    if "3.10" not in interpreters():
        pytest.skip("there is no CPython 3.10 here, which says so")
    refused = start_on(host, "1.2.5")
    assert refused.returncode == 1
    assert "does not serve this interpreter (cpython-310-x86_64-linux-musl)" in refused.stderr
    host.archive = cached_archive("--python", "3.10", "3.11", "--platform", "x86_64-linux-musl")
    assert worked(start_on(host, "1.2.5"))
    (tree,) = host.trees()
    assert tree.name.endswith("-cpython-310-x86_64-linux-musl")
    assert (tree / "msgspec" / "_core.cpython-310-x86_64-linux-gnu.so").exists()


@pytest.mark.parametrize(
    ("library", "text"),
    [
        ("2.17", "this machine has glibc 2.17, and the native code in {} needs 2.28 or newer"),
        ("1.2.3", "this machine has musl 1.2.3, and the native code in {} needs 1.2.4 or newer"),
    ],
)
def test_an_old_c_library_is_named(host: Host, library: str, text: str) -> None:
    """Before anything crashes: which one it is, and which one is needed."""
    if not library.startswith("2."):
        host.archive = cached_archive("--python", "3.10", "3.11", "--platform", "x86_64-linux-musl")
    done = start_on(host, library)
    assert done.returncode == 1
    assert text.format(host.archive) in done.stderr
    assert host.trees() == []


def test_the_archive_says_what_it_is_made_of(archive: Path, warm: Host) -> None:
    """Its bill of materials and ``version --licenses`` name every distribution inside, licensed."""
    with zipfile.ZipFile(archive) as whole:
        names = whole.namelist()
        (place,) = (name for name in names if name.endswith("sboms/swarmctl.cyclonedx.json"))
        bill = json.loads(whole.read(place))
        inside = {
            (str(one["Name"]).lower(), str(one["Version"]))
            for one in (
                email.message_from_bytes(whole.read(name))
                for name in names
                if name.endswith(".dist-info/METADATA")
            )
        }
    parts = [bill["metadata"]["component"], *bill["components"]]
    assert {(one["name"], one["version"]) for one in parts} == {
        (name.replace("_", "-"), version) for name, version in inside
    }
    assert all(one["externalReferences"] for one in parts if "swarmctl" not in one["name"])
    done = warm.start_command("version", "--licenses", "--format", "{{.Name}} {{.License}}")
    told = dict(line.split(" ", 1) for line in done.stdout.lower().splitlines())
    assert told.keys() == {one["name"] for one in parts}
    assert told["msgspec"].startswith("bsd")
    assert [name for name, terms in told.items() if terms == "not declared"] == [
        name for name in told if "swarmctl" in name
    ]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two checkouts, built at two places and in two time zones, give one archive to the byte."""
    first = tmp_path / "here"
    first.mkdir()
    for name in SOURCES:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, first / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPO / name, first / name)
    (first / "build").symlink_to(REPO / "build")  # the wheels, which are pinned by hash
    second = tmp_path / "there"
    shutil.copytree(first, second, symlinks=True, copy_function=shutil.copyfile)
    build(first / "out.pyz", checkout=first)
    build(second / "out.pyz", checkout=second, TZ="Pacific/Auckland", PYTHONHASHSEED="7")
    assert (first / "out.pyz").read_bytes() == (second / "out.pyz").read_bytes()


def test_one_pip_is_made_for_all_who_fetch(tmp_path: Path) -> None:
    """Those that fetch side by side share one where the interpreter has none, as on bare Debian."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    for name in ("build_zipapp.py", "swarmctl/__init__.py", "swarmctl/licenses.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)
    script = """
import subprocess
from concurrent.futures import ThreadPoolExecutor
from build_zipapp import pip
with ThreadPoolExecutor() as pool:
    for command in [pool.submit(pip) for _ in range(9)]:
        subprocess.run([*command.result(), "--version"], check=True)
"""
    done = subprocess.run(
        [bare / "bin" / "python", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path / "build" / "pip")) == 9


def test_a_plugin_can_be_baked_in(tmp_path: Path) -> None:
    """``--with`` adds a wheel that needs swarmctl, its entry point included, and no second core."""
    wheel = tmp_path / "swarmctl_fancy-1.0-py3-none-any.whl"
    info = "swarmctl_fancy-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("swarmctl_fancy.py", '"""A plugin."""\n')
        files.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        files.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: swarmctl-fancy\nVersion: 1.0\nRequires-Dist: swarmctl\n",
        )
        files.writestr(f"{info}/entry_points.txt", "[swarmctl]\nfancy = swarmctl_fancy\n")
        files.writestr(f"{info}/RECORD", "")
    built = tmp_path / "fancy.pyz"
    build(built, "--with", str(wheel))
    with zipfile.ZipFile(built) as whole:
        names = whole.namelist()
    assert "swarmctl_fancy.py" in names
    assert f"{info}/entry_points.txt" in names
    assert sum(name.endswith("/METADATA") and name.startswith("swarmctl-") for name in names) == 1
