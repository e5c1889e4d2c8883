"""Runs the core's tests against one fault, in a child forked from a process that is warm already.

The child takes the core's modules from the source tree, except the one that has the fault: that one
is compiled from `Fault.source`. Nothing on the disk is touched. Which test failed first comes back
through a pipe; a child that exceeds its time is killed, which kills the fault as well: a member
that never comes back has been noticed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trio  # noqa: F401 - what the children would import, each of them, is here already

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from types import CodeType, FrameType, ModuleType

    from tests.mutants.faults import Fault

REPO = Path(__file__).resolve().parents[2]

SLOW = (
    "quorum",
    "confchange",
    "log",
    "course_scenarios",
    "two_forms",
    "fuzzy_scenarios",
)
"""Tests of the core that take longer than all the rest of its directory, the longest last."""

ORACLE = "tests/datadriven/test_raft_oracle.py"
FIRST = 12
"""So many of the oracle's scripts come before everything else: they kill half of all faults."""


def judges() -> list[str]:
    """The test files, in the order in which they are asked: the cheapest first."""
    core = {path.stem: path for path in sorted((REPO / "tests/core/raft").glob("test_*.py"))}
    slow = [core.pop(f"test_{name}") for name in SLOW]
    return [
        "tests/datadriven/test_raft_transcripts.py",
        *(str(path.relative_to(REPO)) for path in core.values()),
        ORACLE,
        *(str(path.relative_to(REPO)) for path in slow),
        "tests/sim/test_raft_sim.py",
    ]


TEST_LIMIT_S = 30.0
"""One test, in seconds of its own, however busy the machine; the slowest takes a tenth of it."""

MEMORY_LIMIT = 2 * 2**30
"""Messages without end would otherwise take the machine down before the time is up."""

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Verdict:
    """``killer``: the first test that failed, None if there was none."""

    fault: Fault | None
    killer: str | None
    why: str
    seconds: float


def judge_all(
    faults: Sequence[Fault | None], *, jobs: int, limit_s: float, files: Sequence[str] = ()
) -> Iterator[Verdict]:
    """Judge each fault (None: the core as it is) in a child of its own, ``jobs`` at a time.

    Args:
        files: the tests to judge by, instead of all `judges`.

    Yields:
        Verdicts in the order of ``faults``.
    """
    waiting = list(enumerate(faults))
    running: dict[int, _Run] = {}
    done: dict[int, Verdict] = {}
    shown = 0
    try:
        while shown < len(faults):
            while waiting and len(running) < jobs:
                position, fault = waiting.pop(0)
                running[position] = _Run(fault, limit_s, files or judges())
            for position, run in list(running.items()):
                if (verdict := run.poll(0.02)) is not None:
                    done[position] = verdict
                    del running[position]
            while shown in done:
                yield done.pop(shown)
                shown += 1
    finally:
        for run in running.values():
            run.end()


class _Run:
    """One child and the pipe from it."""

    def __init__(self, fault: Fault | None, limit_s: float, files: Sequence[str]) -> None:
        self._fault = fault
        self._limit_s = limit_s
        self._pipe, child_end = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_child, args=(fault, files, child_end))
        self._started = time.monotonic()
        self._process.start()
        child_end.close()

    def poll(self, wait_s: float) -> Verdict | None:
        seconds = time.monotonic() - self._started
        if self._pipe.poll(wait_s):
            try:
                killer, why = self._pipe.recv()
            except EOFError:
                killer, why = "the process", "it died"
        elif seconds > self._limit_s:
            killer, why = "the time limit", f"nothing after {self._limit_s:.0f} s"
        else:
            return None
        self.end()
        return Verdict(self._fault, killer, why, seconds)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _child(fault: Fault | None, files: Sequence[str], pipe: Connection) -> None:
    os.chdir(REPO)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - descriptors, not paths
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    if fault is not None:
        sys.meta_path.insert(0, _FaultyFinder(fault))
    watcher = _Watcher()
    # No rewritten asserts: hypothesis has been imported already, and nobody reads the reasons.
    options = ["-x", "-q", "--assert=plain", "--tb=line", "-p", "no:cacheprovider"]
    code = pytest.main([*options, *files], [watcher])
    if watcher.killer is None and code != pytest.ExitCode.OK:
        watcher.killer, watcher.why = "the collection", f"pytest ended with {code!r}"
    pipe.send((watcher.killer, watcher.why))
    pipe.close()


class _FaultyFinder(importlib.abc.MetaPathFinder):
    """Answers for one module, before everybody else."""

    def __init__(self, fault: Fault) -> None:
        if fault.module in sys.modules:
            raise RuntimeError(f"{fault.module} was imported before its fault was in it")
        self._fault = fault

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._fault.module:
            return None
        loader = _FaultyLoader(self._fault)
        return importlib.util.spec_from_file_location(fullname, self._fault.path, loader=loader)


class _FaultyLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.module, str(fault.path))
        self._fault = fault

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._fault.source(), self.path, "exec", dont_inherit=True)


class _Watcher:
    """A pytest plugin: notes the first failure, and lets no test run for ever."""

    def __init__(self) -> None:
        self.killer: str | None = None
        self.why = ""

    def pytest_configure(self, config: pytest.Config) -> None:
        # The same examples every time, and none of the work of making a failing one pretty.
        hypothesis.settings.register_profile(
            "mutants",
            hypothesis.settings.get_profile("swarmctl"),
            derandomize=True,
            database=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        )
        hypothesis.settings.load_profile("mutants")
        signal.signal(signal.SIGPROF, self._too_long)

    def _too_long(self, number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"a test took more than {TEST_LIMIT_S:.0f} s")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        first = [item for item in items if item.nodeid.startswith(ORACLE)][:FIRST]
        items.sort(key=lambda item: item not in first)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_PROF, TEST_LIMIT_S, TEST_LIMIT_S)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and self.killer is None:
            self.killer = report.nodeid
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message if crash is not None else report.longreprtext.strip()
            self.why = " ".join(said.split())[:200]
