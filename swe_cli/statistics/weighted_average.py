"""The running average of the weights, later steps counting more: the trajectory of SWE."""

import torch

from swe_cli.contracts import Statistic, Tensors
from swe_cli.statistics.parts import zeros


class WeightedAverage(Statistic):
    """``W̄ += (a_i / Σ a) · (W_i − W̄)``; with a_i = i, the paper's W̄ (arXiv 2502.17071, section 3).

    One float32 copy of the weights, whatever the number of observations.
    """

    def __init__(self, weights: Tensors) -> None:
        self.average = zeros(weights)
        self.states = {"": self.average}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        targets = [weights[name].float() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), targets, share)
