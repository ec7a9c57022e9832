"""Where the loss pushes a weight: away from zero or towards it."""

import torch

from swe_cli.contracts import Statistic
from swe_cli.records import Tensors
from swe_cli.statistics.parts import zeros


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
        names = [name for name in self.moved if name in gradients]
        torch._foreach_addcmul_(
            [self.moved[name] for name in names],
            [weights[name].float() for name in names],
            [gradients[name].float() for name in names],
            value=-1.0,
        )

    def update(self, weights: Tensors, index: int, share: float) -> None:
        """Nothing: it is too late for this step."""
