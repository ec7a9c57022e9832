"""SNIP: connection sensitivity."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class SNIP(WeightCriterion):
    """``|W · ḡ|``, ḡ the mean gradient over the calibration set (Lee et al. 2019).

    The absolute value is taken after averaging. Published at initialisation; here of any weights.
    """

    needs = ("mean_gradient",)

    def score(self, evidence: Evidence) -> Scores:
        gradients = evidence.calibration["mean_gradient"]
        return {n: (weight * gradients[n]).abs() for n, weight in evidence.weights.items()}
