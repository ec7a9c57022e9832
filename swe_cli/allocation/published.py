"""The allocation that a criterion was published with."""

from swe_cli.contracts import Allocation, AllocationContext, Counts, Criterion
from swe_cli.ranking import Ranking


class Published(Allocation):
    """What ``criterion.published`` names: sigma for SWE, row for Wanda, uniform for SparseGPT; else
    global.

    Rows show the allocation it stands for, and share the cells of whoever names that one.
    """

    def stands_for(self, criterion: Criterion) -> str:
        return criterion.published

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        raise NotImplementedError("the allocation that it stands for is asked")
