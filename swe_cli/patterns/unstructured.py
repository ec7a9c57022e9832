"""Any weight may go."""

from dataclasses import dataclass

from swe_cli.contracts import Counts, Masks, RankedScores


@dataclass(frozen=True)
class Unstructured:
    """The lowest scores of each tensor, exactly as many as allocated."""

    def masks(self, ranked: RankedScores, counts: Counts) -> Masks:
        return ranked.masks(counts)
