"""The paper's rule: every tensor's scores are measured in their own standard deviation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Counts, RankedScores, Surroundings, Within
from swe_cli.errors import PruningError
from swe_cli.masks.rank import exact_count


@dataclass(frozen=True)
class Sigma:
    """Scores over their tensor's sample standard deviation, at one global threshold.

    By rate: cut where ``score < σ · rate``, in the scores' own precision (arXiv 2502.17071). By
    ratio: the exact global rank of ``score / σ``. A tensor with σ = 0 or one element is never cut.
    """

    consults: ClassVar[Sequence[str]] = ()
    within: ClassVar[Within] = "tensor"
    probes: ClassVar[bool] = False

    def counts(self, ranked: RankedScores, ratio: float, around: Surroundings) -> Counts:
        deviations = _deviations(ranked)
        count = exact_count(ratio, ranked.total)
        cuttable = sum(ranked.sizes[name] for name, sigma in deviations.items() if sigma > 0)
        if count > cuttable:
            raise PruningError(
                f"allocation=sigma can cut {cuttable} of {ranked.total} weights, not {count}: "
                "tensors without spread are never cut."
            )
        return ranked.divided_by(deviations).lowest(count)

    def counts_at_rate(self, ranked: RankedScores, rate: float) -> Counts:
        """Counts of the paper's multiplier of a standard deviation."""
        deviations = _deviations(ranked)
        counts = ranked.below(
            {
                # σ times rate is rounded in σ's own precision, as the paper's code rounds it.
                name: float(ranked.scores[name].new_tensor(sigma) * rate)
                for name, sigma in deviations.items()
            }
        )
        return {name: counts[name] if sigma > 0 else 0 for name, sigma in deviations.items()}


def _deviations(ranked: RankedScores) -> dict[str, float]:
    return {
        name: float(score.std()) if score.numel() > 1 else 0.0
        for name, score in ranked.scores.items()
    }
