"""The built-in metric sources, against a real server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarmctl.plugins import MetricUnavailable
from swarmctl.plugins.hookspecs import MetricSettings
from swarmctl.plugins.http_metrics import (
    THREADS,
    JsonSource,
    PrometheusSource,
    authorization,
    query_address,
)
from swarmctl.plugins.loader import load_plugins
from swarmctl.plugins.testing import ConformanceError, check_metric_source
from tests.numbers_server import Numbers, numbers
from tests.shells.certificates import issue, make_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 30.0


@pytest.fixture
def server() -> Iterator[Numbers]:
    with numbers() as told:
        yield told


def base(server: Numbers) -> str:
    return f"http://127.0.0.1:{server.port}"


def vector(*values: str) -> dict[str, Any]:
    result = [{"metric": {"i": str(at)}, "value": [1.5, one]} for at, one in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.mark.parametrize(
    ("document", "pointer", "values"),
    [
        (7, "", (7.0,)),
        ({"pending": 12}, "/pending", (12.0,)),
        ({"a": {"b/c": [{"n~": "3.5"}]}}, "/a/b~1c/0/n~0", (3.5,)),
        ({"all": [1, 2, 3.5]}, "/all", (1.0, 2.0, 3.5)),
        ({"a b": 4}, "/a%20b", (4.0,)),
    ],
)
async def test_a_pointer_names_a_number(
    server: Numbers, document: object, pointer: str, values: tuple[float, ...]
) -> None:
    """JSON pointers (RFC 6901) reach into objects and lists; a list of numbers is many values."""
    server.document = document
    assert await JsonSource().read(f"{base(server)}/x?q=1#{pointer}", "") == values
    assert server.asked == ["/x?q=1"]


@pytest.mark.parametrize(
    ("document", "pointer", "words"),
    [
        (None, "", "it answered 503 Service Unavailable"),
        (b"<html>", "", "it answered no JSON: <html>"),
        (b"[" * 200_000, "", "it answered no JSON: [[["),
        (b'{"a": ' + b"1" * 400 + b"}", "/a", "/a is no number"),
        ({"a": [1]}, "/a/\N{SUPERSCRIPT TWO}", "nothing at /a/"),
        (b'{"a": ' + b"1" * (2 << 20) + b"}", "/a", "larger than a megabyte"),
        ({"a": 1}, "/b", "nothing at /b"),
        ({"a": [1]}, "/a/1", "nothing at /a/1"),
        ({"a": "many"}, "/a", "/a is no number"),
        ({"a": True}, "/a", "/a is no number"),
        ({"a": {}}, "/a", "/a is no number"),
        ({"a": []}, "/a", "/a has no value"),
        ({"a": 1}, "a", "'a' is no JSON pointer"),
        (b'{"a": NaN}', "/a", "/a has no value"),
    ],
)
async def test_what_is_no_number_is_said(
    server: Numbers, document: object, pointer: str, words: str
) -> None:
    """A source that cannot give a value says why, and never makes one up."""
    server.document = document
    with pytest.raises(MetricUnavailable) as caught:
        await JsonSource().read(f"{base(server)}/#{pointer}", "")
    assert words in str(caught.value)


async def test_a_prometheus_query(server: Numbers) -> None:
    """A vector gives a value for each series, a scalar one; the query needs no encoding."""
    source = PrometheusSource()
    server.document = vector("1.5", "2")
    query = 'sum(rate(x{a="b"}[1m])) by (i) > 0 & #'
    assert await source.read(f"{base(server)}?query={query}", "") == (1.5, 2.0)
    assert server.asked[0].startswith("/api/v1/query?query=sum%28rate%28x%7Ba%3D%22b%22%7D%5B1m")
    assert server.asked[0].endswith("%26+%23")
    server.document = {"status": "success", "data": {"resultType": "scalar", "result": [1, "9"]}}
    assert await source.read(f"{base(server)}/prom/?timeout=3s&query=up", "") == (9.0,)
    assert server.asked[1] == "/prom/api/v1/query?timeout=3s&query=up"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"status": "error", "error": "parse error"}, "parse error"),
        (vector(), "the query has no value"),
        (vector("NaN"), "the query has no value"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "gives a matrix"),
        ({"status": "success", "data": {"resultType": "vector", "result": [{}]}}, "it answered"),
        ({"status": "success"}, "gives a None"),
        (
            {"status": "success", "data": {"resultType": "scalar", "result": [1, 10**400]}},
            "it answered",
        ),
        ([], "it answered: []"),
    ],
)
async def test_what_prometheus_cannot_answer_is_said(
    server: Numbers, document: object, words: str
) -> None:
    """Errors, empty vectors and ranges are no values."""
    server.document = document
    with pytest.raises(MetricUnavailable) as caught:
        await PrometheusSource().read(f"{base(server)}?query=up", "")
    assert words in str(caught.value)


def test_an_address_without_a_query_is_refused() -> None:
    """There is nothing to ask then."""
    with pytest.raises(MetricUnavailable, match=r"no query=\.\.\."):
        query_address("http://prom:9090/")


def test_what_a_secret_holds_becomes_a_header() -> None:
    """A pair is Basic, a whole header stays, anything else is a bearer token."""
    assert authorization("me:pass word") == "Basic bWU6cGFzcyB3b3Jk"
    assert authorization("Bearer abc") == "Bearer abc"
    assert authorization("basic YTpi") == "basic YTpi"
    assert authorization("tokén") == "Bearer tokén"


async def test_credentials_go_to_the_address_of_the_label_alone(server: Numbers) -> None:
    """A redirection is not followed: it could carry the secret to anybody."""
    with numbers() as other:
        server.location = f"http://127.0.0.1:{other.port}/"
        with pytest.raises(MetricUnavailable, match="it answered 302"):
            await JsonSource().read(f"{base(server)}/#/pending", "hunter2")
        assert server.credentials == ["Bearer hunter2"]
        assert other.asked == []


async def test_over_tls_a_source_has_to_prove_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a certificate that the host trusts; nobody else is told the secret, nor listened to."""
    root = make_root()
    leaf = issue(root, "localhost")
    (tmp_path / "leaf.pem").write_text(leaf.pem + leaf.key_pem)
    (tmp_path / "root.pem").write_text(root.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem")
    with numbers(context) as told:
        address = f"https://localhost:{told.port}/#/pending"
        with pytest.raises(MetricUnavailable, match=r"cannot be reached: .*CERTIFICATE_VERIFY"):
            await JsonSource().read(address, "hunter2")
        assert told.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
        assert await JsonSource().read(address, "hunter2") == (10.0,)
        assert told.credentials == ["Bearer hunter2"]


async def test_a_source_that_never_ends_keeps_no_other_waiting(server: Numbers) -> None:
    """Who gives up on an answer that comes byte by byte gets the thread back that waited for it."""
    source = JsonSource()
    server.drips = True
    async with trio.open_nursery() as nursery:
        for _ in range(THREADS):
            nursery.start_soon(source.read, f"{base(server)}/", "")
        with trio.fail_after(WAIT_S):
            while len(server.asked) < THREADS:  # noqa: ASYNC110 - a thread counts them
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    server.drips = False
    with trio.fail_after(5):
        assert await source.read(f"{base(server)}/#/pending", "") == (10.0,)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("a\nX-Other: b", "the secret has more than one line"),
        ("12\N{EURO SIGN}", "the secret has letters that no header can have"),
    ],
)
async def test_a_secret_that_no_header_can_hold_is_refused(
    server: Numbers, secret: str, words: str
) -> None:
    """Nothing of it is repeated in the error."""
    with pytest.raises(MetricUnavailable) as caught:
        await JsonSource().read(f"{base(server)}/", secret)
    assert str(caught.value) == words


