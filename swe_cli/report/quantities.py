"""What is tabled and drawn against sparsity: loss, also calibrated; of questions accuracy and MAE.

A quantity that is added here is in every table, figure, summary and row.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from swe_cli.report.inference import LEVEL, p_value
from swe_cli.report.text import NOTHING, exact, number


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """How one quantity is read from a table's columns, spelt and drawn.

    ``mean``, ``before`` (recovery, "" where not measured) and ``delta`` (paired, against dense) are
    columns; see ``bounds`` for those of their intervals. ``better`` is the direction of better.
    ``percent``: a fraction, spelt and drawn in percent, which cannot explode. ``tolerance``: what a
    cut may cost and still hold, in the column's unit; infinite where there are no break-points.
    ``baseline`` is the answer that one could always give, and ``baseline_column`` its worth.
    """

    name: str
    short: str
    title: str
    axis: str
    mean: str
    before: str = ""
    delta: str
    better: Literal[-1, 1] = -1
    percent: bool = False
    tolerance: float = math.inf
    baseline: str = ""
    baseline_column: str = ""

    @property
    def scale(self) -> float:
        """From the column's unit to the axis's."""
        return 100.0 if self.percent else 1.0

    @property
    def cost(self) -> str:
        """What a cut may cost, in words."""
        amount = exact(round(self.scale * self.tolerance, 6))
        return f"{amount} point" if self.percent else f"{amount} nats"

    def drawable(self, points: Iterable[Mapping[str, Any]]) -> bool:
        """Whether any point has it."""
        return any(point[self.mean] is not None for point in points)

    def spell(self, value: float | None, *, signed: bool = False, decimals: int = 4) -> str:
        """``55.0%`` for a fraction (``+1.2`` points where signed), otherwise four decimals."""
        if value is None or not self.percent:
            return number(value, signed=signed, decimals=decimals)
        return f"{100 * value:+z.1f}" if signed else f"{value:z.1%}"  # z: no "-0.0"

    def phrase(
        self, record: Mapping[str, Any], column: str, unit: str = "", decimals: int = 4
    ) -> str:
        """``mean unit [low, high]`` as far as they are known, or nothing."""
        if record.get(column) is None:
            return ""
        mean, low, high = (
            self.spell(record.get(name), signed=column.startswith("delta_"), decimals=decimals)
            for name in (column, *bounds(column))
        )
        interval = "" if NOTHING in (low, high) else f"[{low}, {high}]"
        return " ".join(filter(None, [mean, unit, interval]))


def bounds(column: str) -> tuple[str, str]:
    """The columns of a column's interval: ``loss_nats`` has ``loss_low`` and ``loss_high``."""
    stem = column.removesuffix("_nats")
    return f"{stem}_low", f"{stem}_high"


def p_of(record: Mapping[str, Any], column: str, seeds: int) -> float:
    """The p value of a column with an interval; see ``p_value``."""
    mean, low, high = (record[name] for name in (column, *bounds(column)))
    return p_value(mean, low, high, seeds)


def q_of(column: str) -> str:
    """The column of a difference's q value: ``delta_nats`` has ``delta_q``."""
    return f"{column.removesuffix('_nats')}_q"


def sign(record: Mapping[str, Any], column: str) -> Literal[-1, 0, 1]:
    """-1 or 1 where a column's whole interval lies below or above zero; 0 where it does not, and
    where its q value, of those that have them, is unknown or not below 0.05.
    """
    q = record.get(q_of(column), 0.0)
    if q is None or q >= LEVEL:
        return 0
    low, high = (record[bound] for bound in bounds(column))
    if high is not None and high < 0:
        return -1
    return 1 if low is not None and low > 0 else 0


LOSS = Quantity(
    name="loss",
    short="loss",
    title="loss",
    axis="loss (nats per token)",
    mean="loss_nats",
    before="loss_before_recovery_nats",
    delta="delta_nats",
    tolerance=0.01,
)
ACCURACY = Quantity(
    name="accuracy",
    short="accuracy",
    title="accuracy",
    axis="accuracy (% of questions)",
    mean="accuracy",
    before="accuracy_before_recovery",
    delta="delta_accuracy",
    better=1,
    percent=True,
    tolerance=0.01,  # one percentage point
    baseline="commonest answer",
    baseline_column="accuracy_majority",
)
MAE = Quantity(
    name="mae",
    short="MAE",
    title="mean absolute error",
    axis="mean absolute error",
    mean="mae",
    before="mae_before_recovery",
    delta="delta_mae",
    baseline="median answer",
    baseline_column="mae_median",
)
# At each model's own softmax temperature: what a cut gains beyond that, dense has not to gain.
CALIBRATED = Quantity(
    name="calibrated",
    short="calibrated",
    title="calibrated loss",
    axis="loss at its own temperature (nats per token)",
    mean="loss_calibrated_nats",
    delta="delta_calibrated_nats",
    tolerance=0.01,
)
OF_QUESTIONS = (ACCURACY, MAE)
QUANTITIES = (LOSS, *OF_QUESTIONS, CALIBRATED)
# Differences of loss to other references, or at another time, than ``LOSS.delta``.
BEFORE_RECOVERY, TO_RECOVERED = "delta_before_recovery_nats", "delta_recovered_nats"
TO_RECOVERED_CALIBRATED = "delta_recovered_calibrated_nats"
DELTAS = [*(q.delta for q in QUANTITIES), BEFORE_RECOVERY, TO_RECOVERED, TO_RECOVERED_CALIBRATED]
# Everything that has a mean over seeds and an interval.
ESTIMATED = [*(c for q in QUANTITIES for c in (q.mean, q.before) if c), *DELTAS]
_NAMES = "|".join([*(quantity.name for quantity in OF_QUESTIONS), "rmse"])
MEASURE = re.compile(rf"(delta_)?({_NAMES})([._].*)?|unparsable|sparsity\..+")
