"""The part of Go's templates that people write after ``--format`` and into configs.

Understood: fields (``.Spec.Name``), variables, strings and numbers, pipelines and parentheses;
``if``/``else if``, ``range`` (with one or two variables), ``with``, ``else``, ``end``; trimming
(``{{-``, ``-}}``), comments; the functions of :data:`FUNCTIONS` and those that the caller adds.
Everything else is an error that says so: a template is never half understood.

Values are objects of the model, whose types say which fields there are, or plain JSON, where an
absent field prints as ``<no value>`` and is false in a condition.

Pure: template and data in, text out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, final

from .gofunctions import (
    FUNCTIONS,
    MISSING,
    Function,
    TemplateError,
    call_function,
    field,
    go_text,
    is_true,
)

DEPTH_MAX = 50
ACTION_CHARS_MAX = 4096


@final
class Template:
    """A parsed template.

    Args:
        functions: what it may call beyond :data:`FUNCTIONS`, by name.

    Raises:
        TemplateError: it cannot be understood.
    """

    def __init__(self, text: str, functions: Mapping[str, Function] | None = None) -> None:
        self._nodes = _Parser(text, {**FUNCTIONS, **(functions or {})}).parse()

    def render(self, data: Any) -> str:
        """Return the template filled in.

        Raises:
            TemplateError: a function was called with what it does not take.
        """
        out: list[str] = []
        _Run(data, out).walk(self._nodes, data, {"$": data})
        return "".join(out)


# --- what a template is made of ------------------------------------------------------------------


class Literal(NamedTuple):
    value: Any


class Field(NamedTuple):
    """A path from the dot, a variable, or an expression in parentheses."""

    root: Any  # None for the dot, a name that begins with "$", or a Pipe
    path: tuple[str, ...]


class Call(NamedTuple):
    name: str
    function: Function
    arguments: tuple[Any, ...]


class Pipe(NamedTuple):
    """Commands from left to right; each result is the next one's last argument."""

    commands: tuple[Any, ...]


class Text(NamedTuple):
    text: str


class Output(NamedTuple):
    pipe: Pipe


class Assign(NamedTuple):
    name: str
    pipe: Pipe


class If(NamedTuple):
    pipe: Pipe
    then: tuple[Any, ...]
    other: tuple[Any, ...]


class With(NamedTuple):
    pipe: Pipe
    then: tuple[Any, ...]
    other: tuple[Any, ...]


class Range(NamedTuple):
    names: tuple[str, ...]
    pipe: Pipe
    body: tuple[Any, ...]
    other: tuple[Any, ...]