async def test_the_built_in_sources_conform(server: Numbers) -> None:
    """They keep the laws that a stranger's source has to keep."""
    server.document = 5
    await check_metric_source(
        JsonSource(), right=f"{base(server)}/", wrong=f"{base(server)}/#/nothing"
    )
    server.document = vector("3")
    await check_metric_source(
        PrometheusSource(),
        right=f"{base(server)}?query=up",
        wrong="http://127.0.0.1:1?query=up",
    )


async def test_a_source_that_makes_values_up_is_told() -> None:
    """The check names the law that is broken."""

    class Liar:
        async def read(self, url: str, credentials: str) -> tuple[float, ...]:
            return (0.0,)

    class Chatty:
        async def read(self, url: str, credentials: str) -> tuple[float, ...]:
            if url == "right":
                return (1.0,)
            raise MetricUnavailable(f"{credentials} was refused")

    with pytest.raises(ConformanceError, match=r"a wrong address gave \(0.0,\)"):
        await check_metric_source(Liar(), right="right", wrong="wrong")
    with pytest.raises(ConformanceError, match="credentials are in an error's text"):
        await check_metric_source(Chatty(), right="right", wrong="wrong")


def test_sources_come_through_the_hook() -> None:
    """The loader makes them by name; a name that nobody has is None."""
    plugins = load_plugins(candidates=())
    assert isinstance(plugins.metric_source("json", MetricSettings()), JsonSource)
    assert isinstance(plugins.metric_source("prometheus", MetricSettings()), PrometheusSource)
    assert plugins.metric_source("carbon", MetricSettings()) is None
