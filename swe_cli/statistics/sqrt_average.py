"""The √-weighted average of the weights, as the authors' earlier papers have it."""

import math

from swe_cli.records import Tensors
from swe_cli.statistics.weighted_average import WeightedAverage


class SqrtAverage(WeightedAverage):
    """``Σ √i·W_i / Σ √i`` over the observations i = 1, 2, …, whatever the weighting (LOD 2022).

    Published over the last 50 epoch snapshots: ``tracking.every=epoch``, with ``tracking.start`` at
    fifty epochs before the end.
    """

    def __init__(self, weights: Tensors) -> None:
        super().__init__(weights)
        self._seen, self._total = 0, 0.0

    def update(self, weights: Tensors, index: int, share: float) -> None:
        if index != self._seen + 1:  # resumed: the total is a function of the index
            self._total = sum(math.sqrt(i) for i in range(1, index))
        self._seen = index
        self._total += math.sqrt(index)
        super().update(weights, index, math.sqrt(index) / self._total)
