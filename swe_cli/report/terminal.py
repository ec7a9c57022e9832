"""A summary in the terminal: tables readable at 80 columns."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from swe_cli.controls import BY_KIND, KIND_NAMES
from swe_cli.report.break_points import REFERENCES, break_point, sentence
from swe_cli.report.console import GAP, WIDTH, chunks, print_table, say, title
from swe_cli.report.quantities import LOSS, MAE, OF_QUESTIONS, Quantity, sign
from swe_cli.report.summary import Line, Point, Summary
from swe_cli.report.tables import records
from swe_cli.report.text import MARKS, NOTHING, count, exact, listed, number, percent

MANY = 4  # lines, beyond which break-points are a table
SIDE_BY_SIDE = range(2, 5)  # lines whose losses stand beside each other


def print_summary(console: Console, summary: Summary) -> None:
    """Controls, loss against ratio, break-points in words, overlap with magnitude, failures.

    Losses and deltas in nats per token.
    """
    seeds = f"{count(len(summary.seeds), 'seed')} ({listed(summary.seeds)})"
    say(console, f"{summary.model} on {summary.data}, {seeds}", "bold")
    if LOSS.drawable([*summary.controls, *summary.cuts]):
        over = f" [{summary.intervals}]" if summary.intervals else ""
        say(console, f"Loss in nats per token{over}; delta against dense.")
    say(console, f"Protocol {summary.fingerprint}", "dim")
    for caveat in summary.caveats:
        say(console, caveat, "yellow")
    answers = [q for q in OF_QUESTIONS if q.drawable([*summary.controls, *summary.cuts])]
    if summary.controls:
        _print_controls(console, summary.controls, answers)
    blind = [point for point in summary.controls if BY_KIND[point["kind"]].blind]
    for quantity in answers:
        if quantity.name in summary.baselines:
            say(console, _baseline(summary, quantity, blind))
    if blind and not any(sign(blind[0], quantity.delta) for quantity in (LOSS, *answers)):
        say(console, "Other images make no sure difference: it may not look.", "yellow")
    if summary.lines:
        for quantity in (LOSS, *answers):
            _print_quantity(console, summary.lines, quantity, compact=bool(answers))
        _print_break_points(console, summary)
        _print_overlap(console, summary.lines)
    _print_gaps(console, summary)


def _print_controls(
    console: Console, controls: Sequence[Point], answers: Sequence[Quantity]
) -> None:
    title(console, "Controls: nothing cut")
    rows = [
        [p["label"], *_cells(p, LOSS, LOSS.mean), *_cells(p, LOSS, LOSS.delta)] for p in controls
    ]
    print_table(console, ["", "loss", "", "delta", ""], rows)
    if answers:
        console.print()
        titles = [word for quantity in answers for word in (quantity.short, "", "")]
        rows = [
            [p["label"]]
            + [cell for q in answers for cell in (*_cells(p, q, q.mean), _mark(p, q)[:1])]
            for p in controls
        ]
        print_table(console, ["", *titles], rows)


def _baseline(summary: Summary, quantity: Quantity, blind: Sequence[Point]) -> str:
    """What one gets without a model, and from the questions alone."""
    unit = "MAE " if quantity is MAE else ""
    worth = quantity.spell(summary.baselines[quantity.name])
    shuffled = ""
    if len(blind) == 1 and blind[0][quantity.mean] is not None:
        shuffled = f"; with the images shuffled: {quantity.spell(blind[0][quantity.mean])}"
    return f"Always the {quantity.baseline}: {unit}{worth}{shuffled}."


def _print_quantity(
    console: Console, lines: Sequence[Line], quantity: Quantity, *, compact: bool
) -> None:
    """Means side by side where lines are few, or all of them where ``compact``; otherwise with
    intervals.
    """
    together: list[Sequence[Line]] = [lines] if len(lines) in SIDE_BY_SIDE and _fits(lines) else []
    if compact:
        by_ratio = [line for line in lines if line.by == "ratio" and len(lines) > 1]
        together = chunks(by_ratio, _fits)
    blocks = [line for line in lines if not any(line in chunk for chunk in together)]
    points = " (delta in percentage points)" if blocks and quantity.scale != 1 else ""
    title(console, f"{quantity.title.capitalize()} after recovery{points}")
    for chunk in together:
        _print_columns(console, chunk, quantity, aligned=compact)
    for place, line in enumerate(blocks):
        if place:
            console.print()
        _print_block(console, line, quantity)
    better, worse = MARKS[quantity.better], MARKS[-quantity.better]
    signs = f"{better} better, {worse} worse than dense (paired 95% interval excludes 0)"
    top = "highest" if quantity.better > 0 else "lowest"
    say(console, f"{signs}; * {top}", "dim")


def _print_block(console: Console, line: Line, quantity: Quantity) -> None:
    """The value before recovery, and after it with its interval."""
    say(console, line.label, "bold")
    best = line.best(quantity)
    rows: list[list[str | Text]] = [
        [
            *(_cut(point), quantity.spell(point[quantity.before])),
            *_cells(point, quantity, quantity.mean),
            *_cells(point, quantity, quantity.delta),
            _mark(point, quantity, best=point is best),
        ]
        for point in line.points
    ]
    head = "ratio" if line.by == "ratio" else "sparsity"
    print_table(console, [head, "before", quantity.short, "", "delta", "", ""], rows)


def _print_columns(
    console: Console, lines: Sequence[Line], quantity: Quantity, *, aligned: bool
) -> None:
    """Lines cut at asked ratios, side by side; ``aligned`` puts marks under marks."""
    columns = [{point["x"]: point for point in line.points} for line in lines]
    bests = [line.best(quantity) for line in lines]
    titles = ["ratio", *("\n".join(_heading(line)) for line in lines)]
    rows = []
    for ratio in sorted({ratio for column in columns for ratio in column}):
        row = [Text(exact(ratio))]
        for column, best in zip(columns, bests, strict=True):
            point = column.get(ratio)
            if point is None:
                row.append(Text(f"{NOTHING}   " if aligned else NOTHING))
            else:
                mark = _mark(point, quantity, best=point is best)
                row.append(Text(f"{quantity.spell(point[quantity.mean])} {mark.plain}", mark.style))
        rows.append(row)
    if aligned:  # by spaces to the right: a table would drop the space of a missing mark first
        cells = zip(titles, *rows, strict=True)  # column by column
        widths = [max(map(len, [*head.split("\n"), *map(str, cut)])) for head, *cut in cells]
        titles = [
            "\n".join(word.rjust(width) for word in head.split("\n"))
            for head, width in zip(titles, widths, strict=True)
        ]
        for row in rows:
            for cell, width in zip(row, widths, strict=True):
                cell.pad_left(width - len(cell))
    print_table(console, titles, rows, left=aligned)


def _fits(lines: Sequence[Line]) -> bool:
    """Whether lines cut at asked ratios can stand side by side, headed by their own words."""
    widths = [max(10, *map(len, _heading(line))) for line in lines]
    by_ratio = all(line.by == "ratio" for line in lines)
    return by_ratio and len("ratio ") + sum(width + GAP for width in widths) <= WIDTH


def _heading(line: Line) -> list[str]:
    """The words above a line's column; of its roles only the names."""
    return [line.criterion, *(part.removeprefix("roles ") for part in line.parts)]


