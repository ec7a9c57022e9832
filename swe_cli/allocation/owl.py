"""OWL: blocks with more outliers keep more."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from swe_cli.allocation.shares import by_block, counts_of_shares
from swe_cli.contracts import Allocation, AllocationContext, Counts
from swe_cli.ranking import Ranking, Within, exact_count


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
        scores, block_of = context.scores_by("wanda"), context.block_of
        sizes = by_block({name: score.numel() for name, score in scores.items()}, context)
        sums = by_block({n: float(score.double().sum()) for n, score in scores.items()}, context)
        limits = {block: self.outlier * (total / sizes[block]) for block, total in sums.items()}
        above = {n: int((score > limits[block_of(n)]).sum()) for n, score in scores.items()}
        outliers = {block: n / sizes[block] for block, n in by_block(above, context).items()}
        lowest = min(outliers.values())
        span = max(outliers.values()) - lowest
        shifts = {
            block: 2 * self.strength * (fraction - lowest) / span if span > 0 else 0.0
            for block, fraction in outliers.items()
        }
        cut = by_block(ranking.sizes, context)
        mean = sum(shifts.get(block, 0.0) * n for block, n in cut.items()) / ranking.total
        shares = {n: ratio - (shifts.get(block_of(n), mean) - mean) for n in ranking.sizes}
        return counts_of_shares(ranking.sizes, shares, exact_count(ratio, ranking.total))
