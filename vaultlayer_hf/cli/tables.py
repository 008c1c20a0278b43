"""Lines and tables for a person. A vault's content is shown as it is: no markup, nothing that steers a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_GAP = 3
"""Columns of a terminal between two columns of a table."""
_FOLDED = 24
"""Columns of a terminal that a column which may be folded needs, to be read as sentences."""


def clean(text: object) -> str:
    """Return a text with what can't be printed replaced: a vault's content may have been written by anybody."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def say(text: str, style: str = "") -> None:
    """Print a line of prose to stdout. A terminal gets it broken between words, a file or a pipe as one line."""
    console = _console()
    console.print(clean(text), style=style or None, soft_wrap=not console.is_terminal)


def print_items(
    items: Iterable[tuple[str, str]], *, indent: int, styles: Mapping[str, str] | None = None
) -> None:
    """Print paragraphs to stdout, each behind its name, as a list whose names can be run down with the eye.

    In a terminal the lines of a paragraph stand below each other, beside the name, or below it where there is little
    room. A file or a pipe gets one line for each.

    Args:
        items: names, which may be empty, and paragraphs.
        indent: columns from the left edge to the paragraphs.
        styles: colours of names, as rich calls them.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = _console()
    for name, text in items:
        head, body = Text(clean(name), (styles or {}).get(name, "")), Text(clean(text))
        if not console.is_terminal:
            head.pad_right(max(0, indent - head.cell_len))
            console.print(head + body, soft_wrap=True)
        elif console.width < indent + _FOLDED or head.cell_len >= indent:
            console.print(head, Padding(body, (0, 0, 0, 4)), sep="\n")
        else:
            grid = Table.grid()
            grid.add_column(width=indent, no_wrap=True)
            grid.add_column(overflow="fold")
            grid.add_row(head, body)
            console.print(grid)


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[int] = (),
    fold: Sequence[int] = (),
    spare: Sequence[int] = (),
) -> None:
    """Print a table to stdout, as wide as it needs.

    Where a terminal is too narrow for it, the columns of ``spare`` are left out. If that isn't enough, each row is
    printed as lines of its own, one for each column: no cell is cut short.

    Args:
        headings: of the columns; all empty: no line of headings.
        rows: their cells.
        right: columns that are set flush right.
        fold: columns that may be broken into several lines.
        spare: columns that a narrow terminal isn't shown.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(clean(cell)) for cell in row] for row in rows]
    shown = list(range(len(headings)))
    console = _console()
    if not _fits(console, headings, cells, shown, fold):
        shown = [number for number in shown if number not in spare]
        if any(headings) and not _fits(console, headings, cells, shown, fold):
            _print_as_lines(console, headings, cells)
            return
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=any(headings))
    for number in shown:
        side = "right" if number in right else "left"
        if number in fold:
            table.add_column(headings[number], justify=side, overflow="fold")  # type: ignore[arg-type]
        else:
            table.add_column(headings[number], justify=side, no_wrap=True)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*(row[number] for number in shown))
    put_table(console, table)


def put_table(console: Console, table: Table) -> None:
    """Print a table of rich; a file or a pipe gets its lines without the blanks that fill them up at their ends."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as lines:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in lines.get().splitlines()))


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def _fits(
    console: Console,
    headings: Sequence[str],
    cells: Sequence[Sequence[Text]],
    shown: Sequence[int],
    fold: Sequence[int],
) -> bool:
    """Tell whether a table can be shown without cutting a cell short; widens what isn't a terminal until it can."""
    endless = not console.is_terminal and "COLUMNS" not in os.environ  # a file or a pipe has no width
    needed = _GAP * (len(shown) - 1)
    for number in shown:
        widest = max([len(headings[number]), *(row[number].cell_len for row in cells)])
        needed += min(widest, _FOLDED) if number in fold and not endless else widest
    if endless:
        console.width = max(console.width, needed)
    return needed <= console.width


def _print_as_lines(console: Console, headings: Sequence[str], cells: Sequence[Sequence[Text]]) -> None:
    """Print each row as a block: its first cell with its heading, and the others below it."""
    from rich.table import Table

    for row in cells:
        block = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for number, cell in enumerate(row):
            if cell.plain:
                block.add_row(("  " if number else "") + headings[number], cell)
        put_table(console, block)
