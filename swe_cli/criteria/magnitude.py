"""Magnitude, the baseline."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class Magnitude(WeightCriterion):
    """``|W|`` of the weights that are cut (Han et al. 2015).

    With ``base=averaged`` those weights are W̄, so it then ranks exactly as SWE does.
    """

    def score(self, evidence: Evidence) -> Scores:
        return {name: weight.abs() for name, weight in evidence.weights.items()}
