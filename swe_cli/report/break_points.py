"""How far a line can be cut before it costs something, as a number and as a sentence."""

import math
from typing import Literal, NamedTuple

from swe_cli.report.quantities import BEFORE_RECOVERY, LOSS, TO_RECOVERED, Quantity, bounds
from swe_cli.report.summary import Line, Point
from swe_cli.report.text import NOTHING, percent

# What a loss is compared with: in a sentence, above a column, and its difference's column.
REFERENCES = (
    ("against dense", "against\ndense", LOSS.delta),
    ("against dense recovered", "dense\nrecovered", TO_RECOVERED),
    ("before recovery", "before\nrecovery", BEFORE_RECOVERY),
)


class BreakPoint(NamedTuple):
    """The largest fraction cut below the first one that costs more than the tolerance.

    ``outcome``: ``found``; ``at_once``, when the smallest cut tried already costs more (``ratio``
    None); ``not_reached``, when no cut tried does (``ratio`` is the largest); ``unknown``, when no
    bound was measured. ``first_over`` is the cut that costs more. For lines cut by rate both are
    achieved sparsities.
    """

    outcome: Literal["found", "at_once", "not_reached", "unknown"]
    ratio: float | None = None
    first_over: float | None = None

    def words(self, against: str, by: str = "ratio") -> str:
        """``holds to 60% against dense``; ``against`` is said where it reads best."""
        cut = _percent(self.first_over if self.ratio is None else self.ratio, by)
        return {
            "found": f"holds to {cut} {against}",
            "at_once": f"fails already at {cut} {against}",
            "not_reached": f"holds at every cut tried {against} (not reached up to {cut})",
            "unknown": f"was not compared {against}",
        }[self.outcome]

    def short(self, by: str = "ratio") -> str:
        """``60%``; ``<30%`` where the smallest cut costs too much, ``≥90%`` where none does."""
        cut = _percent(self.first_over if self.ratio is None else self.ratio, by)
        return {"at_once": "<", "not_reached": "≥"}.get(self.outcome, "") + cut


def break_point(line: Line, column: str = LOSS.delta, quantity: Quantity = LOSS) -> BreakPoint:
    """Where the bound of a paired difference (``column``) first is worse than the tolerance.

    A later cut that happens to be fine again does not count. A cut that failed does not hold, nor
    one whose loss is no finite number; other points without a bound are passed over.
    """
    held: float | None = None
    if all(point["failed"] for point in line.points):
        return BreakPoint("unknown")  # nothing was measured, so nothing was found wanting
    for point in line.points:
        cost = _cost(point, column, quantity)
        if cost is not None and cost > quantity.tolerance:
            return BreakPoint("at_once" if held is None else "found", held, point["x"])
        held = held if cost is None else point["x"]
    return BreakPoint("unknown") if held is None else BreakPoint("not_reached", held)


def sentence(line: Line, quantity: Quantity = LOSS) -> str:
    """How far a line holds against dense (a loss also against dense recovered, and before
    recovery), and its best cut.
    """
    verdicts = {"against dense": break_point(line, quantity.delta, quantity)}
    if quantity is LOSS:
        verdicts = {words: break_point(line, column) for words, _, column in REFERENCES}
    known = [v.words(words, line.by) for words, v in verdicts.items() if v.outcome != "unknown"]
    text = ", and ".join(filter(None, [", ".join(known[:-1]), *known[-1:]]))
    text = text or "was not compared with dense"
    best = line.best(quantity)
    if best is None:
        return f"{line.label} {text}."
    at = _percent(best["x"], line.by)
    if quantity is LOSS:
        return f"{line.label} {text}; its lowest loss is {LOSS.phrase(best, LOSS.mean)} at {at}."
    return f"{line.label} {text}; at best {quantity.spell(best[quantity.mean])}, at {at}."


def _cost(point: Point, column: str, quantity: Quantity) -> float | None:
    """What a cut costs at worst; None where that is unknown."""
    delta: float | None = point[column]
    low, high = (point[bound] for bound in bounds(column))
    if point["failed"] or point[LOSS.mean] is None or not math.isfinite(delta or 0.0):
        return math.inf
    cost: float | None = high if quantity.better < 0 or low is None else -low
    # Bounds are counts of questions over counts: a point lost must not become 0.010000000000000009.
    return cost if cost is None or quantity.better < 0 else round(cost, 9)


def _percent(x: float | None, by: str) -> str:
    if x is None:
        return NOTHING
    return percent(x, decimals=1 if by == "rate" else None)
