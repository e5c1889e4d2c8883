"""Image references (core/model/reference.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmctl.core.model.reference import parse_reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "familiar", "tag", "digest"),
    [
        ("nginx", "docker.io/library/nginx", "nginx", "", ""),
        ("nginx:1.27", "docker.io/library/nginx", "nginx", "1.27", ""),
        ("library/nginx", "docker.io/library/nginx", "nginx", "", ""),
        ("docker.io/nginx", "docker.io/library/nginx", "nginx", "", ""),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b", "", ""),
        ("a/b/c", "docker.io/a/b/c", "a/b/c", "", ""),
        ("host", "docker.io/library/host", "host", "", ""),
        ("localhost/a", "localhost/a", "localhost/a", "", ""),
        ("localhost:5000/a:1", "localhost:5000/a", "localhost:5000/a", "1", ""),
        ("reg.example:5000/x/y:1", "reg.example:5000/x/y", "reg.example:5000/x/y", "1", ""),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a", "", ""),
        (f"nginx@{DIGEST}", "docker.io/library/nginx", "nginx", "", DIGEST),
        (f"nginx:1@{DIGEST}", "docker.io/library/nginx", "nginx", "1", DIGEST),
        ("a__b/c.d-e--f", "docker.io/a__b/c.d-e--f", "a__b/c.d-e--f", "", ""),
        ("UPPER.example/a", "UPPER.example/a", "UPPER.example/a", "", ""),
        ("nginx:" + "t" * 128, "docker.io/library/nginx", "nginx", "t" * 128, ""),
    ],
)
def test_good_references(text: str, name: str, familiar: str, tag: str, digest: str) -> None:
    """A reference gets its registry and ``library/``, and is shown without them."""
    reference = parse_reference(text)
    assert (reference.name, reference.familiar) == (name, familiar)
    assert (reference.tag, reference.digest) == (tag, digest)
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " nginx",
        "Nginx",
        "nginx:",
        "nginx:a b",
        "nginx:" + "t" * 129,
        "nginx@sha256:abc",
        "nginx@sha256:" + "A" * 64,
        "nginx@sha256:" + "a" * 63,
        "a//b",
        "a/",
        "/a",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "f" * 64,
        "a" * 250,
        "x/é",
        "nginx\n",
        "http://nginx",
    ],
)
def test_bad_references(text: str) -> None:
    """What is no reference is refused in Docker's words, quoted."""
    with pytest.raises(ValueError, match=r'^".*" is not a valid repository/tag$'):
        parse_reference(text)


def test_the_default_tag_fills_only_a_gap() -> None:
    """``latest`` is what a reference without tag and digest means."""
    assert str(parse_reference("nginx").with_default_tag()) == "nginx:latest"
    assert str(parse_reference("nginx:1").with_default_tag()) == "nginx:1"
    assert str(parse_reference(f"nginx@{DIGEST}").with_default_tag()) == f"nginx@{DIGEST}"


@given(st.text(alphabet="aZ0./:@_-[]é ", max_size=20))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    """Any text is either refused or survives being printed and parsed again."""
    try:
        reference = parse_reference(text)
    except ValueError:
        return
    assert parse_reference(str(reference)) == reference
