"""A script as text and as a tree, and edits of it that leave every other byte as it is."""

from __future__ import annotations

import bisect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from vaultlayer_hf.errors import SettingsError
from vaultlayer_hf.run.insert import cst

_T = TypeVar("_T")
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Edit:
    """Characters ``start`` to ``end`` become ``text``.

    Attributes:
        why: one line for the user; edits side by side that say the same are said once.
    """

    start: int
    end: int
    text: str
    why: str


class Script:
    """A parsed script.

    Args:
        data: its bytes.
        name: its path, by which messages call it.

    Attributes:
        text: decoded, with its line ends as they are.
        newline: the line end that it uses.
        names: every identifier that occurs in it.
        imports: what each imported name stands for: ``{"Trainer": "transformers.Trainer", "np": "numpy"}``.

    Raises MissingExtraError without libcst, SettingsError where it isn't Python.
    """

    def __init__(self, data: bytes, name: str) -> None:
        metadata = cst.metadata
        try:
            self.encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
            self.text = data.decode(self.encoding)
            module = cst.parse_module(self.text)
        except (SyntaxError, UnicodeDecodeError) as error:  # of tokenize
            raise SettingsError(f"{name} can't be read as Python: {error}") from error
        except cst.ParserSyntaxError as error:
            where = f"line {error.raw_line}: {error.message}"
            raise SettingsError(f"{name} can't be read as Python: {where}") from error
        wrapper = metadata.MetadataWrapper(module, unsafe_skip_copy=True)
        self.module = wrapper.module
        self.name = name
        self.newline = module.default_newline
        self._positions = wrapper.resolve(metadata.PositionProvider)
        self._parents = wrapper.resolve(metadata.ParentNodeProvider)
        self._lines: list[int] = [0, *(match.end() for match in _LINE_END.finditer(self.text))]
        self._nodes: list[Any] = []
        self._places: dict[Any, list[int]] = {}  # by a kind: where in that list its nodes are
        # By the id of a node: its place in that list, and the one behind it.
        self._extent: dict[int, tuple[int, int]] = {}
        self._list(self.module)
        self.names = {node.value for node in self.all(cst.Name)}
        self.imports = dict(_imported(self))

    def all(self, kind: type[_T] | tuple[type[_T], ...], inside: Any = None, nested: bool = True) -> list[_T]:
        """Return the nodes of a kind in the order of the text; without ``nested``, not those of functions within."""
        at, end = self._extent[id(self.module if inside is None else inside)]
        if nested:
            if kind not in self._places:
                places = [place for place, node in enumerate(self._nodes) if isinstance(node, kind)]
                self._places[kind] = places
            places = self._places[kind]
            within_it = places[bisect.bisect_left(places, at) : bisect.bisect_left(places, end)]
            return [self._nodes[place] for place in within_it]
        found: list[_T] = []
        first = at
        while at < end:
            node = self._nodes[at]
            if isinstance(node, kind):
                found.append(node)
            within = type(node).__name__ in ("FunctionDef", "Lambda", "ClassDef")
            at = self._extent[id(node)][1] if within and at > first else at + 1
        return found

    def _list(self, node: Any) -> None:
        """List a node and all below it, in the order of the text."""
        at = len(self._nodes)
        self._nodes.append(node)
        for child in node.children:
            self._list(child)
        self._extent[id(node)] = at, len(self._nodes)

    def parent(self, node: Any) -> Any:
        """Return the node around a node; None for the module."""
        return self._parents.get(node)

    def around(self, node: Any) -> Iterator[Any]:
        """Yield the nodes around a node, from the inside."""
        while (node := self.parent(node)) is not None:
            yield node

    def span(self, node: Any) -> tuple[int, int]:
        """Return the first character of a node, and the one behind its last."""
        position = self._positions[node]
        return self._offset(position.start), self._offset(position.end)

    def _offset(self, position: Any) -> int:
        return self._lines[int(position.line) - 1] + int(position.column)

    def line(self, node: Any) -> int:
        """Return the number of the line at which a node starts, from 1."""
        return int(self._positions[node].start.line)

    def code(self, node: Any) -> str:
        """Return a node's text."""
        start, end = self.span(node)
        return self.text[start:end]

    def line_start(self, offset: int) -> int:
        """Return where the line of a character starts."""
        return self._lines[bisect.bisect_right(self._lines, offset) - 1]

    def line_end(self, offset: int) -> int:
        """Return where the line of a character ends, before its line end."""
        match = _LINE_END.search(self.text, offset)
        return match.start() if match else len(self.text)

    def indent(self, offset: int) -> str:
        """Return the blanks that the line of a character starts with."""
        match = re.compile(r"[ \t\f]*").match(self.text, self.line_start(offset))
        return match[0] if match else ""

    def path(self, node: Any) -> str:
        """Return ``a.b.c`` for names and attributes, with imports spelt out; ``""`` for anything else."""
        text = dotted(node)
        first, dot, rest = text.partition(".")
        return self.imports.get(first, first) + dot + rest

    def lines_before(self, statement: Any, lines: list[str], why: str) -> Edit:
        """Return the edit that puts lines in front of a statement, below its comments."""
        start = self.line_start(self.span(statement)[0])
        indent = self.indent(start)
        return Edit(start, start, "".join(f"{indent}{line}{self.newline}" for line in lines), why)

    def lines_behind(self, statement: Any, lines: list[str], why: str) -> Edit:
        """Return the edit that puts lines behind a statement, as deep as it."""
        start, end = self.span(statement)
        end = self.line_end(end)
        indent = self.indent(start)
        return Edit(end, end, "".join(f"{self.newline}{indent}{line}" for line in lines), why)

    def free(self, *names: str) -> str:
        """Return the first of these names that the script doesn't use."""
        return next((name for name in names if name not in self.names), f"vaultlayer_{names[0]}")

    def apply(self, edits: list[Edit]) -> bytes:
        """Return the script with the edits made. Edits of one place come in the order of the list."""
        pieces, at = [], 0
        for edit in sorted(edits, key=lambda edit: edit.start):
            pieces += [self.text[at : edit.start], edit.text]
            at = edit.end
        pieces.append(self.text[at:])
        return "".join(pieces).encode(self.encoding)