def _mark(point: Point, quantity: Quantity, *, best: bool = False) -> Text:
    """Which way a point differs from dense for certain, green where that is better."""
    way = sign(point, quantity.delta)
    style = {1: "green", 0: "", -1: "red"}[quantity.better * way]
    return Text(f"{MARKS[way] or ' '}{'*' if best else ' '}", style)


def _cells(point: Point, quantity: Quantity, column: str) -> list[str]:
    """A mean and its interval."""
    signed = column == quantity.delta
    return [quantity.spell(point[column], signed=signed), quantity.interval(point, column)]


def _cut(point: Point) -> str:
    """The ratio asked for, or the sparsity achieved."""
    return (
        exact(point["ratio"]) if point["x"] == point["ratio"] else percent(point["x"], decimals=1)
    )


def _print_break_points(console: Console, summary: Summary) -> None:
    answers = {
        quantity: exact(round(quantity.scale * quantity.tolerance, 6))
        for quantity in OF_QUESTIONS
        if math.isfinite(quantity.tolerance) and quantity.drawable(summary.cuts)
    }
    if len(summary.lines) <= MANY:
        title(console, f"Break-points (tolerance {exact(LOSS.tolerance)} nats)")
        for line in summary.lines:
            say(console, sentence(line))
        for quantity, most in answers.items():
            title(console, f"Break-points of {quantity.title} (tolerance {most} percentage point)")
            for line in summary.lines:
                say(console, sentence(line, quantity))
        return
    title(console, "Break-points: the largest cut that holds")
    rows = []
    for line in summary.lines:
        points = [break_point(line, column) for *_, column in REFERENCES]
        points += [break_point(line, quantity.delta, quantity) for quantity in answers]
        best = line.best(LOSS)
        lowest = [number(best[LOSS.mean]), _cut(best)] if best else [NOTHING, ""]
        rows.append([line.label, *(point.short(line.by) for point in points), *lowest])
    heads = [head for _, head, _ in REFERENCES] + [f"of\n{quantity.title}" for quantity in answers]
    print_table(console, ["", *heads, "lowest\nloss", "at"], rows)
    costs = [f"{exact(LOSS.tolerance)} nats"]
    costs += [f"{most} point of {quantity.title}" for quantity, most in answers.items()]
    most = " or ".join(costs)
    say(console, f"holds: costs at most {most}, by the bound of the paired 95% interval", "dim")


