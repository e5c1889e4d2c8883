"""``service scaling``: flags that are labels, what a human is told, replays and their pictures."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.cli.service.chart import SPARKS, Chart, Series, as_png, in_terminal, sparkline
from tests.cli.objects import ago, service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

ID = service()["ID"]
TRACE = """time,cpu,jobs
0,1,0
300,6,40
15m,6,40
0:25:00,2,
00:40:00,2,0
"""


def told(**fields: Any) -> dict[str, Any]:
    return {
        "ID": "web1",
        "Name": "web",
        "Mode": "act",
        "Min": 2,
        "Max": 20,
        "Count": 4,
        "Wanted": 4,
        "Reason": "cpu is 72%, target cpu=70%",
        "WindowSeconds": 600,
        "UpAt": ago(5),
        "DownAt": ago(-245),
        "Rules": [
            {"Kind": "target", "Text": "cpu=70%", "State": "wants 4"},
            {"Kind": "up", "Text": "jobs > 100 for 1m", "State": "unknown"},
        ],
        "Metrics": [
            {"Name": "cpu", "Value": "72%", "History": [0.1, 0.2, None, 0.4, 0.8]},
            {"Name": "jobs", "Value": "", "History": [None], "Err": "it answered 503"},
        ],
        "Decisions": [
            {
                "At": ago(125),
                "Rule": "target cpu=70%",
                "From": 2,
                "To": 4,
                "Reason": "cpu is 130%, target cpu=70%",
                "Applied": True,
            }
        ],
        "Notes": [],
        **fields,
    }


def test_flags_stand_for_labels(stub: Stub, run: Callable[..., Ran]) -> None:
    """Each flag is the label of its name; what may be given again is joined."""
    stub.answers["POST /services/create"] = (201, {"ID": ID})
    flags = {
        "--scale-min": "2",
        "--scale-max": "20",
        "--scale-up-when": "cpu > 80% for 1m",
        "--scale-up-by": "50%",
        "--scale-down-when": "cpu < 30%",
        "--scale-down-by": "1",
        "--scale-cooldown": "up=30s,down=5m",
        "--scale-tolerance": "10%",
        "--scale-missing": "hold",
        "--scale-mode": "recommend",
    }
    words = [word for pair in flags.items() for word in pair]
    words += ["--scale-target", "cpu=70%", "--scale-target", "jobs=50 per replica"]
    words += ["--scale-schedule", "08:00-20:00 min=3", "--scale-schedule", "Sat 00:00-24:00 max=2"]
    words += ["--scale-metric", "jobs=http://queue/depth?a=b#/pending"]
    ran = run("service", "create", "-d", "--no-resolve-image", *words, "nginx")
    assert ran.code == 0, ran.err
    assert stub.posted()["Labels"] == {
        **{f"swarmctl.scale.{flag[8:].replace('-', '.')}": value for flag, value in flags.items()},
        "swarmctl.scale.target": "cpu=70%,jobs=50 per replica",
        "swarmctl.scale.schedule": "08:00-20:00 min=3; Sat 00:00-24:00 max=2",
        "swarmctl.scale.metric.jobs": "http://queue/depth?a=b#/pending",
    }
    assert stub.posted()["Mode"] == {"Replicated": {}}


def test_an_update_takes_a_rule_away_by_an_empty_value(stub: Stub, run: Callable[..., Ran]) -> None:
    """``--scale-max ''`` and ``--scale-metric jobs=`` take their labels away."""
    present = {"swarmctl.scale.max": "5", "swarmctl.scale.metric.jobs": "http://q/", "a": "b"}
    stub.answers["GET /services/web"] = service(Labels=present)
    stub.answers[f"POST /services/{ID}/update"] = {}
    flags = ["--scale-max", "", "--scale-metric", "jobs=", "--scale-mode", "off"]
    assert run("service", "update", "-d", *flags, "web").code == 0
    assert stub.posted()["Labels"] == {"a": "b", "swarmctl.scale.mode": "off"}
    ran = run("service", "update", "-d", "--scale-metric", "http://q/", "web")
    assert (ran.code, "it must be NAME=ADDRESS" in ran.err) == (1, True)


def test_scaling_is_told_in_columns(stub: Stub, run: Callable[..., Ran]) -> None:
    """Rules and their state, values with their history, what was done, and when more can be."""
    stub.answers["GET /services/web/scaling"] = told()
    assert run("service", "scaling", "web").out.splitlines() == [
        "web: 4 tasks, from 2 to 20 (act)",
        "  cpu is 72%, target cpu=70%",
        "  can grow now, shrink in 4m5s, if load asks for it",
        "",
        "RULE      STATE     CONDITION",
        "target    wants 4   cpu=70%",
        "up        unknown   jobs > 100 for 1m",
        "",
        "METRIC    NOW        LAST 5m0s",
        "cpu       72%        ▁▂ ▄█",
        "jobs      no value   it answered 503",
        "",
        "WHEN            FROM      TO        WHY",
        "2 minutes ago   2         4         cpu is 130%, target cpu=70%",
    ]


def test_what_only_is_recommended_is_told(stub: Stub, run: Callable[..., Ran]) -> None:
    """A recommendation shows as one; a floor that a human set shows how long it holds."""
    step = {**told()["Decisions"][0], "Applied": False}
    stub.answers["GET /services/web/scaling"] = told(
        Mode="recommend", Wanted=9, Decisions=[step], Floor=4, FloorUntil=ago(-60), Notes=["so"]
    )
    out = run("service", "scaling", "web").out.splitlines()
    assert out[0] == "web: 4 tasks, from 2 to 20 (recommend); 9 are recommended"
    assert out[3] == "  4 is the least for now, set by hand (1m0s)"
    assert out[4] == "  note: so"
    assert out[-1].endswith("cpu is 130%, target cpu=70% (only recommended)")
    stub.answers["GET /services/web/scaling"] = told(Count=20, Min=20)
    out = run("service", "scaling", "web").out.splitlines()
    assert out[2] == "  can grow no further, shrink no further, if load asks for it"
    stub.answers["GET /services/web/scaling"] = told(Mode="off", Min=0, Max=0, Reason="")
    out = run("service", "scaling", "web").out.splitlines()
    assert out[:3] == [
        "web: 4 tasks; scaling by conditions is off",
        "",
        "WHEN            FROM      TO        WHY",
    ]
    stub.answers["GET /services/web/scaling"] = told(Mode="", Count=1)
    assert run("service", "scaling", "web").out == "web: 1 task; it is not scaled by conditions\n"


def test_a_dry_run_asks_the_daemon_and_sets_nothing(stub: Stub, run: Callable[..., Ran]) -> None:
    """Rules of flags go to the route that tries them; without --dry-run they are refused."""
    stub.answers["POST /services/web/scaling"] = told(Wanted=6, DryRun=True)
    ran = run("service", "scaling", "--dry-run", "--scale-target", "cpu=50%", "web")
    assert ran.out.splitlines()[0] == (
        "web: 4 tasks, from 2 to 20 (act); these rules would make it 6"
    )
    assert stub.posted() == {"Labels": {"swarmctl.scale.target": "cpu=50%"}}
    refused = run("service", "scaling", "--scale-target", "cpu=50%", "web")
    assert (refused.code, refused.err) == (
        1,
        (
            "rules are set by service update; --dry-run tries them on the load there is, --trace "
            "FILE on one that is written down\n"
        ),
    )


RULES = ("--scale-max", "20", "--scale-target", "cpu=70%", "--reserve-cpu", "1")


def test_a_trace_is_replayed_without_a_daemon(run: Callable[..., Ran], tmp_path: Path) -> None:
    """A load that is written down gives the number of tasks, drawn, and each change with why."""
    (tmp_path / "day.csv").write_text(TRACE)
    ran = run("service", "scaling", "test", "--trace", str(tmp_path / "day.csv"), *RULES)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "tasks under day.csv"
    assert lines[1].startswith("    8 │")
    assert lines[13].startswith("    0 └")
    assert lines[15].startswith("  cpu  ")
    assert lines[15].endswith("up to 6")
    assert "1 to 8 tasks" in ran.out
    assert "     0m00s  1 -> 2: cpu is 100%, target cpu=70%" in lines
    words = ("--trace", str(tmp_path / "day.csv"), *RULES, "--format", "json")
    steps = json.loads(run("service", "scaling", "test", *words).out)
    assert (len(steps), steps[0]["Tasks"], steps[-1]["Tasks"]) == (480, 1, 3)
    refused = run("service", "scaling", "test", *words[:-1], "yaml")
    assert (refused.code, refused.err) == (1, "unknown format 'yaml': json, or none\n")


def test_a_trace_through_a_services_own_rules(
    stub: Stub, run: Callable[..., Ran], tmp_path: Path
) -> None:
    """A service's labels and reservations count; flags change some of them for the replay."""
    (tmp_path / "day.csv").write_text(TRACE)
    labels = {"swarmctl.scale.max": "4", "swarmctl.scale.target": "jobs=10 per replica"}
    labels["swarmctl.scale.metric.jobs"] = "http://queue/"
    stub.answers["GET /services/web"] = service(Labels=labels)
    trace = ("--trace", str(tmp_path / "day.csv"))
    assert "1 to 4 tasks" in run("service", "scaling", "web", *trace).out
    more = run("service", "scaling", "web", *trace, "--scale-max", "3")
    assert "1 to 3 tasks" in more.out


