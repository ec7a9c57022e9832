"""Every tensor loses the same fraction."""

import heapq
from fractions import Fraction

from swe_cli.contracts import Allocation, AllocationContext, Counts
from swe_cli.ranking import Ranking, exact_count


class Uniform(Allocation):
    """Each tensor loses ``ratio`` of its weights; the total is exactly ``round(ratio · n)``."""

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return webster(ranking.sizes, exact_count(ratio, ranking.total))


def webster(sizes: Counts, total: int) -> Counts:
    """Share ``total`` in proportion to ``sizes`` by Webster's divisor method, in exact integers.

    A divisor method is house-monotone: with a larger total nobody gets less, so masks nest as the
    ratio grows. Largest remainders would not promise that (the Alabama paradox).
    """
    whole = sum(sizes.values())
    # Every share at this divisor is one the method has already given; only about one seat per
    # tensor is left to give one by one.
    start = max(0, total - len(sizes))
    counts = {name: (2 * size * start + whole) // (2 * whole) for name, size in sizes.items()}
    claims = [(-_claim(sizes[name], counts[name]), index, name) for index, name in enumerate(sizes)]
    heapq.heapify(claims)
    for _ in range(total - sum(counts.values())):
        _, index, name = claims[0]
        counts[name] += 1
        heapq.heapreplace(claims, (-_claim(sizes[name], counts[name]), index, name))
    return counts


def _claim(size: int, given: int) -> Fraction:
    return Fraction(size, 2 * given + 1)
