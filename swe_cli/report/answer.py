"""What a report concludes: whether the best cut is ahead, and how far each line can be cut."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from swe_cli.controls import BY_KIND, PRUNED
from swe_cli.errors import SweError
from swe_cli.evaluation.measure import DIFFERENCES, paired_difference
from swe_cli.records import Interval
from swe_cli.report.against import STATES, Windows, state_of
from swe_cli.report.inference import DIFFERENCE, MILD, paired, seeds_for
from swe_cli.report.quantities import (
    ACCURACY,
    BEFORE_RECOVERY,
    CALIBRATED,
    LOSS,
    MAE,
    OF_QUESTIONS,
    TO_RECOVERED,
    TO_RECOVERED_CALIBRATED,
    Quantity,
    bounds,
)
from swe_cli.report.summary import (
    ALWAYS,
    FIRST,
    RIVAL,
    Line,
    Point,
    Summary,
    chosen,
    cut_of,
    mean_ranks,
)
from swe_cli.report.text import NOTHING, count

_RECOVERED = {LOSS: TO_RECOVERED, CALIBRATED: TO_RECOVERED_CALIBRATED}
BEST = 10  # lines that are shown beside them


def headline(summary: Summary) -> list[Quantity]:
    """What is judged by: of text loss, also calibrated; of numbers MAE, of other answers accuracy.

    The first is shown cut by cut.
    """
    for those in ([MAE], [ACCURACY], [LOSS, CALIBRATED]):
        if measured := [q for q in those if q.drawable(summary.cuts)]:
            return measured
    return []


def leading(summary: Summary, quantity: Quantity) -> list[Line]:
    """By mean rank the ``BEST`` lines, with the best of each that is ``ALWAYS`` said."""
    means = mean_ranks(summary, quantity)
    lines = sorted(summary.lines, key=lambda line: means[line.label])
    firsts = [next((line for line in lines if name in line.criteria), None) for name in ALWAYS]
    return [line for place, line in enumerate(lines) if place < BEST or line in firsts]


def answer(summary: Summary, windows: Windows | None = None) -> Iterator[str]:
    """Sentences: is the best cut of swe ahead of the best control, and of magnitude's best cut?

    As they are, then calibrated; and how many seeds would tell what a cut may cost. Where no line
    is of swe, of the best line. ``windows``: of a cell's hash, which one seed is compared by.
    """
    ours, theirs = (
        [p for line in summary.lines if name in line.criteria for p in line.points]
        for name in (FIRST, RIVAL)
    )
    controls, takes = [c for c in summary.controls if not BY_KIND[c["kind"]].blind], ""
    for q in headline(summary):
        best = chosen(ours or summary.cuts, q)
        if best is None:
            continue
        rival, control, found = chosen(theirs, q), chosen(controls, q), dict[str, Any]()
        words = f"{q.title.capitalize()}: {best['label']} at {cut_of(best)}"
        if control is None:
            words += ": these rows have no control to hold it against."
        else:
            found = _between(summary, best, control, q, windows)
            words += f" against {control['label']}, the best control: {_told(found, q)}."
        if rival is None:
            words += f" No row is of {RIVAL}."
        elif rival["label"] != best["label"]:
            found = _between(summary, best, rival, q, windows)
            words += f" Against {rival['label']} at {cut_of(rival)}: {_told(found, q)}."
        yield words
        if found and found["sd_nats"] > 0 and math.isfinite(q.tolerance) and not takes:
            seeds = count(seeds_for(found["sd_nats"], q.tolerance), "seed")
            spread = f"{q.scale * found['sd_nats']:.{1 if q.percent else 3}f}"
            takes = f"To see {q.cost} there would take {seeds} (paired SD {spread})."
    if takes:
        yield takes


def _told(found: Point, quantity: Quantity) -> str:
    """``−0.011 [−0.028, +0.006] nats, 3 seeds; could have seen 0.036: undecided``."""
    mean, low, high = (found[name] for name in DIFFERENCE)
    if mean is None:
        return "not compared, no seed has both"

    def spelt(value: float, signed: str = "+") -> str:
        places = 1 if quantity.percent else 3
        return f"{quantity.scale * value:{signed}.{places}f}".replace("-", "−")

    unit = "" if quantity is MAE else " points" if quantity.percent else " nats"
    over = "this training only" if found["seeds"] == 1 else count(found["seeds"], "seed")
    interval = "" if low is None else f" [{spelt(low)}, {spelt(high)}]"
    over += "" if interval else ", no interval"
    seen = found["detectable_nats"]
    could = "" if math.isnan(seen) else f"; could have seen {spelt(seen, '')}"
    way = state_of(found) or 0
    words = STATES[-quantity.better * way if abs(way) == 1 else way]
    return f"{spelt(mean)}{interval}{unit}, {over}{could}: {words}"


def _between(
    summary: Summary, one: Point, other: Point, q: Quantity, windows: Windows | None
) -> Point:
    """What ``paired`` has of their difference; mild cuts of the same line share its spread."""
    cuts, each = {(p["label"], p["x"]): p for p in summary.cuts}, dict[Any, list[Interval]]()
    mild = {at: p for at, p in cuts.items() if at[0] == one["label"] and (at[1] or 1.0) <= MILD}
    for (_, x), point in (mild | {(one["label"], one["x"]): one}).items():
        same = cuts.get((other["label"], x), {}) if other["kind"] == PRUNED else other
        theirs = (other if point is one else same).get("cells", {})
        rows = [(point["cells"][seed], theirs[seed]) for seed in point["seeds"] if seed in theirs]
        rows = [pair for pair in rows if None not in (pair[0][q.mean], pair[1][q.mean])]
        each[x] = [Interval(mine[q.mean] - their[q.mean]) for mine, their in rows]
        if point is one and len(each[x]) == 1:
            each[x] = [_over_windows(*rows[0], q, windows) or each[x][0]]
    found: dict[Any, Point] = dict(zip(each, paired(each), strict=True))
    return found[one["x"]]


def _over_windows(
    row: Point, theirs: Point, quantity: Quantity, windows: Windows | None
) -> Interval | None:
    """Of the only seed: from its row where that knows it, else window by window, or nothing."""
    known = {"dense": quantity.delta, "dense_recovered": _RECOVERED.get(quantity)}
    column, value = known.get(theirs["kind"]), row[quantity.mean] - theirs[quantity.mean]
    # A row was held against the control of its own recovery, which the best need not be.
    if column and math.isclose(row.get(column) or math.nan, value, abs_tol=1e-6):
        return Interval(row[column], *map(row.get, bounds(column)))
    of = DIFFERENCES.get(quantity.name, "calibrated" if quantity is CALIBRATED else "nats")
    per = "questions" if quantity in OF_QUESTIONS else "tokens"
    try:
        cells = [windows(cell["config_hash"])[0] for cell in (row, theirs)] if windows else []
        return paired_difference(cells[0], cells[1], of, per)
    except (SweError, LookupError):  # they are gone, or of an older version
        return None


# How far a line can be cut


def holding(tolerance_nats: float = LOSS.tolerance) -> dict[str, Quantity]:
    """What a cut may cost, and against what, in words."""
    loss = replace(LOSS, tolerance=tolerance_nats)
    return {
        "dense": loss,
        "dense recovered": replace(loss, delta=TO_RECOVERED),
        "dense before recovery": replace(loss, delta=BEFORE_RECOVERY),
        **{f"dense, {q.title}": q for q in OF_QUESTIONS if math.isfinite(q.tolerance)},
    }


def break_point(line: Line, quantity: Quantity) -> str:
    """``0.6``: the largest cut below the first one that costs more than the tolerance.

    A test of non-inferiority at each cut in turn, from the mildest, one-sided at 0.025: the bound
    of the paired 95 % interval must not be worse (over seeds, or over the windows of the only one),
    and none is tried beyond the first that fails. A fixed order needs no correction (Maurer 1995).

    ``<0.1`` where the mildest cut already costs more, ``≥0.9`` where none does, a dash where no
    bound was measured. A cut that failed does not hold, nor one whose loss is no finite number;
    other points without a bound are passed over.
    """
    return _held(line.points, quantity)[1]


def break_range(line: Line, quantity: Quantity) -> str:
    """``0.5–0.7``: the lowest and the highest break-point of a single seed; of one seed nothing.

    Each by its own interval over windows.
    """
    seeds = sorted({seed for point in line.points for seed in point["cells"]})
    held = []
    for seed in seeds if len(seeds) > 1 else ():
        cells = [(p["x"], p["cells"][seed]) for p in line.points if seed in p["cells"]]
        points = [c | {"x": x, "failed": c["status"] == "failed"} for x, c in cells]
        held.append(_held(points, quantity))
    known = sorted(of for of in held if of[1] != NOTHING)
    return "–".join(dict.fromkeys(words for _, words in (*known[:1], *known[-1:])))


def _held(points: Sequence[Point], quantity: Quantity) -> tuple[float, str]:
    """Where the last cut that holds stands, and that in words."""
    last: Point | None = None
    if all(point["failed"] for point in points):
        return -1, NOTHING  # nothing was measured, so nothing was found wanting
    for point in points:
        low, high = (point.get(bound) for bound in bounds(quantity.delta))
        cost = high if quantity.better < 0 or low is None else -low
        finite = math.isfinite(point.get(quantity.delta) or 0.0)
        if point["failed"] or point[LOSS.mean] is None or not finite:
            cost = math.inf
        if cost is None:
            continue
        if quantity.percent:  # of counts: a point lost must not become 0.010000000000000009
            cost = round(cost, 9)
        if cost > quantity.tolerance:
            return (0, f"<{cut_of(point)}") if last is None else (last["x"], cut_of(last))
        last = point
    return (-1, NOTHING) if last is None else (2, f"≥{cut_of(last)}")