def test_a_column_is_a_metric_of_ones_own(run: Callable[..., Ran], tmp_path: Path) -> None:
    """Where its values come from in life is not asked; one that no rule looks at is only drawn."""
    (tmp_path / "day.csv").write_text(TRACE)
    words = ("--trace", str(tmp_path / "day.csv"), "--scale-max", "20", "--scale-target")
    ran = run("service", "scaling", "test", *words, "jobs=10 per replica")
    assert "1 to 4 tasks" in ran.out
    ran = run("service", "scaling", "test", *words, "depth=10 per replica")
    assert (ran.code, "'depth' is no metric; there are" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("", RULES, "the first line has to name the columns"),
        ("time,cpu\n0,1\n", RULES, "at least two lines"),
        ("time,cpu\n0,1\n0,2\n", RULES, "line 3: time has to go up"),
        ("time,cpu\n0,1\n5,x\n", RULES, "line 3: 'x' is no amount of load"),
        ("time,cpu\n# peak\n\n0,1\n5,-1\n", RULES, "line 5: '-1' is no amount of load"),
        ("time,cpu\n0,1\n5,nan\n", RULES, "line 3: 'nan' is no amount of load"),
        ("time,cpu\n0,1\n5,1e999\n", RULES, "line 3: '1e999' is no amount of load"),
        ("time,cpu\n0,1\n08:00,1\n", RULES, "line 3: '08:00' could be hours or minutes"),
        ("time,cpu\n0,1\nnoon,1\n", RULES, "line 3: 'noon' is no time: seconds, HH:MM:SS"),
        ("time,cpu\n0,1\n" + "9" * 400 + ",1\n", RULES, "is no time: seconds, HH:MM:SS"),
        ("time,cpu\n0,1\n5,1,1\n", RULES, "line 3: 3 columns, and the first line names 2"),
        ("time,mem\n0,1\n5,1\n", RULES, "no column cpu, which a rule looks at"),
        ("time,cpu\n0,1\n5,1\n", ("--scale-max", "3"), "say nothing of when to scale"),
        ("time,cpu\n0,1\n5,1\n", (), "has no rules"),
        ("time,cpu\n0,1\n5,1\n", (*RULES, "-o", "x.gif"), "pictures are .svg or .png"),
        ("time,cpu\n0,1\n5,1\n", (*RULES, "-o", "/proc/x.svg"), "cannot be written"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    run: Callable[..., Ran], tmp_path: Path, text: str, flags: tuple[str, ...], words: str
) -> None:
    """A trace that cannot be read says where; rules that are wrong say why."""
    (tmp_path / "t.csv").write_text(text)
    ran = run("service", "scaling", "test", "--trace", str(tmp_path / "t.csv"), *flags)
    assert (ran.code, words in ran.err) == (1, True), ran.err


def test_pictures(run: Callable[..., Ran], tmp_path: Path) -> None:
    """-o writes an SVG that parses, or a PNG of the size that it says."""
    (tmp_path / "day.csv").write_text(TRACE)
    words = ("service", "scaling", "test", "--trace", str(tmp_path / "day.csv"), *RULES, "-o")
    assert run(*words, str(tmp_path / "day.svg")).code == 0
    root = ET.fromstring((tmp_path / "day.svg").read_text())
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3  # cpu, jobs, tasks
    assert run(*words, str(tmp_path / "day.png")).code == 0
    wide, high, dots = read_png((tmp_path / "day.png").read_bytes())
    assert (wide, high) == (960, 360)
    assert {1, 2, 3, 4} <= set(dots)  # tasks, load, grid and numbers are drawn


def read_png(data: bytes) -> tuple[int, int, bytes]:
    """Read a picture back: chunk by chunk, each with its checksum."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, packed, size = 8, b"", (0, 0)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checked,) = struct.unpack_from(">I", data, at + 8 + length)
        assert zlib.crc32(kind + body) == checked
        if kind == b"IHDR":
            size = struct.unpack_from(">II", body)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    raw = zlib.decompress(packed)
    wide, high = size
    assert len(raw) == high * (wide + 1)
    return wide, high, raw


numbers = st.lists(st.one_of(st.none(), st.floats(0, 1e9)), max_size=80)


@given(numbers)
def test_sparklines(values: list[float | None]) -> None:
    """One letter a value, gaps where there is none, and never more than asked for."""
    line = sparkline(values, 60)
    assert len(line) in (0, len(values[-60:]))
    assert set(line) <= {*SPARKS, " "}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), numbers)
def test_any_replay_can_be_drawn(counts: list[int], loads: list[float | None]) -> None:
    """Whatever the numbers, a chart has its lines, and its PNG can be read back."""
    tasks = Series("tasks", [float(count) for count in counts])
    chart = Chart("x", 5.0 * len(counts), tasks, (Series("cpu", loads),))
    lines = list(in_terminal(chart, 40))
    assert len(lines) == 16
    assert all(len(line) <= 48 for line in lines[1:14])
    if len(counts) <= 20:
        read_png(as_png(chart))
