"""A row, and a summary, in the terminal: readable at 80 columns, and at 40."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from swe_cli.controls import BY_KIND, KIND_NAMES
from swe_cli.records import SETTINGS, Row, meaning_of
from swe_cli.report import text
from swe_cli.report.against import Windows
from swe_cli.report.answer import answer, break_point, break_range, headline, holding, leading
from swe_cli.report.console import mark, marked, print_grid, print_pairs, print_table, say, title
from swe_cli.report.quantities import ACCURACY, LOSS, MAE, QUANTITIES, Quantity, bounds, sign
from swe_cli.report.summary import OVERLAP, Point, Summary, chosen, cut_of, on_validation
from swe_cli.report.tables import records

TESTED = "Above: single tests of the best by validation loss."
UNVALIDATED = "Above: single tests of the best on test (no validation loss)."
NARROW = 60  # columns, below which numbers have a digit less


def print_row(console: Console, row: Row) -> None:
    """Each of its columns and axes with its interval, one a line; what is not known is left out."""
    print_pairs(console, list(_pairs(row)))


def model_card(row: Row, dtype: str | None = None) -> str:
    """What one should know of a pruned model that leaves, in another ``dtype``: Markdown."""
    loss, delta = row.mean("loss"), row.mean("delta")
    dense = [] if loss is None or delta is None else [("dense loss", text.number(loss - delta))]
    made = f"Cut by criterion={row.settings['criterion']}, with the tool swe; losses are means over"
    made += f" the test split{f', measured before the weights became {dtype}' if dtype else ''}."
    table = text.markdown_table([["", ""], *dense, *_pairs(row)], left=2)
    return f"# {row.model}, pruned\n\n{made}\n\n{table}\n"


def _pairs(row: Row) -> Iterator[tuple[str, str]]:
    row = row if row.status == "done" else replace(row, metrics={})
    of: dict[str, Any] = row.columns() | row.varied
    ends = {end for name in of for end in bounds(name)}
    unrecovered = of["recovery"] in (None, "none")
    for name, value in of.items():
        if value is None or name in ends or (unrecovered and "before_recovery" in name):
            continue
        percent = "accuracy" in name or "fraction" in (meaning_of(name) or "")
        exact = of.get(bounds(name)[0]) is None and not name.endswith("_nats")
        if isinstance(value, str) or name in ("seed", *SETTINGS, *row.varied):
            words = text.word(KIND_NAMES.get(str(value), value))
        elif percent or not exact or (value % 1 and value < 1e4):
            unit = "nats" if name.endswith("_nats") else ""
            unit = "points" if percent and name.startswith("delta_") else unit
            words = (ACCURACY if percent else LOSS).phrase(of, name, unit)
        else:  # a count
            words = f"{value:,.0f}" if value < 1e9 else f"{value:.3g}"
        yield name.removesuffix("_nats").replace("_", " "), words


def print_summary(
    console: Console,
    summary: Summary,
    windows: Windows | None = None,
    *,
    rows: bool = False,
    tolerance: float = LOSS.tolerance,
) -> None:
    """The answer, the controls, and the best lines against dense, in at most 40 lines.

    ``rows``: after them everything else, line by line. ``windows``: as of ``answer``.
    ``tolerance``: nats that a cut may cost and still hold.
    """
    quantities, told = headline(summary), holding(tolerance)
    seeds = f"{text.count(len(summary.seeds), 'seed')} ({', '.join(map(str, summary.seeds))})"
    only = ": this training only" if len(summary.seeds) == 1 else ""
    say(console, f"{summary.model} on {summary.data}, {seeds}{only}", "bold")
    for sentence in answer(summary, windows):
        say(console, sentence)
    for caveat in summary.caveats:
        say(console, caveat, "yellow")
    _print_controls(console, summary, quantities or [LOSS])
    if quantities:
        judged = quantities[0]
        holds = next((q for q in told.values() if q.name == judged.name), told["dense"])
        _print_leading(console, summary, judged, holds)
    _print_baselines(console, summary, quantities)
    _print_gaps(console, summary)
    if rows:
        _print_rows(console, summary, told)


def _print_controls(console: Console, summary: Summary, quantities: Sequence[Quantity]) -> None:
    """What nothing was cut from; the same model once."""
    if not summary.controls:
        say(console, "\nNo control: nothing says what a cut costs.", "yellow")
        return

    def cell(point: Point, q: Quantity) -> Text:
        if point[q.mean] is None:
            return Text(text.NOTHING)
        delta = "" if point["kind"] == "dense" else _compact(point, q, q.delta, 0)
        mean = q.spell(point[q.mean]) if q.percent else f"{point[q.mean]:.3f}"
        return Text.assemble(f"{mean} ", delta or " " * 5)

    shown = [p for p in summary.controls if p["label"] not in summary.equal]
    title(console, "Controls: nothing cut")
    rows = [[p["label"], *(cell(p, q) for q in quantities)] for p in shown]
    print_grid(console, ["", *(q.short for q in quantities)], rows)


def _print_leading(console: Console, summary: Summary, q: Quantity, holds: Quantity) -> None:
    """The best lines by cut: differences to dense, and how far each holds."""
    column = q.delta if any(cut[q.delta] is not None for cut in summary.cuts) else q.mean
    lines, fewer = leading(summary, q), int(console.width < NARROW)
    points = [p for line in lines for p in line.points if p["x"] is not None]
    places = dict(sorted({p["x"]: cut_of(p) for p in points}.items()))
    rows = []
    for line in lines:
        cuts = {p["x"]: _compact(p, q, column, fewer) for p in line.points}
        cells = [cuts.get(x, text.NOTHING) for x in places]
        rows.append([line.short, *cells, break_point(line, holds)])
    less = ", less dense's" if column == q.delta else ""
    title(console, f"{q.title.capitalize()} {summary.stage}{less}")
    if 2 * len(points) > len(lines) * len(places):
        print_grid(console, ["", *places.values(), "holds"], rows)
    else:  # cuts that hardly any two lines share: the best of each, with all of its name
        for row, line in zip(rows, lines, strict=True):
            best = chosen(line.points, q) or line.points[0]
            row[1:-1] = [_compact(best, q, column, fewer), cut_of(best)]
        print_table(console, ["", "best", "at", "holds"], rows)
    left = len(summary.lines) - len(lines)
    words = [
        f"{text.MARKS[-1]} lower, {text.MARKS[1]} higher than dense: q < 0.05 (exploratory, "
        f"Benjamini-Hochberg), paired {summary.intervals or '95% interval'}.",
        f"holds: costs at most {holds.cost} (one-sided 0.025, from the mildest cut on).",
        TESTED if on_validation([*summary.controls, *summary.cuts]) else UNVALIDATED,
        f"{text.count(left, 'more line')} with --rows." if left else "",
        f"Protocol {summary.fingerprint}.",
    ]
    say(console, " ".join(filter(None, words)), "dim")


def _compact(point: Point, quantity: Quantity, column: str, fewer: int) -> Text | str:
    """``marked``; of a mean, that."""
    if column == quantity.mean and (value := point[column]) is not None:
        return quantity.spell(value) if quantity.percent else f"{value:.{3 - fewer}f}"
    return marked(point, column, quantity, fewer)


def _print_rows(console: Console, summary: Summary, holds: Mapping[str, Quantity]) -> None:
    """Each quantity, line by line, with overlap with magnitude; then how far each line holds."""
    groups = [("", summary.controls), *((line.label, line.points) for line in summary.lines)]
    for q in (q for q in QUANTITIES if q.drawable([p for _, points in groups for p in points])):
        title(console, f"{q.title.capitalize()} {summary.stage}")
        columns = {"before": q.before, "over\nlap": OVERLAP if q is LOSS else ""}
        columns |= {q.short: q.mean, "delta": q.delta}
        for name, points in groups:
            if name:
                title(console, name)
            told = {h: c for h, c in columns.items() if name or c in (q.mean, q.delta)}
            told = {h: c for h, c in told.items() if any(p.get(c) is not None for p in points)}
            rows = []
            for p in points:
                words = [q.phrase(p, column) or text.NOTHING for column in told.values()]
                if console.width < NARROW:  # no intervals
                    words = [of.partition(" ")[0] for of in words]
                rows.append([cut_of(p) if name else p["label"], *words, mark(p, q.delta, q)])
            print_table(console, ["cut" if name else "", *told, ""], rows)
    say(console, "overlap: with what magnitude cuts (Jaccard); by chance r / (2 - r)", "dim")
    title(console, "Break-points: the largest cut that holds (lowest–highest of single seeds)")
    for line in summary.lines:
        held = {words: (break_point(line, q), break_range(line, q)) for words, q in holds.items()}
        held = {words: of for words, of in held.items() if of[0] != text.NOTHING}
        cells = [f"{words} {of}{f' ({by})' * bool(by)}" for words, (of, by) in held.items()]
        say(console, f"{line.label}: {', '.join(cells)}")


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


def _print_gaps(console: Console, summary: Summary) -> None:
    """Cuts of fewer seeds, and cells that failed."""
    expected = len(summary.seeds)
    short = [
        f"{line.label} at {cut_of(point)} ({len(point['seeds'])} of {expected})"
        for line in summary.lines
        for point in line.points
        if len(point["seeds"]) < expected
    ]
    if short:
        where = textwrap.shorten("; ".join(short), 240, placeholder=" …")
        say(console, f"\nFewer seeds than elsewhere: {where}.", "yellow")
    if summary.uncalibrated:
        rows = f"{text.count(summary.uncalibrated, 'row')} of an older version: no calibrated loss."
        say(console, f"{rows} Add --refresh to the swe sweep.", "yellow")
    if len(summary.failed):
        first = records(summary.failed)[0]
        cut = text.exact(first["ratio"]) or text.exact(first["rate"])
        name = f"{first['criterion']} at {cut}" if cut else KIND_NAMES[first["kind"]]
        words = (first["error"] or "no message").split("\n")[0]
        say(
            console,
            f"\n{text.count(len(summary.failed), 'cell')} failed, and are in no mean.",
            "red",
        )
        say(console, f"First: {name}: {words}")
