"""Where every weight started."""

from swe_cli.contracts import Statistic, Tensors
from swe_cli.statistics.parts import copies


class InitialWeights(Statistic):
    """``W_0``, the weights before the first step. Observations do not change it."""

    def __init__(self, weights: Tensors) -> None:
        self.states = {"": copies(weights)}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        """Nothing: what was, stays."""
