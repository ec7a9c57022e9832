"""Fractions per tensor made into exact counts."""

from collections.abc import Iterable, Mapping

from swe_cli.contracts import AllocationContext
from swe_cli.records import Counts


def grouped(names: Iterable[str], context: AllocationContext) -> dict[str, list[str]]:
    """Block → the tensors that lie in it, in order."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        blocks.setdefault(context.block_of(name), []).append(name)
    return blocks


def counts_of_shares(sizes: Counts, shares: Mapping[str, float], total: int) -> Counts:
    """Counts next to ``share · size``, clamped to what a tensor has, that sum to ``total``.

    What clamping takes or rounding leaves is shared out in proportion to what tensors have left
    (or to what they lose); the last few by largest remainders.
    """
    wanted = {n: min(max(shares[n], 0.0), 1.0) * size for n, size in sizes.items()}
    for _ in range(len(sizes)):
        off = total - sum(wanted.values())
        room = {n: size - wanted[n] if off > 0 else wanted[n] for n, size in sizes.items()}
        if abs(off) < 1e-9 or sum(room.values()) <= 0:
            break
        part = off / sum(room.values())
        wanted = {n: min(max(wanted[n] + part * room[n], 0.0), size) for n, size in sizes.items()}
    counts = {name: int(value) for name, value in wanted.items()}
    missing = total - sum(counts.values())
    by_remainder = sorted(sizes, key=lambda n: counts[n] - wanted[n])
    while missing:
        for name in by_remainder if missing > 0 else reversed(by_remainder):
            step = 1 if missing > 0 else -1
            if missing and 0 <= counts[name] + step <= sizes[name]:
                counts[name] += step
                missing -= step
    return counts
