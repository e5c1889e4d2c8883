"""The one-file archive, run for real: first starts, warm starts, and everything that can go wrong.

The archive is built once for each state of the sources, into ``build/``. Every start gets an
environment of its own, so no test sees or leaves anything in the user's caches; where that needs
another view of the filesystem, the start runs in a mount namespace (root only).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SOURCES = (
    "swarmctl",
    "plugins",
    "bootstrap",
    "build_zipapp.py",
    "pyproject.toml",
    "requirements.lock",
)
START_TIMEOUT_S = 60

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")


def build(output: Path, *options: str, checkout: Path = REPO, **environment: str) -> None:
    command = [sys.executable, str(checkout / "build_zipapp.py"), "--output", str(output), *options]
    subprocess.run(command, check=True, env=os.environ | environment, cwd=output.parent)


@pytest.fixture(scope="session")
def archive() -> Path:
    """An archive of the sources as they are."""
    digest = hashlib.sha256(sys.version.encode())
    for name in SOURCES:
        for path in sorted([REPO / name, *(REPO / name).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(REPO)}\0".encode() + path.read_bytes())
    folder = REPO / "build" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / f"{digest.hexdigest()[:20]}.pyz"
    if not built.exists():
        for old in folder.glob("*.pyz"):
            old.unlink()
        build(built)
    return built


class Host:
    """What a start of the archive sees of the world: its own home, caches and variables."""

    def __init__(self, folder: Path, archive: Path) -> None:
        self.archive = archive
        self.cwd = folder / "elsewhere"
        self.cwd.mkdir()
        self.cache = folder / "cache"
        # XDG_CACHE_HOME comes second in line, and is where a refused SWARMCTL_CACHE leads to.
        self.second = folder / "xdg" / "swarmctl"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder),
            "SWARMCTL_CACHE": str(self.cache),
            "XDG_CACHE_HOME": str(self.second.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *options: str) -> list[str]:
        return [sys.executable, *options, str(self.archive), "--version"]

    def start(self, *options: str, within: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``swarmctl --version``; ``within`` is shell for a mount namespace of its own."""
        command = self.command(*options)
        if within:
            command = ["unshare", "-m", "sh", "-ec", f'{within}; exec "$@"', "sh", *command]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.cwd,
            timeout=START_TIMEOUT_S,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` with the unpacked tree, and no site-packages, on the path."""
        (tree,) = self.trees()
        return subprocess.run(
            [sys.executable, "-S", "-c", code],
            capture_output=True,
            text=True,
            env=self.environment | {"PYTHONPATH": str(tree)},
            cwd=self.cwd,
            timeout=START_TIMEOUT_S,
        )

    def trees(self, base: Path | None = None) -> list[Path]:
        """The unpacked trees, and any remains beside them."""
        base = base or self.cache
        found = sorted(base.iterdir()) if base.exists() else []
        return [path for path in found if path.name != ".lock"]


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


def worked(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stderr
    return done.stdout.startswith("swarmctl version ")


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


def test_an_interpreter_it_cannot_serve_is_told_so(host: Host, tmp_path: Path) -> None:
    """An archive without native code for this interpreter names both, and what to do."""
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(host.archive) as whole, zipfile.ZipFile(other, "w") as cut:
        for name in ("__main__.py", "swarmctl_boot.py"):
            cut.writestr(name, whole.read(name))
        cut.writestr("swarmctl_built.py", "CONTENT='0'\nTARGETS=('cpython-39-riscv-linux-gnu',)")
    host.archive = other
    done = host.start()
    assert done.returncode == 1
    for part in ("cpython-39-riscv-linux-gnu", sys.executable, "build_zipapp.py --python"):
        assert part in done.stderr


def test_native_code_lies_under_native_only(archive: Path) -> None:
    """Every ELF file is below native/; nothing else is, but the bills of what they are made of."""
    with zipfile.ZipFile(archive) as whole:
        elf = {name for name in whole.namelist() if whole.read(name)[:4] == b"\x7fELF"}
        below = {name for name in whole.namelist() if name.startswith("native/")}
    assert elf
    assert elf == {name for name in below if "/sboms/" not in name}


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
