"""What every table in the terminal shares: readable at 80 columns, with or without colour."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80
GAP = 2
T = TypeVar("T")


def say(console: Console, words: str, style: str = "") -> None:
    """Plain words, in which brackets are brackets."""
    console.print(Text(words, style))


def title(console: Console, words: str) -> None:
    """A bold line after an empty one."""
    console.print()
    say(console, words, "bold")


def print_table(
    console: Console, heads: Sequence[str], rows: Sequence[Sequence[Text | str]]
) -> None:
    """Everything to the right, but names under an empty head, which may fold.

    By spaces, since the table's own alignment would drop those of a mark that is missing.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = []
    for place, (head, *cells) in enumerate(zip(heads, *rows, strict=True)):
        folds = place == 0 and not head
        lines = [line for cell in (head, *cells) for line in str(cell).split("\n")]
        width = 0 if folds else max(map(len, lines))
        words = Text("\n".join(line.rjust(width) for line in head.split("\n")))
        table.add_column(words, no_wrap=not folds, overflow="fold" if folds else "ellipsis")
        columns.append([Text(str(c).rjust(width), getattr(c, "style", "")) for c in cells])
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    console.print(table)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Label and value, one pair a line."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), Text(value))
    console.print(grid)


def chunks(items: Sequence[T], fits: Callable[[Sequence[T]], bool]) -> list[Sequence[T]]:
    """Tables of about the same number of items, as few as fit."""
    for tables in range(1, len(items) + 1):
        size = -(-len(items) // tables)
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        if size == 1 or all(map(fits, parts)):
            return parts
    return []
