"""Movement away from zero."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class Movement(WeightCriterion):
    """``−Σ_t W_{t−1} · g_t`` (Sanh et al. 2020). Signed: low is moving to zero, and goes first."""

    needs = ("movement",)

    def score(self, evidence: Evidence) -> Scores:
        return {name: moved.clone() for name, moved in evidence.trajectory["movement"].items()}
