"""ECoFLaP: blocks that the loss feels keep more, told without a gradient."""

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from swe_cli.allocation.shares import counts_of_shares, grouped
from swe_cli.contracts import Allocation, AllocationContext
from swe_cli.ranking import Ranking, Within, exact_count
from swe_cli.records import Counts


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
        blocks = grouped(ranking.sizes, context)
        of_block: dict[str, float] = {}
        for name, sensitivity in context.sensitivities().items():
            block = context.block_of(name)
            of_block[block] = of_block.get(block, 0.0) + sensitivity
        sizes = {block: sum(ranking.sizes[n] for n in names) for block, names in blocks.items()}
        total = exact_count(ratio, ranking.total)
        kept = kept_of_blocks(
            sizes,
            {block: of_block.get(block, 0.0) for block in sizes},
            ranking.total - total,
            min(1.0, ratio + self.slack),
        )
        shares = {
            n: 1 - kept[block] / sizes[block] for block, names in blocks.items() for n in names
        }
        return counts_of_shares(ranking.sizes, shares, total)


def kept_of_blocks(
    sizes: Counts, sensitivities: dict[str, float], keep: int, most_sparse: float
) -> Counts:
    """How many weights every block keeps; ``keep`` in all."""
    floors = {block: math.ceil(size * (1 - most_sparse)) for block, size in sizes.items()}
    kept, left = dict(floors), set(sizes)
    while sum(kept.values()) < keep and left:
        missing = keep - sum(kept.values())
        total_sensitivity = sum(sensitivities[block] for block in left)
        for block in sorted(left):
            share = (
                sensitivities[block] / total_sensitivity if total_sensitivity > 0 else 1 / len(left)
            )
            kept[block] = min(sizes[block], kept[block] + math.ceil(share * missing))
        left = {block for block in left if kept[block] < sizes[block]}
        if total_sensitivity > 0:
            left = {block for block in left if sensitivities[block] > 0} or left
    for block in sorted(kept, key=lambda b: -kept[b]):  # what was rounded up too much
        surplus = sum(kept.values()) - keep
        kept[block] -= max(0, min(surplus, kept[block] - floors[block]))
    return kept
