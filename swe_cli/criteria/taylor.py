"""First-order Taylor expansion of the loss."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class Taylor(WeightCriterion):
    """``E[|W · g|]`` over calibration samples, g the gradient of one (Molchanov et al. 2017).

    Unlike in SNIP the absolute value is taken before averaging: samples do not cancel out.
    """

    needs = ("mean_saliency",)

    def score(self, evidence: Evidence) -> Scores:
        saliencies = evidence.calibration["mean_saliency"]
        return {name: saliencies[name].clone() for name in evidence.weights}
