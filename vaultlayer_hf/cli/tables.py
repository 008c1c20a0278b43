"""Lines and tables for a person. A vault's content is shown as it is: no markup, nothing that steers a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def clean(text: object) -> str:
    """Return a text with what can't be printed replaced: a vault's content may have been written by anybody."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def say(text: str) -> None:
    """Print a line of prose to stdout; the terminal wraps it."""
    from rich.console import Console

    Console(highlight=False, markup=False, emoji=False).print(clean(text), soft_wrap=True)


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[int] = (),
    fold: Sequence[int] = (),
) -> None:
    """Print a table to stdout, as wide as it needs.

    Args:
        headings: of the columns; all empty: no line of headings.
        rows: their cells.
        right: columns that are set flush right.
        fold: columns that may be broken into several lines.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=any(headings))
    for number, heading in enumerate(headings):
        side = "right" if number in right else "left"
        if number in fold:
            table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
        else:
            table.add_column(heading, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    Console(highlight=False, markup=False, emoji=False).print(table)
