"""SWE without its weighting."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class SWEMean(WeightCriterion):
    """``|mean_t W_t|``: SWE (arXiv 2502.17071) with all steps counting the same. An ablation."""

    needs = ("mean",)

    def score(self, evidence: Evidence) -> Scores:
        return {name: mean.abs() for name, mean in evidence.trajectory["mean"].items()}
