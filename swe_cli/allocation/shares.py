"""What allocations by block share."""

from collections.abc import Mapping

from swe_cli.contracts import AllocationContext, Counts


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
