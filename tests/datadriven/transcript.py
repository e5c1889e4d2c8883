"""Transcripts: what was said to the code, and what it answered, in one readable file.

    # a comment
    command positional name=value list=(a,b)
    optional input lines
    ----
    expected output, up to an empty line

Output that contains empty lines stands between doubled separators (``----`` twice, before and
after). `run` compares an answer line by line; `rewrite` puts the answers into the file, for our own
transcripts after a change that was meant (``pytest --rewrite``), to be reviewed as a diff.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SEPARATOR = "----"
_ARGUMENT = re.compile(r"([^\s=]+)=\(([^)]*)\)|([^\s=]+)=(\S*)|(\S+)")


@dataclass(frozen=True)
class Directive:
    """One command with its arguments, input and expected output.

    ``positional`` holds the bare words, ``named`` the values of ``name=...``, always as lists.
    """

    line: int
    source: str
    command: str
    positional: list[str]
    named: dict[str, list[str]]
    input: str
    expected: str

    def one(self, name: str, default: str = "") -> str:
        """The single value of argument ``name``."""
        values = self.named.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        return self.one(name) == "true"

    def numbers(self) -> list[int]:
        """The positional arguments that are numbers."""
        return [int(word) for word in self.positional if word.isdigit()]


Handler = Callable[[Directive], str]


@dataclass
class Difference(Exception):
    """Where an answer left the transcript."""

    path: Path
    directive: Directive
    answer: list[str]
    expected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        at = next(
            (
                number
                for number, (got, want) in enumerate(zip(self.answer, self.expected, strict=False))
                if got != want
            ),
            min(len(self.answer), len(self.expected)),
        )
        want = self.expected[at] if at < len(self.expected) else "(end)"
        got = self.answer[at] if at < len(self.answer) else "(end)"
        return (
            f"{self.path.name}:{self.directive.line}: {self.directive.command}, "
            f"answer line {at + 1}\n  expected {want!r}\n  got      {got!r}"
        )


def parse(text: str) -> Iterator[Directive]:
    """The directives of a transcript, in order."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        start = at
        command_line = lines[at]
        while command_line.rstrip().endswith("\\"):
            at += 1
            command_line = command_line.rstrip()[:-1] + lines[at]
        at += 1
        body = at
        while at < len(lines) and lines[at] != _SEPARATOR:
            at += 1
        given = "\n".join(lines[body:at])
        source = "\n".join(lines[start:at])
        expected, at = _expected(lines, at + 1)
        yield _directive(start + 1, source, command_line, given, expected)


def _expected(lines: list[str], at: int) -> tuple[str, int]:
    """The output that begins at line ``at``, and the line after it."""
    start = at
    if at < len(lines) and lines[at] == _SEPARATOR:
        start = at = at + 1
        while lines[at : at + 2] != [_SEPARATOR, _SEPARATOR]:
            if at >= len(lines):
                raise ValueError(f"line {start}: output between doubled separators never ends")
            at += 1
        return "\n".join(lines[start:at]), at + 2
    while at < len(lines) and lines[at]:
        at += 1
    return "\n".join(lines[start:at]), at


def _directive(line: int, source: str, command_line: str, given: str, expected: str) -> Directive:
    command, _, rest = command_line.strip().partition(" ")
    positional: list[str] = []
    named: dict[str, list[str]] = {}
    for match in _ARGUMENT.finditer(rest):
        if match.group(1):
            named[match.group(1)] = [word for word in re.split(r"[,\s]+", match.group(2)) if word]
        elif match.group(3):
            named[match.group(3)] = [match.group(4)]
        else:
            positional.append(match.group(5))
    return Directive(line, source, command, positional, named, given, expected)


def essence(text: str) -> list[str]:
    """The lines that count: no trailing blanks, no empty lines, no ``ok`` for "no output"."""
    lines = (line.rstrip() for line in text.split("\n"))
    return [line for line in lines if line and line.strip() != "ok"]


def run(path: Path, handler: Handler) -> int:
    """Replay a transcript.

    Returns:
        How many directives it had.

    Raises:
        Difference: an answer is not the expected one; what follows is not run.
    """
    count = 0
    for directive in parse(path.read_text()):
        answer, expected = essence(handler(directive)), essence(directive.expected)
        if answer != expected:
            raise Difference(path, directive, answer, expected)
        count += 1
    return count


def rewrite(path: Path, handler: Handler) -> None:
    """Replay a transcript of ours and write down what is answered now.

    Comments and order stay. A command without answer gets ``ok``.
    """
    text = path.read_text()
    lines = text.split("\n")
    out: list[str] = []
    at = 0
    for directive in parse(text):
        out.extend(_between(lines[at : directive.line - 1]))
        answer = handler(directive).rstrip("\n") or "ok"
        out.append(directive.source)
        if "" in answer.split("\n"):
            out.extend([_SEPARATOR, _SEPARATOR, answer, _SEPARATOR, _SEPARATOR, ""])
        else:
            out.extend([_SEPARATOR, answer, ""])
        _, at = _expected(lines, directive.line + directive.source.count("\n") + 1)
    out.extend(_between(lines[at:]))
    path.write_text("\n".join(out).rstrip("\n") + "\n")


def _between(lines: list[str]) -> list[str]:
    """Comments between directives; the empty lines there are ours to set."""
    kept = "\n".join(lines).strip("\n")
    return [*kept.split("\n")] if kept else []
