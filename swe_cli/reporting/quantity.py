"""What is drawn and tabled against sparsity: loss everywhere; accuracy and MAE of questions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from swe_cli.reporting.summary import Line, Point, Reading, Summary
from swe_cli.reporting.text import number


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """How one quantity is read from a point, spelt and drawn.

    ``better`` is the direction of better: -1 where lower is better, 1 where higher is. ``scale``
    takes the value to the axis: 100 for fractions drawn in percent. ``bounded``: it cannot explode,
    so that a linear axis is enough. ``baseline`` is the answer that one could always give, and
    ``baseline_measure`` the measure of rows that says what that would be worth.
    """

    name: Literal["loss", "accuracy", "mae"]
    title: str
    axis: str
    read: Callable[[Point], Reading]
    better: Literal[-1, 1] = -1
    scale: float = 1.0
    bounded: bool = False
    baseline: str = ""
    baseline_measure: str = ""

    @property
    def short(self) -> str:
        """The head of its column."""
        return "MAE" if self.name == "mae" else self.name

    def spell(self, value: float | None, *, signed: bool = False) -> str:
        """``55.0%`` for a fraction (``+1.2`` points where signed), otherwise four decimals."""
        if value is None or self.scale == 1:
            return number(value, signed=signed)
        rounded = round(self.scale * value, 1) + 0.0  # no "-0.0"
        return f"{rounded:+.1f}" if signed else f"{rounded:.1f}%"

    def bracket(self, low: float | None, high: float | None, *, signed: bool = False) -> str:
        """``[low, high]``, or nothing where the interval is unknown."""
        if low is None or high is None:
            return ""
        return f"[{self.spell(low, signed=signed)}, {self.spell(high, signed=signed)}]"

    def best(self, line: Line) -> Point | None:
        """The point of the best mean after recovery; of equals the mildest cut."""
        known = [(-self.better * mean.mean, p) for p in line.points if (mean := self.read(p).mean)]
        return min(known, key=lambda pair: pair[0])[1] if known else None

    def measured(self, summary: Summary) -> bool:
        """Whether any control or cut has it."""
        return any(self.read(point).mean for point in summary.points)

    def drawable(self, summary: Summary) -> bool:
        """Whether any cut has it."""
        return any(self.read(point).mean for line in summary.lines for point in line.points)


LOSS = Quantity(
    name="loss", title="loss", axis="loss (nats per token)", read=lambda point: point.losses
)
ACCURACY = Quantity(
    name="accuracy",
    title="accuracy",
    axis="accuracy (% of questions)",
    read=lambda point: point.accuracy,
    better=1,
    scale=100.0,
    bounded=True,
    baseline="commonest answer",
    baseline_measure="accuracy_majority",
)
MAE = Quantity(
    name="mae",
    title="mean absolute error",
    axis="mean absolute error",
    read=lambda point: point.mae,
    baseline="median answer",
    baseline_measure="mae_median",
)
OF_QUESTIONS = (ACCURACY, MAE)
