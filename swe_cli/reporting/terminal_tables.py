"""Tables of one quantity against the cut, and what every table in the terminal shares."""

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.quantity import Quantity
from swe_cli.reporting.summary import Line, Point
from swe_cli.reporting.text import NOTHING, exact, percent

WIDTH = 80
GAP = 2
_STYLES = {-1: "green", 0: "", 1: "red"}
_SIGNS = {-1: "▼", 0: " ", 1: "▲"}


def print_blocks(console: Console, lines: Sequence[Line], quantity: Quantity) -> None:
    """One table a line, with the value before recovery and the intervals, in its unit."""
    for place, line in enumerate(lines):
        if place:
            console.print()
        _print_block(console, line, quantity)


def print_compact(console: Console, lines: Sequence[Line], quantity: Quantity) -> None:
    """Means after recovery side by side, over as many tables as it takes; other lines by block."""
    by_ratio = [line for line in lines if line.by == "ratio"]
    by_rate = [line for line in lines if line.by == "rate"]
    for chunk in chunks(by_ratio, fits):
        print_columns(console, chunk, quantity, aligned=True)
    print_blocks(console, by_rate, quantity)


def print_columns(
    console: Console, lines: Sequence[Line], quantity: Quantity, *, aligned: bool = False
) -> None:
    """Lines cut at asked ratios, side by side; ``aligned`` puts marks under marks."""
    points = [{point.x: point for point in line.points} for line in lines]
    ratios = sorted({ratio for column in points for ratio in column})
    missing = f"{NOTHING}   " if aligned else NOTHING
    rows = [
        [Text(exact(ratio))]
        + [
            _cell(column[ratio], line, quantity) if ratio in column else Text(missing)
            for line, column in zip(lines, points, strict=True)
        ]
        for ratio in ratios
    ]
    titles = ["ratio", *("\n".join(heading(line)) for line in lines)]
    print_table(console, *(_padded(titles, rows) if aligned else (titles, rows)), left=aligned)


def fits(lines: Sequence[Line]) -> bool:
    """Whether lines cut at asked ratios can stand side by side, headed by their own words."""
    widths = [max(10, *(len(word) for word in heading(line))) for line in lines]
    by_ratio = all(line.by == "ratio" for line in lines)
    return by_ratio and len("ratio ") + sum(width + GAP for width in widths) <= WIDTH


def heading(line: Line) -> list[str]:
    """The words above a line's column; of its roles only the names."""
    return [line.criterion, *(part.removeprefix("roles ") for part in line.parts)]


def legend(quantity: Quantity) -> str:
    """What the marks beside a value say."""
    better, worse = _SIGNS[quantity.better], _SIGNS[-quantity.better]
    top = "highest" if quantity.better > 0 else "lowest"
    return f"{better} better, {worse} worse than dense (paired 95% interval excludes 0); * {top}"


def mark(point: Point, quantity: Quantity, *, best: bool = False) -> Text:
    """Which way a point differs from dense for certain, green where that is better."""
    delta = quantity.read(point).delta
    sign = delta.sign if delta else 0
    return Text(f"{_SIGNS[sign]}{'*' if best else ' '}", _STYLES[-quantity.better * sign])


def cells(estimate: Estimate | None, quantity: Quantity, *, signed: bool = False) -> list[Text]:
    """A mean and its interval."""
    if estimate is None:
        return [Text(NOTHING), Text()]
    bounds = quantity.bracket(estimate.low, estimate.high, signed=signed)
    return [Text(quantity.spell(estimate.mean, signed=signed)), Text(bounds)]


def cut(point: Point) -> str:
    """The ratio asked for, or the sparsity achieved."""
    as_asked = point.ratio is not None and point.x == point.ratio
    return exact(point.ratio) if as_asked else percent(point.x, decimals=1)


def print_table(
    console: Console,
    titles: Sequence[str],
    rows: Sequence[Sequence[Text]],
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
        table.add_row(*row)
    console.print(table)


def title(console: Console, words: str) -> None:
    """A bold line after an empty one."""
    console.print()
    say(console, words, "bold")


def say(console: Console, words: str, style: str = "") -> None:
    """Plain words, in which brackets are brackets."""
    console.print(Text(words, style))


def chunks(
    lines: Sequence[Line], fitting: Callable[[Sequence[Line]], bool]
) -> list[Sequence[Line]]:
    """Tables of about the same number of lines, as few as fit."""
    for tables in range(1, len(lines) + 1):
        size = -(-len(lines) // tables)
        cut_up = [lines[start : start + size] for start in range(0, len(lines), size)]
        if size == 1 or all(map(fitting, cut_up)):
            return cut_up
    return []


def _padded(
    titles: Sequence[str], rows: Sequence[Sequence[Text]]
) -> tuple[list[str], list[list[Text]]]:
    """Pushed to the right by spaces: a table would drop the space of a missing mark first."""
    words = [title.split("\n") for title in titles]
    widths = [
        max(len(text) for text in (*head, *(row[place].plain for row in rows)))
        for place, head in enumerate(words)
    ]
    heads = [
        "\n".join(word.rjust(width) for word in head)
        for head, width in zip(words, widths, strict=True)
    ]
    padded = [
        [Text(cell.plain.rjust(width), cell.style) for cell, width in zip(row, widths, strict=True)]
        for row in rows
    ]
    return heads, padded


def _cell(point: Point, line: Line, quantity: Quantity) -> Text:
    mean = quantity.read(point).mean
    sign = mark(point, quantity, best=point is quantity.best(line))
    return Text(f"{quantity.spell(mean.mean if mean else None)} {sign.plain}", sign.style)


def _print_block(console: Console, line: Line, quantity: Quantity) -> None:
    say(console, line.label, "bold")
    best = quantity.best(line)
    rows = []
    for point in line.points:
        reading = quantity.read(point)
        rows.append(
            [
                Text(cut(point)),
                Text(quantity.spell(reading.before.mean if reading.before else None)),
                *cells(reading.mean, quantity),
                *cells(reading.delta, quantity, signed=True),
                mark(point, quantity, best=point is best),
            ]
        )
    head = "ratio" if line.by == "ratio" else "sparsity"
    print_table(console, [head, "before", quantity.short, "", "delta", "", ""], rows)
