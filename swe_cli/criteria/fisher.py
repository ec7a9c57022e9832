"""Diagonal Fisher information."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class Fisher(WeightCriterion):
    """``W² · E[g²]``, g the gradient of one calibration sample (Theis et al. 2018).

    Of one sample it would be SNIP squared; a calibration set of one is refused.
    """

    needs = ("mean_square_gradient",)

    def score(self, evidence: Evidence) -> Scores:
        squares = evidence.calibration["mean_square_gradient"]
        return {n: weight.square() * squares[n] for n, weight in evidence.weights.items()}
