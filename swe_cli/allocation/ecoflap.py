"""ECoFLaP: blocks that the loss feels keep more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from swe_cli.allocation.shares import by_block, counts_of_shares
from swe_cli.contracts import Allocation, AllocationContext, Counts
from swe_cli.ranking import Ranking, Within, exact_count


@dataclass(frozen=True, kw_only=True)
class ECoFLaP(Allocation):
    """Coarse-to-fine layer-wise pruning, zeroth order (Sung et al. 2024, arXiv 2310.02998).

    S_g: Σ over a block's tensors of |L(θ + εz) − L(θ − εz)| / 2ε (``sensitivities``).
    Of the K = Σn(1 − p) weights that stay, every block first keeps what a sparsity of p + ``slack``
    leaves it; the rest is given out in proportion to S, to blocks that are not whole yet.
    """

    probes = True

    slack: Annotated[float, Field(gt=0, le=1, description="Write allocation.slack=0.1")]
    within: Within

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        total = exact_count(ratio, ranking.total)
        sizes = by_block(ranking.sizes, context)
        sensitivities = dict.fromkeys(sizes, 0.0) | by_block(context.sensitivities(), context)
        sparsest = min(1.0, ratio + self.slack)
        kept = kept_of_blocks(sizes, sensitivities, ranking.total - total, sparsest)
        lost = {block: 1 - kept[block] / size for block, size in sizes.items()}
        shares = {name: lost[context.block_of(name)] for name in ranking.sizes}
        return counts_of_shares(ranking.sizes, shares, total)


def kept_of_blocks(
    sizes: Mapping[str, float], sensitivities: Mapping[str, float], keep: int, sparsest: float
) -> dict[str, float]:
    """How many weights every block keeps, ``keep`` in all, none sparser than ``sparsest``."""
    floors = {block: math.ceil(size * (1 - sparsest)) for block, size in sizes.items()}
    kept: dict[str, float] = dict(floors)
    growing = sorted(sizes)
    while growing and (missing := keep - sum(kept.values())) > 0:
        total = sum(sensitivities[block] for block in growing)
        for block in growing:
            share = sensitivities[block] / total if total > 0 else 1 / len(growing)
            kept[block] = min(sizes[block], kept[block] + math.ceil(share * missing))
        growing = [block for block in growing if kept[block] < sizes[block]]
    for block in sorted(kept, key=lambda b: -kept[b]):  # what was rounded up too much
        surplus = sum(kept.values()) - keep
        kept[block] -= max(0, min(surplus, kept[block] - floors[block]))
    return kept
