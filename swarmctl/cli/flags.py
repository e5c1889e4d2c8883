"""Flags as the docker CLI reads them, so that fingers and scripts keep working.

Docker parses with pflag, whose habits differ from click's: a boolean may be given a value
(``--detach=false``), a short flag may carry its value (``-p8080:80``, ``-dq``), the next word is
always a value where one is due, and a command may stop reading flags at its first argument. This
module is that reader. It decides what was given; what it means is the command's business.

Pure: text in, values out; a wrong value's words come from its kind.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_UINT64 = 2**64 - 1
MAX_INT64 = 2**63 - 1


class FlagError(Exception):
    """The words cannot be read as flags; the text is pflag's, with the nearest flag where known."""


class Kind(NamedTuple):
    """What a flag takes.

    Attributes:
        word: what the help shows after the flag; "" for a boolean.
        parse: text to value; raises ValueError with Go's words.
        many: may be given again; every value counts.
    """

    word: str
    parse: Callable[[str], Any]
    many: bool = False


class Flag(NamedTuple):
    """One flag of a command, without its dashes.

    Attributes:
        default: as the help shows it; "" for none worth showing.
        hidden: understood, but left out of the help.
    """

    name: str
    kind: Kind
    help: str
    short: str = ""
    default: str = ""
    hidden: bool = False

    @property
    def label(self) -> str:
        """The flag as messages write it: ``-p, --publish``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


@final
class Given:
    """The flags that were given, by name, and the plain arguments."""

    def __init__(self, values: dict[str, Any], arguments: tuple[str, ...]) -> None:
        self._values = values
        self.arguments = arguments

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def any_of(self, *names: str) -> bool:
        """Was at least one of these given?"""
        return any(name in self._values for name in names)

    def names(self) -> tuple[str, ...]:
        """The flags that were given, in the order of their first time."""
        return tuple(self._values)

    def text(self, name: str, default: str = "") -> str:
        """Return a flag's text, or ``default`` when it was not given."""
        value: str = self._values.get(name, default)
        return value

    def number(self, name: str, default: int = 0) -> int:
        """Return a flag's whole number (a size in bytes, a duration in ns), or ``default``."""
        value: int = self._values.get(name, default)
        return value

    def is_set(self, name: str) -> bool:
        """Return a boolean flag; False when it was not given."""
        return bool(self._values.get(name, False))

    def value(self, name: str) -> Any:
        """Return a flag's value, or None when it was not given."""
        return self._values.get(name)

    def each(self, name: str) -> list[Any]:
        """Return every value of a flag that may be given again."""
        return list(self._values.get(name, ()))


def read_arguments(
    words: Sequence[str], flags: Iterable[Flag], *, interspersed: bool = True
) -> Given:
    """Read a command's words.

    Args:
        interspersed: flags may follow arguments; else the first argument ends them, as for
            ``service create IMAGE COMMAND...``.

    Raises:
        FlagError: an unknown flag, a missing value, or one that its kind refuses.
    """
    return _Reader(list(words), tuple(flags), interspersed=interspersed).read()


class _Reader:
    def __init__(self, words: list[str], flags: tuple[Flag, ...], *, interspersed: bool) -> None:
        self._words = words
        self._flags = flags
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._interspersed = interspersed
        self._values: dict[str, Any] = {}
        self._arguments: list[str] = []

    def read(self) -> Given:
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                break
            if word.startswith("--"):
                self._read_long(word[2:])
            elif word.startswith("-") and word != "-":
                self._read_short(word[1:])
            else:
                self._arguments.append(word)
                if not self._interspersed:
                    break
        return Given(self._values, (*self._arguments, *self._words))

    def _read_long(self, word: str) -> None:
        name, has_value, value = word.partition("=")
        flag = self._long.get(name)
        if flag is None:
            raise FlagError(f"unknown flag: --{name}{_nearest(name, self._flags)}")
        if has_value:
            self._set(flag, value)
        elif not flag.kind.word:
            self._set(flag, "true")
        elif self._words:
            self._set(flag, self._words.pop(0))
        else:
            raise FlagError(f"flag needs an argument: --{name}")

    def _read_short(self, cluster: str) -> None:
        rest = cluster
        while rest:
            letter, rest = rest[0], rest[1:]
            flag = self._short.get(letter)
            if flag is None:
                raise FlagError(f"unknown shorthand flag: {letter!r} in -{cluster}")
            if len(rest) > 1 and rest[0] == "=":
                return self._set(flag, rest[1:])
            if not flag.kind.word:
                self._set(flag, "true")
            elif rest:
                return self._set(flag, rest)
            elif self._words:
                return self._set(flag, self._words.pop(0))
            else:
                raise FlagError(f"flag needs an argument: {letter!r} in -{cluster}")
        return None

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = flag.kind.parse(text)
        except ValueError as error:
            raise FlagError(
                f"invalid argument {quoted(text)} for {quoted(flag.label)} flag: {error}"
            ) from None
        if flag.kind.many:
            self._values.setdefault(flag.name, []).append(value)
        else:
            self._values[flag.name] = value


