"""A row, and a summary, in the terminal: tables readable at 80 columns."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from swe_cli.controls import BY_KIND, KIND_NAMES, PRUNED
from swe_cli.records import COSTS, Row
from swe_cli.report.console import GAP, WIDTH, chunks, print_pairs, print_table, say, title
from swe_cli.report.quantities import (
    BEFORE_RECOVERY,
    LOSS,
    MAE,
    OF_QUESTIONS,
    TO_RECOVERED,
    Quantity,
    sign,
)
from swe_cli.report.summary import REFERENCES, Line, Point, Summary, break_point, sentence
from swe_cli.report.tables import SETTINGS, records
from swe_cli.report.text import MARKS, NOTHING, count, exact, number, percent, word

MANY = 4  # lines, beyond which break-points are a table, and losses too many to stand together
_LOSSES = {
    "loss before recovery": LOSS.before,
    "loss": LOSS.mean,
    "loss, random batches": "random_batches_loss_nats",
    "against dense": LOSS.delta,
    "before recovery, against dense": BEFORE_RECOVERY,
    "against dense recovered": TO_RECOVERED,
}
_OF_CUTS = ("criterion", "prunable", "roles")  # said of what was pruned only


def print_row(console: Console, row: Row) -> None:
    """Label and value, one pair a line; what was not measured is left out.

    Intervals are over the windows of the test split; losses and deltas in nats per token, accuracy
    in % with its deltas in percentage points.
    """
    print_pairs(console, [pair for pair in _pairs(row) if pair[1]])


def _pairs(row: Row) -> Iterator[tuple[str, str]]:
    of: dict[str, Any] = dict(row.columns())
    yield "model", f"{of['model']} on {of['data']}, seed {of['seed']}"
    yield "kind", KIND_NAMES[of["kind"]]
    for name in ("criterion", *SETTINGS, "ratio", "rate"):
        if of.get(name) is not None and (of["kind"] == PRUNED or name not in _OF_CUTS):
            yield "prunable set" if name == "prunable" else name, word(of[name])
    yield from ((name, str(value)) for name, value in sorted(row.varied.items()))
    if of["status"] == "failed":
        yield "failed", of["error"] or "no message"
        return

    def spelled(name: str, spell: Callable[[float], str]) -> str:
        return "" if of.get(name) is None else spell(of[name])

    roles = sorted(name for name in of if name.startswith("sparsity."))
    for name in ("sparsity", *roles, "compression"):
        yield name.replace("y.", "y of "), spelled(name, "{:.2%}".format)
    for name in COSTS:
        yield name.replace("_", " "), spelled(name, "{:,.0f}".format)
    for words, column in _LOSSES.items():
        if of["recovery"] != "none" or "before" not in words:
            unit = "" if column.startswith("delta_") else "nats per token"
            yield words, LOSS.phrase(of, column, unit)
    yield "bits per character", spelled("bits_per_character", number)
    yield "perplexity", spelled("perplexity", number)
    yield "overlap with magnitude", spelled("jaccard_magnitude", number)
    for q in OF_QUESTIONS:
        yield f"{q.short} before recovery", q.phrase(of, q.before)
        yield q.short, q.phrase(of, q.mean)
        for name in sorted(name for name in of if name.startswith(f"{q.mean}.")):
            yield f"  {name.removeprefix(f'{q.mean}.')}", q.phrase(of, name)
        yield f"{q.short}, against dense", q.phrase(of, q.delta, "points" if q.percent else "")
        yield f"{q.short}, always the {q.baseline}", q.phrase(of, q.baseline_column)
    yield "RMSE", spelled("rmse", number)
    yield "RMSE, always the median answer", spelled("rmse_median", number)
    yield "answers that are no number", spelled("unparsable", "{:.1%}".format)
    yield "protocol", of["fingerprint"]


def print_summary(console: Console, summary: Summary) -> None:
    """Controls, loss against ratio, break-points in words, overlap with magnitude, failures.

    Losses and deltas in nats per token.
    """
    every = [*summary.controls, *summary.cuts]
    seeds = f"{count(len(summary.seeds), 'seed')} ({', '.join(map(str, summary.seeds))})"
    say(console, f"{summary.model} on {summary.data}, {seeds}", "bold")
    if LOSS.drawable(every):
        over = f" [{summary.intervals}]" if summary.intervals else ""
        say(console, f"Loss in nats per token{over}; delta against dense.")
    say(console, f"Protocol {summary.fingerprint}", "dim")
    for caveat in summary.caveats:
        say(console, caveat, "yellow")
    answers = [q for q in OF_QUESTIONS if q.drawable(every)]
    if summary.controls:
        _print_controls(console, summary, answers)
    if summary.lines:
        for quantity in (LOSS, *answers):
            _print_quantity(console, summary.lines, quantity, compact=bool(answers))
        _print_break_points(console, summary)
        _print_overlap(console, summary.lines)
    _print_gaps(console, summary)


def _print_controls(console: Console, summary: Summary, answers: Sequence[Quantity]) -> None:
    """What nothing was cut from, what one gets without a model, and from the questions alone."""
    title(console, "Controls: nothing cut")
    rows: list[list[str | Text]] = [
        [p["label"], *LOSS.cells(p, LOSS.mean), *LOSS.cells(p, LOSS.delta)]
        for p in summary.controls
    ]
    print_table(console, ["", "loss", "", "delta", ""], rows)
    if answers:
        console.print()
        heads = [head for q in answers for head in (q.short, "", "")]
        rows = [
            [p["label"], *(cell for q in answers for cell in (*q.cells(p, q.mean), _mark(p, q)))]
            for p in summary.controls
        ]
        print_table(console, ["", *heads], rows)
    blind = [point for point in summary.controls if BY_KIND[point["kind"]].blind]
    for q in (q for q in answers if q.name in summary.baselines):
        worth = f"{'MAE ' if q is MAE else ''}{q.spell(summary.baselines[q.name])}"
        if len(blind) == 1 and blind[0][q.mean] is not None:
            worth += f"; with the images shuffled: {q.spell(blind[0][q.mean])}"
        say(console, f"Always the {q.baseline}: {worth}.")
    if blind and not any(sign(blind[0], quantity.delta) for quantity in (LOSS, *answers)):
        say(console, "Other images make no sure difference: it may not look.", "yellow")


def _print_quantity(
    console: Console, lines: Sequence[Line], quantity: Quantity, *, compact: bool
) -> None:
    """Means side by side where lines are few, or ``compact``; otherwise each with intervals."""
    together = _chunks(lines, 10, "ratio ") if compact or len(lines) <= MANY else []
    together = [chunk for chunk in together if len(chunk) > 1]
    alone = [line for line in lines if not any(line in chunk for chunk in together)]
    points = " (delta in percentage points)" if alone and quantity.percent else ""
    title(console, f"{quantity.title.capitalize()} after recovery{points}")
    best = {line.label: line.best(quantity) for line in lines}

    def cell(line: Line, point: Point | None) -> Text:
        if point is None:
            return Text(f"{NOTHING}   ")
        mark = _mark(point, quantity)
        star = "*" if point is best[line.label] else " "
        return Text(f"{quantity.spell(point[quantity.mean])} {mark.plain or ' '}{star}", mark.style)

    for chunk in together:
        _print_side_by_side(console, chunk, cell)
    for place, line in enumerate(alone):
        if place:
            console.print()
        say(console, line.label, "bold")
        rows: list[list[Text | str]] = [
            [
                *(_cut(point), quantity.spell(point[quantity.before])),
                *quantity.cells(point, quantity.mean),
                *quantity.cells(point, quantity.delta),
                _mark(point, quantity, best[line.label]),
            ]
            for point in line.points
        ]
        head = "ratio" if line.by == "ratio" else "sparsity"
        print_table(console, [head, "before", quantity.short, "", "delta", "", "  "], rows)
    better, worse = MARKS[quantity.better], MARKS[-quantity.better]
    signs = f"{better} better, {worse} worse than dense (paired 95% interval excludes 0)"
    best_of = "highest" if quantity.better > 0 else "lowest"
    say(console, f"{signs}; * column's {best_of}", "dim")


def _chunks(lines: Sequence[Line], narrowest: int, beside: str) -> list[Sequence[Line]]:
    """Lines that fit ``beside`` the other columns, headed by their own words; by rate, none do."""

    def fit(lines: Sequence[Line]) -> bool:
        widths = [max(narrowest, *map(len, _heading(line))) for line in lines]
        return len(beside) + sum(width + GAP for width in widths) <= WIDTH

    return chunks([line for line in lines if line.by == "ratio"], fit)


def _print_side_by_side(
    console: Console,
    lines: Sequence[Line],
    cell: Callable[[Line, Point | None], Text | str],
    **of_cut: Callable[[float], str],
) -> None:
    """A row for every cut, a column for every line, and for what is said of the cut alone."""
    by_rate = lines[0].by == "rate"
    rows = []
    of_lines = [(line, {point["x"]: point for point in line.points}) for line in lines]
    for x, point in sorted({p["x"]: p for line in lines for p in line.points}.items()):
        cut = [exact(point["rate"]), _cut(point)] if by_rate else [exact(x)]
        cells = [cell(line, points.get(x)) for line, points in of_lines]
        rows.append([*cut, *cells, *(spell(x) for spell in of_cut.values())])
    heads = ["rate", "sparsity"] if by_rate else ["ratio"]
    heads += ["\n".join(_heading(line)) for line in lines]
    print_table(console, [*heads, *of_cut], rows)


def _heading(line: Line) -> list[str]:
    """The words above a line's column; of its roles only the names."""
    return [line.criterion, *(part.removeprefix("roles ") for part in line.parts)]


