"""The running average of the weights, later steps counting more: the trajectory of SWE."""

import torch

from swe_cli.contracts import Tensors


class WeightedAverage:
    """``W̄ += (a_i / Σ a) · (W_i − W̄)``; with a_i = i, the paper's W̄ (arXiv 2502.17071, section 3).

    One float32 copy of the weights, whatever the number of observations.
    """

    def __init__(self, weights: Tensors) -> None:
        self.average = {
            name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()
        }

    def update(self, weights: Tensors, index: int, share: float) -> None:
        targets = [weights[name].float() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), targets, share)

    def state(self) -> Tensors:
        return self.average

    def load(self, state: Tensors) -> None:
        for name, average in self.average.items():
            average.copy_(state[name])
