"""``secret`` and ``config``: docker's words, tables and requests, and versions beyond them."""

from __future__ import annotations

import base64
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.objects import ago, service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ran
    from tests.cli.stub import Stub

KINDS = ("secret", "config")
NOTHING = {"Count": 0, "Names": []}


def payload(name: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    """A secret or config as a daemon shows it; ``spec`` are fields of its spec."""
    spec = {"Name": name, "Labels": {}, **fields.pop("spec", {})}
    return {
        "ID": f"{name}{number}".ljust(25, "0"),
        "Version": {"Index": 5},
        "CreatedAt": ago(7200),
        "UpdatedAt": ago(90),
        "Spec": spec,
        **({"Revision": number} if number > 1 else {}),
        **fields,
    }


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Give the command something to read."""

    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


def made(**fields: Any) -> dict[str, Any]:
    """The answer to a new version."""
    return {
        "ID": "new",
        "Revision": 2,
        "Unchanged": False,
        "Moving": NOTHING,
        "Waiting": NOTHING,
        **fields,
    }


# --- create --------------------------------------------------------------------------------------


def test_create_reads_a_file(
    stub: Stub, run: Callable[..., Ran], kind: str, tmp_path: Path
) -> None:
    """What the file holds is sent whole, bytes that are no text included; the id is printed."""
    file = tmp_path / "data"
    file.write_bytes(b"\x00\xffhunter2\n")
    stub.answers[f"POST /{kind}s/create"] = (201, {"ID": "abc"})
    ran = run(kind, "create", "-l", "a=b", "--label", "c", "pw", str(file))
    assert (ran.code, ran.out) == (0, "abc\n")
    assert stub.posted() == {
        "Name": "pw",
        "Labels": {"a": "b", "c": ""},
        "Data": base64.b64encode(b"\x00\xffhunter2\n").decode(),
    }


def test_create_reads_standard_input(
    stub: Stub, run: Callable[..., Ran], kind: str, stdin: Callable[[bytes], None]
) -> None:
    """``-`` is standard input; a template driver goes with it."""
    stdin(b"\xffpiped")
    stub.answers[f"POST /{kind}s/create"] = (201, {"ID": "abc"})
    assert run(kind, "create", "--template-driver", "golang", "pw", "-").code == 0
    assert stub.posted()["Data"] == base64.b64encode(b"\xffpiped").decode()
    assert stub.posted()["Templating"] == {"Name": "golang"}


def test_create_without_data(stub: Stub, run: Callable[..., Ran]) -> None:
    """A secret of a driver needs no file, a config always one; the daemon has the last word."""
    stub.answers["POST /secrets/create"] = (501, {"message": "secret driver 'vault' is not"})
    ran = run("secret", "create", "-d", "vault", "pw")
    assert (ran.code, ran.err) == (
        1,
        "Error response from daemon: secret driver 'vault' is not\n",
    )
    assert stub.posted() == {"Name": "pw", "Labels": {}, "Data": "", "Driver": {"Name": "vault"}}
    assert "requires 2 arguments" in run("config", "create", "pw").err


def test_a_file_that_cannot_be_read(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """Nothing is sent, and the file is named."""
    ran = run(kind, "create", "pw", "/no/such/file")
    assert ran.code == 1
    assert ran.err == 'error reading content from "/no/such/file": No such file or directory\n'
    assert stub.asked == []


# --- ls and inspect ------------------------------------------------------------------------------


def test_the_tables_are_dockers(stub: Stub, run: Callable[..., Ran]) -> None:
    """Columns, natural order and ages; a config has no driver."""
    stub.answers["GET /secrets"] = stub.answers["GET /configs"] = [payload("pw10"), payload("pw2")]
    assert run("secret", "ls").out.splitlines() == [
        "ID                          NAME      DRIVER    CREATED       UPDATED",
        "pw21000000000000000000000   pw2                 2 hours ago   About a minute ago",
        "pw10100000000000000000000   pw10                2 hours ago   About a minute ago",
    ]
    assert run("config", "list").out.splitlines()[0].split() == ["ID", "NAME", "CREATED", "UPDATED"]
    assert stub.asked[-1].query == {}


def test_all_shows_every_version(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """With --all there is a column more, and a name's newest version stands first."""
    stub.answers[f"GET /{kind}s"] = [payload("pw", 1), payload("key"), payload("pw", 2)]
    ran = run(kind, "ls", "-a", "--format", "table {{.Name}}\t{{.Revision}}")
    assert ran.out.splitlines() == [
        "NAME      REVISION",
        "key       1",
        "pw        2",
        "pw        1",
    ]
    assert stub.asked[-1].query == {"all": "1"}
    assert "REVISION" in run(kind, "ls", "--all").out
    assert "REVISION" not in run(kind, "ls").out


def test_formats_quiet_and_filters(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """-q gives whole ids, templates know the columns, filters go to the daemon."""
    stub.answers[f"GET /{kind}s"] = [payload("pw", spec={"Labels": {"b": "2", "a": "1"}})]
    assert run(kind, "ls", "-q").out == "pw10000000000000000000000\n"
    assert run(kind, "ls", "--format", "{{.Name}}: {{.Labels}}").out == "pw: a=1,b=2\n"
    row = json.loads(run(kind, "ls", "--format", "json").out)
    assert (row["Name"], row["Labels"]) == ("pw", "a=1,b=2")
    run(kind, "ls", "-f", "name=p", "--filter", "label=a=1")
    sent = json.loads(stub.asked[-1].query["filters"])
    assert sent == {"name": {"p": True}, "label": {"a=1": True}}


def test_inspect(stub: Stub, run: Callable[..., Ran]) -> None:
    """JSON as it came, by a template, and told to a human as docker tells it."""
    times = {"CreatedAt": "2025-01-02T03:04:05.5Z", "UpdatedAt": "2025-01-02T03:04:06Z"}
    secret = payload("pw", spec={"Labels": {"a": "b", "c": ""}}, **times)
    config = payload("conf", spec={"Data": base64.b64encode(b"x=1\n").decode()}, **times)
    stub.answers["GET /secrets/pw"] = secret
    stub.answers["GET /configs/conf"] = config
    assert json.loads(run("secret", "inspect", "pw").out) == [secret]
    assert run("config", "inspect", "-f", "{{.Spec.Name}}", "conf").out == "conf\n"
    assert run("secret", "inspect", "--pretty", "pw").out.splitlines() == [
        f"ID:              {secret['ID']}",
        "Name:            pw",
        "Labels:",
        " - a=b",
        " - c",
        "Driver:          ",
        "Created at:      2025-01-02 03:04:05.5 +0000 utc",
        "Updated at:      2025-01-02 03:04:06 +0000 utc",
    ]
    assert run("config", "inspect", "--pretty", "conf").out.splitlines() == [
        f"ID:\t\t\t{config['ID']}",
        "Name:\t\t\tconf",
        "Created at:            \t2025-01-02 03:04:05.5 +0000 utc",
        "Updated at:            \t2025-01-02 03:04:06 +0000 utc",
        "Data:",
        "x=1",
        "",
    ]
    ran = run("secret", "inspect", "pw", "nope")
    assert ran.code == 1
    assert len(json.loads(ran.out)) == 1
    assert ran.err == "Error response from daemon: secret nope not found\n"


# --- update --------------------------------------------------------------------------------------


def test_update_makes_a_version(
    stub: Stub, run: Callable[..., Ran], kind: str, tmp_path: Path
) -> None:
    """The file goes to the daemon, which says what moves; the id is all of standard output."""
    file = tmp_path / "data"
    file.write_bytes(b"two")
    stub.answers[f"GET /{kind}s/pw"] = payload("pw", spec={"Labels": {"a": "1", "b": "2"}})
    stub.answers[f"POST /{kind}s/pw/versions"] = (
        201,
        made(Moving={"Count": 3, "Names": ["api", "web"]}, Waiting={"Count": 1, "Names": ["job"]}),
    )
    ran = run(kind, "update", "pw", str(file))
    assert (ran.code, ran.out) == (0, "new\n")
    assert ran.err.splitlines() == [
        "services api, web, 1 more are updated to use it",
        "service job goes on with an older version until its tasks are replaced for another reason",
    ]
    assert stub.posted() == {"Data": base64.b64encode(b"two").decode()}
    assert stub.asked[-1].query == {"roll": "true"}


def test_update_without_rolling_and_with_labels(
    stub: Stub, run: Callable[..., Ran], kind: str, stdin: Callable[[bytes], None]
) -> None:
    """--no-roll is handed on; labels that change are sent whole, for the new version alone."""
    stdin(b"two")
    stub.answers[f"GET /{kind}s/pw"] = payload("pw", spec={"Labels": {"a": "1", "b": "2"}})
    stub.answers[f"POST /{kind}s/pw/versions"] = made(Unchanged=True)
    ran = run(kind, "update", "--no-roll", "--label-add", "c=3", "--label-rm", "a", "pw", "-")
    assert ran.code == 0
    assert ran.err == f"the {kind} is as it was: no new version was made\n"
    assert stub.posted()["Labels"] == {"b": "2", "c": "3"}
    assert stub.asked[-1].query == {"roll": "false"}


def test_update_of_labels_alone(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """Without a file the spec is read, changed and posted with its version, as docker would."""
    found = payload("pw", spec={"Labels": {"a": "1"}})
    stub.answers[f"GET /{kind}s/pw"] = found
    stub.answers[f"POST /{kind}s/{found['ID']}/update"] = None
    ran = run(kind, "update", "--label-add", "b=2", "pw")
    assert (ran.code, ran.out, ran.err) == (0, "pw\n", "")
    assert stub.posted() == {"Name": "pw", "Labels": {"a": "1", "b": "2"}}
    assert stub.asked[-1].query == {"version": "5"}
    ran = run(kind, "update", "pw")
    assert ran.code == 1
    assert ran.err == (
        f"nothing to update: name a file (or - for standard input), or change labels of {kind} pw\n"
    )


# --- rm and prune --------------------------------------------------------------------------------


def test_remove(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """Each is removed; those that cannot be are told at the end."""
    stub.answers[f"DELETE /{kind}s/a"] = (204, None)
    stub.answers[f"DELETE /{kind}s/b"] = (400, {"message": "in use"})
    stub.answers[f"DELETE /{kind}s/c"] = (204, None)
    ran = run(kind, "remove", "a", "b", "c")
    assert (ran.code, ran.out) == (1, "a\nc\n")
    assert ran.err == "Error response from daemon: in use\n"


def test_prune_asks_first(
    stub: Stub, run: Callable[..., Ran], kind: str, stdin: Callable[[bytes], None]
) -> None:
    """Only a yes, or --force, prunes; what went is listed."""
    stub.answers[f"POST /{kind}s/prune"] = {"Deleted": ["x", "y"]}
    for answer in (b"\n", b"n\n", b""):
        stdin(answer)
        assert "Are you sure" in run(kind, "prune").out
    assert stub.asked == []
    stdin(b"y\n")
    assert run(kind, "prune").out.endswith(f"Deleted {kind.capitalize()} Versions:\nx\ny\n")
    assert run(kind, "prune", "-f").out == f"Deleted {kind.capitalize()} Versions:\nx\ny\n"
    stub.answers[f"POST /{kind}s/prune"] = {"Deleted": []}
    assert run(kind, "prune", "-f").out == ""


# --- services ------------------------------------------------------------------------------------


def test_a_service_uses_them(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """--secret and --config, short and long, become references by id, read with a name filter."""
    word = kind.capitalize()
    stub.answers[f"GET /{kind}s"] = [payload("pw"), payload("key")]
    stub.answers["POST /services/create"] = (201, {"ID": "s"})
    ran = run(
        *("service", "create", "-d", "--no-resolve-image", f"--{kind}", "pw"),
        *(f"--{kind}", "source=key,target=/etc/key,uid=7,gid=8,mode=0400", "host", "true"),
    )
    assert ran.code == 0, ran
    container = stub.posted()["TaskTemplate"]["ContainerSpec"]
    assert container[f"{word}s"] == [
        {
            "File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 0o444},
            f"{word}Name": "pw",
            f"{word}ID": payload("pw")["ID"],
        },
        {
            "File": {"Name": "/etc/key", "UID": "7", "GID": "8", "Mode": 0o400},
            f"{word}Name": "key",
            f"{word}ID": payload("key")["ID"],
        },
    ]


def test_a_service_is_given_another_one(stub: Stub, run: Callable[..., Ran], kind: str) -> None:
    """--secret-rm takes one away by its name, --secret-add brings another one."""
    word = kind.capitalize()
    web = service()
    web["Spec"]["TaskTemplate"]["ContainerSpec"][f"{word}s"] = [
        {"File": {"Name": name}, f"{word}Name": name, f"{word}ID": name} for name in ("a", "b")
    ]
    stub.answers["GET /services/web"] = web
    stub.answers[f"GET /{kind}s"] = [payload("pw")]
    stub.answers[f"POST /services/{web['ID']}/update"] = {"Warnings": None}
    ran = run("service", "update", "-d", f"--{kind}-rm", "a", f"--{kind}-add", "pw", "web")
    assert ran.code == 0, ran
    uses = stub.posted()["TaskTemplate"]["ContainerSpec"][f"{word}s"]
    assert [use[f"{word}ID"] for use in uses] == ["b", payload("pw")["ID"]]
