"""Signal to noise of a weight over training."""

from dataclasses import dataclass

from torch import Tensor

from swe_cli.contracts import Criterion, Evidence
from swe_cli.errors import UsageError
from swe_cli.records import Scores

SMALLEST = 1e-12  # where nothing in a tensor ever moved


@dataclass(frozen=True, kw_only=True)
class Stability(Criterion):
    """``|W̄| / (√V + ε)``: kept is what settled far from zero, in units of its wandering. Ours.

    W̄ and V are the weighted average and variance over training; ``epsilon`` is relative to the
    tensor's mean √V, so that a weight that never moved is not infinitely stable.
    """

    needs = ("weighted_average", "weighted_variance")
    epsilon: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise UsageError(f"criterion.epsilon={self.epsilon} must be positive.")

    def score(self, evidence: Evidence) -> Scores:
        averages = evidence.trajectory["weighted_average"]
        variances = evidence.trajectory["weighted_variance"]
        deviations = {name: variances[name].sqrt() for name in evidence.weights}
        return {
            name: averages[name].abs() / (deviation + self._floor(deviation))
            for name, deviation in deviations.items()
        }

    def _floor(self, deviation: Tensor) -> float:
        return max(self.epsilon * float(deviation.mean()), SMALLEST)
