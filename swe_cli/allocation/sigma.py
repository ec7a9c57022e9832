"""One threshold over scores in standard deviations."""

from math import inf

from swe_cli.contracts import Allocation, AllocationContext, Counts
from swe_cli.errors import PruningError
from swe_cli.ranking import Ranking, exact_count


class Sigma(Allocation):
    """Scores over their tensor's sample standard deviation, at one global threshold.

    By rate: cut where ``score < σ · rate``, in the scores' own precision (arXiv 2502.17071). By
    ratio: the exact global rank of ``score / σ``. A tensor with σ = 0 or one element is never cut.
    """

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        deviations = _deviations(ranking)
        count = exact_count(ratio, ranking.total)
        cuttable = sum(ranking.sizes[name] for name, sigma in deviations.items() if sigma > 0)
        if count > cuttable:
            raise PruningError(
                f"allocation=sigma can cut {cuttable} of {ranking.total} weights, not {count}: "
                "tensors without spread are never cut."
            )
        return ranking.divided_by(deviations).lowest(count)

    def counts_at_rate(self, ranking: Ranking, rate: float) -> Counts:
        """Counts of the paper's multiplier of a standard deviation."""
        thresholds = {
            # σ times rate is rounded in σ's own precision, as the paper's code rounds it.
            name: float(ranking.scores[name].new_tensor(sigma) * rate) if sigma > 0 else -inf
            for name, sigma in _deviations(ranking).items()
        }
        return ranking.below(thresholds)


def _deviations(ranking: Ranking) -> dict[str, float]:
    return {
        name: float(score.std()) if score.numel() > 1 else 0.0
        for name, score in ranking.scores.items()
    }
