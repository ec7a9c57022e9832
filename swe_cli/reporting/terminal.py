"""A summary in the terminal: tables readable at 80 columns, with or without colour."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swe_cli.reporting.break_points import TOLERANCE_NATS, sentence
from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.summary import Line, Point, Summary
from swe_cli.reporting.text import (
    KIND_NAMES,
    NOTHING,
    bracket,
    count,
    exact,
    listed,
    number,
    percent,
)

WIDTH = 80
_GAP = 2
_STYLES = {-1: "green", 0: "", 1: "red"}
_SIGNS = {-1: "▼", 0: " ", 1: "▲"}
_LEGEND = "▼ better, ▲ worse than dense (paired 95% interval excludes 0); * lowest"


def print_summary(console: Console, summary: Summary, *, tolerance: float = TOLERANCE_NATS) -> None:
    """Controls, loss against ratio, break-points in words, overlap with magnitude, failures.

    Losses and deltas in nats per token; ``tolerance`` is the break-point's.
    """
    seeds = f"{count(len(summary.seeds), 'seed')} ({listed(summary.seeds)})"
    _say(console, f"{summary.model} on {summary.data}, {seeds}", "bold")
    if summary.intervals:
        _say(console, f"Loss in nats per token [{summary.intervals}]; delta against dense.")
    _say(console, f"Protocol {summary.fingerprint}", "dim")
    if summary.controls:
        _print_controls(console, summary)
    if summary.lines:
        _print_losses(console, summary.lines)
        _title(console, f"Break-points (tolerance {exact(tolerance)} nats)")
        for line in summary.lines:
            _say(console, sentence(line, tolerance))
        _print_overlap(console, summary.lines)
    _print_gaps(console, summary)


def _print_controls(console: Console, summary: Summary) -> None:
    _title(console, "Controls: nothing cut")
    rows = []
    for control in summary.controls:
        loss, delta = control.point.loss, control.point.delta
        rows.append([Text(control.label), *_cells(loss), *_cells(delta, signed=True)])
    _print_table(console, ["", "loss", "", "delta", ""], rows)


def _print_losses(console: Console, lines: Sequence[Line]) -> None:
    _title(console, "Loss after recovery")
    if 2 <= len(lines) <= 4 and _fits(lines):
        _print_columns(console, lines)
    else:
        for place, line in enumerate(lines):
            if place:
                console.print()
            _print_block(console, line)
    _say(console, _LEGEND, "dim")


def _fits(lines: Sequence[Line]) -> bool:
    """Whether lines cut at asked ratios can stand side by side, headed by their own words."""
    widths = [max(10, *(len(word) for word in _heading(line))) for line in lines]
    by_ratio = all(line.by == "ratio" for line in lines)
    return by_ratio and len("ratio ") + sum(width + _GAP for width in widths) <= WIDTH


def _heading(line: Line) -> list[str]:
    return [line.criterion, *line.parts]


def _print_columns(console: Console, lines: Sequence[Line]) -> None:
    points = [{point.x: point for point in line.points} for line in lines]
    ratios = sorted({ratio for column in points for ratio in column})
    rows = [
        [Text(exact(ratio))]
        + [
            _loss(column[ratio], line) if ratio in column else Text(NOTHING)
            for line, column in zip(lines, points, strict=True)
        ]
        for ratio in ratios
    ]
    _print_table(console, ["ratio", *("\n".join(_heading(line)) for line in lines)], rows)


def _loss(point: Point, line: Line) -> Text:
    sign = point.delta.sign if point.delta else 0
    text = number(point.loss.mean if point.loss else None)
    return Text(f"{text} {_SIGNS[sign]}{'*' if point is line.best else ' '}", _STYLES[sign])


def _print_block(console: Console, line: Line) -> None:
    _say(console, line.label, "bold")
    rows = []
    for point in line.points:
        sign = point.delta.sign if point.delta else 0
        mark = f"{_SIGNS[sign]}{'*' if point is line.best else ' '}"
        rows.append(
            [
                Text(_cut(point)),
                Text(number(point.before.mean if point.before else None)),
                *_cells(point.loss),
                *_cells(point.delta, signed=True),
                Text(mark, _STYLES[sign]),
            ]
        )
    head = "ratio" if line.by == "ratio" else "sparsity"
    _print_table(console, [head, "before", "loss", "", "delta", "", ""], rows)


def _cut(point: Point) -> str:
    return exact(point.ratio) if point.ratio is not None else percent(point.x, decimals=1)


def _print_overlap(console: Console, lines: Sequence[Line]) -> None:
    measured = [line for line in lines if any(p.jaccard is not None for p in line.points)]
    if not measured:
        return
    _title(console, "Overlap of what is cut with magnitude's cut (Jaccard)")
    asked = [line for line in measured if line.by == "ratio"]
    while asked:
        fitting = next(n for n in range(len(asked), 0, -1) if n == 1 or _overlap_fits(asked[:n]))
        _print_overlap_columns(console, asked[:fitting])
        asked = asked[fitting:]
    for line in measured:
        if line.by == "rate":
            _say(console, line.label, "bold")
            rows = [
                [
                    Text(exact(p.rate)),
                    Text(_cut(p)),
                    Text(number(p.jaccard)),
                    Text(number(p.chance)),
                ]
                for p in line.points
            ]
            _print_table(console, ["rate", "sparsity", "overlap", "chance"], rows)
    _say(console, "chance: two random cuts of the same size, r / (2 - r)", "dim")


def _overlap_fits(lines: Sequence[Line]) -> bool:
    widths = [max(map(len, _heading(line))) for line in lines]
    return len("ratio   chance") + sum(max(6, width) + _GAP for width in widths) <= WIDTH


def _print_overlap_columns(console: Console, lines: Sequence[Line]) -> None:
    points = [{point.x: point for point in line.points} for line in lines]
    rows = []
    for ratio in sorted({ratio for column in points for ratio in column}):
        found = [column.get(ratio) for column in points]
        chance = next(point.chance for point in found if point)
        overlaps = [number(point.jaccard if point else None) for point in found]
        rows.append([Text(word) for word in (exact(ratio), *overlaps, number(chance))])
    titles = ["ratio", *("\n".join(_heading(line)) for line in lines), "chance"]
    _print_table(console, titles, rows)


def _print_gaps(console: Console, summary: Summary) -> None:
    expected = len(summary.seeds)
    short = [
        f"{line.label} at {_cut(point)} ({len(point.seeds)} of {expected})"
        for line in summary.lines
        for point in line.points
        if len(point.seeds) < expected
    ]
    if short:
        _say(console, f"\nFewer seeds than elsewhere: {'; '.join(short)}.", "yellow")
    if summary.failed:
        first = summary.failed[0]
        cut = exact(first.ratio) or exact(first.rate)
        name = f"{first.criterion} at {cut}" if cut else KIND_NAMES[first.kind]
        words = (first.error or "no message").split("\n")[0]
        _say(console, f"\n{count(len(summary.failed), 'cell')} failed, left out above.", "red")
        _say(console, f"First: {name}: {words}")


def _cells(estimate: Estimate | None, *, signed: bool = False) -> list[Text]:
    if estimate is None:
        return [Text(NOTHING), Text()]
    bounds = bracket(estimate.low, estimate.high, signed=signed)
    return [Text(number(estimate.mean, signed=signed)), Text(bounds)]


def _print_table(console: Console, titles: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(titles):
        if place == 0 and not title:
            table.add_column(overflow="fold")
        else:
            table.add_column(Text(title), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _title(console: Console, words: str) -> None:
    console.print()
    _say(console, words, "bold")


def _say(console: Console, words: str, style: str = "") -> None:
    console.print(Text(words, style))
