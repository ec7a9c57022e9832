"""How much a weight varied over training, later steps counting more."""

import torch

from swe_cli.contracts import Statistic, Tensors
from swe_cli.statistics.parts import parts, zeros


class WeightedVariance(Statistic):
    """``V = Σ a_i (W_i − W̄)² / Σ a_i`` in one pass (West 1979, after Welford).

    With η = a_i / Σ a: ``δ = W_i − W̄; W̄ += ηδ; V = (1 − η)(V + ηδ²)``. Two float32 copies of the
    weights: V, and under ``<parameter>/mean`` the W̄ that it is measured around.
    """

    def __init__(self, weights: Tensors) -> None:
        self.variance, self.mean = zeros(weights), zeros(weights)
        self.states = {"": self.variance, "/mean": self.mean}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, mean, variance in parts(weights, self.mean, self.variance):
            deviations = torch._foreach_sub(now, mean)
            torch._foreach_add_(mean, deviations, alpha=share)
            torch._foreach_addcmul_(variance, deviations, deviations, value=share)
            torch._foreach_mul_(variance, 1.0 - share)
