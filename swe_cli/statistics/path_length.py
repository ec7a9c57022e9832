"""How far a weight travelled, every turn included."""

import torch

from swe_cli.contracts import Tensors
from swe_cli.statistics.parts import parts

LAST = "/last"


class PathLength:
    """``Σ |W_t − W_{t−1}|`` over the observations, from the weights before the first step on.

    Two float32 copies of the weights: the path, and under ``<parameter>/last`` the last weights.
    """

    def __init__(self, weights: Tensors) -> None:
        self.path = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
        self.last = {name: w.detach().to(torch.float32, copy=True) for name, w in weights.items()}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, path, last in parts(weights, self.path, self.last):
            torch._foreach_sub_(last, now)  # in place of what is overwritten next: no temporary
            torch._foreach_abs_(last)
            torch._foreach_add_(path, last)
            torch._foreach_copy_(last, now)

    def state(self) -> Tensors:
        return self.path | {name + LAST: last for name, last in self.last.items()}

    def load(self, state: Tensors) -> None:
        for name, path in self.path.items():
            path.copy_(state[name])
            self.last[name].copy_(state[name + LAST])
