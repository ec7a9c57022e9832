"""The allocation that a criterion was published with."""

from dataclasses import dataclass

from swe_cli.contracts import Allocation, AllocationContext, Criterion
from swe_cli.ranking import Ranking
from swe_cli.records import Counts


@dataclass(frozen=True)
class Published(Allocation):
    """What ``criterion.published`` names: sigma for SWE, row for Wanda, uniform for SparseGPT; else
    global.

    Rows show the allocation it stands for, and share the cells of whoever names that one.
    """

    def stands_for(self, criterion: Criterion) -> str:
        return criterion.published

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        raise NotImplementedError("the allocation that it stands for is asked")