# --- reading -------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    | (?P<number>[-+]?\d{1,18}(?:\.\d{1,18})?(?![\w.]))
    | (?P<field>\.[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<mark>:=|[.|(),=])
    )""",
    re.VERBOSE,
)


class Token(NamedTuple):
    kind: str
    text: str


class _Parser:
    def __init__(self, text: str, functions: Mapping[str, Function]) -> None:
        self._pieces = list(_pieces(text))
        self._functions = functions
        self._at = 0

    def _pipe(self, tokens: list[Token]) -> Pipe:
        return _Expression(tokens, self._functions).pipe()

    def parse(self) -> tuple[Any, ...]:
        nodes, ended_by = self._block(0)
        if ended_by is not None:
            raise TemplateError(f"unexpected {{{{{ended_by[0].text}}}}}")
        return nodes

    def _block(self, depth: int) -> tuple[tuple[Any, ...], list[Token] | None]:
        """Read to the end of a block; return its nodes and the action that ended it."""
        if depth > DEPTH_MAX:
            raise TemplateError(f"blocks are nested more than {DEPTH_MAX} deep")
        nodes: list[Any] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                nodes.append(Text(piece))
                continue
            if piece[0].kind == "word" and piece[0].text in ("end", "else"):
                return tuple(nodes), piece
            nodes.append(self._action(piece, depth))
        if depth:
            raise TemplateError("unexpected EOF: a block is not closed by {{end}}")
        return tuple(nodes), None

    def _action(self, tokens: list[Token], depth: int) -> Any:
        word = tokens[0].text if tokens[0].kind == "word" else ""
        if word in ("if", "with"):
            return self._condition(If if word == "if" else With, tokens[1:], depth)
        if word == "range":
            return self._range(tokens[1:], depth)
        if word in ("define", "template", "block", "break", "continue"):
            raise TemplateError(f"{word!r} is not available here")
        if _is_assignment(tokens):
            return Assign(tokens[0].text, self._pipe(tokens[2:]))
        return Output(self._pipe(tokens))

    def _condition(self, kind: type[If | With], tokens: list[Token], depth: int) -> Any:
        pipe = self._pipe(tokens)
        then, ended_by = self._block(depth + 1)
        return kind(pipe, then, self._otherwise(ended_by, depth))

    def _range(self, tokens: list[Token], depth: int) -> Range:
        names: tuple[str, ...] = ()
        marks = [at for at, token in enumerate(tokens) if token == Token("mark", ":=")]
        if marks:
            names = tuple(token.text for token in tokens[: marks[0]] if token.kind == "variable")
            tokens = tokens[marks[0] + 1 :]
            if not 1 <= len(names) <= 2:
                raise TemplateError("range takes one or two variables")
        pipe = self._pipe(tokens)
        body, ended_by = self._block(depth + 1)
        return Range(names, pipe, body, self._otherwise(ended_by, depth))

    def _otherwise(self, ended_by: list[Token] | None, depth: int) -> tuple[Any, ...]:
        """Read the ``else`` branches, if the block did not end."""
        assert ended_by is not None  # _block raises at the end of the text
        if ended_by[0].text == "end":
            return ()
        if len(ended_by) > 1:
            if ended_by[1].text not in ("if", "with"):
                raise TemplateError(f"unexpected {ended_by[1].text!r} after else")
            kind: Any = If if ended_by[1].text == "if" else With
            return (self._condition(kind, ended_by[2:], depth + 1),)
        nodes, last = self._block(depth + 1)
        if last is None or last[0].text != "end":
            raise TemplateError("expected {{end}} after {{else}}")
        return nodes


def _is_assignment(tokens: list[Token]) -> bool:
    return (
        len(tokens) > 2
        and tokens[0].kind == "variable"
        and tokens[1].kind == "mark"
        and tokens[1].text in (":=", "=")
    )


def _pieces(text: str) -> Iterator[str | list[Token]]:
    """Yield text and actions in turn, trimmed where an action says so."""
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        before = text[at:] if start < 0 else text[at:start]
        before = before.lstrip() if trim else before
        if start < 0:
            if before:
                yield before
            return
        end = text.find("}}", start)
        if end < 0:
            raise TemplateError("unclosed action")
        if end - start > ACTION_CHARS_MAX:
            raise TemplateError(f"an action has more than {ACTION_CHARS_MAX} letters")
        inner = text[start + 2 : end]
        if inner[:1] == "-" and inner[1:2].isspace():
            before, inner = before.rstrip(), inner[1:]
        at, trim = end + 2, inner[-1:] == "-" and inner[-2:-1].isspace()
        if before:
            yield before
        inner = inner[: -1 if trim else None].strip()
        if inner.startswith("/*") and inner.endswith("*/"):
            continue
        tokens = list(_tokens(inner))
        if not tokens:
            raise TemplateError("missing value for command")
        yield tokens


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise TemplateError(f"unexpected {text[at:].strip()[:1]!r} in {{{{{text}}}}}")
        at = match.end()
        assert match.lastgroup is not None
        yield Token(match.lastgroup, match[match.lastgroup])


class _Expression:
    """Reads the tokens of one action as a pipeline."""

    def __init__(self, tokens: list[Token], functions: Mapping[str, Function]) -> None:
        self._tokens = tokens
        self._functions = functions
        self._at = 0
        self._depth = 0

    def pipe(self) -> Pipe:
        found = self._pipe()
        if self._at < len(self._tokens):
            raise TemplateError(f"unexpected {self._tokens[self._at].text!r}")
        return found

    def _pipe(self) -> Pipe:
        commands = [self._command()]
        while self._take("|"):
            commands.append(self._command())
            if not isinstance(commands[-1], Call):
                raise TemplateError("only a function can follow '|'")
        return Pipe(tuple(commands))

    def _command(self) -> Any:
        operands = []
        while self._at < len(self._tokens) and self._tokens[self._at] not in _ENDS:
            operands.append(self._operand())
        if not operands:
            raise TemplateError("missing value for command")
        first, *rest = operands
        if isinstance(first, Call):
            return first._replace(arguments=tuple(rest))
        if rest:
            raise TemplateError("can't give argument to a value; only functions take arguments")
        return first

    def _operand(self) -> Any:
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "string":
            return Literal(_unquoted(token.text))
        if token.kind == "number":
            return Literal(float(token.text) if "." in token.text else int(token.text))
        if token.kind == "field":
            return Field(None, tuple(token.text[1:].split(".")))
        if token.kind == "variable":
            name, *path = token.text.split(".")
            return Field(name, tuple(path))
        if token.kind == "word":
            return _word(token.text, self._functions)
        if token.text == ".":
            return Field(None, ())
        if token.text == "(":
            return self._parenthesis()
        raise TemplateError(f"unexpected {token.text!r}")

    def _parenthesis(self) -> Field:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise TemplateError(f"parentheses are nested more than {DEPTH_MAX} deep")
        inner = self._pipe()
        self._depth -= 1
        if not self._take(")"):
            raise TemplateError("unclosed left paren")
        path: tuple[str, ...] = ()
        if self._at < len(self._tokens) and self._tokens[self._at].kind == "field":
            path = tuple(self._tokens[self._at].text[1:].split("."))
            self._at += 1
        return Field(inner, path)

    def _take(self, mark: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == Token("mark", mark):
            self._at += 1
            return True
        return False


_ENDS = (Token("mark", "|"), Token("mark", ")"))


def _word(word: str, functions: Mapping[str, Function]) -> Any:
    if word in ("true", "false"):
        return Literal(word == "true")
    if word == "nil":
        return Literal(None)
    if word not in functions:
        raise TemplateError(
            f"function {word!r} not defined; known are {', '.join(sorted(functions))}"
        )
    return Call(word, functions[word], ())


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]

    def escape(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise TemplateError(f"unknown escape {match[0]} in {text}")
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.)", escape, text[1:-1])


# --- filling in ----------------------------------------------------------------------------------


class _Run:
    def __init__(self, data: Any, out: list[str]) -> None:
        self._data = data
        self._out = out

    def walk(self, nodes: tuple[Any, ...], dot: Any, names: dict[str, Any]) -> None:
        names = dict(names)
        for node in nodes:
            if isinstance(node, Text):
                self._out.append(node.text)
            elif isinstance(node, Output):
                self._out.append(go_text(self._value(node.pipe, dot, names)))
            elif isinstance(node, Assign):
                names[node.name] = self._value(node.pipe, dot, names)
            elif isinstance(node, If):
                found = is_true(self._value(node.pipe, dot, names))
                self.walk(node.then if found else node.other, dot, names)
            elif isinstance(node, With):
                value = self._value(node.pipe, dot, names)
                if is_true(value):
                    self.walk(node.then, value, names)
                else:
                    self.walk(node.other, dot, names)
            else:
                self._repeat(node, dot, names)

    def _repeat(self, node: Range, dot: Any, names: dict[str, Any]) -> None:
        value = self._value(node.pipe, dot, names)
        pairs = list(_items(value))
        for key, item in pairs:
            inner = dict(names)
            if len(node.names) == 1:
                inner[node.names[0]] = item
            elif node.names:
                inner[node.names[0]], inner[node.names[1]] = key, item
            self.walk(node.body, item, inner)
        if not pairs:
            self.walk(node.other, dot, names)

    def _value(self, pipe: Pipe, dot: Any, names: dict[str, Any]) -> Any:
        value: Any = None
        for at, part in enumerate(pipe.commands):
            if isinstance(part, Call):
                arguments = [self._operand(one, dot, names) for one in part.arguments]
                if at:
                    arguments.append(value)
                value = call_function(part.name, part.function, arguments)
            else:
                value = self._operand(part, dot, names)
        return value

    def _operand(self, operand: Any, dot: Any, names: dict[str, Any]) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Call):
            arguments = [self._operand(one, dot, names) for one in operand.arguments]
            return call_function(operand.name, operand.function, arguments)
        assert isinstance(operand, Field)
        if operand.root is None:
            value = dot
        elif isinstance(operand.root, Pipe):
            value = self._value(operand.root, dot, names)
        elif operand.root in names:
            value = names[operand.root]
        else:
            raise TemplateError(f"undefined variable {operand.root!r}")
        for name in operand.path:
            value = field(value, name)
        return value


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from sorted(value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif value is not None and value is not MISSING:
        raise TemplateError(f"range can't iterate over {go_text(value)}")
