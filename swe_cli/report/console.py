"""What every table in the terminal shares: readable at 80 columns, with or without colour."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swe_cli.report.quantities import LOSS, Quantity, sign
from swe_cli.report.text import MARKS, NOTHING, markdown_table, printable, short, shortened

GAP = 2
Cells = Sequence[Text | str]


def say(console: Console, words: str, style: str = "") -> None:
    """Plain words, in which brackets are brackets, and nothing commands the terminal."""
    console.print(Text(printable(words), style))


def minus(words: str) -> str:
    """With true minus signs; a hyphen inside a name stays one."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "−", words)


def title(console: Console, words: str) -> None:
    """A bold line after an empty one."""
    console.print()
    say(console, words, "bold")


def mark(point: Mapping[str, Any], column: str, quantity: Quantity) -> Text:
    """Which way it surely differs: green where that is better."""
    way = sign(point, column)
    return Text(MARKS[way], {1: "green", 0: "", -1: "red"}[quantity.better * way])


def marked(
    point: Mapping[str, Any], column: str, quantity: Quantity = LOSS, fewer: int = 0
) -> Text:
    """A difference behind its sign, or the mark that it has for certain instead: ``▼.021``."""
    if (value := point[column]) is None:
        return Text("×" if point.get("failed") else NOTHING)
    shown = mark(point, column, quantity)
    words = f"{100 * value:+z.1f}" if quantity.percent else short(value, fewer)
    return shown.append(words.lstrip("+-") if shown.plain else words)


def print_table(
    console: Console, heads: Sequence[str], rows: Sequence[Cells], gap: int = 1
) -> None:
    """See ``table_of``."""
    console.print(table_of(heads, rows, gap))


def table_of(heads: Sequence[str], rows: Sequence[Cells], gap: int = 1) -> Table:
    """Numbers to the right; words and marks, under an empty head, to the left: they may fold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    names = max((len(str(row[0])) for row in rows), default=0)
    for place, head in enumerate(heads):
        side: Literal["right", "left"] = "right" if head else "left"
        least = None if head or place else min(12, names)
        table.add_column(
            Text(head), justify=side, no_wrap=bool(head), overflow="fold", min_width=least
        )
    for row in rows:
        cells = [cell.copy() if isinstance(cell, Text) else Text(cell) for cell in row]
        for cell in cells:
            cell.plain = minus(printable(cell.plain))
        table.add_row(*cells)
    return table


def print_grid(console: Console, heads: Sequence[str], rows: Sequence[Cells]) -> None:
    """A named row for every line, a column for every cut; long names end in ….

    Where the window is narrow, the last column and as many others as fit, which is said.
    """
    if not rows:
        return
    names, *columns = [[str(word) for word in of] for of in zip(heads, *rows, strict=True)]
    widths = [max(map(len, of)) + 1 for of in columns]
    least = min(max(map(len, names)), max(16, console.width // 4))
    room = max(2, (console.width - least) // max(widths))
    step = max(1.0, (len(columns) - 1) / (room - 1))
    shown = sorted({round(step * place) for place in range(min(room, len(columns)))})
    space = max(least, console.width - sum(widths[at] for at in shown))
    cells = [[shortened(str(name), space), *(of[at] for at in shown)] for name, *of in rows]
    print_table(console, ["", *(heads[at + 1] for at in shown)], cells, gap=0)
    if len(shown) < len(columns):
        say(console, f"{len(shown)} of {len(columns)} columns: a wider window shows more.", "dim")


def present(
    console: Console,
    heading: str,
    notes: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Cells]]],
    sentences: Sequence[str] = (),
    printed: Callable[..., None] = print_table,
) -> str:
    """Print tables by name and head, with notes on them; the same as a page of Markdown."""
    title(console, heading)
    page = [f"## {heading}", *notes]
    for name, heads, rows in tables:
        title(console, name)
        printed(console, heads, rows)
        page += [f"### {name}", markdown_table([heads, *(map(str, row) for row in rows)], left=1)]
    for note in notes:
        say(console, note, "dim")
    for sentence in sentences:
        say(console, sentence)
    page += ["\n".join(f"- {sentence}" for sentence in sentences)] if sentences else []
    return "\n\n".join(page) + "\n"


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Label and value, one pair a line."""
    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), Text(minus(printable(value))))
    console.print(grid)