def split_lines(text: str) -> list[str]:
    """Return the lines as Python counts them, without their ends."""
    lines = _LINE_END.split(text)
    return lines[:-1] if lines[-1] == "" else lines


def dotted(node: Any) -> str:
    """Return ``a.b.c`` for a name or attributes of one, as written; ``""`` for anything else."""
    kind = type(node).__name__
    if kind == "Name":
        return str(node.value)
    if kind == "Attribute":
        before = dotted(node.value)
        return f"{before}.{node.attr.value}" if before else ""
    return ""


def _imported(script: Script) -> Iterator[tuple[str, str]]:
    for node in script.all(cst.Import):
        for alias in node.names:
            path = dotted(alias.name)
            if alias.asname is not None:
                yield dotted(alias.asname.name), path
            else:
                yield path.split(".")[0], path.split(".")[0]
    for node in script.all(cst.ImportFrom):
        module = "." * len(node.relative) + (dotted(node.module) if node.module is not None else "")
        for alias in node.names if not isinstance(node.names, cst.ImportStar) else ():
            name = dotted(alias.name)
            yield (dotted(alias.asname.name) if alias.asname is not None else name), f"{module}.{name}"


def new_import(script: Script, line: str, why: str) -> Edit:
    """Return the edit that adds an import behind those that the script starts with."""
    last = None
    for number, statement in enumerate(script.module.body):
        small: Any = getattr(statement, "body", ())
        first: Any = small[0] if isinstance(statement, cst.SimpleStatementLine) else None
        text = isinstance(first, cst.Expr) and isinstance(
            first.value, (cst.SimpleString, cst.ConcatenatedString)
        )
        if isinstance(first, (cst.Import, cst.ImportFrom)) or (number == 0 and text):
            last = statement
        else:
            break
    if last is not None:
        return script.lines_behind(last, [line], why)
    if script.module.body:
        return script.lines_before(script.module.body[0], [line], why)
    return Edit(len(script.text), len(script.text), line + script.newline, why)
