"""A row, and a summary, in the terminal: readable at 80 columns, and at 40."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from swe_cli.controls import BY_KIND, KIND_NAMES, PRUNED
from swe_cli.records import COSTS, Row
from swe_cli.report import text
from swe_cli.report.against import Windows
from swe_cli.report.answer import (
    answer,
    break_point,
    break_range,
    cost_of,
    cut_of,
    headline,
    holding,
    leading,
)
from swe_cli.report.console import (
    coloured,
    marked,
    print_grid,
    print_pairs,
    print_table,
    say,
    title,
)
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
    sign,
)
from swe_cli.report.summary import OVERLAP, Point, Summary, on_validation
from swe_cli.report.tables import OF_LINE, records

UNVALIDATED = "Best cuts: chosen on test (no validation loss in these rows)."
NARROW = 60  # columns, below which numbers have a digit less
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
    cells = []
    for line in lines:
        found = {p["x"]: _compact(p, q, column, fewer) for p in line.points}
        cells.append([*(found.get(x, text.NOTHING) for x in places), break_point(line, holds)])
    less = ", less dense's" if column == q.delta else ""
    title(console, f"{q.title.capitalize()} {summary.stage}{less}")
    if 2 * len(points) > len(lines) * len(places):
        rows = [[line.short, *of] for line, of in zip(lines, cells, strict=True)]
        print_grid(console, ["", *places.values(), "holds"], rows)
    else:  # cuts that hardly any two lines share: the best of each, with all of its name
        bests = [(line, line.best(q) or line.points[0]) for line in lines]
        told = [[line.short, _compact(p, q, column, fewer), cut_of(p)] for line, p in bests]
        told = [[*row, of[-1]] for row, of in zip(told, cells, strict=True)]
        print_table(console, ["", "best", "at", "holds"], told)
    left = len(summary.lines) - len(lines)
    words = [
        f"{text.MARKS[-1]} lower, {text.MARKS[1]} higher than dense: q < 0.05 (exploratory, "
        f"Benjamini-Hochberg), paired {summary.intervals or '95% interval'}.",
        f"holds: costs at most {cost_of(holds)} (one-sided 0.025, from the mildest cut on).",
        "" if on_validation(summary.cuts) else UNVALIDATED,
        f"{text.count(left, 'more line')} with --rows." if left else "",
        f"Protocol {summary.fingerprint}.",
    ]
    say(console, " ".join(filter(None, words)), "dim")


def _compact(point: Point, quantity: Quantity, column: str, fewer: int) -> Text | str:
    """``marked``; of a mean, that."""
    if column == quantity.mean and (value := point[column]) is not None:
        return quantity.spell(value) if quantity.percent else f"{value:.{3 - fewer}f}"
    return marked(point, column, quantity, fewer)


def _print_rows(console: Console, summary: Summary, told: Mapping[str, Quantity]) -> None:
    """Each quantity, line by line, with overlap with magnitude; then how far each line holds."""
    points, narrow = [*summary.controls, *summary.cuts], console.width < NARROW
    for q in (q for q in QUANTITIES if q.drawable(points)):
        title(console, f"{q.title.capitalize()} {summary.stage}")
        rows = [[p["label"], *_measured(p, q, narrow)] for p in summary.controls]
        print_table(console, ["", q.short, "delta", ""], rows)
        for line in summary.lines:
            title(console, line.label)
            more = {"before": q.before, "over\nlap": OVERLAP if q is LOSS else ""}
            more = {h: c for h, c in more.items() if any(p.get(c) is not None for p in line.points)}
            rows = [
                [cut_of(p), *(q.spell(p[c])[:6] for c in more.values()), *_measured(p, q, narrow)]
                for p in line.points
            ]
            head = "ratio" if line.by == "ratio" else "sparsity"
            print_table(console, [head, *more, q.short, "delta", ""], rows)
    say(console, "overlap: with what magnitude cuts (Jaccard); by chance r / (2 - r)", "dim")
    title(console, "Break-points: the largest cut that holds (lowest–highest of single seeds)")
    for line in summary.lines:
        holds = {words: (break_point(line, q), break_range(line, q)) for words, q in told.items()}
        holds = {words: held for words, held in holds.items() if held[0] != text.NOTHING}
        cells = [f"{words} {of}{f' ({by})' if by else ''}" for words, (of, by) in holds.items()]
        say(console, f"{line.label}: {', '.join(cells)}")


def _measured(point: Point, quantity: Quantity, narrow: bool) -> list[Text | str]:
    """Mean, delta and which way it differs for certain; where it is ``narrow``, no intervals."""
    way, columns = sign(point, quantity.delta), (quantity.mean, quantity.delta)
    phrases = [quantity.phrase(point, c) or text.NOTHING for c in columns]
    phrases = [words.partition(" ")[0] for words in phrases] if narrow else phrases
    return [*phrases, coloured(text.MARKS[way], quantity.better * way)]


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
        say(console, f"\n{text.count(len(summary.failed), 'cell')} failed, left out above.", "red")
        say(console, f"First: {name}: {words}")
