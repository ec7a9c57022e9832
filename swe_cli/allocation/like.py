"""The counts of another criterion."""

from collections.abc import Sequence
from dataclasses import dataclass

from swe_cli.contracts import Allocation, AllocationContext, Counts
from swe_cli.ranking import Ranking, exact_count


@dataclass(frozen=True, kw_only=True)
class Like(Allocation):
    """Each tensor loses as many weights as ``criterion`` would take from it at a global rank.

    With ``criterion=random`` it tells whether a criterion's merit is in which weights it takes or
    only in how many from which layer.
    """

    criterion: str

    @property
    def consults(self) -> Sequence[str]:  # type: ignore[override]
        return (self.criterion,)

    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        return context.rank_by(self.criterion).lowest(exact_count(ratio, ranking.total))
