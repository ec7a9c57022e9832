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
    console: Console,
    titles: Sequence[str],
    rows: Sequence[Sequence[Text | str]],
    *,
    left: bool = False,
) -> None:
    """Numbers to the right, unless padded by hand (``left``); names under no title may fold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, words in enumerate(titles):
        if place == 0 and not words:
            table.add_column(overflow="fold")
        else:
            table.add_column(Text(words), justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
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
