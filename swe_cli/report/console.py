"""What every table in the terminal shares: readable at 80 columns, with or without colour."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80
GAP = 2
Cells = Sequence[Text | str]


def say(console: Console, words: str, style: str = "") -> None:
    """Plain words, in which brackets are brackets."""
    console.print(Text(words, style))


def title(console: Console, words: str) -> None:
    """A bold line after an empty one."""
    console.print()
    say(console, words, "bold")


def print_table(console: Console, heads: Sequence[str], rows: Sequence[Cells]) -> None:
    """Numbers to the right; words and marks, under an empty head, to the left: they may fold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(
            Text(head), justify="right" if head else "left", no_wrap=bool(head), overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console.print(table)


def print_grid(
    console: Console, names: Sequence[str], heads: Sequence[str], rows: Sequence[Cells]
) -> None:
    """A named row for every line, a column for every cut: as few tables, alike, as fit."""
    if not rows:
        return
    words = [*heads, *(cell for row in rows for cell in row)]
    widest = max(len(part) for word in words for part in str(word).split("\n"))
    room = (WIDTH - max(map(len, names))) // (widest + GAP)
    tables = -(-len(heads) // max(3, room))
    size = -(-len(heads) // tables)
    for start in range(0, len(heads), size):
        part = slice(start, start + size)
        cells = [[name, *row[part]] for name, row in zip(names, rows, strict=True)]
        print_table(console, ["", *heads[part]], cells)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Label and value, one pair a line."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), Text(value))
    console.print(grid)
