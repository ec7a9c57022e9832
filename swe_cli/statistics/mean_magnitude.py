"""The mean of the magnitudes: a weight that swings around zero is not small by it."""

import torch

from swe_cli.contracts import Statistic, Tensors
from swe_cli.statistics.parts import parts, zeros


class MeanMagnitude(Statistic):
    """``mean_t |W_t|`` over the observations, whatever the weighting."""

    def __init__(self, weights: Tensors) -> None:
        self.mean = zeros(weights)
        self.states = {"": self.mean}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, mean in parts(weights, self.mean):
            torch._foreach_lerp_(mean, torch._foreach_abs(now), 1.0 / index)
