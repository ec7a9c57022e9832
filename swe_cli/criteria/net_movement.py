"""The distance between a weight's end and its start."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class NetMovement(WeightCriterion):
    """``|W − W_0|``: a weight that training did not need to move goes first (Zhou et al. 2019)."""

    needs = ("initial_weights",)

    def score(self, evidence: Evidence) -> Scores:
        initial = evidence.trajectory["initial_weights"]
        return {name: (weight - initial[name]).abs() for name, weight in evidence.weights.items()}
