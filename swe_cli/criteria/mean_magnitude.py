"""The mean of the magnitudes over training."""

from dataclasses import dataclass

from swe_cli.contracts import Criterion, Evidence
from swe_cli.records import Scores


@dataclass(frozen=True)
class MeanMagnitude(Criterion):
    """``mean_t |W_t|``: unlike by ``|mean_t W_t|``, one that swings around zero is not small. An
    ablation of SWE, ours.
    """

    needs = ("mean_magnitude",)

    def score(self, evidence: Evidence) -> Scores:
        means = evidence.trajectory["mean_magnitude"]
        return {name: mean.clone() for name, mean in means.items()}
