"""OWL: blocks with more outliers keep more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.allocation.shares import counts_of_shares, grouped
from swe_cli.contracts import Counts, RankedScores, Surroundings, Within
from swe_cli.errors import UsageError
from swe_cli.masks.rank import exact_count


@dataclass(frozen=True, kw_only=True)
class OWL:
    """Outlier-weighed layerwise sparsity (Yin et al. 2023).

    D_l: the fraction of Wanda's scores in block l, from dense activations, above ``outlier`` times
    their mean. d = 2λ (D − min D) / (max D − min D); S_l = S − (d_l − mean d), the mean weighted by
    size, clamped to [0, 1]; where all D are equal, S everywhere. Every tensor of a block loses its
    S_l; the total is exact.
    """

    consults: ClassVar[Sequence[str]] = ("wanda",)
    probes: ClassVar[bool] = False

    outlier: float
    strength: float
    within: Within

    def __post_init__(self) -> None:
        if not self.outlier > 0 or not 0 <= self.strength < 1:
            raise UsageError(
                "allocation.outlier must be positive, allocation.strength in [0, 1).",
                "The published: allocation.outlier=5.0 allocation.strength=0.08",
            )

    def counts(self, ranked: RankedScores, ratio: float, around: Surroundings) -> Counts:
        scores = around.scores_by("wanda")
        blocks = grouped(scores, around)
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
        mine = grouped(ranked.sizes, around)
        sizes_of = {block: sum(ranked.sizes[n] for n in names) for block, names in mine.items()}
        mean_shift = sum(shift.get(b, 0.0) * n for b, n in sizes_of.items()) / ranked.total
        shares = {
            name: ratio - (shift.get(block, mean_shift) - mean_shift)
            for block, names in mine.items()
            for name in names
        }
        return counts_of_shares(ranked.sizes, shares, exact_count(ratio, ranked.total))
