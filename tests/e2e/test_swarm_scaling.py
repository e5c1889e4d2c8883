"""Scaling by conditions on real hosts: burners, boxed and plain, leaders and sources lost."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.burner import MOST, WINDOW_S, burning, labels
from tests.e2e.lab import eventually
from tests.e2e.swarm import Swarm, managers_on, swarm_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.burner import Burner
    from tests.e2e.lab import Host, HostProcess, Lab

pytestmark = [pytest.mark.lab, pytest.mark.engine]

DOWN_S = 90


def test_containers_and_processes_come_and_go_with_their_load(
    lab3: Lab, record_property: Callable[[str, object], None]
) -> None:
    """CPU burners go from 2 tasks to 5 while they burn and back: containers, spread over two
    engines, and plain processes, measured without any engine."""
    for host in lab3.hosts[:2]:
        host.start_daemon()
    lab3[2].start_daemon("--executor=process", engine=False)
    swarm = Swarm(lab3.hosts)
    try:
        swarm.init()
        swarm.join_all()
        with burning(swarm, lab3[0].state_dir / "load", "boxed", "plain") as burners:
            boxed, plain = burners
            boxed.create(boxed=True)
            plain.create(boxed=False)
            _up_and_down(burners, record_property)
            swarm.assert_exactly(boxed.id, 2)
            assert swarm.nodes_of(swarm.running(boxed.id)) == [0, 1]  # spread holds
            assert swarm.nodes_of(swarm.running(plain.id)) == [2, 2]
    finally:
        swarm.close()


def _up_and_down(burners: list[Burner], tell: Callable[[str, object], None]) -> None:
    """Two tasks each, as many as may be while they burn, and two again."""
    for burner in burners:
        burner.swarm.wait_running(burner.id, 2)
    burners[0].busy(on=True)  # they share the file
    began = time.monotonic()
    for burner in burners:
        burner.wait_count(MOST, 90)
    tell("seconds_from_load_to_all_running", round(time.monotonic() - began, 1))
    for burner in burners:
        told = burner.swarm.hosts[0].swarmctl(["service", "scaling", burner.name]).stdout
        tell(f"service_scaling_{burner.name}", told)
        assert f"{burner.name}: {MOST} tasks, from 2 to {MOST} (act)" in told
        assert "target cpu=20%" in told
        assert "▇" in told or "█" in told
    burners[0].busy(on=False)
    for burner in burners:
        burner.wait_count(2, DOWN_S)
        decisions = burner.scaling()["Decisions"]
        steps = [(step["From"], step["To"]) for step in reversed(decisions)]
        assert steps[0][0] == steps[-1][1] == 2
        assert all(one["Applied"] or one["From"] == one["To"] for one in decisions)


def test_the_next_leader_goes_on_with_what_the_nodes_kept(lab3: Lab) -> None:
    """The leader is killed in mid-scale: the next one reads the windows back and takes it from
    there, and nothing is taken away meanwhile."""
    most = 4
    with managers_on(lab3.hosts) as managers:
        leader = managers.leader()
        other = next(each for each in managers.hosts if each is not leader)
        hosts = sorted(lab3.hosts, key=lambda host: host is not other.host)
        swarm = Swarm(hosts)
        with burning(swarm, lab3[0].state_dir / "load", "burner") as (burner,):
            burner.create(boxed=True, up__by="1", max=str(most))
            burner.busy(on=True)
            eventually(lambda: burner.scaling()["Count"] >= 3, 60, every_s=0.2, what="a step")
            before = burner.scaling()
            leader.kill()
            killed = time.monotonic()
            eventually(lambda: burner.scaling()["Decisions"], 30, what="another leader")
            lowest = most
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                found = burner.scaling()
                lowest = min(lowest, found["Count"])
                if found["Count"] == most:
                    break
                time.sleep(0.5)
            assert lowest >= before["Count"]
            assert found["Count"] == most, found
            kept = {step["At"] for step in before["Decisions"]}
            assert kept <= {step["At"] for step in found["Decisions"]}
            # More than anybody could have seen since: the window was read back.
            assert found["WindowSeconds"] > time.monotonic() - killed
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


@contextmanager
def prometheus(host: Host, port: int, folder: Path, scraped: int) -> Iterator[None]:
    """Run Debian's Prometheus on a host; it scrapes one port there, every second."""
    folder.mkdir(exist_ok=True)
    targets = [{"targets": [f"127.0.0.1:{scraped}"]}]
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "x", "static_configs": targets}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    process = host.popen(
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
    )
    try:
        yield
    finally:
        process.kill()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not here")
def test_metrics_of_ones_own_and_a_source_that_dies(lab1: Lab) -> None:
    """A queue's length scales one service, and a number that Debian's Prometheus scraped another;
    when the queue's source dies its service's number stands, and it is said why."""
    host = lab1[0]
    queue, exporter = host.state_dir / "queue", host.state_dir / "exporter"
    with (
        swarm_on(lab1.hosts) as swarm,
        httpd(host, 8099, queue) as source,
        httpd(host, 8098, exporter),
        prometheus(host, 9090, host.state_dir / "prometheus", 8098),
    ):
        (queue / "depth").write_text('{"pending": 38}')
        (exporter / "metrics").write_text("latency_ms 120\n")
        by_queue = {
            "max": "6",
            "cooldown": f"down={WINDOW_S}s",
            "target": "jobs=10 per replica",
            "metric__jobs": "http://127.0.0.1:8099/depth#/pending",
        }
        by_latency = {
            "max": "3",
            "up__when": "latency_ms > 300 for 5s",
            "up__by": "to=3",
            "metric__latency_ms": "prometheus+http://127.0.0.1:9090?query=max(latency_ms)",
        }
        worker = swarm.create_spec("worker", 1, Labels=labels(**by_queue))

        def told(service: str) -> Any:
            return swarm.api("GET", f"/services/{service}/scaling")

        swarm.wait_running(worker, 4)
        source.kill()
        web = swarm.create_spec("web", 1, Labels=labels(**by_latency))
        eventually(lambda: told(web)["Metrics"][0]["Value"] == "120", 60, what="Prometheus' answer")
        assert len(swarm.wanted(web)) == 1
        (exporter / "metrics").write_text("latency_ms 900\n")
        swarm.wait_running(web, 3)
        found = eventually(
            lambda: (now := told(worker))["Reason"] == "jobs has no value" and now,
            60,
            what="its death",
        )
        assert "cannot be reached" in found["Metrics"][0]["Err"]
        time.sleep(WINDOW_S + 2)  # longer than load would have to be low
        assert len(swarm.running(worker)) == 4
        (queue / "depth").write_text('{"pending": 11}')
        with httpd(host, 8099, queue):
            swarm.wait_running(worker, 2)
