"""What containers use, read off files that look as the kernel's do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.plugins.engine.cgroups import Groups

if TYPE_CHECKING:
    from pathlib import Path

ID = "ab12" * 16
STAT = "cache 5\n{idle} 40\nrss 9\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version1(root: Path, name: str) -> None:
    write(root / "cpuacct" / name / "cpuacct.usage", "7000000\n")
    write(root / "memory" / name / "memory.usage_in_bytes", "100\n")
    write(root / "memory" / name / "memory.stat", STAT.format(idle="total_inactive_file"))
    write(root / "pids" / name / "pids.current", "3\n")


def version2(root: Path, name: str) -> None:
    write(root / "cgroup.controllers", "cpu memory pids\n")
    write(root / name / "cpu.stat", "usage_usec 7000\nuser_usec 1\n")
    write(root / name / "memory.current", "100\n")
    write(root / name / "memory.stat", STAT.format(idle="inactive_file"))
    write(root / name / "pids.current", "3\n")
    some = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=9\n"
    for at, resource in enumerate(("cpu", "memory", "io"), 1):
        write(root / name / f"{resource}.pressure", some.format(at))


def test_both_versions_tell_the_same(tmp_path: Path) -> None:
    """CPU, memory without idle cache, and processes, by both drivers; pressure by version 2."""
    version1(tmp_path / "one", f"docker/{ID}")
    version2(tmp_path / "two", f"system.slice/docker-{ID}.scope")
    one = Groups(tmp_path / "one").sample({"t": ID})["t"]
    two = Groups(tmp_path / "two").sample({"t": ID})["t"]
    for sample in (one, two):
        assert (sample.cpu_ns, sample.memory_bytes, sample.pids) == (7_000_000, 60, 3)
        assert sample.at > 0
    assert (one.psi_cpu_ns, one.psi_mem_ns, one.psi_io_ns) == (None, None, None)
    assert (two.psi_cpu_ns, two.psi_mem_ns, two.psi_io_ns) == (1000, 2000, 3000)


def test_what_is_not_there_is_left_to_the_engine(tmp_path: Path) -> None:
    """No sample is made up for a container that has no group here, or whose group has gone."""
    version1(tmp_path, f"docker/{ID}")
    groups = Groups(tmp_path)
    assert set(groups.sample({"t": ID, "u": "cd34" * 16})) == {"t"}
    (tmp_path / "cpuacct" / "docker" / ID / "cpuacct.usage").unlink()
    assert groups.sample({"t": ID}) == {}
    version1(tmp_path, f"system.slice/docker-{ID}.scope")
    (tmp_path / "pids" / "docker" / ID / "pids.current").unlink()
    (tmp_path / "pids" / "docker" / ID).rmdir()
    assert set(groups.sample({"t": ID})) == {"t"}


def test_garbage_in_a_file_is_nothing_known(tmp_path: Path) -> None:
    """A file that holds no number gives no sample, and no error."""
    version1(tmp_path, f"docker/{ID}")
    write(tmp_path / "cpuacct" / "docker" / ID / "cpuacct.usage", "lots\n")
    assert Groups(tmp_path).sample({"t": ID}) == {}
