"""Signal to noise over training."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from swe_cli.contracts import Evidence, Scores, WeightCriterion

SMALLEST = 1e-12  # where nothing in a tensor ever moved


@dataclass(frozen=True, kw_only=True)
class Stability(WeightCriterion):
    """``|W̄| / (√V + ε)``: kept is what settled far from zero, in units of its wandering. Ours.

    W̄ and V are the weighted average and variance over training; ``epsilon`` is relative to the
    tensor's mean √V, so that a weight that never moved is not infinitely stable.
    """

    needs = ("weighted_average", "weighted_variance")
    epsilon: Annotated[float, Field(gt=0)]

    def score(self, evidence: Evidence) -> Scores:
        averages = evidence.trajectory["weighted_average"]
        variances = evidence.trajectory["weighted_variance"]
        scores = Scores()
        for name in evidence.weights:
            deviation = variances[name].sqrt()
            floor = max(self.epsilon * float(deviation.mean()), SMALLEST)
            scores[name] = averages[name].abs() / (deviation + floor)
        return scores
