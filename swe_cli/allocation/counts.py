"""How many weights each tensor loses."""

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from swe_cli.contracts import Allocation, AllocationContext, Criterion
from swe_cli.errors import PruningError
from swe_cli.ranking import Ranking, Within, exact_count
from swe_cli.records import Counts


class Global(Allocation):
    """The ``round(ratio · n)`` lowest scores of the whole prunable set, wherever they lie."""

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return ranking.lowest(exact_count(ratio, ranking.total))


class Uniform(Allocation):
    """Each tensor loses ``ratio`` of its weights; the total is exactly ``round(ratio · n)``."""

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return webster(ranking.sizes, exact_count(ratio, ranking.total))


def webster(sizes: Counts, total: int) -> Counts:
    """Share ``total`` in proportion to ``sizes`` by Webster's method, in exact integers. Unlike by
    largest remainders nobody gets less of a larger total, so that masks nest as the ratio grows.
    """
    whole = sum(sizes.values())
    # Every share at this divisor is one the method has already given; only about one seat per
    # tensor is left to give one by one.
    start = max(0, total - len(sizes))
    counts = {name: (2 * size * start + whole) // (2 * whole) for name, size in sizes.items()}

    def claims(name: str) -> Iterator[tuple[Fraction, str]]:
        return ((Fraction(sizes[name], 2 * n + 1), name) for n in itertools.count(counts[name]))

    strongest = heapq.merge(*map(claims, sizes), key=lambda claim: claim[0], reverse=True)
    for _, name in itertools.islice(strongest, total - sum(counts.values())):
        counts[name] += 1
    return counts


class Row(Uniform):
    """As ``uniform``, and inside a tensor every row loses the same (Wanda, Sun et al. 2023).

    Where it does not come out even, the first rows lose one weight more.
    """

    within = "row"


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
            can = f"allocation=sigma can cut {cuttable} of {ranking.total} weights, not {count}"
            raise PruningError(f"{can}: tensors without spread are never cut.")
        return ranking.divided_by(deviations).lowest(count)

    def counts_at_rate(self, ranking: Ranking, rate: float) -> Counts:
        thresholds = dict.fromkeys(ranking.scores, -math.inf)
        for name, sigma in _deviations(ranking).items():
            if sigma > 0:  # rounded in σ's own precision, as the paper's code rounds it
                thresholds[name] = float(ranking.scores[name].new_tensor(sigma) * rate)
        return ranking.below(thresholds)


def _deviations(ranking: Ranking) -> dict[str, float]:
    return {n: float(s.std()) if s.numel() > 1 else 0.0 for n, s in ranking.scores.items()}


@dataclass(frozen=True, kw_only=True)
class Like(Allocation):
    """Each tensor loses as many weights as ``criterion`` would take from it at a global rank.

    With ``criterion=random`` it tells whether a criterion's merit is in which weights it takes or
    only in how many from which layer.
    """

    criterion: str

    @property
    def consults(self) -> Sequence[str]:  # type: ignore[override]
        return (self.criterion,)

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return context.rank_by(self.criterion).lowest(exact_count(ratio, ranking.total))


class Published(Global):
    """What ``criterion.published`` names: sigma for SWE, row for Wanda, else mostly global.

    Rows show the allocation it stands for, and share the cells of whoever names that one.
    """

    def stands_for(self, criterion: Criterion) -> str:
        return criterion.published


# Block by block


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
        wide, span = 2 * self.strength if span > 0 else 0.0, span or 1.0
        shifts = {block: wide * (part - lowest) / span for block, part in outliers.items()}
        cut = by_block(ranking.sizes, context)
        mean = sum(shifts.get(block, 0.0) * n for block, n in cut.items()) / ranking.total
        shares = {n: ratio - (shifts.get(block_of(n), mean) - mean) for n in ranking.sizes}
        return counts_of_shares(ranking.sizes, shares, exact_count(ratio, ranking.total))


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


def by_block(values: Mapping[str, float], context: AllocationContext) -> dict[str, float]:
    """The values of tensors, summed over the block that they lie in; blocks in order."""
    sums: dict[str, float] = {}
    for name, value in values.items():
        block = context.block_of(name)
        sums[block] = sums.get(block, 0) + value
    return sums


def counts_of_shares(sizes: Counts, shares: Mapping[str, float], total: int) -> Counts:
    """Counts next to ``share · size``, clamped to what a tensor has, that sum to ``total``.

    What clamping takes or rounding leaves is shared out in proportion to what tensors have left
    (or to what they lose); the last few by largest remainders.
    """
    exact = {n: min(max(shares[n], 0.0), 1.0) * size for n, size in sizes.items()}
    for _ in range(len(sizes)):
        off = total - sum(exact.values())
        room = {n: size - exact[n] if off > 0 else exact[n] for n, size in sizes.items()}
        if abs(off) < 1e-9 or sum(room.values()) <= 0:
            break
        part = off / sum(room.values())
        exact = {n: min(max(exact[n] + part * room[n], 0.0), size) for n, size in sizes.items()}
    counts = {name: int(value) for name, value in exact.items()}
    missing = total - sum(counts.values())  # fewer than tensors whose share is no whole number
    for name in sorted(sizes, key=lambda n: counts[n] - exact[n])[:missing]:
        counts[name] += 1
    return counts
