"""How far a weight travelled, every turn included."""

import torch

from swe_cli.contracts import Statistic, Tensors
from swe_cli.statistics.parts import copies, parts, zeros


class PathLength(Statistic):
    """``Σ |W_t − W_{t−1}|`` over the observations, from the weights before the first step on.

    Two float32 copies of the weights: the path, and under ``<parameter>/last`` the last weights.
    """

    def __init__(self, weights: Tensors) -> None:
        self.path, self.last = zeros(weights), copies(weights)
        self.states = {"": self.path, "/last": self.last}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, path, last in parts(weights, self.path, self.last):
            torch._foreach_sub_(last, now)  # in place of what is overwritten next: no temporary
            torch._foreach_abs_(last)
            torch._foreach_add_(path, last)
            torch._foreach_copy_(last, now)
