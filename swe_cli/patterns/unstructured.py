"""Any weight may go."""

from dataclasses import dataclass

from swe_cli.contracts import Pattern
from swe_cli.ranking import Ranking, Within
from swe_cli.records import Counts, Masks


@dataclass(frozen=True)
class Unstructured(Pattern):
    """The lowest scores of each tensor, or of each row, exactly as many as allocated."""

    def masks(self, ranking: Ranking, counts: Counts, within: Within) -> Masks:
        return ranking.masks(counts, within)
