"""Where the loss pushes a weight: away from zero or towards it."""

import torch

from swe_cli.contracts import Statistic, Tensors
from swe_cli.statistics.parts import parts, zeros


class Movement(Statistic):
    """``−Σ_t W_{t−1} · g_t``, g_t = ∂L/∂W at W_{t−1} (Sanh et al. 2020).

    It looks before the optimizer steps; afterwards the gradient belongs to other weights. The
    gradient is that of the mean loss of the step's batch, before any clipping.
    """

    def __init__(self, weights: Tensors) -> None:
        self.moved = zeros(weights)
        self.states = {"": self.moved}

    def before_step(self, weights: Tensors, gradients: Tensors) -> None:
        """See one step that is about to be taken; parameters without a gradient stand still."""
        known = {name: g.float() for name, g in gradients.items() if name in self.moved}
        for now, gradient, moved in parts(weights, known, self.moved):
            torch._foreach_addcmul_(moved, now, gradient, value=-1.0)

    def update(self, weights: Tensors, index: int, share: float) -> None:
        """Nothing: it is too late for this step."""
