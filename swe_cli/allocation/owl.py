"""OWL: blocks with more outliers keep more."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from swe_cli.allocation.shares import counts_of_shares, grouped
from swe_cli.contracts import Allocation, AllocationContext
from swe_cli.ranking import Ranking, Within, exact_count
from swe_cli.records import Counts


@dataclass(frozen=True, kw_only=True)
class OWL(Allocation):
    """Outlier-weighed layerwise sparsity (Yin et al. 2023).

    D_l: the fraction of Wanda's scores in block l, from dense activations, above ``outlier`` times
    their mean. d = 2λ (D − min D) / (max D − min D); S_l = S − (d_l − mean d), the mean weighted by
    size, clamped to [0, 1]; where all D are equal, S everywhere. Every tensor of a block loses its
    S_l; the total is exact.
    """

    consults = ("wanda",)

    outlier: Annotated[float, Field(gt=0, description="The published: allocation.outlier=5.0")]
    strength: Annotated[
        float, Field(ge=0, lt=1, description="The published: allocation.strength=0.08")
    ]
    within: Within

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        scores = context.scores_by("wanda")
        blocks = grouped(scores, context)
        outliers: dict[str, float] = {}
        for block, names in blocks.items():
            sizes = sum(scores[name].numel() for name in names)
            mean = sum(float(scores[name].double().sum()) for name in names) / sizes
            above = sum(int((scores[name] > self.outlier * mean).sum()) for name in names)
            outliers[block] = above / sizes
        lowest, highest = min(outliers.values()), max(outliers.values())
        span = highest - lowest
        shift = {
            block: 2 * self.strength * (found - lowest) / span if span > 0 else 0.0
            for block, found in outliers.items()
        }
        mine = grouped(ranking.sizes, context)
        sizes_of = {block: sum(ranking.sizes[n] for n in names) for block, names in mine.items()}
        mean_shift = sum(shift.get(b, 0.0) * n for b, n in sizes_of.items()) / ranking.total
        shares = {
            name: ratio - (shift.get(block, mean_shift) - mean_shift)
            for block, names in mine.items()
            for name in names
        }
        return counts_of_shares(ranking.sizes, shares, exact_count(ratio, ranking.total))
