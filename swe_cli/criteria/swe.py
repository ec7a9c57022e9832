"""Systematic Weight Evaluation."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class SWE(WeightCriterion):
    """``|W̄|``, the magnitude of the weighted running average (arXiv 2502.17071, section 3)."""

    published = "sigma"
    needs = ("weighted_average",)

    def score(self, evidence: Evidence) -> Scores:
        averages = evidence.trajectory["weighted_average"]
        return {name: average.abs() for name, average in averages.items()}
