"""What every table in the terminal shares: readable at 80 columns, with or without colour."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swe_cli.report.text import shortened

GAP = 2
Cells = Sequence[Text | str]


def say(console: Console, words: str, style: str = "") -> None:
    """Plain words, in which brackets are brackets."""
    console.print(Text(words, style))


def title(console: Console, words: str) -> None:
    """A bold line after an empty one."""
    console.print()
    say(console, words, "bold")


def print_table(
    console: Console, heads: Sequence[str], rows: Sequence[Cells], gap: int = 1
) -> None:
    """Numbers to the right; words and marks, under an empty head, to the left: they may fold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    for head in heads:
        table.add_column(
            Text(head), justify="right" if head else "left", no_wrap=bool(head), overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console.print(table)


def print_grid(
    console: Console,
    names: Sequence[str],
    heads: Sequence[str],
    rows: Sequence[Cells],
    *,
    thin: bool = False,
) -> None:
    """A named row for every line, a column for every cut: as few tables, alike, as fit.

    ``thin``: one table, of the last column and as many others as fit, far from each other. Long
    names end in ….
    """
    if not rows:
        return
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(len(w) for word in of for w in str(word).split("\n")) + 1 for of in columns]
    longest, least = max(map(len, names)), max(16, console.width // 4)
    room = (console.width - min(longest, least)) // max(widths)
    tables = 1 if thin else -(-len(heads) // max(3, room))
    size = -(-len(heads) // tables)
    for start in range(0, len(heads), size):
        part = list(range(start, min(start + size, len(heads))))
        if thin and len(part) > room:
            last = part.pop()
            step = (len(part) - 1) / max(1, room - 2)
            part = [*dict.fromkeys(round(step * place) for place in range(room - 1)), last]
        space = console.width - sum(widths[at] for at in part)
        cells = [
            [shortened(name, max(least, space)), *(row[at] for at in part)]
            for name, row in zip(names, rows, strict=True)
        ]
        print_table(console, ["", *(heads[at] for at in part)], cells, gap=0)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Label and value, one pair a line."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), Text(value))
    console.print(grid)
