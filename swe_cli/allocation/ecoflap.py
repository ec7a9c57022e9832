"""ECoFLaP: blocks that the loss feels keep more, told without a gradient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.allocation.shares import counts_of_shares, grouped
from swe_cli.contracts import Counts, RankedScores, Surroundings, Within
from swe_cli.errors import UsageError
from swe_cli.masks.rank import exact_count


@dataclass(frozen=True, kw_only=True)
class ECoFLaP:
    """Coarse-to-fine layer-wise pruning, zeroth order (Sung et al. 2024, arXiv 2310.02998).

    S_g: Σ over a block's tensors of |L(θ + εz) − L(θ − εz)| / 2ε (``Surroundings.sensitivities``).
    Of the K = Σn(1 − p) weights that stay, every block first keeps what a sparsity of p + ``slack``
    leaves it; the rest is given out in proportion to S, to blocks that are not whole yet.
    """

    consults: ClassVar[Sequence[str]] = ()
    probes: ClassVar[bool] = True

    slack: float
    within: Within

    def __post_init__(self) -> None:
        if not 0 < self.slack <= 1:
            raise UsageError(
                f"allocation.slack={self.slack} is not in (0, 1].", "Write allocation.slack=0.1"
            )

    def counts(self, ranked: RankedScores, ratio: float, around: Surroundings) -> Counts:
        felt, blocks = around.sensitivities(), grouped(ranked.sizes, around)
        of_block: dict[str, float] = {}
        for name, value in felt.items():
            block = around.block_of(name)
            of_block[block] = of_block.get(block, 0.0) + value
        sizes = {block: sum(ranked.sizes[n] for n in names) for block, names in blocks.items()}
        total = exact_count(ratio, ranked.total)
        kept = kept_of_blocks(
            sizes,
            {block: of_block.get(block, 0.0) for block in sizes},
            ranked.total - total,
            min(1.0, ratio + self.slack),
        )
        shares = {
            n: 1 - kept[block] / sizes[block] for block, names in blocks.items() for n in names
        }
        return counts_of_shares(ranked.sizes, shares, total)


def kept_of_blocks(
    sizes: Counts, sensitivities: dict[str, float], keep: int, most_sparse: float
) -> Counts:
    """How many weights every block keeps; ``keep`` in all."""
    floors = {block: math.ceil(size * (1 - most_sparse)) for block, size in sizes.items()}
    kept, left = dict(floors), set(sizes)
    while sum(kept.values()) < keep and left:
        missing = keep - sum(kept.values())
        felt = sum(sensitivities[block] for block in left)
        for block in sorted(left):
            share = sensitivities[block] / felt if felt > 0 else 1 / len(left)
            kept[block] = min(sizes[block], kept[block] + math.ceil(share * missing))
        left = {block for block in left if kept[block] < sizes[block]}
        if felt > 0:
            left = {block for block in left if sensitivities[block] > 0} or left
    for block in sorted(kept, key=lambda b: -kept[b]):  # what was rounded up too much
        surplus = sum(kept.values()) - keep
        kept[block] -= max(0, min(surplus, kept[block] - floors[block]))
    return kept
