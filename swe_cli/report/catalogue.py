"""The choices of a group in the terminal: all of them as a table, or one of them whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from swe_cli.report.console import GAP, WIDTH, print_pairs, say

INDENT = 2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One choice. ``facts``: column head → words, over several lines where there are several.

    ``paragraphs``: what its author says of it, the first being equation and source. ``section``:
    the heading it stands under, or nothing. ``more``: label → words, shown of one choice alone.
    ``problem``: why nothing else is known, where it cannot be built.
    """

    name: str
    section: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    paragraphs: Sequence[str] = ()
    more: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def print_catalogue(console: Console, title: str, entries: Sequence[Entry]) -> None:
    """Facts in columns and, under them, equation and source; section by section."""
    heads = next((list(entry.facts) for entry in entries if entry.facts), [])
    widths = _widths(title, heads, entries)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(_columns([Text(word) for word in (title, *heads)], widths))
    for place, section in enumerate(dict.fromkeys(entry.section for entry in entries)):
        if section:
            table.add_row(Text(f"\n{section}" if place else section, "bold"))
        for entry in (entry for entry in entries if entry.section == section):
            table.add_row(_row(entry, widths))
    console.print(table)


def print_entry(console: Console, entry: Entry) -> None:
    """Its author's words, then facts and options, one a line."""
    say(console, entry.name, "bold")
    for paragraph in entry.paragraphs:
        say(console, paragraph)
        console.print()
    print_pairs(console, list({**entry.facts, **entry.more}.items()))


def _widths(title: str, heads: Sequence[str], entries: Sequence[Entry]) -> list[int]:
    """As wide as the longest line; the name gives way where eighty columns are not enough."""
    facts = [
        max(len(head), *(len(line) for e in entries for line in e.facts.get(head, "").split("\n")))
        for head in heads
    ]
    name = max(len(title), *(len(entry.name) for entry in entries))
    # The table puts one space after its only column.
    room = WIDTH - 1 - sum(width + GAP for width in facts)
    return [max(1, min(name, room)), *facts]


def _row(entry: Entry, widths: Sequence[int]) -> RenderableType:
    words = entry.problem or next(iter(entry.paragraphs), "(its class has no docstring)")
    cells = [Text(entry.name, "cyan"), *map(Text, entry.facts.values())]
    below = Padding(Text(words, "red" if entry.problem else ""), (0, 0, 0, INDENT))
    return Group(_columns(cells, widths), below)


def _columns(cells: Sequence[Text], widths: Sequence[int]) -> Table:
    grid = Table.grid(padding=(0, GAP, 0, 0))
    for width in widths:
        grid.add_column(width=width, overflow="fold")
    grid.add_row(*cells)
    return grid
