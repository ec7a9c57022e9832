"""What stands where in a grid of many lines: its rows, columns, cells, and how far colours go."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

from swe_cli.reporting.break_points import TOLERANCE_NATS
from swe_cli.reporting.estimate import Estimate
from swe_cli.reporting.summary import Control, Point, Summary
from swe_cli.reporting.text import exact, short_label

GAP, SMALL_GAP = 0.5, 0.15  # rows: between controls and lines; between criteria

PANELS: tuple[tuple[str, "Read"], ...] = (
    ("after recovery", lambda point: point.delta),
    ("before recovery", lambda point: point.delta_before),
)

# What a line was cut by, and how much: 0 for criteria that find their own sparsity.
By = Literal["ratio", "rate", "own sparsity"]
Column = tuple[By, float]
Read = Callable[[Point], Estimate | None]


@dataclass(frozen=True)
class Cell:
    """Where a value stands (columns and rows of a panel) and what it is; None where it failed."""

    left: float
    right: float
    top: float
    value: Estimate | None
    bold: bool = False

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.value is not None and self.value.sign != 0


def columns_of(summary: Summary) -> list[Column]:
    """Every amount that any line was cut by: ratios, then rates, from mild to hard."""
    found: set[Column] = set()
    for line in summary.lines:
        found |= {_column(point) for point in line.points}
    return sorted(found, key=lambda column: (get_args(By).index(column[0]), column[1]))


def colour_limit(summary: Summary) -> float:
    """Where colours end, in nats: a round number beyond the largest gain over dense.

    What is worse than dense grows without bound with the cut, and would leave everything else pale.
    Where nothing is better, half of all differences keep their colour.
    """
    values = [value for value in values_of(summary) if math.isfinite(value)]
    values += [control.point.delta.mean for control in summary.controls if control.point.delta]
    gain = -min(values, default=0.0)
    wanted = gain if gain > TOLERANCE_NATS else median([abs(value) for value in values] or [0.0])
    return _round_up(max(wanted, 2 * TOLERANCE_NATS))


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    step = next(step for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
    return float(f"{step * power:.1g}")


def word_of(column: Column) -> str:
    """What stands above a column."""
    by, amount = column
    return "own" if by == "own sparsity" else exact(amount)


def _column(point: Point) -> Column:
    if point.ratio is not None:
        return "ratio", point.ratio
    return ("own sparsity", 0.0) if point.rate is None else ("rate", point.rate)


def _controls(summary: Summary) -> list[Control]:
    """Without dense, whose difference to itself says nothing."""
    return [control for control in summary.controls if control.kind != "dense"]


def names_of(summary: Summary) -> list[str]:
    return [control.label for control in _controls(summary)] + [
        short_label(line.criterion, line.parts) for line in summary.lines
    ]


def points_of(summary: Summary) -> list[Point]:
    return [point for line in summary.lines for point in line.points]


def values_of(summary: Summary) -> list[float]:
    """Every difference that is drawn, of both panels."""
    read = [read(point) for _, read in PANELS for point in points_of(summary)]
    return [value.mean for value in read if value]


def tops_of(summary: Summary) -> list[float]:
    """Where every row begins: the controls, then the lines, a little apart by criterion."""
    tops, at, last = [], 0.0, ""
    for _ in _controls(summary):
        tops.append(at)
        at += 1
    several = any(line.parts for line in summary.lines)
    at += GAP if tops else 0
    for line in summary.lines:
        at += SMALL_GAP if several and last not in ("", line.criterion) else 0
        tops.append(at)
        at, last = at + 1, line.criterion
    return tops


def cells_of(
    summary: Summary, tops: Sequence[float], columns: Sequence[Column], read: Read
) -> list[Cell]:
    found, controls = [], _controls(summary)
    for top, control in zip(tops, controls, strict=False):
        value = read(control.point)
        if value is None and control.kind != "dense_recovered":
            value = control.point.delta  # a model that is never recovered has one value
        if value:
            found.append(Cell(0, len(columns), top, value))
    for place, column in enumerate(columns):
        cut = [
            (top, read(point), point.failed)
            for top, line in zip(tops[len(controls) :], summary.lines, strict=True)
            for point in line.points
            if _column(point) == column
        ]
        best = min((value.mean for _, value, _ in cut if value), default=None)
        found += [
            Cell(place, place + 1, top, value, bool(value and value.mean == best))
            for top, value, failed in cut
            if value or failed
        ]
    return found
