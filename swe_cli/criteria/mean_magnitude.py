"""The mean of the magnitudes over training."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class MeanMagnitude(WeightCriterion):
    """``mean_t |W_t|``: unlike by ``|mean_t W_t|``, one that swings around zero is not small. An
    ablation of SWE, ours.
    """

    needs = ("mean_magnitude",)

    def score(self, evidence: Evidence) -> Scores:
        means = evidence.trajectory["mean_magnitude"]
        return {name: mean.clone() for name, mean in means.items()}
