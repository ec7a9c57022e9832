"""Any weight may go."""

from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Counts, Masks, RankedScores, Within


@dataclass(frozen=True)
class Unstructured:
    """The lowest scores of each tensor, or of each row, exactly as many as allocated."""

    ratio: ClassVar[float | None] = None
    group: ClassVar[int | None] = None

    def masks(self, ranked: RankedScores, counts: Counts, within: Within) -> Masks:
        return ranked.masks(counts, within)
