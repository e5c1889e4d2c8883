"""Scaling by conditions on real hosts: burners, boxed and plain, leaders and sources lost."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm, managers_on, service_spec, swarm_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.lab import Host, HostProcess, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

MOST = 5
CORE_SHARE = 0.1
BURN = (
    "while :; do if [ -e $LOAD/busy ]; then i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; "
    "else sleep 0.2; fi; done"
)
RULES = {
    "min": "2",
    "max": str(MOST),
    "target": "cpu=50%",
    "cooldown": "up=0s,down=20s",
}
DOWN_S = 90


def labels(**rules: str) -> dict[str, str]:
    return {f"swarmctl.scale.{name.replace('__', '.')}": rules[name] for name in rules}


class Burner:
    """A service whose tasks burn all they may while a file is there, and nothing else.

    Each may use a tenth of a core, so a few of them do no harm to the machine.
    """

    def __init__(self, swarm: Swarm, folder: Path) -> None:
        self.swarm, self.folder = swarm, folder
        self.id = ""
        folder.mkdir(exist_ok=True)

    def create(self, *, boxed: bool, **rules: str) -> None:
        container: dict[str, Any] = {"Command": ["sh", "-c", BURN], "Env": ["LOAD=/load"]}
        if boxed:
            mount = {"Type": "bind", "Source": str(self.folder), "Target": "/load"}
            container |= {"Mounts": [mount]}
        else:
            container |= {"Image": "host", "Env": [f"LOAD={self.folder}"]}
        use = {"NanoCPUs": int(CORE_SHARE * 1e9)}
        self.id = self.swarm.create_spec(
            "burner",
            2,
            container=container,
            task={"Resources": {"Limits": use, "Reservations": use}},
            Labels=labels(**{**RULES, **rules}),
        )
        self.swarm.wait_running(self.id, 2)

    def busy(self, *, on: bool) -> None:
        flag = self.folder / "busy"
        flag.touch() if on else flag.unlink(missing_ok=True)

    def count(self) -> int:
        return len(self.swarm.running(self.id))

    def scaling(self) -> Any:
        return self.swarm.api("GET", f"/services/{self.id}/scaling")

    def wait_count(self, count: int, within_s: float) -> float:
        """Wait until so many tasks run; return how long that took."""
        began = time.monotonic()

        def there() -> bool:
            return self.count() == count

        try:
            eventually(there, within_s, every_s=0.2)
        except AssertionError as error:
            raise AssertionError(f"not {count} tasks: {json.dumps(self.scaling())}") from error
        return time.monotonic() - began


@contextmanager
def burning(swarm: Swarm, folder: Path) -> Iterator[Burner]:
    """A burner that is out when the test ends."""
    burner = Burner(swarm, folder)
    try:
        yield burner
    finally:
        burner.busy(on=False)
        shutil.rmtree(folder, ignore_errors=True)


def up_and_down(burner: Burner, tell: Callable[[str, object], None]) -> None:
    """Two tasks, as many as may be while they burn, and two again."""
    eventually(lambda: burner.scaling()["WindowSeconds"] >= 20, 60, what="a window")
    assert burner.count() == 2
    burner.busy(on=True)
    first = burner.wait_count(MOST, 90)
    told = burner.swarm.hosts[0].swarmctl(["service", "scaling", "burner"]).stdout
    tell("seconds_from_load_to_all_running", round(first, 1))
    tell("service_scaling", told)
    print(f"{first:.1f} s from load to {MOST} running", told, sep="\n")
    assert f"burner: {MOST} tasks, from 2 to {MOST} (act)" in told
    assert "target cpu=50%" in told
    assert "▇" in told or "█" in told
    burner.busy(on=False)
    burner.wait_count(2, DOWN_S)
    steps = [(step["From"], step["To"]) for step in reversed(burner.scaling()["Decisions"])]
    assert steps[0][0] == steps[-1][1] == 2
    assert all(one["Applied"] or one["From"] == one["To"] for one in burner.scaling()["Decisions"])


def test_containers_come_and_go_with_their_load(
    lab3: Lab, record_property: Callable[[str, object], None]
) -> None:
    """A CPU burner on three engines goes from 2 to 5 while it burns and back, spread over them."""
    with swarm_on(lab3.hosts) as swarm, burning(swarm, lab3[0].state_dir / "load") as burner:
        burner.create(boxed=True)
        up_and_down(burner, record_property)
        swarm.assert_exactly(burner.id, 2)
        assert len(set(swarm.nodes_of(swarm.running(burner.id)))) == 2  # spread holds


def test_processes_come_and_go_with_their_load(
    lab1: Lab, record_property: Callable[[str, object], None]
) -> None:
    """The same burner as plain processes, measured without any engine."""
    lab1[0].start_daemon("--executor=process", engine=False)
    swarm = Swarm(lab1.hosts)
    try:
        swarm.init()
        with burning(swarm, lab1[0].state_dir / "load") as burner:
            burner.create(boxed=False)
            up_and_down(burner, record_property)
    finally:
        swarm.close()


def test_the_next_leader_goes_on_with_what_the_nodes_kept(lab3: Lab) -> None:
    """The leader is killed in mid-scale: the next one reads the windows back and takes it from
    there, and nothing is taken away meanwhile."""
    with managers_on(lab3.hosts) as managers:
        leader = managers.leader()
        other = next(each for each in managers.hosts if each is not leader)
        hosts = sorted(lab3.hosts, key=lambda host: host is not other.host)
        swarm = Swarm(hosts)
        with burning(swarm, lab3[0].state_dir / "load") as burner:
            burner.create(boxed=True, up__by="1")
            eventually(lambda: burner.scaling()["WindowSeconds"] >= 20, 60, what="a window")
            burner.busy(on=True)
            eventually(lambda: burner.scaling()["Count"] >= 3, 60, every_s=0.2, what="a step")
            before = burner.scaling()
            leader.kill()
            eventually(lambda: burner.scaling()["Decisions"], 30, what="another leader")
            lowest = MOST
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                found = burner.scaling()
                lowest = min(lowest, found["Count"])
                if found["Count"] == MOST:
                    break
                time.sleep(0.5)
            assert lowest >= before["Count"]
            assert found["Count"] == MOST, found
            kept = {step["At"] for step in before["Decisions"]}
            assert kept <= {step["At"] for step in found["Decisions"]}
            assert found["WindowSeconds"] > before["WindowSeconds"]  # it was read back
            leader.restart()
        swarm.close()


@contextmanager
def httpd(host: Host, port: int, folder: Path) -> Iterator[HostProcess]:
    """Serve files on a host, as a queue's statistics or an exporter would."""
    folder.mkdir(exist_ok=True)
    process = host.popen(["busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(folder)])
    try:
        yield process
    finally:
        process.kill()


def test_a_metric_source_that_dies_is_shown_and_takes_nothing_away(lab1: Lab) -> None:
    """A queue's length scales a service; when the source dies the number stands and says why."""
    host = lab1[0]
    folder = host.state_dir / "queue"
    with swarm_on(lab1.hosts) as swarm, httpd(host, 8099, folder) as source:
        (folder / "depth").write_text('{"pending": 38}')
        rules = {
            "max": "6",
            "cooldown": "down=10s",
            "target": "jobs=10 per replica",
            "metric__jobs": "http://127.0.0.1:8099/depth#/pending",
        }
        service = swarm.create_spec("worker", 1, Labels=labels(**rules))
        swarm.wait_running(service, 4)
        source.kill()

        def told() -> Any:
            return swarm.api("GET", f"/services/{service}/scaling")

        found = eventually(
            lambda: (now := told())["Reason"] == "jobs has no value" and now, 60, what="its death"
        )
        assert "cannot be reached" in found["Metrics"][0]["Err"]
        time.sleep(15)
        assert len(swarm.running(service)) == 4
        (folder / "depth").write_text('{"pending": 11}')
        with httpd(host, 8099, folder):
            swarm.wait_running(service, 2)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not here")
def test_a_prometheus_feeds_a_rule(lab1: Lab) -> None:
    """Debian's Prometheus scrapes a number, a query gives it, and a condition acts on it."""
    host = lab1[0]
    folder = host.state_dir / "prometheus"
    with swarm_on(lab1.hosts) as swarm, httpd(host, 8098, folder):
        (folder / "metrics").write_text("latency_ms 120\n")
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {"job_name": "x", "static_configs": [{"targets": ["127.0.0.1:8098"]}]}
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        prometheus = host.popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:9090",
            ]
        )
        try:
            rules = {
                "max": "3",
                "up__when": "latency_ms > 300 for 10s",
                "up__by": "to=3",
                "metric__latency_ms": "prometheus+http://127.0.0.1:9090?query=max(latency_ms)",
            }
            spec = service_spec("web", 1, Labels=labels(**rules))
            service = swarm.api("POST", "/services/create", spec)["ID"]

            def value() -> str:
                found = swarm.api("GET", f"/services/{service}/scaling")
                return str(found["Metrics"][0]["Value"])

            eventually(lambda: value() == "120", 60, what="Prometheus' answer")
            assert len(swarm.wanted(service)) == 1
            (folder / "metrics").write_text("latency_ms 900\n")
            swarm.wait_running(service, 3)
        finally:
            prometheus.kill()
