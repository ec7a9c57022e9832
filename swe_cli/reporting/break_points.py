"""How far a line can be cut before it costs something, as a number and as a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.quantity import ACCURACY
from swe_cli.reporting.summary import Line, Point
from swe_cli.reporting.text import NOTHING, bracket, number, percent

TOLERANCE_NATS = 0.01
TOLERANCE_ACCURACY = 0.01  # one percentage point

Against = Literal["dense", "dense_recovered"]


@dataclass(frozen=True)
class BreakPoint:
    """The largest fraction cut below the first one that costs more than the tolerance.

    ``outcome``: ``found``; ``at_once``, when the smallest cut tried already costs more (``ratio``
    None); ``not_reached``, when no cut tried does (``ratio`` is the largest); ``unknown``, when no
    upper bound was measured. ``first_over`` is the cut that costs more. For lines cut by rate both
    are achieved sparsities.
    """

    outcome: Literal["found", "at_once", "not_reached", "unknown"]
    ratio: float | None = None
    first_over: float | None = None

    def words(self, against: str, *, decimals: int | None = None) -> str:
        """``holds to 60% against dense``; ``against`` is said where it reads best."""
        if self.ratio is not None:
            ratio = percent(self.ratio, decimals=decimals)
            if self.outcome == "not_reached":
                return f"holds at every cut tried {against} (not reached up to {ratio})"
            return f"holds to {ratio} {against}"
        if self.first_over is not None:
            return f"fails already at {percent(self.first_over, decimals=decimals)} {against}"
        return f"was not compared {against}"

    def short(self, *, decimals: int | None = None) -> str:
        """``60%``; ``<30%`` where the smallest cut costs too much, ``≥90%`` where none does."""
        if self.ratio is not None:
            sign = "≥" if self.outcome == "not_reached" else ""
            return f"{sign}{percent(self.ratio, decimals=decimals)}"
        if self.first_over is not None:
            return f"<{percent(self.first_over, decimals=decimals)}"
        return NOTHING


def break_point(
    line: Line,
    against: Against = "dense",
    tolerance: float = TOLERANCE_NATS,
    before_recovery: bool = False,
) -> BreakPoint:
    """Where the paired upper bound first exceeds ``tolerance`` (nats per token).

    A later cut that happens to be fine again does not count. A cut that failed does not hold;
    other points without an upper bound are passed over. Raises ValueError for ``before_recovery``
    against dense recovered, which would credit the control with training that the cut has not had.
    """
    if before_recovery and against == "dense_recovered":
        raise ValueError("before recovery, a cut is compared with dense only")
    deltas = [_delta(point, against, before_recovery) for point in line.points]
    return _first_over(line, [delta.high if delta else None for delta in deltas], tolerance)


def accuracy_break_point(line: Line, tolerance: float = TOLERANCE_ACCURACY) -> BreakPoint:
    """Where the paired lower bound of the accuracy first lies more than ``tolerance`` below dense.

    ``tolerance`` is a fraction of all answers: 0.01 is one percentage point.
    """
    lows = [point.accuracy.delta.low if point.accuracy.delta else None for point in line.points]
    # Bounds are counts of questions over counts: a point lost must not become 0.010000000000000009.
    costs = [None if low is None else round(-low, 9) for low in lows]
    return _first_over(line, costs, tolerance)


def _first_over(line: Line, costs: Sequence[float | None], tolerance: float) -> BreakPoint:
    held: float | None = None
    if all(point.failed for point in line.points):
        return BreakPoint("unknown")  # nothing was measured, so nothing was found wanting
    for point, cost in zip(line.points, costs, strict=True):
        if not point.failed and cost is None:
            continue
        if cost is None or not cost <= tolerance:  # so that NaN, too, is a failure
            return BreakPoint("at_once" if held is None else "found", held, point.x)
        held = point.x
    return BreakPoint("unknown") if held is None else BreakPoint("not_reached", held)


def accuracy_sentence(line: Line, tolerance: float = TOLERANCE_ACCURACY) -> str:
    """How far the line's accuracy holds against dense, and its best cut."""
    decimals = 1 if line.by == "rate" else None
    text = accuracy_break_point(line, tolerance).words("against dense", decimals=decimals)
    best = ACCURACY.best(line)
    if best is None or best.accuracy.mean is None:
        return f"{line.label} {text}."
    top = ACCURACY.spell(best.accuracy.mean.mean)
    return f"{line.label} {text}; at best {top}, at {percent(best.x, decimals=decimals)}."


def sentence(line: Line, tolerance: float = TOLERANCE_NATS) -> str:
    """How far the line holds against dense, dense recovered and before recovery; its best cut."""
    decimals = 1 if line.by == "rate" else None
    verdicts = {
        "against dense": break_point(line, "dense", tolerance),
        "against dense recovered": break_point(line, "dense_recovered", tolerance),
        "before recovery": break_point(line, "dense", tolerance, True),
    }
    known = [
        verdict.words(where, decimals=decimals)
        for where, verdict in verdicts.items()
        if verdict.outcome != "unknown"
    ]
    if known:
        text = ", and ".join([", ".join(known[:-1]), known[-1]]) if known[1:] else known[0]
    else:
        text = "was not compared with dense"
    best = line.best
    if best is None or best.loss is None:
        return f"{line.label} {text}."
    loss = f"{number(best.loss.mean)} {bracket(best.loss.low, best.loss.high)}".strip()
    return (
        f"{line.label} {text}; its lowest loss is {loss} at {percent(best.x, decimals=decimals)}."
    )


def _delta(point: Point, against: Against, before_recovery: bool) -> Estimate | None:
    if before_recovery:
        return point.delta_before
    return point.delta if against == "dense" else point.delta_recovered
