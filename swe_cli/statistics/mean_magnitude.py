"""The mean of the magnitudes: a weight that swings around zero is not small by it."""

import torch

from swe_cli.contracts import Tensors
from swe_cli.statistics.parts import parts


class MeanMagnitude:
    """``mean_t |W_t|`` over the observations, whatever the weighting."""

    def __init__(self, weights: Tensors) -> None:
        self.mean = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, mean in parts(weights, self.mean):
            torch._foreach_lerp_(mean, torch._foreach_abs(now), 1.0 / index)

    def state(self) -> Tensors:
        return self.mean

    def load(self, state: Tensors) -> None:
        for name, mean in self.mean.items():
            mean.copy_(state[name])