def _nearest(name: str, flags: tuple[Flag, ...]) -> str:
    import difflib  # as other imports in this file: most commands never need it

    near = difflib.get_close_matches(name, [flag.name for flag in flags if not flag.hidden], n=1)
    return f"; did you mean --{near[0]}?" if near else ""


def quoted(text: str) -> str:
    """Return ``text`` in double quotes, near enough to Go's ``%q``."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


# --- kinds ---------------------------------------------------------------------------------------

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def parse_bool(text: str) -> bool:
    """Return a boolean as Go's strconv reads it.

    Raises:
        ValueError: in Go's words.
    """
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def parse_uint(text: str) -> int:
    """Return an unsigned number of 64 bits.

    Raises:
        ValueError: in Go's words.
    """
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"strconv.ParseUint: parsing {quoted(text)}: invalid syntax")
    return _bounded("ParseUint", text, 0, MAX_UINT64)


def parse_int(text: str) -> int:
    """Return a signed number of 64 bits.

    Raises:
        ValueError: in Go's words.
    """
    if not _DIGITS.fullmatch(text[1:] if text[:1] in ("-", "+") else text):
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    return _bounded("ParseInt", text, -MAX_INT64 - 1, MAX_INT64)


def _bounded(function: str, text: str, least: int, most: int) -> int:
    if len(text) > 20 or not least <= int(text) <= most:
        raise ValueError(f"strconv.{function}: parsing {quoted(text)}: value out of range")
    return int(text)


def parse_float(text: str) -> float:
    """Return a finite number.

    Raises:
        ValueError: in Go's words.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: invalid syntax") from None
    if value != value or abs(value) == float("inf"):  # JSON has neither
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: value out of range")
    return value


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration such as ``1m30s``.

    Raises:
        ValueError: in Go's words.
    """
    from swarmctl.core.model.duration import parse_duration as parse

    return parse(text)


def parse_positive_duration(text: str) -> int:
    """Return the nanoseconds of a Go duration that is not negative.

    Raises:
        ValueError: in Docker's words.
    """
    duration = parse_duration(text)
    if duration < 0:
        raise ValueError("duration cannot be negative")
    return duration


_UNITS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(?P<suffix>[^0-9. ]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``512m``; units are powers of 1024.

    Raises:
        ValueError: in Docker's words.
    """
    from fractions import Fraction

    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    suffix = match["suffix"].lower()
    unit = suffix[:1]
    if unit not in _UNITS or suffix[1:] not in ("", "b", "ib") or (unit == "b" and suffix[1:]):
        raise ValueError(f"invalid suffix: '{match['suffix']}'")
    number = match["number"].rstrip(".") if match["number"].endswith(".") else match["number"]
    return int(Fraction(f"0{number}" if number.startswith(".") else number) * 1024 ** _UNITS[unit])


def parse_cpus(text: str) -> int:
    """Return a number of CPUs, such as ``0.5``, in units of 1e-9.

    Raises:
        ValueError: in Docker's words.
    """
    from fractions import Fraction

    try:
        nanos = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nanos.denominator != 1:
        raise ValueError("value is too precise")
    return int(nanos)


def parse_command(text: str) -> list[str]:
    """Return the words of a command line.

    Raises:
        ValueError: a quote that is not closed.
    """
    import shlex

    try:
        return shlex.split(text)
    except ValueError:
        raise ValueError("EOF found when expecting closing quote") from None


def parse_setting(text: str) -> tuple[str, str]:
    """Return name and value of an option.

    Raises:
        ValueError: in Docker's words.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format for option (expected name=value)")
    return key, value


TEXT = Kind("string", str)
BOOL = Kind("", parse_bool)
UINT = Kind("uint", parse_uint)
INT = Kind("int", parse_int)
FLOAT = Kind("float", parse_float)
DURATION = Kind("duration", parse_duration)
POSITIVE_DURATION = Kind("duration", parse_positive_duration)
BYTES = Kind("bytes", parse_size)
DECIMAL = Kind("decimal", parse_cpus)
COMMAND = Kind("command", parse_command)
LIST = Kind("list", str, many=True)
MAP = Kind("map", parse_setting, many=True)
