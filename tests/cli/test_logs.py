"""Task output arrives line by line, each line with its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.cli.command import Failure
from swarmctl.cli.logs import Frame, moment_of, take_frames
from tests.cli.objects import node, service, task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

T1, T2 = task(1, 1), task(2, 12)
SERVICE = service(Mode={"Replicated": {"Replicas": 12}})


def frame(stream: int, payload: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def line(found: dict[str, str], text: str, extra: str = "", stream: int = 1) -> bytes:
    details = {
        "com.docker.swarm.node.id": "node1",
        "com.docker.swarm.service.id": SERVICE["ID"],
        "com.docker.swarm.task.id": found["ID"],
    }
    told = ",".join(f"{key}={value}" for key, value in details.items()) + extra
    return frame(stream, f"{told} {text}\n".encode())


@pytest.fixture(autouse=True)
def answers(stub: Stub) -> None:
    stub.answers["GET /services/web"] = SERVICE
    stub.answers[f"GET /services/{SERVICE['ID']}"] = SERVICE
    stub.answers["GET /nodes/node1"] = node()
    for one in (T1, T2):
        stub.answers[f"GET /tasks/{one['ID']}"] = one


def test_lines_carry_the_name_of_their_task(stub: Stub, run: Callable[..., Ran]) -> None:
    """Names stand before the lines, padded to the widest slot; stderr stays stderr."""
    stub.answers[f"GET /services/{SERVICE['ID']}/logs"] = (
        line(T1, "one  two") + line(T2, "err", stream=2) + line(T1, "", ",k=v%2Cw")
    )
    ran = run("service", "logs", "web")
    short = T1["ID"][:12]
    assert ran.out.splitlines() == [
        f"web.1.{short}@host1     | one  two",
        f"web.1.{short}@host1     | ",
    ]
    assert ran.err == f"web.12.{T2['ID'][:12]}@host1    | err\n"
    (asked,) = [asked for asked in stub.asked if asked.path.endswith("/logs")]
    assert asked.query == {"stdout": "1", "stderr": "1", "tail": "all", "details": "1"}
    assert stub.lines().count(f"GET /tasks/{T1['ID']}") == 1


def test_flags_of_logs(stub: Stub, run: Callable[..., Ran]) -> None:
    """Ids instead of names, details, times, tails: each flag does what docker's does."""
    path = f"GET /services/{SERVICE['ID']}/logs"
    stub.answers[path] = line(T1, "x", ",k=v")
    assert run("service", "logs", "--no-task-ids", "web").out == "web.1@host1     | x\n"
    whole = run("service", "logs", "--no-trunc", "--no-resolve", "--details", "web").out
    assert whole == f"{SERVICE['ID']}.1.{T1['ID']}@node1     | k=v x\n"
    stamp = b"2026-01-01T00:00:00.000000000Z "
    payload = line(T1, "x")[8:]
    stub.answers[path] = frame(1, stamp + payload)
    shown = run("service", "logs", "-t", "-n", "5", "-f", "--since", "10", "web").out
    assert shown == f"{stamp.decode()}web.1.{T1['ID'][:12]}@host1     | x\n"
    (asked,) = [asked for asked in stub.asked if "since" in asked.query]
    assert asked.query["tail"] == "5"
    assert asked.query["follow"] == asked.query["timestamps"] == "1"
    stub.answers[path] = frame(1, b"raw\n")
    assert run("service", "logs", "--raw", "web").out == "raw\n"


def test_a_task_has_logs_of_its_own(stub: Stub, run: Callable[..., Ran]) -> None:
    """service logs takes a task too; what is neither is said to be neither."""
    stub.answers[f"GET /tasks/{T1['ID']}/logs"] = line(T1, "x")
    for words in (("service", "logs"), ("task", "logs")):
        assert run(*words, T1["ID"]).out.endswith(" | x\n")
    ran = run("service", "logs", "nope")
    assert (ran.code, ran.err) == (1, "no such task or service: nope\n")


def test_what_the_daemon_could_not_get_is_an_error(stub: Stub, run: Callable[..., Ran]) -> None:
    """A frame of the system's own ends the stream with its words and exit code 1."""
    stub.answers[f"GET /services/{SERVICE['ID']}/logs"] = line(T1, "x") + frame(
        3, b"node n is not available"
    )
    ran = run("service", "logs", "web")
    assert ran.code == 1
    assert ran.out.endswith(" | x\n")
    assert ran.err == "Error from daemon in stream: node n is not available\n"


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=40)), max_size=6),
    st.lists(st.integers(1, 30), max_size=20),
)
def test_frames_survive_any_cutting(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """However the bytes arrive in pieces, the same frames come out."""
    data = b"".join(frame(stream, payload) for stream, payload in sent)
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    pieces.append(data)
    unread = bytearray()
    found = []
    for piece in pieces:
        unread += piece
        found += take_frames(unread)
    assert found == [Frame(*one) for one in sent]
    assert not unread


@pytest.mark.parametrize("data", [b"\x01\x00\x00\x00\x00\x00\x00\x05ab", b"hello world", b"\x01"])
def test_a_broken_stream_is_an_error(data: bytes, stub: Stub, run: Callable[..., Ran]) -> None:
    """A stream that ends inside a frame, or holds no frames, is never taken for output."""
    stub.answers[f"GET /services/{SERVICE['ID']}/logs"] = data
    ran = run("service", "logs", "--raw", "web")
    assert (ran.code, ran.out) == (1, "")
    assert "header" in ran.err or "middle of a line" in ran.err


def test_a_line_without_an_end_spoils_no_other(stub: Stub, run: Callable[..., Ran]) -> None:
    """A last line without a line end gets one beside other tasks' lines; raw output stays bytes."""
    path = f"GET /services/{SERVICE['ID']}/logs"
    stub.answers[path] = frame(1, line(T1, "open")[8:-1]) + line(T2, "next")
    printed = run("service", "logs", "web").out.splitlines()
    assert [text.partition(" | ")[2] for text in printed] == ["open", "next"]
    stub.answers[path] = frame(1, b"open") + frame(2, b"oops") + frame(1, b" closed\n")
    ran = run("service", "logs", "--raw", "web")
    assert (ran.out, ran.err) == ("open closed\n", "oops")


def test_moments_are_told_in_many_ways() -> None:
    """A duration back, RFC 3339 with a zone, or seconds; anything else is refused."""
    now = 1_700_000_000_000_000_000
    assert moment_of("since", "42m", now) == "1699997480.000000000"
    assert moment_of("since", "1h30m", now) == "1699994600.000000000"
    assert moment_of("since", "2013-01-02T13:23:37.5+02:00", now) == "1357125817.500000000"
    assert moment_of("since", "2013-01-02T13:23:37.123456789Z", now) == "1357133017.123456789"
    assert moment_of("since", "2013-01-02T13:23:37.5Z", now) == "1357133017.500000000"
    assert moment_of("since", "2013-01-02T13:23Z", now) == "1357132980.000000000"
    assert moment_of("since", "1234.5", now) == "1234.5"
    for wrong in ("soon", "", "12x", "2013-99-01T00:00:00Z"):
        with pytest.raises(Failure, match=r"invalid value for since .* such as 42m"):
            moment_of("since", wrong, now)
