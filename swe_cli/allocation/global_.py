"""One rank over all tensors."""

from swe_cli.contracts import Allocation, AllocationContext, Counts
from swe_cli.ranking import Ranking, exact_count


class Global(Allocation):
    """The ``round(ratio · n)`` lowest scores of the whole prunable set, wherever they lie."""

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return ranking.lowest(exact_count(ratio, ranking.total))