def _mark(point: Point, quantity: Quantity, best: Point | None = None) -> Text:
    """Which way a point differs from dense for certain, green where that is better."""
    way = sign(point, quantity.delta)
    style = {1: "green", 0: "", -1: "red"}[quantity.better * way]
    return Text(f"{MARKS[way]}{'*' if point is best else ''}", style)


def _cut(point: Point) -> str:
    """The ratio asked for, or the sparsity achieved."""
    asked = point["x"] == point["ratio"]
    return exact(point["ratio"]) if asked else percent(point["x"], decimals=1)


def _print_break_points(console: Console, summary: Summary) -> None:
    """Sentences where lines are few, otherwise a table."""
    answers = {
        quantity: exact(round(quantity.scale * quantity.tolerance, 6))
        for quantity in OF_QUESTIONS
        if math.isfinite(quantity.tolerance) and quantity.drawable(summary.cuts)
    }
    if len(summary.lines) <= MANY:
        heads = {LOSS: f"Break-points (tolerance {exact(LOSS.tolerance)} nats)"}
        for q, most in answers.items():
            heads[q] = f"Break-points of {q.title} (tolerance {most} percentage point)"
        for quantity, head in heads.items():
            title(console, head)
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
    columns = [head for _, head, _ in REFERENCES] + [f"of\n{q.title}" for q in answers]
    print_table(console, ["", *columns, "lowest\nloss", "at"], rows)
    costs = [f"{exact(LOSS.tolerance)} nats"]
    costs += [f"{most} point of {quantity.title}" for quantity, most in answers.items()]
    bound = "by the bound of the paired 95% interval"
    say(console, f"holds: costs at most {' or '.join(costs)}, {bound}", "dim")


def _print_overlap(console: Console, lines: Sequence[Line]) -> None:
    """Magnitude itself, which overlaps wholly, is left out."""
    overlap = "jaccard_magnitude"
    measured = [line for line in lines if {p[overlap] for p in line.points} - {None, 1.0}]
    if not measured:
        return
    title(console, "Overlap of what is cut with magnitude's cut (Jaccard)")

    def cell(_: Line, point: Point | None) -> str:
        return number(point[overlap] if point else None)

    by_rate = [[line] for line in measured if line.by == "rate"]
    for chunk in [*_chunks(measured, 6, "ratio   chance"), *by_rate]:
        _print_side_by_side(console, chunk, cell, chance=lambda x: number(x / (2 - x)))
    say(console, "chance: two random cuts of the same size, r / (2 - r)", "dim")


def _print_gaps(console: Console, summary: Summary) -> None:
    """Cuts of fewer seeds, and cells that failed."""
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
