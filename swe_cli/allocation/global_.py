"""One rank over all tensors: the default of every criterion."""

from dataclasses import dataclass

from swe_cli.contracts import Allocation, AllocationContext
from swe_cli.ranking import Ranking, exact_count
from swe_cli.records import Counts


@dataclass(frozen=True)
class Global(Allocation):
    """The ``round(ratio · n)`` lowest scores of the whole prunable set, wherever they lie."""

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return ranking.lowest(exact_count(ratio, ranking.total))
