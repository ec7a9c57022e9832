"""A summary in the terminal: tables readable at 80 columns, with or without colour."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from swe_cli.reporting.break_points import (
    TOLERANCE_ACCURACY,
    TOLERANCE_NATS,
    accuracy_break_point,
    accuracy_sentence,
    break_point,
    sentence,
)
from swe_cli.reporting.quantity import ACCURACY, LOSS, MAE, OF_QUESTIONS, Quantity
from swe_cli.reporting.summary import Line, Summary
from swe_cli.reporting.terminal_tables import (
    GAP,
    WIDTH,
    cells,
    chunks,
    cut,
    fits,
    heading,
    legend,
    mark,
    print_blocks,
    print_columns,
    print_compact,
    print_table,
    say,
    title,
)
from swe_cli.reporting.text import (
    KIND_NAMES,
    NOTHING,
    count,
    exact,
    listed,
    number,
)

MANY = 4  # lines, beyond which break-points are a table


def print_summary(console: Console, summary: Summary, *, tolerance: float = TOLERANCE_NATS) -> None:
    """Controls, loss against ratio, break-points in words, overlap with magnitude, failures.

    Losses and deltas in nats per token; ``tolerance`` is the break-point's.
    """
    seeds = f"{count(len(summary.seeds), 'seed')} ({listed(summary.seeds)})"
    say(console, f"{summary.model} on {summary.data}, {seeds}", "bold")
    if summary.intervals:
        say(console, f"Loss in nats per token [{summary.intervals}]; delta against dense.")
    say(console, f"Protocol {summary.fingerprint}", "dim")
    answers = [quantity for quantity in OF_QUESTIONS if quantity.measured(summary)]
    if summary.controls:
        _print_controls(console, summary)
        if answers:
            _print_answers_of_controls(console, summary, answers)
    for quantity in answers:
        if quantity.name in summary.baselines:
            say(console, _baseline(summary, quantity))
    blind = [control.point for control in summary.controls if control.kind == "dense_blind"]
    if blind and not any(mark(blind[0], quantity).plain.strip() for quantity in (LOSS, *answers)):
        say(
            console,
            "Other images make no sure difference: it may not look.",
            "yellow",
        )
    if summary.lines:
        if answers:
            for quantity in (LOSS, *answers):
                _print_answers(console, summary.lines, quantity)
        else:
            _print_losses(console, summary.lines)
        _print_break_points(console, summary, tolerance)
        _print_overlap(console, summary.lines)
    _print_gaps(console, summary)


def _print_controls(console: Console, summary: Summary) -> None:
    title(console, "Controls: nothing cut")
    rows = []
    for control in summary.controls:
        loss, delta = control.point.loss, control.point.delta
        rows.append([Text(control.label), *cells(loss, LOSS), *cells(delta, LOSS, signed=True)])
    print_table(console, ["", "loss", "", "delta", ""], rows)


def _print_answers_of_controls(
    console: Console, summary: Summary, quantities: Sequence[Quantity]
) -> None:
    console.print()
    rows = []
    for control in summary.controls:
        row = [Text(control.label)]
        for quantity in quantities:
            mean = quantity.read(control.point).mean
            row += [*cells(mean, quantity), mark(control.point, quantity)[:1]]
        rows.append(row)
    titles = [word for quantity in quantities for word in (quantity.short, "", "")]
    print_table(console, ["", *titles], rows)


def _baseline(summary: Summary, quantity: Quantity) -> str:
    """What one gets without a model, and from the questions alone."""
    known = summary.baselines[quantity.name]
    unit = "MAE " if quantity is MAE else ""
    always = f"Always the {quantity.baseline}: {unit}{quantity.spell(known)}"
    blind = [quantity.read(c.point).mean for c in summary.controls if c.kind == "dense_blind"]
    shuffled = ""
    if len(blind) == 1 and blind[0]:
        shuffled = f"; with the images shuffled: {quantity.spell(blind[0].mean)}"
    return f"{always}{shuffled}."


def _print_losses(console: Console, lines: Sequence[Line]) -> None:
    title(console, "Loss after recovery")
    if 2 <= len(lines) <= 4 and fits(lines):
        print_columns(console, lines, LOSS)
    else:
        print_blocks(console, lines, LOSS)
    say(console, legend(LOSS), "dim")


def _print_answers(console: Console, lines: Sequence[Line], quantity: Quantity) -> None:
    """Side by side where there are several lines, otherwise with intervals."""
    side_by_side = len(lines) > 1
    blocks = not side_by_side or any(line.by == "rate" for line in lines)
    points = " (delta in percentage points)" if blocks and quantity is ACCURACY else ""
    title(console, f"{quantity.title.capitalize()} after recovery{points}")
    if side_by_side:
        print_compact(console, lines, quantity)
    else:
        print_blocks(console, lines, quantity)
    say(console, legend(quantity), "dim")


def _print_break_points(console: Console, summary: Summary, tolerance: float) -> None:
    nats, point = exact(tolerance), exact(round(100 * TOLERANCE_ACCURACY, 6))
    answers = ACCURACY.drawable(summary)
    if len(summary.lines) > MANY:
        title(console, "Break-points: the largest cut that holds")
        _print_break_point_table(console, summary.lines, tolerance, answers=answers)
        costs = f"at most {nats} nats" + (f" or {point} point of accuracy" if answers else "")
        say(console, f"holds: costs {costs}, by the bound of the paired 95% interval", "dim")
        return
    title(console, f"Break-points (tolerance {nats} nats)")
    for line in summary.lines:
        say(console, sentence(line, tolerance))
    if answers:
        title(console, f"Break-points of accuracy (tolerance {point} percentage point)")
        for line in summary.lines:
            say(console, accuracy_sentence(line))


def _print_break_point_table(
    console: Console, lines: Sequence[Line], tolerance: float, *, answers: bool
) -> None:
    rows = []
    for line in lines:
        decimals = 1 if line.by == "rate" else None
        found = [
            break_point(line, "dense", tolerance),
            break_point(line, "dense_recovered", tolerance),
            break_point(line, "dense", tolerance, True),
        ]
        if answers:
            found.append(accuracy_break_point(line))
        best = line.best
        lowest = [number(best.loss.mean), cut(best)] if best and best.loss else [NOTHING, ""]
        words = [one.short(decimals=decimals) for one in found] + lowest
        rows.append([Text(line.label), *map(Text, words)])
    heads = ["against\ndense", "dense\nrecovered", "before\nrecovery"]
    heads += ["of\naccuracy"] if answers else []
    print_table(console, ["", *heads, "lowest\nloss", "at"], rows)


def _print_overlap(console: Console, lines: Sequence[Line]) -> None:
    # Magnitude itself, which overlaps wholly, is left out.
    measured = [line for line in lines if any(p.jaccard not in (None, 1.0) for p in line.points)]
    if not measured:
        return
    title(console, "Overlap of what is cut with magnitude's cut (Jaccard)")
    for chunk in chunks([line for line in measured if line.by == "ratio"], _overlap_fits):
        _print_overlap_columns(console, chunk)
    for line in measured:
        if line.by == "rate":
            say(console, line.label, "bold")
            rows = [
                [
                    Text(exact(p.rate)),
                    Text(cut(p)),
                    Text(number(p.jaccard)),
                    Text(number(p.chance)),
                ]
                for p in line.points
            ]
            print_table(console, ["rate", "sparsity", "overlap", "chance"], rows)
    say(console, "chance: two random cuts of the same size, r / (2 - r)", "dim")


def _overlap_fits(lines: Sequence[Line]) -> bool:
    widths = [max(map(len, heading(line))) for line in lines]
    return len("ratio   chance") + sum(max(6, width) + GAP for width in widths) <= WIDTH


def _print_overlap_columns(console: Console, lines: Sequence[Line]) -> None:
    points = [{point.x: point for point in line.points} for line in lines]
    rows = []
    for ratio in sorted({ratio for column in points for ratio in column}):
        found = [column.get(ratio) for column in points]
        chance = next(point.chance for point in found if point)
        overlaps = [number(point.jaccard if point else None) for point in found]
        rows.append([Text(word) for word in (exact(ratio), *overlaps, number(chance))])
    titles = ["ratio", *("\n".join(heading(line)) for line in lines), "chance"]
    print_table(console, titles, rows)


def _print_gaps(console: Console, summary: Summary) -> None:
    expected = len(summary.seeds)
    short = [
        f"{line.label} at {cut(point)} ({len(point.seeds)} of {expected})"
        for line in summary.lines
        for point in line.points
        if len(point.seeds) < expected
    ]
    if short:
        say(console, f"\nFewer seeds than elsewhere: {'; '.join(short)}.", "yellow")
    if summary.failed:
        first = summary.failed[0]
        asked = exact(first.ratio) or exact(first.rate)
        name = f"{first.criterion} at {asked}" if asked else KIND_NAMES[first.kind]
        words = (first.error or "no message").split("\n")[0]
        say(console, f"\n{count(len(summary.failed), 'cell')} failed, left out above.", "red")
        say(console, f"First: {name}: {words}")
