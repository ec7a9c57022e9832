"""The unweighted mean of the weights: what remains of SWE when every step counts the same."""

from swe_cli.records import Tensors
from swe_cli.statistics.weighted_average import WeightedAverage


class Mean(WeightedAverage):
    """The plain mean over observations: every step counts the same, whatever the weighting."""

    def update(self, weights: Tensors, index: int, share: float) -> None:
        super().update(weights, index, 1.0 / index)
