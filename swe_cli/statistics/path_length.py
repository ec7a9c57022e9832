"""How far a weight travelled, every turn included."""

import torch

from swe_cli.contracts import Tensors

LAST = "/last"


class PathLength:
    """``Σ |W_t − W_{t−1}|`` over the observations, from the weights before the first step on.

    Two float32 copies of the weights: the path, and under ``<parameter>/last`` the last weights.
    """

    def __init__(self, weights: Tensors) -> None:
        self.path = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
        self.last = {name: w.detach().to(torch.float32, copy=True) for name, w in weights.items()}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        now, last = [weights[name].float() for name in self.last], list(self.last.values())
        steps = torch._foreach_sub(now, last)
        torch._foreach_abs_(steps)
        torch._foreach_add_(list(self.path.values()), steps)
        torch._foreach_copy_(last, now)

    def state(self) -> Tensors:
        return self.path | {name + LAST: last for name, last in self.last.items()}

    def load(self, state: Tensors) -> None:
        for name, path in self.path.items():
            path.copy_(state[name])
            self.last[name].copy_(state[name + LAST])
