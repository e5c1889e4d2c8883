"""Flags are read as the docker CLI reads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmctl.cli.flags import (
    BOOL,
    BYTES,
    COMMAND,
    DECIMAL,
    DURATION,
    FLOAT,
    INT,
    LIST,
    POSITIVE_DURATION,
    TEXT,
    UINT,
    Flag,
    FlagError,
    Kind,
    read_arguments,
)

FLAGS = (
    Flag("detach", BOOL, "", short="d"),
    Flag("quiet", BOOL, "", short="q"),
    Flag("publish", LIST, "", short="p"),
    Flag("name", TEXT, ""),
    Flag("replicas", UINT, ""),
)


@pytest.mark.parametrize(
    ("words", "values", "arguments"),
    [
        ("", {}, ()),
        ("--name x a", {"name": "x"}, ("a",)),
        ("--name=x --name=y", {"name": "y"}, ()),
        ("--name=", {"name": ""}, ()),
        ("--name --detach", {"name": "--detach"}, ()),
        ("--detach x", {"detach": True}, ("x",)),
        ("--detach=false", {"detach": False}, ()),
        ("-d=0", {"detach": False}, ()),
        ("-dq x", {"detach": True, "quiet": True}, ("x",)),
        ("-p 80", {"publish": ["80"]}, ()),
        ("-p80:80 -p=81", {"publish": ["80:80", "81"]}, ()),
        ("-dp 80", {"detach": True, "publish": ["80"]}, ()),
        ("a -d b", {"detach": True}, ("a", "b")),
        ("a -- -d", {}, ("a", "-d")),
        ("- -d", {"detach": True}, ("-",)),
    ],
)
def test_words_become_flags_and_arguments(
    words: str, values: dict[str, object], arguments: tuple[str, ...]
) -> None:
    """Long and short flags, clusters, values with and without ``=`` and ``--`` read as in pflag."""
    found = read_arguments(words.split(), FLAGS)
    assert {name: found.value(name) for name in found.names()} == values
    assert found.arguments == arguments


def test_the_first_argument_ends_the_flags_where_a_command_follows() -> None:
    """``create IMAGE COMMAND --flag`` leaves everything after the image to the command."""
    found = read_arguments(["-d", "image", "sh", "-c", "-q"], FLAGS, interspersed=False)
    assert found.arguments == ("image", "sh", "-c", "-q")
    assert "quiet" not in found


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--bogus", "unknown flag: --bogus"),
        ("--replica 2", "unknown flag: --replica; did you mean --replicas?"),
        ("-Z", "unknown shorthand flag: 'Z' in -Z"),
        ("-dZ", "unknown shorthand flag: 'Z' in -dZ"),
        ("--name", "flag needs an argument: --name"),
        ("-p", "flag needs an argument: 'p' in -p"),
        (
            "--replicas x",
            (
                'invalid argument "x" for "--replicas" flag: strconv.ParseUint: parsing "x": '
                "invalid syntax"
            ),
        ),
        (
            "--detach=maybe",
            (
                'invalid argument "maybe" for "-d, --detach" flag: strconv.ParseBool: parsing '
                '"maybe": invalid syntax'
            ),
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_dockers_words(words: str, text: str) -> None:
    """An unknown flag, a missing and a wrong value give the docker CLI's texts."""
    with pytest.raises(FlagError) as caught:
        read_arguments(words.split(), FLAGS)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (BYTES, "512m", 512 * 2**20),
        (BYTES, "1 k", 1024),
        (BYTES, "1kb", 1024),
        (BYTES, "1KiB", 1024),
        (BYTES, "1.5m", 3 * 2**19),
        (BYTES, ".5k", 512),
        (BYTES, "5.", 5),
        (BYTES, "7b", 7),
        (DECIMAL, ".5", 500_000_000),
        (DECIMAL, "1/2", 500_000_000),
        (DECIMAL, "1e-3", 1_000_000),
        (DECIMAL, "2", 2_000_000_000),
        (DURATION, "1h2m3.5s", 3_723_500_000_000),
        (DURATION, "-1s", -1_000_000_000),
        (COMMAND, "sh -c 'a b'", ["sh", "-c", "a b"]),
        (COMMAND, "", []),
        (INT, "-5", -5),
        (UINT, "18446744073709551615", 2**64 - 1),
        (FLOAT, "0.25", 0.25),
    ],
)
def test_values_are_read(kind: Kind, text: str, value: object) -> None:
    """Sizes in powers of 1024, CPUs in 1e-9, durations in nanoseconds, numbers in Go's widths."""
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (BYTES, "x", "invalid size: 'x'"),
        (BYTES, "", "invalid size: ''"),
        (BYTES, "-1", "invalid size: '-1'"),
        (BYTES, "1kk", "invalid suffix: 'kk'"),
        (BYTES, "1x", "invalid suffix: 'x'"),
        (DECIMAL, "x", "failed to parse x as a rational number"),
        (DECIMAL, "1/0", "failed to parse 1/0 as a rational number"),
        (DECIMAL, "0.0000000001", "value is too precise"),
        (DURATION, "x", 'time: invalid duration "x"'),
        (POSITIVE_DURATION, "-1s", "duration cannot be negative"),
        (UINT, "-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        (
            UINT,
            "99999999999999999999",
            'strconv.ParseUint: parsing "99999999999999999999": value out of range',
        ),
        (INT, "1.5", 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        (FLOAT, "x", 'strconv.ParseFloat: parsing "x": invalid syntax'),
        (FLOAT, "nan", 'strconv.ParseFloat: parsing "nan": value out of range'),
        (COMMAND, 'a "b', "EOF found when expecting closing quote"),
    ],
)
def test_wrong_values_are_refused_in_gos_words(kind: Kind, text: str, words: str) -> None:
    """What scripts match on in Docker's errors is the same here."""
    with pytest.raises(ValueError) as caught:
        kind.parse(text)
    assert str(caught.value) == words


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(["-d", "--name", "--", "-p", "--replicas=3"]), st.text())),
    st.booleans(),
)
def test_any_words_are_read_or_refused(words: list[str], interspersed: bool) -> None:
    """Whatever is typed gives flags and arguments or a FlagError, and no argument is lost."""
    try:
        found = read_arguments(words, FLAGS, interspersed=interspersed)
    except FlagError:
        return
    assert set(found.arguments) <= set(words)