def _print_overlap(console: Console, lines: Sequence[Line]) -> None:
    def overlaps(line: Line) -> dict[float, float | None]:
        return {point["x"]: point["jaccard_magnitude"] for point in line.points}

    def chance(x: float) -> str:
        """Of two independent random cuts of the fraction ``x``."""
        return number(x / (2 - x))

    def fits(lines: Sequence[Line]) -> bool:
        widths = [max(6, *map(len, _heading(line))) for line in lines]
        return len("ratio   chance") + sum(width + GAP for width in widths) <= WIDTH

    # Magnitude itself, which overlaps wholly, is left out.
    measured = [line for line in lines if {*overlaps(line).values()} - {None, 1.0}]
    if not measured:
        return
    title(console, "Overlap of what is cut with magnitude's cut (Jaccard)")
    for chunk in chunks([line for line in measured if line.by == "ratio"], fits):
        columns = [overlaps(line) for line in chunk]
        cuts = sorted({x for column in columns for x in column})
        rows = [[exact(x), *(number(of.get(x)) for of in columns), chance(x)] for x in cuts]
        titles = ["ratio", *("\n".join(_heading(line)) for line in chunk), "chance"]
        print_table(console, titles, rows)
    for line in (line for line in measured if line.by == "rate"):
        say(console, line.label, "bold")
        rows = [
            [exact(p["rate"]), _cut(p), number(p["jaccard_magnitude"]), chance(p["x"])]
            for p in line.points
        ]
        print_table(console, ["rate", "sparsity", "overlap", "chance"], rows)
    say(console, "chance: two random cuts of the same size, r / (2 - r)", "dim")


def _print_gaps(console: Console, summary: Summary) -> None:
    expected = len(summary.seeds)
    short = [
        f"{line.label} at {_cut(point)} ({len(point['seeds'])} of {expected})"
        for line in summary.lines
        for point in line.points
        if len(point["seeds"]) < expected
    ]
    if short:
        say(console, f"\nFewer seeds than elsewhere: {'; '.join(short)}.", "yellow")
    if len(summary.failed):
        first = records(summary.failed)[0]
        cut = exact(first["ratio"]) or exact(first["rate"])
        name = f"{first['criterion']} at {cut}" if cut else KIND_NAMES[first["kind"]]
        words = (first["error"] or "no message").split("\n")[0]
        say(console, f"\n{count(len(summary.failed), 'cell')} failed, left out above.", "red")
        say(console, f"First: {name}: {words}")
