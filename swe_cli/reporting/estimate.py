"""A mean over seeds and its 95 % interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit  # scipy.stats takes a second to import


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, in the unit of what was measured.

    ``interval`` says what the bounds are over: the test windows of the only seed, or seeds.
    Bounds are None where one seed has no interval of its own.
    """

    mean: float
    low: float | None
    high: float | None
    interval: Literal["windows", "seeds"]

    @property
    def sign(self) -> int:
        """-1 or 1 where the whole interval lies below or above zero; 0 where it does not."""
        if self.high is not None and self.high < 0:
            return -1
        return 1 if self.low is not None and self.low > 0 else 0


def estimate(
    seeds: Sequence[tuple[float | None, float | None, float | None]],
) -> Estimate | None:
    """Sum up (mean, low, high) of every seed; None where no seed has a mean.

    One seed keeps its interval over windows. Several get Student's t over their means,
    ``mean ± t(0.975, n - 1) · s / √n``: a bootstrap over three seeds would cover only 76 %.
    """
    known = [(mean, low, high) for mean, low, high in seeds if mean is not None]
    if not known:
        return None
    if len(known) == 1:
        mean, low, high = known[0]
        return Estimate(mean, low, high, "windows")
    means = [mean for mean, _, _ in known]
    n = len(means)
    mean = math.fsum(means) / n if all(map(math.isfinite, means)) else sum(means)
    if not math.isfinite(mean):
        return Estimate(mean, mean, mean, "seeds")
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, "seeds")
