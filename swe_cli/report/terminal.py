"""A row, and a summary, in the terminal: tables readable at 80 columns."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from swe_cli.controls import BY_KIND, KIND_NAMES, PRUNED
from swe_cli.records import COSTS, Row
from swe_cli.report import text
from swe_cli.report.console import print_grid, print_pairs, print_table, say, title
from swe_cli.report.quantities import (
    BEFORE_RECOVERY,
    CALIBRATED,
    LOSS,
    MAE,
    OF_QUESTIONS,
    QUANTITIES,
    TO_RECOVERED,
    TO_RECOVERED_CALIBRATED,
    Quantity,
    bounds,
    sign,
)
from swe_cli.report.summary import OVERLAP, Line, Point, Summary
from swe_cli.report.tables import OF_LINE, records

# What a cut may cost, and against what: what stands above its break-points.
HOLDING = {
    "against\ndense": LOSS,
    "dense\nrecovered": replace(LOSS, delta=TO_RECOVERED),
    "before\nrecovery": replace(LOSS, delta=BEFORE_RECOVERY),
    **{f"of\n{q.title}": q for q in OF_QUESTIONS if math.isfinite(q.tolerance)},
}
_LOSSES = {
    "loss before recovery": LOSS.before,
    "loss": LOSS.mean,
    "loss, random batches": "random_batches_loss_nats",
    "against dense": LOSS.delta,
    "before recovery, against dense": BEFORE_RECOVERY,
    "against dense recovered": TO_RECOVERED,
    "calibrated loss": CALIBRATED.mean,
    "calibrated, against dense": CALIBRATED.delta,
    "calibrated, against dense recovered": TO_RECOVERED_CALIBRATED,
}


def print_row(console: Console, row: Row) -> None:
    """Label and value, one pair a line; what was not measured is left out.

    Intervals are over the windows of the test split; losses and deltas in nats per token, accuracy
    in % with its deltas in percentage points.
    """
    print_pairs(console, [pair for pair in _pairs(row) if pair[1]])


def model_card(row: Row, dtype: str | None = None) -> str:
    """What one should know of a pruned model that leaves, in another ``dtype``: Markdown."""
    loss, delta = row.mean("loss"), row.mean("delta")
    dense = [] if loss is None or delta is None else [("dense loss", text.number(loss - delta))]
    pairs = [[name, value] for name, value in (*dense, *_pairs(row)) if value]
    made = f"Cut by criterion={row.settings['criterion']}, with the tool swe; losses are means over"
    made += f" the test split{f', measured before the weights became {dtype}' if dtype else ''}."
    return f"# {row.model}, pruned\n\n{made}\n\n{text.markdown_table([['', ''], *pairs], left=2)}\n"


def _pairs(row: Row) -> Iterator[tuple[str, str]]:
    of: dict[str, Any] = dict(row.columns())
    yield "model", f"{of['model']} on {of['data']}, seed {of['seed']}"
    yield "kind", KIND_NAMES[of["kind"]]
    for name in ("criterion", *OF_LINE, "ratio", "rate"):
        only_of_cuts = name in ("criterion", "prunable", "roles")
        if of.get(name) is not None and (of["kind"] == PRUNED or not only_of_cuts):
            yield "prunable set" if name == "prunable" else name, text.word(of[name])
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
    yield "active blocks", spelled("active_blocks", "{:.1%}".format)
    for words, column in _LOSSES.items():
        if of["recovery"] != "none" or "before" not in words:
            unit = "" if column.startswith("delta_") else "nats per token"
            yield words, LOSS.phrase(of, column, unit)
    yield "temperature, of validation", spelled("temperature", text.number)
    yield "top-1", spelled("top1", "{:.1%}".format)
    yield "bits per character", spelled("bits_per_character", text.number)
    yield "perplexity", spelled("perplexity", text.number)
    yield "overlap with magnitude", spelled(OVERLAP, text.number)
    for q in OF_QUESTIONS:
        yield f"{q.short} before recovery", q.phrase(of, q.before)
        yield q.short, q.phrase(of, q.mean)
        for name in sorted(name for name in of if name.startswith(f"{q.mean}.")):
            yield f"  {name.removeprefix(f'{q.mean}.')}", q.phrase(of, name)
        yield f"{q.short}, against dense", q.phrase(of, q.delta, "points" if q.percent else "")
        yield f"{q.short}, always the {q.baseline}", q.phrase(of, q.baseline_column)
    yield "RMSE", spelled("rmse", text.number)
    yield "RMSE, always the median answer", spelled("rmse_median", text.number)
    yield "answers that are no number", spelled("unparsable", "{:.1%}".format)
    yield "answers that never end", spelled("unended", "{:.1%}".format)
    yield "tokens of an answer", spelled("answer_tokens", text.number)
    yield "FLOPs of an answer", spelled("flops_per_answer", "{:.3g}".format)
    yield "spikes of its training", spelled("spikes", "{:.0f}".format)
    yield "weights moved by its training", spelled("weights_moved", "{:.2%}".format)
    yield "FLOPs of its training", spelled("training_flops", "{:.3g}".format)
    yield "protocol", of["fingerprint"]


def print_summary(console: Console, summary: Summary) -> None:
    """Each quantity, line by line, break-points, overlap with magnitude, failures.

    Losses and deltas in nats per token.
    """
    quantities = [q for q in QUANTITIES if q.drawable([*summary.controls, *summary.cuts])]
    seeds = f"{text.count(len(summary.seeds), 'seed')} ({', '.join(map(str, summary.seeds))})"
    say(console, f"{summary.model} on {summary.data}, {seeds}", "bold")
    if LOSS in quantities:
        over = f" [{summary.intervals}]" if summary.intervals else ""
        say(console, f"Loss in nats per token{over}; delta against dense.")
    say(console, f"Protocol {summary.fingerprint}", "dim")
    for caveat in summary.caveats:
        say(console, caveat, "yellow")
    for quantity in quantities:
        _print_quantity(console, summary, quantity)
    _print_baselines(console, summary, quantities)
    _print_break_points(console, summary)
    _print_overlap(console, summary.lines)
    _print_gaps(console, summary)


def _print_quantity(console: Console, summary: Summary, quantity: Quantity) -> None:
    """What nothing was cut from, then every line."""
    points = " (delta in percentage points)" if quantity.percent else ""
    title(console, f"{quantity.title.capitalize()} after recovery{points}")
    heads = [quantity.short, "delta", ""]
    if summary.controls:
        title(console, "Controls: nothing cut")
        rows = [[p["label"], *_measured(p, quantity)] for p in summary.controls]
        print_table(console, ["", *heads], rows)
    several = len(summary.lines) > 1
    for line in summary.lines if quantity is not CALIBRATED or not several else ():
        title(console, line.label)
        best = line.best(quantity)
        before = [quantity.before] if quantity.before else []
        rows = [
            [_cut(p), *(quantity.spell(p[c]) for c in before), *_measured(p, quantity, best)]
            for p in line.points
        ]
        head = "ratio" if line.by == "ratio" else "sparsity"
        print_table(console, [head, *(["before"] if before else []), *heads], rows)
    if several:
        title(console, "Side by side")
        _print_by_cut(console, summary.lines, lambda point: _marked(point, quantity))
    better, worse = text.MARKS[quantity.better], text.MARKS[-quantity.better]
    signs = f"{better} better, {worse} worse than dense (paired 95% interval excludes 0)"
    best_of = "highest" if quantity.better > 0 else "lowest"
    say(console, f"{signs}; * line's {best_of}", "dim")


def _measured(point: Point, quantity: Quantity, best: Point | None = None) -> list[Text | str]:
    """Mean, delta and which way it differs for certain."""
    mark = _marked(point, quantity, "*" if point is best else "")
    phrases = (quantity.phrase(point, c) for c in (quantity.mean, quantity.delta))
    return [*(phrase or text.NOTHING for phrase in phrases), mark]


def _marked(point: Point, quantity: Quantity, words: str | None = None) -> Text:
    """A mean, or other words, after which way it differs for certain, green where it is better."""
    way = sign(point, quantity.delta)
    style = {1: "green", 0: "", -1: "red"}[quantity.better * way]
    spelt = quantity.spell(point[quantity.mean]) if words is None else words
    return Text(text.MARKS[way] + spelt, style)


def _cut(point: Point) -> str:
    """The ratio asked for, or the sparsity achieved; of a rate that failed, the rate."""
    if point["x"] is None:
        return text.exact(point["rate"])
    return text.exact(point["ratio"]) if point["x"] == point["ratio"] else f"{point['x']:.1%}"


def _print_baselines(console: Console, summary: Summary, quantities: Sequence[Quantity]) -> None:
    """What one gets without a model, and from the questions alone."""
    blind = [point for point in summary.controls if BY_KIND[point["kind"]].blind]
    for q in (q for q in quantities if q.name in summary.baselines):
        worth = f"{'MAE ' if q is MAE else ''}{q.spell(summary.baselines[q.name])}"
        if len(blind) == 1 and blind[0][q.mean] is not None:
            worth += f"; with the images shuffled: {q.spell(blind[0][q.mean])}"
        say(console, f"Always the {q.baseline}: {worth}.")
    if blind and not any(sign(blind[0], quantity.delta) for quantity in quantities):
        say(console, "Other images make no sure difference: it may not look.", "yellow")


def break_point(line: Line, quantity: Quantity) -> str:
    """``0.6``: the largest cut below the first one that costs more than the tolerance.

    ``<0.1`` where the mildest cut already costs more, ``≥0.9`` where none does, a dash where no
    bound was measured. It is the bound of the paired difference that must not be worse. A later
    cut that happens to be fine again does not count. A cut that failed does not hold, nor one whose
    loss is no finite number; other points without a bound are passed over.
    """
    held: Point | None = None
    if all(point["failed"] for point in line.points):
        return text.NOTHING  # nothing was measured, so nothing was found wanting
    for point in line.points:
        low, high = (point[bound] for bound in bounds(quantity.delta))
        cost = high if quantity.better < 0 or low is None else -low
        finite = math.isfinite(point[quantity.delta] or 0.0)
        if point["failed"] or point[LOSS.mean] is None or not finite:
            cost = math.inf
        if cost is None:
            continue
        if quantity.percent:  # of counts: a point lost must not become 0.010000000000000009
            cost = round(cost, 9)
        if cost > quantity.tolerance:
            return f"<{_cut(point)}" if held is None else _cut(held)
        held = point
    return text.NOTHING if held is None else f"≥{_cut(held)}"


def _print_break_points(console: Console, summary: Summary) -> None:
    told = {head: q for head, q in HOLDING.items() if q.drawable(summary.cuts)}
    if not told:
        return
    title(console, "Break-points: the largest cut that holds")
    rows = []
    for line in summary.lines:
        best = line.best(LOSS)
        lowest = [text.number(best[LOSS.mean]), _cut(best)] if best else [text.NOTHING, ""]
        rows.append([line.label, *(break_point(line, q) for q in told.values()), *lowest])
    print_table(console, ["", *told, "lowest\nloss", "at"], rows)
    costs = [f"{text.exact(LOSS.tolerance)} nats"]
    for q in (q for q in told.values() if q in OF_QUESTIONS):
        costs.append(f"{text.exact(round(q.scale * q.tolerance, 6))} point of {q.title}")
    most = " or ".join(costs)
    say(console, f"holds: costs at most {most}, by the bound of the paired 95% interval", "dim")
    say(console, "<: not even the mildest cut tried holds; ≥: every cut tried does", "dim")


def _print_overlap(console: Console, lines: Sequence[Line]) -> None:
    """Line by cut. Magnitude itself, which overlaps wholly, is left out."""
    measured = [line for line in lines if {p[OVERLAP] for p in line.points} - {None, 1.0}]
    if not measured:
        return
    title(console, "Overlap of what is cut with magnitude's cut (Jaccard)")
    chance = {"chance": lambda x: text.number(x / (2 - x))}
    _print_by_cut(console, measured, lambda point: text.number(point[OVERLAP]), chance)
    say(console, "chance: two random cuts of the same size, r / (2 - r)", "dim")


def _print_by_cut(
    console: Console,
    lines: Sequence[Line],
    cell: Callable[[Point], Text | str],
    of_cuts: Mapping[str, Callable[[float], str]] | None = None,
) -> None:
    """Lines side by side at the same cuts, and below them what is said of a cut alone."""
    by_ratio = [line for line in lines if line.by == "ratio"]
    by_rate = [[line] for line in lines if line.by == "rate"]  # each got elsewhere by a rate
    for group in filter(None, [by_ratio, *by_rate]):
        points = [point for line in group for point in line.points if point["x"] is not None]
        places = dict(sorted({point["x"]: point for point in points}.items()))
        heads = ["\n".join(filter(None, [text.exact(p["rate"]), _cut(p)])) for p in places.values()]
        rows = {
            text.short_label(line.criterion, line.parts): {p["x"]: cell(p) for p in line.points}
            for line in group
        }
        rows |= {name: {x: spell(x) for x in places} for name, spell in (of_cuts or {}).items()}
        cells = [[row.get(x, text.NOTHING) for x in places] for row in rows.values()]
        print_grid(console, list(rows), heads, cells)


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
    if summary.uncalibrated:
        rows = f"{text.count(summary.uncalibrated, 'row')} of an older version: no calibrated loss."
        say(console, f"{rows} Add --refresh to the swe sweep.", "yellow")
    if len(summary.failed):
        first = records(summary.failed)[0]
        cut = text.exact(first["ratio"]) or text.exact(first["rate"])
        name = f"{first['criterion']} at {cut}" if cut else KIND_NAMES[first["kind"]]
        words = (first["error"] or "no message").split("\n")[0]
        say(console, f"\n{text.count(len(summary.failed), 'cell')} failed, left out above.", "red")
        say(console, f"First: {name}: {words}")
