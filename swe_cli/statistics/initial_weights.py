"""Where every weight started."""

import torch

from swe_cli.contracts import Tensors


class InitialWeights:
    """``W_0``, the weights before the first step. Observations do not change it."""

    def __init__(self, weights: Tensors) -> None:
        self.initial = {
            name: w.detach().to(torch.float32, copy=True) for name, w in weights.items()
        }

    def update(self, weights: Tensors, index: int, share: float) -> None:
        """Nothing: what was, stays."""

    def state(self) -> Tensors:
        return self.initial

    def load(self, state: Tensors) -> None:
        for name, initial in self.initial.items():
            initial.copy_(state[name])
